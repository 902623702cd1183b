"""The two stages of FVGen's Algorithm 1. A method holds the roles and returns losses; it owns no optimizer or loop."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fvgen.diffusion import guide
from fvgen.distillation.critic import CriticHead
from fvgen.distillation.divergences import weight
from fvgen.distillation.losses import critic_loss, distribution_matching_loss, generator_loss
from fvgen.models.denoiser import Condition, VideoDenoiser


@dataclass(frozen=True)
class DistillationConfig:
    """What both stages share.

    Attributes:
        steps: the student's sampling steps; its times are the trailing ones.
        least_time, most_time: range of the times at which distributions are compared.
        guidance_scale: of the real score.
        guidance_rescale: of the real score.
        divergence: weight of the distribution-matching gradient.
        inputs: what the student denoises in training: ``"noised_real"`` (Algorithm 1, line 5) or ``"simulated"``, its
            own unfinished samples, as when it is used (backward simulation, Yin et al. 2024, DMD2, section 4.5).
    """

    steps: int = 4
    least_time: int = 20
    most_time: int = 980
    guidance_scale: float = 1.0
    guidance_rescale: float = 0.7
    divergence: str = "softened_reverse_kl"
    inputs: str = "noised_real"


@dataclass
class Roles:
    """The networks: the frozen teacher, the student, the fake score (stage 2 only), the critic's head."""

    teacher: VideoDenoiser
    student: VideoDenoiser
    fake_score: VideoDenoiser
    head: CriticHead


class FewStepDistillation:
    """Losses of every phase, for one batch of clean latents ``x0 [B, C, T, h, w]`` and its condition."""

    def __init__(self, roles: Roles, config: DistillationConfig) -> None:
        if config.inputs not in ("noised_real", "simulated"):
            raise ValueError(f"unknown inputs '{config.inputs}'; use noised_real or simulated")
        self.roles = roles
        self.config = config
        self.times = torch.tensor(roles.teacher.schedule.trailing_timesteps(config.steps))

    def student_x0(self, x0: Tensor, condition: Condition, generator: torch.Generator) -> Tensor:
        """The student denoises, at one of its own times, real clips noised to it or what it made of pure noise."""
        if self.config.inputs == "simulated":
            x_t, t = self._simulated(x0, condition, generator)
        else:
            t = self.times[torch.randint(len(self.times), (x0.shape[0],), generator=generator)].to(x0.device)
            x_t = self.roles.student.schedule.add_noise(x0, self._noise(x0, generator), t)
        return self.roles.student.x0(x_t, t, condition)

    @torch.no_grad()
    def _simulated(self, like: Tensor, condition: Condition, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The student's sampling stopped before a random one of its steps: the noisy clips and their time ``[B]``."""
        student = self.roles.student
        x_t, stop = self._noise(like, generator), int(torch.randint(len(self.times), (), generator=generator))
        times = [time.expand(like.shape[0]).to(like.device) for time in self.times]
        for now, after in zip(times[:stop], times[1:]):
            x_t = student.schedule.add_noise(student.x0(x_t, now, condition), self._noise(like, generator), after)
        return x_t, times[stop]

    def critic(self, real: Tensor, fake: Tensor, condition: Condition, generator: torch.Generator) -> Tensor:
        """Critic loss on real and fake clips at the same noise and time (line 9); trains the head only."""
        t, noise = self._time(real, generator), self._noise(real, generator)
        schedule = self.roles.teacher.schedule
        with torch.no_grad():
            noised = [schedule.add_noise(x, noise, t) for x in (real, fake.detach())]
            features = [self.roles.teacher.features(x, t, condition) for x in noised]
        return critic_loss(real_logit=self.roles.head(features[0]), fake_logit=self.roles.head(features[1]))

    def adversarial(self, fake: Tensor, condition: Condition, generator: torch.Generator) -> Tensor:
        """Stage 1, the student's loss: through the head and the frozen teacher's encoder into the student."""
        t, noise = self._time(fake, generator), self._noise(fake, generator)
        noised = self.roles.teacher.schedule.add_noise(fake, noise, t)
        return generator_loss(fake_logit=self.roles.head(self.roles.teacher.features(noised, t, condition)))

    def fake_denoising(self, fake: Tensor, condition: Condition, generator: torch.Generator) -> Tensor:
        """Stage 2, the fake score learns the student's distribution: velocity error on its clips."""
        t, noise = self._time(fake, generator), self._noise(fake, generator)
        schedule, fake = self.roles.fake_score.schedule, fake.detach()
        predicted = self.roles.fake_score.velocity(schedule.add_noise(fake, noise, t), t, condition)
        return (predicted - schedule.velocity(fake, noise, t)).square().mean()

    def distribution_matching(self, fake: Tensor, condition: Condition, generator: torch.Generator) -> Tensor:
        """Stage 2, the student's loss: one teacher pass gives the real score and the critic's features."""
        t, noise = self._time(fake, generator), self._noise(fake, generator)
        teacher, config = self.roles.teacher, self.config
        with torch.no_grad():
            noised = teacher.schedule.add_noise(fake, noise, t)
            real_x0, features = teacher.x0_and_features(noised, t, condition)
            if config.guidance_scale != 1.0:
                real_x0 = self._guided(real_x0, noised, t, condition)
            fake_x0 = self.roles.fake_score.x0(noised, t, condition)
            h = weight(config.divergence, self.roles.head(features))
        return distribution_matching_loss(x0=fake, real_x0=real_x0, fake_x0=fake_x0, weight=h)

    def _guided(self, x0: Tensor, noised: Tensor, t: Tensor, condition: Condition) -> Tensor:
        teacher, config = self.roles.teacher, self.config
        conditional = teacher.schedule.velocity_from_x0(noised, x0, t)
        unconditional = teacher.velocity(noised, t, teacher.drop(condition))
        v = guide(conditional, unconditional, config.guidance_scale, config.guidance_rescale)
        return teacher.schedule.x0_from_velocity(noised, v, t)

    def _time(self, like: Tensor, generator: torch.Generator) -> Tensor:
        low, high = self.config.least_time, self.config.most_time
        return torch.randint(low, high + 1, (like.shape[0],), generator=generator).to(like.device)

    @staticmethod
    def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randn(like.shape, generator=generator).to(like.device)

"""The loss of each network in each phase, for one batch. Owns no optimizer, device or loop.

A figure is a detached ``[B]`` tensor that somebody may want to see.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fvgen.diffusion import guide
from fvgen.distillation.config import DistillationConfig
from fvgen.distillation.divergences import needs_ratio, weight
from fvgen.distillation.draws import Draws
from fvgen.distillation.losses import (
    approximate_r1,
    critic_loss,
    denoising_loss,
    distribution_matching_gradient,
    generator_loss,
    surrogate,
)
from fvgen.distillation.roles import Roles


class Outcome(NamedTuple):
    """A scalar loss and figures by name."""

    loss: Tensor
    figures: dict[str, Tensor]


class Fake(NamedTuple):
    """What the student made: ``x0 [B, ...]``, at which of its times: ``step [B]``, 0 the noisiest."""

    x0: Tensor
    step: Tensor


class Phases:
    """Losses for clean clips ``x0 [B, ...]`` under a condition.

    Args:
        roles: the networks.
        config: the options.
    """

    def __init__(self, roles: Roles, config: DistillationConfig) -> None:
        self.roles = roles
        self.config = config
        self.times = torch.tensor(roles.teacher.schedule.trailing_timesteps(config.steps))

    def fake(self, x0: Tensor, condition: Any, draws: Draws) -> Fake:
        """The student denoises, at one of its own times, real clips noised to it or what it made of pure noise."""
        if self.config.inputs == "simulated":
            x_t, step = self.simulated(x0, condition, draws)
            t = self.times.to(x0.device)[step]
        else:
            step = draws.integers(0, len(self.times), x0)
            t = self.times.to(x0.device)[step]
            x_t = self.roles.student.schedule.add_noise(x0, draws.noise(x0), t)
        return Fake(self.roles.student.x0(x_t, t, condition), step)

    @torch.no_grad()
    def simulated(self, like: Tensor, condition: Any, draws: Draws) -> tuple[Tensor, Tensor]:
        """The student's sampling stopped before a random one of its steps: noisy clips and its index ``[B]``.

        All clips of a batch stop at the same step (backward simulation, Yin et al. 2024, DMD2, section 4.5).
        """
        student = self.roles.student
        x_t, stop = draws.noise(like), draws.one(len(self.times))
        times = [time.expand(like.shape[0]).to(like.device) for time in self.times]
        for now, after in zip(times[:stop], times[1:]):
            x_t = student.schedule.add_noise(student.x0(x_t, now, condition), draws.noise(like), after)
        return x_t, torch.full((like.shape[0],), stop, device=like.device)

    def critic(self, real: Tensor, fake: Fake, condition: Any, draws: Draws) -> Outcome:
        """Critic loss on real and fake clips at the same noise and time (line 9).

        Trains the head; and the fake score where the critic's features are its.
        """
        t, noise = self._time(real, draws), draws.noise(real)
        schedule = self.roles.teacher.schedule
        noised = [schedule.add_noise(x, noise, t) for x in (real, fake.x0.detach())]
        features = [self._critic_features(x, t, condition) for x in noised]
        penalised = self.config.r1_weight > 0
        if penalised:
            moved = noised[0] + self.config.r1_sigma * draws.noise(real)
            features.append(self._critic_features(moved, t, condition))
        real_logit, fake_logit, *moved_logit = self._logits(torch.cat(features), fake.step).chunk(len(features))
        loss = critic_loss(real_logit=real_logit, fake_logit=fake_logit, kind=self.config.adversarial)
        if penalised:
            r1 = approximate_r1(logit=real_logit, moved_logit=moved_logit[0], sigma=self.config.r1_sigma)
            loss = loss + self.config.r1_weight * r1
        figures = {"time": t, "real_logit": real_logit, "fake_logit": fake_logit}
        return Outcome(loss, {name: value.detach() for name, value in figures.items()})

    def _logits(self, features: Tensor, step: Tensor) -> Tensor:
        """``[N * B]`` logits of ``N`` batches of features one after the other, all made at ``step [B]``."""
        return self.roles.head(features, step.repeat(len(features) // len(step))).float()

    def _critic_features(self, x_t: Tensor, t: Tensor, condition: Any) -> Tensor:
        if self.config.critic_features == "fake_score":
            return self.roles.fake_score.features(x_t, t, condition)
        with torch.no_grad():
            return self.roles.teacher.features(x_t, t, condition)

    def adversarial(self, real: Tensor, fake: Fake, condition: Any, draws: Draws) -> Outcome:
        """The student's loss through the head and a frozen encoder; ``real`` is seen only by relativistic critics."""
        t, noise = self._time(real, draws), draws.noise(real)
        schedule, backbone = self.roles.teacher.schedule, getattr(self.roles, self.config.critic_features)
        fake_logit = self._logits(backbone.features(schedule.add_noise(fake.x0, noise, t), t, condition), fake.step)
        real_logit = None
        if self.config.adversarial == "relativistic":
            with torch.no_grad():
                real_features = backbone.features(schedule.add_noise(real, noise, t), t, condition)
                real_logit = self._logits(real_features, fake.step)
        loss = generator_loss(fake_logit=fake_logit, kind=self.config.adversarial, real_logit=real_logit)
        return Outcome(loss, {"student_logit": fake_logit.detach()})

    def anchor(self, real: Tensor, fake: Fake, draws: Draws) -> Outcome:
        """How far the student's clips are from the true ones; 0 where no weight asks for it."""
        config, look, figures = self.config.anchor, self.roles.look, {}
        if config.truth > 0:
            axes = tuple(range(1, real.ndim))
            figures["truth"] = (fake.x0.float() - real.float()).square().mean(axes)
        if config.decodes:
            if look is None:
                raise ValueError("perceptual and texture anchors need a way to look at clips")
            seen = draws.several(config.frames, real.shape[2])
            figures["perceptual"], figures["texture"] = look(fake.x0[:, :, seen], real[:, :, seen])
        parts = [getattr(config, name) * value.mean() for name, value in figures.items()]
        loss = torch.stack(parts).sum() if parts else fake.x0.new_zeros(())
        return Outcome(loss, {f"anchor_{name}": value.detach() for name, value in figures.items()})

    def fake_denoising(self, fake: Fake, condition: Any, draws: Draws) -> Outcome:
        """The fake score learns the student's distribution: velocity error on its clips."""
        x0, schedule = fake.x0.detach(), self.roles.fake_score.schedule
        t, noise = self._time(x0, draws), draws.noise(x0)
        predicted = self.roles.fake_score.velocity(schedule.add_noise(x0, noise, t), t, condition)
        return Outcome(denoising_loss(predicted=predicted, target=schedule.velocity(x0, noise, t)), {})

    def distribution_matching(self, fake: Fake, condition: Any, draws: Draws) -> Outcome:
        """The student's loss; one pass of the teacher gives the real score and the critic's features."""
        t, noise = self._time(fake.x0, draws), draws.noise(fake.x0)
        with torch.no_grad():
            noised = self.roles.teacher.schedule.add_noise(fake.x0, noise, t)
            real_x0, fake_x0, h = self._scores(noised, t, fake.step, condition)
            given = {"x0": fake.x0, "real_x0": real_x0, "fake_x0": fake_x0}
            raw = distribution_matching_gradient(**given, weight=torch.ones_like(h), normalise=False)
            gradient = distribution_matching_gradient(**given, weight=h, normalise=not self.config.unnormalised)
        axes = tuple(range(1, fake.x0.ndim))
        figures = {
            "weight": h,
            "gradient_before": raw.square().mean(axes).sqrt(),
            "gradient_after": gradient.square().mean(axes).sqrt(),
        }
        return Outcome(surrogate(x0=fake.x0, gradient=gradient), figures)

    def _scores(self, noised: Tensor, t: Tensor, step: Tensor, condition: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Real and fake ``x0`` at ``noised``, and the weight ``[B]``."""
        roles, config = self.roles, self.config
        real_x0, features = roles.teacher.x0_and_features(noised, t, condition)
        if config.scale != 1.0:
            real_x0 = self._guided(real_x0, noised, t, condition)
        if not needs_ratio(config.divergence):
            return real_x0, roles.fake_score.x0(noised, t, condition), torch.ones(len(t), device=t.device)
        if config.critic_features == "fake_score":
            fake_x0, features = roles.fake_score.x0_and_features(noised, t, condition)
        else:
            fake_x0 = roles.fake_score.x0(noised, t, condition)
        return real_x0, fake_x0, weight(config.divergence, self._logits(features, step))

    def _guided(self, x0: Tensor, noised: Tensor, t: Tensor, condition: Any) -> Tensor:
        teacher, config = self.roles.teacher, self.config
        conditional = teacher.schedule.velocity_from_x0(noised, x0, t)
        unconditional = teacher.velocity(noised, t, teacher.drop(condition))
        v = guide(conditional, unconditional, config.scale, config.guidance_rescale)
        return teacher.schedule.x0_from_velocity(noised, v, t)

    def _time(self, like: Tensor, draws: Draws) -> Tensor:
        return draws.integers(self.config.least_time, self.config.most_time + 1, like)

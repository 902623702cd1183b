"""Distillation methods: the networks they train, the loss of each in each phase, and the methods made of these.

A figure is a detached ``[B]`` tensor that somebody may want to see. Nothing here owns an optimizer, device or loop.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from fvgen.diffusion import NoiseSchedule, guide
from fvgen.diffusion.random import BatchRandom
from fvgen.distillation.config import DistillationConfig
from fvgen.distillation.losses import (
    approximate_r1,
    critic_loss,
    denoising_loss,
    distribution_matching_gradient,
    generator_loss,
    needs_ratio,
    regression_loss,
    surrogate,
    weight,
)
from fvgen.errors import UserError


class Denoiser(Protocol):
    """What a distillation sees of a network; conditions pass through untouched.

    Noisy samples ``x_t`` and unscaled clean ones ``x0`` are ``[B, ...]``, times ``[B]`` int64. An example is
    :class:`fvgen.models.denoiser.VideoDenoiser`; another teacher needs such an adapter, and its schedule.
    """

    schedule: NoiseSchedule

    def velocity(self, x_t: Tensor, t: Tensor, condition: Any) -> Tensor:
        """Predicted velocity, float32."""

    def x0(self, x_t: Tensor, t: Tensor, condition: Any) -> Tensor:
        """Predicted clean sample, float32."""

    def features(self, x_t: Tensor, t: Tensor, condition: Any) -> Tensor:
        """Output of the middle block; the rest does not run."""

    def x0_and_features(self, x_t: Tensor, t: Tensor, condition: Any) -> tuple[Tensor, Tensor]:
        """Clean sample and middle features, in one pass."""

    def drop(self, condition: Any) -> Any:
        """The condition of the unguided branch."""


PictureDistance = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Compares a student's clips ``[B, C, T, h, w]`` with the true ones as pictures, frame by frame: a perceptual distance,
and the difference of their texture, each ``[B]``."""


@dataclass
class Roles:
    """The networks of a distillation.

    Attributes:
        teacher: frozen.
        student: starts as the teacher.
        fake_score: starts as the teacher (Algorithm 1, line 2).
        head: features, and the index ``[B]`` of the student's time, to ``[B]`` logits, positive for real.
        perceptual: compares clips as pictures, where a loss asks for it.
        shown: what users are shown of the student's clips ``[B, ...]`` under a condition; anchors compare that.
    """

    teacher: Denoiser
    student: Denoiser
    fake_score: Denoiser
    head: nn.Module
    perceptual: PictureDistance | None = None
    shown: Callable[[Tensor, Any], Tensor] | None = None


class Outcome(NamedTuple):
    """A scalar loss and figures by name."""

    loss: Tensor
    figures: dict[str, Tensor]


class Fake(NamedTuple):
    """Clips ``x0 [B, ...]`` that the student made, and at which of its times: ``step [B]``, 0 the noisiest."""

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

    def fake(self, x0: Tensor, condition: Any, draws: BatchRandom) -> Fake:
        """The student denoises, at one of its own times, real clips noised to it or what it made of pure noise."""
        student, times = self.roles.student, self.times.to(x0.device)
        if self.config.inputs == "simulated":
            x_t, step = self.simulated(x0, condition, draws)
        else:
            step = draws.integers(0, len(times), x0)
            x_t = student.schedule.add_noise(x0, draws.noise(x0), times[step])
        return Fake(student.x0(x_t, times[step], condition), step)

    @torch.no_grad()
    def simulated(self, like: Tensor, condition: Any, draws: BatchRandom) -> tuple[Tensor, Tensor]:
        """The student's sampling, stopped before a random step: noisy clips ``[B, ...]``, and the step ``[B]``.

        All clips of a batch stop at the same step (backward simulation, Yin et al. 2024, DMD2, section 4.5).
        """
        student = self.roles.student
        x_t, stop = draws.noise(like), draws.one(len(self.times))
        times = [time.expand(like.shape[0]).to(like.device) for time in self.times]
        for now, after in zip(times[:stop], times[1:]):
            x_t = student.schedule.add_noise(student.x0(x_t, now, condition), draws.noise(like), after)
        return x_t, torch.full((like.shape[0],), stop, device=like.device)

    def critic(self, real: Tensor, fake: Fake, condition: Any, draws: BatchRandom) -> Outcome:
        """The critic's loss on real and fake clips at the same noise and time (Algorithm 1, line 9).

        It trains the head, and the fake score where the critic sees the fake score's features.
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

    def adversarial(self, real: Tensor, fake: Fake, condition: Any, draws: BatchRandom) -> Outcome:
        """The student's loss through the head and a frozen encoder; only relativistic critics see ``real``."""
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

    def anchor(self, real: Tensor, fake: Fake, condition: Any, draws: BatchRandom) -> Outcome:
        """How far the student's clips are from the true ones ``[B, C, T, h, w]``; 0 where no weight asks for it."""
        config, perceptual, figures = self.config.anchor, self.roles.perceptual, {}
        x0 = fake.x0 if self.roles.shown is None else self.roles.shown(fake.x0, condition)
        if config.truth > 0:
            axes = tuple(range(1, real.ndim))
            figures["truth"] = (x0.float() - real.float()).square().mean(axes)
        if config.decodes:
            if perceptual is None:
                raise ValueError("perceptual and texture anchors need a way to look at clips")
            seen = draws.several(config.frames, real.shape[2])
            figures["perceptual"], figures["texture"] = perceptual(x0[:, :, seen], real[:, :, seen])
        parts = [getattr(config, name) * value.mean() for name, value in figures.items()]
        loss = torch.stack(parts).sum() if parts else x0.new_zeros(())
        return Outcome(loss, {f"anchor_{name}": value.detach() for name, value in figures.items()})

    def fake_denoising(self, fake: Fake, condition: Any, draws: BatchRandom) -> Outcome:
        """The fake score's velocity error on the student's clips, from which it learns their distribution."""
        x0, schedule = fake.x0.detach(), self.roles.fake_score.schedule
        t, noise = self._time(x0, draws), draws.noise(x0)
        predicted = self.roles.fake_score.velocity(schedule.add_noise(x0, noise, t), t, condition)
        return Outcome(denoising_loss(predicted=predicted, target=schedule.velocity(x0, noise, t)), {})

    def distribution_matching(self, fake: Fake, condition: Any, draws: BatchRandom) -> Outcome:
        """The student's loss of distribution matching, weighted by what the critic says.

        One pass of the teacher gives the real score and the critic's features.
        """
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
        teacher, schedule = roles.teacher, roles.teacher.schedule
        real_x0, features = teacher.x0_and_features(noised, t, condition)
        if config.scale != 1.0:
            conditional = schedule.velocity_from_x0(noised, real_x0, t)
            unconditional = teacher.velocity(noised, t, teacher.drop(condition))
            v = guide(conditional, unconditional, config.scale, config.guidance_rescale)
            real_x0 = schedule.x0_from_velocity(noised, v, t)
        if not needs_ratio(config.divergence):
            return real_x0, roles.fake_score.x0(noised, t, condition), torch.ones(len(t), device=t.device)
        if config.critic_features == "fake_score":
            fake_x0, features = roles.fake_score.x0_and_features(noised, t, condition)
        else:
            fake_x0 = roles.fake_score.x0(noised, t, condition)
        return real_x0, fake_x0, weight(config.divergence, self._logits(features, step))

    def _time(self, like: Tensor, draws: BatchRandom) -> Tensor:
        return draws.integers(self.config.least_time, self.config.most_time + 1, like)


class Clips(NamedTuple):
    """Clean clips ``x0 [B, ...]`` and their condition."""

    x0: Tensor
    condition: Any


class TrajectoryPoints(NamedTuple):
    """Points ``x_t [B, ...]`` of trajectories at ``t [B]``, and their ends ``x0 [B, ...]``."""

    x_t: Tensor
    t: Tensor
    x0: Tensor
    condition: Any


class Method:
    """A method of distillation: the losses of the student's turn and of the critics' turns before it.

    A method overrides :meth:`student_loss`, and :meth:`critics_loss` where it has critics.

    Attributes:
        learns_from: ``"clips"``: batches are :class:`Clips`; ``"trajectories"``: :class:`TrajectoryPoints`.
        critics: networks that a critic's turn trains; none: there are no such turns.
    """

    learns_from = "clips"
    critics: tuple[str, ...] = ()

    def __init__(self, roles: Roles, config: DistillationConfig) -> None:
        self.config = config
        self.phases = Phases(roles, config)

    def student_turn(self, batch: Any, draws: BatchRandom) -> Outcome:
        """The loss that trains the student: the method's own, and what anchors it to the truth."""
        fake = self.phases.fake(batch.x0, batch.condition, draws)
        own = self.student_loss(batch, fake, draws)
        anchor = self.phases.anchor(batch.x0, fake, batch.condition, draws)
        return Outcome(own.loss + anchor.loss, own.figures | anchor.figures)

    def student_loss(self, batch: Clips, fake: Fake, draws: BatchRandom) -> Outcome:
        """The method's own loss of the clips that the student made; 0 unless a method has one."""
        return Outcome(fake.x0.new_zeros(()), {})

    def critics_turn(self, batch: Clips, draws: BatchRandom) -> Outcome:
        """The loss that trains :attr:`critics`, on what the student makes now."""
        with torch.no_grad():
            fake = self.phases.fake(batch.x0, batch.condition, draws)
        return self.critics_loss(batch, fake, draws)

    def critics_loss(self, batch: Clips, fake: Fake, draws: BatchRandom) -> Outcome:
        """The loss of the critics on real clips and detached fake ones."""
        raise NotImplementedError(f"{type(self).__name__} has no critics")


class GanInit(Method):
    """Stage 1: the student against a critic on the frozen teacher's features (the paper's section 4.1)."""

    critics = ("head",)

    def critics_loss(self, batch: Clips, fake: Fake, draws: BatchRandom) -> Outcome:
        """The critic learns to tell real clips from fake ones."""
        return self.phases.critic(batch.x0, fake, batch.condition, draws)

    def student_loss(self, batch: Clips, fake: Fake, draws: BatchRandom) -> Outcome:
        """The student learns to be taken for real."""
        return self.phases.adversarial(batch.x0, fake, batch.condition, draws)


def _require_ratio(config: DistillationConfig) -> None:
    """Refuse a critic whose logit is not the log ratio of the densities where the weight is made of it."""
    if needs_ratio(config.divergence) and config.adversarial != "bce":
        raise UserError(
            f"`divergence` {config.divergence} is weighted by the critic's density ratio, which a critic trained with "
            f"{config.adversarial} does not give: choose bce, or reverse_kl"
        )


class SoftDmd(Method):
    """Stage 2: distribution matching, weighted by the critic (the paper's section 4.2).

    The critic keeps learning where the weight needs it, unless it is frozen.
    """

    def __init__(self, roles: Roles, config: DistillationConfig) -> None:
        _require_ratio(config)
        super().__init__(roles, config)
        self.judged = needs_ratio(config.divergence) and config.critic == "online"
        self.critics = ("head", "fake_score") if self.judged else ("fake_score",)

    def critics_loss(self, batch: Clips, fake: Fake, draws: BatchRandom) -> Outcome:
        """The fake score learns the student's distribution; the critic learns where it is needed."""
        if not self.judged:
            return self.phases.fake_denoising(fake, batch.condition, draws)
        critic = self.phases.critic(batch.x0, fake, batch.condition, draws)
        return _together(critic, 1.0, self.phases.fake_denoising(fake, batch.condition, draws))

    def student_loss(self, batch: Clips, fake: Fake, draws: BatchRandom) -> Outcome:
        """The student's distribution moves towards the teacher's."""
        return self.phases.distribution_matching(fake, batch.condition, draws)


class Dmd2(Method):
    """Joint training: distribution matching plus an adversarial term (Yin et al. 2024, DMD2)."""

    critics = ("head", "fake_score")

    def __init__(self, roles: Roles, config: DistillationConfig) -> None:
        _require_ratio(config)
        super().__init__(roles, config)

    def critics_loss(self, batch: Clips, fake: Fake, draws: BatchRandom) -> Outcome:
        """The fake score learns the student's distribution, and the critic to tell it from the data."""
        denoising = self.phases.fake_denoising(fake, batch.condition, draws)
        critic = self.phases.critic(batch.x0, fake, batch.condition, draws)
        return _together(critic, self.config.critic_weight, denoising)

    def student_loss(self, batch: Clips, fake: Fake, draws: BatchRandom) -> Outcome:
        """The student's distribution moves towards the teacher's, and the student learns to be taken for real."""
        matching = self.phases.distribution_matching(fake, batch.condition, draws)
        adversarial = self.phases.adversarial(batch.x0, fake, batch.condition, draws)
        loss = matching.loss + self.config.adversarial_weight * adversarial.loss
        return Outcome(loss, matching.figures | adversarial.figures)


def _together(critic: Outcome, weight: float, denoising: Outcome) -> Outcome:
    shown = {"critic_loss": critic.loss.detach(), "denoising_loss": denoising.loss.detach()}
    return Outcome(weight * critic.loss + denoising.loss, critic.figures | shown)


class Polish(Method):
    """The anchors alone, while the learning rate falls: it takes away the noise that steps of one size leave."""

    def __init__(self, roles: Roles, config: DistillationConfig) -> None:
        super().__init__(roles, config)
        if not (config.anchor.truth > 0 or config.anchor.decodes):
            raise UserError("`polish_steps` need an anchor: `anchor.truth`, `anchor.perceptual` or `anchor.texture`")


class OdeRegression(Method):
    """The student maps points of the teacher's trajectories to their ends (CausVid's initialisation)."""

    learns_from = "trajectories"

    def student_turn(self, batch: TrajectoryPoints, draws: BatchRandom) -> Outcome:
        """The student's error at points of trajectories; it has no anchor."""
        x0 = self.phases.roles.student.x0(batch.x_t, batch.t, batch.condition)
        return Outcome(regression_loss(x0=x0, target=batch.x0), {})


class Stage(NamedTuple):
    """A method with its options for a number of student updates."""

    name: str
    steps: int
    method: type[Method]
    config: DistillationConfig


def stages(recipe: str, init: int, match: int, config: DistillationConfig, polish: int = 0) -> tuple[Stage, ...]:
    """The stages of a recipe; all but ``gan_init`` with as many student updates, so that they can be compared.

    The hand-over between stages is the roles as they are: student, head, fake score and their optimizers' states.

    Args:
        recipe: one of `fvgen.distillation.config.RECIPES`.
        init: student updates of the first stage, where there are two.
        match: student updates of the second.
        config: options; ``reverse_kl``, ``dmd2`` and ``causvid`` replace those that define them.
        polish: student updates of a last stage, the same for all.
    """
    plain = replace(config, divergence="reverse_kl")
    joint = replace(plain, critic_features="fake_score", inputs="simulated")
    made = {
        "fvgen": (Stage("gan", init, GanInit, config), Stage("matching", match, SoftDmd, config)),
        "gan_init": (Stage("gan", init, GanInit, config),),
        "gan_only": (Stage("gan", init + match, GanInit, config),),
        "reverse_kl": (Stage("gan", init, GanInit, config), Stage("matching", match, SoftDmd, plain)),
        "no_init": (Stage("matching", init + match, SoftDmd, config),),
        "dmd2": (Stage("joint", init + match, Dmd2, joint),),
        "causvid": (Stage("regression", init, OdeRegression, config), Stage("matching", match, SoftDmd, plain)),
        "regression": (Stage("regression", init + match, OdeRegression, config),),
    }
    last = Stage("polish", polish, Polish, config)
    return tuple(stage for stage in (*made[recipe], last) if stage.steps > 0)

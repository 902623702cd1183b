"""The methods: which networks a turn trains and on what loss. Each is a few lines over the phases they share."""

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fvgen.distillation.config import DistillationConfig
from fvgen.distillation.divergences import needs_ratio
from fvgen.distillation.draws import Draws
from fvgen.distillation.losses import regression_loss
from fvgen.distillation.ode import TrajectoryPoints
from fvgen.distillation.phases import Fake, Outcome, Phases
from fvgen.distillation.roles import Roles


class Clips(NamedTuple):
    """Clean clips ``x0 [B, ...]`` and their condition."""

    x0: Tensor
    condition: Any


class Method(ABC):
    """Losses of a student's turn and of the critics' turns before it.

    Attributes:
        learns_from: ``"clips"``: batches are :class:`Clips`; ``"trajectories"``: :class:`TrajectoryPoints`.
        critics: networks that a critic's turn trains; none: there are no such turns.
    """

    learns_from = "clips"
    critics: tuple[str, ...] = ()

    def __init__(self, roles: Roles, config: DistillationConfig) -> None:
        self.config = config
        self.phases = Phases(roles, config)

    @abstractmethod
    def student_turn(self, batch: Any, draws: Draws) -> Outcome:
        """The loss that trains the student."""

    def critics_turn(self, batch: Clips, draws: Draws) -> Outcome:
        """The loss that trains :attr:`critics`, on what the student makes now."""
        with torch.no_grad():
            fake = self.phases.fake(batch.x0, batch.condition, draws)
        return self.critics_loss(batch, fake, draws)

    def critics_loss(self, batch: Clips, fake: Fake, draws: Draws) -> Outcome:
        """See :meth:`critics_turn`; ``fake`` is detached."""
        raise NotImplementedError(f"{type(self).__name__} has no critics")


class ClipMethod(Method):
    """A method whose student makes clips from batches of :class:`Clips`."""

    def student_turn(self, batch: Clips, draws: Draws) -> Outcome:
        """The loss that trains the student: the method's own, and what anchors it to the truth."""
        fake = self.phases.fake(batch.x0, batch.condition, draws)
        own = self.student_loss(batch, fake, draws)
        anchor = self.phases.anchor(batch.x0, fake, draws)
        return Outcome(own.loss + anchor.loss, own.figures | anchor.figures)

    @abstractmethod
    def student_loss(self, batch: Clips, fake: Fake, draws: Draws) -> Outcome:
        """What the method asks of ``fake``."""


class GanInit(ClipMethod):
    """Stage 1: the student against a critic on the frozen teacher's features (the paper's section 4.1)."""

    critics = ("head",)

    def critics_loss(self, batch: Clips, fake: Fake, draws: Draws) -> Outcome:
        return self.phases.critic(batch.x0, fake, batch.condition, draws)

    def student_loss(self, batch: Clips, fake: Fake, draws: Draws) -> Outcome:
        return self.phases.adversarial(batch.x0, fake, batch.condition, draws)


class SoftDmd(ClipMethod):
    """Stage 2: distribution matching, weighted by the critic (the paper's section 4.2).

    The critic keeps learning where the weight needs it, unless it is frozen.
    """

    def __init__(self, roles: Roles, config: DistillationConfig) -> None:
        config.require_ratio()
        super().__init__(roles, config)
        self.judged = needs_ratio(config.divergence) and config.critic == "online"
        self.critics = ("head", "fake_score") if self.judged else ("fake_score",)

    def critics_loss(self, batch: Clips, fake: Fake, draws: Draws) -> Outcome:
        if not self.judged:
            return self.phases.fake_denoising(fake, batch.condition, draws)
        critic = self.phases.critic(batch.x0, fake, batch.condition, draws)
        denoising = self.phases.fake_denoising(fake, batch.condition, draws)
        shown = {"critic_loss": critic.loss.detach(), "denoising_loss": denoising.loss.detach()}
        return Outcome(critic.loss + denoising.loss, critic.figures | shown)

    def student_loss(self, batch: Clips, fake: Fake, draws: Draws) -> Outcome:
        return self.phases.distribution_matching(fake, batch.condition, draws)


class Dmd2(ClipMethod):
    """Joint training: distribution matching plus an adversarial term (Yin et al. 2024, DMD2)."""

    critics = ("head", "fake_score")

    def __init__(self, roles: Roles, config: DistillationConfig) -> None:
        config.require_ratio()
        super().__init__(roles, config)

    def critics_loss(self, batch: Clips, fake: Fake, draws: Draws) -> Outcome:
        denoising = self.phases.fake_denoising(fake, batch.condition, draws)
        critic = self.phases.critic(batch.x0, fake, batch.condition, draws)
        shown = {"critic_loss": critic.loss.detach(), "denoising_loss": denoising.loss.detach()}
        return Outcome(denoising.loss + self.config.critic_weight * critic.loss, critic.figures | shown)

    def student_loss(self, batch: Clips, fake: Fake, draws: Draws) -> Outcome:
        matching = self.phases.distribution_matching(fake, batch.condition, draws)
        adversarial = self.phases.adversarial(batch.x0, fake, batch.condition, draws)
        loss = matching.loss + self.config.adversarial_weight * adversarial.loss
        return Outcome(loss, matching.figures | adversarial.figures)


class Polish(ClipMethod):
    """The anchors alone, while the learning rate falls: it takes away the noise that steps of one size leave."""

    def __init__(self, roles: Roles, config: DistillationConfig) -> None:
        config.anchor.require()
        super().__init__(roles, config)

    def student_loss(self, batch: Clips, fake: Fake, draws: Draws) -> Outcome:
        return Outcome(fake.x0.new_zeros(()), {})


class OdeRegression(Method):
    """The student maps points of the teacher's trajectories to their ends (CausVid's initialisation)."""

    learns_from = "trajectories"

    def student_turn(self, batch: TrajectoryPoints, draws: Draws) -> Outcome:
        x0 = self.phases.roles.student.x0(batch.x_t, batch.t, batch.condition)
        return Outcome(regression_loss(x0=x0, target=batch.x0), {})


class Stage(NamedTuple):
    """A method with its options for a number of student updates."""

    name: str
    steps: int
    method: type[Method]
    config: DistillationConfig


RECIPES = {
    "fvgen": "the paper: GAN initialisation, then the softened reverse KL",
    "gan_init": "stage 1 alone, for as long as it takes in the paper's method",
    "gan_only": "stage 1 for as long as both stages",
    "reverse_kl": "GAN initialisation, then the plain reverse KL",
    "no_init": "the softened reverse KL from the teacher's weights, without stage 1",
    "dmd2": "joint distribution matching and GAN, critic on the fake score, simulated inputs",
    "causvid": "regression on the teacher's trajectories, then the plain reverse KL",
    "regression": "regression on the teacher's trajectories alone",
}


def stages(recipe: str, init: int, match: int, config: DistillationConfig, polish: int = 0) -> tuple[Stage, ...]:
    """The stages of a recipe; all but ``gan_init`` with as many student updates, so that they can be compared.

    The hand-over between stages is the roles as they are: student, head, fake score and their optimizers' states.

    Args:
        recipe: one of :data:`RECIPES`.
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

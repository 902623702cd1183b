"""The training task of distillation, whatever the data: critics' turns before each of the student's, stage by stage."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from fvgen.distillation.diagnostics import QUANTILES, CriticRecord
from fvgen.distillation.draws import Draws
from fvgen.distillation.methods import Clips, Method, Stage, stages
from fvgen.distillation.ode import TrajectoryPoints
from fvgen.distillation.roles import Roles
from fvgen.errors import UserError
from fvgen.training.engine import Role, Turn
from fvgen.training.recipes import EngineConfig, StudentRecipe
from fvgen.training.schedules import falling
from fvgen.training.trajectories import TrajectoryStore
from fvgen.training.world import World


class Data(Protocol):
    """Where clips come from."""

    def draw(self, rng: np.random.Generator, count: int, at: int = 0) -> Any:
        """``count`` clips, after ``at`` were drawn; may run ahead of time in another thread."""

    def ready(self, drawn: Any) -> Clips:
        """This process's share of what was drawn, on its device."""


class DistillationTask:
    """See :class:`fvgen.training.engine.Task`: the stages of a recipe, critics' turns before each of the student's.

    Args:
        roles: the networks, all equal at the start but for the head.
        recipe: which method, and how.
        data: clips.
        store: trajectories of the teacher, where the recipe needs them.
        engine: for the size of the parts of a batch.
        world: the processes.
    """

    name = "distillation"

    def __init__(
        self,
        roles: Roles,
        recipe: StudentRecipe,
        data: Data,
        store: TrajectoryStore | None,
        engine: EngineConfig,
        world: World,
    ) -> None:
        self.nets, self.recipe, self.data, self.store, self.world = roles, recipe, data, store, world
        self.stages = stages_of(recipe)
        self.methods: list[Method] = [stage.method(roles, stage.config) for stage in self.stages]
        self.ends = np.cumsum([stage.steps for stage in self.stages])
        self.steps, self.seed = int(self.ends[-1]), recipe.seed
        if recipe.batch % (engine.accumulate * world.size):
            raise UserError(
                f"a batch of {recipe.batch} cannot be shared out to {world.size} processes in {engine.accumulate} parts"
            )
        self.part = recipe.batch // engine.accumulate
        self.average = copy.deepcopy(roles.student)
        self.roles = self._trained()
        idle = [name for name in ("fake_score", "head") if name not in self.roles]
        self.frozen: Sequence[nn.Module] = [module(getattr(roles, name)) for name in ("teacher", *idle)]
        self.config: dict[str, Any] = {"recipe": asdict(recipe), "engine": asdict(engine)}
        self.record = CriticRecord(total=roles.teacher.schedule.config.num_timesteps)
        self.weights: list[float] = []

    def _trained(self) -> dict[str, Role]:
        recipe, betas, used = self.recipe, (0.5, 0.99), {"student"}.union(*(m.critics for m in self.methods))
        lrs = {"student": recipe.lr, "fake_score": recipe.critic_lr, "head": recipe.critic_lr * recipe.head_lr}
        trained = {}
        for name, lr in lrs.items():
            if name in used:
                net = module(getattr(self.nets, name))
                trained[name] = Role(net, lr=lambda update, lr=lr: lr, betas=betas, clip=10.0)  # type: ignore[misc]
        begun = recipe.init_steps + recipe.match_steps
        trained["student"].lr = lambda update: falling(update, begun, recipe.polish_steps, recipe.lr)
        trained["student"].average = module(self.average)
        trained["student"].decay = lambda update: recipe.ema
        return trained

    def stage(self, step: int) -> int:
        """Which stage a step belongs to, from 0."""
        return int(np.searchsorted(self.ends, step, side="right"))

    def turns(self, step: int) -> Sequence[Turn]:
        """The critics' turns, if the stage has critics, and the student's."""
        critics = self.methods[self.stage(step)].critics
        before = [Turn("critic", critics)] * (self.recipe.critic_steps if critics else 0)
        return (*before, Turn("student", ("student",)))

    def batch(self, step: int, turn: int, part: int) -> Any:
        """Clips, or points of trajectories."""
        key = (self.seed, step, turn) if part == 0 else (self.seed, step, turn, part)
        rng, method = np.random.default_rng(key), self.methods[self.stage(step)]
        if method.learns_from == "trajectories" or self.recipe.distillation.reals == "teacher":
            assert self.store is not None
            return method, self.store.draw(rng, self.part)
        drawn = (step * (self.recipe.critic_steps + 1) + turn) * self.recipe.batch + part * self.part
        return method, self.data.draw(rng, self.part, drawn)

    def loss(self, turn: Turn, batch: Any, draws: Draws) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        """The method's loss of the turn."""
        method, drawn = batch
        ready: Clips | TrajectoryPoints
        if method.learns_from == "clips" and self.recipe.distillation.reals == "data":
            ready = self.data.ready(drawn)
        else:
            assert self.store is not None
            ready = self.store.ready(drawn)
            if method.learns_from == "clips":
                ready = Clips(ready.x0, ready.condition)
        outcome = (method.critics_turn if turn.kind == "critic" else method.student_turn)(ready, draws)
        return outcome.loss, {"stage": self.methods.index(method) + 1, **self._seen(outcome.figures)}

    def _seen(self, figures: Mapping[str, Tensor]) -> dict[str, float]:
        """Figures ``[B]`` as means; verdicts and weights are remembered for :meth:`after`."""
        if "real_logit" in figures:
            self.record.add(figures["time"], figures["real_logit"], figures["fake_logit"])
        if "weight" in figures:
            self.weights = [*self.weights, *figures["weight"].tolist()][-512:]
        return {name: float(value.float().mean()) for name, value in figures.items() if name != "time"}

    def after(self, step: int) -> Mapping[str, float]:
        """Every 25 steps what the critic is worth, and how the weight is spread."""
        if step % 25 != 24 and step + 1 != self.steps:
            return {}
        found = self.record.figures()
        if self.weights:
            quantiles = np.quantile(self.weights, QUANTILES)
            found |= {f"weight_q{round(100 * q)}": float(v) for q, v in zip(QUANTILES, quantiles)}
        return found

    def pictures(self, step: int) -> Mapping[str, Tensor]:
        """None: only videos are shown, see :class:`VideoDistillationTask`."""
        return {}


def module(net: Any) -> nn.Module:
    """A network as the module it is."""
    assert isinstance(net, nn.Module)
    return net


def stages_of(recipe: StudentRecipe) -> tuple[Stage, ...]:
    """The stages of a recipe in their order."""
    return stages(recipe.method, recipe.init_steps, recipe.match_steps, recipe.distillation, recipe.polish_steps)


def needs_trajectories(recipe: StudentRecipe) -> bool:
    """Whether a recipe learns from the teacher's trajectories."""
    regresses = any(stage.method.learns_from == "trajectories" for stage in stages_of(recipe))
    return regresses or recipe.distillation.reals == "teacher"

"""The training task of distillation, whatever the data: critics' turns before each of the student's, stage by stage."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from fvgen.distillation.diagnostics import QUANTILES, CriticRecord
from fvgen.distillation.draws import Draws
from fvgen.distillation.methods import Clips, Method, Stage, stages
from fvgen.distillation.ode import TrajectoryPoints
from fvgen.distillation.roles import Denoiser, Roles
from fvgen.models.lora import adapted, trainable
from fvgen.training.engine import Role, Turn
from fvgen.training.recipes import StudentRecipe, split_recipe
from fvgen.training.schedules import falling
from fvgen.training.trajectories import TrajectoryStore
from fvgen.training.world import World

M = TypeVar("M", bound=nn.Module)


class Data(Protocol):
    """Where clips come from."""

    def draw(self, key: tuple[int, ...], rows: range, at: int = 0) -> Any:
        """Clips for some rows of the batch that ``key`` names, the ``at``-th of the training.

        Each is a function of the key and its row. May run ahead of time in another thread.
        """

    def ready(self, drawn: Any) -> Clips:
        """What was drawn, on the device of the process."""

    def identity(self) -> dict[str, Any]:
        """What the clips are made from; JSON."""


class DistillationTask:
    """See :class:`fvgen.training.engine.Task`: the stages of a recipe, critics' turns before each of the student's.

    Args:
        roles: the networks, all equal at the start but for the head.
        recipe: which method, and how.
        data: clips.
        store: trajectories of the teacher, where the recipe needs them.
        world: the processes.
        identity: of the teacher, for the run's.
        average: of the student; by default a copy of it.
    """

    name = "distillation"

    def __init__(
        self,
        roles: Roles,
        recipe: StudentRecipe,
        data: Data,
        store: TrajectoryStore | None,
        world: World,
        identity: dict[str, Any],
        average: Denoiser | None = None,
    ) -> None:
        self.nets, self.recipe, self.data, self.store, self.world = roles, recipe, data, store, world
        self.stages = stages_of(recipe)
        self.methods: list[Method] = [stage.method(roles, stage.config) for stage in self.stages]
        self.ends = np.cumsum([stage.steps for stage in self.stages])
        self.steps, self.seed = int(self.ends[-1]), recipe.seed
        self.average = copy.deepcopy(roles.student) if average is None else average
        self.roles = self._trained()
        idle = [name for name in ("fake_score", "head") if name not in self.roles]
        frozen = [module(getattr(roles, name)) for name in ("teacher", *idle)]
        # Networks on a shared base are placed by who made them: sharding would tear the base apart.
        self.frozen: Sequence[nn.Module] = [net for net in frozen if not (recipe.lora.rank and has_velocity(net))]
        self.identity = run_identity(recipe, identity, data)
        self.free: dict[str, Any] = {"recipe": split_recipe(recipe)[1]}
        self.record = CriticRecord(total=roles.teacher.schedule.config.num_timesteps)
        self.weights: list[float] = []

    def _trained(self) -> dict[str, Role]:
        recipe, adam, used = self.recipe, self.recipe.adam, {"student"}.union(*(m.critics for m in self.methods))
        lrs = {"student": recipe.lr, "fake_score": recipe.critic_lr, "head": recipe.critic_lr * recipe.head_lr}
        trained = {}
        for name, lr in lrs.items():
            if name in used:
                net, settings = module(getattr(self.nets, name)), (adam.betas, adam.decay, adam.clip)
                low_rank = recipe.lora.rank > 0 and has_velocity(net)
                part = trainable(net) if low_rank else net
                trained[name] = Role(part, lambda update, lr=lr: lr, *settings, sharded=not low_rank)  # type: ignore[misc]
        begun = recipe.init_steps + recipe.match_steps
        trained["student"].lr = lambda update: falling(update, begun, recipe.polish_steps, recipe.lr)
        average = module(self.average)
        trained["student"].average = trainable(average) if recipe.lora.rank else average
        trained["student"].decay = lambda update: recipe.ema
        return trained

    def rows(self, step: int) -> int:
        """The recipe's batch."""
        return self.recipe.batch

    def stage(self, step: int) -> int:
        """Which stage a step belongs to, from 0."""
        return int(np.searchsorted(self.ends, step, side="right"))

    def turns(self, step: int) -> Sequence[Turn]:
        """The critics' turns, if the stage has critics, and the student's."""
        critics = self.methods[self.stage(step)].critics
        before = [Turn("critic", critics)] * (self.recipe.critic_steps if critics else 0)
        return (*before, Turn("student", ("student",)))

    def batch(self, step: int, turn: int, rows: range) -> Any:
        """Clips, or points of trajectories."""
        key, method = (self.seed, step, turn), self.methods[self.stage(step)]
        if method.learns_from == "trajectories" or self.recipe.distillation.reals == "teacher":
            assert self.store is not None
            return method, self.store.draw(key, rows)
        return method, self.data.draw(key, rows, step * (self.recipe.critic_steps + 1) + turn)

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
        """Figures ``[B]`` as means; verdicts and weights, of all processes, are remembered for :meth:`after`."""
        if "real_logit" in figures:
            verdicts = torch.stack([figures[name].float() for name in ("time", "real_logit", "fake_logit")], -1)
            self.record.add(*self.world.gather(verdicts).unbind(-1))
        if "weight" in figures:
            self.weights = [*self.weights, *self.world.gather(figures["weight"]).tolist()][-512:]
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


def run_identity(recipe: StudentRecipe, teacher: dict[str, Any], data: Data) -> dict[str, Any]:
    """What defines the run of a recipe with a teacher on some data."""
    return {"recipe": split_recipe(recipe)[0], **teacher, "data": data.identity()}


def has_velocity(net: nn.Module) -> bool:
    """Whether a network is a denoiser: not the critic's head."""
    return hasattr(net, "velocity")


def low_rank_roles(
    base: M, recipe: StudentRecipe, world: World, recompute: bool, dtype: torch.dtype | None = None
) -> tuple[M, M, M]:
    """Student, fake score and the student's average on one frozen base, which stays the teacher.

    Every process holds the base whole; only the low-rank parts learn.

    Args:
        base: the teacher; changed to ``dtype`` and frozen.
        recipe: says which layers and ranks.
        world: the processes.
        recompute: see :meth:`World.place`.
        dtype: of the base.
    """
    base.to(dtype)
    world.place(base, shard=False)
    made = tuple(adapted(base, recipe.lora, recipe.seed + k) for k in (0, 1, 0))
    for net in (base, *made[:2]):
        world.place(net, recompute, shard=False)
    return made  # type: ignore[return-value]


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

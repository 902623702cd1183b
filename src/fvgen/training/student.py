"""Distillation of a teacher into a few-step student, on whatever data there is."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from fvgen.data.latents import Corpus
from fvgen.diffusion import few_step_sample
from fvgen.distillation.critic import CriticHead
from fvgen.distillation.diagnostics import QUANTILES, CriticRecord
from fvgen.distillation.draws import Draws
from fvgen.distillation.methods import Clips, Method, Stage, stages
from fvgen.distillation.ode import TrajectoryPoints, trajectories
from fvgen.distillation.roles import Roles
from fvgen.errors import UserError
from fvgen.models.denoiser import Condition
from fvgen.models.model import VideoModel
from fvgen.training.engine import Role, Trainer, Turn
from fvgen.training.logs import sheet
from fvgen.training.look import DecodedLook
from fvgen.training.recipes import EngineConfig, StudentRecipe
from fvgen.training.schedules import falling
from fvgen.training.teacher import batch_condition, load_average, local_clips
from fvgen.training.trajectories import TrajectoryStore
from fvgen.training.world import World


class Data(Protocol):
    """Where clips come from."""

    def draw(self, rng: np.random.Generator, count: int, at: int = 0) -> Any:
        """``count`` clips, after ``at`` were drawn; may run ahead of time in another thread."""

    def ready(self, drawn: Any) -> Clips:
        """This process's share of what was drawn, on its device."""


class VideoData:
    """Clips of a corpus, conditioned by a model's frozen conditioner."""

    def __init__(self, model: VideoModel, corpus: Corpus, recipe: StudentRecipe, world: World) -> None:
        self.model, self.corpus, self.recipe, self.world = model, corpus, recipe, world

    def draw(self, rng: np.random.Generator, count: int, at: int = 0) -> Any:
        """See :class:`Data`."""
        frames = int(rng.integers(2, self.recipe.frames + 1))
        return self.corpus.sample(rng, count, frames, self.recipe.crop, 0.75, at)

    @torch.no_grad()
    def ready(self, drawn: Any) -> Clips:
        """See :class:`Data`."""
        clips = local_clips(self.world, drawn)
        return Clips(clips.latents, batch_condition(self.model, clips))


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


class VideoDistillationTask(DistillationTask):
    """Distillation of a video model, with pictures of one clip: guide, truth, teacher, student, real and fake ``x0``.

    Args:
        model: the teacher; placed on the device of the world and sharded there.
        corpus: of pairs.
        recipe: which method, and how.
        folder: of the run; the teacher's trajectories are kept in it.
        engine: of the run.
        world: the processes.
    """

    def __init__(
        self,
        model: VideoModel,
        corpus: Corpus,
        recipe: StudentRecipe,
        folder: Path,
        engine: EngineConfig,
        world: World,
    ) -> None:
        self.model, self.corpus = model, corpus
        with world.first_process_first():
            corpus.refresh()
        model.to(world.device).eval().requires_grad_(False)
        student, fake = copy.deepcopy(model.denoiser), copy.deepcopy(model.denoiser)
        look = DecodedLook.wanted(model.autoencoder, recipe.distillation.anchor, world.device)
        roles = Roles(model.denoiser, student, fake, seeded_head(model, recipe), look)
        data, store = VideoData(model, corpus, recipe, world), None
        if needs_trajectories(recipe):
            times = torch.tensor(model.denoiser.schedule.trailing_timesteps(recipe.distillation.steps))
            store, batch = TrajectoryStore(folder / "trajectories", times, world), recipe.batch // engine.accumulate
            alone = VideoData(model, corpus, recipe, replace(world, rank=0, size=1, mesh=None))
            files = -(-recipe.distillation.ode_pairs // batch)
            store.make(files, batch, alone, model.denoiser, recipe.distillation, recipe.seed)
        self.sampled: dict[str, Tensor] = {}
        super().__init__(roles, recipe, data, store, engine, world)

    @torch.no_grad()
    def pictures(self, step: int) -> Mapping[str, Tensor]:
        """One sheet; a held-out clip where there is one."""
        frames = self.recipe.frames
        shown = next(self.corpus.held_batches(frames), None)
        shown = shown or self.corpus.sample(np.random.default_rng(0), 1, frames, None)
        clips = local_clips(replace(self.world, rank=0, size=1), shown)
        condition, schedule = batch_condition(self.model, clips), self.nets.teacher.schedule
        noise = torch.randn(clips.latents.shape, generator=torch.Generator().manual_seed(0)).to(self.world.device)
        times = schedule.trailing_timesteps(self.recipe.distillation.steps)
        average: Any = self.average
        student = few_step_sample(
            lambda x, t: average.x0(x, t, condition), schedule, noise, times, torch.Generator().manual_seed(1)
        )
        middle = torch.tensor([schedule.config.num_timesteps // 2], device=self.world.device)
        noised = schedule.add_noise(student, noise, middle)
        rows = {
            "guide": clips.concat[:, : clips.latents.shape[1]],
            "truth": clips.latents,
            "teacher": self._teacher(noise, condition),
            "student": student,
            "real_x0": self.nets.teacher.x0(noised, middle, condition),
            "fake_x0": self.nets.fake_score.x0(noised, middle, condition),
        }
        decoded = {name: self.model.autoencoder.decode(latents.float())[0] for name, latents in rows.items()}
        return {"guide-truth-teacher-student-real-fake": sheet(decoded)}

    def _teacher(self, noise: Tensor, condition: Condition) -> Tensor:
        """The teacher's own sample of the clip; made once."""
        if "teacher" not in self.sampled:
            self.sampled["teacher"] = trajectories(self.nets.teacher, noise, condition, self.recipe.distillation).x0
        return self.sampled["teacher"]


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


def seeded_head(model: VideoModel, recipe: StudentRecipe) -> CriticHead:
    """A head for a model's features, the same in all processes."""
    channels, options = model.config.unet.channel_mult[-1] * model.config.unet.model_channels, recipe.distillation
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return CriticHead(channels, steps=options.steps if options.critic_sees_step else 0)


def student_of(folder: Path, teacher: VideoModel, steps: int) -> VideoModel:
    """The averaged student of a run's newest checkpoint, as a model on the CPU.

    Args:
        folder: of the run.
        teacher: whose autoencoder and conditioner the student keeps.
        steps: it was distilled to; it is sampled so, without guidance.
    """
    sampling = replace(teacher.config.sampling, steps=steps, guidance_scale=1.0, temperature=1.0, few_step=True)
    config = replace(teacher.config, sampling=sampling)
    fresh = VideoModel.build(config)
    load_average(folder, "student", fresh.denoiser)
    denoiser = fresh.denoiser.requires_grad_(False)
    return VideoModel(config, teacher.autoencoder.cpu(), teacher.conditioner.cpu(), denoiser).eval()


def distill(
    model: VideoModel,
    corpus: Corpus,
    recipe: StudentRecipe,
    folder: Path,
    engine: EngineConfig | None = None,
    world: World | None = None,
) -> VideoModel:
    """Distil ``model`` into a few-step student, resuming from ``folder``.

    Args:
        model: the teacher.
        corpus: of pairs.
        recipe: how.
        folder: of the run.
        engine: how the run is carried out.
        world: the processes; by default this one.

    Returns:
        A new model on the CPU: the averaged student with the teacher's autoencoder and conditioner.
    """
    world = world or World()
    engine = engine or EngineConfig()
    Trainer(VideoDistillationTask(model, corpus, recipe, folder, engine, world), folder, engine, world).run()
    return student_of(folder, model, recipe.distillation.steps)

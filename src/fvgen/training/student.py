"""Distilling a teacher into a student: the networks of a run, its turns stage by stage, and the loop around them."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from fvgen.data.latents import Corpus, check_size
from fvgen.data.recipe import ClipDraw
from fvgen.diffusion import few_step_sample
from fvgen.diffusion.random import BatchRandom
from fvgen.distillation.critic import QUANTILES, CriticHead, CriticRecord
from fvgen.distillation.methods import Clips, Denoiser, Method, Roles, Stage, stages
from fvgen.files import whole_folder
from fvgen.models.denoiser import VideoDenoiser
from fvgen.models.lora import adapted, trainable
from fvgen.models.model import VideoModel
from fvgen.training.checkpoints import fingerprint
from fvgen.training.distributed import DistributedContext
from fvgen.training.engine import Role, Task, Trainer, Turn, falling
from fvgen.training.engine_config import EngineConfig
from fvgen.training.export import remember_teacher, student_of, write_provenance
from fvgen.training.held_out import HeldOutRecord, chosen_best
from fvgen.training.logs import sheet
from fvgen.training.perceptual import PerceptualLoss
from fvgen.training.recipes import StudentRecipe, split_recipe
from fvgen.training.run_folder import check_run
from fvgen.training.teacher import batch_condition
from fvgen.training.trajectories import TrajectoryStore, trajectories

M = TypeVar("M", bound=nn.Module)


class Data(Protocol):
    """Where a distillation gets its clips from."""

    def draw(self, key: tuple[int, ...], rows: range, at: int = 0) -> Any:
        """Clips for some rows of the batch that ``key`` names, the ``at``-th of the training.

        Each is a function of the key and its row. May run ahead of time in another thread.
        """

    def ready(self, drawn: Any) -> Clips:
        """The clips that were drawn, on the device of the process."""

    def identity(self) -> dict[str, Any]:
        """What the clips are made from, as JSON."""


class DistillationTask(Task):
    """The stages of a distillation: in each step some turns of the critics, then one of the student.

    Args:
        roles: the networks, all equal at the start but for the head.
        recipe: which method, and how.
        data: the clips.
        store: trajectories of the teacher, where the recipe needs them.
        world: the processes.
        identity: what defines the teacher, as JSON; it becomes part of the run's identity.
        average: the network that follows the student; by default a copy of it.
    """

    name = "distillation"

    def __init__(
        self,
        roles: Roles,
        recipe: StudentRecipe,
        data: Data,
        store: TrajectoryStore | None,
        world: DistributedContext,
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
        # Networks on a shared base are placed by who made them: sharding would tear the base apart.
        others = ("head",) if recipe.lora.rank else ("teacher", "fake_score", "head")
        self.frozen: Sequence[nn.Module] = [getattr(roles, name) for name in others if name not in self.roles]
        self.identity = run_identity(recipe, identity, data)
        self.free = {"recipe": split_recipe(recipe)[1]}
        self.record = CriticRecord(total=roles.teacher.schedule.config.num_timesteps)
        self.weights: list[float] = []

    def _trained(self) -> dict[str, Role]:
        recipe, adam, used = self.recipe, self.recipe.adam, {"student"}.union(*(m.critics for m in self.methods))
        begun = recipe.init_steps + recipe.match_steps
        rates: dict[str, Callable[[int], float]] = {
            "student": lambda update: falling(update, begun, recipe.polish_steps, recipe.lr),
            "fake_score": lambda update: recipe.critic_lr,
            "head": lambda update: recipe.critic_lr * recipe.head_lr,
        }

        def role(name: str) -> Role:
            net, low_rank = getattr(self.nets, name), recipe.lora.rank > 0 and name != "head"
            part = trainable(net) if low_rank else net
            return Role(part, rates[name], adam.betas, adam.decay, adam.clip, sharded=not low_rank)

        trained = {name: role(name) for name in rates if name in used}
        average: Any = self.average
        trained["student"].average = trainable(average) if recipe.lora.rank else average
        trained["student"].decay = lambda update: recipe.ema
        return trained

    def rows(self, step: int) -> int:
        """The recipe's batch."""
        return self.recipe.batch

    def stage(self, step: int) -> int:
        """The number of the stage that a step belongs to, from 0."""
        return int(np.searchsorted(self.ends, step, side="right"))

    def turns(self, step: int) -> Sequence[Turn]:
        """The turns of the critics, if the stage has any, and the student's."""
        critics = self.methods[self.stage(step)].critics
        before = [Turn("critic", critics)] * (self.recipe.critic_steps if critics else 0)
        return (*before, Turn("student", ("student",)))

    def batch(self, step: int, turn: int, rows: range) -> Any:
        """The method of the step, and what it learns from: clips, or points of trajectories."""
        method, at = self.methods[self.stage(step)], step * (self.recipe.critic_steps + 1) + turn
        return method, self._source(method).draw((self.seed, step, turn), rows, at)

    def _source(self, method: Method) -> Any:
        stored = method.learns_from == "trajectories" or self.recipe.distillation.reals == "teacher"
        return self.store if stored else self.data

    def loss(self, turn: Turn, batch: Any, draws: BatchRandom) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        """The method's loss of the turn, a scalar."""
        method, drawn = batch
        ready = self._source(method).ready(drawn)
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
        """Every 25 steps the critic's accuracy and calibration, and quantiles of the weights."""
        if step % 25 != 24 and step + 1 != self.steps:
            return {}
        found = self.record.figures()
        if self.weights:
            quantiles = np.quantile(self.weights, QUANTILES)
            found |= {f"weight_q{round(100 * q)}": float(v) for q, v in zip(QUANTILES, quantiles)}
        return found


def run_identity(recipe: StudentRecipe, teacher: dict[str, Any], data: Data) -> dict[str, Any]:
    """What defines the run of a recipe with a teacher on some data, as JSON."""
    return {"recipe": split_recipe(recipe)[0], **teacher, "data": data.identity()}


def low_rank_roles(
    base: M, recipe: StudentRecipe, world: DistributedContext, recompute: bool, dtype: torch.dtype | None = None
) -> tuple[M, M, M]:
    """Student, fake score and the student's average as low-rank parts on one frozen base, which stays the teacher.

    Every process holds the base whole; only the low-rank parts learn.

    Args:
        base: the teacher; changed to ``dtype`` and frozen.
        recipe: says which layers are adapted, and their rank.
        world: the processes.
        recompute: whether activations are computed again for the backward pass.
        dtype: in which the base is kept.
    """
    base.to(dtype)
    world.place(base, shard=False)
    made = tuple(adapted(base, recipe.lora, recipe.seed + k) for k in (0, 1, 0))
    for net in (base, *made[:2]):
        world.place(net, recompute, shard=False)
    return made  # type: ignore[return-value]


def stages_of(recipe: StudentRecipe) -> tuple[Stage, ...]:
    """The stages of a recipe in their order."""
    return stages(recipe.method, recipe.init_steps, recipe.match_steps, recipe.distillation, recipe.polish_steps)


def needs_trajectories(recipe: StudentRecipe) -> bool:
    """Whether a recipe learns from the teacher's trajectories."""
    regresses = any(stage.method.learns_from == "trajectories" for stage in stages_of(recipe))
    return regresses or recipe.distillation.reals == "teacher"


class VideoData:
    """Clips of a corpus, conditioned by a model's frozen conditioner.

    Args:
        model: the teacher.
        corpus: the clips.
        draw: which of them are drawn.
        device: of the process.
        temperature: of the conditions, see :meth:`fvgen.models.denoiser.VideoDenoiser.prior`.
    """

    def __init__(
        self, model: VideoModel, corpus: Corpus, draw: ClipDraw, device: torch.device, temperature: float = 1.0
    ) -> None:
        self.model, self.corpus, self.clips, self.device = model, corpus, draw, device
        self.temperature = temperature

    def draw(self, key: tuple[int, ...], rows: range, at: int = 0) -> Any:
        """Clips of the corpus, a function of the key and their rows."""
        return self.corpus.sample(key, rows, self.clips, at)

    @torch.no_grad()
    def ready(self, drawn: Any) -> Clips:
        """The clips with their conditions, on the device."""
        clips = drawn.to(self.device)
        condition = replace(batch_condition(self.model, clips), temperature=self.temperature)
        return Clips(clips.latents, condition)

    def identity(self) -> dict[str, Any]:
        """What the corpus is made from and what is drawn of it, as JSON."""
        return {**self.corpus.identity(), "clips": asdict(self.clips), "temperature": self.temperature}


class VideoDistillationTask(DistillationTask):
    """Distillation of a video model.

    Args:
        model: the teacher; placed on the device of the world and sharded there.
        corpus: the clips.
        recipe: which method, and how.
        folder: of the run; the teacher's trajectories are kept in it.
        engine: how the run is carried out.
        world: the processes.
    """

    def __init__(
        self,
        model: VideoModel,
        corpus: Corpus,
        recipe: StudentRecipe,
        folder: Path,
        engine: EngineConfig,
        world: DistributedContext,
    ) -> None:
        self.model, self.corpus = model, corpus
        model.to(world.device).eval().requires_grad_(False)
        corpus.refresh(rank=world.rank, size=world.size)
        check_size(corpus, model, recipe.clips)
        identity = {"teacher": fingerprint(model.denoiser), "conditioner": fingerprint(model.conditioner)}
        data, store = VideoData(model, corpus, recipe.clips, world.device), None
        check_run(folder, self.name, run_identity(recipe, identity, data))  # before hours of trajectories
        average: VideoDenoiser | None = None
        if recipe.lora.rank:
            dtype = torch.bfloat16 if engine.bf16 else None
            student, fake, average = low_rank_roles(model.denoiser, recipe, world, engine.recompute, dtype)
        else:
            student, fake = copy.deepcopy(model.denoiser), copy.deepcopy(model.denoiser)
        look = PerceptualLoss.wanted(model.autoencoder, recipe.distillation.anchor, world.device)
        roles = Roles(model.denoiser, student, fake, seeded_head(model, recipe), look, model.shown_latents)
        if needs_trajectories(recipe):
            sampled_at = model.config.sampling.temperature  # trajectories are the teacher's as it is sampled
            of_teacher = VideoData(model, corpus, recipe.clips, world.device, sampled_at)
            store = TrajectoryStore(folder / "trajectories", recipe.distillation, recipe.seed, of_teacher)
            same_length = recipe.clips.least_frames == recipe.clips.frames
            at_once = len(world.share(recipe.batch, 0, engine.accumulate)) if same_length else 1
            with torch.autocast(world.device.type, torch.bfloat16, enabled=engine.bf16):
                store.make(model.denoiser, identity, world, at_once)  # as many as a training pass holds
        super().__init__(roles, recipe, data, store, world, identity, average)
        self.record_of_held = HeldOutRecord(model, corpus, recipe, folder, world) if recipe.held_out.every else None
        self.sampled: Tensor | None = None  # the teacher's own sample of the clip that is shown

    def after(self, step: int) -> Mapping[str, float]:
        """The critic's figures, and now and then what the average makes of held-out clips."""
        found = dict(super().after(step))
        every = self.recipe.held_out.every
        if self.record_of_held is not None and ((step + 1) % every == 0 or step + 1 == self.steps):
            found |= self.record_of_held.measure(self.average, step + 1)
        return found

    @torch.no_grad()
    def pictures(self, step: int) -> Mapping[str, Tensor]:
        """A sheet ``[3, H, W]`` of one clip, a held-out one where there is one.

        From above: guide, truth, the teacher's sample, the student's, and real and fake ``x0`` of the student's noised.
        """
        draw = replace(self.recipe.clips, crop=None)
        corpus = self.corpus
        shown = corpus.held_batch(corpus.held[0], draw.frames) if corpus.held else corpus.sample((0,), range(1), draw)
        clips = shown.to(self.world.device)
        condition, schedule = batch_condition(self.model, clips), self.nets.teacher.schedule
        noise = BatchRandom(0).noise(clips.latents)
        times = schedule.trailing_timesteps(self.recipe.distillation.steps)
        average: Any = self.average
        student = few_step_sample(
            lambda x, t: average.x0(x, t, condition), schedule, noise, times, torch.Generator().manual_seed(1)
        )
        if self.sampled is None:
            sampled_at = replace(condition, temperature=self.model.config.sampling.temperature)
            self.sampled = trajectories(self.nets.teacher, noise, sampled_at, self.recipe.distillation).x0
        middle = torch.tensor([schedule.config.num_timesteps // 2], device=self.world.device)
        noised = schedule.add_noise(student, noise, middle)
        rows = {
            "guide": clips.concat[:, : clips.latents.shape[1]],
            "truth": clips.latents,
            "teacher": self.sampled,
            "student": student,
            "real_x0": self.nets.teacher.x0(noised, middle, condition),
            "fake_x0": self.nets.fake_score.x0(noised, middle, condition),
        }
        decoded = {name: self.model.autoencoder.decode(latents.float())[0] for name, latents in rows.items()}
        return {"guide-truth-teacher-student-real-fake": sheet(decoded)}


def seeded_head(model: VideoModel, recipe: StudentRecipe) -> CriticHead:
    """A critic's head for a model's features, the same in all processes."""
    channels, options = model.config.unet.channel_mult[-1] * model.config.unet.model_channels, recipe.distillation
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return CriticHead(channels, steps=options.steps if options.critic_sees_step else 0)


def distill(
    model: VideoModel,
    corpus: Corpus,
    recipe: StudentRecipe,
    folder: Path,
    engine: EngineConfig | None = None,
    world: DistributedContext | None = None,
    name: str = "",
) -> VideoModel:
    """Distil a teacher into a few-step student, resuming from ``folder``; ``folder/model`` holds the result.

    Args:
        model: the teacher. Where the recipe leaves guidance open, the real score is guided as the teacher is sampled.
        corpus: the clips.
        recipe: of the distillation.
        folder: of the run.
        engine: how the run is carried out.
        world: the processes; by default this one alone.
        name: of the teacher's folder, by which the run remembers it.

    Returns:
        A new model on the CPU: the averaged student with the teacher's autoencoder and conditioner.
    """
    world, engine = world or DistributedContext(), engine or EngineConfig()
    options, sampling = recipe.distillation, model.config.sampling
    if options.guidance_scale is None:
        scale, rescale = sampling.guidance_scale, sampling.guidance_rescale
        recipe = replace(recipe, distillation=replace(options, guidance_scale=scale, guidance_rescale=rescale))
    if world.rank == 0:
        remember_teacher(folder, model, name)
    # Of a low-rank run the base is cast, which is not undone: its student is merged into the weights as they were.
    base = copy.deepcopy(model.denoiser) if recipe.lora.rank else None
    Trainer(VideoDistillationTask(model, corpus, recipe, folder, engine, world), folder, engine, world).run()
    whole = model if base is None else VideoModel(model.config, model.autoencoder, model.conditioner, base)
    student = student_of(folder, whole, recipe, chosen_best(folder, recipe.held_out.export))
    if world.rank == 0:
        with whole_folder(folder / "model") as model_folder:
            student.save(model_folder, torch.float32)
            write_provenance(folder, student, model_folder)
    return student

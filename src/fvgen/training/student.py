"""Distillation of a video model into a few-step student."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fvgen.data.latents import Corpus, check_size
from fvgen.data.recipe import ClipDraw
from fvgen.diffusion import few_step_sample
from fvgen.distillation.critic import CriticHead
from fvgen.distillation.draws import Draws
from fvgen.distillation.methods import Clips
from fvgen.distillation.ode import trajectories
from fvgen.distillation.roles import Roles
from fvgen.models.denoiser import Condition, VideoDenoiser
from fvgen.models.lora import adapted, merge, trainable
from fvgen.models.model import VideoModel
from fvgen.training.checkpoints import check_run, fingerprint
from fvgen.training.distillation import DistillationTask, low_rank_roles, needs_trajectories, run_identity
from fvgen.training.engine import Trainer
from fvgen.training.held_out import BEST, HeldOutRecord, chosen_best, student_config
from fvgen.training.logs import sheet
from fvgen.training.look import DecodedLook
from fvgen.training.recipes import EngineConfig, StudentRecipe
from fvgen.training.teacher import batch_condition, load_average
from fvgen.training.trajectories import TrajectoryStore
from fvgen.training.world import World


class VideoData:
    """Clips of a corpus, conditioned by a model's frozen conditioner.

    Args:
        model: the teacher.
        corpus: of pairs.
        draw: which clips.
        device: of the process.
        temperature: of the conditions, see :meth:`fvgen.models.denoiser.VideoDenoiser.prior`.
    """

    def __init__(
        self, model: VideoModel, corpus: Corpus, draw: ClipDraw, device: torch.device, temperature: float = 1.0
    ) -> None:
        self.model, self.corpus, self.clips, self.device = model, corpus, draw, device
        self.temperature = temperature

    def draw(self, key: tuple[int, ...], rows: range, at: int = 0) -> Any:
        """See :class:`fvgen.training.distillation.Data`."""
        return self.corpus.sample(key, rows, self.clips, at)

    @torch.no_grad()
    def ready(self, drawn: Any) -> Clips:
        """See :class:`fvgen.training.distillation.Data`."""
        clips = drawn.to(self.device)
        condition = replace(batch_condition(self.model, clips), temperature=self.temperature)
        return Clips(clips.latents, condition)

    def identity(self) -> dict[str, Any]:
        """The corpus and what is drawn of it."""
        return {**self.corpus.identity(), "clips": asdict(self.clips), "temperature": self.temperature}


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
        look = DecodedLook.wanted(model.autoencoder, recipe.distillation.anchor, world.device)
        roles = Roles(model.denoiser, student, fake, seeded_head(model, recipe), look)
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
        self.sampled: dict[str, Tensor] = {}

    def after(self, step: int) -> Mapping[str, float]:
        """What the critic is worth, and now and then what the average makes of held-out clips."""
        found = dict(super().after(step))
        every = self.recipe.held_out.every
        if self.record_of_held is not None and ((step + 1) % every == 0 or step + 1 == self.steps):
            found |= self.record_of_held.measure(self.average, step + 1)
        return found

    @torch.no_grad()
    def pictures(self, step: int) -> Mapping[str, Tensor]:
        """One sheet; a held-out clip where there is one."""
        draw = replace(self.recipe.clips, crop=None)
        shown = next(self.corpus.held_batches(draw.frames), None) or self.corpus.sample((0,), range(1), draw)
        clips = shown.to(self.world.device)
        condition, schedule = batch_condition(self.model, clips), self.nets.teacher.schedule
        noise = Draws(0).noise(clips.latents)
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
            condition = replace(condition, temperature=self.model.config.sampling.temperature)
            self.sampled["teacher"] = trajectories(self.nets.teacher, noise, condition, self.recipe.distillation).x0
        return self.sampled["teacher"]


def seeded_head(model: VideoModel, recipe: StudentRecipe) -> CriticHead:
    """A head for a model's features, the same in all processes."""
    channels, options = model.config.unet.channel_mult[-1] * model.config.unet.model_channels, recipe.distillation
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return CriticHead(channels, steps=options.steps if options.critic_sees_step else 0)


def student_of(
    folder: Path, teacher: VideoModel, recipe: StudentRecipe, best: bool = False, merged: bool = True
) -> VideoModel:
    """The averaged student of a run, as a model on the CPU.

    Args:
        folder: of the run.
        teacher: whose autoencoder and conditioner the student keeps, and in a low-rank run the base.
        recipe: of the run. The student is sampled in its number of steps, without guidance.
        best: the best average that was measured, not that of the newest checkpoint.
        merged: a low-rank student becomes a plain one; ``False``: it keeps its factors, on the teacher's weights.
    """
    config, source = student_config(teacher.config, recipe.distillation.steps), folder / BEST if best else folder
    if recipe.lora.rank:
        student = adapted(teacher.denoiser.cpu(), recipe.lora)
        load_average(source, "student", trainable(student))
        student = merge(student) if merged else student
    else:
        student = VideoModel.build(config).denoiser
        load_average(source, "student", student)
    student.requires_grad_(False)
    return VideoModel(config, teacher.autoencoder.cpu(), teacher.conditioner.cpu(), student).eval()


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
    # Of a low-rank run the base is cast, which is not undone: its student is merged into the weights as they were.
    base = copy.deepcopy(model.denoiser) if recipe.lora.rank else None
    Trainer(VideoDistillationTask(model, corpus, recipe, folder, engine, world), folder, engine, world).run()
    whole = model if base is None else VideoModel(model.config, model.autoencoder, model.conditioner, base)
    return student_of(folder, whole, recipe, chosen_best(folder, recipe.held_out.export))

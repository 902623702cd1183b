"""Distillation of a video model into a few-step student."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fvgen.data.latents import Corpus
from fvgen.diffusion import few_step_sample
from fvgen.distillation.critic import CriticHead
from fvgen.distillation.methods import Clips
from fvgen.distillation.ode import trajectories
from fvgen.distillation.roles import Roles
from fvgen.models.denoiser import Condition
from fvgen.models.model import VideoModel
from fvgen.training.distillation import DistillationTask, needs_trajectories
from fvgen.training.engine import Trainer
from fvgen.training.logs import sheet
from fvgen.training.look import DecodedLook
from fvgen.training.recipes import EngineConfig, StudentRecipe
from fvgen.training.teacher import batch_condition, load_average, local_clips
from fvgen.training.trajectories import TrajectoryStore
from fvgen.training.world import World


class VideoData:
    """Clips of a corpus, conditioned by a model's frozen conditioner.

    Args:
        model: the teacher.
        corpus: of pairs.
        recipe: says how many frames and which crops.
        world: the processes.
        temperature: of the conditions, see :meth:`fvgen.models.denoiser.VideoDenoiser.prior`.
    """

    def __init__(
        self, model: VideoModel, corpus: Corpus, recipe: StudentRecipe, world: World, temperature: float = 1.0
    ) -> None:
        self.model, self.corpus, self.recipe, self.world = model, corpus, recipe, world
        self.temperature = temperature

    def draw(self, rng: np.random.Generator, count: int, at: int = 0) -> Any:
        """See :class:`fvgen.training.distillation.Data`."""
        frames = int(rng.integers(2, self.recipe.frames + 1))
        return self.corpus.sample(rng, count, frames, self.recipe.crop, 0.75, at)

    @torch.no_grad()
    def ready(self, drawn: Any) -> Clips:
        """See :class:`fvgen.training.distillation.Data`."""
        clips = local_clips(self.world, drawn)
        condition = replace(batch_condition(self.model, clips), temperature=self.temperature)
        return Clips(clips.latents, condition)


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
            sampled_at = model.config.sampling.temperature  # trajectories are the teacher's as it is sampled
            alone = VideoData(model, corpus, recipe, replace(world, rank=0, size=1, mesh=None), sampled_at)
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
            condition = replace(condition, temperature=self.model.config.sampling.temperature)
            self.sampled["teacher"] = trajectories(self.nets.teacher, noise, condition, self.recipe.distillation).x0
        return self.sampled["teacher"]


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

"""Training of the many-step teacher: velocity prediction on noised clips."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fvgen.data.latents import ClipBatch, Corpus
from fvgen.distillation.draws import Draws
from fvgen.models.denoiser import Condition
from fvgen.models.model import VideoModel
from fvgen.training import checkpoints
from fvgen.training.engine import Role, Trainer, Turn
from fvgen.training.recipes import EngineConfig, TeacherRecipe
from fvgen.training.schedules import warmed_cosine
from fvgen.training.world import World


def batch_condition(model: VideoModel, batch: ClipBatch) -> Condition:
    """The condition of a batch of cached latents."""
    context, null = model.conditioner(batch.images)
    return Condition(batch.concat, context.float(), null.float())


def sample_times(rng: np.random.Generator, count: int, terminal: float, total: int) -> Tensor:
    """``[count]`` times, uniform but for a share at the last one."""
    times = rng.integers(0, total, count)
    times[rng.random(count) < terminal] = total - 1
    return torch.from_numpy(times)


def velocity_loss(model: VideoModel, batch: ClipBatch, condition: Condition, t: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of the predicted velocity, ``[B]``, in proportion to what the guide leaves unknown of it.

    Squared errors are divided by the standard deviation that the guide leaves (``VideoDenoiser.prior``; 1 for models
    without a guide variance). Without that, the loss is ruled by what cannot be known (busy areas that nobody
    measured, noise that nobody can see near t = 0), and the repairs that most places need drown in it; divided by the
    variance, it would be ruled by the flattest areas.
    """
    schedule = model.denoiser.schedule
    x_t = schedule.add_noise(batch.latents, noise, t)
    predicted = model.denoiser.velocity(x_t, t, condition)
    _, deviation = model.denoiser.prior(x_t, t, condition)
    errors = (predicted - schedule.velocity(batch.latents, noise, t)).square() / deviation
    return errors.mean(dim=(1, 2, 3, 4))


def local_clips(world: World, batch: ClipBatch) -> ClipBatch:
    """This process's clips of a batch, on its device."""
    return ClipBatch(*(world.rows(part) for part in (batch.latents, batch.concat, batch.images)))


@torch.no_grad()
def held_out_loss(
    model: VideoModel, corpus: Corpus, times: tuple[int, ...], frames: int, world: World
) -> dict[str, float]:
    """Error of predicted ``x0`` on held-out clips at some times, with fixed noise; the same in all processes."""
    errors: dict[str, list[float]] = {f"held_x0_{t}": [] for t in times}
    alone = replace(world, rank=0, size=1)
    for k, batch in enumerate(local_clips(alone, b) for b in corpus.held_batches(frames)):
        condition = batch_condition(model, batch)
        noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(k)).to(world.device)
        for t in times:
            at = torch.full((1,), t, device=world.device)
            x_t = model.denoiser.schedule.add_noise(batch.latents, noise, at)
            error = F.mse_loss(model.denoiser.x0(x_t, at, condition), batch.latents)
            errors[f"held_x0_{t}"].append(error.item())
    return {name: float(np.mean(values)) for name, values in errors.items() if values}


def trained_parts(model: VideoModel, vision: str = "trained") -> nn.ModuleDict:
    """What the teacher's training changes of a model; see :attr:`fvgen.training.recipes.TeacherRecipe.vision`."""
    if vision == "frozen":  # the prompts are a language model's, and fixed as well
        return nn.ModuleDict({"unet": model.denoiser.unet, "resampler": model.conditioner.resampler})
    return nn.ModuleDict({"unet": model.denoiser.unet, "conditioner": model.conditioner})


@dataclass(frozen=True)
class _Noised:
    """A batch with its times, noise, and whether its tokens are dropped."""

    clips: ClipBatch
    t: Tensor
    noise: Tensor
    dropped: bool


class TeacherTask:
    """See :class:`fvgen.training.engine.Task`. Small crops first, whole pictures at the end.

    Pairs that appear while it runs in one process are picked up.
    """

    name = "teacher"

    def __init__(
        self, model: VideoModel, corpus: Corpus, recipe: TeacherRecipe, engine: EngineConfig, world: World
    ) -> None:
        self.model, self.corpus, self.recipe, self.engine, self.world = model, corpus, recipe, engine, world
        self.steps, self.seed = recipe.steps, recipe.seed
        self.config: dict[str, Any] = {"recipe": asdict(recipe), "engine": asdict(engine)}
        self.average = VideoModel.build(model.config)
        self.average.load_state_dict(model.state_dict())
        averaged, trained = (trained_parts(m.to(world.device), recipe.vision) for m in (self.average, model))
        model.requires_grad_(False)
        self.roles = {
            "teacher": Role(
                trained,
                lr=lambda update: warmed_cosine(update, recipe.steps, recipe.lr),
                betas=(0.9, 0.99),
                weight_decay=1e-3,
                average=averaged,
                decay=lambda update: min(recipe.ema, (update + 1) / (update + 10)),
            )
        }
        self.frozen: Sequence[nn.Module] = ()
        model.denoiser.train(), model.conditioner.train()
        with world.first_process_first():
            corpus.refresh()

    def turns(self, step: int) -> Sequence[Turn]:
        """One: the teacher."""
        return (Turn("teacher", ("teacher",)),)

    def _clips(self, step: int, part: int, rng: np.random.Generator) -> ClipBatch:
        recipe = self.recipe
        if step >= recipe.full_from * recipe.steps:
            frames, batch, crop = int(rng.integers(2, recipe.full_frames + 1)), recipe.full_batch, None
        else:
            frames, batch, crop = int(rng.integers(2, recipe.frames + 1)), recipe.batch, recipe.crop
        count = max(1, batch // self.engine.accumulate)
        return self.corpus.sample(rng, count, frames, crop, recipe.posed_share, at=step * recipe.batch + part * count)

    def batch(self, step: int, turn: int, part: int) -> _Noised:
        """Clips, times and noise of a step; deterministic by the recipe's seed and the clips there are."""
        if step % 50 == 0 and part == 0 and self.world.size == 1:
            self.corpus.refresh(limit=40)
        key = (self.seed, step) if part == 0 else (self.seed, step, 0, part)
        clips = self._clips(step, part, np.random.default_rng(key))
        rng = np.random.default_rng((self.seed, step, 1) if part == 0 else (self.seed, step, 1, part))
        generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
        total = self.model.config.schedule.num_timesteps
        t = sample_times(rng, len(clips.latents), self.recipe.terminal, total)
        noise = torch.randn(clips.latents.shape, generator=generator)
        return _Noised(clips, t, noise, rng.random() < self.recipe.drop)

    def loss(self, turn: Turn, batch: _Noised, draws: Draws) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        """Weighted velocity error."""
        clips, t, noise = local_clips(self.world, batch.clips), self.world.rows(batch.t), self.world.rows(batch.noise)
        condition = batch_condition(self.model, clips)
        if batch.dropped:
            condition = self.model.denoiser.drop(condition)
        errors = velocity_loss(self.model, clips, condition, t, noise)
        return errors.mean(), {"t": int(t[0]), "clips": len(self.corpus.clips)}

    def after(self, step: int) -> Mapping[str, float]:
        """The held-out error of the average, now and then."""
        if step % 200 != 199 and step + 1 != self.steps:
            return {}
        with torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.engine.bf16):
            return held_out_loss(self.average, self.corpus, (999, 749, 499, 249), self.recipe.frames, self.world)

    def pictures(self, step: int) -> Mapping[str, Tensor]:
        """None."""
        return {}


def load_average(folder: Path, role: str, module: nn.Module) -> Path:
    """Fill an unsharded module with a role's averaged weights from a run's newest checkpoint, in one process.

    Returns:
        The checkpoint.
    """
    newest = checkpoints.whole_checkpoints(folder)[-1]
    tensors = {f"{role}.average.{name}": value for name, value in module.state_dict().items()}
    checkpoints.load(newest, tensors, together=False)
    return newest


def train_teacher(
    model: VideoModel,
    corpus: Corpus,
    recipe: TeacherRecipe,
    folder: Path,
    engine: EngineConfig | None = None,
    world: World | None = None,
) -> VideoModel:
    """Train denoiser and conditioner, resuming from ``folder``.

    Args:
        model: to start from; changed.
        corpus: of pairs.
        recipe: how.
        folder: of the run.
        engine: how the run is carried out.
        world: the processes; by default this one.

    Returns:
        On the CPU, with the averaged weights: ``model``, or where it is sharded a model like it.
    """
    world = world or World()
    engine = engine or EngineConfig()
    whole = copy.deepcopy(model.conditioner) if world.size > 1 else model.conditioner
    Trainer(TeacherTask(model, corpus, recipe, engine, world), folder, engine, world).run()
    trained = model
    if world.size > 1:  # its networks are sharded now
        trained = VideoModel.build(model.config)
        trained.autoencoder, trained.conditioner = model.autoencoder, whole
    load_average(folder, "teacher", trained_parts(trained, recipe.vision))
    return trained.cpu().eval()

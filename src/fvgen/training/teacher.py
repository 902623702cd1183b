"""Training of the many-step teacher: velocity prediction on noised clips."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fvgen.data.latents import ClipBatch, LatentCorpus
from fvgen.models.denoiser import Condition
from fvgen.models.model import VideoModel
from fvgen.progress import track
from fvgen.training.autoencoder import learning_rate
from fvgen.training.runs import Run


@dataclass(frozen=True)
class TeacherRecipe:
    """How the teacher is trained.

    Attributes:
        steps: optimizer steps.
        batch: clips per step.
        frames: frames per clip in the first phase.
        crop: latent height and width of the first phase's crops.
        full_from: share of the steps after which whole pictures and up to ``full_frames`` frames are used.
        full_frames: see ``full_from``.
        full_batch: clips per step in that second phase.
        lr: peak learning rate of AdamW; warmed up, then a cosine to a twentieth.
        ema: decay of the averaged weights, which are the result.
        drop: probability that a clip's tokens are replaced by the null ones (classifier-free guidance).
        terminal: share of samples put at the last time, where sampling begins and the signal is pure noise.
        posed_share: share of clips filmed for real, where there are both kinds.
        weight_floor: error of the guide below which clips are no longer counted more (see ``clip_weights``).
        seed: of data, noise and initialisation.
    """

    steps: int = 3000
    batch: int = 2
    frames: int = 8
    crop: tuple[int, int] = (32, 32)
    full_from: float = 0.8
    full_frames: int = 16
    full_batch: int = 1
    lr: float = 6e-4
    ema: float = 0.998
    drop: float = 0.1
    terminal: float = 0.15
    posed_share: float = 0.65
    weight_floor: float = 0.05
    seed: int = 0


def batch_condition(model: VideoModel, batch: ClipBatch) -> Condition:
    """The condition of a batch of cached latents."""
    context, null = model.conditioner(batch.images)
    return Condition(batch.concat, context.float(), null.float())


def sample_times(rng: np.random.Generator, count: int, terminal: float, total: int) -> Tensor:
    """``[count]`` times, uniform but for a share at the last one."""
    times = rng.integers(0, total, count)
    times[rng.random(count) < terminal] = total - 1
    return torch.from_numpy(times)


def clip_weights(batch: ClipBatch, floor: float) -> Tensor:
    """``[B]`` weights that let easy and hard clips count alike: one over the guide's own error, about 1 on average.

    Without them the loss is ruled by the few clips whose guide is far off, and the fine repairs that most clips need
    drown in their noise.
    """
    guide = batch.concat[:, : batch.latents.shape[1]]
    error = (guide - batch.latents).square().mean(dim=(1, 2, 3, 4))
    return 4 * floor / (error + floor)


def velocity_loss(model: VideoModel, batch: ClipBatch, condition: Condition, t: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of the predicted velocity, ``[B]``."""
    schedule = model.denoiser.schedule
    x_t = schedule.add_noise(batch.latents, noise, t)
    predicted = model.denoiser.velocity(x_t, t, condition)
    return (predicted - schedule.velocity(batch.latents, noise, t)).square().mean(dim=(1, 2, 3, 4))


@torch.no_grad()
def update_average(average: nn.Module, current: nn.Module, decay: float) -> None:
    """Exponential moving average of all parameters."""
    for a, c in zip(average.parameters(), current.parameters()):
        a.lerp_(c, 1 - decay)


class TeacherPhase:
    """Which clips a step trains on: small crops first, whole pictures at the end."""

    def __init__(self, recipe: TeacherRecipe) -> None:
        self.recipe = recipe

    def batch(self, corpus: LatentCorpus, step: int) -> ClipBatch:
        """The batch of ``step``; deterministic by the recipe's seed and the clips there are."""
        recipe = self.recipe
        rng = np.random.default_rng((recipe.seed, step))
        if step >= recipe.full_from * recipe.steps:
            frames = int(rng.integers(2, recipe.full_frames + 1))
            return corpus.sample(rng, recipe.full_batch, frames, None, recipe.posed_share)
        frames = int(rng.integers(2, recipe.frames + 1))
        return corpus.sample(rng, recipe.batch, frames, recipe.crop, recipe.posed_share)


@torch.no_grad()
def held_out_loss(model: VideoModel, corpus: LatentCorpus, times: tuple[int, ...], frames: int) -> dict[str, float]:
    """Error of predicted ``x0`` on held-out clips at some times, with fixed noise."""
    errors: dict[str, list[float]] = {f"held_x0_{t}": [] for t in times}
    for k, batch in enumerate(corpus.held_batches(frames)):
        condition = batch_condition(model, batch)
        noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(k))
        for t in times:
            at = torch.full((1,), t)
            x_t = model.denoiser.schedule.add_noise(batch.latents, noise, at)
            error = F.mse_loss(model.denoiser.x0(x_t, at, condition), batch.latents)
            errors[f"held_x0_{t}"].append(error.item())
    return {name: float(np.mean(values)) for name, values in errors.items() if values}


def train_teacher(
    model: VideoModel, corpus: LatentCorpus, recipe: TeacherRecipe, folder: Path, bf16: bool = False
) -> VideoModel:
    """Train denoiser and conditioner, resuming from ``folder``; the model ends with the averaged weights."""
    run = Run(folder)
    trained = nn.ModuleDict({"unet": model.denoiser.unet, "conditioner": model.conditioner})
    average = VideoModel.build(model.config)
    averaged = nn.ModuleDict({"unet": average.denoiser.unet, "conditioner": average.conditioner})
    average.autoencoder = model.autoencoder
    averaged.load_state_dict(trained.state_dict())
    state, start = run.load(), 0
    optimizer = torch.optim.AdamW(trained.parameters(), lr=recipe.lr, betas=(0.9, 0.99), weight_decay=1e-3)
    if state is not None:
        trained.load_state_dict(state["model"])
        averaged.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    phase = TeacherPhase(recipe)
    model.denoiser.train(), model.conditioner.train()
    corpus.refresh()
    for step in track(range(start, recipe.steps), "teacher"):
        if step % 50 == 0:
            corpus.refresh(limit=40)
        batch = phase.batch(corpus, step)
        rng = np.random.default_rng((recipe.seed, step, 1))
        generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
        t = sample_times(rng, len(batch.latents), recipe.terminal, model.config.schedule.num_timesteps)
        noise = torch.randn(batch.latents.shape, generator=generator)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe.steps, recipe.lr)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            condition = batch_condition(model, batch)
            if rng.random() < recipe.drop:
                condition = model.denoiser.drop(condition)
            errors = velocity_loss(model, batch, condition, t, noise)
        loss = (errors * clip_weights(batch, recipe.weight_floor)).mean()
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        if torch.isfinite(norm):
            optimizer.step()
            update_average(averaged, trained, min(recipe.ema, (step + 1) / (step + 10)))
        run.log(step=step, loss=loss.item(), norm=norm.item(), t=int(t[0]), clips=len(corpus.clips))
        if step % 200 == 199 or step + 1 == recipe.steps:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                run.log(step=step, **held_out_loss(average, corpus, (999, 749, 499, 249), recipe.frames))
        if run.save_due or step + 1 == recipe.steps:
            state = {"model": trained.state_dict(), "average": averaged.state_dict()}
            run.save({**state, "optimizer": optimizer.state_dict(), "step": step + 1})
    trained.load_state_dict(averaged.state_dict())
    return model.eval()

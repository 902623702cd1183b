"""Training of the image autoencoder on random pictures."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fvgen.data.textures import TextureBank
from fvgen.models.autoencoder import start_from_principal_components
from fvgen.progress import track
from fvgen.training.runs import Run

if TYPE_CHECKING:
    from fvgen.models.autoencoder import FrameAutoencoder


@dataclass(frozen=True)
class AutoencoderRecipe:
    """How the autoencoder is trained.

    Attributes:
        steps: optimizer steps.
        batch: pictures per step.
        crop: side of each picture in pixels.
        lr: peak learning rate of AdamW; warmed up, then a cosine to a twentieth.
        kl_weight: weight of the KL divergence of the posterior from a unit Gaussian, per latent value.
        gradient_weight: weight of the L1 distance of horizontal and vertical differences, which keeps edges.
        seed: of data and initialisation.
    """

    steps: int = 2000
    batch: int = 8
    crop: int = 128
    lr: float = 3e-4
    kl_weight: float = 1e-5
    gradient_weight: float = 0.5
    seed: int = 0


def reconstruction_loss(predicted: Tensor, target: Tensor, gradient_weight: float) -> Tensor:
    """L1 + squared error on values in -1..1, and L1 on their spatial differences."""
    loss = (predicted - target).abs().mean() + 2.0 * F.mse_loss(predicted, target)
    for axis in (-1, -2):
        loss = loss + gradient_weight * (predicted.diff(dim=axis) - target.diff(dim=axis)).abs().mean()
    return loss


def learning_rate(step: int, steps: int, peak: float, warmup: int = 100, floor: float = 0.05) -> float:
    """Linear warm-up, then a cosine from ``peak`` to ``floor * peak``."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def _batches(bank: TextureBank, recipe: AutoencoderRecipe, start: int, queue: Queue) -> None:
    for step in range(start, recipe.steps):
        rng = np.random.default_rng((recipe.seed, step))
        queue.put(_sample(bank, rng, recipe.batch, recipe.crop))


def _sample(bank: TextureBank, rng: np.random.Generator, count: int, size: int) -> Tensor:
    pictures = np.stack([bank.sample(rng, size) for _ in range(count)])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def train_autoencoder(
    model: FrameAutoencoder, bank: TextureBank, recipe: AutoencoderRecipe, folder: Path, bf16: bool = False
) -> FrameAutoencoder:
    """Train, resuming from ``folder`` where it holds a run; at the end the latents are scaled to deviation 1.

    Returns:
        The same module, in evaluation mode.
    """
    run, vae = Run(folder), model.vae
    optimizer = torch.optim.AdamW(vae.parameters(), lr=recipe.lr, betas=(0.9, 0.99), weight_decay=1e-4)
    state, start = run.load(), 0
    if state is not None:
        vae.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    else:
        start_from_principal_components(
            model, _sample(bank, np.random.default_rng((recipe.seed, 1 << 31)), 32 * recipe.batch, recipe.crop)
        )
    generator = torch.Generator().manual_seed(recipe.seed + start)
    queue: Queue = Queue(maxsize=4)
    threading.Thread(target=_batches, args=(bank, recipe, start, queue), daemon=True).start()
    vae.train()
    for step in track(range(start, recipe.steps), "autoencoder"):
        images = queue.get()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe.steps, recipe.lr)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            posterior = vae.encode(model.fold(images)).latent_dist
            decoded = model.unfold(vae.decode(posterior.sample(generator)).sample.float())
        kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        loss = reconstruction_loss(decoded, images, recipe.gradient_weight) + recipe.kl_weight * kl
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        if step % 25 == 0 or step + 1 == recipe.steps:
            mse = F.mse_loss(decoded.detach().clamp(-1, 1), images).item() / 4
            spread = posterior.mean.float().std().item()
            run.log(step=step, loss=loss.item(), psnr=-10 * float(np.log10(mse)), kl=kl.item(), spread=spread)
        if run.save_due or step + 1 == recipe.steps:
            run.save({"model": vae.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1})
    vae.eval()
    with torch.no_grad():
        images = _sample(bank, np.random.default_rng((recipe.seed, 1 << 30)), 32, recipe.crop)
        spread = vae.encode(model.fold(images)).latent_dist.mode().std().item()
    vae.register_to_config(scaling_factor=1.0 / spread)
    return model

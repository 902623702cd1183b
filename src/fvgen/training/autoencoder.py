"""Training of the image autoencoder on random pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fvgen.diffusion.random import BatchRandom
from fvgen.models.autoencoder import start_from_principal_components
from fvgen.procedural.textures import TextureBank
from fvgen.training.checkpoints import whole_checkpoints
from fvgen.training.distributed import DistributedContext, device_named
from fvgen.training.engine import Role, Trainer, Turn, warmed_cosine
from fvgen.training.engine_config import EngineConfig
from fvgen.training.recipes import AutoencoderRecipe, split_recipe

if TYPE_CHECKING:
    from fvgen.models.autoencoder import FrameAutoencoder


def reconstruction_loss(predicted: Tensor, target: Tensor, gradient_weight: float) -> Tensor:
    """L1 + squared error on values in -1..1, and L1 on their spatial differences."""
    loss = (predicted - target).abs().mean() + 2.0 * F.mse_loss(predicted, target)
    for axis in (-1, -2):
        loss = loss + gradient_weight * (predicted.diff(dim=axis) - target.diff(dim=axis)).abs().mean()
    return loss


def pictures(bank: TextureBank, rng: np.random.Generator, count: int, size: int) -> Tensor:
    """``[count, 3, size, size]`` random pictures in -1..1."""
    made = np.stack([bank.sample(rng, size) for _ in range(count)])
    return torch.from_numpy(made).permute(0, 3, 1, 2).float() / 127.5 - 1


class AutoencoderTask:
    """See :class:`fvgen.training.engine.Task`."""

    name = "autoencoder"

    def __init__(
        self, model: FrameAutoencoder, bank: TextureBank, recipe: AutoencoderRecipe, world: DistributedContext
    ) -> None:
        self.model, self.bank, self.recipe, self.world = model, bank, recipe, world
        self.steps, self.seed = recipe.steps, recipe.seed
        fixed, free = split_recipe(recipe)
        self.identity: dict[str, Any] = {"recipe": fixed, "photographs": len(bank.files)}
        self.free: dict[str, Any] = {"recipe": free}
        role = Role(
            model.vae,
            lr=lambda update: warmed_cosine(update, recipe.steps, recipe.lr),
            betas=(0.9, 0.99),
            weight_decay=1e-4,
        )
        self.roles = {"autoencoder": role}
        self.frozen: Sequence[nn.Module] = ()
        model.vae.train()

    def turns(self, step: int) -> Sequence[Turn]:
        """One: the autoencoder."""
        return (Turn("autoencoder", ("autoencoder",)),)

    def rows(self, step: int) -> int:
        """The recipe's batch."""
        return self.recipe.batch

    def batch(self, step: int, turn: int, rows: range) -> Tensor:
        """Pictures, ``[B, 3, H, W]``."""
        keys = ((self.seed, step, row) for row in rows)
        return torch.cat([pictures(self.bank, np.random.default_rng(key), 1, self.recipe.crop) for key in keys])

    def loss(self, turn: Turn, batch: Tensor, draws: BatchRandom) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        """Reconstruction and the posterior's divergence from a unit Gaussian."""
        vae, model, images = self.model.vae, self.model, batch.to(self.world.device)
        posterior = vae.encode(model.fold(images)).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        latents = mean + torch.exp(0.5 * logvar) * draws.noise(mean)
        decoded = model.unfold(vae.decode(latents.to(posterior.mean.dtype)).sample.float())
        kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
        loss = reconstruction_loss(decoded, images, self.recipe.gradient_weight) + self.recipe.kl_weight * kl
        error = F.mse_loss(decoded.detach().clamp(-1, 1), images) / 4
        return loss, {"psnr": -10 * error.log10(), "kl": kl.detach(), "spread": mean.detach().std()}

    def after(self, step: int) -> Mapping[str, float]:
        """See `Task`: nothing is measured between steps."""
        return {}

    def pictures(self, step: int) -> Mapping[str, Tensor]:
        """See `Task`: no pictures are shown."""
        return {}


def train_autoencoder(
    model: FrameAutoencoder,
    bank: TextureBank,
    recipe: AutoencoderRecipe,
    folder: Path,
    engine: EngineConfig,
) -> FrameAutoencoder:
    """Train in one process, resuming from ``folder``; at the end the latents are scaled to deviation 1.

    Returns:
        The same module, on the CPU and in evaluation mode.
    """
    engine, world = replace(engine, log_every=25), DistributedContext(device=device_named(engine.device))
    if not whole_checkpoints(folder):
        many = pictures(bank, np.random.default_rng((recipe.seed, 1 << 31)), 32 * recipe.batch, recipe.crop)
        start_from_principal_components(model, many)
    model.to(world.device)
    Trainer(AutoencoderTask(model, bank, recipe, world), folder, engine, world).run()
    model.cpu().vae.eval().requires_grad_(True)
    with torch.no_grad():
        images = pictures(bank, np.random.default_rng((recipe.seed, 1 << 30)), 32, recipe.crop)
        spread = model.vae.encode(model.fold(images)).latent_dist.mode().std().item()
    model.vae.register_to_config(scaling_factor=1.0 / spread)
    return model

"""Training of the image autoencoder on random pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fvgen.diffusion.random import BatchRandom
from fvgen.files import whole_folder
from fvgen.models import preset
from fvgen.models.autoencoder import FrameAutoencoder, start_from_principal_components
from fvgen.models.model import VideoModel
from fvgen.procedural.textures import TextureBank
from fvgen.training.distributed import DistributedContext, device_named
from fvgen.training.engine import Role, Task, Trainer, Turn, warmed_cosine
from fvgen.training.engine_config import EngineConfig
from fvgen.training.recipes import AutoencoderRecipe, split_recipe
from fvgen.training.run_folder import whole_checkpoints


def reconstruction_loss(predicted: Tensor, target: Tensor, gradient_weight: float) -> Tensor:
    """L1 and twice the squared error of pictures ``[B, 3, H, W]`` in -1..1, and L1 of their spatial differences."""
    loss = (predicted - target).abs().mean() + 2.0 * F.mse_loss(predicted, target)
    for axis in (-1, -2):
        loss = loss + gradient_weight * (predicted.diff(dim=axis) - target.diff(dim=axis)).abs().mean()
    return loss


def pictures(bank: TextureBank, rng: np.random.Generator, count: int, size: int) -> Tensor:
    """``[count, 3, size, size]`` random pictures in -1..1."""
    made = np.stack([bank.sample(rng, size) for _ in range(count)])
    return torch.from_numpy(made).permute(0, 3, 1, 2).float() / 127.5 - 1


class AutoencoderTask(Task):
    """An autoencoder that learns to give random pictures back, for :class:`fvgen.training.engine.Trainer`."""

    name = "autoencoder"

    def __init__(
        self, model: FrameAutoencoder, bank: TextureBank, recipe: AutoencoderRecipe, world: DistributedContext
    ) -> None:
        self.model, self.bank, self.recipe, self.world = model, bank, recipe, world
        self.steps, self.seed = recipe.steps, recipe.seed
        fixed, free = split_recipe(recipe)
        self.identity, self.free = {"recipe": fixed, "photographs": len(bank.files)}, {"recipe": free}
        role = Role(model.vae.train(), lambda n: warmed_cosine(n, recipe.steps, recipe.lr), (0.9, 0.99), 1e-4)
        self.roles = {"autoencoder": role}

    def turns(self, step: int) -> Sequence[Turn]:
        """One turn, of the autoencoder."""
        return (Turn("autoencoder", ("autoencoder",)),)

    def rows(self, step: int) -> int:
        """The recipe's batch."""
        return self.recipe.batch

    def batch(self, step: int, turn: int, rows: range) -> Tensor:
        """Pictures, ``[B, 3, H, W]``."""
        keys = ((self.seed, step, row) for row in rows)
        return torch.cat([pictures(self.bank, np.random.default_rng(key), 1, self.recipe.crop) for key in keys])

    def loss(self, turn: Turn, batch: Tensor, draws: BatchRandom) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        """Reconstruction loss of pictures ``[B, 3, H, W]`` and their posterior's divergence from a unit Gaussian."""
        vae, model, images = self.model.vae, self.model, batch.to(self.world.device)
        posterior = vae.encode(model.fold(images)).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        latents = mean + torch.exp(0.5 * logvar) * draws.noise(mean)
        decoded = model.unfold(vae.decode(latents.to(posterior.mean.dtype)).sample.float())
        kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
        loss = reconstruction_loss(decoded, images, self.recipe.gradient_weight) + self.recipe.kl_weight * kl
        error = F.mse_loss(decoded.detach().clamp(-1, 1), images) / 4
        return loss, {"psnr": -10 * error.log10(), "kl": kl.detach(), "spread": mean.detach().std()}


def train_autoencoder(
    name: str, textures: Sequence[Path], recipe: AutoencoderRecipe, folder: Path, engine: EngineConfig
) -> VideoModel:
    """Train the autoencoder of a fresh model in one process, resuming from ``folder``.

    Args:
        name: of the model's preset.
        textures: folders of photographs to train on besides procedural textures.
        recipe: of the training.
        folder: of the run; ``folder/model`` holds the result.
        engine: how the run is carried out.

    Returns:
        The model, on the CPU, its other parts untrained; latents are scaled to a standard deviation of 1.
    """
    torch.manual_seed(recipe.seed)
    whole = VideoModel.build(preset(name))
    model, bank = whole.autoencoder, TextureBank(list(textures), 0.8)
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
    with whole_folder(folder / "model") as model_folder:
        whole.save(model_folder, torch.float32)
    return whole

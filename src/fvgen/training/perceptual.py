"""Latents as pictures: how far a student's clips are from the true ones to a network's eye, and in their texture."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fvgen.distillation.config import AnchorConfig
from fvgen.models.autoencoder import FrameAutoencoder
from fvgen.models.efficientnet import LITE1, EfficientNetLite
from fvgen.models.weight_files import Weights

_CELL = 12  # pixels; cells overlap by half
_FAINT = 1e-4  # gradient energy, grey in 0..1, below which nobody sees a difference


class PerceptualLoss:
    """Compares latents as pictures, a `fvgen.distillation.methods.PictureDistance`.

    Args:
        autoencoder: decodes the latents; frozen.
        network: gives features of the pictures; frozen, and another one than the metrics'. Without it the perceptual
            distance is 0.
    """

    def __init__(self, autoencoder: FrameAutoencoder, network: EfficientNetLite | None) -> None:
        self.autoencoder, self.network = autoencoder, network

    @staticmethod
    def wanted(autoencoder: FrameAutoencoder, anchor: AnchorConfig, device: torch.device) -> "PerceptualLoss | None":
        """The comparison that an anchor asks for, with the published network; ``None`` where it decodes nothing.

        Raises:
            UserError: the network's weights are missing.
        """
        if not anchor.decodes:
            return None
        if anchor.perceptual == 0:
            return PerceptualLoss(autoencoder, None)
        network = EfficientNetLite.published(LITE1, Weights()).eval().requires_grad_(False)
        return PerceptualLoss(autoencoder, network.to(device))

    def __call__(self, x0: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Distances of features, 0..4, and of texture, in nats, each ``[B]``, of latents ``[B, C, T, h, w]``."""
        made = (self.autoencoder.decode(x0).flatten(0, 1) + 1) / 2
        with torch.no_grad():
            true = (self.autoencoder.decode(truth).flatten(0, 1) + 1) / 2
        textures = texture_difference(made, true)
        distances = torch.zeros_like(textures) if self.network is None else self.network.distance(made, true)
        return tuple(v.unflatten(0, (len(x0), -1)).mean(1) for v in (distances, textures))


def clip_figures(made: Tensor, truth: Tensor, network: EfficientNetLite | None) -> dict[str, float]:
    """Figures that compare a clip with the true one, both ``[T, 3, H, W]`` in 0..1.

    Returns:
        ``psnr``: in dB, the mean over frames; ``sharpness``: squared gradients over the truth's, 1 is right;
        ``flicker``: mean absolute change of the error from frame to frame, in 8-bit levels; ``features``: distance of
        the network's features, where there is one.
    """
    error = made - truth
    energies = [sum(float(x.diff(dim=axis).square().mean()) for axis in (-1, -2)) for x in (made, truth)]
    found = {
        "psnr": float(-10 * error.square().mean((1, 2, 3)).clamp_min(1e-10).log10().mean()),
        "sharpness": energies[0] / max(energies[1], 1e-12),
        "flicker": float(255 * error.diff(dim=0).abs().mean()) if len(error) > 1 else 0.0,
    }
    if network is not None:
        found["features"] = float(network.distance(made, truth).mean())
    return found


def gradient_energy(images: Tensor) -> Tensor:
    """Mean squared gradient of the grey value in overlapping cells, ``[F, h, w]``, of ``[F, 3, H, W]`` in 0..1."""
    grey = images.float().mean(1, keepdim=True)
    across = (grey[..., 1:, 1:] - grey[..., 1:, :-1]).square()
    down = (grey[..., 1:, 1:] - grey[..., :-1, 1:]).square()
    return F.avg_pool2d(across + down, _CELL, _CELL // 2)[:, 0]


def texture_difference(one: Tensor, other: Tensor) -> Tensor:
    """``[F]`` mean absolute difference of the logarithms of their :func:`gradient_energy`; blind to where edges are."""
    logs = [(gradient_energy(images) + _FAINT).log() for images in (one, other)]
    return (logs[0] - logs[1]).abs().mean((1, 2))

"""Latents as pictures: how far a student's clips are from the true ones, to the pixel and to a network's eye."""

import torch
from torch import Tensor

from fvgen.distillation.config import DistillationConfig
from fvgen.models.autoencoder import FrameAutoencoder
from fvgen.models.efficientnet import LITE1, EfficientNetLite
from fvgen.models.weight_files import Weights


class DecodedLook:
    """See :class:`fvgen.distillation.roles.Look`; metrics use another member of the network's family.

    Args:
        autoencoder: that decodes, frozen.
        network: that looks, frozen; without it the perceptual distance is 0.
    """

    def __init__(self, autoencoder: FrameAutoencoder, network: EfficientNetLite | None) -> None:
        self.autoencoder, self.network = autoencoder, network

    @staticmethod
    def wanted(
        autoencoder: FrameAutoencoder, options: DistillationConfig, device: torch.device
    ) -> "DecodedLook | None":
        """What the weights of ``options`` ask for, with the published network; nothing where both are 0.

        Raises:
            UserError: the network's weights are missing.
        """
        if not options.anchored:
            return None
        if options.perceptual_weight == 0:
            return DecodedLook(autoencoder, None)
        network = EfficientNetLite.published(LITE1, Weights()).eval().requires_grad_(False)
        return DecodedLook(autoencoder, network.to(device))

    def __call__(self, x0: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Both ``[B]``, of latents ``[B, C, T, h, w]``: pixels in -1..1, distances in 0..4."""
        made = self.autoencoder.decode(x0)
        with torch.no_grad():
            true = self.autoencoder.decode(truth)
        pixels = (made - true).abs().flatten(1).mean(1)
        if self.network is None:
            return pixels, torch.zeros_like(pixels)
        images = [(clip.flatten(0, 1) + 1) / 2 for clip in (made, true)]
        return pixels, self.network.distance(*images).unflatten(0, (len(x0), -1)).mean(1)

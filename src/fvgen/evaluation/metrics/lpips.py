"""LPIPS v0.1 (Zhang et al. 2018): differences of unit features of an ImageNet network, weighted by learnt heads."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fvgen.evaluation.metrics.pictures import as_images
from fvgen.models.efficientnet import unit_channels
from fvgen.models.weight_files import ALEXNET, ALEXNET_HEADS, VGG16, VGG_HEADS, WeightFile, Weights

# The statistics of ImageNet for values in -1..1, as the authors of LPIPS rounded them.
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)


class Trunk(nn.Module):
    """The convolutions of a classifier, with the outputs of some of its layers.

    Args:
        layers: in the order, and so under the numbers, of torchvision's ``features``.
        taps: numbers of the layers whose outputs are returned.
    """

    def __init__(self, layers: Sequence[nn.Module], taps: Sequence[int]):
        super().__init__()
        self.features = nn.Sequential(*layers[: max(taps) + 1])
        self.taps = tuple(taps)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features of ``[F, 3, H, W]``, each ``[F, C, h, w]``."""
        outputs = []
        for number, layer in enumerate(self.features):
            images = layer(images)
            if number in self.taps:
                outputs.append(images)
        return outputs


def vgg16_trunk() -> Trunk:
    """VGG16 (Simonyan and Zisserman 2015) with the last layer of each of its five blocks."""
    layers: list[nn.Module] = []
    channels = 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return Trunk(layers, [3, 8, 15, 22, 29])


def alexnet_trunk() -> Trunk:
    """AlexNet in the form of Krizhevsky 2014 with all its five layers."""
    layers = [
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
    ]  # fmt: skip
    return Trunk(layers, [1, 4, 7, 9, 11])


class Lpips(nn.Module):
    """LPIPS on a trunk.

    Args:
        trunk: the network.
        heads: one weight per channel of every tapped layer.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, trunk: Trunk, heads: Sequence[Tensor]):
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ParameterList([nn.Parameter(h.flatten()) for h in heads])
        self.register_buffer("shift", torch.tensor(_SHIFT).view(3, 1, 1))
        self.register_buffer("scale", torch.tensor(_SCALE).view(3, 1, 1))

    def forward(self, predicted: Tensor, truth: Tensor, scaled: bool = True) -> Tensor:
        """``[F]`` distances of pictures ``[F, H, W, 3]`` in 0..1.

        Args:
            predicted: pictures.
            truth: pictures.
            scaled: map them to -1..1, as LPIPS expects; the code of 3D Gaussian splatting does not.
        """
        total = torch.zeros(len(predicted), device=predicted.device)
        for a, b, head in zip(self._features(predicted, scaled), self._features(truth, scaled), self.heads):
            difference = (unit_channels(a) - unit_channels(b)).square()
            total = total + torch.einsum("fchw,c->fhw", difference, head).mean((1, 2))
        return total

    def _features(self, pictures: Tensor, scaled: bool) -> list[Tensor]:
        images = as_images(pictures)
        return self.trunk(((2 * images - 1 if scaled else images) - self.shift) / self.scale)


def lpips_vgg16(weights: Weights) -> Lpips:
    """LPIPS on VGG16.

    Raises:
        UserError: if the weights of network or heads are missing.
    """
    return _published(vgg16_trunk(), VGG16, VGG_HEADS, weights)


def lpips_alexnet(weights: Weights) -> Lpips:
    """LPIPS on AlexNet.

    Raises:
        UserError: if the weights of network or heads are missing.
    """
    return _published(alexnet_trunk(), ALEXNET, ALEXNET_HEADS, weights)


def _published(trunk: Trunk, of_trunk: WeightFile, of_heads: WeightFile, weights: Weights) -> Lpips:
    heads = weights.read(of_heads)  # first, because a file of kilobytes fails faster than one of half a gigabyte
    values = weights.read(of_trunk)
    trunk.load_state_dict({k: v for k, v in values.items() if k.startswith("features.")})
    return Lpips(trunk, [heads[f"lin{i}.model.1.weight"] for i in range(len(trunk.taps))])

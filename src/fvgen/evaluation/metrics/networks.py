"""The networks behind metrics: LPIPS, ST-LPIPS, Inception, EfficientNet. Pictures are ``[F, H, W, 3]``, 0..1."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fvgen.models.efficientnet import LITE0, EfficientNetLite, unit_channels
from fvgen.models.weight_files import (
    ALEXNET,
    ALEXNET_HEADS,
    INCEPTION,
    STLPIPS_ALEXNET,
    STLPIPS_VGG16,
    VGG16,
    VGG_HEADS,
    WeightFile,
    Weights,
)


def as_images(pictures: Tensor) -> Tensor:
    """``[F, 3, H, W]`` float32 from ``[F, H, W, 3]``, in that order in memory too.

    Other programs hold images so, and float32 convolutions of another layout differ from theirs in the sixth digit.
    """
    return pictures.float().movedim(-1, 1).contiguous()


def efficientnet_lite0(weights: Weights) -> EfficientNetLite:
    """EfficientNet-Lite0 with its published weights.

    Raises:
        UserError: if they are missing.
    """
    return EfficientNetLite.published(LITE0, weights)


def efficientnet_distance(network: EfficientNetLite, predicted: Tensor, truth: Tensor) -> Tensor:
    """``[F]`` distances (`EfficientNetLite.distance`) of ``[F, H, W, 3]`` pictures in 0..1, at their own size."""
    return network.distance(as_images(predicted), as_images(truth))


def efficientnet_features(network: EfficientNetLite, pictures: Tensor) -> Tensor:
    """``[F, 1280]``, what the classifier sees of ``[F, H, W, 3]`` pictures in 0..1.

    Pictures are resized to 224 x 224, bilinear, without antialiasing.
    """
    images = F.interpolate(as_images(pictures), (224, 224), mode="bilinear", align_corners=False)
    return network(images).mean((2, 3))


Kernel = int | tuple[int, int]

_ROW, _COLUMN = (1, 7), (7, 1)

_FORK = 0  # in the place of a kernel: a row and a column of three, side by side


class Unit(nn.Module):
    """Convolution, batch normalisation, ReLU of ``[F, C, H, W]``; keeps the size unless ``padded`` is False."""

    def __init__(self, inputs: int, outputs: int, kernel: Kernel = 1, stride: int = 1, padded: bool = True):
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2) if padded else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, sides, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Branches of ``[F, C, H, W]`` side by side, their outputs and the pooled input joined along the channels.

    Args:
        inputs: channels in.
        pooled: channels of the ``branch_pool`` unit after pooling; 0 for none, and then every branch ends in stride 2.
        by_maximum: pool by maximum where the size is kept; halving always does.
        branches: output channels and kernel of every unit of a branch, by its published name.
    """

    def __init__(self, inputs: int, pooled: int, by_maximum: bool = False, **branches: list[tuple[int, Kernel]]):
        super().__init__()
        self._halves, self._by_maximum = not pooled, by_maximum
        self._chains: list[list[list[str]]] = []  # names of the units that share an input, step by step
        for branch, steps in branches.items():
            channels, chain = inputs, []
            for number, (width, kernel) in enumerate(steps, 1):
                name = branch if len(steps) == 1 else f"{branch}_{number}"
                units = {f"{name}a": (1, 3), f"{name}b": (3, 1)} if kernel == _FORK else {name: kernel}
                halves = self._halves and number == len(steps)
                for unit, sides in units.items():
                    self.add_module(unit, Unit(channels, width, sides, 2 if halves else 1, not halves))
                chain.append(list(units))
                channels = width
            self._chains.append(chain)
        if pooled:
            self.branch_pool = Unit(inputs, pooled)

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for chain in self._chains:
            ends = [x]
            for names in chain:
                ends = [self.get_submodule(name)(ends[0]) for name in names]
            outputs += ends
        if self._halves:
            return torch.cat([*outputs, F.max_pool2d(x, 3, 2)], 1)
        pool = F.max_pool2d(x, 3, 1, 1) if self._by_maximum else F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return torch.cat([*outputs, self.branch_pool(pool)], 1)


def _wide(inputs: int, pooled: int) -> Mixed:
    """Block of 35 x 35 pixels."""
    double: list[tuple[int, Kernel]] = [(64, 1), (96, 3), (96, 3)]
    return Mixed(inputs, pooled, branch1x1=[(64, 1)], branch5x5=[(48, 1), (64, 5)], branch3x3dbl=double)


def _sevens(width: int) -> Mixed:
    """Block of 17 x 17 pixels: convolutions of 7 x 7 split into rows and columns."""
    single: list[tuple[int, Kernel]] = [(width, 1), (width, _ROW), (192, _COLUMN)]
    double: list[tuple[int, Kernel]] = [(width, 1), (width, _COLUMN), (width, _ROW), (width, _COLUMN), (192, _ROW)]
    return Mixed(768, 192, branch1x1=[(192, 1)], branch7x7=single, branch7x7dbl=double)


def _forked(inputs: int, by_maximum: bool) -> Mixed:
    """Block of 8 x 8 pixels."""
    double: list[tuple[int, Kernel]] = [(448, 1), (384, 3), (384, _FORK)]
    single: list[tuple[int, Kernel]] = [(384, 1), (384, _FORK)]
    return Mixed(inputs, 192, by_maximum, branch1x1=[(320, 1)], branch3x3=single, branch3x3dbl=double)


class InceptionFid(nn.Sequential):
    """Pictures ``[F, H, W, 3]`` in 0..1 to the features ``[F, 2048]`` of ``pool3``, by pytorch-fid's network.

    They are resized to 299 x 299 without antialiasing. Names are those of the published file.
    """

    def __init__(self) -> None:
        layers: dict[str, nn.Module] = {
            "Conv2d_1a_3x3": Unit(3, 32, 3, stride=2, padded=False),
            "Conv2d_2a_3x3": Unit(32, 32, 3, padded=False),
            "Conv2d_2b_3x3": Unit(32, 64, 3),
            "pool1": nn.MaxPool2d(3, 2),
            "Conv2d_3b_1x1": Unit(64, 80),
            "Conv2d_4a_3x3": Unit(80, 192, 3, padded=False),
            "pool2": nn.MaxPool2d(3, 2),
            "Mixed_5b": _wide(192, 32),
            "Mixed_5c": _wide(256, 64),
            "Mixed_5d": _wide(288, 64),
            "Mixed_6a": Mixed(288, 0, branch3x3=[(384, 3)], branch3x3dbl=[(64, 1), (96, 3), (96, 3)]),
            "Mixed_6b": _sevens(128),
            "Mixed_6c": _sevens(160),
            "Mixed_6d": _sevens(160),
            "Mixed_6e": _sevens(192),
            "Mixed_7a": Mixed(
                768,
                0,
                branch3x3=[(192, 1), (320, 3)],
                branch7x7x3=[(192, 1), (192, _ROW), (192, _COLUMN), (192, 3)],
            ),
            "Mixed_7b": _forked(1280, by_maximum=False),
            "Mixed_7c": _forked(2048, by_maximum=True),
        }
        super().__init__(OrderedDict(layers))

    def forward(self, pictures: Tensor) -> Tensor:
        x = F.interpolate(as_images(pictures), (299, 299), mode="bilinear", align_corners=False)
        return super().forward(2 * x - 1).mean((2, 3))


def inception_fid(weights: Weights) -> InceptionFid:
    """pytorch-fid's Inception with its published weights.

    Raises:
        UserError: if they are missing.
    """
    network = InceptionFid()
    network.load_state_dict({k: v for k, v in weights.read(INCEPTION).items() if not k.startswith("fc.")})
    return network


class Trunk(nn.Module):
    """The convolutions of a classifier: images ``[F, 3, H, W]`` to the outputs ``[F, C, h, w]`` of some layers.

    Args:
        layers: in the order, and so under the numbers, of torchvision's ``features``.
        taps: numbers of the layers whose outputs are returned.
    """

    def __init__(self, layers: Sequence[nn.Module], taps: Sequence[int]):
        super().__init__()
        self.features = nn.Sequential(*layers[: max(taps) + 1])
        self.taps = tuple(taps)

    def forward(self, images: Tensor) -> list[Tensor]:
        outputs = []
        for number, layer in enumerate(self.features):
            images = layer(images)
            if number in self.taps:
                outputs.append(images)
        return outputs


def blurred(layer: nn.Module) -> nn.Module:
    """A layer, its output ``[F, C, h, w]`` blurred and halved to ``[F, C, (h + 3) // 2, (w + 3) // 2]``.

    The filter is 1-2-1 both ways, which is a box of two on another; the border is mirrored by two pixels.
    """
    return nn.Sequential(layer, nn.ReflectionPad2d(2), nn.AvgPool2d(2, 1), nn.AvgPool2d(2))


def vgg16_trunk(shift_tolerant: bool = False) -> Trunk:
    """VGG16 (Simonyan and Zisserman 2015) with the last layer of each of its five blocks.

    Args:
        shift_tolerant: blur where the size is halved (Ghildyal and Liu 2022).
    """
    layers: list[nn.Module] = []
    channels = 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(blurred(nn.MaxPool2d(2, 1)) if shift_tolerant else nn.MaxPool2d(2))
    return Trunk(layers, [3, 8, 15, 22, 29])


def alexnet_trunk(shift_tolerant: bool = False) -> Trunk:
    """AlexNet in the form of Krizhevsky 2014 with all its five layers.

    Args:
        shift_tolerant: blur where the size is halved, and halve it in the first layer instead of quartering it
            (Ghildyal and Liu 2022).
    """
    if shift_tolerant:
        first, pool = blurred(nn.Conv2d(3, 64, 11, padding=2)), blurred(nn.MaxPool2d(3, 1))
    else:
        first, pool = nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.MaxPool2d(3, 2)
    layers = [
        first, nn.ReLU(), pool,
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), pool,
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
    ]  # fmt: skip
    return Trunk(layers, [1, 4, 7, 9, 11])


class Lpips(nn.Module):
    """LPIPS on a trunk.

    Args:
        trunk: the network.
        heads: one weight per channel of every tapped layer, each ``[1, C, 1, 1]``.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, trunk: Trunk, heads: Sequence[Tensor]):
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ParameterList([nn.Parameter(h.flatten()) for h in heads])
        # The statistics of ImageNet for values in -1..1, as the authors of LPIPS rounded them.
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1))

    def forward(self, predicted: Tensor, truth: Tensor, scaled: bool = True) -> Tensor:
        """``[F]`` distances of pictures ``[F, H, W, 3]`` in 0..1.

        Args:
            predicted, truth: pictures.
            scaled: map them to -1..1, as LPIPS expects; the code of 3D Gaussian splatting does not.
        """
        images = [2 * as_images(v) - 1 if scaled else as_images(v) for v in (predicted, truth)]
        features = [self.trunk((v - self.shift) / self.scale) for v in images]
        total = torch.zeros(len(predicted), device=predicted.device)
        for a, b, head in zip(*features, self.heads):
            difference = (unit_channels(a) - unit_channels(b)).square()
            total = total + torch.einsum("fchw,c->fhw", difference, head).mean((1, 2))
        return total


def lpips_vgg16(weights: Weights) -> Lpips:
    """LPIPS on VGG16 with the published weights.

    Raises:
        UserError: if the weights of network or heads are missing.
    """
    return _published(vgg16_trunk(), VGG16, VGG_HEADS, weights)


def lpips_alexnet(weights: Weights) -> Lpips:
    """LPIPS on AlexNet with the published weights.

    Raises:
        UserError: if the weights of network or heads are missing.
    """
    return _published(alexnet_trunk(), ALEXNET, ALEXNET_HEADS, weights)


def stlpips_vgg16(weights: Weights) -> Lpips:
    """ST-LPIPS (Ghildyal and Liu 2022) on VGG16 with the published weights.

    Raises:
        UserError: if they are missing.
    """
    return _published_whole(vgg16_trunk(shift_tolerant=True), STLPIPS_VGG16, weights)


def stlpips_alexnet(weights: Weights) -> Lpips:
    """ST-LPIPS (Ghildyal and Liu 2022) on AlexNet with the published weights.

    Raises:
        UserError: if they are missing.
    """
    return _published_whole(alexnet_trunk(shift_tolerant=True), STLPIPS_ALEXNET, weights)


def _published(trunk: Trunk, of_trunk: WeightFile, of_heads: WeightFile, weights: Weights) -> Lpips:
    heads = weights.read(of_heads)  # first, because a file of kilobytes fails faster than one of half a gigabyte
    values = weights.read(of_trunk)
    trunk.load_state_dict({k: v for k, v in values.items() if k.startswith("features.")})
    return _with_heads(trunk, heads)


def _published_whole(trunk: Trunk, file: WeightFile, weights: Weights) -> Lpips:
    """Of one file: convolutions, in the trunk's order under other names, and heads."""
    values = weights.read(file)
    convolutions = [v for k, v in values.items() if k.startswith("net.") and k.endswith((".weight", ".bias"))]
    trunk.load_state_dict(dict(zip(trunk.state_dict(), convolutions)))
    return _with_heads(trunk, values)


def _with_heads(trunk: Trunk, values: Mapping[str, Tensor]) -> Lpips:
    return Lpips(trunk, [values[f"lin{i}.model.1.weight"] for i in range(len(trunk.taps))])

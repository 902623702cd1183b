"""The networks behind metrics: LPIPS, Inception, EfficientNet. Pictures are ``[F, H, W, 3]``, uint8 or 0..1."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fvgen.errors import UserError
from fvgen.models.efficientnet import LITE0, EfficientNetLite, unit_channels
from fvgen.models.weight_files import ALEXNET, ALEXNET_HEADS, INCEPTION, VGG16, VGG_HEADS, WeightFile, Weights


def check_pictures(predicted: Tensor, truth: Tensor) -> None:
    """Refuse pictures that cannot be compared pixel by pixel.

    Raises:
        UserError: if they are not pictures, or their shapes differ.
    """
    for pictures, which in ((predicted, "scored"), (truth, "true")):
        if pictures.ndim != 4 or pictures.shape[-1] != 3:
            raise UserError(f"the {which} pictures have shape {tuple(pictures.shape)}, not [frames, height, width, 3]")
        if pictures.dtype != torch.uint8 and not pictures.is_floating_point():
            raise UserError(f"the {which} pictures are {pictures.dtype}; metrics take uint8, or float in 0..1")
    if predicted.shape != truth.shape:
        raise UserError(
            f"{_size(predicted)} were given to be compared with {_size(truth)}: numbers and sizes must agree"
        )


def unit_range(pictures: Tensor) -> Tensor:
    """uint8 as float32 in 0..1; float stays as it is.

    Raises:
        UserError: if float values are not finite or lie outside 0..1.
    """
    if pictures.dtype == torch.uint8:
        return pictures.float() / 255
    if pictures.numel() and not bool(((pictures >= 0) & (pictures <= 1)).all()):
        least, most = float(pictures.min()), float(pictures.max())
        raise UserError(f"float pictures must lie in 0..1; these reach from {least:.4g} to {most:.4g}")
    return pictures


def as_images(pictures: Tensor) -> Tensor:
    """``[F, 3, H, W]`` float32 of ``[F, H, W, 3]``, in that order in memory too.

    Other programs hold images so, and float32 convolutions of another layout differ from theirs in the sixth digit.
    """
    return pictures.float().movedim(-1, 1).contiguous()


def _size(pictures: Tensor) -> str:
    count, height, width = pictures.shape[:3]
    return f"{count} pictures of {width}x{height}"


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


Kernel = int | tuple[int, int]


class Unit(nn.Module):
    """Convolution, batch normalisation, ReLU; padded to keep the size unless ``padded`` is False."""

    def __init__(self, inputs: int, outputs: int, kernel: Kernel = 1, stride: int = 1, padded: bool = True):
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2) if padded else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, sides, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


Step = tuple[str, int, Kernel]  # name, channels out, kernel


class Mixed(nn.Module):
    """Branches side by side, their outputs joined along the channels; the last branch pools.

    Args:
        inputs: channels in.
        branches: chains of steps.
        pooled: channels of the ``branch_pool`` unit after pooling; 0 for none, and then every branch ends in stride 2.
        forked: by the name of a step, two steps that both take its output and end the branch.
        pool_by_maximum: pool by maximum where the size is kept; halving always does.
    """

    def __init__(
        self,
        inputs: int,
        branches: Sequence[Sequence[Step]],
        pooled: int = 0,
        forked: dict[str, tuple[Step, Step]] | None = None,
        pool_by_maximum: bool = False,
    ):
        super().__init__()
        self._chains = [[name for name, _, _ in branch] for branch in branches]
        self._forks = {name: [n for n, _, _ in steps] for name, steps in (forked or {}).items()}
        self._halves = not pooled
        self._pool_by_maximum = pool_by_maximum
        for branch in branches:
            channels = inputs
            for name, width, kernel in branch:
                last = self._halves and name == branch[-1][0]
                self.add_module(name, Unit(channels, width, kernel, 2 if last else 1, not last))
                channels = width
            for name, width, kernel in (forked or {}).get(branch[-1][0], ()):
                self.add_module(name, Unit(channels, width, kernel))
        if pooled:
            self.branch_pool = Unit(inputs, pooled)

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for chain in self._chains:
            y = x
            for name in chain:
                y = self.get_submodule(name)(y)
            forks = self._forks.get(chain[-1])
            outputs += [self.get_submodule(name)(y) for name in forks] if forks else [y]
        return torch.cat([*outputs, self._pool(x)], 1)

    def _pool(self, x: Tensor) -> Tensor:
        if self._halves:
            return F.max_pool2d(x, 3, 2)
        if self._pool_by_maximum:
            return self.branch_pool(F.max_pool2d(x, 3, 1, 1))
        return self.branch_pool(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False))


def _wide(inputs: int, pooled: int) -> Mixed:
    """Block of 35 x 35: 1x1, 5x5 and twice 3x3."""
    return Mixed(
        inputs,
        [
            [("branch1x1", 64, 1)],
            [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)],
            [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)],
        ],
        pooled,
    )


def _sevens(width: int) -> Mixed:
    """Block of 17 x 17: 7x7 split into rows and columns."""
    row, column = (1, 7), (7, 1)
    double: list[Step] = [
        ("branch7x7dbl_1", width, 1),
        ("branch7x7dbl_2", width, column),
        ("branch7x7dbl_3", width, row),
    ]
    return Mixed(
        768,
        [
            [("branch1x1", 192, 1)],
            [("branch7x7_1", width, 1), ("branch7x7_2", width, row), ("branch7x7_3", 192, column)],
            [*double, ("branch7x7dbl_4", width, column), ("branch7x7dbl_5", 192, row)],
        ],
        192,
    )


def _forked(inputs: int, pool_by_maximum: bool) -> Mixed:
    """Block of 8 x 8: 3x3 as a row and a column beside each other."""

    def ends(name: str) -> tuple[Step, Step]:
        return (f"{name}a", 384, (1, 3)), (f"{name}b", 384, (3, 1))

    return Mixed(
        inputs,
        [
            [("branch1x1", 320, 1)],
            [("branch3x3_1", 384, 1)],
            [("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3)],
        ],
        192,
        {"branch3x3_1": ends("branch3x3_2"), "branch3x3dbl_2": ends("branch3x3dbl_3")},
        pool_by_maximum,
    )


class InceptionFid(nn.Module):
    """Pictures to the 2048 features of ``pool3``. Names are those of the published file."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Unit(3, 32, 3, stride=2, padded=False)
        self.Conv2d_2a_3x3 = Unit(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = Unit(32, 64, 3)
        self.Conv2d_3b_1x1 = Unit(64, 80)
        self.Conv2d_4a_3x3 = Unit(80, 192, 3, padded=False)
        self.Mixed_5b = _wide(192, 32)
        self.Mixed_5c = _wide(256, 64)
        self.Mixed_5d = _wide(288, 64)
        double: list[Step] = [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)]
        self.Mixed_6a = Mixed(288, [[("branch3x3", 384, 3)], double])
        self.Mixed_6b = _sevens(128)
        self.Mixed_6c = _sevens(160)
        self.Mixed_6d = _sevens(160)
        self.Mixed_6e = _sevens(192)
        sevens: list[Step] = [("branch7x7x3_1", 192, 1), ("branch7x7x3_2", 192, (1, 7)), ("branch7x7x3_3", 192, (7, 1))]
        self.Mixed_7a = Mixed(
            768, [[("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3)], [*sevens, ("branch7x7x3_4", 192, 3)]]
        )
        self.Mixed_7b = _forked(1280, pool_by_maximum=False)
        self.Mixed_7c = _forked(2048, pool_by_maximum=True)

    def forward(self, pictures: Tensor) -> Tensor:
        """``[F, 2048]`` features of ``[F, H, W, 3]`` pictures in 0..1, resized to 299 x 299 without antialiasing."""
        x = F.interpolate(as_images(pictures), (299, 299), mode="bilinear", align_corners=False)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(2 * x - 1)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, 2))))
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
        x = self.Mixed_7a(self.Mixed_6e(self.Mixed_6d(x)))
        return self.Mixed_7c(self.Mixed_7b(x)).mean((2, 3))


def inception_fid(weights: Weights) -> InceptionFid:
    """The network with its published weights.

    Raises:
        UserError: if they are missing.
    """
    network = InceptionFid()
    values = weights.read(INCEPTION)
    network.load_state_dict({k: v for k, v in values.items() if not k.startswith("fc.")})
    return network


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

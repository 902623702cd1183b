"""The metrics by name: what each is, which way is better, and which files of weights it needs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from torch import Tensor, nn

from fvgen.errors import UserError
from fvgen.evaluation.metrics import pixels
from fvgen.evaluation.metrics.efficientnet import EfficientNetDistance, EfficientNetPool, efficientnet_lite0
from fvgen.evaluation.metrics.inception import inception_fid
from fvgen.evaluation.metrics.lpips import Lpips, lpips_alexnet, lpips_vgg16
from fvgen.evaluation.metrics.moments import FrechetDistance, KernelDistance
from fvgen.models.weight_files import (
    ALEXNET,
    ALEXNET_HEADS,
    EFFICIENTNET_LITE0,
    INCEPTION,
    VGG16,
    VGG_HEADS,
    Networks,
    WeightFile,
    Weights,
)

Better = Literal["higher", "lower", "one"]
FrameMetric = Callable[[Tensor, Tensor], Tensor]  # [F, H, W, 3] float in 0..1, twice -> [F]


@dataclass(frozen=True)
class FrameSpec:
    """A metric of single pictures.

    Attributes:
        definition: one line.
        better: higher, lower, or nearer to one.
        load: makes it; raises ``UserError`` where weights are missing.
        needs: the files of weights that ``load`` reads.
    """

    definition: str
    better: Better
    load: Callable[[Networks], FrameMetric]
    needs: tuple[WeightFile, ...] = ()


@dataclass(frozen=True)
class SetSpec:
    """A distance between two sets of pictures.

    Attributes:
        definition: one line.
        features: the network's name; distances of one network share its features.
        load: makes that network, pictures ``[F, H, W, 3]`` in 0..1 to features ``[F, D]``.
        distance: makes the accumulator.
        needs: the files of weights that ``load`` reads.
        better: always lower.
    """

    definition: str
    features: str
    load: Callable[[Networks], Callable[[Tensor], Tensor]]
    distance: Callable[[], FrechetDistance | KernelDistance]
    needs: tuple[WeightFile, ...]
    better: Better = "lower"


def _pixels(metric: FrameMetric) -> Callable[[Networks], FrameMetric]:
    return lambda networks: metric


def _lpips(build: Callable[[Weights], Lpips], scaled: bool) -> Callable[[Networks], FrameMetric]:
    return lambda networks: partial(networks.get(build), scaled=scaled)


def _network(build: Callable[[Weights], nn.Module]) -> Callable[[Networks], Callable[[Tensor], Tensor]]:
    return lambda networks: networks.get(build)


_VGG, _ALEX = (VGG16, VGG_HEADS), (ALEXNET, ALEXNET_HEADS)

FRAME_METRICS: dict[str, FrameSpec] = {
    "psnr": FrameSpec("-10 log10 of the mean squared error, dB, at most 100", "higher", _pixels(pixels.psnr_of_frames)),
    "ssim_skimage11": FrameSpec(
        "SSIM, 11x11 Gaussian, sample covariance, border cut off", "higher", _pixels(pixels.ssim_skimage11)
    ),
    "ssim_torchmetrics": FrameSpec(
        "SSIM, 11x11 Gaussian, population covariance, border reflected", "higher", _pixels(pixels.ssim_torchmetrics)
    ),
    "gradient_ratio": FrameSpec("gradient energy over that of the truth", "one", _pixels(pixels.gradient_ratio)),
    "lpips_vgg_norm": FrameSpec("LPIPS v0.1, VGG16, fed -1..1", "lower", _lpips(lpips_vgg16, True), _VGG),
    "lpips_vgg_3dgs": FrameSpec("LPIPS v0.1, VGG16, fed 0..1", "lower", _lpips(lpips_vgg16, False), _VGG),
    "lpips_alex_norm": FrameSpec("LPIPS v0.1, AlexNet, fed -1..1", "lower", _lpips(lpips_alexnet, True), _ALEX),
    "lpips_alex_unscaled": FrameSpec("LPIPS v0.1, AlexNet, fed 0..1", "lower", _lpips(lpips_alexnet, False), _ALEX),
    "efficientnet_lite0_distance": FrameSpec(
        "squared difference of unit features, mean of five stages of EfficientNet-Lite0",
        "lower",
        lambda networks: EfficientNetDistance(networks.get(efficientnet_lite0)),
        (EFFICIENTNET_LITE0,),
    ),
}

SET_METRICS: dict[str, SetSpec] = {
    "fid": SetSpec(
        "Frechet distance of pytorch-fid's Inception pool3", "inception", _network(inception_fid), FrechetDistance,
        (INCEPTION,),
    ),
    "kid": SetSpec(
        "unbiased squared MMD, cubic kernel, of the same features", "inception", _network(inception_fid),
        KernelDistance, (INCEPTION,),
    ),
    "efficientnet_lite0_frechet": SetSpec(
        "Frechet distance of EfficientNet-Lite0's pooled features",
        "efficientnet_lite0",
        lambda networks: EfficientNetPool(networks.get(efficientnet_lite0)),
        FrechetDistance,
        (EFFICIENTNET_LITE0,),
    ),
}  # fmt: skip

S = TypeVar("S")


def chosen(names: Sequence[str], specs: Mapping[str, S]) -> dict[str, S]:
    """The specs of some names, in their order.

    Raises:
        UserError: for a name that is not there.
    """
    for name in names:
        if name not in specs:
            raise UserError(f"there is no metric {name!r} here; these exist: {', '.join(specs)}")
    return {name: specs[name] for name in names}


def available(names: Sequence[str], weights: Path | None = None) -> dict[str, str]:
    """By name: empty, or why the metric cannot run here (a missing file of weights).

    Args:
        names: of :data:`FRAME_METRICS` or :data:`SET_METRICS`.
        weights: folder that is looked in first.

    Raises:
        UserError: for a name of neither.
    """
    files = Weights(weights)
    specs: dict[str, FrameSpec | SetSpec] = {**FRAME_METRICS, **SET_METRICS}
    return {name: _missing(spec, files) for name, spec in chosen(names, specs).items()}


def _missing(spec: FrameSpec | SetSpec, files: Weights) -> str:
    try:
        for file in spec.needs:
            files.find(file)
    except UserError as reason:
        return str(reason)
    return ""

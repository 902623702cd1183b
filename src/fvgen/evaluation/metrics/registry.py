"""The metrics by name: what each is, which way is better, which weights it needs; of single pictures and of sets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from fvgen.errors import UserError
from fvgen.evaluation.metrics import pixels
from fvgen.evaluation.metrics.moments import FrechetDistance, KernelDistance
from fvgen.evaluation.metrics.networks import (
    EfficientNetDistance,
    EfficientNetPool,
    Lpips,
    check_pictures,
    efficientnet_lite0,
    inception_fid,
    lpips_alexnet,
    lpips_vgg16,
    unit_range,
)
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
    exact_convolutions,
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


class FrameMetrics:
    """Per-picture metrics by name; a network that several of them use is loaded once.

    Args:
        names: of :data:`~fvgen.evaluation.metrics.registry.FRAME_METRICS`.
        device: where they are computed.
        weights: folder that is looked in first for files of weights.

    Attributes:
        weights: their hashes are in ``weights.used``.

    Raises:
        UserError: for an unknown name or missing weights.
    """

    def __init__(self, names: Sequence[str], device: str = "cpu", weights: Path | None = None):
        self.weights = Weights(weights)
        self.device = torch.device(device)
        networks = Networks(self.weights, self.device)
        self._metrics = {name: spec.load(networks) for name, spec in chosen(names, FRAME_METRICS).items()}

    @torch.no_grad()
    def __call__(self, predicted: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """Score pictures one by one.

        Args:
            predicted: ``[F, H, W, 3]`` uint8, or float in 0..1.
            truth: the same shape.

        Returns:
            By name ``[F]`` float64 on the CPU.

        Raises:
            UserError: if the shapes differ.
        """
        check_pictures(predicted, truth)
        with exact_convolutions():  # one picture at a time: the features of VGG are large
            rows = [self._scores(*pair) for pair in zip(predicted.split(1), truth.split(1))]
        empty = torch.zeros(0, dtype=torch.float64)
        return {name: torch.cat([empty, *(row[i] for row in rows)]) for i, name in enumerate(self._metrics)}

    def _scores(self, predicted: Tensor, truth: Tensor) -> list[Tensor]:
        images = [unit_range(v).to(self.device) for v in (predicted, truth)]
        return [metric(*images).double().cpu() for metric in self._metrics.values()]


_BATCH = 16  # pictures that pass a network together

Features = Mapping[str, Tensor]  # [F, D] by network


class SetMetrics:
    """Set distances by name. Pictures come in batches of any number and size and are not kept.

    Args:
        names: of :data:`~fvgen.evaluation.metrics.registry.SET_METRICS`.
        device: where features and distances are computed.
        weights: folder that is looked in first for files of weights.

    Attributes:
        weights: their hashes are in ``weights.used``.

    Raises:
        UserError: for an unknown name or missing weights.
    """

    def __init__(self, names: Sequence[str], device: str = "cpu", weights: Path | None = None):
        self.weights = Weights(weights)
        self.device = torch.device(device)
        self._specs = chosen(names, SET_METRICS)
        networks = Networks(self.weights, self.device)
        self._networks = {spec.features: spec.load(networks) for spec in self._specs.values()}
        self.reset()

    def reset(self) -> None:
        """Forget all pictures; networks stay."""
        self._distances = {name: spec.distance() for name, spec in self._specs.items()}
        self._count = 0

    def add(self, predicted: Tensor, truth: Tensor) -> None:
        """Take in ``[F, H, W, 3]`` pictures and as many of the truth, uint8 or float in 0..1.

        Raises:
            UserError: if the shapes differ.
        """
        check_pictures(predicted, truth)
        self._take(self.features(predicted), self.features(truth), len(predicted))

    @torch.no_grad()
    def features(self, pictures: Tensor) -> dict[str, Tensor]:
        """``[F, D]`` float32 on the CPU by network, of ``[F, H, W, 3]`` pictures.

        With :meth:`add_features` this lets the truth of several systems, or a finished scene, be computed once.
        """
        batches = [unit_range(b).to(self.device) for b in pictures.split(_BATCH)]
        with exact_convolutions():
            return {name: torch.cat([net(b).cpu() for b in batches]) for name, net in self._networks.items()}

    def add_features(self, predicted: Features, truth: Features) -> None:
        """Take in what :meth:`features` returned.

        Raises:
            ValueError: if there are not as many of both.
        """
        counts = {len(f[name]) for f in (predicted, truth) for name in self._networks}
        if len(counts) > 1:
            raise ValueError(f"as many pictures as truths are needed, not {sorted(counts)}")
        self._take(predicted, truth, max(counts, default=0))

    def _take(self, predicted: Features, truth: Features, count: int) -> None:
        for name, spec in self._specs.items():
            self._distances[name].add(*(f[spec.features].to(self.device) for f in (predicted, truth)))
        self._count += count

    def result(self) -> dict[str, float]:
        """The distances by name, ``nan`` for fewer than two pictures, and ``images``, the number of predicted ones."""
        return {name: distance.result() for name, distance in self._distances.items()} | {"images": self._count}

"""The metrics by name: what each is, which way is better, which weights it needs; of single pictures and of sets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from fvgen.errors import UserError
from fvgen.evaluation.metrics import networks, pixels
from fvgen.evaluation.metrics.moments import FrechetDistance, KernelDistance
from fvgen.models.weight_files import (
    ALEXNET,
    ALEXNET_HEADS,
    EFFICIENTNET_LITE0,
    INCEPTION,
    STLPIPS_ALEXNET,
    STLPIPS_VGG16,
    VGG16,
    VGG_HEADS,
    Networks,
    WeightFile,
    Weights,
    exact_convolutions,
)

Load = Callable[[Networks], Callable[..., Tensor]]


@dataclass(frozen=True)
class Metric:
    """A metric of single pictures, or a distance between two sets of pictures.

    Attributes:
        definition: one line.
        better: higher, lower, or nearer to one.
        load: makes the function of a metric, two ``[F, H, W, 3]`` in 0..1 to ``[F]``, or the network of a distance,
            one ``[F, H, W, 3]`` to features ``[F, D]``; distances that share it share their features.
        needs: the files of weights that ``load`` reads, and without which it raises ``UserError``.
        distance: of a distance between sets, what accumulates the features.
    """

    definition: str
    better: Literal["higher", "lower", "one"]
    load: Load
    needs: tuple[WeightFile, ...] = ()
    distance: Callable[[], FrechetDistance | KernelDistance] = FrechetDistance


def _pixels(metric: Callable[[Tensor, Tensor], Tensor]) -> Load:
    return lambda built: metric


def _lpips(build: Callable[[Weights], nn.Module], scaled: bool) -> Load:
    return lambda built: partial(built.get(build), scaled=scaled)


def _inception(built: Networks) -> Callable[..., Tensor]:
    return built.get(networks.inception_fid)


def _efficientnet(function: Callable[..., Tensor]) -> Load:
    return lambda built: partial(function, built.get(networks.efficientnet_lite0))


_VGG, _ALEX = (VGG16, VGG_HEADS), (ALEXNET, ALEXNET_HEADS)

FRAME_METRICS: dict[str, Metric] = {
    "psnr": Metric("-10 log10 of the mean squared error, dB, at most 100", "higher", _pixels(pixels.psnr_of_frames)),
    "ssim_skimage11": Metric(
        "SSIM, 11x11 Gaussian, sample covariance, border cut off", "higher", _pixels(pixels.ssim_skimage11)
    ),
    "ssim_torchmetrics": Metric(
        "SSIM, 11x11 Gaussian, population covariance, border reflected", "higher", _pixels(pixels.ssim_torchmetrics)
    ),
    "gradient_ratio": Metric("gradient energy over that of the truth", "one", _pixels(pixels.gradient_ratio)),
    "lpips_vgg_norm": Metric("LPIPS v0.1, VGG16, fed -1..1", "lower", _lpips(networks.lpips_vgg16, True), _VGG),
    "lpips_vgg_3dgs": Metric("LPIPS v0.1, VGG16, fed 0..1", "lower", _lpips(networks.lpips_vgg16, False), _VGG),
    "lpips_alex_norm": Metric("LPIPS v0.1, AlexNet, fed -1..1", "lower", _lpips(networks.lpips_alexnet, True), _ALEX),
    "lpips_alex_unscaled": Metric(
        "LPIPS v0.1, AlexNet, fed 0..1", "lower", _lpips(networks.lpips_alexnet, False), _ALEX
    ),
    "stlpips_vgg": Metric(
        "ST-LPIPS v0.0, VGG16, fed -1..1", "lower", _lpips(networks.stlpips_vgg16, True), (STLPIPS_VGG16,)
    ),
    "stlpips_alex": Metric(
        "ST-LPIPS v0.0, AlexNet, fed -1..1", "lower", _lpips(networks.stlpips_alexnet, True), (STLPIPS_ALEXNET,)
    ),
    "efficientnet_lite0_distance": Metric(
        "squared difference of unit features, mean of five stages of EfficientNet-Lite0",
        "lower",
        _efficientnet(networks.efficientnet_distance),
        (EFFICIENTNET_LITE0,),
    ),
}

SET_METRICS: dict[str, Metric] = {
    "fid": Metric("Frechet distance of pytorch-fid's Inception pool3", "lower", _inception, (INCEPTION,)),
    "kid": Metric(
        "unbiased squared MMD, cubic kernel, of the same features", "lower", _inception, (INCEPTION,), KernelDistance
    ),
    "efficientnet_lite0_frechet": Metric(
        "Frechet distance of EfficientNet-Lite0's pooled features",
        "lower",
        _efficientnet(networks.efficientnet_features),
        (EFFICIENTNET_LITE0,),
    ),
}


def _chosen(names: Sequence[str], metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    for name in names:
        if name not in metrics:
            raise UserError(f"there is no metric {name!r} here; these exist: {', '.join(metrics)}")
    return {name: metrics[name] for name in names}


def available(names: Sequence[str], weights: Path | None = None) -> dict[str, str]:
    """By name: empty, or why the metric cannot run here (a missing file of weights).

    Args:
        names: of :data:`FRAME_METRICS` or :data:`SET_METRICS`.
        weights: folder that is looked in first.

    Raises:
        UserError: for a name of neither.
    """
    files, reasons = Weights(weights), {}
    for name, metric in _chosen(names, {**FRAME_METRICS, **SET_METRICS}).items():
        reasons[name] = ""
        try:
            for file in metric.needs:
                files.find(file)
        except UserError as reason:
            reasons[name] = str(reason)
    return reasons


def check_pictures(predicted: Tensor, truth: Tensor) -> None:
    """Refuse pictures that cannot be compared pixel by pixel.

    Raises:
        UserError: if one of the two is not ``[F, H, W, 3]`` uint8 or float, or their shapes differ.
    """
    for pictures, which in ((predicted, "scored"), (truth, "true")):
        if pictures.ndim != 4 or pictures.shape[-1] != 3:
            raise UserError(f"the {which} pictures have shape {tuple(pictures.shape)}, not [frames, height, width, 3]")
        if pictures.dtype != torch.uint8 and not pictures.is_floating_point():
            raise UserError(f"the {which} pictures are {pictures.dtype}; metrics take uint8, or float in 0..1")
    if predicted.shape != truth.shape:
        one, two = ("{0} pictures of {2}x{1}".format(*pictures.shape) for pictures in (predicted, truth))
        raise UserError(f"{one} were given to be compared with {two}: numbers and sizes must agree")


def unit_range(pictures: Tensor) -> Tensor:
    """Pictures ``[F, H, W, 3]`` uint8 as float32 in 0..1; float pictures stay as they are.

    Raises:
        UserError: if float values are not finite or lie outside 0..1.
    """
    if pictures.dtype == torch.uint8:
        return pictures.float() / 255
    if pictures.numel() and not bool(((pictures >= 0) & (pictures <= 1)).all()):
        least, most = float(pictures.min()), float(pictures.max())
        raise UserError(f"float pictures must lie in 0..1; these reach from {least:.4g} to {most:.4g}")
    return pictures


class _Metrics:
    _known: Mapping[str, Metric]

    def __init__(self, names: Sequence[str], device: str = "cpu", weights: Path | None = None):
        self.weights, self.device = Weights(weights), torch.device(device)
        self.metrics = _chosen(names, self._known)
        built = Networks(self.weights, self.device)
        self._loaded = {load: load(built) for load in dict.fromkeys(m.load for m in self.metrics.values())}


class FrameMetrics(_Metrics):
    """Per-picture metrics by name; a network that several of them use is loaded once.

    Args:
        names: of :data:`~fvgen.evaluation.metrics.registry.FRAME_METRICS`.
        device: where they are computed.
        weights: folder that is looked in first for files of weights.

    Attributes:
        metrics: what each name means.
        weights: the files that were read, by their hashes in ``weights.used``.

    Raises:
        UserError: for an unknown name or missing weights.
    """

    _known = FRAME_METRICS

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
        scores = {name: [torch.zeros(0, dtype=torch.float64)] for name in self.metrics}
        with exact_convolutions():
            for pair in zip(predicted.split(1), truth.split(1)):  # one at a time: the features of VGG are large
                images = [unit_range(v).to(self.device) for v in pair]
                for name, metric in self.metrics.items():
                    scores[name].append(self._loaded[metric.load](*images).double().cpu())
        return {name: torch.cat(values) for name, values in scores.items()}


_BATCH = 16  # pictures that pass a network together

Features = Mapping[Load, Tensor]  # [F, D] by network


class SetMetrics(_Metrics):
    """Set distances by name. Pictures come in batches of any number and size and are not kept.

    Arguments, attributes and errors are those of :class:`FrameMetrics`, the names those of
    :data:`~fvgen.evaluation.metrics.registry.SET_METRICS`.
    """

    _known = SET_METRICS

    def __init__(self, names: Sequence[str], device: str = "cpu", weights: Path | None = None):
        super().__init__(names, device, weights)
        self.reset()

    def reset(self) -> None:
        """Forget all pictures; networks stay."""
        self._distances = {name: metric.distance() for name, metric in self.metrics.items()}
        self._count = 0

    def add(self, predicted: Tensor, truth: Tensor) -> None:
        """Take in ``[F, H, W, 3]`` pictures and as many of the truth, uint8 or float in 0..1.

        Raises:
            UserError: if the shapes differ.
        """
        check_pictures(predicted, truth)
        self._take(self.features(predicted), self.features(truth), len(predicted))

    @torch.no_grad()
    def features(self, pictures: Tensor) -> Features:
        """``[F, D]`` float32 on the CPU by network, of ``[F, H, W, 3]`` pictures.

        With :meth:`add_features` this lets the truth of several systems, or a finished scene, be computed once.
        """
        batches = [unit_range(b).to(self.device) for b in pictures.split(_BATCH)]
        with exact_convolutions():
            return {load: torch.cat([net(b).cpu() for b in batches]) for load, net in self._loaded.items()}

    def add_features(self, predicted: Features, truth: Features) -> None:
        """Take in what :meth:`features` returned, ``[F, D]`` by network.

        Raises:
            ValueError: if there are not as many of both.
        """
        counts = {len(features) for side in (predicted, truth) for features in side.values()}
        if len(counts) > 1:
            raise ValueError(f"as many pictures as truths are needed, not {sorted(counts)}")
        self._take(predicted, truth, max(counts, default=0))

    def _take(self, predicted: Features, truth: Features, count: int) -> None:
        for name, metric in self.metrics.items():
            self._distances[name].add(*(side[metric.load].to(self.device) for side in (predicted, truth)))
        self._count += count

    def result(self) -> dict[str, float]:
        """The distances by name, ``nan`` for fewer than two pictures, and ``images``, the number of predicted ones."""
        return {name: distance.result() for name, distance in self._distances.items()} | {"images": self._count}

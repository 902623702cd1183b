"""The numbers of a split and of a data set, from uint8 pictures alone."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fvgen.errors import UserError
from fvgen.evaluation.metrics import (
    FRAME_METRICS,
    SET_METRICS,
    Correspondences,
    FrameMetrics,
    SetMetrics,
    available,
    neighbour_metrics,
)
from fvgen.evaluation.metrics.registry import Features

DEFAULT = (
    "psnr",
    "ssim_skimage11",
    "lpips_vgg_norm",
    "fid",
    "kid",
    "gradient_ratio",
    "efficientnet_lite0_distance",
    "efficientnet_lite0_frechet",
)
GUIDED = {  # what needs the geometry of the guide
    "psnr_covered": ("PSNR over the pixels that measured points of the guide cover", "higher"),
    "psnr_holes": ("PSNR over the pixels that no measured point of the guide covers", "higher"),
    "warp_consistency": ("mean absolute difference from the frame before, warped by the guide's depth", "lower"),
    "flicker": ("warp_consistency over that of the true frames", "one"),
}


@dataclass(frozen=True)
class Geometry:
    """What the guide of ``F`` frames knows.

    Attributes:
        coverage: ``[F, H, W]`` bool, where measured points cover them.
        matches: where pixels of one frame are seen in the one before.
    """

    coverage: Tensor
    matches: Correspondences


Columns = dict[str, list[float | None]]  # per frame, by metric


class Scorer:
    """Metrics by name, those that can run here; what cannot is told once, not left out in silence.

    Args:
        names: of frame and set metrics; empty: ``DEFAULT``. PSNR, which orders the page, is always among them.
        device: where networks run.
        weights: folder with files of weights.

    Attributes:
        absent: why, by the names of metrics that cannot run here.

    Raises:
        UserError: an unknown name, or a metric that was named by the user and cannot run.
    """

    def __init__(self, names: Sequence[str], device: str, weights: Path | None) -> None:
        wanted = list(dict.fromkeys(["psnr", *(names or DEFAULT)]))
        self.absent = {name: reason for name, reason in available(wanted, weights).items() if reason}
        asked = [name for name in self.absent if name in names]
        if asked:
            raise UserError(f"`metrics` {asked[0]}: {self.absent[asked[0]]}")
        usable = [name for name in wanted if name not in self.absent]
        self._frames = FrameMetrics([name for name in usable if name in FRAME_METRICS], device, weights)
        self._sets = SetMetrics([name for name in usable if name in SET_METRICS], device, weights)
        self._truths: dict[str, Features] = {}

    def definition(self) -> dict[str, Any]:
        """Everything that scores of given pictures depend on."""
        used = {**self._frames.metrics, **self._sets.metrics}
        return {
            "metrics": {name: {"definition": m.definition, "better": m.better} for name, m in used.items()},
            "metrics_of_guide": {name: {"definition": d, "better": b} for name, (d, b) in GUIDED.items()},
            "weights_sha256": {**self._frames.weights.used, **self._sets.weights.used},
        }

    def frames(self, predicted: Tensor, truth: Tensor, geometry: Geometry | None) -> Columns:
        """Scores of each frame.

        Args:
            predicted, truth: ``[F, H, W, 3]`` uint8.
            geometry: of the guide, or ``None`` to leave out the metrics that need it.

        Returns:
            Numbers by metric; ``None`` where there is none (a region without pixels, a first frame's neighbour).
        """
        columns = {name: _plain(values) for name, values in self._frames(predicted, truth).items()}
        if geometry is not None:
            columns["psnr_covered"] = region_psnr(predicted, truth, geometry.coverage)
            columns["psnr_holes"] = region_psnr(predicted, truth, ~geometry.coverage)
            pairs = neighbour_metrics(predicted.float() / 255, truth.float() / 255, geometry.matches)
            for name in ("warp_consistency", "flicker"):
                columns[name] = [None, *_plain(pairs[name])]
        return columns

    def distances(self, parts: Iterable[tuple[str, Tensor, Tensor]]) -> dict[str, float | None]:
        """Distances between all pictures of a system and all true ones.

        Args:
            parts: of each split, one after the other, its name, predicted and true uint8 pictures ``[F, H, W, 3]``.
        """
        if not self._sets.metrics:
            return {}
        self._sets.reset()
        for name, predicted, truth in parts:
            if name not in self._truths:
                self._truths[name] = self._sets.features(truth)
            self._sets.add_features(self._sets.features(predicted), self._truths[name])
        result = self._sets.result()
        return {name: result[name] if math.isfinite(result[name]) else None for name in self._sets.metrics}


def region_psnr(predicted: Tensor, truth: Tensor, region: Tensor) -> list[float | None]:
    """PSNR of each of ``[F, H, W, 3]`` uint8 frames over a region ``[F, H, W]``; ``None`` where that has no pixel."""
    error = ((predicted.double() - truth.double()) / 255).square().mean(-1)
    return [
        float(-10 * torch.log10(e[m].mean().clamp_min(1e-10))) if bool(m.any()) else None for e, m in zip(error, region)
    ]


def means(
    columns: Mapping[str, Sequence[float | None]], chosen: Sequence[bool] | None = None
) -> dict[str, float | None]:
    """Mean over frames by metric, of the chosen ones; those without a number are left out."""
    result: dict[str, float | None] = {}
    for name, values in columns.items():
        kept = [v for i, v in enumerate(values) if v is not None and (chosen is None or chosen[i])]
        result[name] = math.fsum(kept) / len(kept) if kept else None
    return result


def mean_of_means(rows: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Mean over splits by metric; splits without a number are left out."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return means({name: [row.get(name) for row in rows] for name in names})


def mean_of_all(values: Sequence[float | None]) -> float | None:
    """Mean of numbers; ``None`` if one of them is missing."""
    numbers = [value for value in values if value is not None]
    return math.fsum(numbers) / len(numbers) if len(numbers) == len(values) else None


def _plain(values: Tensor) -> list[float | None]:
    return [float(v) if math.isfinite(float(v)) else None for v in values]

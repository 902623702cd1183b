"""Metrics of single pictures against their truth."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fvgen.evaluation.metrics.pictures import check_pictures, unit_range
from fvgen.evaluation.metrics.registry import FRAME_METRICS, chosen
from fvgen.models.weight_files import Networks, Weights, exact_convolutions


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

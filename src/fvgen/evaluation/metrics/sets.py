"""Distances between two sets of pictures, streamed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fvgen.evaluation.metrics.pictures import check_pictures, unit_range
from fvgen.evaluation.metrics.registry import SET_METRICS, chosen
from fvgen.models.weight_files import Networks, Weights, exact_convolutions

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

"""What a critic is worth: accuracy and calibration per noise level, quantiles of the weight."""

from collections import deque

import torch
from torch import Tensor

QUANTILES = (0.1, 0.5, 0.9)


def calibration_error(probability: Tensor, truth: Tensor, bins: int = 10) -> float:
    """Expected calibration error: how far, on average, the share of reals is from the probability given to them.

    Args:
        probability: ``[N]``, ``P(real)``.
        truth: ``[N]``, 1 for real, 0 for fake.
        bins: equal bins of probability (Guo et al. 2017, equation 3).
    """
    place = (probability * bins).long().clamp(0, bins - 1)
    error = 0.0
    for k in range(bins):
        inside = place == k
        if inside.any():
            error += float(inside.float().mean() * (probability[inside].mean() - truth[inside].float().mean()).abs())
    return error


class CriticRecord:
    """The last verdicts of a critic.

    Args:
        levels: bins of the noise level, equal shares of ``0..total - 1``.
        total: number of times.
        keep: verdicts remembered.
    """

    def __init__(self, levels: int = 4, total: int = 1000, keep: int = 2048) -> None:
        self.levels, self.total = levels, total
        self.verdicts: deque[tuple[int, float, int]] = deque(maxlen=keep)

    def add(self, time: Tensor, real_logit: Tensor, fake_logit: Tensor) -> None:
        """Remember verdicts ``[B]``."""
        for logits, truth in ((real_logit, 1), (fake_logit, 0)):
            self.verdicts.extend((t, l, truth) for t, l in zip(time.tolist(), logits.tolist()))

    def figures(self) -> dict[str, float]:
        """``accuracy_LOW`` and ``calibration_LOW`` for each level that starts at time LOW and was seen."""
        if not self.verdicts:
            return {}
        time, logit, truth = (torch.tensor(column) for column in zip(*self.verdicts))
        level, found = time * self.levels // self.total, {}
        for k in range(self.levels):
            inside = level == k
            if inside.any():
                low, l, y = k * self.total // self.levels, logit[inside], truth[inside]
                found[f"accuracy_{low}"] = float(((l > 0) == (y == 1)).float().mean())
                found[f"calibration_{low}"] = calibration_error(torch.sigmoid(l), y)
        return found

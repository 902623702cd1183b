"""The trainable part of the critic, 3D convolutions on the frozen teacher's features, and how well calibrated it is."""

from collections import deque
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class StepAware(nn.Module):
    """Layers with SiLU between them, that may be told the student's step: an embedding of it is added before each SiLU.

    Args:
        layers: ``[B, C, ...]`` to ``[B, C', ...]``.
        width: channels of all results but the last.
        steps: the student's sampling steps; 0 tells the layers nothing of them.
    """

    def __init__(self, layers: Sequence[nn.Module], width: int, steps: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.steps = nn.Embedding(steps, width * (len(layers) - 1)) if steps else None
        if self.steps is not None:
            nn.init.zeros_(self.steps.weight)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        """``x [B, C, ...]``; ``step [B]``, the index of the student's time."""
        *hidden, last = self.layers
        shifts = self.steps(step).chunk(len(hidden), dim=1) if self.steps is not None else [None] * len(hidden)
        for layer, shift in zip(hidden, shifts):
            x = layer(x)
            x = F.silu(x if shift is None else x + shift.reshape(*shift.shape, *[1] * (x.ndim - 2)))
        return last(x)


class CriticHead(nn.Module):
    """``[B, C, T, h, w]`` features -> ``[B]`` logits, positive for real; any latent size and length.

    Args:
        channels: of the features.
        width: of the head.
        steps: the student's sampling steps, where the head is told which of them made a clip; 0: it is not told.
    """

    def __init__(self, channels: int, width: int = 64, steps: int = 0) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        convolutions = [nn.Conv3d(channels, width, 3, padding=1), nn.Conv3d(width, width, 3, padding=1)]
        self.layers = StepAware([*convolutions, nn.Conv3d(width, 1, 1)], width, steps)

    def forward(self, features: Tensor, step: Tensor) -> Tensor:
        """The mean over time and space of the last map: padding and pooling, so no size is special.

        Args:
            features: ``[B, C, T, h, w]``.
            step: ``[B]`` index of the student's time that made each clip, or that its fake partner was made at.
        """
        # float32 also under autocast: real and fake differ little, and on CPUs oneDNN's bfloat16 gradient of such a
        # convolution's weights is garbage for clips of two frames, now and then (torch 2.13).
        with torch.autocast(features.device.type, enabled=False):
            return self.layers(self.norm(features.float()), step).mean(dim=(1, 2, 3, 4))


QUANTILES = (0.1, 0.5, 0.9)


def calibration_error(probability: Tensor, truth: Tensor, bins: int = 10) -> float:
    """Expected calibration error: how far, on average, the share of reals is from the probability given to them.

    Args:
        probability: ``[N]``, ``P(real)``.
        truth: ``[N]``, 1 for real, 0 for fake.
        bins: equal bins of probability (Guo et al. 2017, equation 3).
    """
    place = (probability * bins).long().clamp(0, bins - 1)
    gaps = torch.zeros(bins, dtype=torch.float64).index_add(0, place, probability.double() - truth.double())
    return float(gaps.abs().sum() / len(probability))


class CriticRecord:
    """The last verdicts of a critic.

    Args:
        levels: bins of the noise level, equal shares of all times.
        total: number of times.
        keep: how many verdicts are remembered.
    """

    def __init__(self, levels: int = 4, total: int = 1000, keep: int = 2048) -> None:
        self.levels, self.total = levels, total
        self.verdicts: deque[tuple[int, float, int]] = deque(maxlen=keep)

    def add(self, time: Tensor, real_logit: Tensor, fake_logit: Tensor) -> None:
        """Remember the logits ``[B]`` of real clips and of fake ones at times ``[B]``."""
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

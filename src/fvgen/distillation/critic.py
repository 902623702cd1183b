"""The trainable part of the critic: 3D convolutions on the frozen teacher's middle-block features."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class StepAware(nn.Module):
    """Layers with SiLU between them; each but the last is shifted by an embedding of the student's step, where told.

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
        steps: see :class:`StepAware`.
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

"""Random numbers of a whole batch, of which each process takes its rows."""

import torch
from torch import Tensor


class Draws:
    """Noise and times that do not depend on how many processes share a batch.

    Args:
        seed: of everything drawn.
        rank: this process, out of ``size``.
        size: number of processes; each holds as many clips as the others.
    """

    def __init__(self, seed: int, rank: int = 0, size: int = 1) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.rank, self.size = rank, size

    def _mine(self, whole: Tensor, like: Tensor) -> Tensor:
        count = like.shape[0]
        return whole[self.rank * count : (self.rank + 1) * count].to(like.device)

    def noise(self, like: Tensor) -> Tensor:
        """Unit noise shaped like ``[B, ...]``, on its device, float32."""
        shape = (like.shape[0] * self.size, *like.shape[1:])
        return self._mine(torch.randn(shape, generator=self.generator), like)

    def integers(self, low: int, high: int, like: Tensor) -> Tensor:
        """``[B]`` integers from ``low`` to ``high - 1``, on the device of ``like [B, ...]``."""
        return self._mine(torch.randint(low, high, (like.shape[0] * self.size,), generator=self.generator), like)

    def several(self, count: int, high: int) -> list[int]:
        """``count`` different integers from 0 to ``high - 1`` in order, or all there are; the same in all processes."""
        return sorted(torch.randperm(high, generator=self.generator)[:count].tolist())

    def one(self, high: int) -> int:
        """One integer from 0 to ``high - 1``, the same in all processes."""
        return int(torch.randint(high, (), generator=self.generator))

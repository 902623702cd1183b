"""Random numbers of a batch, row by row: they depend neither on the number of processes nor on that of parts."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_BLOCK = 4  # 64-bit numbers that Philox makes at once


class BatchRandom:
    """Noise and times of some rows of a batch, each a function of the seed, of what was drawn before, and of its row.

    Numbers come from a counter (Philox, Salmon et al. 2011), so a process starts at its own rows without making those
    of the others.

    Args:
        seed: numbers of at least 0 that decide everything drawn.
        first: number, in the whole batch, of the first row that is drawn for.
    """

    def __init__(self, seed: int | Sequence[int], first: int = 0) -> None:
        self.seed = (seed,) if isinstance(seed, int) else tuple(seed)
        self.first, self.drawn = first, 0

    def _bits(self) -> np.random.Philox:
        """A stream of its own for each call."""
        key = np.random.SeedSequence((*self.seed, self.drawn)).generate_state(2, np.uint64)
        self.drawn += 1
        return np.random.Philox(key=key)

    def _rows(self, rows: int, each: int) -> NDArray[np.uint64]:
        """``[rows, >= each]`` random 64-bit numbers of the rows from :attr:`first` on."""
        blocks, bits = -(-each // _BLOCK), self._bits()
        bits.advance(self.first * blocks)
        return bits.random_raw(rows * blocks * _BLOCK).reshape(rows, -1)

    def noise(self, like: Tensor) -> Tensor:
        """Unit noise shaped like ``[B, ...]``, on its device, float32 (Box and Muller 1958)."""
        rows, each = like.shape[0], math.prod(like.shape[1:])
        halves = self._rows(rows, -(-each // 2)).view(np.uint32).reshape(rows, -1, 2)
        uniform = (torch.from_numpy(halves.astype(np.float64)) + 0.5) / 2**32
        radius, angle = (-2 * uniform[..., 0].log()).sqrt(), 2 * math.pi * uniform[..., 1]
        values = torch.stack([radius * angle.cos(), radius * angle.sin()], -1).flatten(1)[:, :each]
        return values.float().reshape(like.shape).to(like.device)

    def integers(self, low: int, high: int, like: Tensor) -> Tensor:
        """``[B]`` integers from ``low`` to ``high - 1``, on the device of ``like [B, ...]``."""
        raw = self._rows(like.shape[0], 1)[:, 0] % np.uint64(high - low)
        return (torch.from_numpy(raw.astype(np.int64)) + low).to(like.device)

    def several(self, count: int, high: int) -> list[int]:
        """``count`` different integers from 0 to ``high - 1`` in order, or all there are; the same for all rows."""
        return sorted(np.random.Generator(self._bits()).permutation(high)[:count].tolist())

    def one(self, high: int) -> int:
        """One integer from 0 to ``high - 1``, the same for all rows."""
        return int(np.random.Generator(self._bits()).integers(high))

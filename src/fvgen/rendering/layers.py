"""The nearest few discs at each pixel of a picture, composited front to back."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fvgen.rendering.occlusion import Cells, bound_layers, covered_pixels, positions_of, visible

_PAIRS_PER_PASS = 1 << 24  # bounds memory: about 200 MB of (pixel, point) candidates at a time
_CPU_BAND = 1 << 16  # pixels: tables of a band stay in the cache, and sorting by pixel takes two passes
_CPU_PAIRS = 1 << 19  # tried at once


@dataclass(frozen=True)
class Discs:
    """Discs of one radius: ``u``, ``v`` ``[M]`` pixels, ``cell`` ``[M]`` int32, ``order`` ``[M]`` int32 in depth."""

    u: Tensor
    v: Tensor
    cell: Tensor
    order: Tensor

    def take(self, index: Tensor) -> "Discs":
        """The discs at ``index``."""
        return Discs(*(t.index_select(0, index) for t in (self.u, self.v, self.cell, self.order)))

    def cut(self, first: int, last: int) -> "Discs":
        """The discs from ``first`` up to ``last``."""
        return Discs(*(t[first:last] for t in (self.u, self.v, self.cell, self.order)))


@dataclass(frozen=True)
class Layers:
    """The nearest discs at the pixels of one band of the picture.

    Attributes:
        opacity: ``[K, h * W]`` ``1 - d^2 / R^2``, 0 where there is no disc.
        order: ``[K, h * W]`` int32 the discs' order in depth, 0 where there is none.
        first: row of the picture that the band begins with.
    """

    opacity: Tensor
    order: Tensor
    first: int


def nearest_layers(u: Tensor, v: Tensor, cells: Cells, layers: int) -> Iterator[Layers]:
    """The ``layers`` nearest discs at each pixel, band after band.

    Args:
        u, v: ``[M]`` pixel positions, the nearest disc first.
        cells: size of the picture, radius of the discs.
        layers: ``K``.
    """
    cell = cells.of(u, v)
    # Sorted by cell, stably: raster order, and within a cell in depth. The old place is the order in depth.
    cell, order = torch.sort(cell, stable=True)
    discs = Discs(u.index_select(0, order), v.index_select(0, order), cell, order.int())
    height = _band_height(cells, len(u), u.device)
    for top in range(0, cells.height, height):
        yield _band_layers(discs, cells, top, min(height, cells.height - top), layers)


def _band_height(cells: Cells, count: int, device: torch.device) -> int:
    """Rows of a band: bounded memory, and on the CPU small enough for its cache."""
    pairs = count * (2 * cells.reach + 1) ** 2
    height = math.ceil(cells.height / max(1, math.ceil(pairs / _PAIRS_PER_PASS)))
    if device.type == "cpu":
        height = min(height, max(2 * cells.margin, _CPU_BAND // cells.columns - 2 * cells.margin))
    return height


def _band_layers(discs: Discs, cells: Cells, top: int, height: int, layers: int) -> Layers:
    band = Cells(cells.width, height, cells.radius)
    ends = torch.tensor([top, top + band.rows], dtype=torch.int32, device=discs.cell.device) * cells.columns
    first, last = torch.searchsorted(discs.cell, ends).tolist()
    own = discs.cut(first, last)
    own = Discs(own.u, own.v - top, own.cell - top * cells.columns, own.order)
    bound = bound_layers(band, own.cell, own.order, layers)
    own = own.take(positions_of(visible(band, bound, own.cell, own.order)))
    own = own.take(torch.sort(own.order).indices)
    pixel, disc = _pairs(own, band, bound)
    count = torch.bincount(pixel, minlength=band.rows * band.columns)
    end = count.cumsum(0)
    start = band.picture((end - count).view(band.rows, band.columns)).flatten()
    count = band.picture(count.view(band.rows, band.columns)).flatten()
    pair = torch.sort(pixel, stable=True).indices
    layer = torch.arange(layers, device=pixel.device)[:, None]
    held = layer < count
    if not len(pair):
        return Layers(own.u.new_zeros(held.shape), own.order.new_zeros(held.shape), top)
    place = (start + layer).clamp_(max=len(pair) - 1).view(-1)
    disc = disc.index_select(0, pair.index_select(0, place))
    u, v, order = (t.index_select(0, disc).view(held.shape) for t in (own.u, own.v, own.order))
    at = torch.arange(held.shape[1], device=pixel.device)
    x, y = at % band.width, torch.div(at, band.width, rounding_mode="floor")
    distance2 = ((x + 0.5 - u) ** 2 + (y + 0.5 - v) ** 2) / (band.radius * band.radius)
    return Layers((1 - distance2).clamp_(min=0).mul_(held), order * held, top)


def _pairs(discs: Discs, cells: Cells, bound: Tensor) -> tuple[Tensor, Tensor]:
    """``pixel [n]`` (a cell's number) and ``disc [n]`` int32 of all pairs within the bound, in the discs' order."""
    window = sum(2 * widest + 1 for _, widest in cells.footprint())
    width = 1 << (window - 1).bit_length()  # a power of two: row and column of a pair by bits
    at_once = max(1, (_CPU_PAIRS if discs.u.device.type == "cpu" else _PAIRS_PER_PASS) // width)
    pixels, found = [discs.cell[:0]], [discs.cell[:0]]
    table = torch.zeros(at_once, width, dtype=torch.bool, device=discs.u.device)
    offsets = discs.cell.new_zeros(width)
    for hits in covered_pixels(cells, bound, discs.u, discs.v, discs.cell, discs.order, at_once):
        columns = slice(hits.first, hits.first + len(hits.offset))
        offsets[columns] = hits.offset
        tried = discs.cell[hits.points]
        table[: len(tried), columns] = hits.counts.T
        if columns.stop == window:
            at = positions_of(table[: len(tried)].view(-1)).int()
            row = at >> (width.bit_length() - 1)
            pixels.append(tried.index_select(0, row) + offsets.index_select(0, at & (width - 1)))
            found.append(row + hits.points.start)
    return torch.cat(pixels), torch.cat(found)

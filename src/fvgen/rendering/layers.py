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

# ``[M]`` each: u, v in pixels, the number of the cell there (int32), the order in depth (int32).
Discs = tuple[Tensor, Tensor, Tensor, Tensor]


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
    # Sorted by cell, stably: raster order, and within a cell in depth. The old place is the order in depth.
    cell, order = torch.sort(cells.of(u, v), stable=True)
    discs = (u.index_select(0, order), v.index_select(0, order), cell, order.int())
    pairs = len(u) * (2 * cells.reach + 1) ** 2
    height = math.ceil(cells.height / max(1, math.ceil(pairs / _PAIRS_PER_PASS)))
    if u.device.type == "cpu":
        height = min(height, max(2 * cells.margin, _CPU_BAND // cells.columns - 2 * cells.margin))
    for top in range(0, cells.height, height):
        yield _band_layers(discs, cells, top, min(height, cells.height - top), layers)


def _band_layers(discs: Discs, cells: Cells, top: int, height: int, layers: int) -> Layers:
    band = Cells(cells.width, height, cells.radius)
    ends = torch.tensor([top, top + band.rows], dtype=torch.int32, device=discs[2].device) * cells.columns
    first, last = torch.searchsorted(discs[2], ends).tolist()
    u, v, cell, order = (t[first:last] for t in discs)
    cell = cell - top * cells.columns  # positions stay the picture's: a band's own would be rounded otherwise
    bound = bound_layers(band, cell, order, layers)
    kept = positions_of(visible(band, bound, cell, order))
    kept = kept.index_select(0, torch.sort(order.index_select(0, kept)).indices)
    u, v, cell, order = (t.index_select(0, kept) for t in (u, v, cell, order))
    pixel, disc = _pairs((u, v, cell, order), band, bound)
    count = torch.bincount(pixel, minlength=band.rows * band.columns)
    end = count.cumsum(0)
    start = band.picture((end - count).view(band.rows, band.columns)).flatten()
    count = band.picture(count.view(band.rows, band.columns)).flatten()
    pair = torch.sort(pixel, stable=True).indices
    layer = torch.arange(layers, device=pixel.device)[:, None]
    held = layer < count
    if not len(pair):
        return Layers(u.new_zeros(held.shape), order.new_zeros(held.shape), top)
    place = (start + layer).clamp_(max=len(pair) - 1).view(-1)
    disc = disc.index_select(0, pair.index_select(0, place))
    u, v, order = (t.index_select(0, disc).view(held.shape) for t in (u, v, order))
    at = torch.arange(held.shape[1], device=pixel.device)
    x, y = at % band.width, torch.div(at, band.width, rounding_mode="floor") + top
    distance2 = ((x + 0.5 - u) ** 2 + (y + 0.5 - v) ** 2) / (band.radius * band.radius)
    return Layers((1 - distance2).clamp_(min=0).mul_(held), order * held, top)


def _pairs(discs: Discs, cells: Cells, bound: Tensor) -> tuple[Tensor, Tensor]:
    """``pixel [n]`` (a cell's number) and ``disc [n]`` int32 of all pairs within the bound, in the discs' order."""
    cell = discs[2]
    window = sum(2 * widest + 1 for _, widest in cells.footprint())
    width = 1 << (window - 1).bit_length()  # a power of two: row and column of a pair by bits
    at_once = max(1, (_CPU_PAIRS if cell.device.type == "cpu" else _PAIRS_PER_PASS) // width)
    pixels, found = [cell[:0]], [cell[:0]]
    table = torch.zeros(at_once, width, dtype=torch.bool, device=cell.device)
    offsets = cell.new_zeros(width)
    for hits in covered_pixels(cells, bound, *discs, at_once):
        columns = slice(hits.first, hits.first + len(hits.offset))
        offsets[columns] = hits.offset
        tried = cell[hits.points]
        table[: len(tried), columns] = hits.counts.T
        if columns.stop == window:
            at = positions_of(table[: len(tried)].view(-1)).int()
            row = at >> (width.bit_length() - 1)
            pixels.append(tried.index_select(0, row) + offsets.index_select(0, at & (width - 1)))
            found.append(row + hits.points.start)
    return torch.cat(pixels), torch.cat(found)

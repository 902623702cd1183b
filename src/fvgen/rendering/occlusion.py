"""Which points cannot be seen: cells of one pixel, and bounds on the depth order of the points that count in each.

A picture needs only the few nearest of the discs that hold a pixel's centre, often one in ten. A point anywhere in a
cell near enough to a pixel surely covers its centre, so the k-th of these points bounds the k-th of all, and
everything behind the bound is left out before a single distance is computed.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

LAST = torch.iinfo(torch.int32).max  # behind everything
_SLACK = 1e-5  # of the radius: rounding must neither miss a pair nor call one sure that is not
_ENOUGH = 3  # times as many sure points as are wanted make the bound tight
_MOST_CELLS = 24
_CACHED = 1 << 16  # points


@dataclass(frozen=True)
class Cells:
    """Cells of one pixel over a picture and a margin round it, numbered row by row.

    Attributes:
        width, height: of the picture in pixels.
        radius: of the discs in pixels.
    """

    width: int
    height: int
    radius: float

    @property
    def reach(self) -> int:
        """How many cells away from its own a disc can hold a pixel's centre."""
        return math.ceil(self.radius * (1 + _SLACK) + 0.5) - 1

    @property
    def margin(self) -> int:
        """Cells outside the picture on each side: discs reach in from there, and their windows stay in the grid."""
        return 2 * self.reach + 1

    @property
    def columns(self) -> int:
        """Cells of a row, the margins' included."""
        return self.width + 2 * self.margin

    @property
    def rows(self) -> int:
        """Rows of cells, the margins' included."""
        return self.height + 2 * self.margin

    def of(self, u: Tensor, v: Tensor) -> Tensor:
        """``[M]`` int32 number of the cell that each pixel position ``u, v`` (``[M]`` each) lies in."""
        return (v.floor().int() + self.margin) * self.columns + u.floor().int() + self.margin

    def picture(self, grid: Tensor) -> Tensor:
        """The part ``[..., H, W]`` of ``[..., rows, columns]`` that is the picture."""
        return grid[..., self.margin : self.margin + self.height, self.margin : self.margin + self.width]

    def footprint(self) -> Iterator[tuple[int, int]]:
        """``(dy, widest dx)``: the rows of cells round a point's own whose centres its disc may hold."""
        for dy in range(-self.reach, self.reach + 1):
            left = (self.radius * (1 + _SLACK)) ** 2 - max(abs(dy) - 0.5, 0) ** 2
            if left > 0:
                yield dy, min(self.reach, math.ceil(math.sqrt(left) + 0.5) - 1)

    def sure(self) -> list[tuple[int, int]]:
        """Offsets ``(dy, dx)``, the nearest first, of the cells whose every point's disc holds a pixel's centre."""
        reach = range(-self.reach, self.reach + 1)
        limit = (self.radius * (1 - _SLACK)) ** 2
        found = [((abs(x) + 0.5) ** 2 + (abs(y) + 0.5) ** 2, y, x) for y in reach for x in reach]
        return [(y, x) for distance2, y, x in sorted(found) if distance2 < limit][:_MOST_CELLS]


def bound_nearest(cells: Cells, cell: Tensor, order: Tensor) -> Tensor:
    """An upper bound of the order of the nearest point at each pixel.

    Args:
        cells: the grid.
        cell: ``[M]`` the points' cells.
        order: ``[M]`` int32 not negative, smaller is nearer.

    Returns:
        ``[rows, columns]`` int32, -1 outside the picture: there nothing counts.
    """
    first = torch.full((cells.rows * cells.columns,), LAST, dtype=torch.int32, device=cell.device)
    first.scatter_reduce_(0, cell.long(), order, "amin")
    first = first.view(cells.rows, cells.columns)
    bound = torch.full_like(first, -1)
    inner = cells.picture(bound).fill_(LAST)
    for dy, dx in cells.sure():
        torch.minimum(inner, cells.picture(first.roll((-dy, -dx), (0, 1))), out=inner)
    return bound


def bound_layers(cells: Cells, cell: Tensor, order: Tensor, layers: int) -> Tensor:
    """An upper bound of the order of the ``layers``-th nearest point at each pixel.

    Args:
        cells: the grid.
        cell: ``[M]`` int32 the points' cells, ascending.
        order: ``[M]`` int32, ascending within a cell.
        layers: how many points count.

    Returns:
        ``[rows, columns]`` int32, -1 outside the picture: there nothing counts.
    """
    sure = cells.sure()
    bound = torch.full((cells.rows, cells.columns), -1, dtype=torch.int32, device=cell.device)
    inner = cells.picture(bound).fill_(LAST)
    if not sure or not len(cell):
        return bound
    depth = min(layers, math.ceil(_ENOUGH * layers / len(sure)))
    # The order of the nearest, second nearest ... point of each cell.
    count = torch.bincount(cell, minlength=cells.rows * cells.columns)
    start = count.cumsum(0) - count
    slots = order.new_full((depth, len(count)), LAST)
    for k in range(depth):
        filled = (count > k).nonzero()[:, 0]
        slots[k, filled] = order[start[filled] + k]
    slots = slots.view(depth, cells.rows, cells.columns)
    nearest = inner.new_full((layers, cells.height, cells.width), LAST)
    shifted = torch.empty_like(nearest)
    m = cells.margin
    for dy, dx in sure:
        for slot in slots[:, m + dy : m + dy + cells.height, m + dx : m + dx + cells.width]:
            # Insertion into sorted lists, all pixels at once: new[j] = min(old[j], max(old[j - 1], value)).
            shifted[0] = slot
            torch.maximum(nearest[:-1], slot, out=shifted[1:])
            torch.minimum(nearest, shifted, out=nearest)
    inner.copy_(nearest[-1])
    return bound


def visible(cells: Cells, bound: Tensor, cell: Tensor, order: Tensor) -> Tensor:
    """``[M]`` bool: points that may count at some pixel their disc reaches, given ``bound [rows, columns]``."""
    window = 2 * cells.reach + 1
    worst = bound
    for axis in (0, 1):
        padded = F.pad(worst, (cells.reach,) * 2 if axis else (0, 0, cells.reach, cells.reach), value=-1)
        worst = padded.narrow(axis, 0, bound.shape[axis]).clone()
        for k in range(1, window):
            torch.maximum(worst, padded.narrow(axis, k, bound.shape[axis]), out=worst)
    return order <= worst.view(-1).index_select(0, cell)


def positions_of(mask: Tensor) -> Tensor:
    """``[n]`` int64, where the flat bool ``mask`` is true, ascending."""
    if mask.device.type == "cpu":  # numpy counts without branches, ten times faster than torch
        return torch.from_numpy(mask.numpy().nonzero()[0])
    return mask.nonzero()[:, 0]


@dataclass(frozen=True)
class Hits:
    """Which points count in some cells beside their own.

    Attributes:
        points: the points that were tried, ``m`` of them.
        first: number of the first of these cells in the footprint, which has the same order for all points.
        offset: ``[w]`` int32 numbers of the cells less the number of a point's own.
        distance2: ``[w, m]`` squared distance from the disc's centre to the pixel's, over the squared radius.
        counts: ``[w, m]`` bool.
    """

    points: slice
    first: int
    offset: Tensor
    distance2: Tensor
    counts: Tensor


def covered_pixels(
    cells: Cells, bound: Tensor, u: Tensor, v: Tensor, cell: Tensor, order: Tensor, at_once: int | None = None
) -> Iterator[Hits]:
    """Where discs hold pixels' centres and are not behind ``bound [rows, columns]`` there.

    Points are tried ``at_once``, by default as many as stay in a CPU's cache (on a GPU: all), and for each such part
    one row of cells after another.
    """
    at_once = at_once or (_CACHED if u.device.type == "cpu" else max(1, len(u)))
    reach = cells.reach
    steps = torch.arange(-reach, reach + 1, device=u.device, dtype=u.dtype)[:, None]
    index = torch.arange(-reach, reach + 1, device=u.device, dtype=torch.int32)
    flat = bound.view(-1)
    for begin in range(0, len(u), at_once):
        points = slice(begin, begin + at_once)
        x, y = u[points], v[points]
        across, down = (x.floor() + steps + 0.5 - x) ** 2, (y.floor() + steps + 0.5 - y) ** 2
        first = 0
        for dy, widest in cells.footprint():
            part = slice(reach - widest, reach + widest + 1)
            offset = index[part] + dy * cells.columns
            distance2 = (across[part] + down[dy + reach]) / (cells.radius * cells.radius)
            limit = flat.index_select(0, (cell[points] + offset[:, None]).view(-1)).view(distance2.shape)
            yield Hits(points, first, offset, distance2, (distance2 < 1).logical_and_(order[points] <= limit))
            first += len(offset)

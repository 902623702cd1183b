"""Which triangle is seen where: rasterisation of many triangles at once, on any device.

A triangle with the corners ``p_i`` (pixel times depth, depth) is hit by the ray through the pixel ``x = (u, v, 1)``
where all of ``b = [p_0 p_1 p_2]^-1 x`` are positive; then ``1 / z = b_0 + b_1 + b_2``, and ``b_i z`` weigh the corners
(Olano and Greer 1997). All are affine in the pixel, so nothing has to be cut at the near plane, and the pixels of one
row are an interval that is found in closed form.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

_NEAR = 0.03  # only for bounding boxes
_AT_ONCE = 100_000  # pixels of bounding boxes


@dataclass(frozen=True)
class Facets:
    """Triangles before some cameras, culled.

    Attributes:
        view: ``[M]`` which camera.
        face: ``[M]`` index into the mesh's faces.
        rows: ``[M, 3, 3]`` float32: ``b_i = rows[i] . (x - x0, y - y0, 1)``.
        origin: ``[M, 2]`` float32 ``x0, y0`` in pixels.
    """

    view: Tensor
    face: Tensor
    rows: Tensor
    origin: Tensor

    def weights(self, index: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of the corners ``[P, 3]`` and inverse depth ``[P]`` of facets ``index [P]`` at pixels ``x, y``."""
        rows, origin = self.rows.index_select(0, index), self.origin.index_select(0, index)
        dx, dy = (x - origin[:, 0])[:, None], (y - origin[:, 1])[:, None]
        b = rows[..., 0] * dx + rows[..., 1] * dy + rows[..., 2]
        inverse = b.sum(1)
        return b / inverse[:, None], inverse


@dataclass(frozen=True)
class Visible:
    """What is seen.

    Attributes:
        facet: ``[F, H, W]`` int64 index into ``facets``, -1 where nothing is.
        inverse_depth: ``[F, H, W]`` float32, 0 where nothing is.
        facets: the triangles.
    """

    facet: Tensor
    inverse_depth: Tensor
    facets: Facets


Keep = Callable[[Tensor, Tensor, Tensor], Tensor]  # (faces, weights [P, 3], inverse depth): which hits are not cut out


def rasterise(
    positions: Tensor,
    faces: Tensor,
    one_sided: Tensor,
    projections: Tensor,
    size: tuple[int, int],
    cut: Tensor | None = None,
    keep: Keep | None = None,
    mirrored: bool = False,
) -> Visible:
    """The nearest triangle at every pixel.

    Args:
        positions: ``[V, 3]`` world.
        faces: ``[N, 3]``.
        one_sided: ``[N]`` bool, not drawn from behind.
        projections: ``[F, 3, 4]`` float64, world to (pixel times depth, depth).
        size: (width, height).
        cut: ``[N]`` bool, faces whose hits ``keep`` judges.
        keep: which hits of these count.
        mirrored: the projections mirror the world.
    """
    width, height = size
    points = torch.einsum("fij,vj->fvi", projections[..., :3], positions.double()) + projections[:, None, :, 3]
    corners = points[:, faces]  # [F, N, 3 corners, 3]
    exact, box = _facets(corners, one_sided, size, mirrored)
    shown = replace(exact, rows=exact.rows.float(), origin=exact.origin.float())
    best = torch.zeros(len(projections) * height * width, dtype=torch.int64, device=positions.device)
    holed = None if cut is None or keep is None else cut[exact.face]
    for chunk in _chunks(box):
        spans = _spans(exact, box, chunk, size)
        if holed is None:
            _draw(spans, best, size)
            continue
        for some in (False, True):
            rows = (holed[spans[0]] == some).nonzero()[:, 0]
            _draw([t.index_select(0, rows) for t in spans], best, size, shown, keep if some else None)
    bits = (best >> 32).to(torch.int32)
    shape = (len(projections), height, width)
    index = torch.where(best > 0, best & 0x7FFFFFFF, -1)
    return Visible(index.view(shape), bits.view(torch.float32).view(shape), shown)


def _chunks(box: Tensor) -> list[slice]:
    """Facets in portions: on a CPU so few that their pixels stay in the cache."""
    if box.device.type != "cpu":
        return [slice(0, len(box))]
    area = (box[:, 2] - box[:, 0] + 1) * (box[:, 3] - box[:, 1] + 1)
    portion = torch.div(torch.cumsum(area, 0), _AT_ONCE, rounding_mode="floor")
    starts = [0, *((portion[1:] != portion[:-1]).nonzero()[:, 0] + 1).tolist(), len(box)]
    return [slice(a, b) for a, b in zip(starts, starts[1:])]


def _facets(corners: Tensor, one_sided: Tensor, size: tuple[int, int], mirrored: bool) -> tuple[Facets, Tensor]:
    """Facets in float64, and their boxes ``[M, 4]``."""
    p0, p1, p2 = corners.unbind(2)
    cross = torch.stack([torch.linalg.cross(p1, p2), torch.linalg.cross(p2, p0), torch.linalg.cross(p0, p1)], 2)
    volume = (p0 * cross[:, :, 0]).sum(-1)
    front = volume > 0 if mirrored else volume < 0
    box, some = _boxes(corners, size)
    view, face = (some & (front | ~one_sided) & (volume.abs() > 1e-12)).nonzero(as_tuple=True)
    box, rows = box[view, face], cross[view, face] / volume[view, face][:, None, None]
    origin = box[:, :2].double() + 0.5
    rows[..., 2] += rows[..., 0] * origin[:, None, 0] + rows[..., 1] * origin[:, None, 1]
    return Facets(view, face, rows, origin), box


def _boxes(corners: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """``[F, N, 4]`` first and last pixel column and row (x0, y0, x1, y1), cut at the near plane; and whether any."""
    z = corners[..., 2]
    seen = z >= _NEAR
    after, z_after = corners.roll(-1, 2), z.roll(-1, 2)
    share = ((_NEAR - z) / (z_after - z).where(z_after != z, 1.0))[..., None]
    crossing = corners + share * (after - corners)
    crosses = seen != (z_after >= _NEAR)
    all_points, valid = torch.cat([corners, crossing], 2), torch.cat([seen, crosses], 2)
    pixels = all_points[..., :2] / all_points[..., 2:].clamp(min=_NEAR * 0.5)
    low = pixels.where(valid[..., None], float("inf")).amin(2)
    high = pixels.where(valid[..., None], float("-inf")).amax(2)
    limit = torch.tensor(size, device=z.device, dtype=torch.float64)
    first = torch.ceil(low - 0.5 - 1e-6).clamp(min=0)
    last = torch.minimum(torch.floor(high - 0.5 + 1e-6), limit - 1)
    some = valid.any(2) & (first <= last).all(-1)
    return torch.cat([first, last], -1).where(some[..., None], 0.0).long(), some


def _spans(facets: Facets, boxes: Tensor, chunk: slice, size: tuple[int, int]) -> list[Tensor]:
    """Intervals of pixels of a row: facet, first pixel (flat over all views), pixels, 1/z at the first, its slope."""
    view, rows, box = facets.view[chunk], facets.rows[chunk], boxes[chunk]
    width, height = size
    tall = box[:, 3] - box[:, 1] + 1
    facet = torch.repeat_interleave(tall)
    first = torch.cumsum(tall, 0) - tall
    line = torch.arange(len(facet), device=box.device) - first.index_select(0, facet)
    a = rows[..., 0].index_select(0, facet)
    c = rows[..., 1].index_select(0, facet) * line[:, None] + rows[..., 2].index_select(0, facet)
    root = -c / a.where(a != 0, 1.0)
    low = root.where(a > 0, float("-inf")).amax(1)
    high = root.where(a < 0, float("inf")).amin(1)
    wide = (box[:, 2] - box[:, 0]).index_select(0, facet)
    left = torch.ceil(low - 1e-7).clamp(min=0)
    right = torch.minimum(torch.floor(high + 1e-7), wide.double())
    none = ((a == 0) & (c < 0)).any(1)
    count = (right - left + 1).clamp(min=0).where(~none, 0.0)
    slope = a.sum(1)
    value = c.sum(1) + slope * left
    kept = ((count > 0) & (value > 0) & (value + slope * (count - 1) > 0)).nonzero()[:, 0]
    facet, left, line, count, value, slope = (t.index_select(0, kept) for t in (facet, left, line, count, value, slope))
    x, y = box[:, 0].index_select(0, facet) + left.long(), box[:, 1].index_select(0, facet) + line
    start = (view.index_select(0, facet) * height + y) * width + x
    return [facet + chunk.start, start, count.long(), value.float(), slope.float()]


def _draw(
    spans: list[Tensor], best: Tensor, size: tuple[int, int], facets: Facets | None = None, keep: Keep | None = None
) -> None:
    """Put the spans' pixels into ``best``, the largest of (bits of 1/z, facet) per pixel."""
    facet, start, count, value, slope = spans
    if not len(facet):
        return
    span = torch.repeat_interleave(count)
    within = torch.arange(len(span), device=best.device)
    first = torch.cumsum(count, 0) - count
    pixel = within + (start - first).index_select(0, span)
    within -= first.index_select(0, span)
    inverse = torch.addcmul(value.index_select(0, span), slope.index_select(0, span), within.float())
    facet = facet.index_select(0, span)
    key = (inverse.clamp_(min=1e-9).view(torch.int32).long() << 32) | facet
    if facets is not None and keep is not None:
        width, height = size
        flat = pixel % (width * height)
        x, y = (flat % width).float() + 0.5, torch.div(flat, width, rounding_mode="floor").float() + 0.5
        rows = keep(facets.face[facet], *facets.weights(facet, x, y)).nonzero()[:, 0]
        key, pixel = key.index_select(0, rows), pixel.index_select(0, rows)
    best.scatter_reduce_(0, pixel, key, "amax")

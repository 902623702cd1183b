"""A z-buffer point splatter in plain torch: one code for CPU and GPU, and the pictures of the teacher's renderer.

Every point is a disc of one size in the picture. A pixel sees the discs that hold its centre; the nearest ones are
composited front to back with ``alpha = 1 - (distance / radius)^2``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.rendering.layers import nearest_layers
from fvgen.rendering.occlusion import LAST, Cells, bound_nearest, covered_pixels, positions_of, visible


@dataclass(frozen=True)
class Rendered:
    """``N`` pictures of a point cloud.

    Attributes:
        image: ``[N, H, W, 3]`` float32, composited over black.
        alpha: ``[N, H, W]`` float32 in 0..1, accumulated opacity.
        depth: ``[N, H, W]`` float32 z-depth of the nearest point in world units, 0 where there is none.
    """

    image: Tensor
    alpha: Tensor
    depth: Tensor


@dataclass(frozen=True)
class Projected:
    """Points before one camera: ``u``, ``v`` ``[M]`` pixels, ``z`` ``[M]`` depth, ``index`` ``[M]`` into the cloud."""

    u: Tensor
    v: Tensor
    z: Tensor
    index: Tensor


def project_points(positions: Tensor, camera: Cameras, margin: float = 0.0) -> Projected:
    """Project ``positions [P, 3]`` into one camera; drop points behind it or more than ``margin`` pixels outside.

    World coordinates are taken in float64 and what is seen from the camera in float32: far from the world's origin
    float32 would tell no two of them apart.
    """
    width, height = camera.size
    pose = camera.world_from_camera[0].to(positions.device)
    local = ((positions - pose[:3, 3]) @ pose[:3, :3]).float()
    z = local[:, 2]
    u, v = (local @ camera.intrinsics[0, :2].to(local).T / z[:, None]).unbind(1)
    seen = (z > 0) & (u > -margin) & (u < width + margin) & (v > -margin) & (v < height + margin)
    index = seen.nonzero()[:, 0]
    return Projected(u[index], v[index], z[index], index)


def render_points(
    positions: Tensor, colors: Tensor, cameras: Cameras, radius: float = 0.01, points_per_pixel: int = 10
) -> Rendered:
    """Render coloured points with the teacher's rasteriser and compositor.

    A point at depth z covers the pixel centres closer than ``R = radius * min(H, W) / 2`` pixels; of these the
    ``points_per_pixel`` nearest in depth are composited front to back, ``sum_k alpha_k c_k prod_{j<k} (1 - alpha_j)``
    with ``alpha = 1 - d^2 / R^2``, over black. Ties in depth are resolved by the points' order: deterministic.

    Args:
        positions: ``[P, 3]`` float, world.
        colors: ``[P, 3]`` float 0..1.
        cameras: ``N`` cameras of one size.
        radius: in normalised device units (the shorter side is 2 long).
        points_per_pixel: how many of the nearest points are composited.

    Raises:
        ValueError: if shapes do not agree, the cameras differ in size, or a setting is not positive.
    """
    if positions.ndim != 2 or positions.shape[1] != 3 or positions.shape != colors.shape:
        raise ValueError(f"points need shapes [P,3] and [P,3], got {tuple(positions.shape)}, {tuple(colors.shape)}")
    if radius <= 0 or points_per_pixel < 1:
        raise ValueError("radius and points_per_pixel must be positive")
    width, height = cameras.size
    pixels = radius * min(width, height) / 2
    colors = colors.float()
    image = colors.new_zeros(len(cameras), height * width, 3)
    alpha, depth = colors.new_zeros(2, len(cameras), height * width)
    for i in range(len(cameras)):
        points = project_points(positions, cameras[i], pixels)
        if not len(points.z):
            continue
        nearest = torch.sort(points.z.view(torch.int32), stable=True).indices  # positive floats order like their bits
        u, v, z, index = (t.index_select(0, nearest) for t in (points.u, points.v, points.z, points.index))
        shades = colors.index_select(0, index)
        for band in nearest_layers(u, v, Cells(width, height, pixels), points_per_pixel):
            rows = slice(band.first * width, band.first * width + band.opacity.shape[1])
            through = torch.cumprod(1 - band.opacity, 0)
            weight = torch.cat([band.opacity[:1], band.opacity[1:] * through[:-1]])
            for k in range(points_per_pixel):  # a fixed order of additions: deterministic on every device
                image[i, rows] += weight[k, :, None] * shades.index_select(0, band.order[k])
            alpha[i, rows] = 1 - through[-1]
            covered = positions_of(band.opacity[0] > 0)
            depth[i, rows][covered] = z.index_select(0, band.order[0].index_select(0, covered))
    shape = (len(cameras), height, width)
    return Rendered(image.view(*shape, 3), alpha.view(shape), depth.view(shape))


@dataclass(frozen=True)
class Surface:
    """One picture of the nearest surface.

    Attributes:
        image: ``[H, W, C]`` float32, the weighted mean colour, not multiplied by coverage.
        weight: ``[H, W]`` float32, sum of the points' weights, 0 where there is none.
        depth: ``[H, W]`` float32 weighted mean z-depth, 0 where there is none.
    """

    image: Tensor
    weight: Tensor
    depth: Tensor


_FIXED = float(1 << 24)  # sums in whole numbers come out the same in any order, so also on a GPU


def render_surface(
    positions: Tensor,
    colors: Tensor,
    weights: Tensor,
    camera: Cameras,
    radius: float = 1.0,
    tolerance: float = 0.02,
) -> Surface:
    """Blend all points of the nearest surface, instead of letting single points win.

    A first pass finds the nearest depth at each pixel; a second averages the points that lie within the share
    ``tolerance`` behind it, weighted by ``weights`` and by ``1 - d^2 / R^2``.

    Args:
        positions: ``[P, 3]`` world.
        colors: ``[P, C]`` float 0..1.
        weights: ``[P]`` float in 0..1.
        camera: one camera.
        radius: ``R`` in pixels.
        tolerance: relative thickness of a surface.
    """
    points = project_points(positions, camera, radius)
    cells = Cells(*camera.size, radius)
    bits, cell = points.z.view(torch.int32), cells.of(points.u, points.v)  # positive floats order like their bits
    nearest = _nearest_per_pixel(points, cells, bits, cell)
    limit = torch.where(nearest == LAST, -1, (nearest.view(torch.float32) * (1 + tolerance)).view(torch.int32))
    kept = positions_of(visible(cells, limit, cell, bits))
    u, v, z, index = (t.index_select(0, kept) for t in (points.u, points.v, points.z, points.index))
    bits, cell = bits.index_select(0, kept), cell.index_select(0, kept)
    share = weights.float().index_select(0, index)
    unit = points.z.max() if len(points.z) else points.z.new_ones(())
    table = [*colors.float().index_select(0, index).T.contiguous(), z / unit]
    # Sums of colours, depth over ``unit`` and one, weighted, in units of _FIXED.
    total = torch.zeros(len(table) + 1, cells.rows * cells.columns, dtype=torch.int64, device=z.device)
    for hits in covered_pixels(cells, limit, u, v, cell, bits):
        own = hits.points
        for offset, distance2, counts in zip(hits.offset, hits.distance2, hits.counts, strict=True):
            rows = positions_of(counts)
            pixel = (cell[own].index_select(0, rows) + offset).long()
            amount = (1 - distance2.index_select(0, rows)) * share[own].index_select(0, rows) * _FIXED
            for channel, values in zip(total, table):
                channel.scatter_add_(0, pixel, (values[own].index_select(0, rows) * amount).round_().long())
            total[-1].scatter_add_(0, pixel, amount.round_().long())
    seen = cells.picture(total.view(-1, cells.rows, cells.columns))
    summed = (seen.movedim(0, -1).float() / _FIXED).contiguous()
    weight = summed[..., -1]
    mean = summed / weight.clamp(min=1e-12)[..., None]
    return Surface(mean[..., :-2], weight, mean[..., -2] * unit)


def _nearest_per_pixel(points: Projected, cells: Cells, bits: Tensor, cell: Tensor) -> Tensor:
    """Bits ``[rows, columns]`` int32 of the nearest depth at each pixel, ``LAST`` where nothing is."""
    bound = bound_nearest(cells, cell, bits)
    kept = positions_of(visible(cells, bound, cell, bits))
    u, v, cell, bits = (t.index_select(0, kept) for t in (points.u, points.v, cell, bits))
    best = bits.new_full((cells.rows * cells.columns,), LAST)
    for hits in covered_pixels(cells, bound, u, v, cell, bits):
        own, near = cell[hits.points], bits[hits.points]
        for offset, counts in zip(hits.offset, hits.counts, strict=True):
            rows = positions_of(counts)
            best.scatter_reduce_(0, (own.index_select(0, rows) + offset).long(), near.index_select(0, rows), "amin")
    return best.view(cells.rows, cells.columns)

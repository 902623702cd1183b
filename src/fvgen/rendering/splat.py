"""A z-buffer point splatter in plain torch: one code for CPU and GPU, and the pictures of the teacher's renderer.

Every point is a disc of one size in the picture. A pixel sees the discs that hold its centre; the nearest ones are
composited front to back with ``alpha = 1 - (distance / radius)^2``.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fvgen.cameras import Cameras

_PAIRS_PER_PASS = 1 << 24  # bounds memory: about 1 GB of (pixel, point) candidates at a time
_EMPTY = torch.iinfo(torch.int64).max


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
    """Project ``positions [P, 3]`` into one camera; drop points behind it or more than ``margin`` pixels outside."""
    width, height = camera.size
    center = camera.centers[0].to(positions)
    rotation = camera.world_from_camera[0, :3, :3].to(positions)
    local = (positions - center) @ rotation
    z = local[:, 2]
    matrix = camera.intrinsics[0].to(positions)
    uv = local @ matrix[:2].T / z[:, None]
    u, v = uv[:, 0], uv[:, 1]
    seen = (z > 0) & (u > -margin) & (u < width + margin) & (v > -margin) & (v < height + margin)
    index = seen.nonzero()[:, 0]
    return Projected(u[index], v[index], z[index], index)


def disc_pixels(u: Tensor, v: Tensor, size: tuple[int, int], radius: float) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """All (point, pixel) pairs where the pixel's centre lies within ``radius`` pixels of the point.

    Yields:
        For each offset of the window ``(rows [M'], pixel [M'] int64 flat index, squared distance / radius^2 [M'])``.
    """
    width, height = size
    left, top = torch.floor(u - radius + 0.5), torch.floor(v - radius + 0.5)
    reach = math.ceil(2 * radius) + 1
    for dy in range(reach):
        y = top + dy
        for dx in range(reach):
            x = left + dx
            distance2 = ((x + 0.5 - u) ** 2 + (y + 0.5 - v) ** 2) / (radius * radius)
            hit = (distance2 < 1) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
            rows = hit.nonzero()[:, 0]
            yield rows, (y[rows] * width + x[rows]).long(), distance2[rows]


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
        points_per_pixel: how many of the nearest points are composited; 1 is fastest.

    Raises:
        ValueError: if shapes do not agree, the cameras differ in size, or a setting is not positive.
    """
    if positions.ndim != 2 or positions.shape[1] != 3 or positions.shape != colors.shape:
        raise ValueError(f"points need shapes [P,3] and [P,3], got {tuple(positions.shape)}, {tuple(colors.shape)}")
    if radius <= 0 or points_per_pixel < 1:
        raise ValueError("radius and points_per_pixel must be positive")
    width, height = cameras.size
    pixels = radius * min(width, height) / 2
    positions, colors = positions.float(), colors.float()
    image = positions.new_zeros(len(cameras), height * width, 3)
    alpha = positions.new_zeros(len(cameras), height * width)
    depth = positions.new_zeros(len(cameras), height * width)
    for i in range(len(cameras)):
        points = project_points(positions, cameras[i], pixels)
        outputs = (image[i], alpha[i], depth[i])
        if points_per_pixel == 1:
            _render_nearest(points, colors, (width, height), pixels, outputs)
        else:
            _render_layers(points, colors, (width, height), pixels, points_per_pixel, outputs)
    shape = (len(cameras), height, width)
    return Rendered(image.view(*shape, 3), alpha.view(shape), depth.view(shape))


def nearest_per_pixel(points: Projected, size: tuple[int, int], radius: float) -> tuple[Tensor, Tensor]:
    """The nearest disc at each pixel.

    Returns:
        ``index [H*W]`` int64 into ``points`` (-1 where none), ``depth [H*W]`` (0 where none).
    """
    # Positive floats order like their bits, so depth and index packed in one integer need a single minimum.
    key = (points.z.float().view(torch.int32).long() << 32) | torch.arange(len(points.z), device=points.z.device)
    best = torch.full((size[0] * size[1],), _EMPTY, dtype=torch.int64, device=points.z.device)
    for rows, pixel, _ in disc_pixels(points.u, points.v, size, radius):
        best.scatter_reduce_(0, pixel, key[rows], "amin")
    index = torch.where(best == _EMPTY, -1, best & 0xFFFFFFFF)
    depth = (best >> 32).int().view(torch.float32)
    return index, torch.where(index >= 0, depth, torch.zeros_like(depth))


def _render_nearest(
    points: Projected, colors: Tensor, size: tuple[int, int], radius: float, outputs: tuple[Tensor, Tensor, Tensor]
) -> None:
    image, alpha, depth = outputs
    index, z = nearest_per_pixel(points, size, radius)
    pixel = (index >= 0).nonzero()[:, 0]
    rows = index[pixel]
    x, y = pixel % size[0], torch.div(pixel, size[0], rounding_mode="floor")
    distance2 = ((x + 0.5 - points.u[rows]) ** 2 + (y + 0.5 - points.v[rows]) ** 2) / (radius * radius)
    alpha[pixel] = (1 - distance2).clamp(0, 1)
    image[pixel] = alpha[pixel, None] * colors[points.index[rows]]
    depth[:] = z


def _render_layers(
    points: Projected,
    colors: Tensor,
    size: tuple[int, int],
    radius: float,
    layers: int,
    outputs: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Composite the ``layers`` nearest points per pixel, in bands of rows that bound the memory."""
    width, height = size
    per_point = (math.ceil(2 * radius) + 1) ** 2
    bands = min(height, max(1, math.ceil(len(points.z) * per_point / _PAIRS_PER_PASS)))
    rows_per_band = math.ceil(height / bands)
    for top in range(0, height, rows_per_band):
        rows = min(rows_per_band, height - top)
        band = points
        if bands > 1:
            inside = ((points.v > top - radius) & (points.v < top + rows + radius)).nonzero()[:, 0]
            band = Projected(points.u[inside], points.v[inside] - top, points.z[inside], points.index[inside])
        image, alpha, depth = (o[top * width : (top + rows) * width] for o in outputs)
        _composite(band, colors, (width, rows), radius, layers, (image, alpha, depth))


def _composite(
    points: Projected,
    colors: Tensor,
    size: tuple[int, int],
    radius: float,
    layers: int,
    outputs: tuple[Tensor, Tensor, Tensor],
) -> None:
    image, alpha, depth = outputs
    if not len(points.z):
        return
    order = torch.sort(points.z, stable=True).indices
    near = Projected(points.u[order], points.v[order], points.z[order], points.index[order])
    pairs = list(disc_pixels(near.u, near.v, size, radius))
    point = torch.cat([p[0] for p in pairs])
    # Two stable sorts of small integers are several times faster than one of wide keys: by depth rank, then by pixel.
    by_rank = torch.sort(point.int(), stable=True).indices
    pixel = torch.cat([p[1] for p in pairs])[by_rank]
    pixel, by_pixel = torch.sort(pixel.int(), stable=True)
    pair = by_rank[by_pixel]
    pixel = pixel.long()
    count = torch.bincount(pixel, minlength=size[0] * size[1])
    start = count.cumsum(0) - count
    layer = torch.arange(len(pixel), device=pixel.device) - start[pixel]
    kept = (layer < layers).nonzero()[:, 0]
    pixel, layer, pair = pixel[kept], layer[kept], pair[kept]
    opacity = 1 - torch.cat([p[2] for p in pairs])[pair]
    point = point[pair]
    table = image.new_zeros(layers, size[0] * size[1])
    table[layer, pixel] = opacity
    through = torch.cumprod(1 - table, 0)
    weight = torch.cat([table[:1], table[1:] * through[:-1]])
    source = torch.zeros(layers, size[0] * size[1], dtype=torch.int64, device=pixel.device)
    source[layer, pixel] = near.index[point]
    for k in range(layers):  # a fixed order of additions keeps the picture deterministic on every device
        image += weight[k, :, None] * colors[source[k]]
    alpha += 1 - through[-1]
    first = layer == 0
    depth[pixel[first]] = near.z[point[first]]


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
    width, height = camera.size
    points = project_points(positions.float(), camera, radius)
    pairs = list(disc_pixels(points.u, points.v, (width, height), radius))
    bits = points.z.view(torch.int32)
    nearest = torch.full((height * width,), torch.iinfo(torch.int32).max, dtype=torch.int32, device=bits.device)
    for rows, pixel, _ in pairs:
        nearest.scatter_reduce_(0, pixel, bits[rows], "amin")
    limit = nearest.view(torch.float32) * (1 + tolerance)
    unit = points.z.max() if len(points.z) else points.z.new_ones(())
    table = torch.cat([colors.float()[points.index], points.z[:, None] / unit, torch.ones_like(points.z)[:, None]], 1)
    share = weights.float()[points.index]
    total = torch.zeros(height * width, table.shape[1], dtype=torch.int64, device=bits.device)
    for rows, pixel, distance2 in pairs:
        kept = (points.z[rows] <= limit[pixel]).nonzero()[:, 0]
        rows, pixel, distance2 = rows[kept], pixel[kept], distance2[kept]
        value = table[rows] * ((1 - distance2) * share[rows] * _FIXED)[:, None]
        total.index_add_(0, pixel, value.round_().long())
    summed = (total.float() / _FIXED).view(height, width, -1)
    weight = summed[..., -1]
    mean = summed / weight.clamp(min=1e-12)[..., None]
    return Surface(mean[..., :-2], weight, mean[..., -2] * unit)

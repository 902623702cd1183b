"""Photos of one place differ in exposure and white balance: by how much, told from points that two of them share."""

import torch
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.rendering.splat import Surface, render_surface

_SIDE = 96  # pixels; coarse pictures average noise and small errors of depth away
_SAME = 0.03  # relative difference of depth within which two photos show the same surface
_FEWEST = 40
_MOST = 0.7  # about one stop


def exposure_levels(positions: Tensor, colors: Tensor, point_photo: Tensor, cameras: Cameras) -> Tensor:
    """How bright each photo is compared with the others, per channel.

    Each photo's points are looked at from each of the next two photos; the median ratio of colours on surfaces seen
    by both gives one equation, and least squares join them. Photos without overlap keep level 0.

    Args:
        positions: ``[P, 3]`` world.
        colors: ``[P, 3]`` float 0..1.
        point_photo: ``[P]`` which photo each point came from.
        cameras: ``K``, the photos'.

    Returns:
        ``[K, 3]`` logarithms with mean zero: photo k shows the scene ``exp(level[k])`` as bright as the average does.
    """
    count = len(cameras)
    equations: list[tuple[int, int, Tensor, float]] = []
    small = [_coarse(cameras[k]) for k in range(count)]
    own = [(point_photo == k).nonzero()[:, 0] for k in range(count)]
    for i in range(count):
        for j in range(i + 1, min(i + 3, count)):
            pictures = [_seen(positions[own[k]], colors[own[k]], small[i]) for k in (i, j)]
            found = _ratio(*pictures)
            if found is not None:
                equations.append((i, j, *found))
    return _solve(equations, count, colors.device).to(colors)


def _coarse(camera: Cameras) -> Cameras:
    width, height = camera.size
    scale = _SIDE / max(width, height)
    return camera.resized(max(8, round(width * scale)), max(8, round(height * scale)))


def _seen(positions: Tensor, colors: Tensor, camera: Cameras) -> Surface:
    return render_surface(positions, colors, positions.new_ones(len(positions)), camera, tolerance=_SAME)


def _ratio(one: Surface, other: Surface) -> tuple[Tensor, float] | None:
    """Median log ratio ``[3]`` of two pictures' colours on common surfaces, and how many pixels gave it."""
    same = (one.weight > 0) & (other.weight > 0) & ((one.depth - other.depth).abs() < _SAME * one.depth)
    a, b = one.image[same], other.image[same]
    usable = ((a > 0.04) & (a < 0.96) & (b > 0.04) & (b < 0.96)).all(-1)
    if int(usable.sum()) < _FEWEST:
        return None
    return (a[usable].log() - b[usable].log()).median(0).values, float(usable.sum())


def _solve(equations: list[tuple[int, int, Tensor, float]], count: int, device: torch.device) -> Tensor:
    """Levels ``[count, 3]`` with ``level[i] - level[j]`` as given, least squares, mean zero."""
    matrix = torch.eye(count, dtype=torch.float64, device=device) * 1e-3
    right = torch.zeros(count, 3, dtype=torch.float64, device=device)
    for i, j, ratio, pixels in equations:
        share = min(1.0, pixels / 500)
        ratio = ratio.double() * share
        matrix[i, i] += share
        matrix[j, j] += share
        matrix[i, j] -= share
        matrix[j, i] -= share
        right[i] += ratio
        right[j] -= ratio
    levels = torch.linalg.solve(matrix, right)
    return (levels - levels.mean(0)).clamp(-_MOST, _MOST)

"""Photos of one place differ in exposure and white balance: by how much, told from points that two of them share."""

import torch
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.rendering.splat import render_surface

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
    count, device = len(cameras), colors.device
    matrix = torch.eye(count, dtype=torch.float64, device=device) * 1e-3
    right = torch.zeros(count, 3, dtype=torch.float64, device=device)
    own = [(point_photo == k).nonzero()[:, 0] for k in range(count)]
    for i in range(count):
        width, height = cameras[i].size
        scale = _SIDE / max(width, height)
        small = cameras[i].resized(max(8, round(width * scale)), max(8, round(height * scale)))
        for j in range(i + 1, min(i + 3, count)):
            points = [(positions[own[k]], colors[own[k]], colors.new_ones(len(own[k]))) for k in (i, j)]
            one, other = (render_surface(*some, small, tolerance=_SAME) for some in points)
            same = (one.weight > 0) & (other.weight > 0) & ((one.depth - other.depth).abs() < _SAME * one.depth)
            a, b = one.image[same], other.image[same]
            usable = ((a > 0.04) & (a < 0.96) & (b > 0.04) & (b < 0.96)).all(-1)
            if int(usable.sum()) < _FEWEST:
                continue
            share = min(1.0, float(usable.sum()) / 500)
            ratio = (a[usable].log() - b[usable].log()).median(0).values.double() * share
            pair = [i, j]
            matrix[pair, pair] += share
            matrix[pair, pair[::-1]] -= share
            right[i] += ratio
            right[j] -= ratio
    levels = torch.linalg.solve(matrix, right)
    return (levels - levels.mean(0)).clamp(-_MOST, _MOST).to(colors)

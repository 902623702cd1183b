"""Fill what the points left open: smooth, fast, without a model."""

import torch
from torch import Tensor
from torch.nn import functional as F

_FAR_PREFERENCE = 8.0


def fill_holes(images: Tensor, coverage: Tensor, depth: Tensor | None = None) -> Tensor:
    """Fill uncovered pixels from what surrounds them by a push-pull pyramid.

    Holes open where something near moved aside, so the colours that belong there are the farther ones at the
    hole's border; with ``depth`` these are preferred. Covered pixels are returned unchanged.

    Args:
        images: ``[F, H, W, 3]`` float 0..1.
        coverage: ``[F, H, W]`` bool, True where the picture is known.
        depth: ``[F, H, W]`` z-depth, 0 where unknown, or ``None``.

    Returns:
        ``[F, H, W, 3]`` float; pictures without a single covered pixel become black.
    """
    known = coverage.to(images.dtype)[:, None]
    color = images.movedim(-1, 1) * known
    far = torch.zeros_like(known) if depth is None else depth.to(images.dtype)[:, None] * known
    filled = _push_pull(color, known, far)
    return torch.where(coverage[..., None], images, filled.movedim(1, -1).clamp(0, 1))


def _push_pull(color: Tensor, weight: Tensor, depth: Tensor) -> Tensor:
    """Fill ``color [F, 3, H, W]`` (premultiplied by ``weight [F, 1, H, W]`` in 0..1) from coarser levels."""
    height, width = color.shape[-2:]
    if height == 1 and width == 1:
        return color / weight.clamp(min=1e-6)
    coarse = _push_pull(*_halve(color, weight, depth))
    up = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)[..., :height, :width]
    return color + (1 - weight) * up


def _halve(color: Tensor, weight: Tensor, depth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Average 2x2 cells by weight, preferring the far ones; a cell that has anything known becomes fully known."""
    pad = (0, color.shape[-1] % 2, 0, color.shape[-2] % 2)
    color, weight, depth = (F.pad(t, pad) for t in (color, weight, depth))
    farthest = F.max_pool2d(depth, 2)
    relative = depth / F.interpolate(farthest, scale_factor=2, mode="nearest").clamp(min=1e-12)
    share = torch.where(farthest.repeat_interleave(2, -2).repeat_interleave(2, -1) > 0, relative, 1.0)
    share = share.clamp(0, 1) ** _FAR_PREFERENCE
    share = torch.where(weight > 0, share.clamp(min=1e-4), torch.zeros_like(share))
    total = F.avg_pool2d(weight * share, 2)
    scale = 1 / total.clamp(min=1e-12)
    mean_color = F.avg_pool2d(color * share, 2) * scale
    mean_depth = F.avg_pool2d(depth * weight * share, 2) * scale
    known = (F.avg_pool2d(weight, 2) * 4).clamp(max=1)
    return mean_color * known, known, mean_depth

"""Fill what the points left open: smooth, fast, without a model."""

import torch
from torch import Tensor
from torch.nn import functional as F


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
    far = torch.zeros_like(known) if depth is None else depth.to(images.dtype)[:, None]
    filled = _push_pull(torch.cat([images.movedim(-1, 1), far], 1) * known, known)
    return torch.where(coverage[..., None], images, filled[:, :3].movedim(1, -1).clamp(0, 1))


def _push_pull(values: Tensor, known: Tensor) -> Tensor:
    """Fill ``values [F, 4, H, W]``, colour and depth times ``known [F, 1, H, W]`` (0 or 1), from coarser ones."""
    height, width = values.shape[-2:]
    if height == 1 and width == 1:
        return values
    pad = (0, width % 2, 0, height % 2)
    cells = [F.pad(values, pad)[..., y::2, x::2] for y in (0, 1) for x in (0, 1)]
    have = [F.pad(known, pad)[..., y::2, x::2] for y in (0, 1) for x in (0, 1)]
    farthest = torch.stack([c[:, 3:] for c in cells]).amax(0)
    shares = [h * _farness(c[:, 3:], farthest) for c, h in zip(cells, have, strict=True)]
    total = torch.stack(shares).sum(0)
    coarse = torch.stack([c * s for c, s in zip(cells, shares, strict=True)]).sum(0) / total.clamp(min=1e-12)
    coarse = _push_pull(coarse, (total > 0).to(values.dtype))
    share = _farness(coarse[:, 3:], _highest_around(coarse[:, 3:]))
    up = F.interpolate(torch.cat([coarse * share, share], 1), scale_factor=2, mode="bilinear", align_corners=False)
    up = up[..., :height, :width]
    return values + (1 - known) * (up[:, :4] / up[:, 4:])


def _farness(depth: Tensor, farthest: Tensor) -> Tensor:
    """How much a value counts beside the farthest one around it: the eighth power of their ratio."""
    ratio = torch.where(farthest > 0, depth / farthest.clamp(min=1e-12), 1.0)
    for _ in range(3):
        ratio = ratio * ratio
    return ratio.clamp(min=1e-4)


def _highest_around(x: Tensor) -> Tensor:
    """The maximum over 3x3 neighbours."""
    for axis in (-1, -2):
        length = x.shape[axis]
        ahead = torch.cat([x.narrow(axis, 1, length - 1), x.narrow(axis, length - 1, 1)], axis)
        behind = torch.cat([x.narrow(axis, 0, 1), x.narrow(axis, 0, length - 1)], axis)
        x = torch.maximum(torch.maximum(x, ahead), behind)
    return x

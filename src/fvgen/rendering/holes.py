"""Fill what the points left open: smooth, fast, without a model."""

import torch
from torch import Tensor
from torch.nn import functional as F

_ROUNDS = 6  # of smoothing at each size
_LOCAL = 3  # sizes (full, half, quarter) at which the far side of a hole is told from the near one
_RIM = 0.2  # weight of the last known pixels before a hole: they are the least sure ones


def fill_holes(images: Tensor, coverage: Tensor, depth: Tensor | None = None) -> Tensor:
    """Fill uncovered pixels smoothly from what surrounds them, coarse to fine.

    A pyramid carries known colours into the holes (push-pull), and a few rounds of averaging at each size make the
    fill harmonic: no streaks, no steps. Holes open where something near moved aside, so the colours that belong there
    are the farther ones at the border; with ``depth`` these count more. Covered pixels are returned unchanged.

    Args:
        images: ``[F, H, W, 3]`` float 0..1.
        coverage: ``[F, H, W]`` bool, True where the picture is known.
        depth: ``[F, H, W]`` z-depth, 0 where unknown, or ``None``.

    Returns:
        ``[F, H, W, 3]`` float; pictures without a single covered pixel become black.
    """
    known = coverage.to(images.dtype)[:, None]
    far = torch.zeros_like(known) if depth is None else depth.to(images.dtype)[:, None]
    trust = known * (_RIM - (1 - _RIM) * _highest_around(-known))
    filled = _push_pull(torch.cat([images.movedim(-1, 1), far], 1) * known, known, trust, 0)
    return torch.where(coverage[..., None], images, filled[:, :3].movedim(1, -1).clamp(0, 1))


def _push_pull(values: Tensor, known: Tensor, weight: Tensor, level: int) -> Tensor:
    """Fill ``values [F, 4, H, W]``, colour and depth times ``known [F, 1, H, W]`` (0 or 1), from coarser ones."""
    height, width = values.shape[-2:]
    if height == 1 and width == 1:
        return values
    cells, weights = _quarters(values), _quarters(weight)
    farthest = torch.stack([c[:, 3:] for c in cells]).amax(0)
    shares = [w * _farness(c[:, 3:], farthest, level) for c, w in zip(cells, weights, strict=True)]
    total = torch.stack(shares).sum(0)
    coarse = torch.stack([c * s for c, s in zip(cells, shares, strict=True)]).sum(0) / total.clamp(min=1e-12)
    some = (total > 0).to(values.dtype)
    coarse = _push_pull(coarse, some, some, level + 1)
    share = _farness(coarse[:, 3:], _highest_around(coarse[:, 3:]), level)
    up = F.interpolate(torch.cat([coarse * share, share], 1), scale_factor=2, mode="bilinear", align_corners=False)
    up = up[..., :height, :width]
    return _smoothed(values + (1 - known) * (up[:, :4] / up[:, 4:]), known, level)


def _smoothed(values: Tensor, known: Tensor, level: int) -> Tensor:
    """Unknown values averaged with their four neighbours, a few times."""
    for _ in range(_ROUNDS if level else _ROUNDS // 3):  # the finest size costs most and needs least
        padded = F.pad(values, (1, 1, 1, 1), mode="replicate")
        beside = [padded[..., 1:-1, :-2], padded[..., 1:-1, 2:], padded[..., :-2, 1:-1], padded[..., 2:, 1:-1]]
        if level >= _LOCAL:
            mean = torch.stack(beside).mean(0)
        else:
            farthest = torch.stack([b[:, 3:] for b in beside]).amax(0)
            shares = [_farness(b[:, 3:], farthest, level) for b in beside]
            mean = torch.stack([b * s for b, s in zip(beside, shares, strict=True)]).sum(0) / torch.stack(shares).sum(0)
        values = torch.where(known > 0, values, mean)
    return values


def _quarters(x: Tensor) -> list[Tensor]:
    """The four pixels of each 2x2 cell, zeros beyond odd borders."""
    padded = F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2))
    return [padded[..., y::2, x::2] for y in (0, 1) for x in (0, 1)]


def _farness(depth: Tensor, farthest: Tensor, level: int) -> Tensor:
    """How much a value counts beside the farthest one around it: the square of their ratio; only at fine sizes."""
    if level >= _LOCAL:
        return torch.ones_like(depth)
    ratio = torch.where(farthest > 0, depth / farthest.clamp(min=1e-12), 1.0)
    return (ratio * ratio).clamp(min=0.02)


def _highest_around(x: Tensor) -> Tensor:
    """The maximum over 3x3 neighbours."""
    for axis in (-1, -2):
        length = x.shape[axis]
        ahead = torch.cat([x.narrow(axis, 1, length - 1), x.narrow(axis, length - 1, 1)], axis)
        behind = torch.cat([x.narrow(axis, 0, 1), x.narrow(axis, 0, length - 1)], axis)
        x = torch.maximum(torch.maximum(x, ahead), behind)
    return x

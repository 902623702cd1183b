"""Complete a guide without a model: smooth colour where nothing is known, guessed surfaces where they are seen."""

import torch
from torch import Tensor
from torch.nn import functional as F

_ROUNDS = 6  # of smoothing at each size
_RIM = 0.2  # weight of the last known pixels before a hole: they are the least sure ones
# Measured on pairs of photos with the true frames between them; lengths are shares of the picture's shorter side.
_NEAR, _WIDE, _TOWARDS_WIDE = 1 / 40, 1 / 10, 0.7
_HINT_BLUR, _HINT_SHARE = 1 / 80, 0.5


def complete_picture(images: Tensor, known: Tensor, hints: Tensor, hinted: Tensor) -> Tensor:
    """Fill unknown pixels with what is likeliest on average.

    Next to known pixels that is their smooth continuation (:func:`fill_holes`); farther away the mean colour of a
    wide neighbourhood; and where a guessed surface is seen, half way to it, blurred, since it is somewhat misplaced.

    Args:
        images: ``[F, H, W, 3]`` float 0..1.
        known: ``[F, H, W]`` bool; these pixels are returned unchanged.
        hints: ``[F, H, W, 3]`` colours of surfaces that are hardly trusted.
        hinted: ``[F, H, W]`` bool, where there are hints.

    Returns:
        ``[F, H, W, 3]`` float.
    """
    side = min(images.shape[1:3])
    filled = fill_holes(images, known)
    near = blur(known[..., None].to(images), side * _NEAR)
    wide, some = _masked_blur(images, known, side * _WIDE)
    share = _TOWARDS_WIDE * (1 - 2 * near).clamp(min=0) * some
    filled = torch.lerp(filled, wide, share)
    hint, _ = _masked_blur(hints, hinted, side * _HINT_BLUR)
    filled = torch.lerp(filled, hint, _HINT_SHARE * hinted[..., None].to(images))
    return torch.where(known[..., None], images, filled)


def fill_holes(images: Tensor, coverage: Tensor) -> Tensor:
    """Fill uncovered pixels smoothly from what surrounds them, coarse to fine.

    A pyramid carries known colours into the holes (push-pull), and a few rounds of averaging at each size make the
    fill harmonic: no streaks, no steps. Covered pixels are returned unchanged.

    Args:
        images: ``[F, H, W, 3]`` float 0..1.
        coverage: ``[F, H, W]`` bool, True where the picture is known.

    Returns:
        ``[F, H, W, 3]`` float; pictures without a single covered pixel become black.
    """
    known = coverage.to(images.dtype)[:, None]
    trust = known * (_RIM + (1 - _RIM) * -F.max_pool2d(-known, 3, 1, 1))
    filled = _push_pull(images.movedim(-1, 1) * known, known, trust)
    return torch.where(coverage[..., None], images, filled.movedim(1, -1).clamp(0, 1))


def _push_pull(values: Tensor, known: Tensor, weight: Tensor, full: bool = True) -> Tensor:
    """Fill ``values [F, C, H, W]``, colour times ``known [F, 1, H, W]`` (0 or 1), from coarser ones."""
    height, width = values.shape[-2:]
    if height == 1 and width == 1:
        return values
    even = (0, width % 2, 0, height % 2)
    total = F.avg_pool2d(F.pad(weight, even), 2)
    coarse = F.avg_pool2d(F.pad(values * weight, even), 2) / total.clamp(min=1e-12)
    some = (total > 0).to(values.dtype)
    coarse = _push_pull(coarse, some, some, full=False)
    up = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)[..., :height, :width]
    values = values + (1 - known) * up
    for _ in range(_ROUNDS // 3 if full else _ROUNDS):  # the finest size costs most and needs least
        padded = F.pad(values, (1, 1, 1, 1), mode="replicate")
        beside = padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:] + padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1]
        values = torch.where(known > 0, values, beside / 4)
    return values


def blur(values: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of ``[F, H, W, C]``; beyond the border there is nothing."""
    reach = max(1, round(3 * sigma))
    offsets = torch.arange(-reach, reach + 1, device=values.device, dtype=values.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    planes = values.movedim(-1, 1).flatten(0, 1)[:, None]
    planes = F.conv2d(planes, kernel.view(1, 1, -1, 1), padding=(reach, 0))
    planes = F.conv2d(planes, kernel.view(1, 1, 1, -1), padding=(0, reach))
    return planes[:, 0].unflatten(0, (len(values), values.shape[-1])).movedim(1, -1)


def _masked_blur(values: Tensor, mask: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Mean of the masked pixels around each pixel, and 1 where there are any (0 elsewhere)."""
    weight = mask[..., None].to(values)
    summed = blur(torch.cat([values * weight, weight], -1), sigma)
    total = summed[..., -1:]
    return summed[..., :-1] / total.clamp(min=1e-6), (total > 1e-5).to(values)

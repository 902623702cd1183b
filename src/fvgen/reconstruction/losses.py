"""What is minimised: how a render differs from a photograph, and from a frame that a model made up."""

from functools import lru_cache

import torch
from torch import Tensor

_C1, _C2 = 0.01**2, 0.03**2  # of Wang et al. 2004, for values in 0..1
_WINDOW, _SIGMA = 11, 1.5


@lru_cache(maxsize=8)
def _blur(side: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``[side, side]`` the Gaussian window as a matrix: on CPUs far faster than the convolution and its gradient."""
    offset = torch.arange(side, dtype=torch.float64)[:, None] - torch.arange(side, dtype=torch.float64)
    weights = torch.exp(-offset.square() / (2 * _SIGMA**2)) * (offset.abs() <= _WINDOW // 2)
    whole = torch.exp(-torch.arange(-(_WINDOW // 2), _WINDOW // 2 + 1).double().square() / (2 * _SIGMA**2)).sum()
    return (weights / whole).to(device, dtype)


def dissimilarity(rendered: Tensor, target: Tensor) -> Tensor:
    """``[H, W]``: half of 1 - SSIM, mean over channels, Gaussian window 11 wide; zeros beyond the border.

    Args:
        rendered, target: ``[H, W, 3]`` in 0..1.
    """
    rows, columns = (_blur(side, rendered.dtype, rendered.device) for side in rendered.shape[:2])
    x, y = (v.movedim(-1, 0) for v in (rendered, target))
    blurred = rows @ torch.cat([x, y, x * x, y * y, x * y]) @ columns
    mx, my, xx, yy, xy = blurred.split(3)
    similarity = ((2 * mx * my + _C1) * (2 * (xy - mx * my) + _C2)) / (
        (mx * mx + my * my + _C1) * ((xx - mx * mx) + (yy - my * my) + _C2)
    )
    return (1 - similarity.mean(0)) / 2


def photo_loss(rendered: Tensor, target: Tensor, dssim: float) -> Tensor:
    """``(1 - s) mean |r - t| + s mean (1 - SSIM) / 2``; the loss of 3D Gaussian splatting up to the half.

    Args:
        rendered, target: ``[H, W, 3]``.
        dssim: the share ``s``.
    """
    return (1 - dssim) * (rendered - target).abs().mean() + dssim * dissimilarity(rendered, target).mean()


def generated_loss(rendered: Tensor, target: Tensor, trust: Tensor, dssim: float, scale: float) -> Tensor:
    """The same with each pixel weighted by its trust and by how far it is from an outlier.

    A pixel's weight is ``trust * c^2 / (c^2 + e^2)`` with ``e`` the mean absolute difference of its channels, held
    fixed: iteratively reweighted least absolute differences, whose influence falls where frames disagree with
    everything else (Geman and McClure's weight).

    Args:
        rendered, target: ``[H, W, 3]``.
        trust: ``[H, W]`` weights.
        dssim: share of the structural part.
        scale: ``c``, in units of colour 0..1; infinite: no pixel is an outlier.
    """
    error = (rendered - target).abs().mean(-1)
    with torch.no_grad():
        weight = trust / (1 + (error / scale).square())
    total = (1 - dssim) * error + dssim * dissimilarity(rendered, target)
    return (weight * total).mean()

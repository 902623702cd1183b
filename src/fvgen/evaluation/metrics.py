"""Picture metrics with their definitions. Pictures are ``[F, H, W, 3]`` float in 0..1."""

import torch
import torch.nn.functional as F
from torch import Tensor


def psnr(predicted: Tensor, truth: Tensor, mask: Tensor | None = None) -> float:
    """Mean over frames of ``-10 log10 MSE``; with ``mask [F, H, W]`` over its pixels only, frames without any left out.

    Returns:
        Decibels; ``nan`` if no frame has a pixel.
    """
    error = (predicted - truth).square().mean(-1)
    mask = torch.ones_like(error, dtype=torch.bool) if mask is None else mask
    values = [-10 * torch.log10(e[m].mean().clamp_min(1e-10)) for e, m in zip(error, mask) if m.any()]
    return float(torch.stack(values).mean()) if values else float("nan")


def ssim(predicted: Tensor, truth: Tensor) -> float:
    """Structural similarity (Wang et al. 2004), Gaussian window 11 wide with deviation 1.5, border cut off.

    Sample covariances, as ``skimage.metrics.structural_similarity(win_size=11, gaussian_weights=True, sigma=1.5)``.
    """
    axis = torch.arange(11, dtype=torch.float64) - 5
    window = torch.exp(-(axis**2) / (2 * 1.5**2))
    window = window / window.sum()
    x, y = (v.double().movedim(-1, 1).flatten(0, 1)[:, None] for v in (predicted, truth))

    def blur(v: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(v, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))

    mean_x, mean_y = blur(x), blur(y)
    sample = 121 / 120  # from population to sample covariance of an 11 x 11 window
    var_x = sample * (blur(x * x) - mean_x**2)
    var_y = sample * (blur(y * y) - mean_y**2)
    cov = sample * (blur(x * y) - mean_x * mean_y)
    c1, c2 = 0.01**2, 0.03**2
    values = (2 * mean_x * mean_y + c1) * (2 * cov + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return float(values.mean())


def gradient_energy(pictures: Tensor) -> float:
    """Mean squared difference of neighbouring pixels, horizontally and vertically: how sharp pictures are."""
    return float(pictures.diff(dim=1).square().mean() + pictures.diff(dim=2).square().mean())

"""Metrics of pixel values: no network, no weights. Pictures are ``[F, H, W, 3]`` float in 0..1."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

_C1, _C2 = 0.01**2, 0.03**2  # of Wang et al. 2004, for values in 0..1


def _decibels(mean_squared_error: Tensor) -> Tensor:
    """At most 100 dB: equal pictures would be infinite, and no table or JSON file can hold that."""
    return -10 * torch.log10(mean_squared_error.clamp_min(1e-10))


def psnr(predicted: Tensor, truth: Tensor, mask: Tensor | None = None) -> float:
    """Mean over frames of ``-10 log10 MSE``; with ``mask [F, H, W]`` over its pixels only, frames without any left out.

    Returns:
        Decibels; ``nan`` if no frame has a pixel.
    """
    if mask is None:
        return float(psnr_of_frames(predicted, truth).mean()) if len(predicted) else float("nan")
    error = (predicted - truth).double().square().mean(-1)
    values = [_decibels(e[m].mean()) for e, m in zip(error, mask) if m.any()]
    return float(torch.stack(values).mean()) if values else float("nan")


def psnr_of_frames(predicted: Tensor, truth: Tensor) -> Tensor:
    """``[F]`` float64 decibels, at most 100: ``-10 log10`` of each picture's mean squared error of all values."""
    return _decibels((predicted.double() - truth.double()).square().mean((1, 2, 3)))


def ssim(predicted: Tensor, truth: Tensor) -> float:
    """Mean over frames of :func:`ssim_skimage11`."""
    return float(ssim_skimage11(predicted, truth).mean())


def ssim_skimage11(predicted: Tensor, truth: Tensor) -> Tensor:
    """``[F]`` structural similarity (Wang et al. 2004), Gaussian window 11 wide with deviation 1.5, border cut off.

    Sample covariances, as ``skimage.metrics.structural_similarity(win_size=11, gaussian_weights=True, sigma=1.5)``.
    """
    sample = 121 / 120  # from population to sample covariance of an 11 x 11 window

    def of_channels(x: Tensor, y: Tensor) -> Tensor:
        mean_x, mean_y, var_x, var_y, cov = _window_moments(x, y)
        return _similarity(mean_x, mean_y, sample * var_x, sample * var_y, sample * cov)

    return _frame_by_frame(of_channels, predicted, truth)


def ssim_torchmetrics(predicted: Tensor, truth: Tensor) -> Tensor:
    """``[F]`` structural similarity as ``torchmetrics.image.StructuralSimilarityIndexMeasure(data_range=1)``.

    The window of :func:`ssim_skimage11`, but population covariances, and pictures continued by reflection, so that
    the border counts.
    """

    def of_channels(x: Tensor, y: Tensor) -> Tensor:
        x, y = (F.pad(v, (5, 5, 5, 5), mode="reflect") for v in (x, y))
        mean_x, mean_y, var_x, var_y, cov = _window_moments(x, y)
        return _similarity(mean_x, mean_y, var_x.clamp_min(0), var_y.clamp_min(0), cov)

    return _frame_by_frame(of_channels, predicted, truth)


def _frame_by_frame(of_channels: Callable[[Tensor, Tensor], Tensor], predicted: Tensor, truth: Tensor) -> Tensor:
    """Mean similarity of each picture; one picture at a time, because the maps are many and in float64."""
    if min(predicted.shape[1:3]) < 11:
        raise ValueError(f"SSIM needs pictures of 11 x 11 pixels or more, not {tuple(predicted.shape[1:3])}")
    pairs = zip(predicted, truth)
    means = [of_channels(*(v.double().movedim(-1, 0)[:, None] for v in pair)).mean() for pair in pairs]
    return torch.stack(means) if means else torch.zeros(0, dtype=torch.float64)


def _window_moments(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Means, variances and covariance of ``[C, 1, H, W]`` under the Gaussian window, where it fits."""
    axis = torch.arange(11, dtype=torch.float64, device=x.device) - 5
    window = torch.exp(-(axis**2) / (2 * 1.5**2))
    window = window / window.sum()

    def blur(v: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(v, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))

    mean_x, mean_y = blur(x), blur(y)
    return mean_x, mean_y, blur(x * x) - mean_x**2, blur(y * y) - mean_y**2, blur(x * y) - mean_x * mean_y


def _similarity(mean_x: Tensor, mean_y: Tensor, var_x: Tensor, var_y: Tensor, cov: Tensor) -> Tensor:
    """Equation 13 of Wang et al. 2004."""
    above = (2 * mean_x * mean_y + _C1) * (2 * cov + _C2)
    return above / ((mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2))


def gradient_energy(pictures: Tensor) -> float:
    """Mean squared difference of neighbouring pixels, horizontally and vertically: how sharp pictures are."""
    return float(pictures.diff(dim=1).square().mean() + pictures.diff(dim=2).square().mean())


def gradient_ratio(predicted: Tensor, truth: Tensor) -> Tensor:
    """``[F]`` gradient energy of each picture over its truth's; 1 is as sharp as the truth, ``nan`` if that is flat."""

    def energy(pictures: Tensor) -> Tensor:
        pictures = pictures.double()
        return pictures.diff(dim=1).square().mean((1, 2, 3)) + pictures.diff(dim=2).square().mean((1, 2, 3))

    of_truth = energy(truth)
    return torch.where(of_truth > 0, energy(predicted) / of_truth, torch.nan)

"""Metrics of pixel values, and of their change from frame to frame: no network. ``[F, H, W, 3]`` float in 0..1."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fvgen.cameras import Cameras

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
    """Mean over frames of :func:`ssim_skimage11` of pictures ``[F, H, W, 3]``."""
    return float(ssim_skimage11(predicted, truth).mean())


def ssim_skimage11(predicted: Tensor, truth: Tensor) -> Tensor:
    """``[F]`` structural similarity (Wang et al. 2004), Gaussian window 11 wide with deviation 1.5, border cut off.

    Sample covariances, as ``skimage.metrics.structural_similarity(win_size=11, gaussian_weights=True, sigma=1.5)``.
    """
    return _frame_by_frame(predicted, truth, border_counts=False)


def ssim_torchmetrics(predicted: Tensor, truth: Tensor) -> Tensor:
    """``[F]`` structural similarity as ``torchmetrics.image.StructuralSimilarityIndexMeasure(data_range=1)``.

    The window of :func:`ssim_skimage11`, but population covariances, and pictures continued by reflection, so that
    the border counts.
    """
    return _frame_by_frame(predicted, truth, border_counts=True)


def _frame_by_frame(predicted: Tensor, truth: Tensor, border_counts: bool) -> Tensor:
    """One picture at a time, because the maps are many and in float64."""
    if min(predicted.shape[1:3]) < 11:
        raise ValueError(f"SSIM needs pictures of 11 x 11 pixels or more, not {tuple(predicted.shape[1:3])}")
    values = [torch.zeros(0, dtype=torch.float64, device=predicted.device)]
    for pair in zip(predicted, truth):
        x, y = (v.double().movedim(-1, 0)[:, None] for v in pair)
        if border_counts:
            x, y = (F.pad(v, (5, 5, 5, 5), mode="reflect") for v in (x, y))
        mean_x, mean_y, var_x, var_y, cov = _window_moments(x, y)
        if border_counts:
            var_x, var_y = var_x.clamp_min(0), var_y.clamp_min(0)
        else:  # from population to sample covariance of an 11 x 11 window
            var_x, var_y, cov = (121 / 120 * v for v in (var_x, var_y, cov))
        above = (2 * mean_x * mean_y + _C1) * (2 * cov + _C2)  # equation 13 of Wang et al. 2004
        values.append((above / ((mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2))).mean()[None])
    return torch.cat(values)


def _window_moments(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Means, variances and covariance of ``[C, 1, H, W]`` under the Gaussian window, where it fits."""
    axis = torch.arange(11, dtype=torch.float64, device=x.device) - 5
    window = torch.exp(-(axis**2) / (2 * 1.5**2))
    window = window / window.sum()

    def blur(v: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(v, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))

    mean_x, mean_y = blur(x), blur(y)
    return mean_x, mean_y, blur(x * x) - mean_x**2, blur(y * y) - mean_y**2, blur(x * y) - mean_x * mean_y


def gradient_energy(pictures: Tensor) -> float:
    """How sharp pictures ``[F, H, W, 3]`` are: mean squared difference of neighbours, across plus down."""
    return float(pictures.diff(dim=1).square().mean() + pictures.diff(dim=2).square().mean())


def gradient_ratio(predicted: Tensor, truth: Tensor) -> Tensor:
    """``[F]`` gradient energy of each picture over its truth's; 1 is as sharp as the truth, ``nan`` if that is flat."""

    def energy(pictures: Tensor) -> Tensor:
        pictures = pictures.double()
        return pictures.diff(dim=1).square().mean((1, 2, 3)) + pictures.diff(dim=2).square().mean((1, 2, 3))

    of_truth = energy(truth)
    return torch.where(of_truth > 0, energy(predicted) / of_truth, torch.nan)


@dataclass(frozen=True)
class Correspondences:
    """Where every pixel of frame ``k + 1`` is seen in frame ``k``.

    Attributes:
        positions: ``[F - 1, H, W, 2]`` x and y in pixels; the centre of the top-left pixel is at (0.5, 0.5).
        seen: ``[F - 1, H, W]`` bool, False for pixels of unknown depth, out of the picture, or hidden in frame ``k``.
    """

    positions: Tensor
    seen: Tensor


def correspondences(depth: Tensor, cameras: Cameras, tolerance: float = 0.02) -> Correspondences:
    """Where pixels of one frame are seen in the frame before it, from depth and cameras.

    A pixel of frame ``k + 1`` is lifted by its depth and projected into frame ``k``. It is seen there if it falls into
    the picture and the depth of the nearest pixel is its own within ``tolerance``, relative.

    Args:
        depth: ``[F, H, W]`` z-depth in world units; 0 or not finite where unknown.
        cameras: ``F`` cameras of ``W x H`` pixels.
        tolerance: of the occlusion test.

    Raises:
        ValueError: if the cameras do not fit the depth.
    """
    frames, height, width = depth.shape
    if len(cameras) != frames or (frames and cameras.size != (width, height)):
        raise ValueError(f"depth {tuple(depth.shape)} needs {frames} cameras of {width}x{height} pixels")
    known = torch.where(torch.isfinite(depth) & (depth > 0), depth.double(), 0)
    pairs = [_pair(known[k], known[k + 1], cameras[k], cameras[k + 1], tolerance) for k in range(frames - 1)]
    if not pairs:
        return Correspondences(torch.zeros(0, height, width, 2), torch.zeros(0, height, width, dtype=torch.bool))
    return Correspondences(torch.stack([p for p, _ in pairs]), torch.stack([s for _, s in pairs]))


def _pair(before: Tensor, after: Tensor, old: Cameras, new: Cameras, tolerance: float) -> tuple[Tensor, Tensor]:
    """Positions in the frame before, and which are seen there."""
    height, width = after.shape
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    rays = torch.stack([x, y, torch.ones_like(x)], -1).double() @ torch.linalg.inv(new.intrinsics[0]).T
    motion = old.camera_from_world[0] @ new.world_from_camera[0]
    points = (rays * after[..., None]) @ motion[:3, :3].T + motion[:3, 3]
    projected = points @ old.intrinsics[0].T
    z = points[..., 2]
    positions = projected[..., :2] / z.clamp_min(1e-12)[..., None]
    column, row = positions.floor().long().unbind(-1)
    inside = (after > 0) & (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    there = before[row.clamp(0, height - 1), column.clamp(0, width - 1)]
    seen = inside & (there > 0) & ((there - z).abs() <= tolerance * z)
    return positions.float(), seen


def warp_consistency(frames: Tensor, matches: Correspondences) -> Tensor:
    """Mean absolute difference between each frame and the frame before it, warped onto it.

    Frame ``k`` is sampled bilinearly where the pixels of frame ``k + 1`` are seen in it; the mean is over those pixels
    and the channels.

    Args:
        frames: ``[F, H, W, 3]`` float 0..1.
        matches: of these ``F`` frames.

    Returns:
        ``[F - 1]`` float64, ``nan`` for a pair without a pixel.

    Raises:
        ValueError: if the correspondences are of other frames.
    """
    expected = (max(len(frames) - 1, 0), *frames.shape[1:3])
    if tuple(matches.seen.shape) != expected:
        raise ValueError(f"correspondences of shape {tuple(matches.seen.shape)} do not fit frames that need {expected}")
    values = [torch.zeros(0, dtype=torch.float64)]
    size = torch.tensor([frames.shape[2], frames.shape[1]], dtype=torch.float64, device=frames.device)
    for old, new, positions, seen in zip(frames, frames[1:], matches.positions, matches.seen):
        grid = positions.to(frames.device, torch.float64) / size * 2 - 1
        image = old.double().movedim(-1, 0)[None]
        warped = F.grid_sample(image, grid[None], "bilinear", "border", align_corners=False)[0].movedim(0, -1)
        values.append((warped - new.double()).abs()[seen].mean().cpu()[None])
    return torch.cat(values)


def neighbour_metrics(predicted: Tensor, truth: Tensor, matches: Correspondences) -> dict[str, Tensor]:
    """Consistency of neighbouring views.

    Args:
        predicted: ``[F, H, W, 3]`` float 0..1.
        truth: the same shape.
        matches: of the true geometry.

    Returns:
        ``[F - 1]`` float64 by name: ``warp_consistency`` of the predicted frames, ``warp_consistency_truth``, which
        interpolation, reflections and errors of depth leave, and ``flicker``, the first over the second: 1 is as calm
        as the truth. ``nan`` where no pixel is seen twice, and for flicker where the truth does not differ at all.
    """
    of_predicted, of_truth = warp_consistency(predicted, matches), warp_consistency(truth, matches)
    flicker = torch.where(of_truth > 0, of_predicted / of_truth, torch.nan)
    return {"warp_consistency": of_predicted, "warp_consistency_truth": of_truth, "flicker": flicker}

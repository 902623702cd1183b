"""How a sequence of views agrees with itself: each frame against its neighbour warped onto it."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fvgen.cameras import Cameras


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
    """Those of known geometry.

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
    for old, new, positions, seen in zip(frames, frames[1:], matches.positions, matches.seen):
        difference = (_sampled(old, positions) - new.double()).abs()[seen]
        values.append(difference.mean().cpu()[None])
    return torch.cat(values)


def _sampled(frame: Tensor, positions: Tensor) -> Tensor:
    """``[H, W, 3]`` float64 values of a frame at positions, bilinear, the border continued."""
    size = torch.tensor([frame.shape[1], frame.shape[0]], dtype=torch.float64, device=frame.device)
    grid = positions.to(frame.device, torch.float64) / size * 2 - 1
    image = frame.double().movedim(-1, 0)[None]
    return F.grid_sample(image, grid[None], "bilinear", "border", align_corners=False)[0].movedim(0, -1)


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

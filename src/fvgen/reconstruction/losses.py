"""What is minimised: how a render differs from a photograph or a made-up frame, after each frame's own corrections."""

from functools import lru_cache

import torch
from torch import Tensor, nn

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
    """`photo_loss` with each pixel weighted by its trust and by how far it is from an outlier.

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


class Corrections(nn.Module):
    """For each frame an affine map of colours and a rigid motion of its camera, both nothing at first.

    Args:
        frames: how many.
        depth: a typical depth of the scene, world units; scales translations so that rotations and translations move
            pixels alike.

    Attributes:
        colors: ``[F, 3, 4]``, added to identity and zero.
        motions: ``[F, 6]`` axis times angle in radians, and a translation in units of ``depth``.
    """

    def __init__(self, frames: int, depth: float) -> None:
        super().__init__()
        self.depth = depth
        self.colors = nn.Parameter(torch.zeros(frames, 3, 4))
        self.motions = nn.Parameter(torch.zeros(frames, 6))

    def color(self, frame: int, image: Tensor) -> Tensor:
        """``[H, W, 3]`` as this frame shows it: ``image + image A' + b``."""
        change = self.colors[frame]
        return image + image @ change[:, :3].T + change[:, 3]

    def camera(self, frame: int, camera_from_world: Tensor) -> Tensor:
        """``[4, 4]`` the camera moved in its own axes."""
        motion = self.motions[frame]
        return rigid(motion[:3], motion[3:] * self.depth).to(camera_from_world) @ camera_from_world

    def penalty(self, frame: int, color: float, motion: float) -> Tensor:
        """Weighted squares of both, a scalar; zero where nothing is corrected."""
        return color * self.colors[frame].square().sum() + motion * self.motions[frame].square().sum()


def rigid(rotation: Tensor, translation: Tensor) -> Tensor:
    """``[4, 4]`` a rotation by the axis times angle ``rotation [3]``, then a shift by ``translation [3]``."""
    x, y, z = rotation
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).view(3, 3)
    top = torch.cat([torch.linalg.matrix_exp(skew), translation[:, None]], 1)
    return torch.cat([top, top.new_tensor([[0.0, 0, 0, 1]])])

"""Lens distortion, and taking it out of an image: what leaves this room is always a pinhole camera."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_MAX_ZOOM = 8.0
_STRIP_ROWS = 256


@dataclass(frozen=True)
class Lens:
    """A distortion model on normalised image coordinates ``x = X/Z``, ``y = Y/Z``.

    Attributes:
        radial: ``k1 .. k6``. Perspective lens: ``(1 + k1 r^2 + k2 r^4 + k3 r^6) / (1 + k4 r^2 + k5 r^4 + k6 r^6)``
            (OpenCV's rational model; OPENCV, RADIAL and their like leave the rest at 0). Fisheye (equidistant,
            Kannala-Brandt): ``theta (1 + k1 theta^2 + k2 theta^4 + k3 theta^6 + k4 theta^8)``.
        tangential: ``p1, p2`` as in OpenCV; perspective lenses only.
        fisheye: which of the two.
    """

    radial: tuple[float, ...] = (0.0,) * 6
    tangential: tuple[float, float] = (0.0, 0.0)
    fisheye: bool = False

    @property
    def is_pinhole(self) -> bool:
        """True where there is nothing to undo."""
        return not self.fisheye and not any(self.radial) and not any(self.tangential)

    def distort(self, points: Tensor) -> Tensor:
        """Where the lens puts points.

        Args:
            points: ``[..., 2]`` normalised coordinates of an ideal pinhole camera.

        Returns:
            ``[..., 2]`` normalised coordinates in the distorted image.
        """
        k = (*self.radial, *(0.0,) * (6 - len(self.radial)))
        r2 = (points * points).sum(-1, keepdim=True)
        if self.fisheye:
            r = r2.sqrt()
            theta = torch.atan(r)
            t2 = theta * theta
            bent = theta * (1 + t2 * (k[0] + t2 * (k[1] + t2 * (k[2] + t2 * k[3]))))
            return points * torch.where(r > 1e-9, bent / r.clamp_min(1e-9), torch.ones_like(r))
        scale = (1 + r2 * (k[0] + r2 * (k[1] + r2 * k[2]))) / (1 + r2 * (k[3] + r2 * (k[4] + r2 * k[5])))
        p1, p2 = self.tangential
        x, y = points[..., :1], points[..., 1:]
        shift = torch.cat([2 * p1 * x * y + p2 * (r2 + 2 * x * x), p1 * (r2 + 2 * y * y) + 2 * p2 * x * y], -1)
        return points * scale + shift


def undistort(image: Tensor, intrinsics: Tensor, lens: Lens) -> tuple[Tensor, Tensor]:
    """Resample an image as a pinhole camera would have seen it.

    The size, principal point and focal length are kept; only where that would show pixels that the photo does not
    have (pincushion distortion), the focal length grows by the least factor that avoids them.

    Args:
        image: ``[H, W, 3]`` uint8.
        intrinsics: ``[3, 3]`` float64 in pixels, centres at .5.
        lens: the distortion.

    Returns:
        The image ``[H, W, 3]`` uint8 and its intrinsics ``[3, 3]``.

    Raises:
        ValueError: where the coefficients fold the image over itself.
    """
    height, width = image.shape[:2]
    zoom = _zoom_without_blanks(width, height, intrinsics, lens)
    pinhole = _zoomed(intrinsics, zoom)
    source = image.permute(2, 0, 1)[None].float()
    out = torch.empty_like(image)
    columns = torch.arange(width) + 0.5
    for top in range(0, height, _STRIP_ROWS):
        rows = torch.arange(top, min(top + _STRIP_ROWS, height)) + 0.5
        v, u = torch.meshgrid(rows, columns, indexing="ij")
        where = _source_pixels(torch.stack([u, v], -1), pinhole.float(), intrinsics.float(), lens)
        grid = where * (2 / torch.tensor([width, height])) - 1
        strip = F.grid_sample(source, grid[None], "bicubic", "border", align_corners=False)
        out[top : top + len(rows)] = strip[0].permute(1, 2, 0).round_().clamp_(0, 255).to(torch.uint8)
    return out, pinhole


def _zoomed(intrinsics: Tensor, zoom: float) -> Tensor:
    return intrinsics * torch.tensor([zoom, zoom, 1.0], dtype=intrinsics.dtype)


def _source_pixels(pixels: Tensor, pinhole: Tensor, intrinsics: Tensor, lens: Lens) -> Tensor:
    """Pixels of the distorted image ``[..., 2]`` that show what pixels of the pinhole image show."""
    focal = torch.stack([pinhole[0, 0], pinhole[1, 1]])
    bent = lens.distort((pixels - pinhole[:2, 2]) / focal)
    return bent * torch.stack([intrinsics[0, 0], intrinsics[1, 1]]) + intrinsics[:2, 2]


def _zoom_without_blanks(width: int, height: int, intrinsics: Tensor, lens: Lens) -> float:
    """Least focal factor >= 1 at which every pixel of the pinhole image has a source."""
    u = torch.linspace(0.5, width - 0.5, 65, dtype=torch.float64)
    v = torch.linspace(0.5, height - 0.5, 65, dtype=torch.float64)
    border = torch.cat([torch.stack([u, torch.full_like(u, e)], -1) for e in (0.5, height - 0.5)])
    border = torch.cat([border, *(torch.stack([torch.full_like(v, e), v], -1) for e in (0.5, width - 0.5))])
    steps = torch.linspace(0, 1, 65, dtype=torch.float64)[:, None, None]
    limit = torch.tensor([width, height], dtype=torch.float64)

    def fits(zoom: float) -> bool:
        pinhole = _zoomed(intrinsics, zoom)
        rays = pinhole[:2, 2] + steps * (border - pinhole[:2, 2])
        source = _source_pixels(rays, pinhole, intrinsics, lens)
        # Walking outwards must also move outwards in the source, or the polynomial is used where it turns back.
        outwards = (source - intrinsics[:2, 2]).norm(dim=-1).diff(dim=0)
        inside = (source >= 0) & (source <= limit)  # false for NaN too
        return bool(inside.all() and (outwards > 0).all())

    if fits(1.0):
        return 1.0
    if not fits(_MAX_ZOOM):
        raise ValueError("the distortion coefficients fold the image over itself")
    low, high = 1.0, _MAX_ZOOM
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high

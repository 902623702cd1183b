"""Depth maps of several photos become one coloured point cloud."""

import torch
from torch import Tensor
from torch.nn import functional as F

from fvgen.cameras import Cameras
from fvgen.scene.depth import DepthMap, by_nearness
from fvgen.scene.sweep import inside, pixel_centers, sample, transfer
from fvgen.scene.types import PointCloud

_JUMP = 0.05  # relative change of depth per pixel that no seen surface has
_COMPARED = 16  # other photos that each one's points are compared with
_CONTRADICTION = 0.05  # relative difference of depth of which one must be wrong
_SAME = 0.02  # relative difference of depth within which two photos show one spot
_ENOUGH = 2  # photos that show a spot better: another point there adds little but its bytes


def fuse_points(depths: list[DepthMap]) -> PointCloud:
    """Lift depth maps to world points and drop what cannot be true.

    Left out are pixels without depth or confidence, pixels on a depth jump that hang between the two surfaces, and
    points that another photo looks through: where the other photo's own surface lies farther than the point by more
    than 5 %, the less confident of the two goes. Each photo is compared with the 16 that look its way from nearby. Of
    more photos than 17 those points go too whose spot two of these show better: two, because exposures are compared
    where photos show the same.

    Args:
        depths: one map per photo; the index in this list becomes ``PointCloud.photo``.

    Returns:
        The cloud, in the order of photos and pixels. It may be empty.
    """
    cameras = Cameras.concatenate([own.cameras for own in depths])
    near = [by_nearness(cameras, i)[:_COMPARED] for i in range(len(depths))]
    possible = []
    for own, others in zip(depths, near):
        keep = (own.depth > 0) & (own.confidence >= 1e-6) & ~flying(own.depth)
        for j in others:
            keep &= ~_seen_through(own, depths[j])
        possible.append(keep)
    positions, colors, photo, confidence = [], [], [], []
    for i, own in enumerate(depths):
        keep = possible[i]
        if len(near[i]) < len(depths) - 1:
            keep = keep & (sum(_shown_better(own, depths[j], possible[j]).int() for j in near[i]) < _ENOUGH)
        positions.append(lift(own)[keep])
        colors.append(own.image[keep])
        photo.append(torch.full((int(keep.sum()),), i, dtype=torch.int64))
        confidence.append(own.confidence[keep])
    return PointCloud(torch.cat(positions), torch.cat(colors), torch.cat(photo), torch.cat(confidence))


def lift(own: DepthMap) -> Tensor:
    """The world position ``[h, w, 3]`` float64 of each pixel of a depth map."""
    height, width = own.depth.shape
    rays = pixel_centers(height, width, own.depth.device).double() @ torch.linalg.inv(own.cameras.intrinsics[0]).T
    matrix = own.cameras.world_from_camera[0]
    return (rays * own.depth[..., None].double()) @ matrix[:3, :3].T + matrix[:3, 3]


def flying(depth: Tensor) -> Tensor:
    """The pixels ``[h, w]`` bool of a depth map ``[h, w]`` beside a jump that belong to neither of its sides."""
    inverse = torch.where(depth > 0, 1 / depth.clamp(min=1e-12), torch.zeros_like(depth))[None, None]
    padded = F.pad(inverse, (1, 1, 1, 1), mode="replicate")
    high, low = F.max_pool2d(padded, 3, 1)[0, 0], -F.max_pool2d(-padded, 3, 1)[0, 0]
    own = inverse[0, 0]
    scale = own.clamp(min=1e-12) * _JUMP
    return ((high - own) > scale) & ((own - low) > scale)


def _seen_through(own: DepthMap, other: DepthMap) -> Tensor:
    """Where the other photo, more confident, sees past this photo's point."""
    pixels, z, depth_there = _transferred(own, other)
    there = torch.stack([torch.where(other.depth > 0, 1 / other.depth.clamp(min=1e-12), 0.0), other.confidence])
    found = sample(there, pixels[None])[0]
    farther = (found[0] > 0) & (1 / found[0].clamp(min=1e-12) > depth_there * (1 + _CONTRADICTION))
    return farther & inside(pixels, z, other.cameras) & (found[1] > own.confidence)


def _shown_better(own: DepthMap, other: DepthMap, usable: Tensor) -> Tensor:
    """Where a ``usable`` pixel of the other photo shows this photo's spot, with more confidence or in more detail.

    What is compared is the confidence times the pixels per unit of length there. Pixels are not interpolated: the best
    one that shows a spot then has no better one, so that no spot is lost.
    """
    pixels, z, depth_there = _transferred(own, other)
    height, width = other.depth.shape
    column, row = (pixels[..., k].floor().long().clamp(0, n - 1) for k, n in enumerate((width, height)))
    found = other.depth[row, column]
    same = inside(pixels, z, other.cameras) & ((found - depth_there).abs() < _SAME * depth_there) & usable[row, column]
    return same & (_worth(other)[row, column] > _worth(own))


def _worth(own: DepthMap) -> Tensor:
    """Confidence times pixels per unit of length, ``[h, w]``."""
    return own.confidence * own.cameras.intrinsics[0, 0, 0].float() / own.depth.clamp(min=1e-12)


def _transferred(own: DepthMap, other: DepthMap) -> tuple[Tensor, Tensor, Tensor]:
    """Where the other photo sees each pixel's point: see `fvgen.scene.sweep.transfer`; and its depth there."""
    inverse = torch.where(own.depth > 0, 1 / own.depth.clamp(min=1e-12), torch.zeros_like(own.depth))
    pixels, z = transfer(own.cameras, other.cameras, inverse)
    return pixels, z, z / inverse.clamp(min=1e-12)

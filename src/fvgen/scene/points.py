"""Depth maps of several photos become one coloured point cloud."""

import torch
from torch import Tensor
from torch.nn import functional as F

from fvgen.scene.depth import DepthMap
from fvgen.scene.sweep import pixel_centers, sample, transfer
from fvgen.scene.types import PointCloud

_JUMP = 0.05  # relative change of depth per pixel that no seen surface has


def fuse_points(depths: list[DepthMap], min_confidence: float = 0.0, contradiction: float = 0.05) -> PointCloud:
    """Lift depth maps to world points and drop what cannot be true.

    Left out are pixels without depth or under ``min_confidence``, pixels on a depth jump that hang between the two
    surfaces, and points that another photo looks through: where the other photo's own surface lies farther than the
    point by more than the share ``contradiction``, the less confident of the two goes.

    Args:
        depths: one map per photo; the index in this list becomes ``PointCloud.photo``.
        min_confidence: in 0..1.
        contradiction: relative difference of depth.

    Returns:
        The cloud, in the order of photos and pixels. It may be empty.
    """
    positions, colors, photo, confidence = [], [], [], []
    for i, own in enumerate(depths):
        keep = (own.depth > 0) & (own.confidence >= max(min_confidence, 1e-6)) & ~flying(own.depth)
        for j, other in enumerate(depths):
            if j != i:
                keep &= ~_seen_through(own, other, contradiction)
        positions.append(lift(own)[keep].float())
        colors.append(own.image[keep])
        photo.append(torch.full((int(keep.sum()),), i, dtype=torch.int64))
        confidence.append(own.confidence[keep])
    return PointCloud(torch.cat(positions), torch.cat(colors), torch.cat(photo), torch.cat(confidence))


def lift(own: DepthMap) -> Tensor:
    """``[h, w, 3]`` float64 world position of each pixel."""
    rays = (
        pixel_centers(own.depth.shape[0], own.depth.shape[1], own.depth.device).double()
        @ torch.linalg.inv(own.cameras.intrinsics[0]).T
    )
    matrix = own.cameras.world_from_camera[0]
    return (rays * own.depth[..., None].double()) @ matrix[:3, :3].T + matrix[:3, 3]


def flying(depth: Tensor) -> Tensor:
    """``[h, w]`` True on the pixels beside a depth jump that belong to neither side."""
    inverse = torch.where(depth > 0, 1 / depth.clamp(min=1e-12), torch.zeros_like(depth))[None, None]
    padded = F.pad(inverse, (1, 1, 1, 1), mode="replicate")
    high, low = F.max_pool2d(padded, 3, 1)[0, 0], -F.max_pool2d(-padded, 3, 1)[0, 0]
    own = inverse[0, 0]
    scale = own.clamp(min=1e-12) * _JUMP
    return ((high - own) > scale) & ((own - low) > scale)


def _seen_through(own: DepthMap, other: DepthMap, contradiction: float) -> Tensor:
    """Where the other photo, more confident, sees past this photo's point."""
    inverse = torch.where(own.depth > 0, 1 / own.depth.clamp(min=1e-12), torch.zeros_like(own.depth))
    pixels, z = transfer(own.cameras, other.cameras, inverse)
    depth_there = z / inverse.clamp(min=1e-12)
    there = torch.stack([torch.where(other.depth > 0, 1 / other.depth.clamp(min=1e-12), 0.0), other.confidence])
    found = sample(there, pixels[None])[0]
    farther = (found[0] > 0) & (1 / found[0].clamp(min=1e-12) > depth_there * (1 + contradiction))
    return farther & (z > 0) & (found[1] > own.confidence)

"""Cameras of the same pictures in two worlds: the similarity transform between these, and how well it fits."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fvgen.cameras.cameras import Cameras
from fvgen.cameras.poses import rotation_angles


@dataclass(frozen=True)
class Similarity:
    """``x -> scale * rotation @ x + translation``.

    Attributes:
        scale: above 0.
        rotation: ``[3, 3]`` float64.
        translation: ``[3]`` float64.
    """

    scale: float
    rotation: Tensor
    translation: Tensor

    @property
    def inverse(self) -> "Similarity":
        """The way back."""
        turn = self.rotation.T
        return Similarity(1 / self.scale, turn, -(turn @ self.translation) / self.scale)

    def points(self, positions: Tensor) -> Tensor:
        """Points ``[..., 3]`` carried over, in their own number format."""
        moved = self.scale * positions.double() @ self.rotation.T + self.translation
        return moved.to(positions.dtype)

    def cameras(self, cameras: Cameras) -> Cameras:
        """Cameras carried over; they see the same picture of points that are carried over too."""
        poses = cameras.world_from_camera.clone()
        poses[:, :3, :3] = self.rotation @ poses[:, :3, :3]
        poses[:, :3, 3] = self.points(poses[:, :3, 3])
        return Cameras(poses, cameras.intrinsics, cameras.sizes)


def world_from_local(cameras: Cameras, unit: float) -> Similarity:
    """From a frame in which float32 is enough to the cameras' world: centred on them, in units of about ``unit``.

    Axes are the world's, and the scale is a power of two, which changes no digit.

    Args:
        cameras: ``N >= 1``.
        unit: what shall be about 1 long, such as a typical depth; above 0.
    """
    scale = 2.0 ** round(math.log2(unit))
    return Similarity(scale, torch.eye(3, dtype=torch.float64), cameras.centers.mean(0))


def similarity_between(source: Cameras, target: Cameras) -> Similarity:
    """The similarity that carries cameras to others of the same pictures.

    The rotation is the mean (chordal, by SVD) of those that turn each camera into its partner; with it, scale and
    translation fit the centres in least squares. Unlike a fit to centres alone (Umeyama 1991) this is determined by
    two cameras, and by any number on a line.

    Args:
        source, target: ``N >= 2`` cameras each.

    Raises:
        ValueError: if either ones stand all at one place, or no scale above 0 fits.
    """
    turns = target.world_from_camera[:, :3, :3] @ source.world_from_camera[:, :3, :3].transpose(1, 2)
    u, _, v = torch.linalg.svd(turns.sum(0))
    flip = torch.diag(torch.tensor([1.0, 1.0, float(torch.linalg.det(u @ v))], dtype=torch.float64))
    rotation = u @ flip @ v
    a, b = source.centers - source.centers.mean(0), target.centers - target.centers.mean(0)
    scale = float((b * (a @ rotation.T)).sum() / a.square().sum().clamp_min(1e-300))
    if not scale > 0 or not torch.isfinite(torch.tensor(scale)):
        raise ValueError("these cameras cannot be aligned: all at one place, or in opposite order")
    return Similarity(scale, rotation, target.centers.mean(0) - scale * rotation @ source.centers.mean(0))


def residual(source: Cameras, target: Cameras, found: Similarity) -> dict[str, float]:
    """How well cameras carried over agree with their partners, in plain numbers.

    Returns:
        ``scale`` of the similarity; ``rotation_degrees``, the mean angle between partners, and
        ``pair_rotation_degrees``, the largest error of the rotation from one camera to another, which no alignment
        can hide; ``center_error``, the root mean square distance of partners over that of the target's centres from
        their mean (with two cameras: the sine of the angle between the baselines); ``focal_ratio``, the mean of
        source over target.
    """
    moved = found.cameras(source)
    a, b = moved.world_from_camera[:, :3, :3], target.world_from_camera[:, :3, :3]
    between_a, between_b = (r[:, None].transpose(-1, -2) @ r[None] for r in (a, b))
    off = (moved.centers - target.centers).square().sum(1).mean().sqrt()
    spread = (target.centers - target.centers.mean(0)).square().sum(1).mean().sqrt()
    return {
        "scale": found.scale,
        "rotation_degrees": float(torch.rad2deg(rotation_angles(a, b)).mean()),
        "pair_rotation_degrees": float(torch.rad2deg(rotation_angles(between_a, between_b)).max()),
        "center_error": float(off / spread),
        "focal_ratio": float((source.intrinsics[:, 0, 0] / target.intrinsics[:, 0, 0]).mean()),
    }

"""Estimated cameras brought into the world of given ones, as a whole: by one similarity transform."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.cameras.poses import rotation_angles
from fvgen.errors import UserError
from fvgen.scene.types import Scene


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


def similarity_between(source: Cameras, target: Cameras) -> Similarity:
    """The similarity that carries cameras to others of the same pictures.

    The rotation is the mean (chordal, by SVD) of those that turn each camera into its partner; with it, scale and
    translation fit the centres in least squares. Unlike a fit to centres alone (Umeyama 1991) this is determined by
    two cameras, and by any number on a line.

    Args:
        source, target: ``N >= 2`` cameras each.

    Raises:
        ValueError: if either ones stand all at one place.
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


def aligned_scene(scene: Scene, given: Cameras) -> tuple[Scene, dict[str, float]]:
    """A scene with estimated cameras in the world of the given ones.

    Args:
        scene: ``N`` photos.
        given: their true cameras, at the same sizes.

    Returns:
        The scene, and how well it fits: mean angle between cameras (degrees), root mean square distance of centres over
        that of the given ones from their mean, mean ratio of focal lengths, and the scale.

    Raises:
        UserError: they cannot be aligned.
    """
    try:
        found = similarity_between(scene.cameras, given)
    except ValueError as error:
        raise UserError(f"the estimated cameras do not fit the given ones ({error}); use --poses given") from None
    cameras = found.cameras(scene.cameras)
    points = replace(scene.points, positions=found.points(scene.points.positions))
    angles = rotation_angles(cameras.world_from_camera[:, :3, :3], given.world_from_camera[:, :3, :3])
    off = (cameras.centers - given.centers).square().sum(1).mean().sqrt()
    spread = (given.centers - given.centers.mean(0)).square().sum(1).mean().sqrt()
    fit = {
        "rotation_degrees": float(torch.rad2deg(angles).mean()),
        "center_error": float(off / spread),
        "focal_ratio": float((cameras.intrinsics[:, 0, 0] / given.intrinsics[:, 0, 0]).mean()),
        "scale": found.scale,
    }
    return replace(scene, cameras=cameras, points=points), fit

"""Cameras and points in the frames of the original teacher's program, to compare with its numbers."""

import torch
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.cameras.viewcrafter import object_from_world


def to_camera_frame(cameras: Cameras, points: Tensor, view: int) -> tuple[Cameras, Tensor]:
    """Cameras and points ``[..., 3]`` seen from view ``view`` (upstream ``world_point_to_kth``)."""
    return _carried(cameras, points, cameras[view].camera_from_world[0])


def to_object_frame(
    cameras: Cameras, points: Tensor, view: int, radius: float, elevation: float
) -> tuple[Cameras, Tensor]:
    """Cameras and points ``[..., 3]`` in the object frame of ``view`` (upstream ``world_point_to_obj``).

    Args:
        cameras: cameras in the world.
        points: ``[..., 3]`` in the world.
        view: the anchor view, negative counts from the end.
        radius: distance from its centre to the new origin, along its optical axis.
        elevation: degrees by which that camera looks down on the new horizontal plane.
    """
    return _carried(cameras, points, object_from_world(cameras[view], radius, elevation))


def _carried(cameras: Cameras, points: Tensor, new_from_world: Tensor) -> tuple[Cameras, Tensor]:
    moved = Cameras(new_from_world @ cameras.world_from_camera, cameras.intrinsics, cameras.sizes)
    return moved, points.to(torch.float64) @ new_from_world[:3, :3].T + new_from_world[:3, 3]

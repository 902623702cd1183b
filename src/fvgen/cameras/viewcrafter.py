"""The camera paths of the original teacher's program (ViewCrafter), number for number.

They exist so that its published results can be repeated; `fvgen.cameras.paths` has the paths to use otherwise, and
`fvgen.cameras.viewcrafter_paths` makes these available by name.
Three frames are involved:

- *world*: wherever the cameras and points come from;
- *camera frame* of view k: the axes of that camera;
- *object frame* of view k: x right, y up, z towards the viewer, origin at distance ``radius`` on its optical axis.

A *spherical move* shifts a camera along the axes of the object frame, then turns it about x (``theta``), then about y
(``phi``), degrees. ``+phi`` goes right, ``-theta`` up, ``-r`` forward.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fvgen.cameras.cameras import Cameras


def object_from_world(camera: Cameras, radius: float, elevation: float) -> Tensor:
    """``[4, 4]`` into the object frame of one camera.

    Args:
        camera: the anchor.
        radius: distance from its centre to the new origin, along its optical axis.
        elevation: degrees by which that camera looks down on the new horizontal plane.
    """
    origin_moved = torch.eye(4, dtype=torch.float64)
    origin_moved[2, 3] = -radius
    return _turn("x", 180 - elevation) @ origin_moved @ camera.camera_from_world[0]


def spherical_move(pose: Tensor, theta: float, phi: float, r: float, x: float = 0.0, y: float = 0.0) -> Tensor:
    """Move one pose ``[4, 4]`` of the object frame (upstream ``sphere2pose``); angles in degrees."""
    moved = pose.to(torch.float64).clone()
    moved[:3, 3] += torch.tensor([x, y, r], dtype=torch.float64)
    return _turn("y", phi) @ _turn("x", theta) @ moved


def path_target(
    anchor: Cameras, frames: int, d_theta: float, d_phi: float, d_r: float, d_x: float = 0.0, d_y: float = 0.0
) -> Cameras:
    """Upstream's "specified" path: from the anchor straight to one spherical move.

    Args:
        anchor: one camera in its object frame.
        frames: F >= 2.
        d_theta: degrees, negative goes up.
        d_phi: degrees, positive goes right.
        d_r: in units of the anchor's z (0.5 goes half as far away again, negative goes closer).
        d_x: world units to the right.
        d_y: world units up.
    """
    ends = (d_theta, d_phi, d_r * float(anchor.world_from_camera[0, 2, 3]), d_x, d_y)
    moves = zip(*(np.linspace(0, end, frames).tolist() for end in ends))
    return _along(anchor, [spherical_move(anchor.world_from_camera[0], *move) for move in moves])


def path_text(
    anchor: Cameras, frames: int, phis: Sequence[float], thetas: Sequence[float], rs: Sequence[float]
) -> Cameras:
    """Upstream's "txt" path: three sequences of any lengths, each spread over the whole path by `text_values`.

    Args:
        anchor: one camera in its object frame.
        frames: F >= 2.
        phis: degrees.
        thetas: degrees.
        rs: in units of the anchor's z.
    """
    depth = float(anchor.world_from_camera[0, 2, 3])
    sequences = (text_values(thetas, frames), text_values(phis, frames), text_values(rs, frames) * depth)
    return _along(anchor, [spherical_move(anchor.world_from_camera[0], *map(float, move)) for move in zip(*sequences)])


def text_values(values: Sequence[float], frames: int) -> np.ndarray:
    """Spread values over ``[frames]`` float64: linear up to three of them, beyond that a *smoothing* cubic spline.

    The spline does not pass through the inner values, and its ends are put right afterwards (a jump of the first and
    last step that upstream has too).
    """
    from scipy.interpolate import UnivariateSpline

    at, wanted = np.linspace(0, 1, len(values)), np.linspace(0, 1, frames)
    if len(values) <= 3:
        return np.interp(wanted, at, values)
    smooth = UnivariateSpline(at, values, k=3)(wanted)
    smooth[0], smooth[-1] = values[0], values[-1]
    return smooth


def path_between(
    cameras: Cameras, frames: int, *, double_last_step: bool = False, early_intrinsics: bool = False
) -> Cameras:
    """Upstream's "interp" path: straight from photo to photo, ``(N - 1) * (frames - 1) + 1`` cameras.

    Positions, look-at points and up vectors move on straight lines in equal steps, focal lengths and principal points
    with them. Upstream does neither; with both switches on the result is upstream's.

    Args:
        cameras: N >= 2 cameras of one size.
        frames: L >= 2 (L >= 3 with a switch), cameras per window, both ends included.
        double_last_step: divide a window into L steps and take the last two as one, twice as long.
        early_intrinsics: let the intrinsics arrive at the next photo's one frame before its pose.
    """
    steps = frames - 1
    count = torch.arange(steps, dtype=torch.float64)
    way = count / (steps + 1 if double_last_step else steps)
    lens = count / (steps - 1 if early_intrinsics else steps)
    poses, intrinsics = [], []
    for k in range(len(cameras) - 1):
        a, b = cameras.world_from_camera[k], cameras.world_from_camera[k + 1]
        poses += [_straight(a, b, t) for t in way.tolist()]
        ends = cameras.intrinsics[k].expand(steps, 3, 3), cameras.intrinsics[k + 1].expand(steps, 3, 3)
        intrinsics.append(torch.lerp(*ends, lens[:, None, None]))
    poses.append(cameras.world_from_camera[-1])
    intrinsics.append(cameras.intrinsics[-1:])
    return Cameras(torch.stack(poses), torch.cat(intrinsics), cameras.sizes[:1].repeat(len(poses), 1))


def _straight(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Between two poses: the position, the point one unit ahead and the up vector on straight lines."""
    mixed = torch.lerp(a, b, t)
    forward = torch.nn.functional.normalize(mixed[:3, 2], dim=0)
    right = torch.nn.functional.normalize(torch.linalg.cross(mixed[:3, 1], forward), dim=0)
    pose = mixed.clone()
    pose[:3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=1)
    return pose


def _along(anchor: Cameras, poses: list[Tensor]) -> Cameras:
    f = len(poses)
    return Cameras(torch.stack(poses), anchor.intrinsics[:1].repeat(f, 1, 1), anchor.sizes[:1].repeat(f, 1))


def _turn(axis: str, degrees: float) -> Tensor:
    i, j = {"x": (1, 2), "y": (2, 0)}[axis]
    turn = torch.eye(4, dtype=torch.float64)
    turn[i, i] = turn[j, j] = math.cos(math.radians(degrees))
    turn[j, i] = math.sin(math.radians(degrees))
    turn[i, j] = -turn[j, i]
    return turn

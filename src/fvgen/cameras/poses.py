"""Pose maths: looking at a point, turning about an axis, smooth curves through rigid transforms.

Everything is float64 and in OpenCV axes (x right, y down, z forward); a pose is a ``world_from_camera`` matrix.
"""

import torch
from torch import Tensor

_LONGEST_TANGENT = 2.0  # in chords: a tangent beyond three of them lets a cubic swing past its keys


def rotation_exp(vectors: Tensor) -> Tensor:
    """Rotation vectors ``[..., 3]`` (axis times angle in radians) to matrices ``[..., 3, 3]``."""
    from scipy.spatial.transform import Rotation

    flat = vectors.reshape(-1, 3).to(torch.float64)
    matrices = torch.from_numpy(Rotation.from_rotvec(flat.numpy()).as_matrix())
    return matrices.reshape(*vectors.shape[:-1], 3, 3)


def rotation_log(matrices: Tensor) -> Tensor:
    """Rotation matrices ``[..., 3, 3]`` to rotation vectors ``[..., 3]``, angles in 0..pi."""
    from scipy.spatial.transform import Rotation

    flat = matrices.reshape(-1, 3, 3).to(torch.float64)
    vectors = torch.from_numpy(Rotation.from_matrix(flat.numpy()).as_rotvec())
    return vectors.reshape(*matrices.shape[:-2], 3)


def look_at(centers: Tensor, target: Tensor, up: Tensor) -> Tensor:
    """Poses at ``centers`` whose optical axes meet ``target``, image top towards ``up``.

    Args:
        centers: ``[N, 3]``.
        target: ``[3]`` or ``[N, 3]``.
        up: ``[3]`` or ``[N, 3]``, any length.

    Returns:
        ``[N, 4, 4]`` world_from_camera.

    Raises:
        ValueError: if a centre lies on the target, or a view direction along ``up``.
    """
    forward = torch.nn.functional.normalize(target - centers, dim=-1)
    right = torch.linalg.cross(forward, up.expand_as(forward))
    if bool((forward.norm(dim=-1) < 0.5).any()) or bool((right.norm(dim=-1) < 1e-9 * up.norm()).any()):
        raise ValueError("look_at needs centres away from the target and views not along the up direction")
    right = torch.nn.functional.normalize(right, dim=-1)
    poses = torch.eye(4, dtype=torch.float64).repeat(len(centers), 1, 1)
    poses[:, :3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=-1)
    poses[:, :3, 3] = centers
    return poses


def turned_about(pose: Tensor, pivot: Tensor, rotations: Tensor) -> Tensor:
    """One pose ``[4, 4]`` carried rigidly by rotations ``[N, 3, 3]`` about the world point ``pivot`` ``[3]``."""
    poses = pose.repeat(len(rotations), 1, 1)
    poses[:, :3, :3] = rotations @ pose[:3, :3]
    poses[:, :3, 3] = pivot + rotations @ (pose[:3, 3] - pivot)
    return poses


def shortest_rotation(source: Tensor, targets: Tensor) -> Tensor:
    """The smallest rotations ``[N, 3, 3]`` that carry direction ``source`` ``[3]`` to ``targets`` ``[N, 3]``.

    Directions need not be unit length; opposite directions have no smallest rotation and are not allowed.
    """
    a = torch.nn.functional.normalize(source, dim=0).expand_as(targets)
    b = torch.nn.functional.normalize(targets, dim=-1)
    axis = torch.linalg.cross(a, b)
    angle = torch.atan2(axis.norm(dim=-1), (a * b).sum(-1))
    return rotation_exp(torch.nn.functional.normalize(axis, dim=-1) * angle[:, None])


def rotation_angles(a: Tensor, b: Tensor) -> Tensor:
    """Angles in radians between rotation matrices ``[..., 3, 3]`` (broadcast), exact also near zero.

    The Frobenius norm of ``a - b`` is ``2 sqrt(2) sin(angle / 2)``.
    """
    sine = torch.linalg.matrix_norm(a - b) / 8**0.5
    return 2 * torch.asin(sine.clamp(0, 1))


def smooth_poses(keys: Tensor, times: Tensor) -> Tensor:
    """A smooth curve through poses: key ``i`` is met at time ``i``, with continuous velocity.

    Positions follow a cubic Hermite spline, rotations its analogue on the rotation group (Kim, Kim and Shin 1995,
    cumulative Bernstein basis). The velocity at a key is the mean of the neighbouring chords, shortened where they
    differ so that the camera never swings past its keys. Two keys give a straight line and a constant turn (slerp).

    Args:
        keys: ``[K, 4, 4]`` with K >= 2.
        times: ``[F]`` in ``0..K-1``.

    Returns:
        ``[F, 4, 4]``; at integer times the keys themselves, bit for bit.
    """
    window = times.floor().long().clamp(0, len(keys) - 2)
    t = (times - window).to(torch.float64)[:, None]
    poses = torch.eye(4, dtype=torch.float64).repeat(len(times), 1, 1)
    poses[:, :3, 3] = _smooth_positions(keys[:, :3, 3], window, t)
    poses[:, :3, :3] = _smooth_rotations(keys[:, :3, :3], window, t)
    at_key = times == times.round()
    poses[at_key] = keys[times[at_key].long()]
    return poses


def _smooth_positions(keys: Tensor, window: Tensor, t: Tensor) -> Tensor:
    chords = keys[1:] - keys[:-1]
    tangents = _key_tangents(chords)
    a, b, m_a, m_b = keys[window], keys[window + 1], tangents[window], tangents[window + 1]
    blend = t * t * (3 - 2 * t)
    return a + blend * (b - a) + t * (1 - t) ** 2 * m_a - t * t * (1 - t) * m_b


def _smooth_rotations(keys: Tensor, window: Tensor, t: Tensor) -> Tensor:
    chords = rotation_log(keys[:-1].transpose(1, 2) @ keys[1:])  # body frame, the same seen from both ends
    tangents = _key_tangents(chords)
    first, last = rotation_exp(tangents[:-1] / 3), rotation_exp(tangents[1:] / 3)
    middle = rotation_log(first.transpose(1, 2) @ rotation_exp(chords) @ last.transpose(1, 2))
    return (
        keys[window]
        @ rotation_exp((1 - (1 - t) ** 3) * tangents[window] / 3)
        @ rotation_exp((3 * t * t - 2 * t**3) * middle[window])
        @ rotation_exp(t**3 * tangents[window + 1] / 3)
    )


def _key_tangents(chords: Tensor) -> Tensor:
    """Velocities ``[K, 3]`` at the keys from the chords ``[K-1, 3]`` between them, one time unit each."""
    if len(chords) == 1:
        return chords.repeat(2, 1)
    inner = (chords[:-1] + chords[1:]) / 2
    ends = [1.5 * chords[:1] - 0.5 * inner[:1], 1.5 * chords[-1:] - 0.5 * inner[-1:]]  # no acceleration at the ends
    tangents = torch.cat([ends[0], inner, ends[1]])
    lengths = chords.norm(dim=1)
    limit = torch.minimum(torch.cat([lengths[:1], lengths]), torch.cat([lengths, lengths[-1:]])) * _LONGEST_TANGENT
    return tangents * (limit / tangents.norm(dim=1).clamp_min(1e-300)).clamp_max(1)[:, None]

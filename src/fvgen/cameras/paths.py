"""Camera paths: through the photos, around the scene, or the user's own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fvgen.cameras.cameras import Cameras
from fvgen.cameras.poses import rotation_angles, rotation_exp, shortest_rotation, smooth_poses, turned_about
from fvgen.errors import UserError

DEFAULT_FRAMES = 46  # three windows of 16 that share their end frames

_SAME_CENTER = 1e-4  # of the distance between the photos
_SAME_ANGLE = 1e-3  # radians, a quarter of a pixel at 256 pixels and 55 degrees
_SAME_PIXEL = 4e-3  # of the long side, how far the lens may move a corner


@dataclass(frozen=True)
class CameraPath:
    """The cameras of a video, in order.

    Attributes:
        cameras: ``F`` cameras that share one size.
        photo: ``F`` entries: the index of the photo whose camera this frame is, else ``None``.

    Raises:
        ValueError: if the lengths differ.
    """

    cameras: Cameras
    photo: list[int | None]

    def __post_init__(self) -> None:
        if len(self.cameras) != len(self.photo):
            raise ValueError(f"a path needs one photo entry per camera, got {len(self.photo)} for {len(self.cameras)}")

    def __len__(self) -> int:
        return len(self.photo)


def path_through(
    cameras: Cameras,
    frames_per_window: int = 16,
    size: tuple[int, int] | None = None,
    frames: int | None = None,
) -> CameraPath:
    """Fly through the photos in their order: N photos make N-1 windows that share their end frames.

    Each photo's own camera is met exactly, at frame ``k * (frames_per_window - 1)`` for photo ``k``; between them
    the pose follows `fvgen.cameras.poses.smooth_poses` and the intrinsics change linearly.

    Args:
        cameras: one camera per photo, N >= 2, any sizes.
        frames_per_window: L >= 2; the path has ``(N - 1) * (L - 1) + 1`` frames.
        size: (width, height) of the frames; the photos' views are scaled to cover it and cropped in the centre.
            Default: the first camera's size.
        frames: the total number of frames instead, shared out evenly over the windows.

    Raises:
        UserError: fewer than two photos, or fewer frames than photos.
    """
    n = len(cameras)
    if n < 2:
        raise UserError(f"a path through the photos needs at least two of them, got {n}: add a photo or choose `path`")
    if frames is None:
        if frames_per_window < 2:
            raise UserError(f"a window needs at least 2 frames, got {frames_per_window}")
        keys = [k * (frames_per_window - 1) for k in range(n)]
    else:
        check_through(n, frames)
        keys = [round(k * (frames - 1) / (n - 1)) for k in range(n)]
    photo: list[int | None] = [None] * (keys[-1] + 1)
    for k, frame in enumerate(keys):
        photo[frame] = k
    return CameraPath(path_between(_framed(cameras, size), keys), photo)


def check_through(photos: int, frames: int) -> None:
    """Complain, before the cameras are known, of fewer frames than photos to pass through.

    Raises:
        UserError: there are.
    """
    if frames < photos:
        raise UserError(f"{frames} frames cannot pass through {photos} photos: ask for at least {photos} frames")


def path_between(keys: Cameras, frames: Sequence[int]) -> Cameras:
    """Cameras of every frame from the first key frame to the last.

    Poses follow `fvgen.cameras.poses.smooth_poses`, intrinsics change linearly; each key is met exactly.

    Args:
        keys: K >= 2 cameras of one size.
        frames: the frame of each, strictly ascending.

    Returns:
        ``frames[-1] - frames[0] + 1`` cameras.

    Raises:
        ValueError: fewer than two keys, or frames that do not ascend.
    """
    if len(keys) < 2 or len(keys) != len(frames) or any(b <= a for a, b in zip(frames, frames[1:])):
        raise ValueError(f"a path needs two keys at least, at ascending frames; got {len(keys)} at {list(frames)}")
    counts = [b - a for a, b in zip(frames, frames[1:])]
    windows = [k + torch.arange(count, dtype=torch.float64) / count for k, count in enumerate(counts)]
    times = torch.cat([*windows, torch.tensor([len(counts)], dtype=torch.float64)])  # in keys
    left = times.floor().long().clamp(0, len(keys) - 2)
    lens = torch.lerp(keys.intrinsics[left], keys.intrinsics[left + 1], (times - left)[:, None, None])
    return Cameras(smooth_poses(keys.world_from_camera, times), lens, keys.sizes[:1].repeat(len(times), 1))


def path_orbit(
    cameras: Cameras, points: Tensor, frames: int = DEFAULT_FRAMES, size: tuple[int, int] | None = None
) -> CameraPath:
    """Swing around what the photos look at, and come back.

    The middle photo's camera turns about the scene's vertical through its look-at point (the point of its optical
    axis at the median depth of the points it sees). It swings as far to each side as the photos do, at least 6 and at
    most 75 degrees; where the photos stand all around, with no gap wider than 120 degrees, it makes a full turn.

    Args:
        cameras: one camera per photo, N >= 1.
        points: ``[P, 3]`` world positions.
        frames: F >= 2; the first and last frame are the middle photo's.
        size: (width, height) of the frames, default the first camera's size.

    Raises:
        UserError: fewer than 2 frames, or no point in front of the middle photo.
    """
    t, view = _clock(frames), middle_photo(cameras)
    pivot = _look_at_point(cameras, points, view)
    axis = _vertical(cameras, view)
    low, high, all_around = _swing(cameras.centers - pivot, axis, view)
    angles = 2 * math.pi * t
    if not all_around:
        middle, reach = (high + low) / 2, (high - low) / 2
        angles = middle + reach * torch.sin(angles - math.asin(middle / reach))
    poses = turned_about(cameras.world_from_camera[view], pivot, rotation_exp(angles[:, None] * axis))
    return _single_view(cameras, view, poses, size, closed=True)


def path_spiral(
    cameras: Cameras,
    points: Tensor,
    frames: int = DEFAULT_FRAMES,
    size: tuple[int, int] | None = None,
    turns: float = 2.0,
) -> CameraPath:
    """Spiral out from the middle photo and back into it, always looking at the same point.

    The centre moves in the photo's image plane, as wide as the photos stand apart there, but at least 3 % and at most
    15 % of the distance to the look-at point; the camera turns by the smallest rotation that keeps that point in place.

    Args:
        cameras: one camera per photo, N >= 1.
        points: ``[P, 3]`` world positions.
        frames: F >= 2; the first and last frame are the middle photo's.
        size: (width, height) of the frames, default the first camera's size.
        turns: how many times around.

    Raises:
        UserError: fewer than 2 frames, or no point in front of the middle photo.
    """
    t, view = _clock(frames), middle_photo(cameras)
    pose = cameras.world_from_camera[view]
    pivot = _look_at_point(cameras, points, view)
    distance = float((pivot - pose[:3, 3]).norm())
    offsets = ((cameras.centers - pose[:3, 3]) @ pose[:3, :3])[:, :2].abs().amax(0)
    radii = offsets.clamp(0.03 * distance, 0.15 * distance)
    angle = 2 * math.pi * turns * t
    circle = torch.stack([torch.sin(angle), torch.cos(angle)], dim=1) * torch.sin(math.pi * t)[:, None] ** 2
    centers = pose[:3, 3] + (circle * radii) @ pose[:3, :2].T
    poses = pose.repeat(frames, 1, 1)
    poses[:, :3, :3] = shortest_rotation(pivot - pose[:3, 3], pivot - centers) @ pose[:3, :3]
    poses[:, :3, 3] = centers
    return _single_view(cameras, view, poses, size, closed=True)


def path_dolly(
    cameras: Cameras, points: Tensor, frames: int = DEFAULT_FRAMES, size: tuple[int, int] | None = None
) -> CameraPath:
    """Move forward from the middle photo, straight along its optical axis, starting and stopping gently.

    It goes a third of the way to the look-at point, and never further than 60 % of the way to the nearest things seen.

    Args:
        cameras: one camera per photo, N >= 1.
        points: ``[P, 3]`` world positions.
        frames: F >= 2; the first frame is the middle photo's.
        size: (width, height) of the frames, default the first camera's size.

    Raises:
        UserError: fewer than 2 frames, or no point in front of the middle photo.
    """
    t, view = _clock(frames), middle_photo(cameras)
    depths = _seen_depths(cameras, points, view)
    way = min(float(depths.median()) / 3, 0.6 * float(depths.quantile(0.02)))
    poses = cameras.world_from_camera[view].repeat(frames, 1, 1)
    poses[:, :3, 3] += (t * t * (3 - 2 * t) * way)[:, None] * poses[:, :3, 2]
    return _single_view(cameras, view, poses, size, closed=False)


def follow(path: Cameras, photos: Cameras, size: tuple[int, int] | None = None) -> CameraPath:
    """The user's own path, each frame exactly as given.

    Args:
        path: F >= 2 cameras in the world of ``photos``, any sizes.
        photos: one camera per photo.
        size: (width, height) of the frames: views are scaled to cover it and cropped in the centre. Default: the
            first path camera's size.

    Returns:
        The path; a frame is marked as photo ``k`` where its pose and its view coincide with those of photo ``k``.

    Raises:
        UserError: fewer than two cameras.
    """
    if len(path) < 2:
        raise UserError(f"a camera path needs at least two frames, got {len(path)}")
    framed = _framed(path, size)
    return CameraPath(framed, photos_met(framed, photos))


def photos_met(path: Cameras, photos: Cameras) -> list[int | None]:
    """For each of F path cameras of one size, the photo with the same camera, else ``None``.

    Same means: the centre within 1e-4 of the photos' distance from each other, the axes within 1e-3 radians, and the
    image corners, after the photo is scaled to cover the path's size, within 0.4 % of the long side.
    """
    width, height = path.size
    views = photos.covering(width, height)[0]
    extent = float(_distances(views.centers, views.centers).max())
    moved = _distances(path.centers, views.centers)
    scale = extent if extent > 0 else float(moved.max())
    turned = rotation_angles(path.world_from_camera[:, None, :3, :3], views.world_from_camera[None, :, :3, :3])
    same = (moved <= _SAME_CENTER * scale) & (turned <= _SAME_ANGLE)
    corners = torch.tensor([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], dtype=torch.float64).T
    rays = torch.linalg.inv(path.intrinsics)[:, None] @ corners
    shift = (views.intrinsics[None] @ rays - corners).abs().amax((2, 3))
    same &= shift <= _SAME_PIXEL * max(width, height)
    nearest = (moved / max(scale, 1e-300) + turned).masked_fill(~same, math.inf).min(dim=1)
    return [int(k) if math.isfinite(v) else None for v, k in zip(nearest.values.tolist(), nearest.indices.tolist())]


def middle_photo(cameras: Cameras) -> int:
    """The photo whose centre is nearest to the mean of all centres (the first one among equals)."""
    distances = (cameras.centers - cameras.centers.mean(0)).norm(dim=1)
    return int((distances <= distances.min() * (1 + 1e-9)).nonzero()[0])


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """``[A, B]``, exact also far from the origin (the default takes differences of squares)."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _framed(cameras: Cameras, size: tuple[int, int] | None) -> Cameras:
    width, height = size or (int(cameras.sizes[0, 0]), int(cameras.sizes[0, 1]))
    return cameras.covering(width, height)[0]


def _single_view(cameras: Cameras, view: int, poses: Tensor, size: tuple[int, int] | None, closed: bool) -> CameraPath:
    """A path of one photo's lens along ``poses``, which start, and end where ``closed``, at that photo's pose."""
    framed = _framed(cameras, size)
    poses[0] = cameras.world_from_camera[view]  # free of rounding
    if closed:
        poses[-1] = cameras.world_from_camera[view]
    f = len(poses)
    path = Cameras(poses, framed.intrinsics[view].repeat(f, 1, 1), framed.sizes[:1].repeat(f, 1))
    return CameraPath(path, photos_met(path, cameras))


def _clock(frames: int) -> Tensor:
    if frames < 2:
        raise UserError(f"a camera path needs at least 2 frames, got {frames}")
    return torch.linspace(0, 1, frames, dtype=torch.float64)


def _seen_depths(cameras: Cameras, points: Tensor, view: int) -> Tensor:
    """Depths ``[S]`` of the points inside the image of one camera (of all points in front, if it sees none)."""
    camera = cameras[view]
    inside = points.to(torch.float64) @ camera.camera_from_world[0, :3, :3].T + camera.camera_from_world[0, :3, 3]
    inside = inside[inside[:, 2] > 0]
    if len(inside) == 0:
        raise UserError("this path needs points in front of the middle photo and there are none: choose `path` through")
    pixels = inside @ camera.intrinsics[0].T
    pixels = pixels[:, :2] / pixels[:, 2:]
    seen = ((pixels > 0) & (pixels < camera.sizes)).all(dim=1)
    depths = inside[seen, 2] if bool(seen.any()) else inside[:, 2]
    return depths[:: max(1, len(depths) // 1_000_000)]  # torch.quantile has an upper limit


def _look_at_point(cameras: Cameras, points: Tensor, view: int) -> Tensor:
    pose = cameras.world_from_camera[view]
    return pose[:3, 3] + _seen_depths(cameras, points, view).median() * pose[:3, 2]


def _vertical(cameras: Cameras, view: int) -> Tensor:
    """The scene's up direction ``[3]``: the mean of the photos' own, or the view's if it looks along that."""
    up = -cameras.world_from_camera[:, :3, 1].mean(0)
    own = -cameras.world_from_camera[view, :3, 1]
    up = torch.nn.functional.normalize(up, dim=0) if float(up.norm()) > 0.3 else own
    along = float((up * cameras.world_from_camera[view, :3, 2]).sum().abs())
    return own if along > math.cos(math.radians(20)) else up


def _swing(offsets: Tensor, axis: Tensor, view: int) -> tuple[float, float, bool]:
    """How far to swing about an axis to either side of a photo, and whether the photos stand all around."""
    flat = offsets - (offsets @ axis)[:, None] * axis
    azimuths = torch.atan2(torch.linalg.cross(flat[view].expand_as(flat), flat) @ axis, flat @ flat[view])
    ordered = azimuths.sort().values
    gaps = torch.cat([ordered[1:] - ordered[:-1], ordered[:1] + 2 * math.pi - ordered[-1:]])
    all_around = bool(gaps.max() <= math.radians(120) + 1e-6)
    least, most = math.radians(6), math.radians(75)
    low = min(max(float(ordered[0]), -most), -least)
    high = max(min(float(ordered[-1]), most), least)
    return low, high, all_around

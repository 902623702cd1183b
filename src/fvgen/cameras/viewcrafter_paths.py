"""The original teacher's camera paths by name: ``viewcrafter:target``, ``...:FILE.txt``, ``...:between``.

A request says what is wanted, `plan_viewcrafter` makes the cameras in the scene's own world. The defaults are the
original program's, except that its slips of `ViewCrafterBetween` are off.
"""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fvgen.cameras.cameras import Cameras
from fvgen.cameras.paths import CameraPath, middle_photo, photos_met
from fvgen.cameras.viewcrafter import object_from_world, path_between, path_target, path_text
from fvgen.errors import UserError

PREFIX = "viewcrafter:"
_LONG_SIDE = 512  # of the pictures in whose pixels the original counts d_x and d_y


@dataclass(frozen=True)
class ViewCrafterTarget:
    """From one photo straight to one spherical move about what it shows in its middle.

    Attributes:
        d_theta: degrees, negative goes up.
        d_phi: degrees, positive goes right.
        d_r: share of the distance, negative goes closer.
        d_x: to the right, in pixels of a picture of 512 pixels' length at the distance of the middle.
        d_y: upwards, in the same pixels.
        elevation: degrees by which the photo looks down.
        center_scale: the centre of the sphere lies at this many times the depth of the photo's middle.
        photo: index of the photo, 0 the first, -1 the last; ``None`` takes the middle one.
    """

    d_theta: float = 10.0
    d_phi: float = 30.0
    d_r: float = -0.2
    d_x: float = 0.0
    d_y: float = 0.0
    elevation: float = 5.0
    center_scale: float = 1.0
    photo: int | None = None


@dataclass(frozen=True)
class ViewCrafterText:
    """From one photo along sequences of spherical moves, each spread over the whole path.

    Up to three values are joined by lines, more by a smoothing spline that does not pass through the inner ones.

    Attributes:
        phis: degrees, positive goes right.
        thetas: degrees, negative goes up.
        rs: shares of the distance, negative goes closer.
        elevation: degrees by which the photo looks down.
        center_scale: the centre of the sphere lies at this many times the depth of the photo's middle.
        photo: index of the photo, 0 the first, -1 the last; ``None`` takes the middle one.
    """

    phis: tuple[float, ...]
    thetas: tuple[float, ...]
    rs: tuple[float, ...]
    elevation: float = 5.0
    center_scale: float = 1.0
    photo: int | None = None


@dataclass(frozen=True)
class ViewCrafterBetween:
    """Straight from photo to photo in their order.

    Attributes:
        double_last_step: the original's slip: the last step to each photo is twice as long as the others.
        early_intrinsics: the original's slip: focal length and principal point arrive a frame before the photo.
    """

    double_last_step: bool = False
    early_intrinsics: bool = False


ViewCrafterPath = ViewCrafterTarget | ViewCrafterText | ViewCrafterBetween


def parse_viewcrafter(text: str) -> ViewCrafterPath:
    """``viewcrafter:KIND[,OPTION=VALUE]...`` as a request; KIND is ``target``, ``between`` or a text file.

    Raises:
        UserError: unknown kind or option, a value that is none, a file that is not three lines of numbers.
    """
    kind, *options = text.removeprefix(PREFIX).split(",")
    if kind == "target":
        return ViewCrafterTarget(**_values(ViewCrafterTarget, options, text))
    if kind == "between":
        return ViewCrafterBetween(**_values(ViewCrafterBetween, options, text))
    file = trajectory_file(text)
    if file is None:
        raise UserError(f"`path` {text}: after {PREFIX} comes target, between, or a text file FILE.txt")
    return ViewCrafterText(*read_trajectory(file), **_values(ViewCrafterText, options, text))


def trajectory_file(text: str) -> Path | None:
    """The text file that a request names, if it names one."""
    kind = text.removeprefix(PREFIX).split(",")[0]
    return Path(kind) if kind.lower().endswith(".txt") else None


def read_trajectory(path: Path) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """Three lines of numbers: phi, theta (degrees) and r (shares of the distance), each as long as it likes.

    Raises:
        UserError: unreadable, fewer or more than three lines, or something that is no number.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise UserError(f"{path}: cannot be read ({reason})") from None
    rows = [line.split() for line in lines if line.strip()]
    if len(rows) != 3:
        raise UserError(f"{path}: a trajectory has three lines, phi, theta and r; this has {len(rows)}")
    phis, thetas, rs = (tuple(_number(w, f"{path}, line {i}") for w in row) for i, row in enumerate(rows, 1))
    return phis, thetas, rs


def plan_viewcrafter(
    request: ViewCrafterPath,
    cameras: Cameras,
    points: Tensor,
    point_photo: Tensor,
    frames: int | None = None,
    size: tuple[int, int] | None = None,
    frames_per_window: int = 16,
) -> CameraPath:
    """The cameras of a request, in the world of the photos.

    Args:
        cameras: one camera per photo.
        points: ``[P, 3]`` world positions.
        point_photo: ``[P]`` the photo each point came from.
        frames: F >= 2; by default one window, for ``between`` one from photo to photo.
        size: (width, height) of the frames, which show what the photos do, scaled to cover it and cropped in the
            centre. Default: the first photo's.
        frames_per_window: L >= 2.

    Raises:
        UserError: a photo that is not there, a number of frames that the path cannot have, photos to pass between
            that look in opposite directions, no point before the photo.
    """
    width, height = size or tuple(cameras.sizes[0].tolist())
    framed = cameras.covering(width, height)[0]
    if isinstance(request, ViewCrafterBetween):
        return _between(request, framed, frames, frames_per_window)
    count, photos, view = frames or frames_per_window, len(cameras), request.photo
    if view is None:
        view = middle_photo(cameras)
    else:
        check_request(request, photos, frames, frames_per_window)
    view %= photos
    depth = center_depth(cameras[view], points[point_photo == view])
    object_world = object_from_world(cameras[view], depth * request.center_scale, request.elevation)
    anchor = Cameras(object_world @ framed[view].world_from_camera, framed[view].intrinsics, framed[view].sizes)
    if count < 2:
        raise UserError(f"a camera path needs at least 2 frames, got {count}")
    if isinstance(request, ViewCrafterTarget):
        focal = float(cameras.intrinsics[view, 0, 0]) * _LONG_SIDE / float(cameras.sizes[view].max())
        shift = (request.d_x * depth / focal, request.d_y * depth / focal)
        path = path_target(anchor, count, request.d_theta, request.d_phi, request.d_r, *shift)
    else:
        path = path_text(anchor, count, request.phis, request.thetas, request.rs)
    placed = Cameras(torch.linalg.inv(object_world) @ path.world_from_camera, path.intrinsics, path.sizes)
    return CameraPath(placed, photos_met(placed, cameras))


def center_depth(camera: Cameras, points: Tensor) -> float:
    """Depth, in world units, of the point that one camera sees nearest to the middle of its picture.

    Args:
        camera: one camera.
        points: ``[P, 3]`` world positions.

    Raises:
        UserError: no point lies before the camera.
    """
    matrix = camera.camera_from_world[0]
    local = points.to(torch.float64) @ matrix[:3, :3].T + matrix[:3, 3]
    local = local[local[:, 2] > 0]
    if len(local) == 0:
        raise UserError(
            "this path turns about what its photo shows, and no point of it is known: choose another photo="
        )
    pixels = local @ camera.intrinsics[0].T
    away = (pixels[:, :2] / pixels[:, 2:] - camera.sizes[0] / 2).norm(dim=1)
    return float(local[away.argmin(), 2])


def check_request(request: ViewCrafterPath, photos: int, frames: int | None, usual: int) -> int:
    """Complain, before any work, of what does not fit the number of photos.

    Args:
        request: the path.
        photos: how many there are, in cameras.
        frames: that were asked for.
        usual: frames of a window.

    Returns:
        Frames from photo to photo, both included; ``usual`` of a path that does not go from photo to photo.

    Raises:
        UserError: a photo that is not there, or a number of frames that the path cannot have.
    """
    if not isinstance(request, ViewCrafterBetween):
        view = request.photo
        if view is not None and not -photos <= view < photos:
            raise UserError(f"photo={view}: there are {photos} photos, 0 to {photos - 1} (-1 is the last)")
        return usual
    if photos < 2:
        raise UserError(f"a path between photos needs at least two of them, got {photos}")
    window = usual if frames is None else (frames - 1) // (photos - 1) + 1
    if frames is not None and (window - 1) * (photos - 1) + 1 != frames:
        low, high = ((w - 1) * (photos - 1) + 1 for w in (window, window + 1))
        raise UserError(f"{frames} frames do not pass evenly between {photos} photos: ask for {low} or {high}")
    least = 3 if request.double_last_step or request.early_intrinsics else 2
    if window < least:
        raise UserError(f"this path needs {least} frames from photo to photo: ask for {(least - 1) * (photos - 1) + 1}")
    return window


def _between(request: ViewCrafterBetween, framed: Cameras, frames: int | None, usual: int) -> CameraPath:
    photos = len(framed)
    window = check_request(request, photos, frames, usual)
    path = path_between(framed, window, **vars(request))
    if not bool((torch.linalg.det(path.world_from_camera[:, :3, :3]) > 0.5).all()):
        raise UserError("two neighbouring photos look in opposite directions, which no straight path joins")
    photo: list[int | None] = [None] * len(path)
    for k in range(photos):
        photo[k * (window - 1)] = k
    return CameraPath(path, photo)


def _values(kind: type, options: list[str], text: str) -> dict[str, Any]:
    """``OPTION=VALUE`` texts as the numbers and switches of a request's fields."""
    known = {field.name: field.type for field in fields(kind) if field.name not in ("phis", "thetas", "rs")}
    values: dict[str, Any] = {}
    for option in options:
        name, sign, value = option.strip().partition("=")
        where = f"`path` {text}: {name}"
        if name not in known:
            raise UserError(f"`path` {text}: there is no option '{name}'; choose from {', '.join(known)}")
        if known[name] is bool:
            if value not in ("", "true", "false") or (sign and not value):
                raise UserError(f"{where} is a switch: write {name} or {name}=false")
            values[name] = value != "false"
        elif name == "photo":
            if not value.removeprefix("-").isdecimal():
                raise UserError(f"{where}={value} is no photo: write a whole number such as 0 or -1")
            values[name] = int(value)
        else:
            values[name] = _number(value, where)
    if values.get("center_scale", 1.0) <= 0:
        raise UserError(f"`path` {text}: center_scale must be above 0")
    return values


def _number(word: str, where: str) -> float:
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{where}: '{word}' is no number")
    return number

"""A camera path as drawn: key cameras at frames, the cameras between them, and their files. Pure functions, no page."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from fvgen.cameras import Cameras, path_between, path_dolly, path_orbit, path_spiral, path_through
from fvgen.cameras.poses import rotation_angles
from fvgen.errors import UserError
from fvgen.scene.formats.transforms_json import read_camera_path, write_transforms_json
from fvgen.scene.types import Scene

STEP = 15  # frames from key to key: one window of the models

MOST_FRAMES = 1000

# How a path is made, its frames, and its keys: so many follow the curve to a hundredth of its size.
_CURVES = {"orbit": (path_orbit, 61, 13), "spiral": (path_spiral, 73, 25), "dolly": (path_dolly, 31, 7)}

PRESETS = ("through", *_CURVES)


@dataclass(frozen=True)
class KeyPath:
    """A path by its keys; it is immutable, every edit returns another.

    Attributes:
        keys: K cameras of one size, in the order of the path.
        frames: the frame of each key, from 0, strictly ascending.
        size: (width, height) of the pictures.
    """

    keys: Cameras
    frames: tuple[int, ...]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def count(self) -> int:
        """Number of frames."""
        return self.frames[-1] + 1 if self.frames else 0

    def cameras(self) -> Cameras:
        """The camera of every frame; each key is met exactly.

        Raises:
            UserError: fewer than two keys.
        """
        if len(self) < 2:
            raise UserError(f"a path needs at least two key frames, this one has {len(self)}: add another")
        return path_between(self.keys, self.frames)


def empty_path(size: tuple[int, int]) -> KeyPath:
    """A path without keys, for pictures of ``size`` (width, height)."""
    nothing = torch.empty(0, 4, 4), torch.empty(0, 3, 3), torch.empty(0, 2)
    return KeyPath(Cameras(*nothing), (), size)


def key_camera(world_from_camera: Tensor, fov: float, size: tuple[int, int]) -> Cameras:
    """One camera with the principal point in the middle.

    Args:
        world_from_camera: ``[4, 4]``.
        fov: vertical field of view in degrees.
        size: (width, height).

    Raises:
        UserError: a field of view outside 5..120 degrees.
    """
    width, height = size
    focal = _focal(fov, height)
    intrinsics = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64)
    return Cameras(world_from_camera[None], intrinsics[None], torch.tensor([size]))


def _focal(fov: float, height: int) -> float:
    if not 5 <= fov <= 120:
        raise UserError(f"field of view {fov:g}: choose 5 to 120 degrees")
    return height / 2 / math.tan(math.radians(fov) / 2)


def fov_of(camera: Cameras) -> float:
    """Vertical field of view of the first camera, in degrees."""
    return math.degrees(2 * math.atan(float(camera.sizes[0, 1]) / 2 / float(camera.intrinsics[0, 1, 1])))


def with_size(path: KeyPath, size: tuple[int, int]) -> KeyPath:
    """The path for pictures of another ``size`` (width, height): views scaled to cover it, cropped in the centre."""
    return replace(path, keys=path.keys.covering(*size)[0], size=size) if len(path) else empty_path(size)


def added(path: KeyPath, camera: Cameras) -> KeyPath:
    """The path with another key after the last, one window later."""
    frame = path.frames[-1] + STEP if path.frames else 0
    _check_count(frame + 1)
    return replace(path, keys=Cameras.concatenate([path.keys, camera]), frames=(*path.frames, frame))


def changed(path: KeyPath, index: int, camera: Cameras) -> KeyPath:
    """The path with another camera as key ``index``."""
    _check_key(path, index)
    return replace(path, keys=Cameras.concatenate([path.keys[:index], camera, path.keys[index + 1 :]]))


def removed(path: KeyPath, index: int) -> KeyPath:
    """The path without key ``index``; it begins at frame 0 again."""
    _check_key(path, index)
    return _ordered(path, [i for i in range(len(path)) if i != index], path.frames)


def retimed(path: KeyPath, index: int, frame: int) -> tuple[KeyPath, int]:
    """Key ``index`` at another frame, which may put it before or after others.

    Returns:
        The path, which begins at frame 0 again, and the number that the key has now.

    Raises:
        UserError: another key is there, or the path would be too long.
    """
    _check_key(path, index)
    _check_count(frame + 1)
    frames = [frame if i == index else f for i, f in enumerate(path.frames)]
    if frames.count(frame) > 1:
        raise UserError(f"another key is at frame {frame} already")
    order = sorted(range(len(frames)), key=frames.__getitem__)
    return _ordered(path, order, frames), order.index(index)


def swapped(path: KeyPath, index: int, other: int) -> KeyPath:
    """The path with two keys in each other's place; the frames stay."""
    _check_key(path, index)
    _check_key(path, other)
    order = list(range(len(path)))
    order[index], order[other] = other, index
    return replace(path, keys=path.keys[order])


def with_count(path: KeyPath, count: int) -> KeyPath:
    """The path with ``count`` frames in all, the keys spread as before: more frames make a slower walk.

    Raises:
        UserError: fewer frames than keys, or too many.
    """
    if len(path) < 2:
        return path
    _check_count(count)
    if count < len(path):
        raise UserError(f"{count} frames cannot pass through {len(path)} keys")
    return replace(path, frames=_spread([f / (path.count - 1) for f in path.frames], count))


def at_even_speed(path: KeyPath) -> KeyPath:
    """The path with its keys spread over its frames so that the camera moves and turns evenly.

    The way between two keys is the share of the whole path that it moves plus the share that it turns.
    """
    if len(path) < 3:
        return path
    moved = (path.keys.centers[1:] - path.keys.centers[:-1]).norm(dim=1)
    rotation = path.keys.world_from_camera[:, :3, :3]
    turned = rotation_angles(rotation[:-1], rotation[1:])
    way = sum(part / part.sum() for part in (moved, turned) if float(part.sum()) > 1e-9)
    if not isinstance(way, Tensor):
        return path
    shares = torch.cat([torch.zeros(1, dtype=torch.float64), (way / way.sum()).cumsum(0)]).tolist()
    return replace(path, frames=_spread(shares, path.count))


def with_fov(path: KeyPath, fov: float, index: int | None = None) -> KeyPath:
    """Key ``index``, or all keys, with another vertical field of view in degrees; principal points stay.

    Raises:
        UserError: no such key, or a field of view outside 5..120 degrees.
    """
    if index is not None:
        _check_key(path, index)
    focal = _focal(fov, path.size[1])
    intrinsics = path.keys.intrinsics.clone()
    chosen = slice(None) if index is None else slice(index, index + 1)
    intrinsics[chosen, 0, 0] *= focal / intrinsics[chosen, 1, 1]
    intrinsics[chosen, 1, 1] = focal
    return replace(path, keys=Cameras(path.keys.world_from_camera, intrinsics, path.keys.sizes))


def preset(name: str, scene: Scene, size: tuple[int, int]) -> KeyPath:
    """A path of `fvgen.cameras.paths` by some of its cameras, to start from.

    ``through`` has the photos' cameras as its keys and is exactly `path_through`; the others follow theirs closely.

    Raises:
        UserError: no such name, or a path that this scene cannot have.
    """
    if name == "through":
        path = path_through(scene.cameras, STEP + 1, size)
        frames = [i for i, photo in enumerate(path.photo) if photo is not None]
    elif name in _CURVES:
        make, count, keys = _CURVES[name]
        path = make(scene.cameras, scene.points.positions, frames=count, size=size)
        frames = [round(k * (count - 1) / (keys - 1)) for k in range(keys)]
    else:
        raise UserError(f"there is no path '{name}': choose one of {', '.join(PRESETS)}")
    return KeyPath(path.cameras[frames], tuple(frames), size)


def _spread(shares: Sequence[float], count: int) -> tuple[int, ...]:
    """Frames of ascending ``shares`` 0..1 of a path of ``count`` frames, at least one apart."""
    frames = [round(share * (count - 1)) for share in shares]
    for i in range(1, len(frames)):
        frames[i] = max(frames[i], frames[i - 1] + 1)
    for i in reversed(range(len(frames))):
        frames[i] = min(frames[i], count - len(frames) + i)
    return tuple(frames)


def _ordered(path: KeyPath, order: list[int], frames: Sequence[int]) -> KeyPath:
    """Some keys in another order and at other frames, from frame 0 on."""
    return replace(path, keys=path.keys[order], frames=tuple(frames[i] - frames[order[0]] for i in order))


def _check_key(path: KeyPath, index: int) -> None:
    if not 0 <= index < len(path):
        raise UserError("there is no such key frame: add one first" if len(path) == 0 else f"there is no key {index}")


def _check_count(count: int) -> None:
    if not 1 <= count <= MOST_FRAMES:
        raise UserError(f"{count} frames: a path has 2 to {MOST_FRAMES}")


_KEYS = "key_frames"


def save_path(path: KeyPath, file: Path) -> None:
    """Write the path as a transforms.json: one camera per frame, and which frames are keys.

    Raises:
        UserError: fewer than two keys.
    """
    cameras = path.cameras()
    names = [f"images/{i:05d}.png" for i in range(len(cameras))]
    write_transforms_json(file, cameras, names, extra={_KEYS: list(path.frames)})


def load_path(file: Path, size: tuple[int, int], default: Cameras) -> KeyPath:
    """Read a path file. Where it does not come from here, or was changed since, every frame becomes a key.

    Args:
        file: a transforms.json.
        size: (width, height) of the pictures: views are scaled to cover it and cropped in the centre.
        default: whose size and intrinsics frames get that have none.

    Raises:
        UserError: see `fvgen.scene.formats.transforms_json.read_camera_path`; or too many frames.
    """
    cameras = read_camera_path(file, default.size, default.intrinsics[0]).covering(*size)[0]
    _check_count(len(cameras))
    keys = json.loads(file.read_text(encoding="utf-8-sig")).get(_KEYS)
    whole = isinstance(keys, list) and len(keys) > 1 and all(type(f) is int for f in keys)
    if whole and [keys[0], keys[-1]] == [0, len(cameras) - 1] and all(a < b for a, b in pairwise(keys)):
        path = KeyPath(cameras[keys], tuple(keys), size)
        again = path.cameras()
        turned = (again.world_from_camera - cameras.world_from_camera)[:, :3, :3].abs().max()
        moved = (again.centers - cameras.centers).abs().max()
        extent = (cameras.centers - cameras.centers[0]).abs().max()
        if turned < 1e-6 and moved <= 1e-6 * extent and (again.intrinsics - cameras.intrinsics).abs().max() < 1e-6:
            return path
    return KeyPath(cameras, tuple(range(len(cameras))), size)

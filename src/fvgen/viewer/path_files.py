"""Drawn paths as files that ``fvgen generate --path`` takes."""

import json
from pathlib import Path

from fvgen.cameras import Cameras
from fvgen.scene.formats.transforms_json import read_camera_path, write_transforms_json
from fvgen.viewer.keyframes import KeyPath, check_count

_KEYS = "key_frames"


def save_path(path: KeyPath, file: Path) -> None:
    """Write the path as ``fvgen generate --path`` takes it: one camera per frame, and which frames are keys.

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
    check_count(len(cameras))
    frames = _listed_keys(file, len(cameras))
    if frames is not None:
        path = KeyPath(cameras[frames], tuple(frames), size)
        again = path.cameras()
        close = (again.world_from_camera - cameras.world_from_camera).abs().max() < 1e-6
        if close and (again.intrinsics - cameras.intrinsics).abs().max() < 1e-6:
            return path
    return KeyPath(cameras, tuple(range(len(cameras))), size)


def _listed_keys(file: Path, count: int) -> list[int] | None:
    """The frames that the file calls keys, if they can be."""
    listed = json.loads(file.read_text(encoding="utf-8-sig")).get(_KEYS)
    if not isinstance(listed, list) or len(listed) < 2 or any(type(f) is not int for f in listed):
        return None
    right = listed[0] == 0 and listed[-1] == count - 1 and all(a < b for a, b in zip(listed, listed[1:]))
    return listed if right else None

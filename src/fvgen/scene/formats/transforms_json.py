"""``transforms.json``, the cameras of nerfstudio, instant-ngp and Blender.

The file has OpenGL axes (x right, y up, z back), camera to world; we have OpenCV axes, so columns y and z change
sign. Pixel centres are at .5 in the file as in this program. ``applied_transform`` and the like describe how the
file's world came about; cameras stay in the file's world.
"""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.errors import UserError
from fvgen.scene.formats.lens import Lens
from fvgen.scene.formats.record import CameraRecord, checked_rigid, image_inside, natural_key, printable

_FLIP = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
_PERSPECTIVE = {"OPENCV", "FULL_OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE"}
_FISHEYE = {"OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE"}
_LARGEST = 1e9
_NO_DISTORTION = {"k1": 0.0, "k2": 0.0, "p1": 0.0, "p2": 0.0}
_COEFFICIENTS = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
_ANGLES = ("camera_angle_x", "camera_angle_y")
_INTRINSICS = ("w", "h", "fl_x", "fl_y", *_ANGLES)
_ABOVE_ZERO = (*_INTRINSICS, "fov", "default_fov", "render_width", "render_height")


def write_transforms_json(
    path: str | Path,
    cameras: Cameras,
    file_paths: list[str],
    extra_per_frame: list[dict[str, Any]] | None = None,
    extra: dict[str, Any] | None = None,
) -> None:
    """Write cameras in nerfstudio's layout; floats round-trip exactly.

    Each frame carries its own intrinsics; where all cameras share them they also stand at the top, where older
    readers look.

    Args:
        path: the file to write.
        cameras: ``N`` cameras.
        file_paths: ``N`` image paths relative to the file's folder.
        extra_per_frame: ``N`` dictionaries of further keys, such as ``{"source": "photo"}``.
        extra: further keys at the top, such as ``{"ply_file_path": "points.ply"}``.
    """
    if len(file_paths) != len(cameras) or (extra_per_frame is not None and len(extra_per_frame) != len(cameras)):
        raise ValueError(f"{len(cameras)} cameras need as many file paths and extras")
    blocks: list[dict[str, Any]] = [
        {"fl_x": k[0][0], "fl_y": k[1][1], "cx": k[0][2], "cy": k[1][2], "w": width, "h": height, **_NO_DISTORTION}
        for k, (width, height) in zip(cameras.intrinsics.tolist(), cameras.sizes.tolist())
    ]
    top: dict[str, Any] = {"camera_model": "OPENCV", **(extra or {})}
    if blocks and all(b == blocks[0] for b in blocks):
        top |= blocks[0]
    frames = []
    for i, matrix in enumerate((cameras.world_from_camera @ _FLIP).tolist()):
        own = extra_per_frame[i] if extra_per_frame else {}
        frames.append({"file_path": file_paths[i], **blocks[i], **own, "transform_matrix": matrix})
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in top.items()]
    body = ",\n".join(f"    {json.dumps(frame)}" for frame in frames)
    text = "{\n" + "\n".join(lines) + '\n  "frames": [\n' + body + "\n  ]\n}\n"
    Path(path).write_text(text, encoding="utf-8")


def read_transforms_json(path: str | Path) -> tuple[Cameras, list[dict[str, Any]]]:
    """Read the cameras of a ``transforms.json`` without touching its images' pixels.

    Args:
        path: the file.

    Returns:
        ``N`` cameras, see `in_order`, at the sizes that the file claims (distortion, if any, is not in them), and the
        ``N`` frame records as written, for keys such as ``file_path`` or ``source``.

    Raises:
        UserError: see `read_records`; also where the file tells no size and the image is not there to ask.
    """
    path = Path(path)
    records = in_order(read_records(path))
    for i, record in enumerate(records):
        if record.size is None and record.file_path is not None:
            from fvgen.scene.formats.images import image_size

            records[i] = record.with_size(image_size(image_inside(path.parent, record.file_path, record.where)))
    return pinhole_cameras(records), [record.raw for record in records]


def read_camera_path(
    path: str | Path, default_size: tuple[int, int] | None = None, default_intrinsics: Tensor | None = None
) -> Cameras:
    """Read a camera path: a ``transforms.json`` whose images need not exist, or what nerfstudio's viewer saves as
    ``camera_path.json``; two frames at least.

    Views are rendered by pinhole cameras, so distortion in the file is ignored.

    Args:
        path: the file, in the world of the scene.
        default_size: (width, height) for frames without ``w`` and ``h``.
        default_intrinsics: ``[3, 3]`` at ``default_size`` for frames without a focal length; a frame with a size
            of its own gets them scaled, covering its width.

    Raises:
        UserError: see `read_records`; also for fewer than two frames, or where a value is missing with no default.
    """
    path = Path(path)
    top = _load(path)
    records = _viewer_records(path, top, default_size) if "camera_path" in top else _records(path, top)
    if len(records) < 2:
        raise UserError(f"{path}: a camera path needs at least two frames, this one has {len(records)}")
    if default_size is not None:
        records = [_with_defaults(record, default_size, default_intrinsics) for record in records]
    return pinhole_cameras(records)


def read_records(path: str | Path) -> list[CameraRecord]:
    """The frames of a ``transforms.json``, each with the intrinsics that apply to it, in the file's order.

    Raises:
        UserError: invalid JSON, no frames, a camera model we cannot undo, NaN or non-rigid matrices, or
            intrinsics that are no positive numbers.
    """
    return _records(Path(path), _load(Path(path)))


def _records(path: Path, top: dict[str, Any]) -> list[CameraRecord]:
    frames = top.get("frames")
    if "keyframes" in top and not frames:
        raise UserError(f'{path}: only keyframes, no "camera_path" between them; save the path from the viewer again')
    if not isinstance(frames, list) or not frames:
        raise UserError(f'{path}: no frames; a transforms.json lists its cameras under "frames"')
    shared = {key: value for key, value in top.items() if key != "frames"}
    records = []
    for i, frame in enumerate(frames):
        if not isinstance(frame, dict):
            raise UserError(f"{path}, frame {i}: expected an object with file_path and transform_matrix")
        if "mask_path" in shared:  # one of all frames, such as of the car that carries the camera
            frame = {"mask_path": shared["mask_path"], **frame}
        records.append(_record({**shared, **frame}, frame, f"{path}, frame {i}"))
    return records


def _viewer_records(path: Path, top: dict[str, Any], default_size: tuple[int, int] | None) -> list[CameraRecord]:
    """The cameras of nerfstudio's ``camera_path``: 16 numbers row by row, and a vertical field of view in degrees.

    A camera without one has the path's ``default_fov``.
    """
    kind = top.get("camera_type") or "perspective"
    if not isinstance(kind, str) or kind.lower() != "perspective":
        raise UserError(f"{path}: its camera_type is {str(kind)[:40]}; only perspective cameras can be followed")
    cameras = top["camera_path"]
    if not isinstance(cameras, list) or not all(isinstance(camera, dict) for camera in cameras):
        raise UserError(f'{path}: "camera_path" must be a list of cameras')
    width, height = (_number(top, key, str(path)) for key in ("render_width", "render_height"))
    if (width is None) != (height is None):
        raise UserError(f"{path}: render_width and render_height come together")
    if width is None and default_size is not None:
        width, height = default_size
    size = {} if width is None else {"w": width, "h": height}
    usual = _number(top, "default_fov", str(path))
    fovs = [_number(camera, "fov", f"{path}, camera {i}") or usual for i, camera in enumerate(cameras)]
    records = []
    for i, (camera, fov) in enumerate(zip(cameras, fovs)):
        where, numbers = f"{path}, camera {i}", camera.get("camera_to_world")
        if isinstance(numbers, list) and len(numbers) == 16:
            numbers = [numbers[row : row + 4] for row in range(0, 16, 4)]
        frame = {**size, "transform_matrix": numbers}
        if fov is None and any(fovs):
            raise UserError(f"{where}: no fov, though other cameras have one")
        if fov is not None:
            if fov >= 180:
                raise UserError(f"{where}: fov is in degrees, below 180; got {fov:g}")
            if height is None:
                raise UserError(f"{where}: fov needs render_width and render_height")
            frame["fl_y"] = 0.5 * height / math.tan(math.radians(fov) / 2)
        records.append(_record(frame, frame, where))
    return records


def in_order(records: list[CameraRecord]) -> list[CameraRecord]:
    """Frames in the natural order of their names, as tools write them in any.

    A number ``order`` comes before names: what fvgen wrote has it, as the user's order need not be that of names.
    """

    def key(record: CameraRecord) -> tuple[float, Any]:
        order = record.raw.get("order")
        return order if isinstance(order, int | float) else 0, natural_key(record.file_path or "")

    return sorted(records, key=key)


def _load(path: Path) -> dict[str, Any]:
    try:
        top = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not valid JSON ({error.msg}, line {error.lineno})") from None
    except (ValueError, RecursionError):  # not UTF-8, a number of thousands of digits, thousands of brackets
        raise UserError(f"{path}: not a JSON file") from None
    if not isinstance(top, dict):
        raise UserError(f'{path}: expected a JSON object with "frames"')
    return top


def _record(values: dict[str, Any], frame: dict[str, Any], where: str) -> CameraRecord:
    """One frame; ``values`` are the top level's keys overridden by the frame's own."""
    file_path = frame.get("file_path")
    if file_path is not None and (not isinstance(file_path, str) or not file_path):
        raise UserError(f"{where}: file_path must be a name")
    if file_path:
        where = f"{where} ({printable(file_path)})"
    number = {key: _number(values, key, where) for key in _COEFFICIENTS + _INTRINSICS + ("cx", "cy")}
    for key in _ANGLES:
        if (number[key] or 0) >= math.pi:
            raise UserError(f"{where}: camera_angle is in radians, below pi; got {number[key]:g}")
    for first, second in (("w", "h"), ("cx", "cy")):
        if (number[first] is None) != (number[second] is None):
            raise UserError(f"{where}: {first} and {second} come together")
    w, h, cx, cy = (number[key] for key in ("w", "h", "cx", "cy"))
    fl_x, fl_y = number["fl_x"] or number["fl_y"], number["fl_y"] or number["fl_x"]
    angle_x, angle_y = (number[key] for key in _ANGLES)
    return CameraRecord(
        where=where,
        file_path=file_path,
        world_from_camera=checked_rigid(_matrix(frame, where), where) @ _FLIP,
        focal=None if fl_x is None or fl_y is None else (fl_x, fl_y),
        center=None if cx is None or cy is None else (cx, cy),
        angle=None if angle_x is None else (angle_x, angle_y),
        size=None if w is None or h is None else (round(w), round(h)),
        lens=_lens(values, {key: number[key] or 0.0 for key in _COEFFICIENTS}, where),
        raw=frame,
    )


def _number(values: dict[str, Any], key: str, where: str) -> float | None:
    value = values.get(key)
    if value is None:
        return None
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    if not usable or not abs(value) < _LARGEST:  # NaN compares false
        raise UserError(f"{where}: {key} must be a finite number, got {_shown(value)}")
    if key in _ABOVE_ZERO and value <= 0:
        raise UserError(f"{where}: {key} must be positive, got {float(value):g}")
    return float(value)


def _shown(value: Any) -> str:
    """What a file has in a number's place; quotes tell a text."""
    return printable(repr(value)[:40]) + (" (a text: write it without quotes)" if isinstance(value, str) else "")


def _matrix(frame: dict[str, Any], where: str) -> Tensor:
    """The ``transform_matrix`` as ``[4, 4]``; 3x4 is completed."""
    try:
        matrix = torch.tensor(frame.get("transform_matrix"), dtype=torch.float64)
        if tuple(matrix.shape) == (3, 4):
            matrix = torch.cat([matrix, torch.tensor([[0, 0, 0, 1]], dtype=torch.float64)])
        if tuple(matrix.shape) != (4, 4):
            raise ValueError(matrix.shape)
        return matrix
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise UserError(f"{where}: its matrix must be 4 rows of 4 numbers") from None


def _lens(values: dict[str, Any], k: dict[str, float], where: str) -> Lens:
    model = values.get("camera_model") or ("OPENCV_FISHEYE" if values.get("is_fisheye") else "OPENCV")
    if not isinstance(model, str) or model not in _PERSPECTIVE | _FISHEYE:
        shown = printable(repr(model)[:40])
        raise UserError(f"{where}: camera_model {shown} is not supported; undistort the images to a pinhole camera")
    if model in _FISHEYE:
        return Lens(radial=(k["k1"], k["k2"], k["k3"], k["k4"]), fisheye=True)
    # Plain OPENCV files often carry a k4 of 0 for fisheye readers; only the full model has a denominator.
    rational = (k["k4"], k["k5"], k["k6"]) if model == "FULL_OPENCV" else ()
    return Lens(radial=(k["k1"], k["k2"], k["k3"], *rational), tangential=(k["p1"], k["p2"]))


def _with_defaults(record: CameraRecord, size: tuple[int, int], intrinsics: Tensor | None) -> CameraRecord:
    sized = record.with_size(size)
    if sized.focal or sized.angle or intrinsics is None or sized.size is None:
        return sized
    scale = sized.size[0] / size[0]
    middle = (scale * (float(intrinsics[0, 2]) - size[0] / 2), scale * (float(intrinsics[1, 2]) - size[1] / 2))
    center = sized.center or (sized.size[0] / 2 + middle[0], sized.size[1] / 2 + middle[1])
    return replace(sized, focal=(scale * float(intrinsics[0, 0]), scale * float(intrinsics[1, 1])), center=center)


def pinhole_cameras(records: list[CameraRecord]) -> Cameras:
    """The cameras of records that tell their sizes, without their distortion.

    Raises:
        UserError: one of them has no size or no focal length.
    """
    return Cameras(
        torch.stack([r.world_from_camera for r in records]),
        torch.stack([r.intrinsics() for r in records]),
        torch.tensor([r.size for r in records]),
    )

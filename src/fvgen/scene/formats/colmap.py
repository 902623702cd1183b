"""COLMAP models: ``cameras``, ``images`` and ``points3D`` as ``.bin`` or ``.txt``.

World to camera, OpenCV axes, quaternions ``w x y z``, pixel centres at .5. Newer versions add ``rigs`` and
``frames``; poses of images stand in ``images`` all the same, so they are neither needed nor written. The files are read
here, not by pycolmap, which has been seen to abort in a process with other image libraries, and aborts on damaged ones.
Format: https://colmap.github.io/format.html
"""

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.errors import UserError
from fvgen.scene.formats.lens import Lens
from fvgen.scene.formats.record import CameraRecord, checked_rigid, natural_key, printable

_PINHOLE = 1


def _radial(k: tuple[float, ...]) -> Lens:
    return Lens(radial=k)


def _brown(k: tuple[float, ...]) -> Lens:
    return Lens(radial=k[:2] + k[4:], tangential=(k[2], k[3]))


def _fisheye(k: tuple[float, ...]) -> Lens:
    return Lens(radial=k, fisheye=True)


@dataclass(frozen=True)
class _Model:
    """A camera model: the numbers of its parameters and focal lengths, and its lens where that can be undone."""

    name: str
    parameters: int
    focals: int
    lens: Callable[[tuple[float, ...]], Lens] | None = None


_UNDISTORT = "run colmap image_undistorter first, which makes photos of a pinhole camera, and name its output"
_NUMBERED = (  # in the order of their numbers in binary files
    _Model("SIMPLE_PINHOLE", 3, 1, _radial),
    _Model("PINHOLE", 4, 2, _radial),
    _Model("SIMPLE_RADIAL", 4, 1, _radial),
    _Model("RADIAL", 5, 1, _radial),
    _Model("OPENCV", 8, 2, _brown),
    _Model("OPENCV_FISHEYE", 8, 2, _fisheye),
    _Model("FULL_OPENCV", 12, 2, _brown),
    _Model("FOV", 5, 2),
    _Model("SIMPLE_RADIAL_FISHEYE", 4, 1, _fisheye),
    _Model("RADIAL_FISHEYE", 5, 1, _fisheye),
    _Model("THIN_PRISM_FISHEYE", 12, 2),
    _Model("RAD_TAN_THIN_PRISM_FISHEYE", 16, 2),
    _Model("SIMPLE_DIVISION", 4, 1),
    _Model("DIVISION", 5, 2),
    _Model("SIMPLE_FISHEYE", 3, 1, _fisheye),
    _Model("FISHEYE", 4, 2, _fisheye),
    _Model("EUCM", 6, 2),
    _Model("EQUIRECTANGULAR", 2, 0),
)
_MODELS = dict(enumerate(_NUMBERED))


@dataclass(frozen=True)
class _Camera:
    model: _Model
    size: tuple[int, int]
    parameters: tuple[float, ...]


def colmap_models(folder: str | Path) -> list[Path]:
    """Folders with ``cameras.bin`` or ``.txt`` in or below a COLMAP workspace, that with most photos first.

    They are the folder itself or, where it is none, those in ``sparse`` with ``sparse`` itself, the same of
    ``colmap/sparse`` (nerfstudio's place), or the numbered ones of the folder. COLMAP writes several where it
    cannot join all photos in one; of equally large ones the numbered come first.
    """
    folder = Path(folder)
    sparse, nested = folder / "sparse", folder / "colmap" / "sparse"
    numbered = [path for path in _inside(folder) if path.name.isdecimal()]
    for candidates in ([folder], [*_inside(sparse), sparse], [*_inside(nested), nested], numbered):
        models = [path for path in candidates if _is_model(path)]
        if models:
            return models if len(models) == 1 else sorted(models, key=count_posed, reverse=True)
    return []


def colmap_model_folder(folder: str | Path) -> Path | None:
    """The first of `colmap_models`, ``None`` where there is none."""
    return next(iter(colmap_models(folder)), None)


def _inside(folder: Path) -> list[Path]:
    """What a folder holds, numbers first."""
    inside = folder.iterdir() if folder.is_dir() else ()
    return sorted(inside, key=lambda path: (not path.name.isdecimal(), natural_key(path.name)))


def _is_model(folder: Path) -> bool:
    return any((folder / f"cameras{suffix}").is_file() for suffix in (".bin", ".txt"))


def count_posed(model: Path) -> int:
    """Photos with a pose in a model, 0 where its file cannot be read: what is wrong with it is said elsewhere."""
    try:
        path = _file(model, "images")
        if path.suffix == ".txt":
            return sum(1 for _ in _images_txt(path))
        with open(path, "rb") as file:
            return _unpack(file, "Q")[0]
    except (UserError, OSError, struct.error, ValueError):
        return 0


def colmap_image_folder(model: str | Path) -> Path:
    """Where the images of a model lie: ``images`` beside ``sparse``, or beside or in the model's folder.

    Raises:
        UserError: if there is no such folder.
    """
    model = Path(model)
    here = model.absolute()
    linked = model.resolve()  # "sparse" may be a link to where the photos are too
    for base in (*_around(here), *_around(linked)):
        for name in ("images", "images_2", "images_4", "images_8"):
            if (base / name).is_dir():
                return base / name
    raise UserError(
        f"{model}: no images folder beside this COLMAP model; put the photos into {_around(here)[-1] / 'images'}"
    )


def colmap_mask(images: Path, name: str) -> Path | None:
    """The mask of an image, in ``masks`` beside the folder of ``images``: ``a/b.jpg.png`` for ``a/b.jpg``, as COLMAP
    names it, or ``a/b.png``; ``None`` where there is none."""
    relative = Path(name.replace("\\", "/"))
    candidates = (images.parent / "masks" / path for path in (f"{relative}.png", relative.with_suffix(".png")))
    return next((path for path in candidates if path.is_file()), None)


def _around(model: Path) -> list[Path]:
    """Folders that may hold the images of a model, last that where they belong."""
    workspace = model
    for folder in (model, model.parent):
        if folder.name == "sparse":
            workspace = folder.parent.parent if folder.parent.name == "colmap" else folder.parent
    return [model, model.parent, model.parent.parent, workspace]


def read_colmap(model: str | Path) -> list[CameraRecord]:
    """The posed images of a COLMAP model folder, in the file's order; ``.bin`` wins over ``.txt``.

    Raises:
        UserError: files missing or damaged, no images, or a camera model that is unknown or that we cannot undo.
    """
    model = Path(model)
    cameras, images = _file(model, "cameras"), _file(model, "images")
    try:
        known = _cameras_bin(cameras) if cameras.suffix == ".bin" else _cameras_txt(cameras)
        posed = list(_images_bin(images) if images.suffix == ".bin" else _images_txt(images))
    except (struct.error, ValueError, KeyError, IndexError, OverflowError):
        raise UserError(f"{model}: damaged COLMAP model (or of an unknown version); export it again") from None
    if not posed:
        raise UserError(f"{images}: no image has a pose")
    return [_record(name, camera, pose, known, f"{images} ({printable(name)})") for name, camera, pose in posed]


def write_colmap(folder: str | Path, cameras: Cameras, names: list[str], positions: Tensor, colors: Tensor) -> None:
    """Write ``cameras.bin``, ``images.bin`` and ``points3D.bin`` (PINHOLE) into ``folder``, which must exist.

    Images that share intrinsics share a COLMAP camera. The points are dense, not tracked features: they carry no
    tracks, and images no 2D points.

    Args:
        folder: usually ``OUT/sparse/0``.
        cameras: ``N`` cameras.
        names: ``N`` image names, relative to the images folder.
        positions: ``[P, 3]``.
        colors: ``[P, 3]`` uint8.
    """
    if len(names) != len(cameras) or len(set(names)) != len(names):
        raise ValueError(f"{len(cameras)} cameras need as many names, each once")
    folder = Path(folder)
    ids: dict[tuple[int, int, tuple[float, ...]], int] = {}
    images = [struct.pack("<Q", len(cameras))]
    for i, name in enumerate(names):
        (fx, _, cx), (_, fy, cy), _ = cameras.intrinsics[i].tolist()
        width, height = cameras.sizes[i].tolist()
        camera = ids.setdefault((width, height, (fx, fy, cx, cy)), len(ids) + 1)
        quaternion = quaternion_from_rotation(cameras.world_from_camera[i, :3, :3].T)
        shift = -rotation_from_quaternion(quaternion) @ cameras.centers[i]  # exact also far from the world's origin
        images.append(struct.pack("<I7dI", i + 1, *quaternion.tolist(), *shift.tolist(), camera))
        images.append(name.encode("utf-8") + b"\0" + struct.pack("<Q", 0))
    blocks = [struct.pack("<IiQQ4d", number, _PINHOLE, w, h, *k) for (w, h, k), number in ids.items()]
    (folder / "cameras.bin").write_bytes(struct.pack("<Q", len(ids)) + b"".join(blocks))
    (folder / "images.bin").write_bytes(b"".join(images))
    layout = [("id", "<u8"), ("position", "<f8", 3), ("color", "u1", 3), ("error", "<f8"), ("track", "<u8")]
    points = np.zeros(len(positions), dtype=np.dtype(layout))
    points["id"] = np.arange(1, len(positions) + 1)
    points["position"] = positions.detach().cpu().double().numpy()
    points["color"] = colors.cpu().numpy()
    with open(folder / "points3D.bin", "wb") as file:
        file.write(struct.pack("<Q", len(points)))
        file.write(points.tobytes())


def rotation_from_quaternion(quaternion: Tensor) -> Tensor:
    """The rotation ``[3, 3]`` of a Hamilton quaternion ``[4]`` ``(w, x, y, z)`` of any positive length."""
    w, x, y, z = (quaternion / quaternion.norm()).tolist()
    return torch.tensor(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ],
        dtype=torch.float64,
    )


def quaternion_from_rotation(rotation: Tensor) -> Tensor:
    """The quaternion ``[4]`` ``(w, x, y, z)``, ``w >= 0``, of a rotation ``[3, 3]``.

    It is the eigenvector of the largest eigenvalue of a symmetric 4x4 matrix (Bar-Itzhack 2000), stable at every
    angle.
    """
    (a, b, c), (d, e, f), (g, h, i) = rotation.double().tolist()
    k = torch.tensor(
        [
            [a + e + i, h - f, c - g, d - b],
            [h - f, a - e - i, b + d, c + g],
            [c - g, b + d, e - a - i, f + h],
            [d - b, c + g, f + h, i - a - e],
        ],
        dtype=torch.float64,
    )
    quaternion = torch.linalg.eigh(k).eigenvectors[:, -1]
    return quaternion if quaternion[0] >= 0 else -quaternion


def _record(
    name: str, camera_id: int, pose: tuple[float, ...], cameras: dict[int, _Camera], where: str
) -> CameraRecord:
    camera = cameras.get(camera_id)
    if camera is None:
        raise UserError(f"{where}: its camera {camera_id} is not in the cameras file; export the model again")
    if camera.model.name == "EQUIRECTANGULAR":
        raise UserError(f"{where}: a panorama (EQUIRECTANGULAR); cut it into photos of pinhole cameras and place those")
    if camera.model.lens is None:
        raise UserError(f"{where}: camera model {camera.model.name} is not supported; {_UNDISTORT}")
    quaternion = torch.tensor(pose[:4], dtype=torch.float64)
    n = camera.model.focals
    numbers = torch.tensor((*pose, *camera.parameters))
    if not bool(numbers.isfinite().all()) or not float(quaternion.norm()) > 0 or min(camera.parameters[:n]) <= 0:
        raise UserError(f"{where}: its pose or focal length is not a usable number; export the model again")
    camera_from_world = torch.eye(4, dtype=torch.float64)
    camera_from_world[:3, :3] = rotation_from_quaternion(quaternion)
    camera_from_world[:3, 3] = torch.tensor(pose[4:], dtype=torch.float64)
    cx, cy = camera.parameters[n : n + 2]
    return CameraRecord(
        where=where,
        file_path=name,
        world_from_camera=checked_rigid(torch.linalg.inv(camera_from_world), where),
        focal=(camera.parameters[0], camera.parameters[n - 1]),
        center=(cx, cy),
        size=camera.size,
        lens=camera.model.lens(camera.parameters[n + 2 :]),
    )


def _file(model: Path, name: str) -> Path:
    for suffix in (".bin", ".txt"):
        if (model / f"{name}{suffix}").is_file():
            return model / f"{name}{suffix}"
    raise UserError(f"{model}: a COLMAP model needs {name}.bin or {name}.txt")


def _unpack(file: BinaryIO, layout: str) -> tuple:
    return struct.unpack("<" + layout, file.read(struct.calcsize("<" + layout)))


def _cameras_bin(path: Path) -> dict[int, _Camera]:
    cameras = {}
    with open(path, "rb") as file:
        for _ in range(_unpack(file, "Q")[0]):
            number, model, width, height = _unpack(file, "IiQQ")
            if model not in _MODELS and 0 <= model < 1000:  # nor is it known how many numbers follow
                raise UserError(f"{path}: camera model {model} is not supported; {_UNDISTORT}")
            cameras[number] = _Camera(_MODELS[model], (width, height), _unpack(file, f"{_MODELS[model].parameters}d"))
    return cameras


def _cameras_txt(path: Path) -> dict[int, _Camera]:
    by_name = {model.name: model for model in _NUMBERED}
    cameras = {}
    for line in _lines(path):
        if not line.strip():
            continue
        number, name, width, height, *parameters = line.split()
        if name not in by_name and name.replace("_", "").isalnum() and not name.isdecimal():
            raise UserError(f"{path}: camera model {printable(name)} is not supported; {_UNDISTORT}")
        if len(parameters) != by_name[name].parameters:
            raise ValueError(f"{name} has {by_name[name].parameters} parameters")
        cameras[int(number)] = _Camera(by_name[name], (int(width), int(height)), tuple(map(float, parameters)))
    return cameras


def _images_bin(path: Path) -> Iterator[tuple[str, int, tuple[float, ...]]]:
    with open(path, "rb") as file:
        for _ in range(_unpack(file, "Q")[0]):
            _, *pose, camera = _unpack(file, "I7dI")
            name = bytearray()
            while (character := _unpack(file, "c")[0]) != b"\0":
                name += character
            file.seek(24 * _unpack(file, "Q")[0], 1)
            yield name.decode("utf-8", "surrogateescape"), camera, tuple(pose)


def _images_txt(path: Path) -> Iterator[tuple[str, int, tuple[float, ...]]]:
    """Each image has a second line with its 2D points, which may be empty, and which some programs leave out."""
    after_image = False
    for line in _lines(path):
        if not line.strip() or (after_image and _are_points(line)):
            after_image = False
            continue
        _, *pose, camera, name = line.split(maxsplit=9)
        yield name.strip(), int(camera), tuple(map(float, pose))
        after_image = True


def _are_points(line: str) -> bool:
    """Whether a line holds x, y and a number for each of some points; an image's line ends with a name."""
    words = line.split()
    try:
        return len(words) % 3 == 0 and bool([float(word) for word in words])
    except ValueError:
        return False


def _lines(path: Path) -> list[str]:
    """Lines of a text file but comments; names are those of the disk, in whatever encoding."""
    text = path.read_bytes().decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    return [line for line in re.split(r"\r\n|\n|\r", text) if not line.startswith("#")]

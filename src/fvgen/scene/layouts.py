"""How data sets lay out their files: each layout finds the scenes in a folder, or nothing."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fvgen.errors import UserError
from fvgen.scene.formats.colmap import colmap_image_folder, colmap_model_folder, read_colmap
from fvgen.scene.formats.images import PHOTO_SUFFIXES, image_size
from fvgen.scene.formats.record import CameraRecord, checked_rigid, image_inside
from fvgen.scene.formats.transforms_json import read_records
from fvgen.scene.photos import natural_key

MIPNERF360 = {
    **dict.fromkeys(("bonsai", "counter", "kitchen", "room"), 2),
    **dict.fromkeys(("bicycle", "flowers", "garden", "stump", "treehill"), 4),
}

TANKS = (
    *("train", "truck", "family", "francis", "horse", "lighthouse", "m60", "panther", "playground", "barn"),
    *("caterpillar", "church", "courthouse", "ignatius", "meetingroom", "auditorium", "ballroom", "courtroom"),
    *("museum", "palace", "temple"),
)


@dataclass(frozen=True)
class Found:
    """One frame of a scene as its files describe it.

    Attributes:
        name: of its picture, without suffix: what frames of outside systems are matched by.
        image: the picture's file.
        record: its camera, at the size that the file claims.
        part: ``"train"`` or ``"test"`` where the layout tells them apart.
    """

    name: str
    image: Path
    record: CameraRecord
    part: str | None = None


Scenes = list[tuple[str, Path, list[Found]]]  # name, folder, frames


@dataclass(frozen=True)
class Layout:
    """A layout.

    Attributes:
        title: what tables call the data set.
        looks_for: in words, for whom nothing is found.
        find: the scenes in a folder, empty if it is not laid out so.
    """

    title: str
    looks_for: str
    find: Callable[[Path], Scenes]


def _folders(root: Path) -> Iterator[Path]:
    """The folder itself and the folders in it, in natural order."""
    yield root
    yield from sorted(
        (p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")), key=lambda p: natural_key(p.name)
    )


def _first(root: Path, scene: Callable[[Path], list[Found]]) -> Scenes:
    """The folder as one scene or, if it is none, every folder in it that is."""
    name = root.resolve().name
    own = scene(root)
    if own:
        return [(name, root, own)]
    below = [(folder, scene(folder)) for folder in list(_folders(root))[1:]]
    return [(folder.name, folder, frames) for folder, frames in below if frames]


def _told_apart(frames: list[Found]) -> list[Found]:
    """Equal names (of several cameras' folders) made unique by their folders, or else by their numbers."""
    names = [frame.name for frame in frames]
    if len(set(names)) == len(names):
        return frames
    names = [f"{frame.image.parent.name}_{frame.name}" for frame in frames]
    if len(set(names)) < len(names):
        names = [f"{i:05d}_{name}" for i, name in enumerate(names)]
    return [replace(frame, name=name) for frame, name in zip(frames, names)]


def _colmap_frames(model: Path, images: Path) -> list[Found]:
    """Posed images of a COLMAP model in the order of their names; the picture may be kept smaller than the camera."""
    frames = []
    for record in sorted(read_colmap(model), key=lambda r: r.file_path or ""):
        path = image_inside(images, record.file_path or "", record.where)
        frames.append(Found(path.stem, path, record))
    return _told_apart(frames)


def _mipnerf360(folder: Path) -> list[Found]:
    factor = MIPNERF360.get(folder.resolve().name)
    model = folder / "sparse" / "0"
    if factor is None or colmap_model_folder(model) is None:
        return []
    images = folder / f"images_{factor}"
    if not images.is_dir():
        raise UserError(f"{folder}: a scene of Mip-NeRF 360 is scored on images_{factor}, which is not there")
    return _colmap_frames(model, images)


def _tanks_3dgs(folder: Path) -> list[Found]:
    model = folder / "sparse" / "0"
    known = folder.resolve().name.lower() in TANKS
    return _colmap_frames(model, folder / "images") if known and colmap_model_folder(model) is not None else []


def _tanks_nerfpp(folder: Path) -> list[Found]:
    """NeRF++: ``{train,test}/{rgb,pose,intrinsics}``, 16 numbers per picture, OpenCV camera to world."""
    frames = []
    for part in ("train", "test"):
        pictures = folder / part / "rgb"
        if not (pictures.is_dir() and (folder / part / "pose").is_dir()):
            continue
        for path in sorted(p for p in pictures.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES):
            pose = _text_matrix(folder / part / "pose" / f"{path.stem}.txt")
            intrinsics = _text_matrix(folder / part / "intrinsics" / f"{path.stem}.txt")
            where = str(path)
            frames.append(Found(path.stem, path, _pinhole(where, checked_rigid(pose, where), intrinsics, path), part))
    names = [frame.name for frame in frames]
    if len(set(names)) == len(names):  # numbered through, so that names give the order of filming
        return sorted(frames, key=lambda f: f.name)
    return [replace(frame, name=f"{frame.part}_{frame.name}") for frame in frames]


def _text_matrix(path: Path) -> Tensor:
    try:
        numbers = [float(word) for word in path.read_text(encoding="utf-8").split()]
        return torch.tensor(numbers, dtype=torch.float64).view(4, 4)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RuntimeError):
        raise UserError(f"{path}: expected the 16 numbers of a 4x4 matrix") from None


def _tanks_fvs(folder: Path) -> list[Found]:
    """FVS: ``dense/ibr3d_pw_*/{im_*.png, Ks.npy, Rs.npy, ts.npy}``, world to camera; the largest pictures are taken."""
    places = [p.parent for base in (folder, folder / "dense") for p in base.glob("ibr3d_pw_*/Ks.npy")]
    if not places:
        return []
    place = max(places, key=lambda p: float(p.name.rsplit("_", 1)[1]))
    pictures = sorted(p for p in place.glob("im_*") if p.suffix.lower() in PHOTO_SUFFIXES)
    arrays = [_numbers(place / f"{name}.npy") for name in ("Ks", "Rs", "ts")]
    if any(len(array) != len(pictures) for array in arrays):
        counts = ", ".join(str(len(array)) for array in arrays)
        raise UserError(f"{place}: {len(pictures)} pictures im_*, but Ks, Rs and ts have {counts} entries")
    frames = []
    for path, intrinsics, rotation, translation in zip(pictures, *arrays):
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, :3], pose[:3, 3] = rotation.T, -rotation.T @ translation.reshape(3)
        frames.append(Found(path.stem, path, _pinhole(str(path), checked_rigid(pose, str(path)), intrinsics, path)))
    return frames


def _numbers(path: Path) -> Tensor:
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False)).double()
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: not an array of numbers ({error})") from None


def _pinhole(where: str, pose: Tensor, k: Tensor, image: Path) -> CameraRecord:
    """A camera whose intrinsics ``k`` refer to its picture as it is."""
    focal, center = (float(k[0, 0]), float(k[1, 1])), (float(k[0, 2]), float(k[1, 2]))
    return CameraRecord(where, None, pose, focal, center, size=image_size(image))


def _dl3dv(folder: Path) -> list[Found]:
    """DL3DV: ``transforms.json`` at the size of the film (4K) beside ``images_8`` (480x270) and ``images_4`` only."""
    for base in (folder / "nerfstudio", folder):
        sizes = [base / name for name in ("images_8", "images_4") if (base / name).is_dir()]
        if (base / "transforms.json").is_file() and sizes and not (base / "images").is_dir():
            return _json_frames(base / "transforms.json", sizes[0])
    return []


def _json_frames(path: Path, images: Path | None = None) -> list[Found]:
    """Frames in the file's order; pictures from where it says, or of the same names in ``images``."""
    frames = []
    for record in read_records(path):
        if record.file_path is None:
            raise UserError(f"{record.where}: no file_path; each frame needs its picture")
        name = record.file_path if images is None else Path(record.file_path.replace("\\", "/")).name
        image = image_inside(path.parent if images is None else images, name, record.where)
        frames.append(Found(image.stem, image, record))
    return _told_apart(frames)


def _nerfstudio(folder: Path) -> list[Found]:
    path = folder / "transforms.json"
    return _json_frames(path) if path.is_file() else []


def _colmap(folder: Path) -> list[Found]:
    model = colmap_model_folder(folder)
    return _colmap_frames(model, colmap_image_folder(model)) if model is not None else []


def _at_root(scene: Callable[[Path], list[Found]]) -> Callable[[Path], Scenes]:
    return lambda root: _first(root, scene)


LAYOUTS: dict[str, Layout] = {
    "mipnerf360": Layout(
        "mip-360", "a scene of Mip-NeRF 360 by its name, with sparse/0 and images_2 or images_4", _at_root(_mipnerf360)
    ),
    "dl3dv": Layout("DL3DV", "[nerfstudio/]transforms.json with images_8 or images_4", _at_root(_dl3dv)),
    "tanks-nerfpp": Layout("TNT", "train/ and test/ with rgb, pose and intrinsics", _at_root(_tanks_nerfpp)),
    "tanks-fvs": Layout("TNT", "[dense/]ibr3d_pw_*/ with Ks.npy, Rs.npy and ts.npy", _at_root(_tanks_fvs)),
    "tanks-3dgs": Layout("TNT", "train, truck or another scene's name with sparse/0 and images", _at_root(_tanks_3dgs)),
    "nerfstudio": Layout("scenes", "transforms.json", _at_root(_nerfstudio)),
    "colmap": Layout("scenes", "sparse/0 and images", _at_root(_colmap)),
}

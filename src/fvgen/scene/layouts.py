"""How data sets lay out their files: each layout finds the scenes in a folder, or nothing."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fvgen.errors import UserError
from fvgen.scene.formats.colmap import colmap_image_folder, colmap_mask, colmap_model_folder, read_colmap
from fvgen.scene.formats.images import image_size, is_photo
from fvgen.scene.formats.record import CameraRecord, checked_rigid, image_inside, mask_inside, natural_key
from fvgen.scene.formats.transforms_json import in_order, read_records
from fvgen.scene.types import listed

MIPNERF360 = {
    **dict.fromkeys(("bonsai", "counter", "kitchen", "room"), 2),
    **dict.fromkeys(("bicycle", "flowers", "garden", "stump", "treehill"), 4),
}

TANKS = (
    *("train", "truck", "family", "francis", "horse", "lighthouse", "m60", "panther", "playground", "barn"),
    *("caterpillar", "church", "courthouse", "ignatius", "meetingroom", "auditorium", "ballroom", "courtroom"),
    *("museum", "palace", "temple"),
)

_SIZES = ("images", "images_2", "images_4", "images_8")
_SAME_SIZE = 1.02  # pictures that must be enlarged by less are not too small


@dataclass(frozen=True)
class Stored:
    """Which pictures to read of a scene that keeps them in several sizes, in folders called ``images_4`` and the like.

    Attributes:
        size: (width, height) that they should cover: the smallest that do are read, the largest where none do.
            ``None``: the largest.
        folder: the name of a folder that is read instead.
        turns: portrait pictures are to cover ``size`` with width and height swapped.
    """

    size: tuple[int, int] | None = None
    folder: str | None = None
    turns: bool = False

    def covers(self, size: tuple[int, int]) -> bool:
        """Whether pictures of this (width, height) are large enough."""
        if self.size is None:
            return False
        wanted = self.size[::-1] if self.turns and size[0] < size[1] else self.size
        return all(side * _SAME_SIZE >= least for side, least in zip(size, wanted))

    def choose(self, base: Path, names: tuple[str, ...]) -> Path | None:
        """The folder of pictures to read; ``None`` where there is none.

        Args:
            base: the folder that holds it.
            names: folders to choose from, of which those count that hold all pictures.

        Raises:
            UserError: the folder that was named is not there.
        """
        if self.folder is not None:
            if Path(self.folder).name != self.folder or not (base / self.folder).is_dir():
                raise UserError(f"{base}: there is no folder {self.folder} of pictures (`images`) in it")
            return base / self.folder
        there = [base / name for name in names if (base / name).is_dir()]
        if len(there) < 2:
            return there[0] if there else None
        pictures = {folder: _pictures_in(folder) for folder in there}
        most = max(len(files) for files in pictures.values())
        sizes = {folder: _size_of(files) for folder, files in pictures.items() if len(files) == most}
        by_size = sorted(sizes, key=lambda folder: sizes[folder])
        return next((folder for folder in by_size if self.covers(sizes[folder])), by_size[-1])

    def refuse_folder(self, scene: Path) -> None:
        """Complain, for a layout that keeps pictures in one size, if a folder was named.

        Raises:
            UserError: a folder was named.
        """
        if self.folder is not None:
            raise UserError(f"{scene}: its layout keeps pictures in one size; leave `images` {self.folder} out")


def _pictures_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if is_photo(path))


def _size_of(files: list[Path]) -> tuple[int, int]:
    """Width and height of the first picture that can be read; the others are complained of when they are wanted."""
    for file in files:
        with suppress(UserError):
            return image_size(file)
    return 0, 0


@dataclass(frozen=True)
class Found:
    """One frame of a scene as its files describe it.

    Attributes:
        name: its picture's, without suffix, by which frames of outside systems are matched.
        image: the picture's file.
        record: its camera, at the size that the file claims.
        part: ``"train"`` or ``"test"`` where the layout tells them apart.
        pictures: the folder of the picture, such as ``images_4``, where the layout may have several sizes.
        mask: the file that tells which of its pixels are not to be used, where there is one.
        listed: how often the scene's files list the picture; it is used once.
    """

    name: str
    image: Path
    record: CameraRecord
    part: str | None = None
    pictures: str = ""
    mask: Path | None = None
    listed: int = 1


@dataclass(frozen=True)
class Layout:
    """How a data set lays out its files.

    Attributes:
        title: what tables call the data set.
        looks_for: what a scene's folder holds, in words, for whom nothing is found.
        frames: the frames of a scene's folder, with the pictures wanted; empty if it is not laid out so.
    """

    title: str
    looks_for: str
    frames: Callable[[Path, Stored], list[Found]]

    def find(self, root: Path, wanted: Stored) -> list[tuple[str, Path, list[Found]]]:
        """Name, folder and frames of the folder as one scene or, if it is none, of every folder in it that is."""
        own = self.frames(root, wanted)
        if own:
            return [(root.resolve().name, root, own)]
        below = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
        below.sort(key=lambda path: natural_key(path.name))
        scenes = [(folder.name, folder, self.frames(folder, wanted)) for folder in below]
        return [scene for scene in scenes if scene[2]]


def listed_again(frames: list[Found]) -> str:
    """A line on the pictures that a scene's files list more than once; empty where there are none."""
    again = [frame.image.name for frame in frames if frame.listed > 1]
    return f"named more than once, used once: {listed(again)}" if again else ""


def _once(frames: list[Found]) -> list[Found]:
    """Each picture once: with the first camera that it is listed with, among the test pictures where it is there too,
    so that nothing is shown that is asked for."""
    kept: dict[str, Found] = {}
    for frame in frames:
        at = os.path.realpath(frame.image)
        first = kept.get(at)
        if first is None:
            kept[at] = frame
        else:
            part = "test" if "test" in (first.part, frame.part) else first.part
            kept[at] = replace(first, part=part, listed=first.listed + frame.listed)
    return list(kept.values())


def _told_apart(frames: list[Found]) -> list[Found]:
    """Each picture once; equal names (of several cameras' folders) made unique by their folders, or else numbers."""
    frames = _once(frames)
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
    for record in sorted(read_colmap(model), key=lambda r: natural_key(r.file_path or "")):
        path = image_inside(images, record.file_path or "", record.where)
        mask = colmap_mask(images, record.file_path or "")
        frames.append(Found(path.stem, path, record, pictures=images.name, mask=mask))
    return _told_apart(frames)


def _mipnerf360(folder: Path, wanted: Stored) -> list[Found]:
    factor = MIPNERF360.get(folder.resolve().name)
    model = folder / "sparse" / "0"
    if factor is None or colmap_model_folder(model) is None:
        return []
    images = wanted.choose(folder, (f"images_{factor}",))
    if images is None:
        raise UserError(f"{folder}: a scene of Mip-NeRF 360 is scored on images_{factor}, which is not there")
    return _colmap_frames(model, images)


def _tanks_3dgs(folder: Path, wanted: Stored) -> list[Found]:
    model = folder / "sparse" / "0"
    if folder.resolve().name.lower() not in TANKS or colmap_model_folder(model) is None:
        return []
    return _colmap_frames(model, wanted.choose(folder, ("images",)) or folder / "images")


def _tanks_nerfpp(folder: Path, wanted: Stored) -> list[Found]:
    """NeRF++: ``{train,test}/{rgb,pose,intrinsics}``, 16 numbers per picture, OpenCV camera to world."""
    frames = []
    for part in ("train", "test"):
        pictures = folder / part / "rgb"
        if not (pictures.is_dir() and (folder / part / "pose").is_dir()):
            continue
        wanted.refuse_folder(folder)
        for path in _pictures_in(pictures):
            pose = _text_matrix(folder / part / "pose" / f"{path.stem}.txt")
            intrinsics = _text_matrix(folder / part / "intrinsics" / f"{path.stem}.txt")
            frames.append(Found(path.stem, path, _pinhole(path, pose, intrinsics), part))
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


def _tanks_fvs(folder: Path, wanted: Stored) -> list[Found]:
    """FVS: ``dense/ibr3d_pw_*/{im_*.png, Ks.npy, Rs.npy, ts.npy}``, world to camera; the largest pictures are taken."""
    places = [p.parent for base in (folder, folder / "dense") for p in base.glob("ibr3d_pw_*/Ks.npy")]
    if not places:
        return []
    wanted.refuse_folder(folder)
    place = max(places, key=lambda p: float(p.name.rsplit("_", 1)[1]))
    pictures = sorted(p for p in place.glob("im_*") if is_photo(p))
    arrays = []
    for path in (place / "Ks.npy", place / "Rs.npy", place / "ts.npy"):
        try:
            arrays.append(torch.from_numpy(np.load(path, allow_pickle=False)).double())
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path}: not an array of numbers ({error})") from None
    if any(len(array) != len(pictures) for array in arrays):
        counts = ", ".join(str(len(array)) for array in arrays)
        raise UserError(f"{place}: {len(pictures)} pictures im_*, but Ks, Rs and ts have {counts} entries")
    frames = []
    for path, intrinsics, rotation, translation in zip(pictures, *arrays):
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, :3], pose[:3, 3] = rotation.T, -rotation.T @ translation.reshape(3)
        frames.append(Found(path.stem, path, _pinhole(path, pose, intrinsics)))
    return frames


def _pinhole(image: Path, pose: Tensor, k: Tensor) -> CameraRecord:
    """A camera whose intrinsics ``k`` refer to its picture as it is."""
    focal, center = (float(k[0, 0]), float(k[1, 1])), (float(k[0, 2]), float(k[1, 2]))
    return CameraRecord(str(image), None, checked_rigid(pose, str(image)), focal, center, size=image_size(image))


def _dl3dv(folder: Path, wanted: Stored) -> list[Found]:
    """DL3DV: ``transforms.json`` at the size of the film (4K) beside ``images_8`` (480x270), ``images_4`` (960x540) or
    ``images_2``, without ``images``."""
    for base in (folder / "nerfstudio", folder):
        sizes = any((base / name).is_dir() for name in _SIZES[1:])
        if (base / "transforms.json").is_file() and sizes and not (base / "images").is_dir():
            return _json_frames(base / "transforms.json", wanted.choose(base, _SIZES[1:]))
    return []


def _json_frames(path: Path, images: Path | None = None) -> list[Found]:
    """Frames in the order of their names; pictures from where it says, or of the same names in ``images``."""
    frames = []
    records = in_order(read_records(path))
    for record in records:
        if record.file_path is None:
            raise UserError(f"{record.where}: no file_path; each frame needs its picture")
        name = record.file_path if images is None else Path(record.file_path.replace("\\", "/")).name
        image = image_inside(path.parent if images is None else images, name, record.where)
        mask = mask_inside(path.parent, record)
        frames.append(Found(image.stem, image, record, pictures=(images or image.parent).name, mask=mask))
    named = {record.file_path for record in records}
    if images is not None and len({frame.image for frame in frames}) < len(named):
        raise UserError(f"{path}: pictures of several folders have the same name; {images} cannot hold them")
    return _told_apart(frames)


def _nerfstudio(folder: Path, wanted: Stored) -> list[Found]:
    """``transforms.json``; or, as Blender's scenes have, ``transforms_train.json`` and ``transforms_test.json``."""
    path = folder / "transforms.json"
    if path.is_file():
        return _json_frames(path, wanted.choose(folder, ()))
    parts = {part: folder / f"transforms_{part}.json" for part in ("train", "test")}
    if not parts["train"].is_file():
        return []
    images = wanted.choose(folder, ())
    there = {part: _json_frames(path, images) for part, path in parts.items() if path.is_file()}
    return _told_apart([replace(frame, part=part) for part, frames in there.items() for frame in frames])


def _colmap(folder: Path, wanted: Stored) -> list[Found]:
    model = colmap_model_folder(folder)
    if model is None:
        return []
    images = colmap_image_folder(model)
    return _colmap_frames(model, wanted.choose(images.parent, _SIZES) or images)


LAYOUTS: dict[str, Layout] = {
    "mipnerf360": Layout(
        "mip-360", "a scene of Mip-NeRF 360 by its name, with sparse/0 and images_2 or images_4", _mipnerf360
    ),
    "dl3dv": Layout("DL3DV", "[nerfstudio/]transforms.json with images_8, images_4 or images_2", _dl3dv),
    "tanks-nerfpp": Layout("TNT", "train/ and test/ with rgb, pose and intrinsics", _tanks_nerfpp),
    "tanks-fvs": Layout("TNT", "[dense/]ibr3d_pw_*/ with Ks.npy, Rs.npy and ts.npy", _tanks_fvs),
    "tanks-3dgs": Layout("TNT", "train, truck or another scene's name with sparse/0 and images", _tanks_3dgs),
    "nerfstudio": Layout("scenes", "transforms.json or transforms_train.json", _nerfstudio),
    "colmap": Layout("scenes", "sparse/0 and images", _colmap),
}

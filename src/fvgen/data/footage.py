"""Footage: scenes that training clips are cut from, in the layouts that data sets have, opened one by one.

Listing scenes reads no scene, so that a damaged one stops nothing but itself; a `SceneTask` is all that another process
needs to open it.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.errors import UserError
from fvgen.scene.formats.co3d import ANNOTATIONS, co3d_record, read_co3d
from fvgen.scene.formats.colmap import colmap_model_folder
from fvgen.scene.formats.images import image_size, is_photo, read_photo
from fvgen.scene.formats.re10k import ChunkScene, TimedCamera, chunk_scene, is_re10k, read_chunk, read_re10k
from fvgen.scene.formats.record import image_inside, local_path, natural_key
from fvgen.scene.formats.video import VIDEO_SUFFIXES, frame_times, frames_at, hdr_note
from fvgen.scene.layouts import LAYOUTS, Found, Stored, listed_again
from fvgen.scene.photos import Shot, posed_shot

_DEPTH = 3  # folders below the source in which scenes are looked for: DL3DV has two, CO3D one
_POSED = ("dl3dv", "nerfstudio", "tanks-nerfpp", "tanks-fvs", "colmap")


@dataclass(frozen=True)
class SceneTask:
    """A scene that was found, and how to open it.

    Attributes:
        name: unique among all scenes of a run, fit for a file name.
        layout: ``posed``, ``re10k``, ``chunk``, ``co3d``, ``video``, ``frames`` or ``procedural``.
        path: file or folder.
        part: which scene of a file that holds several.
    """

    name: str
    layout: str
    path: Path
    part: str = ""


@dataclass(frozen=True)
class Footage:
    """An open scene of ``N`` frames in filming order; its pictures are read only when asked for.

    Attributes:
        count: number of frames.
        centers: ``[N, 3]`` camera centres where cameras are given, else ``None``.
        times: ``N`` ascending seconds where they are known.
        read: pictures with their cameras (``None`` where not given) of ascending frame numbers.
        pictures: the folder they are from, where the layout may have several sizes; else ``""``.
        notes: what was done to them that the user should know, a line each.
    """

    count: int
    centers: Tensor | None
    times: list[float] | None
    read: Callable[[Sequence[int]], list[Shot]]
    pictures: str = ""
    notes: tuple[str, ...] = ()


class TimesGoBackwards(UserError):
    """The frames' times do not ascend: which order they were filmed in is not known."""


def find_scenes(sources: Sequence[str | Path]) -> list[SceneTask]:
    """All scenes of some sources, each a folder or file, or ``procedural:N``; ordered, each name once.

    Raises:
        UserError: a source that does not exist, or in which no scene is found.
    """
    tasks: list[SceneTask] = []
    for source in sources:
        found = _procedural(str(source)) if str(source).startswith("procedural:") else list(_walk(local_path(source)))
        if not found:
            raise UserError(
                f"{source}: no footage found; looked for transforms.json, COLMAP models, RealEstate10K's camera files "
                f"with their frames, .torch chunks, {ANNOTATIONS}, videos and folders of frames"
            )
        cameras = (task.path for task in found if task.layout == "re10k")
        claimed = {_re10k_places(path)[0].resolve() for path in cameras}  # folders of pictures with a camera file
        tasks += [task for task in found if task.layout != "frames" or task.path.resolve() not in claimed]
    taken: dict[str, SceneTask] = {}
    for task in tasks:
        name = task.name
        if name in taken and taken[name] != task:  # the same name elsewhere: told apart by where
            name = f"{name}-{hashlib.sha256(str(task.path.resolve()).encode()).hexdigest()[:8]}"
        taken[name] = SceneTask(name, task.layout, task.path, task.part)
    return [taken[name] for name in sorted(taken, key=natural_key)]


def _procedural(source: str) -> list[SceneTask]:
    count = source.partition(":")[2]
    if not count.isdigit():
        raise UserError(f"{source}: write procedural:N, such as procedural:400")
    return [SceneTask(f"procedural-{i:06d}", "procedural", Path(), str(i)) for i in range(int(count))]


def _walk(path: Path, depth: int = 0) -> Iterator[SceneTask]:
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    name = _clean(path.stem if path.is_file() else path.resolve().name)
    if path.is_file():
        yield from _file_scenes(path, name)
        return
    if _is_posed(path):
        yield SceneTask(name, "posed", path)
        return
    if (path / ANNOTATIONS).is_file():
        for sequence in _keys(lambda: _co3d(path / ANNOTATIONS)):
            yield SceneTask(_clean(f"{name}-{sequence}"), "co3d", path, sequence)
        return
    inside = sorted((p for p in path.iterdir() if not p.name.startswith(".")), key=lambda p: natural_key(p.name))
    cameras = [p for p in inside if p.suffix == ".txt" and is_re10k(p)]
    yield from (SceneTask(_clean(p.stem), "re10k", p) for p in cameras)
    files = [p for p in inside if p.is_file() and p.suffix.lower() in (*VIDEO_SUFFIXES, ".torch")]
    for file in files:
        yield from _walk(file, depth + 1)
    pictures = [p for p in inside if p.is_file() and is_photo(p)]
    if len(pictures) > 2 and not cameras and not files:
        yield SceneTask(name, "frames", path)
    elif depth < _DEPTH and not cameras:
        here = path.resolve()
        for folder in (p for p in inside if p.is_dir()):
            if not (folder.is_symlink() and folder.resolve() in (here, *here.parents)):  # a link in a circle
                yield from _walk(folder, depth + 1)


def _file_scenes(path: Path, name: str) -> Iterator[SceneTask]:
    if path.suffix.lower() in VIDEO_SUFFIXES:
        yield SceneTask(name, "video", path)
    elif path.suffix == ".json":
        yield SceneTask(_clean(path.resolve().parent.name), "posed", path.parent)
    elif path.suffix == ".txt" and is_re10k(path):
        yield SceneTask(name, "re10k", path)
    elif path.suffix == ".torch":
        for key in _keys(lambda: [str(scene["key"]) for scene in read_chunk(path)]):
            yield SceneTask(_clean(key), "chunk", path, key)


def _keys(read: Callable[[], Iterable[str]]) -> list[str]:
    """Scenes of a file that holds several; a damaged one is opened like the others, so that its damage is counted."""
    try:
        return list(read())
    except UserError:
        return [""]


def _is_posed(path: Path) -> bool:
    cameras = ("transforms.json", "transforms_train.json", "nerfstudio/transforms.json", "train/pose")
    if any((path / p).exists() for p in cameras):
        return True
    return colmap_model_folder(path) is not None or any(path.glob("dense/ibr3d_pw_*/Ks.npy"))


def _clean(name: str) -> str:
    """Fit for the name of a file anywhere."""
    clean = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in name).lstrip(".-")
    return clean[:120] or "scene"


def open_footage(task: SceneTask, wanted: Stored = Stored()) -> Footage:  # noqa: B008
    """Open a scene, with the pictures wanted where it keeps them in several sizes.

    Raises:
        UserError: what is wrong with it.
        TimesGoBackwards: its frames are in no known order.
    """
    path = task.path
    match task.layout:
        case "video":
            times, note = frame_times(path), hdr_note(path)
            notes = (note,) if note else ()
            read = partial(_frames_of, path)
            return Footage(len(times), None, times, read, notes=notes)
        case "frames":
            found = (p for p in path.iterdir() if is_photo(p))
            files = sorted(found, key=lambda p: natural_key(p.name))
            return Footage(len(files), None, None, lambda rows: [_photo(files[i]) for i in rows])
        case "posed":
            for layout in _POSED:
                for _, _, frames in LAYOUTS[layout].find(path, wanted):
                    return _of_files(frames)
            raise UserError(f"{path}: no cameras found")
        case "re10k":
            return _re10k(path)
        case "chunk":
            return _chunk(chunk_scene(path, _scenes_of(path)[task.part]))
        case "co3d":
            frames = []
            for frame in _co3d(path / ANNOTATIONS)[task.part]:
                number = frame.get("frame_number")
                record = co3d_record(frame, f"{path / ANNOTATIONS}, {task.part} frame {number}")
                picture = image_inside(path.parent, record.file_path or "", record.where)
                frames.append(Found(picture.stem, picture, record))
            return _of_files(frames)
    raise ValueError(f"there is no layout '{task.layout}'")


def _frames_of(video: Path, rows: Sequence[int]) -> list[Shot]:
    return [Shot(image) for image in frames_at(video, rows)]


def _photo(path: Path) -> Shot:
    photo = read_photo(path)
    return Shot(photo.upright(), None if photo.cropped else photo.focal)


def _of_files(frames: list[Found]) -> Footage:
    def read(rows: Sequence[int]) -> list[Shot]:
        return [posed_shot(frames[i].record, frames[i].image, frames[i].mask) for i in rows]

    centers = torch.stack([frame.record.world_from_camera[:3, 3] for frame in frames])
    notes = [listed_again(frames)] if any(frame.listed > 1 for frame in frames) else []
    if masked := sum(frame.mask is not None for frame in frames):
        notes.append(f"masks of {masked} frames: no points from what they hide, which the frames to learn still show")
    return Footage(len(frames), centers, None, read, frames[0].pictures, tuple(notes))


def _timed(cameras: list[TimedCamera], shot: Callable[[int], Shot]) -> Footage:
    """Frames with cameras at ascending times, each read by its number."""
    for before, after in zip(cameras, cameras[1:]):
        if after.time <= before.time:
            raise TimesGoBackwards(f"{after.where}: its time {after.time} is not after the one before it")
    centers, times = torch.stack([camera.center for camera in cameras]), [camera.time / 1e6 for camera in cameras]
    return Footage(len(cameras), centers, times, lambda rows: [shot(row) for row in rows])


def _re10k(path: Path) -> Footage:
    cameras = read_re10k(path)
    folder, second, *_ = _re10k_places(path)

    def shot(row: int) -> Shot:
        picture = files[str(cameras[row].time)]
        return posed_shot(cameras[row].record(image_size(picture)), picture)

    footage = _timed(cameras, shot)
    if not folder.is_dir():
        raise UserError(f"{path}: its frames are not there; looked for {folder} and {second}")
    files = {p.stem: p for p in folder.iterdir() if is_photo(p)}
    missing = next((camera for camera in cameras if str(camera.time) not in files), None)
    if missing is not None:
        raise UserError(f"{missing.where}: there is no picture {missing.time} in {folder}")
    return footage


def _re10k_places(path: Path) -> list[Path]:
    """Where a clip's pictures may be, ``TIME.png`` or ``TIME.jpg``: folders that are there first."""
    above = path.parent.parent
    places = [path.parent / path.stem, path.parent / "frames" / path.stem, above / "frames" / path.stem]
    return sorted([*places, above / "frames" / path.parent.name / path.stem], key=lambda place: not place.is_dir())


@lru_cache(maxsize=1)  # a chunk holds some dozens of scenes
def _scenes_of(path: Path) -> dict[str, dict]:
    return {str(scene["key"]): scene for scene in read_chunk(path)}


def _chunk(scene: ChunkScene) -> Footage:
    def shot(row: int) -> Shot:
        image = scene.picture(row)
        record = scene.cameras[row].record((image.shape[1], image.shape[0]))
        camera = Cameras(record.world_from_camera[None], record.intrinsics()[None], torch.tensor([record.size]))
        return Shot(image, None, camera)

    return _timed(scene.cameras, shot)


_co3d = lru_cache(maxsize=1)(read_co3d)

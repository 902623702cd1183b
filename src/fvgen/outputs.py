"""Writes what ``fvgen generate`` leaves behind, all of it or nothing."""

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fvgen import __version__
from fvgen.errors import UserError
from fvgen.files import why_not_written, writing

if TYPE_CHECKING:
    from fvgen.pipeline import NovelViews
    from fvgen.scene.formats.images import PngWriter
    from fvgen.scene.types import Scene

_STAGES = ("load", "geometry", "render", "encode", "denoise", "decode", "compose", "write")
_JPEG: dict[str, Any] = {"format": "JPEG", "quality": 95, "subsampling": 0}  # shows no loss
_PHOTO_FORMATS: dict[str, dict[str, Any]] = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), _JPEG),
    ".png": {"format": "PNG", "compress_level": 4},
    ".webp": {"format": "WEBP", "lossless": True},
    **dict.fromkeys((".tif", ".tiff"), {"format": "TIFF", "compression": "tiff_lzw"}),
    ".bmp": {"format": "BMP"},
}


def write_outputs(views: "NovelViews", output: str | Path, *, fps: float = 10.0, overwrite: bool = False) -> None:
    """Write ``views`` into the folder ``output``: everything, or nothing if that fails.

    Args:
        views: what the pipeline returned.
        output: a new or empty folder; see `output_folder`.
        fps: frames per second of the two videos.
        overwrite: replace what an earlier run left there.

    Raises:
        UserError: the folder is not empty, or cannot be written, or the disk is full; nothing is left behind.
    """
    with output_folder(output, overwrite) as folder:
        write_files(views, folder, fps)


def write_files(views: "NovelViews", folder: Path, fps: float = 10.0, images: "PngWriter | None" = None) -> None:
    """Write every file of a result into ``folder``, which exists and is empty.

    ``views.mp4``, ``guide.mp4``, ``images/``, ``coverage/``, ``photos/``, ``transforms.json`` (of the frames),
    ``transforms_photos.json``, ``sparse/0/``, ``points.ply`` and ``summary.json``; frame ``i`` is
    ``images/{i:05d}.png``, in every file the same.

    Args:
        views: what the pipeline returned.
        folder: for the files.
        fps: frames per second of the videos.
        images: the writer of ``images/``, where frames that were ready earlier have gone to it already.
    """
    from fvgen.scene.formats.colmap import write_colmap
    from fvgen.scene.formats.images import PngWriter
    from fvgen.scene.formats.ply import write_ply
    from fvgen.scene.formats.transforms_json import write_transforms_json
    from fvgen.scene.formats.video import write_video

    start = time.perf_counter()
    cloud, count = views.scene.points, len(views.frames)
    positions, colors = cloud.positions[cloud.measured], cloud.colors[cloud.measured]
    (folder / "sparse/0").mkdir(parents=True)
    with images or PngWriter(folder / "images") as frames, PngWriter(folder / "coverage") as coverage:
        missing = sorted(set(range(count)) - frames.added)
        frames.add(missing, views.frames[missing])
        coverage.add(range(count), views.guide.coverage)
        write_video(folder / "views.mp4", views.frames, fps)
        write_video(folder / "guide.mp4", (views.guide.images(slice(i, i + 1))[0] for i in range(count)), fps)
        frames.finish()
        coverage.finish()
    names = [frames.name(i) for i in range(count)]
    write_photos(views.scene, folder)
    files = _photo_files(views.scene)
    extras = [{"source": "generated"} if k is None else {"source": "photo", "photo": files[k]} for k in views.photo]
    top = {"ply_file_path": "points.ply"}
    write_transforms_json(folder / "transforms.json", views.cameras, [f"images/{name}" for name in names], extras, top)
    write_colmap(folder / "sparse" / "0", views.cameras, names, positions, colors)
    write_ply(folder / "points.ply", positions, colors)
    summary = _summary(views, time.perf_counter() - start)
    text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")


def write_photos(scene: "Scene", folder: Path) -> None:
    """Write the photographs into ``folder / "photos"`` and their cameras into ``transforms_photos.json``.

    That file is an input like any other: ``fvgen generate OUT/transforms_photos.json`` works in the same world, so
    that a path file can be followed in it.
    """
    from PIL import Image

    from fvgen.scene.formats.transforms_json import write_transforms_json

    (folder / "photos").mkdir(parents=True, exist_ok=True)
    files = _photo_files(scene)
    for name, image in zip(files, scene.photos.images):
        form = _PHOTO_FORMATS[Path(name).suffix.lower()]
        Image.fromarray(image.cpu().contiguous().numpy()).save(folder / "photos" / name, **form)
    write_transforms_json(folder / "transforms_photos.json", scene.cameras, [f"photos/{name}" for name in files])


@contextlib.contextmanager
def output_folder(output: str | Path, overwrite: bool = False, inputs: Iterable[str | Path] = ()) -> Iterator[Path]:
    """An empty temporary folder beside ``output``, whose content takes its place when the block ends well.

    If the block fails or is interrupted, ``output`` is as it was and the temporary folder is gone. Files of an
    earlier run are replaced only at the end; files that no run writes stay.

    Args:
        output: the folder to write.
        overwrite: allow it to hold something already.
        inputs: files and folders that are read; none of them may lie inside ``output`` when that is overwritten.

    Raises:
        UserError: see `prepare_output`; or no space is left on the disk.
    """
    target = prepare_output(output, overwrite, inputs)
    made: list[Path] = []
    temporary: Path | None = None
    try:
        temporary = _temporary_beside(target, made)
        fresh = temporary / "new"
        with writing(temporary, f"output folder {output}"):
            fresh.mkdir()
        with writing(temporary, f"output folder {output}"):
            yield fresh
            _move_into_place(fresh, target, temporary / "old")
        made.clear()
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):  # somebody else put something there
            for parent in reversed(made):
                parent.rmdir()


def prepare_output(output: str | Path, overwrite: bool = False, inputs: Iterable[str | Path] = ()) -> Path:
    """Say at once whether ``output`` may be written, before any work is done. Changes nothing.

    Args:
        output, overwrite, inputs: see `output_folder`.

    Returns:
        The folder, with symbolic links followed.

    Raises:
        UserError: it is a file; it is not empty and ``overwrite`` is off; what would be replaced is an input, or is
            a folder that no earlier run wrote.
    """
    output = Path(output)
    target = Path(os.path.realpath(output))
    try:
        above = next(p for p in (target, *target.parents) if p.exists())
    except OSError as error:  # a name that is too long
        raise UserError(f"output folder {output}: {why_not_written(error) or error.strerror}; choose another") from None
    if not above.is_dir():
        raise UserError(f"output folder {output}: {above} is a file; choose another folder")
    try:
        present = {entry.name for entry in target.iterdir()} if target.exists() else set()
    except OSError as error:
        raise UserError(f"output folder {output} cannot be read ({error.strerror}); choose another") from None
    if present and not overwrite:
        raise UserError(f"output folder {output} is not empty; choose another, or add `overwrite`")
    for item in map(Path, inputs) if present else ():
        if Path(os.path.realpath(item)).is_relative_to(target):
            raise UserError(f"output folder {output} holds the input {item}; choose another folder")
    folders = sorted(present & {"images", "coverage", "photos", "sparse"})
    if folders:
        try:
            content = json.loads((target / "summary.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            content = None
        if not isinstance(content, dict) or not {"version", "seconds"} <= content.keys():
            raise UserError(
                f"output folder {output}: {folders[0]}/ in it was not written by fvgen; choose another folder"
            )
    return target


def _temporary_beside(target: Path, made: list[Path]) -> Path:
    """A new hidden folder in the same place, on the same disk; parents that had to be made are noted in ``made``."""
    parent = target.parent
    missing = [p for p in (parent, *parent.parents) if not p.exists()]
    try:
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            made.append(folder)
        return Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=parent))
    except OSError as error:
        reason = why_not_written(error, parent) or f"cannot be written ({error.strerror})"
        raise UserError(f"output folder {target}: {reason}; choose another") from None


def _move_into_place(fresh: Path, target: Path, old: Path) -> None:
    """Rename ``fresh`` to ``target``; where that exists, entry by entry, and back again if anything goes wrong."""
    if not target.exists():
        fresh.rename(target)
        return
    old.mkdir()
    done: list[tuple[Path, Path]] = []  # (from, to)

    def rename(source: Path, destination: Path) -> None:
        done.append((source, destination))  # before: an interrupt in between must not lose it
        source.rename(destination)

    try:
        for entry in sorted(fresh.iterdir()):
            place = target / entry.name
            if os.path.lexists(place):
                rename(place, old / entry.name)
            rename(entry, place)
    except BaseException:
        for source, moved in reversed(done):
            if os.path.lexists(moved):
                moved.rename(source)
        raise


def _photo_files(scene: "Scene") -> list[str]:
    """File names in ``photos/``: the photos' own, with ``.png`` added where we do not write that format."""
    names = (Path(name).name for name in scene.photos.names)
    return [n if Path(n).suffix.lower() in _PHOTO_FORMATS else f"{n}.png" for n in names]


def _summary(views: "NovelViews", write_seconds: float) -> dict[str, Any]:
    """The content of ``summary.json``."""
    photos = views.scene.photos
    spent = {**{key: float(value) for key, value in views.seconds.items()}, "write": write_seconds}
    stages = {key: spent.get(key, 0.0) for key in _STAGES}
    total = spent["total"] + write_seconds if "total" in spent else sum(stages.values())
    known = {
        "frames": len(views.photo),
        "size": list(views.cameras.size),
        "geometry": views.scene.geometry,
        "depth": views.scene.depth,
        **({"fit": views.scene.fit} if views.scene.fit else {}),
        "photos": {
            "used": list(photos.names),
            "dropped": [{"name": d.name, "reason": d.reason} for d in photos.dropped],
        },
        "points": int(views.scene.points.measured.sum()),
        "seconds": {key: round(value, 3) for key, value in {**stages, "total": total}.items()},
        "version": __version__,
    }
    return {**views.settings.as_dict(), **known}

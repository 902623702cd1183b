"""Writes what ``fvgen generate`` leaves behind, all of it or nothing."""

import contextlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fvgen import __version__
from fvgen.errors import UserError
from fvgen.files import SCENE, why_not_written, writing

if TYPE_CHECKING:
    from torch import Tensor

    from fvgen.pipeline import NovelViews
    from fvgen.rendering.guide import Measured
    from fvgen.scene.formats.images import PngWriter
    from fvgen.scene.types import Scene

_log = logging.getLogger(__name__)
_STAGES = ("load", "geometry", "render", "encode", "denoise", "decode", "compose", "write")
_COPIED = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp")  # that all programs read
_ORIENTATION = 274  # of EXIF


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
    tell_written(output)


def tell_written(output: str | Path) -> None:
    """Log what lies in a folder of a result, first what is looked at first."""
    folder = Path(output)
    _log.info("wrote %s, and beside it guide.mp4, images/, points.ply and the cameras", folder / "views.mp4")


def write_files(views: "NovelViews", folder: Path, fps: float = 10.0, images: "PngWriter | None" = None) -> None:
    """Write every file of a result into ``folder``, which exists and is empty.

    ``views.mp4``, ``guide.mp4``, ``images/``, ``coverage/``, ``photos/``, ``transforms.json`` (of the frames),
    ``transforms_photos.json``, ``depth/``, ``scene.safetensors``, ``sparse/0/``, ``points.ply`` and ``summary.json``;
    frame ``i`` is ``images/{i:05d}.png``, in every file the same.

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
    files = write_photos(views.scene, folder)
    extras = [{"source": "generated"} if k is None else {"source": "photo", "photo": files[k]} for k in views.photo]
    top = {"ply_file_path": "points.ply"}
    write_transforms_json(folder / "transforms.json", views.cameras, [f"images/{name}" for name in names], extras, top)
    write_colmap(folder / "sparse" / "0", views.cameras, names, positions, colors)
    write_ply(folder / "points.ply", positions, colors)
    summary = _summary(views, time.perf_counter() - start)
    text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")


def write_photos(scene: "Scene", folder: Path) -> list[str]:
    """Write what is known of the photographs: themselves, their cameras and depth, and the scene as it is.

    ``transforms_photos.json`` is an input like any other: ``fvgen generate OUT/transforms_photos.json`` works in the
    same world. Its ``depth/`` is where depth was measured, in 16 bits, of which ``depth_unit_scale_factor`` makes units
    of the world. With ``scene.safetensors`` ``fvgen generate OUT`` goes on from the scene. Photographs keep their files
    where these hold what was used; others (turned, undistorted, taken from a video) become PNG.

    Returns:
        Their file names in ``folder / "photos"``.
    """
    from fvgen.scene.formats.images import write_png
    from fvgen.scene.formats.transforms_json import write_transforms_json
    from fvgen.scene.store import write_scene

    (folder / "photos").mkdir(parents=True, exist_ok=True)
    photos = scene.photos
    known = photos.files or [None] * len(photos)
    files = [_write_photo(*one, folder / "photos") for one in zip(photos.names, photos.images, known)]
    extras: list[dict[str, Any]] = [{"order": i} for i in range(len(files))]  # the user's, names may have another
    for extra, name, mask in zip(extras, files, photos.masks or []):
        if mask is not None:
            (folder / "masks").mkdir(exist_ok=True)
            extra["mask_path"] = f"masks/{name}.png"
            write_png(folder / extra["mask_path"], mask)
    top: dict[str, Any] = {}
    if scene.depths:
        top["depth_unit_scale_factor"] = _write_depths(scene, folder / "depth")
        for i, extra in enumerate(extras):
            extra["depth_file_path"] = f"depth/{i:05d}.png"
        write_scene(scene, folder, files)
    listed = [f"photos/{name}" for name in files]
    write_transforms_json(folder / "transforms_photos.json", scene.cameras, listed, extras, top)
    return files


def _write_photo(name: str, image: "Tensor", source: Path | None, folder: Path) -> str:
    """Write a photograph ``[H, W, 3]``: its own file if that holds just this, else a PNG. Returns the name."""
    from PIL import Image

    name = Path(name).name
    suffix = Path(name).suffix.lower()
    if source is not None and suffix in _COPIED and suffix == source.suffix.lower() and _holds(source, image):
        shutil.copyfile(source, folder / name)
        return name
    name = name if suffix == ".png" else f"{name}.png"
    Image.fromarray(image.cpu().contiguous().numpy()).save(folder / name, format="PNG", compress_level=4)
    return name


def _holds(source: Path, image: "Tensor") -> bool:
    """Whether a file still is this picture for everybody who reads it, whatever they do about EXIF and alpha."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(source) as stored:
            plain = stored.mode == "RGB" and stored.getexif().get(_ORIENTATION, 1) == 1
            return plain and np.array_equal(np.asarray(stored), image.cpu().numpy())
    except (OSError, ValueError, SyntaxError):
        return False


def _write_depths(scene: "Scene", folder: Path) -> float:
    """Write measured depth as ``[h, w]`` of 16 bits, 0 where it is not; returns the world's units of one step."""
    import numpy as np
    from PIL import Image

    from fvgen.scene.types import MEASURED

    folder.mkdir(exist_ok=True)
    shown = [(one.depth * (one.confidence >= MEASURED)).cpu().double().numpy() for one in scene.depths]
    unit = max(float(depth.max()) for depth in shown) / 65535 or 1.0
    for i, depth in enumerate(shown):
        steps = np.where(depth > 0, np.maximum(np.round(depth / unit), 1), 0).astype(np.uint16)
        Image.fromarray(steps).save(folder / f"{i:05d}.png", format="PNG")
    return unit


@contextlib.contextmanager
def output_folder(output: str | Path, overwrite: bool = False, inputs: Iterable[str | Path] = ()) -> Iterator[Path]:
    """An empty temporary folder beside ``output``, whose content takes its place when the block ends well.

    If the block fails or is interrupted, ``output`` is as it was and the temporary folder is gone. Files of an
    earlier run are replaced only at the end; files that no run writes stay.

    Args:
        output: the folder to write.
        overwrite: allow it to hold something already, other than the scene that an interrupted run left.
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
    if present - {SCENE} and not overwrite:
        raise UserError(f"output folder {output} is not empty; choose another, or add `overwrite`")
    for item in map(Path, inputs) if present else ():
        if Path(os.path.realpath(item)).is_relative_to(target):
            raise UserError(f"output folder {output} holds the input {item}; choose another folder")
    folders = sorted(present & {"images", "coverage", "photos", "masks", "depth", "sparse"})
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
            **({"notes": list(photos.notes)} if photos.notes else {}),
        },
        "measured": _measured(views.guide.measured()),
        "points": int(views.scene.points.measured.sum()),
        "seconds": {key: round(value, 3) for key, value in {**stages, "total": total}.items()},
        "version": __version__,
    }
    return {**views.settings.as_dict(), **known}


def _measured(measured: "Measured") -> dict[str, Any]:
    """Shares of the frames that are measured, of ``summary.json``."""
    frames = [round(share, 4) for share in measured.frames]
    return {
        "mean": round(measured.mean, 4),
        "least": round(measured.least, 4),
        "frame": measured.frame,
        "frames": frames,
    }

"""What ``fvgen generate`` left in a folder, read back or while it is being made; and the folder that results go to."""

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.errors import UserError
from fvgen.progress import track
from fvgen.scene.formats.ply import read_ply
from fvgen.scene.formats.record import image_inside
from fvgen.scene.formats.transforms_json import read_transforms_json
from fvgen.scene.formats.video import read_video

_FILES = ("summary.json", "transforms.json", "transforms_photos.json", "points.ply", "views.mp4", "guide.mp4")

_SIGNS = ("summary.json", "views.mp4", "guide.mp4", "coverage")


@dataclass(frozen=True)
class Result:
    """What ``fvgen generate`` wrote, all of it in memory.

    Attributes:
        folder: that it lies in.
        name: of its folder.
        cameras: ``F`` cameras of the frames.
        photo: for each frame the file name of the photograph it is, or ``None``.
        frames, guide: ``[F, H, W, 3]`` uint8; the guide as its video has it.
        coverage: ``[F, H, W]`` bool, what of each frame is measured.
        photo_names: ``N`` file names.
        photo_files: ``N`` files.
        photo_cameras: ``N`` cameras at the photographs' full size.
        positions: ``[P, 3]`` float64.
        colors: ``[P, 3]`` uint8.
        summary: the content of ``summary.json``.
    """

    folder: Path
    name: str
    cameras: Cameras
    photo: list[str | None]
    frames: Tensor
    guide: Tensor
    coverage: Tensor
    photo_names: list[str]
    photo_files: list[Path]
    photo_cameras: Cameras
    positions: Tensor
    colors: Tensor
    summary: dict[str, Any]


def is_result(folder: Path) -> bool:
    """Whether this looks like something that ``fvgen generate`` wrote, be it whole or not."""
    return folder.is_dir() and any((folder / sign).exists() for sign in _SIGNS)


def read_result(folder: Path) -> Result:
    """Read all that ``fvgen generate`` wrote into a folder.

    Raises:
        UserError: a file is missing or damaged, or the files do not belong together.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name what fvgen generate wrote")
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder} is incomplete: {missing[0]} is missing; run fvgen generate again")
    cameras, records = read_transforms_json(folder / "transforms.json")
    photo_cameras, photo_records = read_transforms_json(folder / "transforms_photos.json")
    photo_files = _images(folder, photo_records, "transforms_photos.json")
    files = _images(folder, records, "transforms.json")
    pictures = [_pixels(file) for file in track(files, "reading frames")]
    masks = [folder / "coverage" / file.name for file in files]
    if absent := [mask for mask in masks if not mask.is_file()]:
        raise UserError(f"{folder} is incomplete: there is no image {absent[0]}; run fvgen generate again")
    coverage = [_pixels(mask)[..., 0] > 127 for mask in masks]
    if any(picture.shape != pictures[0].shape for picture in pictures) or any(
        mask.shape != pictures[0].shape[:2] for mask in coverage
    ):
        raise UserError(f"{folder}: its images differ in size; run fvgen generate again")
    frames = torch.stack(pictures)
    guide = read_video(folder / "guide.mp4")[0]
    height, width = frames.shape[1:3]
    if len(guide) != len(frames) or guide.shape[1] < height or guide.shape[2] < width:
        raise UserError(f"{folder}: guide.mp4 and the {len(frames)} images do not belong together; generate it again")
    positions, colors = read_ply(folder / "points.ply")
    summary = folder / "summary.json"
    try:
        content = json.loads(summary.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{summary}: not a JSON file; run fvgen generate again") from None
    if not isinstance(content, dict):
        raise UserError(f"{summary}: not a summary; run fvgen generate again")
    return Result(
        folder=folder,
        name=folder.resolve().name,
        cameras=cameras,
        photo=[record["photo"] if record.get("source") == "photo" else None for record in records],
        frames=frames,
        guide=guide[:, :height, :width],  # H.264 has even sides
        coverage=torch.stack(coverage),
        photo_names=[file.name for file in photo_files],
        photo_files=photo_files,
        photo_cameras=photo_cameras,
        positions=positions,
        colors=colors,
        summary=content,
    )


def _images(folder: Path, records: list[dict[str, Any]], name: str) -> list[Path]:
    paths = [record.get("file_path") for record in records]
    if not all(isinstance(path, str) for path in paths):
        raise UserError(f"{folder / name}: a frame without file_path; run fvgen generate again")
    return [image_inside(folder, str(path), f"{folder} is incomplete") for path in paths]


def _pixels(file: Path) -> Tensor:
    """``[H, W, 3]`` uint8; unlike a photograph a frame may be tiny."""
    try:
        with Image.open(file) as image:
            return torch.from_numpy(np.array(image.convert("RGB")))
    except (OSError, ValueError, SyntaxError):
        raise UserError(f"{file}: damaged or cut off; run fvgen generate again") from None


def measured_of(summary: dict[str, Any]) -> dict[str, Any]:
    """What a summary tells of the share that is measured; empty where it tells nothing, as older ones."""
    found = summary.get("measured")
    return found if isinstance(found, dict) and isinstance(found.get("frames"), list) else {}


@dataclass
class LiveResult:
    """A result as far as it is there.

    Attributes:
        name: of the result.
        cameras: ``F``.
        guide: ``[F, H, W, 3]`` uint8, or ``None`` before it is rendered.
        frames: ``[F, H, W, 3]`` uint8, black where not yet done.
        coverage: ``[F, H, W]`` bool, what of each frame is measured, of frames whose guide is there.
        video: the file of the frames, ``None`` before they all are there.
        done: the frames that are.
        measured: of frames whose guide is there, the share that is measured, 0..1.
    """

    name: str
    cameras: Cameras
    guide: Tensor | None
    frames: Tensor
    coverage: Tensor
    video: Path | None = None
    done: set[int] = field(default_factory=set)
    measured: dict[int, float] = field(default_factory=dict)


def shown_whole(result: Result) -> LiveResult:
    """A complete result as the page shows one: all its frames done."""
    measured = dict(enumerate(measured_of(result.summary).get("frames", [])))
    return LiveResult(
        result.name,
        result.cameras,
        result.guide,
        result.frames,
        result.coverage,
        result.folder / "views.mp4",
        set(range(len(result.frames))),
        measured,
    )


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)


def checked_name(name: object) -> str:
    """The name as it is, if it can be that of a file and leads nowhere else.

    Raises:
        UserError: other characters than letters, digits, ``-`` and ``_``, none, or more than 64.
    """
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise UserError("a name has 1 to 64 letters, digits, - and _, and begins with a letter or digit")
    return name


@dataclass(frozen=True)
class Workspace:
    """Paths in ``paths/``, results in ``results/``, and the scene where its cameras were estimated in ``scene/``."""

    folder: Path

    def path_file(self, name: object) -> Path:
        """Where the path of this name lies or goes."""
        return self._inside("paths", f"{checked_name(name)}.json")

    def result(self, name: object) -> Path:
        """The folder of the result of this name."""
        return self._inside("results", checked_name(name))

    def scene_folders(self) -> Iterator[Path]:
        """Folders for photographs and their estimated cameras: ``scene``, ``scene-2`` and so on without end."""
        yield self._inside("scene")
        yield from (self._inside(f"scene-{n}") for n in itertools.count(2))

    def path_names(self) -> list[str]:
        """Names of the paths there are."""
        return sorted(f.stem for f in (self.folder / "paths").glob("*.json") if _NAME.fullmatch(f.stem))

    def result_names(self) -> list[str]:
        """Names of the results there are."""
        found = (self.folder / "results").glob("*/summary.json")
        return sorted(f.parent.name for f in found if _NAME.fullmatch(f.parent.name))

    def free_name(self) -> str:
        """``view-1``, or the first number that neither a result nor a path has."""
        taken = {*self.result_names(), *self.path_names()}
        return next(name for n in range(1, len(taken) + 2) if (name := f"view-{n}") not in taken)

    def _inside(self, *parts: str) -> Path:
        """A path in the workspace, links followed.

        Raises:
            UserError: a link in the workspace leads out of it.
        """
        path = self.folder.joinpath(*parts)
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise UserError(f"{path} is a link out of the workspace; remove it")
        return path

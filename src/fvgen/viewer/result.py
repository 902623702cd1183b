"""What ``fvgen generate`` left in a folder, read back to be looked at."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
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
    """A result, all of it in memory.

    Attributes:
        name: of its folder.
        cameras: ``F`` cameras of the frames.
        photo: for each frame the file name of the photograph it is, or ``None``.
        frames, guide: ``[F, H, W, 3]`` uint8; the guide as its video has it.
        photo_names: ``N`` file names.
        photo_files: ``N`` files.
        photo_cameras: ``N`` cameras at the photographs' full size.
        positions: ``[P, 3]`` float32.
        colors: ``[P, 3]`` uint8.
        summary: the content of ``summary.json``.
    """

    name: str
    cameras: Cameras
    photo: list[str | None]
    frames: Tensor
    guide: Tensor
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
    """Read all of a result.

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
    files = [_image(folder, record, "transforms_photos.json") for record in photo_records]
    frames = _frames(folder, records)
    guide = read_video(folder / "guide.mp4")[0]
    height, width = frames.shape[1:3]
    if len(guide) != len(frames) or guide.shape[1] < height or guide.shape[2] < width:
        raise UserError(f"{folder}: guide.mp4 and the {len(frames)} images do not belong together; generate it again")
    positions, colors = read_ply(folder / "points.ply")
    return Result(
        name=folder.resolve().name,
        cameras=cameras,
        photo=[record["photo"] if record.get("source") == "photo" else None for record in records],
        frames=frames,
        guide=guide[:, :height, :width],  # H.264 has even sides
        photo_names=[file.name for file in files],
        photo_files=files,
        photo_cameras=photo_cameras,
        positions=positions,
        colors=colors,
        summary=_summary(folder / "summary.json"),
    )


def _frames(folder: Path, records: list[dict[str, Any]]) -> Tensor:
    files = [_image(folder, record, "transforms.json") for record in records]
    frames = [_pixels(file) for file in track(files, "reading frames")]
    if any(frame.shape != frames[0].shape for frame in frames):
        raise UserError(f"{folder}: its images differ in size; run fvgen generate again")
    return torch.stack(frames)


def _pixels(file: Path) -> Tensor:
    """``[H, W, 3]`` uint8; unlike a photograph a frame may be tiny."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            return torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8).view(
                image.height, image.width, 3
            )
    except (OSError, ValueError, SyntaxError):
        raise UserError(f"{file}: damaged or cut off; run fvgen generate again") from None


def _image(folder: Path, record: dict[str, Any], name: str) -> Path:
    path = record.get("file_path")
    if not isinstance(path, str):
        raise UserError(f"{folder / name}: a frame without file_path; run fvgen generate again")
    return image_inside(folder, path, f"{folder} is incomplete")


def _summary(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{path}: not a JSON file; run fvgen generate again") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a summary; run fvgen generate again")
    return content

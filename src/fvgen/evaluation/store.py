"""What a run leaves behind as it goes, so that it can be interrupted: frames and one record per finished split.

``OUT/scenes/SPLIT.json`` and ``OUT/frames/SYSTEM/SPLIT/FRAME.png``, what is scored. Where that is only a part of what
a system of ours made, the whole lies in ``OUT/made``, to be cut otherwise another time. A record says by hashes what
its parts were made from; a part whose hash still fits is not made again.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fvgen.errors import UserError
from fvgen.evaluation.frames import safe_name
from fvgen.scene.formats.images import read_photo, write_png

MARK = "evaluation.json"


def key_of(content: Any) -> str:
    """SHA-256 of plain values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def pictures_hash(pictures: Tensor) -> str:
    """SHA-256 of uint8 pictures ``[F, H, W, 3]`` and their shape."""
    digest = hashlib.sha256(str(tuple(pictures.shape)).encode())
    digest.update(pictures.contiguous().numpy().tobytes())
    return digest.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole or not at all; numbers that are not finite are a mistake."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


class Store:
    """The output folder of a run.

    Args:
        folder: new, empty, or left by an earlier run.

    Raises:
        UserError: it is a file, or holds something else.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if folder.exists() and not folder.is_dir():
            raise UserError(f"output folder {folder} is a file; choose another")
        if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
            raise UserError(f"output folder {folder} is not empty and not of an earlier evaluation; choose another")

    def begin(self) -> None:
        """Make the folder and mark it as ours."""
        try:
            for part in ("scenes", "frames"):
                (self.folder / part).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"output folder {self.folder} cannot be written ({error.strerror})") from None
        write_json(self.folder / MARK, {"written_by": "fvgen evaluate"})

    def record(self, split: str) -> dict[str, Any]:
        """The record of a split, empty where there is none that can be read."""
        try:
            content = json.loads((self.folder / "scenes" / f"{safe_name(split)}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def save_record(self, split: str, record: dict[str, Any]) -> None:
        """Replace the record of a split."""
        write_json(self.folder / "scenes" / f"{safe_name(split)}.json", record)

    def frames_folder(self, system: str, split: str, part: str = "frames") -> Path:
        """Where frames lie; ``--frames NAME=OUT/frames/SYSTEM`` reads them."""
        return self.folder / part / safe_name(system) / safe_name(split)

    def save_frames(self, system: str, split: str, names: Sequence[str], pictures: Tensor, part: str = "frames") -> str:
        """Write uint8 pictures, in the place of whatever else is there; their hash."""
        like = pictures_hash(pictures)
        if self.load_frames(system, split, names, like, part) is not None:
            return like
        folder = self.frames_folder(system, split, part)
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("*.png"):
            path.unlink()
        for name, picture in zip(names, pictures):
            write_png(folder / f"{safe_name(name)}.png", picture)
        return like

    def load_frames(
        self, system: str, split: str, names: Sequence[str], like: str | None, part: str = "frames"
    ) -> Tensor | None:
        """The pictures of hash ``like``, ``None`` where they are not there any more."""
        if like is None:
            return None
        found = [self.load_frame(system, split, name, part) for name in names]
        kept = [picture for picture in found if picture is not None]
        if len(kept) < len(names) or len({picture.shape for picture in kept}) > 1:
            return None
        pictures = torch.stack(kept)
        return pictures if pictures_hash(pictures) == like else None

    def load_frame(self, system: str, split: str, name: str, part: str = "frames") -> Tensor | None:
        """One picture, ``None`` where it is not there or damaged."""
        try:
            return read_photo(self.frames_folder(system, split, part) / f"{safe_name(name)}.png").image
        except UserError:
            return None

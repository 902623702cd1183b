"""What an evaluation keeps and reads: frames of ours and of outside systems, records, where they come from."""

import hashlib
import json
import math
import platform
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fvgen import __version__
from fvgen.errors import UserError
from fvgen.evaluation.protocols import read_json
from fvgen.files import whole_file, write_json
from fvgen.scene.formats.images import read_photo, write_png

_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_COLOURS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with transparency", 6: "RGB with transparency"}


def safe_name(name: str) -> str:
    """A name of a system, scene or frame made fit for a file: without separators, and never hidden or a way up."""
    return "".join(c if c.isalnum() or c in "+-_." else "-" for c in name).lstrip(".") or "-"


def read_frames(folder: Path, names: Sequence[str], numbers: Sequence[int], size: tuple[int, int]) -> Tensor:
    """The frames that an outside system made for one split.

    Args:
        folder: holds exactly one PNG for each frame asked for, called by the frame's name or by its number in the scene
            (any number of leading zeros), all in the same way.
        names: of the frames asked for.
        numbers: of the frames asked for.
        size: (width, height) they must have.

    Returns:
        ``[F, H, W, 3]`` uint8.

    Raises:
        UserError: missing or extra frames, names that do not fit, another size, not 8-bit RGB.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; frames of outside systems lie in DIR/SPLIT/FRAME.png")
    files = {path.stem: path for path in folder.iterdir() if path.suffix.lower() == ".png"}
    lossy = (".jpg", ".jpeg", ".webp", ".mp4", ".tif", ".tiff")
    others = [path.name for path in folder.iterdir() if path.suffix.lower() in lossy]
    if others:
        raise UserError(f"{folder}: {min(others)} is no PNG; only losslessly stored frames are scored")
    if set(files) == set(names):
        return torch.stack([_read_png(files[name], size) for name in names])
    by_number = {int(stem): path for stem, path in files.items() if stem.isdecimal()}
    if len(by_number) == len(files) and set(by_number) == set(numbers):
        return torch.stack([_read_png(by_number[number], size) for number in numbers])
    missing, extra = [name for name in names if name not in files], sorted(set(files) - set(names))
    if by_number and len(missing) == len(names):  # called by numbers, then
        missing = [f"frame {i}" for i in numbers if i not in by_number]
        extra = sorted(path.name for i, path in by_number.items() if i not in numbers)
    both = (("missing", missing), ("extra", extra))
    told = [f"{len(what)} {word} (such as {what[0]})" for word, what in both if what]
    raise UserError(
        f"{folder}: its {len(files)} frames are not the {len(names)} asked for: "
        f"{' and '.join(told) or 'doubled numbers'}; "
        f"they must be called as the scene's frames ({names[0]}.png) or by their numbers ({numbers[0]:05d}.png)"
    )


def _read_png(path: Path, size: tuple[int, int]) -> Tensor:
    from PIL import Image

    with open(path, "rb") as file:
        head = file.read(33)  # Pillow reads 16 bits as 8 without a word, so the header is looked at here
    if len(head) < 33 or head[:8] != _SIGNATURE:
        raise UserError(f"{path}: not a PNG file, whatever its name says")
    width, height = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    bits, colour = head[24], head[25]
    if bits != 8 or colour != 2:
        raise UserError(f"{path}: {bits} bits of {_COLOURS.get(colour, 'unknown colours')}; only 8-bit RGB is scored")
    if (width, height) != size:
        raise UserError(
            f"{path}: {width}x{height} pixels, not {size[0]}x{size[1]}; make frames of that size, or say how they were "
            f"cut from the photographs: `frames` NAME=FOLDER@{width}x{height}[/WIDTHxHEIGHT scaled to cover]"
        )
    try:
        with Image.open(path) as image:
            return torch.from_numpy(np.array(image.convert("RGB"), dtype=np.uint8))
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error})") from None


def read_seconds(folder: Path, split: str, scene: str) -> float | None:
    """How long an outside system took for a split, told by ``seconds.json`` beside its frames.

    Args:
        folder: that holds the folders of frames.
        split: whose name is looked for first.
        scene: whose name is looked for then: each of its splits took so long.

    Returns:
        Seconds, ``None`` without such a file.

    Raises:
        UserError: not ``{"SPLIT or SCENE": seconds, ...}`` of numbers above 0, or nothing told of this split.
    """
    path = folder / "seconds.json"
    if not path.exists():
        return None
    content = read_json(path)
    if not isinstance(content, dict) or not content:
        raise UserError(f'{path}: expected {{"SPLIT or SCENE": seconds, ...}}')
    for name, value in content.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise UserError(f"{path}, {name}: {json.dumps(value)} is no number of seconds above 0")
    if split not in content and scene not in content:
        raise UserError(f"{path}: tells the seconds of {min(content)} and others, but not of {split}")
    return float(content[split if split in content else scene])


_PACKAGE = Path(__file__).resolve().parent.parent

_ROOMS = ("cameras", "diffusion", "scene", "rendering", "models", "pipeline.py", "evaluation")

_REPORTS = ("paper.py", "report.py")


@cache
def code_hash() -> str:
    """SHA-256 over the source files that frames and scores depend on."""
    digest = hashlib.sha256()
    for room in _ROOMS:
        place = _PACKAGE / room
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            if not (room == "evaluation" and path.name in _REPORTS):
                digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@cache
def revision() -> str:
    """The git revision of a checkout (``-dirty`` with changes), empty for an installed package."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(_PACKAGE), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    if not git("ls-files", "__init__.py"):  # the package may lie in somebody else's repository, untracked
        return ""
    return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--", ".") else "")


def software() -> dict[str, Any]:
    """Versions of what computes."""
    return {
        "fvgen": __version__,
        "revision": revision(),
        "code_sha256": code_hash(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


MARK = "evaluation.json"


def key_of(content: Any) -> str:
    """SHA-256 of plain values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def pictures_hash(pictures: Tensor) -> str:
    """SHA-256 of uint8 pictures ``[F, H, W, 3]`` and their shape."""
    digest = hashlib.sha256(str(tuple(pictures.shape)).encode())
    digest.update(pictures.contiguous().numpy().tobytes())
    return digest.hexdigest()


class Store:
    """The output folder of a run.

    Args:
        folder: new, empty, or left by an earlier run.

    Raises:
        UserError: the folder is a file, or holds something else.
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

    def _folder(self, system: str, split: str, part: str) -> Path:
        return self.folder / part / safe_name(system) / safe_name(split)

    def save_frames(self, system: str, split: str, names: Sequence[str], pictures: Tensor, part: str = "frames") -> str:
        """Write pictures, in the place of whatever else is there.

        Args:
            system, split: whose pictures they are.
            names: of the frames.
            pictures: ``[F, H, W, 3]`` uint8.
            part: ``frames`` for what is scored, ``made`` for what was made before it was cut to that.

        Returns:
            The hash of the pictures.
        """
        like = pictures_hash(pictures)
        if self.load_frames(system, split, names, like, part) is not None:
            return like
        folder = self._folder(system, split, part)
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("*.png"):
            path.unlink()
        for name, picture in zip(names, pictures):
            with whole_file(folder / f"{safe_name(name)}.png") as unfinished:
                write_png(unfinished, picture)
        return like

    def load_frames(
        self, system: str, split: str, names: Sequence[str], like: str | None, part: str = "frames"
    ) -> Tensor | None:
        """The pictures ``[F, H, W, 3]`` uint8 of hash ``like``, ``None`` where they are not there any more."""
        if like is None:
            return None
        found = [self.load_frame(system, split, name, part) for name in names]
        kept = [picture for picture in found if picture is not None]
        if len(kept) < len(names) or len({picture.shape for picture in kept}) > 1:
            return None
        pictures = torch.stack(kept)
        return pictures if pictures_hash(pictures) == like else None

    def load_frame(self, system: str, split: str, name: str, part: str = "frames") -> Tensor | None:
        """One picture ``[H, W, 3]`` uint8, ``None`` where it is not there or damaged."""
        try:
            return read_photo(self._folder(system, split, part) / f"{safe_name(name)}.png").image
        except UserError:
            return None

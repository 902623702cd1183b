"""Frames of outside systems and their seconds: read as they are, or refused. Nothing is reordered or guessed."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fvgen.errors import UserError
from fvgen.evaluation.protocols import read_json

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOURS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with transparency", 6: "RGB with transparency"}


def safe_name(name: str) -> str:
    """A name of a system, scene or frame as that of a file: no separators, and never hidden or a way up."""
    return "".join(c if c.isalnum() or c in "+-_." else "-" for c in name).lstrip(".") or "-"


def read_frames(folder: Path, names: Sequence[str], numbers: Sequence[int], size: tuple[int, int]) -> Tensor:
    """The frames of one split.

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
    others = [
        p.name for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".webp", ".mp4", ".tif", ".tiff")
    ]
    if others:
        raise UserError(f"{folder}: {min(others)} is no PNG; only losslessly stored frames are scored")
    chosen = _matched(folder, files, names, numbers)
    return torch.stack([_read_png(path, size) for path in chosen])


def _matched(folder: Path, files: dict[str, Path], names: Sequence[str], numbers: Sequence[int]) -> list[Path]:
    """One file per frame asked for, in its order."""
    if set(files) == set(names):
        return [files[name] for name in names]
    by_number = {int(stem): path for stem, path in files.items() if stem.isdecimal()}
    if len(by_number) == len(files) and set(by_number) == set(numbers):
        return [by_number[number] for number in numbers]
    missing = [name for name in names if name not in files]
    extra = sorted(set(files) - set(names))
    if by_number and len(missing) == len(names):  # called by numbers, then
        missing = [f"frame {i}" for i in numbers if i not in by_number]
        extra = sorted(p.name for i, p in by_number.items() if i not in set(numbers))
    told = [
        f"{len(what)} {word} (such as {what[0]})" for word, what in (("missing", missing), ("extra", extra)) if what
    ]
    wrong = " and ".join(told) or "doubled numbers"
    raise UserError(
        f"{folder}: its {len(files)} frames are not the {len(names)} asked for: {wrong}; "
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
            f"cut from the photographs: --frames NAME=FOLDER@{width}x{height}[/WIDTHxHEIGHT scaled to cover]"
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

"""What a folder of training pairs holds, in words, bars and one picture; and whether all of it can be read."""

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fvgen.data.folders import SPLITS, check_pairs
from fvgen.data.reader import PairShards
from fvgen.data.samples import DamagedSample
from fvgen.data.shards import drops, read_scene, remarks
from fvgen.errors import UserError
from fvgen.files import sha256_of
from fvgen.progress import track

_BAR = 40
_BINS = 10


@dataclass(frozen=True)
class Holdings:
    """How many scenes, clips, frames and bytes a split has."""

    scenes: int
    clips: int
    frames: int
    bytes: int


@dataclass(frozen=True)
class Summary:
    """A folder of pairs in numbers.

    Attributes:
        splits: by name.
        dropped: clips that gave no pair, by reason.
        damaged: what cannot be used and why.
        remarks: what was done to the pictures of how many scenes.
        figures: of all clips, by name: frames, coverage and every plain number in their facts.
    """

    splits: dict[str, Holdings]
    dropped: dict[str, int]
    damaged: dict[str, str]
    figures: dict[str, list[float]]
    remarks: dict[str, int] = field(default_factory=dict)


def open_splits(folder: Path) -> dict[str, PairShards]:
    """Both splits of a folder.

    Raises:
        UserError: it is not a folder of pairs.
    """
    check_pairs(folder)
    return {split: PairShards(folder, split) for split in SPLITS}


def summarise(folder: Path) -> Summary:
    """Count what a folder of pairs holds, from manifest and records alone; nothing is decoded.

    Raises:
        UserError: it is not a folder of pairs.
    """
    splits: dict[str, Holdings] = {}
    damaged: dict[str, str] = {}
    figures: dict[str, list[float]] = {"frames": []}
    told = Counter[str]()
    for name, shards in open_splits(folder).items():
        size = sum(shard.bytes for shard in shards.shards)
        frames = [entry.frames for _, entry in shards.samples]
        splits[name] = Holdings(len(shards.shards), len(shards), sum(frames), size)
        damaged |= shards.damaged
        figures["frames"] += frames
        for scene in (shard.scene for shard in shards.shards):
            record = read_scene(folder, name, scene)
            told.update(re.sub(r"\d+ frames", "frames", line) for line in remarks(folder, name, scene))
            for facts in record["samples_facts"].values() if record else ():
                for key, value in facts.items():
                    if isinstance(value, int | float) and not isinstance(value, bool):
                        figures.setdefault(key, []).append(float(value))
    return Summary(splits, drops(folder), damaged, figures, dict(told))


def describe(summary: Summary) -> str:
    """A summary as a page of text."""
    lines = [
        f"{name}: {h.clips} clips of {h.scenes} scenes, {h.frames} frames, {h.bytes / 1e6:.1f} MB"
        for name, h in summary.splits.items()
    ]
    lines += [f"dropped: {count} x {reason}" for reason, count in summary.dropped.items()]
    lines += [f"noted: {count} x {remark}" for remark, count in summary.remarks.items()]
    lines += [f"damaged: {name}: {reason}" for name, reason in summary.damaged.items()]
    for name, values in summary.figures.items():
        if values:
            lines += ["", name.replace("_", " "), *histogram(values)]
    return "\n".join(lines)


def histogram(values: Sequence[float]) -> list[str]:
    """Lines of text with a bar each: for every value where there are few, else for every tenth of their range."""
    distinct = sorted(set(values))
    if len(distinct) <= _BINS:
        rows = [(f"{value:g}", list(values).count(value)) for value in distinct]
    else:
        counts, edges = np.histogram(values, _BINS)
        rows = [(f"{low:.4g} to {high:.4g}", int(n)) for low, high, n in zip(edges, edges[1:], counts)]
    wide, most = max(len(label) for label, _ in rows), max(count for _, count in rows)
    return [f"  {label:>{wide}} |{'#' * round(_BAR * count / most)} {count}" for label, count in rows]


def check(folder: Path) -> dict[str, str]:
    """Read every byte of a folder of pairs: the digests of the tars, then every sample, which is decoded.

    Returns:
        Why things are damaged, by their names.
    """
    damaged: dict[str, str] = {}
    for shards in open_splits(folder).values():
        for shard in track(shards.shards, f"digests of {shards.split}"):
            try:
                same = not shard.sha256 or sha256_of(folder / shard.name) == shard.sha256
            except OSError as error:
                damaged[shard.name] = str(error)
                continue
            if not same:
                damaged[shard.name] = "the file is not as it was written (its SHA-256 differs)"
        for index in track(range(len(shards)), f"samples of {shards.split}"):
            with suppress(DamagedSample):  # the shards remember it
                shards.read(index)
        damaged |= shards.damaged
    return damaged


def sheet(folder: Path, count: int, columns: int = 3, width: int = 256) -> NDArray[np.uint8]:
    """``[H, W, 3]``: clips spread over the folder, two side by side; of each some frames, truth over guide.

    Args:
        folder: of pairs.
        count: of clips.
        columns: frames of each.
        width: of a frame in the picture, in pixels.

    Raises:
        UserError: no clip can be read.
    """
    places = [(shards, k) for shards in open_splits(folder).values() for k in range(len(shards))]
    tiles = []
    for i in sorted({round(i * (len(places) - 1) / max(count - 1, 1)) for i in range(min(count, len(places)))}):
        shards, index = places[i]
        with suppress(DamagedSample):
            pair, _ = shards.read(index)
            rows = np.linspace(0, len(pair.frames) - 1, columns).round().astype(int)
            key = f"{shards.split}/{shards.samples[index][1].key}"
            tiles.append(_tile(key, [pair.frames[rows], pair.guide[rows]], width))
    if not tiles:
        raise UserError(f"{folder}: no clip that could be shown")
    height, side = (max(tile.shape[axis] for tile in tiles) for axis in (0, 1))
    picture = np.zeros((height * -(-len(tiles) // 2), side * min(len(tiles), 2), 3), np.uint8)
    for k, tile in enumerate(tiles):
        top, left = height * (k // 2), side * (k % 2)
        picture[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return picture


def _tile(title: str, rows: list[NDArray[np.uint8]], width: int) -> NDArray[np.uint8]:
    """Rows of frames under a line of text."""
    from PIL import Image, ImageDraw

    frames = [np.concatenate(list(row), axis=1) for row in rows]
    picture = Image.fromarray(np.concatenate(frames))
    scale = width * len(rows[0]) / picture.width
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
    tile = Image.new("RGB", (picture.width + 4, picture.height + 18))
    tile.paste(picture, (0, 16))
    ImageDraw.Draw(tile).text((3, 2), title, fill="white")
    return np.asarray(tile)

"""Index files: which frames of each scene are given and which asked for. MVSplat360's format, one entry a line.

``{"SCENE": {"context": [...], "target": [...]}}``. An entry named otherwise than its scene also has ``"scene"``;
entries that are ``null`` (pixelSplat's way to leave a scene out) count as absent.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fvgen.errors import UserError
from fvgen.evaluation.protocols import Split, checked_split, read_json


def index_text(splits: Sequence[Split]) -> str:
    """The index file of some splits: equal splits give equal bytes, so that hashes can be compared."""
    lines = []
    for split in sorted(splits, key=lambda s: s.name):
        entry: dict[str, Any] = {"context": split.context, "target": split.target}
        if split.scene != split.name:
            entry["scene"] = split.scene
        lines.append(f"{json.dumps(split.name)}: {json.dumps(entry, sort_keys=True)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def index_hash(splits: Sequence[Split]) -> str:
    """SHA-256 of :func:`index_text`, which is that of the file ``index.json`` in an output folder."""
    return hashlib.sha256(index_text(splits).encode()).hexdigest()


def write_index(path: Path, splits: Sequence[Split]) -> None:
    """Write an index file."""
    path.write_text(index_text(splits), encoding="utf-8")


def read_index(path: Path, frames: Mapping[str, int]) -> tuple[list[Split], list[str]]:
    """The splits of the scenes that are there.

    Args:
        path: the index file.
        frames: number of frames of each scene, by its name.

    Returns:
        Splits in the file's order, and the names of entries whose scene is not there.

    Raises:
        UserError: unreadable, not an index, frame numbers that a scene does not have, or no scene in common.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f'{path}: not an index; expected {{"SCENE": {{"context": [...], "target": [...]}}}}')
    splits, absent = [], []
    for name, entry in content.items():
        if entry is None:
            continue
        if not isinstance(entry, dict) or not {"context", "target"} <= set(entry):
            raise UserError(f"{path}, {name}: expected context and target, lists of frame numbers")
        scene = str(entry.get("scene", name))
        if scene not in frames:
            absent.append(name)
            continue
        if not isinstance(entry["context"], list) or not isinstance(entry["target"], list):
            raise UserError(f"{path}, {name}: context and target must be lists of frame numbers")
        splits.append(checked_split(Split(name, scene, entry["context"], entry["target"]), frames[scene], str(path)))
    if not splits:
        known = ", ".join(list(frames)[:3])
        raise UserError(f"{path}: none of its {len(content)} entries is a scene that is there ({known} ...)")
    return splits, absent

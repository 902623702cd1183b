"""Which frames of a scene are given and which are asked for: the protocols of the field as functions of the cameras.

A protocol sees a scene's camera centres (or only how many frames it has) and returns its splits. Where a paper left
its rule open, ``docs/evaluation.md`` says how it is read here.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from fvgen.errors import UserError
from fvgen.evaluation.datasets import EvaluationScene

_WINDOW_VIEWS = 5  # views of the paper's first table, which the second one's neighbours are taken from


@dataclass(frozen=True)
class Split:
    """One question to the systems: frames that are given and frames that are asked for.

    Attributes:
        name: unique in a run; names its outputs.
        scene: the scene's name.
        context: frame numbers in the scene's order, ascending.
        target: frame numbers, ascending; may hold some of the context.
    """

    name: str
    scene: str
    context: list[int]
    target: list[int]


@dataclass(frozen=True)
class Protocol:
    """A rule that splits scenes, and the pictures it is scored on.

    Attributes:
        name: as it was asked for.
        splits: all questions about one scene.
        size: (width, height) of the pictures for landscape scenes.
        through: size that pictures are scaled to cover before ``size`` is cut from their centre, ``None``: ``size``.
        blurs: whether blurred baselines belong to it.
    """

    name: str
    splits: Callable[[EvaluationScene], list[Split]]
    size: tuple[int, int]
    through: tuple[int, int] | None
    blurs: bool


def farthest_points(centers: Tensor, count: int) -> list[int]:
    """Cameras far from each other: the one farthest from the barycentre, then always the one farthest from all taken.

    Args:
        centers: ``[N, 3]`` camera centres.
        count: at most ``N``; fewer are the beginning of more, so sets of 3, 5 and 7 contain each other.

    Returns:
        Frame numbers in the order in which they were taken.
    """
    taken = [int((centers - centers.mean(0)).norm(dim=1).argmax())]
    distance = (centers - centers[taken[0]]).norm(dim=1)
    while len(taken) < count:
        taken.append(int(distance.argmax()))
        distance = distance.minimum((centers - centers[taken[-1]]).norm(dim=1))
    return taken


def strided_targets(frames: int, context: Sequence[int], count: int) -> list[int]:
    """MVSplat360's targets: of the frames that are not given, ``count`` at least, every ``rest // count``-th."""
    rest = sorted(set(range(frames)) - set(context))
    return rest[:: len(rest) // count][:count]


def _need(scene: EvaluationScene, frames: int, least: int, where: str = "") -> None:
    if frames < least:
        raise UserError(f"{scene.folder}: this protocol needs {least} frames{where}, the scene has {frames}")


def _mvsplat360(views: str, targets: str, half: str | None, scene: EvaluationScene) -> list[Split]:
    frames = len(scene) // 2 if half else len(scene)
    _need(scene, frames, int(views) + int(targets), " in its first half" if half else "")
    context = sorted(farthest_points(scene.centers[:frames], int(views)))
    return [Split(scene.name, scene.name, context, strided_targets(frames, context, int(targets)))]


def _depthsplat(last: int, target: list[int], scene: EvaluationScene) -> list[Split]:
    _need(scene, len(scene), last + 1)
    return [Split(scene.name, scene.name, [0, last], target)]


def window_split(frames: int, views: int, between: int) -> tuple[list[int], list[int]]:
    """Views in order and the frames evenly between neighbours.

    As many views as the paper's five (or ``views``, if more) are spread evenly over the scene, and the first
    ``views`` of them are given: two views are as far apart as two neighbours of five.

    Returns:
        Context and target frame numbers.
    """
    spread = max(views, _WINDOW_VIEWS) - 1
    context = [round(k * (frames - 1) / spread) for k in range(views)]
    target = [
        a + round(j * (b - a) / (between + 1)) for a, b in zip(context, context[1:]) for j in range(1, between + 1)
    ]
    return context, target


def _windows(views: str, between: str, scene: EvaluationScene) -> list[Split]:
    _need(scene, len(scene), (max(int(views), _WINDOW_VIEWS) - 1) * (int(between) + 1) + 1)
    return [Split(scene.name, scene.name, *window_split(len(scene), int(views), int(between)))]


def every_nth_split(frames: int, every: int, views: int | None) -> tuple[list[int], list[int]]:
    """Frames 0, n, 2n ... are asked for; all others are given, or ``views`` of them, evenly from first to last."""
    target = list(range(0, frames, every))
    rest = [i for i in range(frames) if i % every]
    if views is not None:
        rest = [rest[round(k * (len(rest) - 1) / (views - 1))] for k in range(views)]
    return rest, target


def _every(every: str, views: str | None, scene: EvaluationScene) -> list[Split]:
    n, count = int(every), int(views) if views else None
    _need(scene, len(scene) - len(range(0, len(scene), n)), count or 2, " beside its targets")
    return [Split(scene.name, scene.name, *every_nth_split(len(scene), n, count))]


def _seva(views: str, scene: EvaluationScene) -> list[Split]:
    path = scene.folder / f"train_test_split_{views}.json"
    content = read_json(path)
    try:
        context, target = sorted(content["train_ids"]), sorted(content["test_ids"])
    except (TypeError, KeyError):
        raise UserError(f"{path}: expected train_ids and test_ids, lists of frame numbers") from None
    return [checked_split(Split(scene.name, scene.name, context, target), len(scene), str(path))]


def _pairs(scene: EvaluationScene) -> list[Split]:
    path = scene.folder / "pairs.json"
    splits = []
    for pair in read_json(path):
        try:
            first, last, between = pair["first"], pair["last"], pair["between"]
            name = f"{scene.name}-{first:04d}"
        except (TypeError, KeyError, ValueError):
            raise UserError(f"{path}: expected a list of objects with first, last and between frame numbers") from None
        splits.append(checked_split(Split(name, scene.name, [first, last], between), len(scene), str(path)))
    return splits


def _own(scene: EvaluationScene) -> list[Split]:
    context = [i for i, frame in enumerate(scene.frames) if frame.part == "train"]
    target = [i for i, frame in enumerate(scene.frames) if frame.part == "test"]
    if not context or not target:
        raise UserError(f"{scene.folder}: this layout does not say which frames are for training and which for testing")
    return [Split(scene.name, scene.name, context, target)]


_WIDE = ((448, 256), (480, 270))  # what MVSplat360 and DepthSplat cut out of frames of 480x270

# Name, rule (called with the groups of the name and the scene), size of the pictures and what they are cut out of.
_PATTERNS: list[tuple[str, Callable[..., list[Split]], tuple[int, int], tuple[int, int] | None]] = [
    (r"mvsplat360-(\d+)x(\d+)(_n150)?", _mvsplat360, *_WIDE),
    (r"depthsplat-2v", partial(_depthsplat, 49, list(range(50))), *_WIDE),
    (r"depthsplat-2v-10", partial(_depthsplat, 9, [1, 3, 5, 7]), *_WIDE),
    (r"fvgen-(\d+)x(\d+)", _windows, (512, 320), None),
    (r"every-(\d+)th(?:-n(\d+))?", _every, (512, 320), None),
    (r"seva-(\w+)", _seva, (512, 320), None),
    (r"own-split", _own, (512, 320), None),
    (r"pairs", _pairs, (256, 160), None),
]

NAMES = (
    *("mvsplat360-5x56", "mvsplat360-5x56_n150", "depthsplat-2v", "depthsplat-2v-10", "fvgen-5x14", "fvgen-2x14"),
    *("every-8th", "every-8th-n12", "seva-3", "own-split", "pairs"),
)


def find_protocol(name: str) -> Protocol:
    """A protocol by its name; the numbers in names are free (``mvsplat360-3x56``, ``fvgen-5x14``, ``every-8th-n12``).

    Raises:
        UserError: no such name, or numbers that make no sense.
    """
    for pattern, rule, size, through in _PATTERNS:
        match = re.fullmatch(pattern, name)
        if match:
            numbers = [int(group) for group in match.groups() if group and group.isdigit()]
            if (numbers and min(numbers) < 1) or re.match(r"(fvgen|every)-1(x|th)|every-\d+th-n1$", name):
                raise UserError(f"`protocol` {name}: two views are needed at least, and one frame to look at")
            return Protocol(name, partial(rule, *match.groups()), size, through, blurs=name == "pairs")
    known = ", ".join(NAMES)
    raise UserError(f"`protocol` {name}: there is no such protocol; known are {known}, with other numbers too")


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        UserError: not there, or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error})") from None


def checked_split(split: Split, frames: int, where: str) -> Split:
    """The split as it is.

    Args:
        split: to look at.
        frames: how many its scene has.
        where: it was read from, for the complaint.

    Raises:
        UserError: fewer than two frames given or none asked for, frames that the scene does not have, or not ascending.
    """
    for what, numbers, least in (("given", split.context, 2), ("asked for", split.target, 1)):
        if not isinstance(numbers, list) or len(numbers) < least:
            raise UserError(f"{where}, {split.name}: {least} frames {what} are needed at least")
        wrong = [i for i in numbers if not isinstance(i, int) or isinstance(i, bool) or not 0 <= i < frames]
        if wrong:
            raise UserError(
                f"{where}, {split.name}: frame {wrong[0]} is {what}, but the scene has frames 0 to {frames - 1}"
            )
        if sorted(set(numbers)) != numbers:
            raise UserError(f"{where}, {split.name}: the frames {what} must be in ascending order, each once")
    return split


def index_text(splits: Sequence[Split]) -> str:
    """The content of an index file: equal splits give equal text, so that hashes can be compared."""
    lines = []
    for split in sorted(splits, key=lambda s: s.name):
        entry: dict[str, Any] = {"context": split.context, "target": split.target}
        if split.scene != split.name:
            entry["scene"] = split.scene
        lines.append(f"{json.dumps(split.name)}: {json.dumps(entry, sort_keys=True)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def index_hash(splits: Sequence[Split]) -> str:
    """SHA-256 of the index file of some splits, ``index.json`` in an output folder."""
    return hashlib.sha256(index_text(splits).encode()).hexdigest()


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
        if not isinstance(entry, dict) or not all(isinstance(entry.get(k), list) for k in ("context", "target")):
            raise UserError(f"{path}, {name}: expected context and target, lists of frame numbers")
        scene = str(entry.get("scene", name))
        if scene in frames:
            split = Split(name, scene, entry["context"], entry["target"])
            splits.append(checked_split(split, frames[scene], str(path)))
        else:
            absent.append(name)
    if not splits:
        known = ", ".join(list(frames)[:3])
        raise UserError(f"{path}: none of its {len(content)} entries is a scene that is there ({known} ...)")
    return splits, absent

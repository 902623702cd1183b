"""A run's folder: what began it, what defines it, how far it came. Light: imports no torch.

``run.json`` says what made the run: another recipe, teacher or corpus than that is refused when it is resumed.
"""

import json
import re
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fvgen.errors import UserError
from fvgen.files import check_folder, write_json

_SHOWN = 3  # differences that are named
_WHOLE = re.compile(r"step-(\d{8})")


def check_run_folder(folder: Path, task: str, *begun: str) -> None:
    """Say at once whether a run can begin or go on in a folder. Changes nothing.

    Loose files may lie there, such as what a shell keeps of the output; folders may not, where no run made them.

    Args:
        folder: of the run; it need not be there.
        task: its name, as ``run.json`` has it.
        begun: what else such a run leaves there, before ``run.json``.

    Raises:
        UserError: it cannot be written, or holds another task's run or something else.
    """
    check_folder(folder, f"`output` {folder}")
    there = {path.name: path for path in folder.iterdir()} if folder.exists() else {}
    try:
        other = json.loads((folder / "run.json").read_text())["identity"]["task"]
    except (OSError, ValueError, KeyError, TypeError):
        other = task
    if other != task:
        raise UserError(f"`output` {folder} holds a run of another kind ({other}, not {task}); choose another folder")
    if not there.keys() & {"run.json", *begun} and any(path.is_dir() for path in there.values()):
        raise UserError(f"`output` {folder} holds other things, and no run to go on with; choose another folder")


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields by their dotted names, with values as JSON gives them back."""
    found: dict[str, Any] = {}
    for name, value in json.loads(json.dumps(values, default=str)).items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def same_or_refuse(path: Path, identity: dict[str, Any], what: str) -> dict[str, Any] | None:
    """Compare what defines a run, or another thing that was made, with what a file says of it.

    Args:
        path: of the JSON file.
        identity: nested fields; below ``scenes`` are training data by name, which may have grown since.
        what: the thing's name for the message.

    Returns:
        The content of the file, or ``None`` where there is none.

    Raises:
        UserError: the file says otherwise; the message names the fields.
    """
    if not path.exists():
        return None
    try:
        noted = json.loads(path.read_text())
        old = flat(noted["identity"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not what was written there ({error}); choose another output folder") from None
    new = flat(identity)
    differing = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    scenes = [name for name in differing if ".scenes." in f".{name}"]
    told = [f"{_option(n)} is {_brief(new.get(n))}, was {_brief(old.get(n))}" for n in differing if n not in scenes]
    lost = [name for name in scenes if name in old]
    told += [f"{len(lost)} scenes of its training data are gone or changed"] if lost else []
    if told:
        more = f" and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
        raise UserError(
            f"{path.parent} holds {what} made otherwise: {'; '.join(told[:_SHOWN])}{more}; choose another output folder"
        )
    return noted


def _option(name: str) -> str:
    """A field as its option is called: the recipes' own names are not part of it."""
    return re.sub(r"^(recipe\.)?(distillation\.)?(clips\.)?", "", name).replace("_", "-")


def _brief(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def check_run(folder: Path, task: str, identity: dict[str, Any]) -> None:
    """Refuse a folder that holds another run.

    Raises:
        UserError: it does; the message names the fields that differ.
    """
    known = same_or_refuse(folder / "run.json", {"task": task, **identity}, "a run")
    if known is None and (whole_checkpoints(folder) or (folder / "state.pt").exists()):
        raise UserError(f"{folder} holds a run of an earlier version: choose another output folder")


def occupied(folder: Path) -> FileLock:
    """Take a run's folder for this process alone, until the lock is released or the process ends.

    Raises:
        UserError: another process trains there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "run.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{folder}: another training is running there; wait for it, or stop it first") from None
    return lock


def note_run(folder: Path, task: str, identity: dict[str, Any], free: dict[str, Any], step: int) -> None:
    """Write ``run.json``. Where a run goes on with other values of what may change, they are noted with the step.

    Args:
        folder: of the run, checked.
        task: its name.
        identity: what defines the run, as JSON.
        free: what may change from sitting to sitting, as JSON.
        step: at which this sitting begins.
    """
    path = folder / "run.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"free": free, "changes": []}
    old, new = flat(known["free"]), flat(free)
    changes = [
        {"step": step, "field": name, "from": old.get(name), "to": new.get(name)}
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]
    before, now = (_scenes(flat(x)) for x in (known.get("identity", identity), identity))
    if now > before:
        changes.append({"step": step, "field": "scenes", "from": before, "to": now})
    content = {"identity": {"task": task, **identity}, "free": free, "changes": known["changes"] + changes}
    write_json(path, json.loads(json.dumps(content, default=str)), finite=False)


def _scenes(fields: dict[str, Any]) -> int:
    return sum(".scenes." in f".{name}" for name in fields)


def whole_checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a run's folder, oldest first."""
    found = (folder / "checkpoints").glob("step-*")
    return sorted(path for path in found if _WHOLE.fullmatch(path.name))


def check_distilled(folder: Path) -> None:
    """Refuse what is no distillation that a student can be taken of.

    Raises:
        UserError: it is none, or has no checkpoint yet.
    """
    if not (folder / "teacher.json").is_file() or not whole_checkpoints(folder):
        raise UserError(f"{folder} is not a distillation's run with a checkpoint")


def facts_of(checkpoint: Path) -> dict[str, Any]:
    """The facts that were saved with a checkpoint's tensors."""
    return json.loads((checkpoint / "facts.json").read_text())


def read_log(folder: Path) -> list[dict[str, float]]:
    """The lines of a run's ``log.jsonl``.

    Raises:
        UserError: if there is none.
    """
    path = folder / "log.jsonl"
    if not path.is_file():
        raise UserError(f"{folder} is not a training run: it has no log.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def appetite_of(run: Path) -> float:
    """Clips per second that a training run uses for one batch a step, from its log and its newest checkpoint.

    A distillation draws a batch more for each turn of its critics; these are not counted.

    Raises:
        UserError: it is no training run, or has fewer than two logged steps or no checkpoint.
    """
    lines, saved = read_log(run), whole_checkpoints(run)
    if len(lines) < 2 or not saved:
        raise UserError(f"{run}: too short a run; two logged steps and a checkpoint are needed")
    steps, seconds = (lines[-1][name] - lines[0][name] for name in ("step", "seconds"))
    return facts_of(saved[-1])["recipe"]["batch"] * steps / seconds

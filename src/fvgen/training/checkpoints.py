"""A run on disk: what defines it, and its checkpoints, which are whole or not there.

``run.json`` says what made the run: another recipe, teacher or corpus than that is refused when it is resumed.

A checkpoint ``checkpoints/step-00000120`` holds tensors by name (sharded ones from all processes; they can be read by
any number of processes) and ``facts.json``. While it is written or deleted its folder ends in ``.partial``. Tensors go
through torch's distributed checkpoint, facts are JSON, and a rename comes at the end.
"""

import json
import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint import FileSystemReader

from fvgen.errors import UserError
from fvgen.files import write_json
from fvgen.models.lora import fingerprint as fingerprint_of_weights
from fvgen.training.distributed import DistributedContext

_SHOWN = 3  # differences that are named

_WHOLE = re.compile(r"step-(\d{8})")


def fingerprint(module: nn.Module) -> str:
    """Twelve hex digits of a network's weights."""
    return fingerprint_of_weights(sorted(module.state_dict().items()))


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


def facts_of(checkpoint: Path) -> dict[str, Any]:
    """The facts that were saved with a checkpoint's tensors."""
    return json.loads((checkpoint / "facts.json").read_text())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _remove(path: Path) -> None:
    """Delete a folder so that no half of it can be taken for a checkpoint."""
    partial = path if path.suffix == ".partial" else path.with_name(path.name + ".partial")
    if partial != path:
        shutil.rmtree(partial, ignore_errors=True)
        os.replace(path, partial)
    shutil.rmtree(partial)


def save(
    folder: Path, step: int, tensors: dict[str, Tensor], facts: dict[str, Any], world: DistributedContext, keep: int
) -> Path:
    """Write a checkpoint; all processes call it together.

    Args:
        folder: of the run.
        step: names the checkpoint.
        tensors: by name, of any shape; plain ones are the same in all processes or only in one of them.
        facts: what JSON can hold; those of the first process are written.
        world: the processes of the run.
        keep: how many of the newest checkpoints stay.
    """
    final = folder / "checkpoints" / f"step-{step:08d}"
    partial = final.with_name(final.name + ".partial")
    if world.rank == 0:
        final.parent.mkdir(parents=True, exist_ok=True)
        for leftover in final.parent.glob("*.partial"):
            _remove(leftover)
        partial.mkdir()
    world.barrier()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that there is one process
        dcp.save(tensors, checkpoint_id=partial)
    if world.rank == 0:
        (partial / "facts.json").write_text(json.dumps(facts, indent=1))
        _sync(partial / "facts.json")
        _sync(partial)
        os.replace(partial, final)
        _sync(final.parent)
        for old in whole_checkpoints(folder)[:-keep]:
            _remove(old)
    world.barrier()
    return final


def names_in(checkpoint: Path) -> set[str]:
    """The names of the tensors in a checkpoint."""
    return set(FileSystemReader(checkpoint).read_metadata().state_dict_metadata)


def load(checkpoint: Path, tensors: dict[str, Tensor], together: bool = True) -> None:
    """Fill tensors in place from a checkpoint, whatever number of processes wrote it.

    Args:
        checkpoint: a whole one.
        tensors: by name, of any shape, but that of the stored ones.
        together: all processes of the run call this; ``False``: this one alone.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load(tensors, checkpoint_id=checkpoint, no_dist=not together)

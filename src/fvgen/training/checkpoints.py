"""Checkpoints: whole or not there. Tensors with torch's distributed checkpoint, facts as JSON, a rename at the end.

A checkpoint ``checkpoints/step-00000120`` holds tensors by name (sharded ones from all processes; they can be read by
any number of processes) and ``facts.json``. While it is written or deleted its folder ends in ``.partial``.
"""

import json
import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader

from fvgen.training.world import World

_WHOLE = re.compile(r"step-(\d{8})")


def whole_checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a run's folder, oldest first."""
    found = (folder / "checkpoints").glob("step-*")
    return sorted(path for path in found if _WHOLE.fullmatch(path.name))


def facts_of(checkpoint: Path) -> dict[str, Any]:
    """What :func:`save` was told besides tensors."""
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


def save(folder: Path, step: int, tensors: dict[str, Tensor], facts: dict[str, Any], world: World, keep: int) -> Path:
    """Write a checkpoint; all processes call it together.

    Args:
        folder: of the run.
        step: names the checkpoint.
        tensors: by name; plain ones are the same in all processes or only in one of them.
        facts: what JSON can hold; rank 0's count.
        world: of the run.
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
    """Fill ``tensors`` in place, whatever number of processes wrote them.

    Args:
        checkpoint: a whole one.
        tensors: by name, of the right shapes.
        together: all processes of the run call this; ``False``: this one alone.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load(tensors, checkpoint_id=checkpoint, no_dist=not together)

"""The checkpoints of a run, which are whole or not there.

A checkpoint ``checkpoints/step-00000120`` holds tensors by name (sharded ones from all processes; they can be read by
any number of processes) and ``facts.json``. While it is written or deleted its folder ends in ``.partial``. Tensors go
through torch's distributed checkpoint, facts are JSON, and a rename comes at the end.
"""

import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.api import CheckpointException

from fvgen.files import writing
from fvgen.models.lora import fingerprint as fingerprint_of_weights
from fvgen.training.distributed import DistributedContext
from fvgen.training.run_folder import whole_checkpoints


def fingerprint(module: nn.Module) -> str:
    """Twelve hex digits of a network's weights."""
    return fingerprint_of_weights(sorted(module.state_dict().items()))


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

    Raises:
        UserError: the disk is full, or the folder refuses; the checkpoints that are there stay.
    """
    final = folder / "checkpoints" / f"step-{step:08d}"
    partial = final.with_name(final.name + ".partial")
    if world.rank == 0:
        final.parent.mkdir(parents=True, exist_ok=True)
        for leftover in final.parent.glob("*.partial"):
            _remove(leftover)
        partial.mkdir()
    world.barrier()
    try:
        with writing(folder, f"`output` {folder}"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns that there is one process
            try:
                dcp.save(tensors, checkpoint_id=partial, no_dist=world.size == 1)
            except CheckpointException as error:  # not even an Exception, and it hides the reason
                raise next(iter(error.failures.values()))[0] from None
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)  # on a full disk it is in the way
        raise
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

"""The processes of a run: one, or as many as torchrun started; their devices; how networks are spread on them."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.checkpoint import checkpoint

from fvgen.devices import find_device
from fvgen.errors import UserError
from fvgen.progress import track


@dataclass(frozen=True)
class DistributedContext:
    """This process among the processes of a run.

    Attributes:
        rank: number of this process, from 0.
        size: how many processes there are.
        device: where this process computes.
        mesh: over all processes; ``None`` in a world of one.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")
    mesh: DeviceMesh | None = None

    def share(self, batch: int, part: int = 0, parts: int = 1) -> range:
        """This process's rows of a batch, or of one of the parts that it is computed in, by their numbers in the whole.

        Raises:
            UserError: if the batch does not divide by processes and parts.
        """
        count, rest = divmod(batch, self.size * parts)
        if rest or batch < 1:
            raise UserError(
                f"a batch of {batch} cannot be shared out to {self.size} processes in {parts} parts: choose a multiple"
            )
        first = (part * self.size + self.rank) * count
        return range(first, first + count)

    def any(self, *flags: bool) -> list[bool]:
        """Whether each flag is up in any process."""
        if self.mesh is None:
            return list(flags)
        raised = torch.tensor(flags, dtype=torch.int32, device=self.device)
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        return [bool(flag) for flag in raised.tolist()]

    def mean(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Figures as means over the processes, which all call this with the same names in the same order."""
        if self.mesh is None:
            return dict(figures)
        values = torch.tensor([float(value) for value in figures.values()], dtype=torch.float64, device=self.device)
        dist.all_reduce(values)
        return dict(zip(figures, (values / self.size).tolist()))

    def gather(self, rows: Tensor) -> Tensor:
        """The rows ``[B, ...]`` of all processes one after the other; each has equally many."""
        if self.mesh is None:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.size)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average the gradients of parameters that every process holds whole; sharded ones are averaged by FSDP."""
        for parameter in parameters if self.mesh is not None else ():
            if parameter.grad is not None and not hasattr(parameter, "to_local"):
                dist.all_reduce(parameter.grad)
                parameter.grad /= self.size

    def wait_for(self, files: Sequence[Path], what: str) -> None:
        """Wait, for hours if need be, until files that other processes write are there: no barrier lasts that long."""
        missing = [file for file in files if not file.exists()] if self.size > 1 else []
        for file in track(missing, f"{what} of the other processes") if missing else ():
            while not file.exists():
                time.sleep(0.2)

    def barrier(self) -> None:
        """Wait for all processes, for minutes only unless more patience was asked for (:func:`joined`)."""
        if self.mesh is not None:
            dist.barrier()

    def place(self, module: nn.Module, recompute: bool = False, shard: bool = True) -> None:
        """Move a network to the device; with several processes shard it (FSDP2), block by block.

        A network says by a method ``blocks()`` which of its parts can be sharded or computed again by themselves, and
        last the module around them, through which it is called; without the method it is one piece.

        Args:
            module: a network, or a ``ModuleDict`` of some; its parameters are new objects afterwards.
            recompute: keep only the inputs of each block for the backward pass.
            shard: ``False`` keeps it whole in every process.
        """
        module.to(self.device)
        # It warns of results that are views, which must not be changed in place: our networks change nothing in place.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
        for network in module.values() if isinstance(module, nn.ModuleDict) else [module]:
            split: Any = getattr(network, "blocks", None)
            *blocks, root = split() if split else [network]
            for block in blocks if recompute else []:
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)
            # Also the root gives its weights back: one that stayed gathered after a forward without gradients
            # (pictures, held-out clips) would meet the optimizer and the average in its whole size.
            for part in (*blocks, root) if self.mesh is not None and shard else ():
                fully_shard(part, mesh=self.mesh, reshard_after_forward=True)


def local(tensor: Tensor) -> Tensor:
    """This process's share of a sharded tensor of any shape, in the same memory; other tensors as they are."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def device_named(name: str) -> torch.device:
    """The device that a name stands for: ``auto``, ``cpu``, ``cuda`` (this process's own GPU) or ``cuda:N``.

    Raises:
        UserError: there is no such GPU.
    """
    if name == "cuda" or (name == "auto" and torch.cuda.is_available()):
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    device = find_device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


@contextmanager
def joined(device: str = "auto", patience: timedelta | None = None) -> Iterator[DistributedContext]:
    """The processes of this run: those of the group that torchrun started, or this process alone.

    Args:
        device: see :func:`device_named`.
        patience: how long a process waits for the others before it is ended; by default PyTorch's own, which is short.
    """
    size, place = int(os.environ.get("WORLD_SIZE", 1)), device_named(device)
    if size == 1:
        yield DistributedContext(device=place)
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo", timeout=patience)
    try:
        yield DistributedContext(dist.get_rank(), size, place, init_device_mesh(place.type, (size,)))
    finally:
        dist.destroy_process_group()

"""The processes of a run: one, or as many as torchrun started; their devices; how networks are spread on them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.checkpoint import checkpoint

from fvgen.errors import UserError
from fvgen.models.unet import Stage


@dataclass(frozen=True)
class World:
    """This process among ``size``.

    Attributes:
        rank: 0 .. ``size - 1``.
        device: where this process computes.
        mesh: over all processes; ``None`` in a world of one.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")
    mesh: DeviceMesh | None = None

    def rows(self, whole: Tensor) -> Tensor:
        """This process's rows of ``[B, ...]``, on its device.

        Raises:
            UserError: if ``B`` does not divide by the number of processes.
        """
        count, rest = divmod(whole.shape[0], self.size)
        if rest:
            raise UserError(f"a batch of {whole.shape[0]} cannot be shared out to {self.size} processes")
        return whole[self.rank * count : (self.rank + 1) * count].to(self.device)

    def any(self, *flags: bool) -> list[bool]:
        """Each flag: whether it is up in any process."""
        if self.mesh is None:
            return list(flags)
        raised = torch.tensor(flags, dtype=torch.int32, device=self.device)
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        return [bool(flag) for flag in raised.tolist()]

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.mesh is not None:
            dist.barrier()

    @contextmanager
    def first_process_first(self) -> Iterator[None]:
        """Rank 0 does the body alone, then the others, who find what it wrote."""
        if self.rank > 0:
            self.barrier()
        yield
        if self.rank == 0:
            self.barrier()

    def place(self, module: nn.Module, recompute: bool = False) -> None:
        """Move a network to the device; with several processes shard it (FSDP2), block by block.

        Calls must go through the sharded modules themselves: a denoiser's UNet, or the module.

        Args:
            module: changed in place; its parameters are new objects afterwards.
            recompute: keep only the inputs of each UNet stage for the backward pass.
        """
        module.to(self.device)
        blocks = [part for part in module.modules() if isinstance(part, Stage)]
        for block in blocks if recompute else []:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]
        if self.mesh is None:
            return
        for block in blocks:
            fully_shard(block, mesh=self.mesh)
        for root in _entrances(module):
            fully_shard(root, mesh=self.mesh)


def _entrances(module: nn.Module) -> list[nn.Module]:
    """The modules whose ``forward`` is called from outside: of a denoiser, which adapts a network, that network."""
    if isinstance(module, nn.ModuleDict) or hasattr(module, "velocity"):
        return [root for part in module.children() for root in _entrances(part)]
    return [module]


def local(tensor: Tensor) -> Tensor:
    """This process's share of a sharded tensor, sharing its memory; other tensors as they are."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def device_named(name: str) -> torch.device:
    """``auto``, ``cpu``, ``cuda`` (this process's own GPU) or ``cuda:N`` as a device.

    Raises:
        UserError: there is no such GPU.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    device = torch.device(name)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"device {name}: there is no CUDA GPU here; use cpu")
        torch.cuda.set_device(device)
    return device


@contextmanager
def joined(device: str = "auto") -> Iterator[World]:
    """The world of this process: under torchrun the process group it speaks of, else a world of one.

    Args:
        device: see :func:`device_named`.
    """
    size, place = int(os.environ.get("WORLD_SIZE", 1)), device_named(device)
    if size == 1:
        yield World(device=place)
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), size, place, init_device_mesh(place.type, (size,)))
    finally:
        dist.destroy_process_group()

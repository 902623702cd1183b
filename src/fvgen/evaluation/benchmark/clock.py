"""Seconds and peak memory of each stage."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from mmap import PAGESIZE
from pathlib import Path

import torch
from torch import nn

from fvgen.models.speed import synchronize
from fvgen.pipeline import Clock

_EVERY = 0.01  # seconds between two looks at the resident set


def resident_bytes(process: str = "self") -> int:
    """Bytes of memory that a process (by its number) and its children hold, 0 where there is no /proc to tell.

    Pages that they share, of libraries for example, count once in each.
    """
    sizes = _read(f"/proc/{process}/statm").split()
    children = [child for file in glob(f"/proc/{process}/task/*/children") for child in _read(file).split()]
    return int(sizes[1]) * PAGESIZE + sum(map(resident_bytes, children)) if sizes else 0


def _read(file: str) -> str:
    try:
        return Path(file).read_text()
    except OSError:  # the process has ended meanwhile
        return ""


@contextmanager
def resident_peak() -> Iterator[list[int]]:
    """Look at :func:`resident_bytes` every 10 ms, in a thread, and gather what it was; the largest is the peak."""
    seen, end = [resident_bytes()], threading.Event()

    def watch() -> None:
        while not end.wait(_EVERY):
            seen.append(resident_bytes())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        end.set()
        thread.join()
        seen.append(resident_bytes())


class StageClock(Clock):
    """What each stage took, as the pipeline calls it; a GPU's queue is emptied at both ends of a stage.

    Args:
        device: of the work.
        model: what is measured; bytes on the GPU that others hold from before do not count.

    Attributes:
        seconds: per stage.
        resident: most bytes that the process and its children held in each stage, all they hold from before included;
            empty where the system does not tell.
        gpu: most bytes that PyTorch had allocated on the GPU in each stage; empty elsewhere.
    """

    def __init__(self, device: torch.device, model: nn.Module | None = None) -> None:
        super().__init__(device)
        self.resident: dict[str, int] = {}
        self.gpu: dict[str, int] = {}
        self._others = 0
        if device.type == "cuda" and model is not None:
            own = sum(p.numel() * p.element_size() for p in model.parameters() if p.is_cuda)
            self._others = torch.cuda.memory_allocated(device) - own

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure one stage; entered again, its seconds add up and the larger peak counts."""
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        with resident_peak() as resident:
            synchronize(self.device)
            start = time.perf_counter()
            yield
            synchronize(self.device)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        if max(resident):
            self.resident[name] = max(*resident, self.resident.get(name, 0))
        if cuda:
            held = torch.cuda.max_memory_allocated(self.device) - self._others
            self.gpu[name] = max(held, self.gpu.get(name, 0))

    def add(self, other: "StageClock") -> None:
        """Take over the stages of another clock, which are not this one's."""
        self.resident.update(other.resident)
        self.gpu.update(other.gpu)
        self.seconds.update({name: seconds for name, seconds in other.seconds.items() if seconds > 0})

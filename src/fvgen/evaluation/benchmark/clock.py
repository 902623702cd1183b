"""Seconds and peak memory per stage, the device's queue emptied at both ends of each."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from fvgen.models.speed import synchronize
from fvgen.pipeline import Clock

_EVERY = 0.01  # seconds between two looks at the resident set
_PROCESSES = Path("/proc")
MIB = 2**20


def resident_bytes() -> int | None:
    """Bytes of memory that this process and its children hold, or ``None`` where the system does not tell (no /proc).

    Pages that they share, of libraries for example, count once in each.
    """
    own = _PROCESSES / "self"
    if not (own / "statm").is_file():
        return None
    return _resident(own)


def _resident(process: Path) -> int:
    try:
        pages = int((process / "statm").read_text().split()[1])
        tasks = [task / "children" for task in (process / "task").iterdir()]
        children = [child for listed in tasks for child in _read(listed).split()]
    except (OSError, IndexError):  # it has ended meanwhile
        return 0
    return pages * _page_size() + sum(_resident(_PROCESSES / child) for child in children)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _page_size() -> int:
    import resource

    return resource.getpagesize()


class ResidentPeak:
    """The largest resident set since :meth:`reset`, looked at every 10 ms by a thread of its own."""

    def __init__(self) -> None:
        self._peak = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "ResidentPeak":
        if resident_bytes() is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(_EVERY):
            self._peak = max(self._peak, resident_bytes() or 0)

    def reset(self) -> None:
        """Start again from what is held now."""
        self._peak = resident_bytes() or 0

    def bytes(self) -> int | None:
        """The peak, or ``None`` where it cannot be measured."""
        now = resident_bytes()
        return None if now is None else max(self._peak, now)


class StageClock(Clock):
    """What each stage took, as the pipeline calls it.

    Attributes:
        seconds: per stage.
        resident: most bytes that the process and its children held in each stage, all they hold from before included;
            empty where the system does not tell.
        gpu: most bytes that PyTorch had allocated on the GPU in each stage; empty elsewhere.
    """

    def __init__(self, device: torch.device, resident: ResidentPeak) -> None:
        super().__init__(device)
        self.resident: dict[str, int] = {}
        self.gpu: dict[str, int] = {}
        self._watched = resident

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure one stage; entered again, its seconds add up and the larger peak counts."""
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        self._watched.reset()
        synchronize(self.device)
        start = time.perf_counter()
        yield
        synchronize(self.device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        held = self._watched.bytes()
        if held is not None:
            self.resident[name] = max(held, self.resident.get(name, 0))
        if cuda:
            self.gpu[name] = max(torch.cuda.max_memory_allocated(self.device), self.gpu.get(name, 0))

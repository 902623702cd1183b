"""Numbered PNG files, written by threads while more pictures are made."""

import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from torch import Tensor

from fvgen.progress import track
from fvgen.scene.formats.images import write_png


class PngWriter:
    """Writes ``00000.png`` and so on into a folder, which it makes; for a ``with``.

    Leaving the block waits for what has been begun; after an error it drops what has not.

    Args:
        folder: for the files.
        threads: that compress; by default one per core, four at most.

    Attributes:
        added: numbers of the pictures that it was given.
    """

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        self.folder = folder
        self.added: set[int] = set()
        self._begun: list[Future[None]] = []
        self._pool = ThreadPoolExecutor(threads or min(4, os.cpu_count() or 1))
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "PngWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=error is not None)

    def name(self, number: int) -> str:
        """The name of a frame's file."""
        return f"{number:05d}.png"

    def add(self, numbers: Iterable[int], pictures: Tensor) -> None:
        """Begin to write pictures ``[N, H, W, 3]`` or ``[N, H, W]``, see `write_png`; they must not change any more."""
        for number, picture in zip(numbers, pictures, strict=True):
            self.added.add(number)
            self._begun.append(self._pool.submit(write_png, self.folder / self.name(number), picture))

    def finish(self) -> None:
        """Wait until everything is written.

        Raises:
            OSError: a file cannot be written.
        """
        for one in track(self._begun, f"writing {self.folder.name}"):
            one.result()

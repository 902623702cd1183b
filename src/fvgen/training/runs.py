"""What every training run shares: a folder, resumable state, a log of JSON lines, a clock that survives restarts."""

import json
import os
import time
from pathlib import Path
from typing import Any

import torch


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """``torch.save`` under a temporary name, then rename: a killed run never leaves half a file."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


class Run:
    """A training run's folder: ``state.pt`` (resumable), ``log.jsonl``.

    Args:
        folder: created where absent; a ``state.pt`` in it is resumed.
        save_every: seconds between saves of the state.
    """

    def __init__(self, folder: Path, save_every: float = 120.0) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.save_every = save_every
        self.seconds_before = 0.0
        self.started = self.saved = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds trained, over all sittings."""
        return self.seconds_before + time.monotonic() - self.started

    def load(self) -> dict[str, Any] | None:
        """The saved state, or ``None`` for a fresh run."""
        path = self.folder / "state.pt"
        if not path.exists():
            return None
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.seconds_before = state["seconds"]
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Write the state now."""
        save_atomically({**state, "seconds": self.seconds}, self.folder / "state.pt")
        self.saved = time.monotonic()

    @property
    def save_due(self) -> bool:
        """Whether it is time to save again."""
        return time.monotonic() - self.saved > self.save_every

    def log(self, **values: float | int | str) -> None:
        """Append one line of figures."""
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({"seconds": round(self.seconds, 1), **values}) + "\n")

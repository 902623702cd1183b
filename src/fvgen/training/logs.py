"""What a run writes to be looked at: one JSON line per step, pictures, and TensorBoard where it is wanted."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fvgen.files import whole_file, write_text
from fvgen.packages import require
from fvgen.training.run_folder import read_log


def peak_memory(device: torch.device) -> float:
    """Most memory used so far, in GB: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


class RunLog:
    """Writes ``log.jsonl``, ``pictures/`` and ``tensorboard/`` of a run.

    Lines of an earlier sitting are dropped where they are of steps that will be done again.

    Args:
        folder: of the run; created where absent.
        step: the first step that will be logged.
        tensorboard: also write event files.
        writes: ``False`` for all processes but one.

    Raises:
        UserError: if TensorBoard is wanted and not installed.
    """

    def __init__(self, folder: Path, step: int, tensorboard: bool = False, writes: bool = True) -> None:
        self.folder, self.writes = folder, writes
        self.board: Any = None
        if not writes:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "log.jsonl"
        if path.exists():
            kept = (line for line in read_log(folder) if line["step"] < step)
            write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        if tensorboard:
            require("tensorboard", "`tensorboard`")
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *error: object) -> None:
        if self.board is not None:
            self.board.close()

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Write the figures of a step as one line, rounded to six digits; integers stay integers."""
        if not self.writes:
            return
        rounded = {k: v if isinstance(v, int) else float(f"{v:.6g}") for k, v in figures.items()}
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, **rounded}) + "\n")
        if self.board is not None:
            for name, value in figures.items():
                self.board.add_scalar(name.replace("_", "/", 1), value, step)

    def pictures(self, step: int, pictures: Mapping[str, Tensor]) -> None:
        """Write pictures ``[3, H, W]`` in -1..1 as ``pictures/NAME/STEP.png``."""
        for name, picture in pictures.items() if self.writes else ():
            pixels = ((picture.float().clamp(-1, 1) + 1) * 127.5).round().byte().movedim(0, -1).cpu().numpy()
            path = self.folder / "pictures" / name / f"{step:06d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as unfinished:
                Image.fromarray(np.ascontiguousarray(pixels)).save(unfinished, format="PNG")
            if self.board is not None:
                self.board.add_image(name, pixels, step, dataformats="HWC")


def sheet(rows: Mapping[str, Tensor], columns: int = 6) -> Tensor:
    """Clips ``[T, 3, H, W]`` under each other, some frames of each side by side: ``[3, rows * H, columns * W]``."""
    lines = []
    for clip in rows.values():
        shown = clip[torch.linspace(0, len(clip) - 1, min(columns, len(clip))).round().long()]
        lines.append(torch.cat(list(shown.float().cpu()), dim=-1))
    return torch.cat(lines, dim=-2)

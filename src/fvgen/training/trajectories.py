"""A folder of the teacher's trajectories, made once and drawn from."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fvgen.distillation.config import DistillationConfig
from fvgen.distillation.methods import Clips
from fvgen.distillation.ode import TrajectoryPoints, trajectories
from fvgen.distillation.roles import Denoiser
from fvgen.models.denoiser import Condition
from fvgen.progress import track
from fvgen.training.world import World

_CONDITION = ("concat", "context", "null_context", "fs")


class TrajectoryStore:
    """One file per batch of trajectories, half precision.

    Args:
        folder: created where absent; what it holds is kept.
        times: ``[K]``, the student's times, high to low.
        world: the processes; each makes its share of the files.
    """

    def __init__(self, folder: Path, times: Tensor, world: World) -> None:
        self.folder, self.times, self.world = folder, times, world
        folder.mkdir(parents=True, exist_ok=True)

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:06d}.safetensors"

    @property
    def files(self) -> list[Path]:
        """The whole files."""
        return sorted(self.folder.glob("*.safetensors"))

    def make(self, files: int, batch: int, data: Any, teacher: Denoiser, config: DistillationConfig, seed: int) -> None:
        """Follow the teacher from noise, under conditions of ``data``, until there are ``files`` files of ``batch``."""
        wanted = [n for n in range(files) if n % self.world.size == self.world.rank and not self._file(n).exists()]
        for number in track(wanted, "teacher's trajectories"):
            clips: Clips = data.ready(data.draw(np.random.default_rng((seed, number, 5)), batch, number * batch))
            generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
            noise = torch.randn(clips.x0.shape, generator=generator).to(clips.x0.device)
            found = trajectories(teacher, noise, clips.condition, config)
            tensors = {"states": found.states, "x0": found.x0} | {
                name: value
                for name in _CONDITION
                if clips.condition is not None and (value := getattr(clips.condition, name)) is not None
            }
            partial = self._file(number).with_suffix(f".{self.world.rank}.partial")
            save_file({k: v.half().cpu().contiguous() for k, v in tensors.items()}, partial)
            os.replace(partial, self._file(number))
        self.world.barrier()

    def draw(self, rng: np.random.Generator, count: int) -> dict[str, Tensor]:
        """``count`` rows of one file, each at one of the student's times."""
        files = self.files
        stored = load_file(files[rng.integers(len(files))])
        total = len(stored["x0"])
        rows = torch.from_numpy(rng.choice(total, count, replace=total < count))
        step = torch.from_numpy(rng.integers(0, len(self.times), count))
        states = stored.pop("states")
        drawn = {name: value[rows].float() for name, value in stored.items()}
        return {**drawn, "x_t": states[step, rows].float(), "t": self.times[step]}

    def ready(self, drawn: dict[str, Tensor]) -> TrajectoryPoints:
        """This process's share of what was drawn, on its device."""
        mine = {name: self.world.rows(value) for name, value in drawn.items()}
        concat, context, null, fs = (mine.get(name) for name in _CONDITION)
        condition = None if concat is None or context is None else Condition(concat, context, null, fs)
        return TrajectoryPoints(mine["x_t"], mine["t"], mine["x0"], condition)

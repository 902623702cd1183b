"""Trajectories of the teacher's ODE, made once, by all processes, kept in a folder, and drawn from by regression."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from fvgen.diffusion import ddim_sample, guide
from fvgen.diffusion.random import BatchRandom
from fvgen.distillation.config import DistillationConfig
from fvgen.distillation.methods import Clips, Denoiser, TrajectoryPoints
from fvgen.errors import UserError
from fvgen.files import write_json, write_whole
from fvgen.models.denoiser import Condition
from fvgen.progress import track
from fvgen.training.distributed import DistributedContext
from fvgen.training.run_folder import same_or_refuse

_CONDITION = ("concat", "context", "null_context", "fs")

_NOISE, _CLIPS = 5, 6  # apart from what a training draws

# Of the options: what a trajectory depends on.
_OPTIONS = ("steps", "ode_steps", "guidance_scale", "guidance_rescale")


class TrajectoryStore:
    """A folder of a teacher's trajectories in half precision, each of them a function of its number alone.

    Args:
        folder: created where absent; what it holds is kept.
        config: how many trajectories, of which steps and guidance.
        seed: of noise and conditions.
        data: a :class:`fvgen.training.student.Data` whose batches give the conditions, one batch for each file.
        each: how many trajectories a file holds.
    """

    def __init__(self, folder: Path, config: DistillationConfig, seed: int, data: Any, each: int = 1) -> None:
        self.folder, self.config, self.seed, self.data, self.each = folder, config, seed, data, each
        self.files = [folder / f"{k:06d}.safetensors" for k in range(-(-config.ode_pairs // each))]
        self.times = torch.zeros(0)
        self.device = torch.device("cpu")
        self._alike: dict[tuple[int, ...], list[Path]] = {}  # files by the shape of a clip
        self._last: tuple[Path, dict[str, Tensor]] | None = None

    def make(self, teacher: Denoiser, identity: dict[str, Any], world: DistributedContext, at_once: int = 1) -> None:
        """Follow the teacher from noise, under the data's conditions, until all files are there.

        Each process makes its share of them, resumably, and waits for the files of the others, not at a barrier.

        Args:
            teacher: many-step, whole in every process.
            identity: what defines the teacher, as JSON.
            world: the processes.
            at_once: how many files are made together, as memory allows; 1 where clips differ in length.

        Raises:
            UserError: the folder holds trajectories of another teacher, of other data, or made otherwise.
        """
        self.times, self.device = torch.tensor(teacher.schedule.trailing_timesteps(self.config.steps)), world.device
        options = {name: getattr(self.config, name) for name in _OPTIONS}
        identity = {**identity, **options, "seed": self.seed, "each": self.each, "data": self.data.identity()}
        told = self.folder / "trajectories.json"
        if same_or_refuse(told, identity, "trajectories") is None and any(self.folder.glob("*.safetensors")):
            raise UserError(f"{self.folder}: there are trajectories, and nothing says what made them; remove them")
        self.folder.mkdir(parents=True, exist_ok=True)
        if world.rank == 0 and not told.exists():
            write_json(told, {"identity": identity}, finite=False)
        mine = [k for k in range(len(self.files)) if k % world.size == world.rank and not self.files[k].exists()]
        groups = [mine[k : k + at_once] for k in range(0, len(mine), at_once)]
        for group in track(groups, "teacher's trajectories"):
            self._write(group, teacher)
        world.wait_for(self.files, "trajectories")
        for file in self.files:
            with safe_open(file, "pt") as stored:
                self._alike.setdefault(tuple(stored.get_slice("x0").get_shape()[1:]), []).append(file)

    def _write(self, numbers: list[int], teacher: Denoiser) -> None:
        clips = [self._clips(number) for number in numbers]
        noise = [BatchRandom((self.seed, _NOISE), k * self.each).noise(clip.x0) for k, clip in zip(numbers, clips)]
        conditions = [clip.condition for clip in clips]
        condition = None if conditions[0] is None else Condition.joined(conditions)
        found = trajectories(teacher, torch.cat(noise), condition, self.config)
        for place, number in enumerate(numbers):
            rows = slice(place * self.each, (place + 1) * self.each)
            tensors = {"states": found.states[:, rows], "x0": found.x0[rows]} | {
                name: value[rows]
                for name in _CONDITION
                if condition is not None and (value := getattr(condition, name)) is not None
            }
            data = save({k: v.half().cpu().contiguous() for k, v in tensors.items()})
            write_whole(self.files[number], lambda file, data=data: file.write(data))  # type: ignore[misc]

    def _clips(self, number: int) -> Clips:
        drawn: Clips = self.data.ready(self.data.draw((self.seed, _CLIPS, number), range(self.each)))
        return drawn

    def draw(self, key: tuple[int, ...], rows: range, at: int = 0) -> dict[str, Tensor]:
        """For each row a trajectory at one of the student's times, in half precision; all of one length.

        Returns:
            ``x_t`` and ``x0 [B, ...]``, times ``t [B]``, and the parts of the conditions, by name.
        """
        shapes = [shape for shape, files in self._alike.items() for _ in files]
        files = self._alike[shapes[int(np.random.default_rng(key).integers(len(shapes)))]]
        points = [self._point(np.random.default_rng((*key, row)), files) for row in rows]
        return {name: torch.stack([point[name] for point in points]) for name in points[0]}

    def _point(self, rng: np.random.Generator, files: list[Path]) -> dict[str, Tensor]:
        stored = self._load(files[int(rng.integers(len(files)))])
        row, step = int(rng.integers(len(stored["x0"]))), int(rng.integers(len(self.times)))
        point = {name: value[row] for name, value in stored.items() if name != "states"}
        return {**point, "x_t": stored["states"][step, row], "t": self.times[step]}

    def _load(self, file: Path) -> dict[str, Tensor]:
        """The file used last stays in memory: the toy has only one."""
        if self._last is None or self._last[0] != file:
            self._last = (file, load_file(file))
        return self._last[1]

    def ready(self, drawn: dict[str, Tensor]) -> TrajectoryPoints:
        """Points ``[B, ...]`` that were drawn, in float32, on the device of the process."""
        t = drawn["t"].to(self.device)
        mine = {name: value.to(self.device).float() for name, value in drawn.items() if name != "t"}
        concat, context, null, fs = (mine.get(name) for name in _CONDITION)
        condition = None if concat is None or context is None else Condition(concat, context, null, fs)
        return TrajectoryPoints(mine["x_t"], t, mine["x0"], condition)


class Trajectories(NamedTuple):
    """Trajectories at the student's times, and where they end.

    Attributes:
        states: ``[K, B, ...]``, ``x_t`` at each of the student's times, from high to low.
        x0: ``[B, ...]``, unscaled.
    """

    states: Tensor
    x0: Tensor


@torch.no_grad()
def trajectories(teacher: Denoiser, noise: Tensor, condition: Any, config: DistillationConfig) -> Trajectories:
    """Follow the guided teacher by deterministic DDIM from ``noise [B, ...]`` (Yin et al. 2025, CausVid)."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        conditional = teacher.velocity(x, t, condition)
        if config.scale == 1.0:
            return conditional
        unconditional = teacher.velocity(x, t, teacher.drop(condition))
        return guide(conditional, unconditional, config.scale, config.guidance_rescale)

    states, every = [noise.float()], config.ode_steps // config.steps

    def keep(step: int, t: int, x: Tensor) -> None:
        if (step + 1) % every == 0 and step + 1 < config.ode_steps:
            states.append(x.clone())

    x0 = ddim_sample(velocity, teacher.schedule, noise, config.ode_steps, eta=0.0, callback=keep)
    return Trajectories(torch.stack(states), x0)

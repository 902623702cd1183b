"""The trainer. It knows roles by name only: what they are, and what a loss means, is the task's business.

A run is a number of steps; a step is a few turns; a turn updates some roles once, from one loss. Updates are counted
per role, and learning rates, averages and logs follow those counts.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException

from fvgen import __version__
from fvgen.diffusion.random import BatchRandom
from fvgen.errors import UserError
from fvgen.progress import track
from fvgen.training import checkpoints
from fvgen.training.distributed import DistributedContext, local
from fvgen.training.engine_config import EngineConfig
from fvgen.training.logs import RunLog, peak_memory


@dataclass
class Role:
    """A trained network.

    Attributes:
        module: what is trained, with AdamW.
        lr: learning rate of update ``n``, from 0.
        betas, weight_decay: of AdamW.
        clip: largest norm of the gradient.
        average: a copy that follows the module, or ``None``.
        decay: of the average at update ``n``.
        sharded: over the processes; small parts of a network that every process holds whole are not.
    """

    module: nn.Module
    lr: Callable[[int], float]
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    clip: float = 1.0
    average: nn.Module | None = None
    decay: Callable[[int], float] = field(default=lambda update: 0.999)
    sharded: bool = True


class Turn(NamedTuple):
    """One update of the roles it trains; ``kind`` is for the task and the log."""

    kind: str
    trains: tuple[str, ...]


class Task(Protocol):
    """What is trained and on what.

    Attributes:
        name: on the progress bar.
        steps: length of the run.
        seed: of the draws.
        roles: trained networks by name.
        frozen: networks that are used and not trained; they are placed and sharded like the others.
        identity: everything that defines the run: a folder that holds another one is refused; JSON.
        free: what may change from sitting to sitting, noted with its step; JSON.
    """

    name: str
    steps: int
    seed: int
    roles: dict[str, Role]
    frozen: Sequence[nn.Module]
    identity: dict[str, Any]
    free: dict[str, Any]

    def rows(self, step: int) -> int:
        """Size of the batches of a step, over all processes and parts."""

    def turns(self, step: int) -> Sequence[Turn]:
        """The turns of a step, in order."""

    def batch(self, step: int, turn: int, rows: range) -> Any:
        """Some rows of a turn's batch, on the CPU: each a function of step, turn and its number, and of nothing else.

        It is called ahead of time, in order, in another thread.
        """

    def loss(self, turn: Turn, batch: Any, draws: BatchRandom) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        """The mean loss over some rows of the batch, and scalars to log, the same names in all processes."""

    def after(self, step: int) -> Mapping[str, float]:
        """Called after every step by all processes; measures something now and then."""

    def pictures(self, step: int) -> Mapping[str, Tensor]:
        """Pictures to keep, ``[3, H, W]`` in -1..1, by name; called by all processes when they are due."""


class _Counted:
    """A role with its optimizer and its counts."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.parameters = list(role.module.parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=role.lr(0), betas=role.betas, weight_decay=role.weight_decay
        )
        for parameter in self.parameters:  # from the start, so that a checkpoint always has the same tensors
            moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            self.optimizer.state[parameter] = {"step": torch.zeros(()), **moments}
        self.updates = self.skipped = self.skipped_in_a_row = 0

    def update(self, world: DistributedContext) -> float:
        """One optimizer step with the gradients there are, unless they are not finite. Returns their norm."""
        world.average_gradients(self.parameters)
        clipped = nn.utils.clip_grad_norm_(self.parameters, self.role.clip)
        norm = float(clipped.full_tensor() if hasattr(clipped, "full_tensor") else clipped)
        if not math.isfinite(norm):
            self.skipped += 1
            self.skipped_in_a_row += 1
            return norm
        for group in self.optimizer.param_groups:
            group["lr"] = self.role.lr(self.updates)
        self.optimizer.step()
        if self.role.average is not None:
            self._follow(self.role.average, 1 - self.role.decay(self.updates))
        self.updates += 1
        self.skipped_in_a_row = 0
        return norm

    @torch.no_grad()
    def _follow(self, average: nn.Module, share: float) -> None:
        for a, c in zip(average.parameters(), self.role.module.parameters()):
            local(a).lerp_(local(c), share)

    def tensors(self) -> dict[str, Tensor]:
        """Weights, moments and average, by name; filling them in place restores the role."""
        found = {f"weights.{name}": value for name, value in self.role.module.state_dict().items()}
        for name, parameter in self.role.module.named_parameters():
            found |= {f"{k}.{name}": v for k, v in self.optimizer.state[parameter].items()}
        if self.role.average is not None:
            found |= {f"average.{name}": value for name, value in self.role.average.state_dict().items()}
        return found


class Trainer:
    """Runs a task in a folder, from its newest whole checkpoint where there is one.

    ``FOLDER/run.json``, ``FOLDER/checkpoints`` and ``FOLDER/log.jsonl`` are written. SIGTERM and SIGINT end the run
    after the step in hand, with a checkpoint; the second one ends it at once.

    Args:
        task: what is trained.
        folder: of the run.
        config: of the engine.
        world: the processes.

    Raises:
        UserError: the folder holds another run, or a batch that cannot be shared out to the processes.
    """

    def __init__(self, task: Task, folder: Path, config: EngineConfig, world: DistributedContext) -> None:
        self.task, self.folder, self.config, self.world = task, folder, config, world
        for step in (0, task.steps - 1):
            world.share(task.rows(step), 0, config.accumulate)
        checkpoints.check_run(folder, task.name, task.identity)
        for role in task.roles.values():
            world.place(role.module, config.recompute, role.sharded)
            if role.average is not None:
                world.place(role.average.requires_grad_(False), shard=role.sharded)
        for module in task.frozen:
            world.place(module.requires_grad_(False), config.recompute)
        self.roles = {name: _Counted(role) for name, role in task.roles.items()}
        self.step, self.seconds_before = 0, 0.0
        self.started = self.saved = time.monotonic()
        self.seconds: dict[str, float] = {}
        torch.manual_seed(int(np.random.SeedSequence((task.seed, world.rank)).generate_state(1)[0]))  # of dropout
        self._resume()
        if world.rank == 0:
            checkpoints.note_run(folder, task.name, task.identity, {"engine": asdict(config), **task.free}, self.step)
        self.log = RunLog(folder, self.step, config.tensorboard, writes=world.rank == 0)

    @property
    def age(self) -> float:
        """Seconds trained, over all sittings."""
        return self.seconds_before + time.monotonic() - self.started

    def run(self) -> None:
        """Train to the end.

        Raises:
            KeyboardInterrupt: after saving, when a signal asked for it.
            UserError: when a role's gradients were not finite too often in a row.
        """
        if self.step >= self.task.steps:
            return
        batches = self._batches()
        with _signals() as asked, self.log:
            steps = range(self.step, self.task.steps)
            for step in track(steps, self.task.name) if self.world.rank == 0 else steps:
                figures = self._one_step(step, batches)
                self.step = step + 1
                with self._precision():
                    measured = self.task.after(step)
                self._report(step, {**figures, **measured}, bool(measured))
                stop, due = self.world.any(asked.is_set(), time.monotonic() - self.saved > self.config.save_every)
                if stop or due or self.step == self.task.steps:
                    self._save()
                if stop and self.step < self.task.steps:
                    batches.close()
                    raise KeyboardInterrupt

    def _batches(self) -> Generator[Any, None, None]:
        """All batches from here on, in order, a few ahead of time."""
        keys = (
            (step, turn, self._rows(step, part))
            for step in range(self.step, self.task.steps)
            for turn in range(len(self.task.turns(step)))
            for part in range(self.config.accumulate)
        )
        ahead: deque[Any] = deque()
        with ThreadPoolExecutor(1) as pool:
            try:
                for key in keys:
                    ahead.append(pool.submit(self.task.batch, *key))
                    if len(ahead) > self.config.prefetch:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _rows(self, step: int, part: int) -> range:
        return self.world.share(self.task.rows(step), part, self.config.accumulate)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.config.bf16)

    def _one_step(self, step: int, batches: Iterator[Any]) -> dict[str, float]:
        figures: dict[str, float] = {}
        for number, turn in enumerate(self.task.turns(step)):
            began = time.monotonic()
            figures |= self._turn(step, number, turn, batches)
            key = f"seconds_{turn.kind}"
            self.seconds[key] = self.seconds.get(key, 0.0) + time.monotonic() - began
        return figures

    def _turn(self, step: int, number: int, turn: Turn, batches: Iterator[Any]) -> dict[str, float]:
        for name, counted in self.roles.items():
            counted.role.module.requires_grad_(name in turn.trains)
        shown: dict[str, float] = {}
        for part in range(self.config.accumulate):
            batch, draws = next(batches), BatchRandom((self.task.seed, step, number), self._rows(step, part).start)
            with self._precision():
                loss, figures = self.task.loss(turn, batch, draws)
            (loss / self.config.accumulate).backward()
            for name, value in {f"loss_{turn.kind}": loss.detach(), **figures}.items():
                shown[name] = shown.get(name, 0.0) + float(value) / self.config.accumulate
        for name in turn.trains:
            counted = self.roles[name]
            shown[f"norm_{name}"] = counted.update(self.world)
            counted.optimizer.zero_grad(set_to_none=True)
            if counted.skipped_in_a_row >= self.config.nonfinite_limit:
                raise UserError(
                    f"{self.folder}: {counted.skipped_in_a_row} gradients of '{name}' in a row were not finite at step "
                    f"{step}; go on from its last checkpoint with a lower learning rate or without bf16"
                )
        return shown

    def _report(self, step: int, figures: dict[str, float], measured: bool) -> None:
        last = step + 1 == self.task.steps
        if step % self.config.log_every == 0 or measured or last:
            for name, counted in self.roles.items():
                figures[f"updates_{name}"] = counted.updates
                if counted.skipped:
                    figures[f"skipped_{name}"] = counted.skipped
            figures |= {**self.seconds, "memory_gb": peak_memory(self.world.device)}
            whole = {name for name, value in figures.items() if isinstance(value, int)}
            means = self.world.mean(figures)
            shared = {name: int(means[name]) if name in whole else means[name] for name in figures}
            self.log.write(step, {"seconds": self.age, **shared})
            self.seconds = {}
        every = self.config.picture_every
        if every and (step % every == 0 or last):
            with self._precision():
                self.log.pictures(step, self.task.pictures(step))

    def _tensors(self) -> dict[str, Tensor]:
        found = {f"{role}.{name}": t for role, c in self.roles.items() for name, t in c.tensors().items()}
        found[f"random.{self.world.rank}"] = torch.get_rng_state()
        if self.world.device.type == "cuda":
            found[f"random_cuda.{self.world.rank}"] = torch.cuda.get_rng_state(self.world.device)
        return found

    def _save(self) -> None:
        counts = {name: [c.updates, c.skipped, c.skipped_in_a_row] for name, c in self.roles.items()}
        facts = {"step": self.step, "counts": counts, "seconds": self.age, "processes": self.world.size}
        recipe = {**self.task.identity.get("recipe", {}), **self.task.free.get("recipe", {})}
        facts |= {"version": __version__, "task": self.task.name, "recipe": recipe}
        checkpoints.save(self.folder, self.step, self._tensors(), facts, self.world, self.config.keep)
        self.saved = time.monotonic()

    def _resume(self) -> None:
        whole = checkpoints.whole_checkpoints(self.folder)
        if not whole:
            return
        facts, stored = checkpoints.facts_of(whole[-1]), checkpoints.names_in(whole[-1])
        tensors = self._tensors()
        missing = {name for name in tensors if name not in stored and not name.startswith("random")}
        if missing:
            raise UserError(f"{whole[-1]} lacks {min(missing)}: choose another output folder")
        wanted = {name: tensor for name, tensor in tensors.items() if name in stored}
        try:
            checkpoints.load(whole[-1], wanted)
        except (ValueError, RuntimeError, CheckpointException) as error:
            raise UserError(f"{whole[-1]} is not of a network of this shape: choose another output folder") from error
        for name, tensor in wanted.items():
            if name == f"random.{self.world.rank}":
                torch.set_rng_state(tensor)
            elif name == f"random_cuda.{self.world.rank}":
                torch.cuda.set_rng_state(tensor, self.world.device)
        for name, counts in facts["counts"].items():
            role = self.roles[name]
            role.updates, role.skipped, role.skipped_in_a_row = counts
        self.step, self.seconds_before = facts["step"], facts["seconds"]


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; a second signal interrupts at once. Only in the main thread."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def handle(number: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def falling(update: int, start: int, updates: int, peak: float, floor: float = 0.05) -> float:
    """``peak`` up to ``start``, then in a straight line to ``floor * peak`` after ``updates`` more."""
    progress = min(1.0, max(0, update - start) / max(1, updates))
    return peak * (1 - (1 - floor) * progress)


def warmed_cosine(update: int, updates: int, peak: float, warmup: int = 100, floor: float = 0.05) -> float:
    """Linear warm-up, then a cosine from ``peak`` to ``floor * peak``."""
    if update < warmup:
        return peak * (update + 1) / warmup
    progress = (update - warmup) / max(1, updates - warmup)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))

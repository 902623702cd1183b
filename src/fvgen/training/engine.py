"""The trainer. It knows roles by name only: what they are, and what a loss means, is the task's business.

A run is a number of steps; a step is a few turns; a turn updates some roles once, from one loss. Updates are counted
per role, and learning rates, averages and logs follow those counts.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException

from fvgen import __version__
from fvgen.devices import computes_alone
from fvgen.diffusion.random import BatchRandom
from fvgen.errors import UserError
from fvgen.progress import track
from fvgen.training import checkpoints, run_folder
from fvgen.training.distributed import DistributedContext, local
from fvgen.training.engine_config import EngineConfig
from fvgen.training.logs import RunLog, peak_memory


@dataclass
class Role:
    """A network that is trained with AdamW.

    Attributes:
        module: the network.
        lr: learning rate of update ``n``, from 0.
        betas: decay of AdamW's two moments.
        weight_decay: AdamW's.
        clip: largest norm of the gradient.
        average: a copy that follows the module, or ``None``.
        decay: how much of the average stays at update ``n``.
        sharded: over the processes; ``False``: every process holds the module whole.
    """

    module: nn.Module
    lr: Callable[[int], float]
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    clip: float = 1.0
    average: nn.Module | None = None
    decay: Callable[[int], float] = lambda update: 0.999
    sharded: bool = True


class Turn(NamedTuple):
    """One update of the roles named in ``trains``; the task and the log know it by its ``kind``."""

    kind: str
    trains: tuple[str, ...]


class Task(ABC):
    """What is trained and on what.

    Attributes:
        name: on the progress bar.
        steps: length of the run.
        seed: of the draws.
        roles: trained networks by name.
        frozen: networks that are used and not trained; they are placed and sharded like the others.
        identity: everything that defines the run, as JSON; a folder that holds another run is refused.
        free: what may change from sitting to sitting, as JSON; changes are noted with their step.
    """

    name: str
    steps: int
    seed: int
    roles: dict[str, Role]
    frozen: Sequence[nn.Module] = ()
    identity: dict[str, Any]
    free: dict[str, Any]

    @abstractmethod
    def rows(self, step: int) -> int:
        """Size of the batches of a step, over all processes and parts."""

    @abstractmethod
    def turns(self, step: int) -> Sequence[Turn]:
        """The turns of a step, in order."""

    @abstractmethod
    def batch(self, step: int, turn: int, rows: range) -> Any:
        """Some rows of a turn's batch, on the CPU: each a function of step, turn and its number, and of nothing else.

        It is called ahead of time, in order, in another thread.
        """

    @abstractmethod
    def loss(self, turn: Turn, batch: Any, draws: BatchRandom) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        """The mean loss over some rows of the batch, a scalar, and figures to log, the same names in all processes."""

    def after(self, step: int) -> Mapping[str, float]:
        """Figures that are measured now and then; called after every step by all processes."""
        return {}

    def pictures(self, step: int) -> Mapping[str, Tensor]:
        """Pictures to keep, ``[3, H, W]`` in -1..1, by name; called by all processes when they are due."""
        return {}


class _Counted:
    """A role with its optimizer and its counts."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.parameters = list(role.module.parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=role.lr(0),
            betas=role.betas,
            weight_decay=role.weight_decay,
            # On a CPU one kernel for each tensor, not ten; on a GPU the default takes all tensors together anyway.
            fused=all(parameter.device.type == "cpu" for parameter in self.parameters) or None,
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
            share = 1 - self.role.decay(self.updates)
            with torch.no_grad():
                for a, c in zip(self.role.average.parameters(), self.parameters):
                    local(a).lerp_(local(c), share)
        self.updates += 1
        self.skipped_in_a_row = 0
        return norm

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

    It writes ``run.json``, ``checkpoints/`` and ``log.jsonl`` there. SIGTERM and SIGINT end the run after the step in
    hand, with a checkpoint; the second one ends it at once.

    Args:
        task: what is trained.
        folder: of the run.
        config: of the engine.
        world: the processes.

    Raises:
        UserError: the folder holds another run, or is in use by one, or a batch cannot be shared out to the processes.
    """

    def __init__(self, task: Task, folder: Path, config: EngineConfig, world: DistributedContext) -> None:
        self.task, self.folder, self.config, self.world = task, folder, config, world
        for step in (0, task.steps - 1):
            world.share(task.rows(step), 0, config.accumulate)
        run_folder.check_run(folder, task.name, task.identity)
        self.alone = run_folder.occupied(folder) if world.rank == 0 else None
        for role in task.roles.values():
            world.place(role.module, config.recompute, role.sharded)
            if role.average is not None:
                world.place(role.average.requires_grad_(False), shard=role.sharded)
        for module in task.frozen:
            world.place(module.requires_grad_(False), config.recompute)
        self.roles = {name: _Counted(role) for name, role in task.roles.items()}
        self.precision = torch.autocast(world.device.type, torch.bfloat16, enabled=config.bf16)
        self.step, self.seconds_before = 0, 0.0
        self.started = self.saved = time.monotonic()
        self.seconds: dict[str, float] = {}
        torch.manual_seed(int(np.random.SeedSequence((task.seed, world.rank)).generate_state(1)[0]))  # of dropout
        self._resume()
        if world.rank == 0:
            run_folder.note_run(folder, task.name, task.identity, {"engine": asdict(config), **task.free}, self.step)
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
        try:
            if self.step < self.task.steps:
                self._run()
        finally:
            if self.alone is not None:
                self.alone.release()

    def _run(self) -> None:
        batches = self._batches()
        with _signals() as asked, self.log:
            steps = range(self.step, self.task.steps)
            for step in track(steps, self.task.name) if self.world.rank == 0 else steps:
                figures: dict[str, float] = {}
                for number, turn in enumerate(self.task.turns(step)):
                    began, key = time.monotonic(), f"seconds_{turn.kind}"
                    figures |= self._turn(step, number, turn, batches)
                    self.seconds[key] = self.seconds.get(key, 0.0) + time.monotonic() - began
                self.step = step + 1
                with self.precision:
                    measured = self.task.after(step)
                self._report(step, {**figures, **measured}, bool(measured))
                stop, due = self.world.any(asked.is_set(), time.monotonic() - self.saved > self.config.save_every)
                if stop or due or self.step == self.task.steps:
                    self._save()
                if stop and self.step < self.task.steps:
                    batches.close()
                    raise KeyboardInterrupt

    def _batches(self) -> Generator[tuple[Any, int], None, None]:
        """All batches from here on, in order, a few ahead of time, with the number of the first row of each."""
        keys = (
            (step, turn, self.world.share(self.task.rows(step), part, self.config.accumulate))
            for step in range(self.step, self.task.steps)
            for turn in range(len(self.task.turns(step)))
            for part in range(self.config.accumulate)
        )
        ahead: deque[Any] = deque()
        with ThreadPoolExecutor(1) as pool:
            try:
                computes_alone(pool)
                for key in keys:
                    ahead.append((key[2].start, pool.submit(self.task.batch, *key)))
                    if len(ahead) > self.config.prefetch:
                        first, batch = ahead.popleft()
                        yield batch.result(), first
                for first, batch in ahead:
                    yield batch.result(), first
            finally:
                pool.shutdown(cancel_futures=True)

    def _turn(self, step: int, number: int, turn: Turn, batches: Iterator[tuple[Any, int]]) -> dict[str, float]:
        for name, counted in self.roles.items():
            counted.role.module.requires_grad_(name in turn.trains)
        shown: dict[str, float] = {}
        for _ in range(self.config.accumulate):
            batch, first = next(batches)
            with self.precision:
                loss, figures = self.task.loss(turn, batch, BatchRandom((self.task.seed, step, number), first))
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
            means = self.world.mean(figures)
            shared = {k: int(means[k]) if isinstance(value, int) else means[k] for k, value in figures.items()}
            self.log.write(step, {"seconds": self.age, **shared})
            self.seconds = {}
        every = self.config.picture_every
        if every and (step % every == 0 or last):
            with self.precision:
                self.log.pictures(step, self.task.pictures(step))

    def _tensors(self) -> dict[str, Tensor]:
        found = {f"{role}.{name}": t for role, c in self.roles.items() for name, t in c.tensors().items()}
        found[f"random.{self.world.rank}"] = torch.get_rng_state()
        if self.world.device.type == "cuda":
            found[f"random_cuda.{self.world.rank}"] = torch.cuda.get_rng_state(self.world.device)
        return found

    def _save(self) -> None:
        counts = {name: [c.updates, c.skipped, c.skipped_in_a_row] for name, c in self.roles.items()}
        facts = {
            "step": self.step,
            "counts": counts,
            "seconds": self.age,
            "processes": self.world.size,
            "version": __version__,
            "task": self.task.name,
            "recipe": {**self.task.identity.get("recipe", {}), **self.task.free.get("recipe", {})},
        }
        checkpoints.save(self.folder, self.step, self._tensors(), facts, self.world, self.config.keep)
        self.saved = time.monotonic()

    def _resume(self) -> None:
        whole = run_folder.whole_checkpoints(self.folder)
        if not whole:
            return
        facts, stored = run_folder.facts_of(whole[-1]), checkpoints.names_in(whole[-1])
        tensors = self._tensors()
        missing = {name for name in tensors if name not in stored and not name.startswith("random")}
        if missing:
            raise UserError(f"{whole[-1]} lacks {min(missing)}: choose another output folder")
        wanted = {name: tensor for name, tensor in tensors.items() if name in stored}
        try:
            checkpoints.load(whole[-1], wanted, together=self.world.size > 1)
        except (ValueError, RuntimeError, CheckpointException) as error:
            raise UserError(f"{whole[-1]} is not of a network of this shape: choose another output folder") from error
        if (cpu := wanted.get(f"random.{self.world.rank}")) is not None:
            torch.set_rng_state(cpu)
        if (cuda := wanted.get(f"random_cuda.{self.world.rank}")) is not None:
            torch.cuda.set_rng_state(cuda, self.world.device)
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
    """A learning rate: ``peak`` up to update ``start``, then falling to ``floor * peak`` in ``updates`` more."""
    progress = min(1.0, max(0, update - start) / max(1, updates))
    return peak * (1 - (1 - floor) * progress)


def warmed_cosine(update: int, updates: int, peak: float, warmup: int = 100, floor: float = 0.05) -> float:
    """A learning rate: a linear warm-up, then a cosine from ``peak`` to ``floor * peak`` at update ``updates``."""
    if update < warmup:
        return peak * (update + 1) / warmup
    progress = (update - warmup) / max(1, updates - warmup)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))

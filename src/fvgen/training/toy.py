"""Two dimensions, a mixture whose truth is known: every method in seconds, measured against that truth."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fvgen.diffusion import NoiseSchedule, ScheduleConfig, few_step_sample
from fvgen.distillation.config import TOY_METHODS
from fvgen.distillation.critic import StepAware
from fvgen.distillation.methods import Clips, Roles
from fvgen.files import write_json
from fvgen.models.unet import sinusoidal_embedding
from fvgen.progress import track
from fvgen.training import charts
from fvgen.training.checkpoints import fingerprint, same_or_refuse
from fvgen.training.distributed import DistributedContext
from fvgen.training.engine import Trainer
from fvgen.training.engine_config import EngineConfig
from fvgen.training.recipes import StudentRecipe, variant
from fvgen.training.student import DistillationTask, low_rank_roles, needs_trajectories
from fvgen.training.trajectories import TrajectoryStore


@dataclass(frozen=True)
class Mixture:
    """Gaussians of one deviation on a ring, each lighter than the one before.

    Attributes:
        modes: how many.
        radius: of the ring.
        deviation: of each Gaussian.
        ratio: weight of the lightest over that of the heaviest.
    """

    modes: int = 8
    radius: float = 1.3
    deviation: float = 0.12
    ratio: float = 0.1

    @property
    def weights(self) -> Tensor:
        """``[K]``, falling geometrically, sum 1."""
        falling = self.ratio ** (torch.arange(self.modes) / (self.modes - 1))
        return falling / falling.sum()

    @property
    def centres(self) -> Tensor:
        """``[K, 2]``; neighbours on the ring are not neighbours in weight."""
        place = torch.arange(self.modes) * 3 % self.modes
        angle = 2 * math.pi * place / self.modes
        return self.radius * torch.stack([angle.cos(), angle.sin()], dim=-1)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """``[N, 2]``."""
        mode = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        return self.centres[mode] + self.deviation * torch.randn(count, 2, generator=generator)

    def x0(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor) -> Tensor:
        """The exact ``E[x0 | x_t]``, ``[N, 2]``."""
        ones = torch.ones_like(x_t)
        a = schedule.add_noise(ones, torch.zeros_like(ones), t)[:, :1]
        s = schedule.add_noise(torch.zeros_like(ones), ones, t)[:, :1]
        spread = (a * self.deviation) ** 2 + s**2
        off = x_t[:, None] - a[:, None] * self.centres
        share = torch.softmax(self.weights.log() - off.square().sum(-1) / (2 * spread), dim=-1)
        means = self.centres + (a * self.deviation**2 / spread)[:, None] * off
        return (share[..., None] * means).sum(1)


class ToyDenoiser(nn.Module):
    """A small network of points ``[B, 2]``, a `fvgen.distillation.methods.Denoiser`. Conditions are ``None``."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.schedule = NoiseSchedule(ScheduleConfig())
        self.net = _Net(width)

    def blocks(self) -> list[nn.Module]:
        """The network, in one piece: it is called, not this module."""
        return [self.net]

    def velocity(self, x_t: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """Predicted velocity."""
        return self.net(x_t, t)[0]

    def x0(self, x_t: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """Predicted clean points."""
        return self.schedule.x0_from_velocity(x_t, self.velocity(x_t, t), t)

    def features(self, x_t: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """``[B, width]`` of the middle layer."""
        return self.net(x_t, t, features_only=True)

    def x0_and_features(self, x_t: Tensor, t: Tensor, condition: Any = None) -> tuple[Tensor, Tensor]:
        """Clean sample and middle features, in one pass."""
        velocity, features = self.net(x_t, t)
        return self.schedule.x0_from_velocity(x_t, velocity, t), features

    @staticmethod
    def drop(condition: Any) -> Any:
        """The condition of the unguided branch: the same, there is none."""
        return condition


class _Net(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.encoder = nn.Sequential(nn.Linear(2 + width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.decoder = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2))

    def forward(self, x: Tensor, t: Tensor, features_only: bool = False) -> Any:
        middle = self.encoder(torch.cat([2 * x, sinusoidal_embedding(t, self.width)], dim=-1))
        return middle if features_only else (self.decoder(middle), middle)


class ToyHead(StepAware):
    """``[B, width]`` features to ``[B]`` logits."""

    def __init__(self, width: int = 96, steps: int = 0) -> None:
        super().__init__([nn.Linear(width, 64), nn.Linear(64, 1)], 64, steps)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        """See :class:`fvgen.distillation.critic.StepAware`."""
        return super().forward(x, step).flatten()


def train_toy_teacher(mixture: Mixture, steps: int, width: int = 96, seed: int = 0) -> ToyDenoiser:
    """A teacher that learnt the mixture's exact denoiser, all times alike."""
    torch.manual_seed(seed)
    teacher, generator = ToyDenoiser(width), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=2e-3, betas=(0.9, 0.99), weight_decay=0.0)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, 1e-5)
    schedule = teacher.schedule
    for _ in track(range(steps), "toy teacher"):
        x0, t = mixture.sample(1024, generator), torch.randint(1000, (1024,), generator=generator)
        x_t = schedule.add_noise(x0, torch.randn(x0.shape, generator=generator), t)
        target = schedule.velocity_from_x0(x_t, mixture.x0(schedule, x_t, t), t)
        loss = F.mse_loss(teacher.velocity(x_t, t), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    return teacher.eval().requires_grad_(False)


class ToyData:
    """See :class:`fvgen.training.student.Data`."""

    def __init__(self, mixture: Mixture, batch: int) -> None:
        self.mixture, self.size = mixture, batch

    def draw(self, key: tuple[int, ...], rows: range, at: int = 0) -> Tensor:
        """Points of the mixture."""
        seed = int(np.random.default_rng(key).integers(1 << 62))
        return self.mixture.sample(self.size, torch.Generator().manual_seed(seed))[rows.start : rows.stop]

    def ready(self, drawn: Tensor) -> Clips:
        """As it is: the toy lives on the CPU."""
        return Clips(drawn, None)

    def identity(self) -> dict[str, Any]:
        """The mixture."""
        return asdict(self.mixture)


def toy_task(
    teacher: ToyDenoiser, mixture: Mixture, recipe: StudentRecipe, folder: Path, world: DistributedContext
) -> DistillationTask:
    """The distillation of the toy; nets start as copies of the teacher, the head from the recipe's seed."""

    def copied() -> ToyDenoiser:
        net = ToyDenoiser(teacher.net.width)
        net.load_state_dict(teacher.state_dict())
        return net

    options = recipe.distillation
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        head = ToyHead(teacher.net.width, options.steps if options.critic_sees_step else 0)
        base, average = copied().requires_grad_(False), None
        if recipe.lora.rank:
            student, fake, average = low_rank_roles(base, recipe, world, recompute=False)
        else:
            student, fake = copied(), copied()
        roles = Roles(base, student, fake, head)
    data, store, identity = ToyData(mixture, recipe.batch), None, {"teacher": fingerprint(teacher)}
    if needs_trajectories(recipe):
        every = ToyData(mixture, options.ode_pairs)
        store = TrajectoryStore(folder / "trajectories", options, recipe.seed, every, each=options.ode_pairs)
        store.make(teacher, identity, world)
    return DistillationTask(roles, recipe, data, store, world, identity, average)


@torch.no_grad()
def toy_samples(student: Any, steps: int, count: int, seed: int) -> Tensor:
    """``[N, 2]`` few-step samples."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 2, generator=generator)
    schedule = student.schedule
    return few_step_sample(student.x0, schedule, noise, schedule.trailing_timesteps(steps), generator)


def energy_distance(a: Tensor, b: Tensor) -> float:
    """The root of ``2 E|a - b| - E|a - a'| - E|b - b'|`` of points ``[N, 2]``; 0 for equal distributions."""
    between = torch.cdist(a, b).mean()
    within = sum(torch.cdist(x, x).sum() / (len(x) * (len(x) - 1)) for x in (a, b))
    return math.sqrt(max(0.0, float(2 * between - within)))


def measure(mixture: Mixture, samples: Tensor, truth: Tensor) -> dict[str, float]:
    """How near samples ``[N, 2]`` are to the truth.

    Returns:
        ``modes``: modes that hold at least a quarter of their true mass, counting samples within 4 deviations;
        ``on_modes``: share of such samples; ``weights_off``: total variation between the modes' masses and their
        weights; ``spread``: mean distance to the nearest centre over what it should be, 1 for right; ``energy``:
        energy distance to fresh samples of the truth.
    """
    distance, nearest = torch.cdist(samples, mixture.centres).min(-1)
    inside = distance < 4 * mixture.deviation
    mass = torch.bincount(nearest[inside], minlength=mixture.modes) / len(samples)
    right = mixture.deviation * math.sqrt(math.pi / 2)
    return {
        "modes": int((mass >= 0.25 * mixture.weights).sum()),
        "on_modes": float(inside.float().mean()),
        "weights_off": float(0.5 * (mass - mixture.weights).abs().sum() + 0.5 * (1 - inside.float().mean())),
        "spread": float(distance[inside].mean() / right) if inside.any() else math.nan,
        "energy": energy_distance(samples, truth),
    }


@dataclass(frozen=True)
class ToyAblation:
    """Which methods, how long, how often.

    Attributes:
        mixture: the truth.
        recipe: of every method; ``method`` and ``seed`` are replaced.
        methods: of `fvgen.distillation.config.RECIPES`; ``+step`` tells the critic the student's step.
        seeds: of the distillations; the teacher is one.
        teacher_steps: of the teacher's training.
        samples: that are measured.
    """

    mixture: Mixture = field(default_factory=Mixture)
    recipe: StudentRecipe = field(default_factory=StudentRecipe)
    methods: tuple[str, ...] = TOY_METHODS
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    teacher_steps: int = 3000
    samples: int = 4000


def run_toy(ablation: ToyAblation, folder: Path) -> dict[str, Any]:
    """Every method with every seed; writes ``ablation.json``, ``ablation.md`` and ``samples.svg``.

    Runs that are finished are not done again.

    Returns:
        What ``ablation.json`` holds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mixture, world = ablation.mixture, DistributedContext()
    engine = EngineConfig(device="cpu", save_every=math.inf, keep=1, log_every=20)
    teacher = _teacher(ablation, folder)
    truth = mixture.sample(ablation.samples, torch.Generator().manual_seed(12345))
    again = mixture.sample(ablation.samples, torch.Generator().manual_seed(54321))
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(ablation.samples, 2, generator=generator)
    many = _ddim(teacher, start)
    steps = ablation.recipe.distillation.steps
    shown = {"truth": truth, "teacher, 50 steps": many, "teacher, 4 steps": toy_samples(teacher, steps, len(truth), 0)}
    rows: dict[str, list[dict[str, float]]] = {
        "truth, again": [measure(mixture, again, truth)],
        **{name: [measure(mixture, x, truth)] for name, x in shown.items() if name != "truth"},
    }
    runs = [(method, seed) for seed in ablation.seeds for method in ablation.methods]
    for method, seed in track(runs, "methods and seeds"):
        recipe = variant(ablation.recipe, method, seed)
        run = folder / f"{method}-{seed}"
        task = toy_task(teacher, mixture, recipe, run, world)
        trainer = Trainer(task, run, engine, world)
        trainer.run()
        samples = toy_samples(task.average, steps, len(truth), 100 + seed)
        shown.setdefault(method, samples)
        rows.setdefault(method, []).append(measure(mixture, samples, truth) | {"seconds": trainer.age})
    table = {"ablation": asdict(ablation), "results": rows}
    (folder / "ablation.json").write_text(json.dumps(table, indent=1) + "\n")
    (folder / "ablation.md").write_text(table_of(rows))
    (folder / "samples.svg").write_text(_scatter(mixture, shown))
    return table


def _ddim(teacher: ToyDenoiser, start: Tensor) -> Tensor:
    from fvgen.diffusion import ddim_sample

    with torch.no_grad():
        return ddim_sample(teacher.velocity, teacher.schedule, start, 50, eta=0.0)


def _teacher(ablation: ToyAblation, folder: Path) -> ToyDenoiser:
    """Trained once per folder.

    Raises:
        UserError: the one that is there was trained otherwise.
    """
    path = folder / "teacher.safetensors"
    identity = {"mixture": asdict(ablation.mixture), "teacher_steps": ablation.teacher_steps}
    same = same_or_refuse(folder / "teacher.json", identity, "a toy's teacher")
    if path.exists() and same is not None:
        teacher = ToyDenoiser()
        teacher.load_state_dict(load_file(path))
        return teacher.eval().requires_grad_(False)
    teacher = train_toy_teacher(ablation.mixture, ablation.teacher_steps)
    save_file(teacher.state_dict(), path)
    write_json(folder / "teacher.json", {"identity": identity}, finite=False)
    return teacher


def table_of(rows: dict[str, list[dict[str, float]]]) -> str:
    """Markdown: mean and, over several seeds, standard deviation of each figure."""
    names = ("modes", "on_modes", "weights_off", "spread", "energy", "seconds")
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for method, measured in rows.items():
        cells = [_cell([m[name] for m in measured if name in m]) for name in names]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean, digits = float(np.mean(values)), 1 if np.mean(values) >= 1 else 3
    if len(values) == 1:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {float(np.std(values, ddof=1)):.{digits}f}"


def _scatter(mixture: Mixture, shown: dict[str, Tensor]) -> str:
    side = 1.6 * mixture.radius
    panels = []
    for name, points in shown.items():
        panel = charts.Panel(name, (-side, side), (-side, side), 240, 240)
        panel.dots([(float(x), float(y)) for x, y in points[:1200]], charts.COLOURS[0], 0.8)
        panel.dots([(float(x), float(y)) for x, y in mixture.centres], charts.COLOURS[1], 2.0)
        panels.append(panel)
    return charts.page(panels, 3)

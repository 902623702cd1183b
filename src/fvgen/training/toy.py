"""Two dimensions, a mixture whose truth is known: every method in seconds, measured against that truth."""

import copy
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

from fvgen import charts
from fvgen.diffusion import NoiseSchedule, ScheduleConfig, ddim_sample, few_step_sample
from fvgen.distillation.config import TOY_METHODS
from fvgen.distillation.critic import StepAware
from fvgen.distillation.methods import Clips, Roles
from fvgen.files import write_json, write_text
from fvgen.models.unet import sinusoidal_embedding
from fvgen.progress import track
from fvgen.training.checkpoints import fingerprint
from fvgen.training.distributed import DistributedContext
from fvgen.training.engine import Trainer
from fvgen.training.engine_config import EngineConfig
from fvgen.training.recipes import StudentRecipe, variant
from fvgen.training.run_folder import same_or_refuse
from fvgen.training.student import DistillationTask, low_rank_roles, needs_trajectories
from fvgen.training.trajectories import TrajectoryStore


@dataclass(frozen=True)
class Mixture:
    """A distribution of points in the plane: Gaussians on a ring, each lighter than the one before.

    Attributes:
        modes: how many Gaussians there are.
        radius: of the ring.
        deviation: standard deviation of each Gaussian.
        ratio: weight of the lightest over that of the heaviest.
    """

    modes: int = 8
    radius: float = 1.3
    deviation: float = 0.12
    ratio: float = 0.1

    @property
    def weights(self) -> Tensor:
        """Weights ``[K]`` of the Gaussians, falling geometrically, sum 1."""
        falling = self.ratio ** (torch.arange(self.modes) / (self.modes - 1))
        return falling / falling.sum()

    @property
    def centres(self) -> Tensor:
        """Centres ``[K, 2]`` of the Gaussians; neighbours on the ring are not neighbours in weight."""
        place = torch.arange(self.modes) * 3 % self.modes
        angle = 2 * math.pi * place / self.modes
        return self.radius * torch.stack([angle.cos(), angle.sin()], dim=-1)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Random points ``[N, 2]``."""
        mode = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        return self.centres[mode] + self.deviation * torch.randn(count, 2, generator=generator)

    def x0(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor) -> Tensor:
        """The exact mean ``[N, 2]`` of the clean points, given noisy ones ``x_t [N, 2]`` at times ``t [N]``."""
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
        """Predicted velocity ``[B, 2]``."""
        return self.net(x_t, t)[0]

    def x0(self, x_t: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """Predicted clean points ``[B, 2]``."""
        return self.schedule.x0_from_velocity(x_t, self.velocity(x_t, t), t)

    def features(self, x_t: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """``[B, width]`` of the middle layer."""
        return self.net(x_t, t)[1]

    def x0_and_features(self, x_t: Tensor, t: Tensor, condition: Any = None) -> tuple[Tensor, Tensor]:
        """Predicted clean points ``[B, 2]`` and features ``[B, width]``, in one pass."""
        velocity, features = self.net(x_t, t)
        return self.schedule.x0_from_velocity(x_t, velocity, t), features

    @staticmethod
    def drop(condition: Any) -> Any:
        """The condition itself: points have none that could be dropped."""
        return condition


class _Net(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.encoder = nn.Sequential(nn.Linear(2 + width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.decoder = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2))

    def forward(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        middle = self.encoder(torch.cat([2 * x, sinusoidal_embedding(t, self.width)], dim=-1))
        return self.decoder(middle), middle


class ToyHead(StepAware):
    """A critic's head: features ``[B, width]`` to logits ``[B]``."""

    def __init__(self, width: int = 96, steps: int = 0) -> None:
        super().__init__([nn.Linear(width, 64), nn.Linear(64, 1)], 64, steps)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        return super().forward(x, step).flatten()


def train_toy_teacher(mixture: Mixture, steps: int, width: int = 96, seed: int = 0) -> ToyDenoiser:
    """Train a teacher to predict what the mixture's exact denoiser does, all times alike."""
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
    """Batches of points of a mixture, the :class:`fvgen.training.student.Data` of the toy."""

    def __init__(self, mixture: Mixture, batch: int) -> None:
        self.mixture, self.size = mixture, batch

    def draw(self, key: tuple[int, ...], rows: range, at: int = 0) -> Tensor:
        """Points ``[B, 2]`` for some rows of a batch."""
        seed = int(np.random.default_rng(key).integers(1 << 62))
        return self.mixture.sample(self.size, torch.Generator().manual_seed(seed))[rows.start : rows.stop]

    def ready(self, drawn: Tensor) -> Clips:
        """Points ``[B, 2]`` as they were drawn: the toy lives on the CPU."""
        return Clips(drawn, None)

    def identity(self) -> dict[str, Any]:
        """The mixture, as JSON."""
        return asdict(self.mixture)


def toy_task(
    teacher: ToyDenoiser, mixture: Mixture, recipe: StudentRecipe, folder: Path, world: DistributedContext
) -> DistillationTask:
    """The distillation of the toy; its networks start as copies of the teacher, the head from the recipe's seed."""
    options = recipe.distillation
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        head = ToyHead(teacher.net.width, options.steps if options.critic_sees_step else 0)
        base, average = copy.deepcopy(teacher).requires_grad_(False), None
        if recipe.lora.rank:
            student, fake, average = low_rank_roles(base, recipe, world, recompute=False)
        else:
            student, fake = (copy.deepcopy(teacher).requires_grad_(True) for _ in range(2))
        roles = Roles(base, student, fake, head)
    data, store, identity = ToyData(mixture, recipe.batch), None, {"teacher": fingerprint(teacher)}
    if needs_trajectories(recipe):
        every = ToyData(mixture, options.ode_pairs)
        store = TrajectoryStore(folder / "trajectories", options, recipe.seed, every, each=options.ode_pairs)
        store.make(teacher, identity, world)
    return DistillationTask(roles, recipe, data, store, world, identity, average)


@torch.no_grad()
def toy_samples(student: Any, steps: int, count: int, seed: int) -> Tensor:
    """Few-step samples ``[N, 2]`` of a student."""
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
    """A comparison of methods on the toy.

    Attributes:
        mixture: the truth.
        recipe: of every distillation; its method and seed are replaced.
        methods: of `fvgen.distillation.config.RECIPES`; ``+step`` tells the critic the student's step.
        seeds: of the distillations, which all share one teacher.
        teacher_steps: optimizer steps of the teacher.
        samples: how many samples of each student are measured.
    """

    mixture: Mixture = field(default_factory=Mixture)
    recipe: StudentRecipe = field(default_factory=StudentRecipe)
    methods: tuple[str, ...] = TOY_METHODS
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    teacher_steps: int = 3000
    samples: int = 4000


def run_toy(ablation: ToyAblation, folder: Path) -> dict[str, Any]:
    """Distil by every method with every seed; runs that are finished are not done again.

    ``ablation.json``, ``ablation.md`` and ``samples.svg`` are written into the folder.

    Returns:
        The content of ``ablation.json``.

    Raises:
        UserError: the folder holds another comparison's teacher or runs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mixture, world = ablation.mixture, DistributedContext()
    engine = EngineConfig(device="cpu", save_every=math.inf, keep=1, log_every=20)
    teacher = _teacher(ablation, folder)
    truth = mixture.sample(ablation.samples, torch.Generator().manual_seed(12345))
    again = mixture.sample(ablation.samples, torch.Generator().manual_seed(54321))
    start = torch.randn(ablation.samples, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        many = ddim_sample(teacher.velocity, teacher.schedule, start, 50, eta=0.0)
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
    write_json(folder / "ablation.json", table, finite=False)
    write_text(folder / "ablation.md", table_of(rows))
    write_text(folder / "samples.svg", _scatter(mixture, shown))
    return table


def _teacher(ablation: ToyAblation, folder: Path) -> ToyDenoiser:
    """The teacher of a folder, trained once; a UserError where the one that is there was trained otherwise."""
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
    """A table in Markdown: the mean of each figure and, over several seeds, its standard deviation."""
    names = ("modes", "on_modes", "weights_off", "spread", "energy", "seconds")
    cells = [
        [method, *(_cell([m[name] for m in each if name in m]) for name in names)] for method, each in rows.items()
    ]
    return charts.markdown_table(["", *names], cells) + "\n"


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
        panel.dots(points[:1200].tolist(), charts.COLOURS[0], 0.8)
        panel.dots(mixture.centres.tolist(), charts.COLOURS[1], 2.0)
        panels.append(panel)
    return charts.page(panels, 3)

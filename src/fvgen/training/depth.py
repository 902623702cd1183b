"""Training of the depth network on procedural scenes."""

import random
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from fvgen.data.depths import DepthSample, DepthScenes, augmented
from fvgen.diffusion.random import BatchRandom
from fvgen.files import output_file
from fvgen.models.depth import FLOOR, DepthNetwork
from fvgen.models.efficientnet import LITE0, EfficientNetLite
from fvgen.models.weight_files import Weights
from fvgen.scene.prior import network_inputs
from fvgen.training.checkpoints import fingerprint
from fvgen.training.distributed import DistributedContext, device_named
from fvgen.training.engine import Role, Task, Trainer, Turn, warmed_cosine
from fvgen.training.engine_config import EngineConfig
from fvgen.training.recipes import DepthRecipe, split_recipe
from fvgen.training.run_folder import whole_checkpoints

Batch = tuple[Tensor, ...]  # the network's four inputs and the target, `[B, ...]`
_FIRST = 100_000  # seed of the first scene
_HELD = 90_000  # seed of the first held-out scene
_HELD_SCENES = 12
_EVEN = 0.5
_SLOPES = 3  # scales at which slopes are compared
_STEEP = 0.2  # difference of `t` of neighbours from which an edge is an edge


def nll(out: Tensor, target: Tensor, evenness: float = 0.0) -> Tensor:
    """Mean negative logarithm, without its constant, of Laplace densities ``[B, 2, H, W]`` at ``[B, H, W]``.

    Each pixel weighs as its spread to the power ``evenness`` (Seitzer et al. 2022): with 0 it is the likelihood,
    in which pixels that are easy outweigh all others.
    """
    each = (out[:, 0] - target).abs() * torch.exp(-out[:, 1]) + out[:, 1]
    return (each * torch.exp(evenness * out[:, 1].detach())).mean()


def slope_error(t: Tensor, target: Tensor) -> Tensor:
    """L1 distance of the slopes of ``[B, H, W]`` at three scales: surfaces stay smooth, edges sharp."""
    difference, total = t - target, t.new_zeros(())
    for _ in range(_SLOPES):
        total = total + sum(difference.diff(dim=axis).abs().clamp(max=_STEEP).mean() for axis in (-1, -2))
        difference = difference[:, ::2, ::2]
    return total


def within(out: Tensor, target: Tensor, share: float) -> Tensor:
    """Share of pixels of ``[B, 2, H, W]`` whose inverse depth errs by less than a share of that in ``[B, H, W]``."""
    found, true = ((t.exp() - FLOOR).clamp(min=1e-4) for t in (out[:, 0], target))
    return ((found / true - 1).abs() < share).float().mean()


class DepthTask(Task):
    """The depth network, for :class:`fvgen.training.engine.Trainer`."""

    name = "depth"

    def __init__(
        self,
        network: DepthNetwork,
        scenes: DepthScenes,
        held: DepthScenes,
        recipe: DepthRecipe,
        world: DistributedContext,
        start: str,
    ) -> None:
        self.network, self.scenes, self.held, self.recipe, self.world = network, scenes, held, recipe, world
        self.steps, self.seed = recipe.steps, recipe.seed
        fixed, free = split_recipe(recipe)
        photographs = [str(path) for path in scenes.photographs]
        self.identity = {"recipe": fixed, "photographs": photographs, "start": start}
        self.free = {"recipe": free}
        self.average = deepcopy(network)
        parts = {"photo": (network.photo, self.average.photo, 0.2), "body": (network.body, self.average.body, 1.0)}
        self.roles = {
            name: Role(
                module,
                lambda n, share=share: share * warmed_cosine(n, recipe.steps, recipe.lr, floor=0.01),  # type: ignore[misc]
                (0.9, 0.99),
                1e-3,
                average=average,
                decay=lambda n: min(0.99, (n + 1) / (n + 11)),
            )
            for name, (module, average, share) in parts.items()
        }

    def turns(self, step: int) -> Sequence[Turn]:
        """One turn, of the whole network."""
        return (Turn("depth", ("photo", "body")),)

    def rows(self, step: int) -> int:
        """The recipe's batch."""
        return self.recipe.batch

    def batch(self, step: int, turn: int, rows: range) -> Batch:
        """Samples of one size, from as many scenes."""
        of_step = random.Random(f"{self.seed} {step}")
        size = size_drawn(of_step, self.scenes)
        chosen = []
        for row in rows:
            rng, samples = random.Random(f"{self.seed} {step} {row}"), list[DepthSample]()
            while not samples:
                samples = self.scenes.samples(rng.choice(self.scenes.by_size[size]))
            chosen.append(augmented(rng.choice(samples), rng))
        return collated(chosen)

    def loss(self, turn: Turn, batch: Batch, draws: BatchRandom) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        """A scalar: likelihood at both sizes, L1 error, and slopes."""
        *inputs, target = (part.to(self.world.device) for part in batch)
        fine, coarse = self.network.train()(*inputs)
        small = F.interpolate(target[:, None], coarse.shape[-2:], mode="nearest")[:, 0]
        error = (fine[:, 0] - target).abs().mean()
        likely = nll(fine, target, _EVEN) + 0.3 * nll(coarse, small, _EVEN)
        loss = likely + 0.5 * slope_error(fine[:, 0], target) + 2 * error
        return loss, {"error": error.detach(), "within_2": within(fine.detach(), target, 0.02)}

    @torch.no_grad()
    def after(self, step: int) -> Mapping[str, float]:
        """Now and then the average on held-out scenes: shares within 2 % and 10 %, and likelihood."""
        if (step + 1) % self.recipe.measure_every and step + 1 < self.steps:
            return {}
        rows = []
        for seed in self.held.seeds:
            for sample in self.held.samples(seed):
                *inputs, target = (part.to(self.world.device) for part in collated([sample]))
                out = self.average.eval()(*inputs)[0]
                rows.append(torch.stack([within(out, target, 0.02), within(out, target, 0.1), nll(out, target)]))
        mean = torch.stack(rows).mean(0).tolist()
        return dict(zip(("held_within_2", "held_within_10", "held_nll"), mean))


def size_drawn(rng: random.Random, scenes: DepthScenes) -> tuple[int, int]:
    """A size, as often as there are scenes of it."""
    sizes = sorted(scenes.by_size)
    return rng.choices(sizes, [len(scenes.by_size[size]) for size in sizes])[0]


def collated(samples: Sequence[DepthSample]) -> Batch:
    """Samples of one size as a batch."""
    rows = [(*network_inputs(sample.evidence), sample.target) for sample in samples]
    return tuple(torch.stack(parts) for parts in zip(*rows))


def train_depth(
    folder: Path,
    scenes: int,
    photographs: Sequence[Path],
    recipe: DepthRecipe,
    engine: EngineConfig,
    workers: int,
    start: Path | None = None,
) -> Path:
    """Train the depth network in one process, resuming from ``folder``.

    Args:
        folder: of the run; ``scenes/`` in it holds what is learnt from, ``depth.safetensors`` the result.
        scenes: how many procedural scenes.
        photographs: folders of photographs for textures.
        recipe: of the training.
        engine: how the run is carried out.
        workers: processes that make scenes.
        start: weights of a trained depth network to go on from; by default EfficientNet-Lite0's, and the rest random.

    Returns:
        The file of the weights.

    Raises:
        UserError: ``start`` is no such file, or the weights of EfficientNet-Lite0 are missing.
    """
    torch.manual_seed(recipe.seed)
    world = DistributedContext(device=device_named(engine.device))
    network = DepthNetwork() if start is None else DepthNetwork.load(start).requires_grad_(True)
    start_name = LITE0.weights.name if start is None else fingerprint(network)
    if start is None and not whole_checkpoints(folder):
        network.start_from(EfficientNetLite.published(LITE0, Weights()))
    seeds = range(_FIRST, _FIRST + scenes)
    made = DepthScenes(folder / "scenes", seeds, photographs)
    held = DepthScenes(folder / "held", range(_HELD, _HELD + _HELD_SCENES), photographs)
    for part in (held, made):
        part.make(workers)
    network.to(world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    task = DepthTask(network, made, held, recipe, world, start_name)
    task.average.to(world.device)
    Trainer(task, folder, engine, world).run()
    with output_file(folder / "depth.safetensors") as unfinished:
        task.average.cpu().save(unfinished)
    return folder / "depth.safetensors"

"""Training of the many-step teacher: velocity prediction on noised clips."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fvgen.data.latents import ClipBatch, Corpus, check_size
from fvgen.diffusion.random import BatchRandom
from fvgen.errors import UserError
from fvgen.files import whole_folder
from fvgen.models.denoiser import Condition
from fvgen.models.model import VideoModel
from fvgen.training.checkpoints import fingerprint, load
from fvgen.training.distributed import DistributedContext
from fvgen.training.engine import Role, Task, Trainer, Turn, warmed_cosine
from fvgen.training.engine_config import EngineConfig
from fvgen.training.recipes import TeacherRecipe, split_recipe
from fvgen.training.run_folder import whole_checkpoints


def batch_condition(model: VideoModel, batch: ClipBatch) -> Condition:
    """What the clips of a batch are generated from: their guides, and the tokens of their pictures."""
    context, null = model.conditioner(batch.images)
    return Condition(batch.concat, context.float(), null.float())


def velocity_loss(model: VideoModel, batch: ClipBatch, condition: Condition, t: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error ``[B]`` of the velocity predicted for clips noised by ``noise [B, ...]`` to times ``t [B]``.

    Squared errors are divided by the standard deviation that the guide leaves (``VideoDenoiser.prior``; 1 for models
    without a guide variance). Without that, the loss is ruled by what cannot be known (busy areas that nobody
    measured, noise that nobody can see near t = 0), and the repairs that most places need drown in it; divided by the
    variance, it would be ruled by the flattest areas.
    """
    schedule = model.denoiser.schedule
    x_t = schedule.add_noise(batch.latents, noise, t)
    predicted = model.denoiser.velocity(x_t, t, condition)
    _, deviation = model.denoiser.prior(x_t, t, condition)
    errors = (predicted - schedule.velocity(batch.latents, noise, t)).square() / deviation
    return errors.mean(dim=(1, 2, 3, 4))


@torch.no_grad()
def held_out_loss(
    model: VideoModel, corpus: Corpus, times: tuple[int, ...], frames: int, world: DistributedContext
) -> dict[str, float]:
    """Mean squared error of predicted ``x0`` on held-out clips, with fixed noise, as ``held_x0_TIME`` for each time.

    The clips, of at most so many frames, are shared out to the processes, which all call this together.
    """
    if not corpus.held:
        return {}
    errors = {f"held_x0_{t}": 0.0 for t in times}
    for k, name, counts in held_out_share(corpus, world):
        batch = corpus.held_batch(name, frames).to(world.device)
        condition = batch_condition(model, batch)
        noise = BatchRandom(k).noise(batch.latents)
        for t in times:
            at = torch.full((1,), t, device=world.device)
            x_t = model.denoiser.schedule.add_noise(batch.latents, noise, at)
            error = F.mse_loss(model.denoiser.x0(x_t, at, condition), batch.latents)
            errors[f"held_x0_{t}"] += error.item() * counts
    return {name: value * world.size / len(corpus.held) for name, value in world.mean(errors).items()}


def held_out_share(
    corpus: Corpus, world: DistributedContext, most: int | None = None
) -> Iterator[tuple[int, str, int]]:
    """This process's share of the first ``most`` held-out clips: number, name and 1.

    All processes get equally many, because a sharded network must be called by all of them together: where clips do
    not suffice, the first one is given again, marked 0.
    """
    held = corpus.held[:most]
    for turn in range(-(-len(held) // world.size)):
        k = turn * world.size + world.rank
        yield (k, held[k], 1) if k < len(held) else (0, held[0], 0)


def trained_parts(model: VideoModel, vision: str = "trained") -> nn.ModuleDict:
    """The networks of a model that a teacher's training changes, see :class:`fvgen.training.recipes.TeacherRecipe`."""
    if vision == "frozen":  # the prompts are a language model's, and fixed as well
        return nn.ModuleDict({"unet": model.denoiser.unet, "resampler": model.conditioner.resampler})
    return nn.ModuleDict({"unet": model.denoiser.unet, "conditioner": model.conditioner})


class _Noised(NamedTuple):
    """Clips with their times, noise, and whether the tokens of each are dropped."""

    clips: ClipBatch
    t: Tensor
    noise: Tensor
    dropped: Tensor


class TeacherTask(Task):
    """A teacher that learns to denoise clips: small crops first, whole pictures at the end.

    Pairs that appear while it runs in one process are picked up.

    Args:
        model: to start from; its networks are trained in place.
        corpus: the clips.
        recipe: of the training.
        world: the processes.
    """

    name = "teacher"

    def __init__(self, model: VideoModel, corpus: Corpus, recipe: TeacherRecipe, world: DistributedContext) -> None:
        if recipe.vision == "frozen" and model.conditioner.tower is None:
            raise UserError("`vision` frozen: this model has no image tower")
        self.model, self.corpus, self.recipe, self.world = model, corpus, recipe, world
        self.steps, self.seed = recipe.steps, recipe.seed
        model.to(world.device).requires_grad_(False)
        corpus.refresh(rank=world.rank, size=world.size)
        fixed, free = split_recipe(recipe)
        start = {"model": fingerprint(model.denoiser), "conditioner": fingerprint(model.conditioner)}
        self.identity, self.free = {"recipe": fixed, **start, "data": corpus.identity()}, {"recipe": free}
        whole = replace(recipe.clips, frames=recipe.full_frames, crop=None)
        self.phases = (recipe.clips, replace(whole, least_frames=min(whole.least_frames, whole.frames)))
        for draw, drawn in zip(self.phases, (recipe.full_from > 0, recipe.full_from < 1)):
            if drawn:
                check_size(corpus, model, draw)
        self.average = VideoModel.build(model.config)
        self.average.load_state_dict(model.state_dict())
        averaged, trained = (trained_parts(m.to(world.device), recipe.vision) for m in (self.average, model))
        adam = recipe.adam
        self.roles = {
            "teacher": Role(
                trained,
                lambda update: warmed_cosine(update, recipe.steps, recipe.lr),
                adam.betas,
                adam.decay,
                adam.clip,
                average=averaged,
                decay=lambda update: min(recipe.ema, (update + 1) / (update + 10)),
            )
        }
        model.denoiser.train(), model.conditioner.train()

    def _full(self, step: int) -> bool:
        return step >= self.recipe.full_from * self.recipe.steps

    def rows(self, step: int) -> int:
        """The recipe's batch in the phase of the step."""
        return self.recipe.full_batch if self._full(step) else self.recipe.batch

    def turns(self, step: int) -> Sequence[Turn]:
        """One turn, of the teacher."""
        return (Turn("teacher", ("teacher",)),)

    def batch(self, step: int, turn: int, rows: range) -> _Noised:
        """Clips, times and noise, a function of the recipe's seed and of the clips that there are."""
        if step % 50 == 0 and rows.start == 0 and self.world.size == 1:
            self.corpus.refresh(limit=40)
        clips = self.corpus.sample((self.seed, step), rows, self.phases[self._full(step)], at=step)
        draws, total = BatchRandom((self.seed, step, 1), rows.start), self.model.config.schedule.num_timesteps
        noise = draws.noise(clips.latents)
        t = draws.integers(0, total, noise)
        last, dropped = (draws.integers(0, 1 << 30, noise) / (1 << 30) for _ in range(2))
        t = torch.where(last < self.recipe.terminal, total - 1, t)
        return _Noised(clips, t, noise, dropped < self.recipe.drop)

    def loss(self, turn: Turn, batch: _Noised, draws: BatchRandom) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        """The weighted error of the velocity, a scalar."""
        clips = batch.clips.to(self.world.device)
        t, noise, dropped = (x.to(self.world.device) for x in (batch.t, batch.noise, batch.dropped))
        condition = batch_condition(self.model, clips)
        assert condition.null_context is not None
        context = torch.where(dropped[:, None, None], condition.null_context, condition.context)
        errors = velocity_loss(self.model, clips, replace(condition, context=context), t, noise)
        return errors.mean(), {"t": float(t.float().mean()), "clips": len(self.corpus.clips)}

    def after(self, step: int) -> Mapping[str, float]:
        """The error of the average on held-out clips, every ``held_every`` steps."""
        every = self.recipe.held_every
        if not every or (step % every != every - 1 and step + 1 != self.steps):
            return {}
        return held_out_loss(self.average, self.corpus, (999, 749, 499, 249), self.recipe.clips.frames, self.world)


def load_average(folder: Path, role: str, module: nn.Module) -> None:
    """Fill an unsharded module with a role's averaged weights from a run's newest checkpoint, in one process."""
    tensors = {f"{role}.average.{name}": value for name, value in module.state_dict().items()}
    load(whole_checkpoints(folder)[-1], tensors, together=False)


def train_teacher(
    model: VideoModel,
    corpus: Corpus,
    recipe: TeacherRecipe,
    folder: Path,
    engine: EngineConfig | None = None,
    world: DistributedContext | None = None,
) -> VideoModel:
    """Train denoiser and conditioner, resuming from ``folder``; ``folder/model`` holds the result.

    Args:
        model: to start from; changed.
        corpus: the clips.
        recipe: of the training.
        folder: of the run.
        engine: how the run is carried out.
        world: the processes; by default this one alone.

    Returns:
        A model on the CPU with the averaged weights: ``model`` itself, or another one where that is sharded.
    """
    world, engine = world or DistributedContext(), engine or EngineConfig()
    whole = copy.deepcopy(model.conditioner) if world.size > 1 else model.conditioner  # it is sharded by the trainer
    Trainer(TeacherTask(model, corpus, recipe, world), folder, engine, world).run()
    trained = model
    if world.size > 1:  # its networks are sharded now
        trained = VideoModel.build(model.config)
        trained.autoencoder, trained.conditioner = model.autoencoder, whole
    load_average(folder, "teacher", trained_parts(trained, recipe.vision))
    trained.cpu().eval()
    if world.rank == 0:
        with whole_folder(folder / "model") as model_folder:
            trained.save(model_folder, torch.float32)
    return trained

"""Counts what docs/reproduce.md says of operations and memory: the turns of each method, on tensors without content.

Each turn is run as the distillation runs it, with its real losses and one clip of 16 frames of 512x320; the stages of
the UNet are recomputed for the backward pass. Takes minutes and little memory.

python scripts/count_reproduce.py [METHOD ...]
"""

import sys
from dataclasses import replace
from functools import partial
from unittest.mock import patch

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from fvgen.diffusion.random import BatchRandom
from fvgen.distillation.methods import Clips, Method, Roles, Stage, TrajectoryPoints
from fvgen.evaluation.benchmark.count import PeakMemory, flop_counter
from fvgen.evaluation.benchmark.systems import random_model
from fvgen.models import Condition, ModelConfig, VideoModel, attention, preset
from fvgen.training.recipes import VIEWCRAFTER_STUDENT, StudentRecipe
from fvgen.training.student import seeded_head, stages_of

H100 = 989e12  # FLOP/s in half precision, data sheet
GPUS = 8
USED = (0.1, 0.4)  # shares of that
METHODS = ("fvgen", "dmd2", "causvid", "no_init", "gan_init", "reverse_kl")


def roles_of(config: ModelConfig, recipe: StudentRecipe) -> Roles:
    """Networks without content whose stages are recomputed, one shape for all roles."""

    def network() -> VideoModel:
        model = random_model(config, torch.device("cpu"), torch.bfloat16).requires_grad_(False)
        for stage in model.denoiser.blocks()[:-1]:
            stage.forward = partial(checkpoint, stage.forward, use_reentrant=False)
        return model

    teacher, student, fake = network(), network(), network()
    return Roles(teacher.denoiser, student.denoiser, fake.denoiser, seeded_head(teacher, recipe))


def clips_of(config: ModelConfig) -> Clips:
    """One clip without content."""
    factor = 2 ** (len(config.autoencoder.channels) - 1)
    size = (config.frames, config.height // factor, config.width // factor)
    x0 = torch.zeros(1, config.autoencoder.latent_channels, *size)
    tokens = torch.zeros(1, config.unet.text_tokens + config.resampler.num_queries, config.unet.context_dim)
    return Clips(x0, Condition(torch.zeros_like(x0), tokens, tokens))


def count_turn(method: Method, roles: Roles, clips: Clips, kind: str, stop: int) -> tuple[float, float]:
    """FLOP of a turn, and the most bytes it holds besides weights: activations, and gradients of what it trains.

    Args:
        method: of the stage.
        roles: its networks.
        clips: one.
        kind: ``critics_turn`` or ``student_turn``.
        stop: after how many of its steps a simulated student stops.
    """
    trained = method.critics if kind == "critics_turn" else ("student",)
    for name in ("student", "fake_score", "head"):
        getattr(roles, name).requires_grad_(name in trained)
    batch: Clips | TrajectoryPoints = clips
    if method.learns_from == "trajectories":
        batch = TrajectoryPoints(clips.x0, torch.zeros(1, dtype=torch.long), clips.x0, clips.condition)
    plain = patch.object(attention, "_FEW", 0)  # another way to attend is for CPUs
    stopped = patch.object(BatchRandom, "one", lambda self, high: stop)
    with plain, stopped, flop_counter() as counter, PeakMemory() as memory:
        getattr(method, kind)(batch, BatchRandom(0)).loss.backward()
    for name in trained:
        getattr(roles, name).zero_grad(set_to_none=True)
    return counter.get_total_flops(), memory.peak


def count_stage(stage: Stage, recipe: StudentRecipe, config: ModelConfig) -> tuple[float, float]:
    """FLOP of one update of the student with the critics' before it, for one clip, and the most bytes of a turn."""
    roles, flop, peak = roles_of(config, recipe), 0.0, 0.0
    method, clips = stage.method(roles, stage.config), clips_of(config)
    for kind, times in (("critics_turn", recipe.critic_steps if method.critics else 0), ("student_turn", 1)):
        # A simulated student stops after 0 to 3 steps, each as likely: 1.5 on average, and the cost is linear.
        counted = [count_turn(method, roles, clips, kind, stop) for stop in (1, 2)] if times else [(0.0, 0.0)]
        flop += times * sum(work for work, _ in counted) / len(counted)
        peak = max(peak, *(size for _, size in counted))
    return flop, peak


def main(names: list[str]) -> None:
    """Print a line for each stage of each method, and the hours of each."""
    config = preset("viewcrafter-512-16")
    for name in names:
        recipe, total = replace(VIEWCRAFTER_STUDENT, method=name), 0.0  # type: ignore[arg-type]
        for stage in stages_of(recipe):
            with FakeTensorMode():
                flop, peak = count_stage(stage, recipe, config)
            total += flop * stage.steps * recipe.batch
            counted = f"{stage.steps} updates of {flop / 1e12:.0f} TFLOP a clip, {peak / 1e9:.1f} GB"
            print(f"{name}, {stage.name}: {counted}", flush=True)
        hours = ", ".join(f"{total / GPUS / H100 / used / 3600:.0f} h at {used:.0%}" for used in USED)
        print(f"{name}: {total / 1e18:.1f} EFLOP; {GPUS} H100: {hours}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(METHODS))

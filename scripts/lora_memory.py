"""Count what a distillation with low-rank adapters needs in memory, turn by turn, on tensors without content.

    python scripts/lora_memory.py --model viewcrafter-512-16 --rank 32 64

Teacher, student and fake score share one base in bfloat16; the stages of the student's UNet, and of whatever else is in
the graph, are recomputed. Each turn is run as the distillation runs it, with its real losses and one clip, and the most
bytes that it makes and that exist at the same time are counted, gradients among them.
With `--autocast` normalisations keep float32 copies, as on a GPU. Not counted: CUDA's context (about 0.5 GB),
workspaces of kernels, and gaps in PyTorch's pool.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from fvgen.diffusion.random import BatchRandom
from fvgen.distillation.config import DistillationConfig
from fvgen.distillation.critic import CriticHead
from fvgen.distillation.methods import Clips, GanInit, Method, Roles, SoftDmd
from fvgen.evaluation.benchmark.count import PeakMemory
from fvgen.evaluation.benchmark.systems import random_model
from fvgen.models import Condition, ModelConfig, VideoModel, attention, preset
from fvgen.models.lora import adapted, trainable
from fvgen.models.lora_config import LoraConfig

GB = 1e9
Turn = tuple[str, type[Method], str]
TURNS: tuple[Turn, ...] = (
    ("stage 1, critic", GanInit, "critics_turn"),
    ("stage 1, student", GanInit, "student_turn"),
    ("stage 2, critics", SoftDmd, "critics_turn"),
    ("stage 2, student", SoftDmd, "student_turn"),
)


@dataclass
class Options:
    """What is counted."""

    model: str = "viewcrafter-512-16"
    """A preset."""

    rank: tuple[int, ...] = (32, 64)
    """Of the adapters."""

    autocast: bool = False
    """Compute under autocast, instead of in the base's bfloat16 throughout."""

    recompute: bool = True
    """Keep only the inputs of each stage of the UNet."""


def _in_float32(function: Callable[..., Tensor], x: Tensor, *args: Any) -> Tensor:
    """A normalisation as CUDA's autocast runs it; the CPU's, which counts here, leaves it in bfloat16."""
    return function(x.float(), *(a.float() if isinstance(a, Tensor) else a for a in args))


def _group_norm(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    return _in_float32(F.group_norm, x, norm.num_groups, norm.weight, norm.bias, norm.eps)


def _layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    return _in_float32(F.layer_norm, x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def count_turn(config: ModelConfig, lora: LoraConfig, turn: Turn, autocast: bool, recompute: bool) -> float:
    """Most bytes of a turn, forward and backward, besides weights and moments; in fake tensor mode."""
    _, method, name = turn
    with ExitStack() as stack:
        teacher = random_model(config, torch.device("cpu"), torch.bfloat16).denoiser
        student, fake = adapted(teacher, lora), adapted(teacher, lora)
        student.schedule = fake.schedule = teacher.schedule  # tensors without content cannot be copied
        channels = config.unet.channel_mult[-1] * config.unet.model_channels
        head = CriticHead(channels)
        blocks = [part for net in (teacher, student, fake) for part in net.blocks()[:-1]]
        for block in blocks if recompute else ():
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        latents = config.autoencoder.latent_channels
        factor = 2 ** (len(config.autoencoder.channels) - 1) * config.autoencoder.patch_size
        x0 = torch.zeros(1, latents, config.frames, config.height // factor, config.width // factor)
        tokens = torch.zeros(1, config.unet.text_tokens + config.resampler.num_queries, config.unet.context_dim)
        concat = torch.zeros(1, config.unet.in_channels - latents, *x0.shape[2:])
        clips = Clips(x0, Condition(concat, tokens, tokens))
        options = DistillationConfig(guidance_scale=config.sampling.guidance_scale)
        made = method(Roles(teacher, student, fake, head), options)
        head.requires_grad_(name == "critics_turn")
        trained = trainable(fake if name == "critics_turn" else student)
        for network in (student, fake):
            trainable(network).requires_grad_(False)
        if (name, method) != ("critics_turn", GanInit):
            trained.requires_grad_(True)
        stack.enter_context(patch.object(attention, "_FEW", 0))  # plain attention is for CPUs
        if autocast:
            stack.enter_context(patch.object(nn.GroupNorm, "forward", _group_norm))
            stack.enter_context(patch.object(nn.LayerNorm, "forward", _layer_norm))
        memory = stack.enter_context(PeakMemory())
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = getattr(made, name)(clips, BatchRandom(0)).loss
        loss.backward()
        return memory.peak


def lora_budget(network: nn.Module, config: LoraConfig, base_bytes: int = 2) -> dict[str, int]:
    """Bytes of a distillation's networks where teacher, student and fake score share a base, activations apart.

    Args:
        network: the base; may lie on ``meta``.
        config: of both adapters.
        base_bytes: of each of the base's weights; the factors are float32.
    """
    base = sum(p.numel() for p in network.parameters())
    factors = 4 * sum(p.numel() for p in trainable(adapted(network, config)).parameters())
    return {
        "base": base_bytes * base,
        "student and fake score": 2 * factors,
        "average": factors,
        "moments": 2 * 2 * factors,
        "gradients": factors,
    }


def main(options: Options) -> None:
    """Print a table of each rank."""
    config = preset(options.model)
    network = VideoModel.build(config, device="meta").denoiser
    for rank in options.rank:
        budget = lora_budget(network, LoraConfig(rank))
        print(f"{options.model}, rank {rank}, GB: ", {name: round(size / GB, 2) for name, size in budget.items()})
        with FakeTensorMode():
            for turn in TURNS:
                size = count_turn(config, LoraConfig(rank), turn, options.autocast, options.recompute)
                print(f"rank {rank}, {turn[0]}: activations and gradients {size / GB:.3f} GB", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

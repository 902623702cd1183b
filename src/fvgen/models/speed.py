"""How a model is run: compiled, in which memory layout, how many windows at once, where its parts lie meanwhile."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fvgen.errors import UserError
from fvgen.models.model import ModelConfig, VideoModel

_SHARE = 0.9  # of the free memory of a GPU; the rest is for workspaces and what does not fit the gaps
_TENSORS = 40.0  # of the UNet's first width, held at a time; counted: 32.5 of ViewCrafter's network, 15.5 of `mini`'s


@dataclass(frozen=True)
class Speed:
    """Choices of speed and memory. They change results by rounding only.

    Attributes:
        compile: compile the UNet (``torch.compile``, fixed shapes; with CUDA graphs on a GPU unless it is off-loaded).
            Once per shape; batches of windows are filled up to the same size.
        channels_last: keep convolution weights, and so pictures, with their channels last in memory.
        offload: only the part of the model that is at work lies on the device, the others in the memory of the CPU.
        window_batch: windows denoised together; by default as many as a GPU's free memory takes, on a CPU one.
    """

    compile: bool = False
    channels_last: bool = False
    offload: bool = False
    window_batch: int | None = None


def prepare(model: VideoModel, speed: Speed, device: torch.device) -> None:
    """Bring a model that is in place into the form that ``speed`` asks for; safe to repeat.

    Raises:
        UserError: there is nothing to compile with.
    """
    unet, vae = model.denoiser.unet, model.autoencoder.vae
    layout = torch.channels_last if speed.channels_last else torch.contiguous_format
    for weight in (p for part in (unet, vae) for p in part.parameters() if p.ndim == 4):
        weight.data = weight.data.contiguous(memory_format=layout)
    if not speed.compile:
        unet.__dict__.pop("forward", None)
    elif "forward" not in unet.__dict__:
        if device.type == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "c++", "clang++"))):
            raise UserError("compiling for a CPU needs a C++ compiler: install g++, name one in CXX, or do not compile")
        graphs = device.type == "cuda" and not speed.offload  # graphs hold addresses, which off-loading changes
        compile_unet(unet, mode="reduce-overhead" if graphs else None)


def compile_unet(unet: nn.Module, **options: Any) -> None:
    """Compile the forward pass in place, for the shapes it is called with; weights and hooks are untouched.

    Args:
        unet: any network.
        options: keyword arguments of ``torch.compile``.
    """
    unet.forward = torch.compile(unet.forward, dynamic=False, **options)


@contextmanager
def on_device(device: torch.device, *modules: nn.Module, offload: bool = True) -> Iterator[None]:
    """Have modules on a device inside the block, and on the CPU again after it.

    Args:
        device: where they compute.
        modules: moved in place; their number format stays.
        offload: ``False`` leaves them where they are.
    """
    moved = modules if offload else ()
    try:
        for module in moved:
            module.to(device)
        yield
    finally:
        for module in moved:
            module.to("cpu")


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def window_bytes(config: ModelConfig, frames: int, size: tuple[int, int], dtype: torch.dtype) -> float:
    """Memory that one more window takes while the UNet runs, weights apart.

    It is proportional to the pixels of the latents, the frames and the UNet's first width; `fvgen benchmark count`
    counts it tensor by tensor.

    Args:
        config: the model's.
        frames: frames of the window.
        size: (width, height) in pixels.
        dtype: number format of the activations.
    """
    factor = config.autoencoder.spatial_factor
    positions = frames * (size[0] // factor) * (size[1] // factor)
    network = _TENSORS * positions * config.unet.model_channels * dtype.itemsize
    return network + frames * frame_bytes(config, size)


def frame_bytes(config: ModelConfig, size: tuple[int, int]) -> float:
    """Memory of one frame of a window while it waits for its turn: picture, coverage, latents of guide and noise."""
    width, height = size
    factor = config.autoencoder.spatial_factor
    latents = 2 * config.autoencoder.latent_channels + config.coverage_channel
    return width * height * (3 * 4 + 1) + width * height // factor**2 * latents * 4


def windows_at_once(
    model: VideoModel, speed: Speed, frames: int, size: tuple[int, int], device: torch.device, free: int | None = None
) -> int:
    """How many windows are denoised together.

    Args:
        model: with its weights where they are before the UNet runs.
        speed: its ``window_batch``, where it has one, is the answer.
        frames: frames of each window.
        size: (width, height) in pixels.
        device: where the UNet runs.
        free: free bytes; by default what the GPU says.
    """
    if speed.window_batch is not None:
        return speed.window_batch
    if device.type != "cuda" and free is None:
        return 1
    weights = list(model.denoiser.unet.parameters())
    if free is None:  # what the driver has, and what PyTorch keeps without using it
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free = torch.cuda.mem_get_info(device)[0] + kept
    if speed.offload:
        free -= sum(p.numel() * p.element_size() for p in weights)
    return max(1, int(_SHARE * free / window_bytes(model.config, frames, size, weights[0].dtype)))


def equal_batches(count: int, most: int) -> list[range]:
    """``count`` windows in as few batches of at most ``most`` as there can be, as equal as can be, largest first."""
    batches = -(-count // most)
    size = -(-count // batches)
    return [range(start, min(start + size, count)) for start in range(0, count, size)]

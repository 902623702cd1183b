"""Counts how often the networks of a model run."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from fvgen.models.model import VideoModel


@dataclass
class Calls:
    """How often the networks ran.

    Attributes:
        unet: passes of the UNet, whatever their batch.
        unet_clips: clips in them.
        encode: calls of the autoencoder's encoder.
        encode_frames: frames in them.
        decode: calls of its decoder.
        decode_frames: frames in them.
    """

    unet: int = 0
    unet_clips: int = 0
    encode: int = 0
    encode_frames: int = 0
    decode: int = 0
    decode_frames: int = 0


@contextmanager
def counted_calls(model: VideoModel) -> Iterator[Calls]:
    """Count how often the networks of ``model`` run inside the block."""
    calls = Calls()

    def watch(module: nn.Module, name: str, items: str) -> Any:
        def before(_: nn.Module, args: tuple[Any, ...]) -> None:
            setattr(calls, name, getattr(calls, name) + 1)
            setattr(calls, items, getattr(calls, items) + len(args[0]))

        return module.register_forward_pre_hook(before)

    vae = model.autoencoder.vae
    watched = [(model.denoiser.unet, "unet", "unet_clips"), (vae.encoder, "encode", "encode_frames")]
    handles = [watch(*names) for names in [*watched, (vae.decoder, "decode", "decode_frames")]]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()

"""Seconds and memory of each stage of a generation, several systems in turn in the same run."""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fvgen.evaluation.benchmark.clock import StageClock
from fvgen.evaluation.benchmark.systems import System
from fvgen.models.model import VideoModel
from fvgen.models.windows import Windows, WindowSampler
from fvgen.pipeline import NovelViews, Size
from fvgen.progress import track
from fvgen.scene.types import Photos

_WARM_STEPS = 2  # of denoising: shapes and kernels are those of the steps after


@contextmanager
def counted_calls(model: VideoModel) -> Iterator[Counter[str]]:
    """Count how often the networks of a model run inside the block.

    Yields:
        ``unet``, ``encode`` and ``decode``, calls of the UNet and of the autoencoder's halves, and what was in their
        batches: ``unet_clips``, ``encode_frames`` and ``decode_frames``.
    """
    calls: Counter[str] = Counter()

    def watch(module: nn.Module, name: str, items: str) -> Any:
        calls.update({name: 0, items: 0})
        return module.register_forward_pre_hook(lambda _, args: calls.update({name: 1, items: len(args[0])}))

    vae = model.autoencoder.vae
    halves = [watch(getattr(vae, f"{name}r"), name, f"{name}_frames") for name in ("encode", "decode")]
    handles = [watch(model.denoiser.unet, "unet", "unet_clips"), *halves]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def measure_generation(
    photos: Photos,
    systems: Sequence[System],
    write: Callable[[NovelViews, Path], object],
    repeats: int,
    warmup: int = 1,
    size: Size = None,
) -> None:
    """Measure whole generations: in each repeat the scene once, then every system in turn.

    Args:
        photos: to generate from.
        systems: take what is found; ``geometry`` is the same for all.
        write: leaves the views in an empty folder, as a generation does.
        repeats: that count.
        warmup: rounds before, with few steps, that do not.
        size: of the views, see `NovelViewPipeline.frame_size`.
    """
    first = systems[0]
    sizes = {system: system.pipeline.frame_size(photos, size) for system in systems}
    for system, steps, clock in _in_turn(systems, repeats, warmup):
        pipeline = system.pipeline
        if system is first:
            geometry = StageClock(pipeline.device)
            with geometry.stage("geometry"):
                scene = pipeline.scene(photos)
        with clock.stage("render"):
            path = pipeline.plan(scene, "through", None, sizes[system])
            guide = pipeline.guide(scene, path)
        completed = pipeline.complete(scene, guide, steps=steps, clock=clock)
        with clock.stage("compose"):
            frames = pipeline.compose(guide, completed)
        views = NovelViews(frames, guide, path.cameras, path.photo, scene, clock.seconds, completed.settings)
        with tempfile.TemporaryDirectory() as folder, clock.stage("write"):
            write(views, Path(folder))
        clock.add(geometry)
        counts = {"frames": len(frames), "photos": len(photos), "points": len(scene.points)}
        system.settings = {**pipeline.settings(steps).as_dict(), "size": list(path.cameras.size), **counts}


@torch.no_grad()
def measure_clips(systems: Sequence[System], repeats: int, warmup: int, clips: int, size: tuple[int, int]) -> None:
    """Measure encoding, denoising and decoding of random clips; no photos, and nothing is written.

    Args:
        systems: take what is found.
        repeats, warmup: as in :func:`measure_generation`.
        clips: how many; the systems' speed says how many of them are denoised together.
        size: (width, height) in pixels, multiples of the model's grid.
    """
    frames, (width, height) = systems[0].model.config.frames, size
    pictures = torch.rand(clips, frames, height, width, 3, generator=torch.Generator().manual_seed(0))
    every = torch.ones(clips, frames, dtype=torch.bool)
    coverage = every[..., None, None].expand(-1, -1, height, width)
    for system, steps, clock in _in_turn(systems, repeats, warmup):
        pipeline, settings = system.pipeline, system.pipeline.settings(steps)
        sampler = WindowSampler(system.model, pipeline.speed, pipeline.device, steps, settings.guidance_scale)
        groups = sampler.groups(clips, frames, size)
        for group in groups:
            noise = [[torch.Generator().manual_seed(clip) for clip in batch] for batch in group]
            batches = [Windows(pictures[b], coverage[b], every[b], n) for b, n in zip(group, noise)]
            sampler.run(batches, len(groups[0][0]), clock.stage)
        system.settings = {**settings.as_dict(), "size": list(size), "frames": frames, "clips": clips}


def _in_turn(systems: Sequence[System], repeats: int, warmup: int) -> Iterator[tuple[System, int, StageClock]]:
    """Every system, its steps and a clock, again and again, so that what else the machine does hits all of them."""
    for turn in track(range(-warmup, repeats), "repeats"):
        for system in systems:
            clock = StageClock(system.pipeline.device, system.model)
            with counted_calls(system.model) as system.calls:
                yield system, system.steps if turn >= 0 else min(system.steps, _WARM_STEPS), clock
            if turn < 0:
                continue
            for name, seconds in clock.seconds.items():
                if seconds > 0:  # it ran
                    system.seconds.setdefault(name, []).append(seconds)
            for most, found in ((system.resident, clock.resident), (system.gpu, clock.gpu)):
                most.update({name: max(size, most.get(name, 0)) for name, size in found.items()})

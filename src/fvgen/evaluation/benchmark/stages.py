"""Seconds and memory of each stage of a generation, several systems in turn in the same run."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fvgen.errors import UserError
from fvgen.evaluation.benchmark.calls import Calls, counted_calls
from fvgen.evaluation.benchmark.clock import ResidentPeak, StageClock
from fvgen.evaluation.benchmark.systems import System
from fvgen.models.sampling import sample_latents
from fvgen.pipeline import NovelViews, Size
from fvgen.progress import track
from fvgen.scene.types import Photos, Scene

_WARM_STEPS = 2  # of denoising: shapes and kernels are those of the steps after


@dataclass
class Timing:
    """Of one system, one entry per repeat.

    Attributes:
        system: what was measured.
        settings: size, frames, steps, guidance.
        seconds: per stage.
        resident, gpu: peak bytes per stage, see :class:`StageClock`.
        calls: how often the networks ran in one generation.
    """

    system: System
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    resident: dict[str, list[int]] = field(default_factory=dict)
    gpu: dict[str, list[int]] = field(default_factory=dict)
    calls: Calls = field(default_factory=Calls)

    def add(self, clock: StageClock) -> None:
        """Append one repeat; stages that took no time did not run."""
        for name, seconds in clock.seconds.items():
            if seconds > 0:
                self.seconds.setdefault(name, []).append(seconds)
        for kept, found in ((self.resident, clock.resident), (self.gpu, clock.gpu)):
            for name, size in found.items():
                kept.setdefault(name, []).append(size)


def measure_generation(
    photos: Photos,
    systems: list[System],
    write: Callable[[NovelViews, Path], object],
    repeats: int,
    warmup: int = 1,
    size: Size = None,
) -> list[Timing]:
    """Measure whole generations: in each repeat the scene once, then every system in turn.

    Args:
        photos: to generate from.
        systems: each measured in every repeat, so that what else the machine does hits all of them.
        write: leaves the views in an empty folder, as a generation does.
        repeats: that count.
        warmup: rounds before, with few steps, that do not.
        size: of the views, see `NovelViewPipeline.frame_size`.

    Returns:
        A timing per system, in which ``geometry`` is the same for all.
    """
    sizes = [s.pipeline.frame_size(photos, size) for s in systems]

    def scene(clock: StageClock) -> Scene:
        with clock.stage("geometry"):
            return systems[0].pipeline.scene(photos)

    def once(system: System, scene: Scene, steps: int, clock: StageClock) -> dict[str, Any]:
        pipeline = system.pipeline
        with clock.stage("render"):
            path = pipeline.plan(scene, "through", None, sizes[systems.index(system)])
            guide = pipeline.guide(scene, path)
        completed = pipeline.complete(scene, guide, steps=steps, clock=clock)
        with clock.stage("compose"):
            frames = pipeline.compose(guide, completed)
        views = NovelViews(frames, guide, path.cameras, path.photo, scene, clock.seconds, completed.settings)
        with tempfile.TemporaryDirectory() as folder, clock.stage("write"):
            write(views, Path(folder))
        points = len(scene.points)
        return {"size": list(views.cameras.size), "frames": len(views.photo), "photos": len(photos), "points": points}

    return _interleaved(systems, repeats, warmup, scene, once)


def measure_clips(
    systems: list[System], repeats: int, warmup: int = 1, clips: int = 1, size: tuple[int, int] | None = None
) -> list[Timing]:
    """Measure encoding, denoising and decoding of a batch of random clips; no photos, and nothing is written.

    Arguments and result as in :func:`measure_generation`; ``clips`` are denoised together.
    """
    model = systems[0].model
    config, device, dtype = model.config, systems[0].pipeline.device, systems[0].pipeline.dtype
    width, height = size or (config.width, config.height)
    if width % model.config.grid or height % model.config.grid:
        raise UserError(f"size {width}x{height}: width and height must be multiples of {model.config.grid}")
    guide = torch.rand(clips, config.frames, 3, height, width, generator=torch.Generator().manual_seed(0))
    guide = (guide * 2 - 1).to(device, dtype)
    coverage = torch.ones(clips, config.frames, height, width, dtype=torch.bool, device=device)
    noise = torch.randn(model.latent_shape(guide), generator=torch.Generator().manual_seed(1)).to(device)
    everything = torch.arange(clips * config.frames, device=device)

    def nothing(clock: StageClock) -> None:
        return None

    @torch.no_grad()
    def once(system: System, _: None, steps: int, clock: StageClock) -> dict[str, Any]:
        model = system.model
        sampled = noise if model.config.sampling.sample_guide else None
        with clock.stage("encode"):
            condition = model.condition(guide, coverage, guide[:, 0], sampled, system.guidance_scale != 1)
        with clock.stage("denoise"):
            latents = sample_latents(model, condition, noise, steps, system.guidance_scale)
        with clock.stage("decode"):
            model.decode(latents, condition.concat, guide, everything).cpu()
        return {"size": [width, height], "frames": config.frames, "clips": clips}

    return _interleaved(systems, repeats, warmup, nothing, once)


def _interleaved(
    systems: list[System],
    repeats: int,
    warmup: int,
    prepare: Callable[[StageClock], Any],
    once: Callable[[System, Any, int, StageClock], dict[str, Any]],
) -> list[Timing]:
    timings = [Timing(system) for system in systems]
    device = systems[0].pipeline.device
    with ResidentPeak() as resident:
        for turn in track(range(-warmup, repeats), "repeats"):
            common = StageClock(device, resident)
            prepared = prepare(common)
            for timing in timings:
                system, clock = timing.system, StageClock(device, resident)
                steps = system.steps if turn >= 0 else min(system.steps, _WARM_STEPS)
                with counted_calls(system.model) as calls:
                    facts = once(system, prepared, steps, clock)
                if turn >= 0:
                    timing.add(common)
                    timing.add(clock)
                    timing.calls = calls
                    timing.settings = {**facts, "steps": steps, "guidance_scale": system.guidance_scale}
    return timings

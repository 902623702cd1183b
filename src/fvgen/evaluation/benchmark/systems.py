"""What is measured: models at a number of steps, run in several ways, and the photos that they are measured on."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fvgen.errors import UserError
from fvgen.evaluation.systems import checked_steps
from fvgen.hub import model_and_steps
from fvgen.models.model import ModelConfig, SamplingConfig, VideoModel
from fvgen.models.presets import preset as find_preset
from fvgen.models.speed import Speed
from fvgen.pipeline import NovelViewPipeline
from fvgen.procedural import procedural_scene
from fvgen.scene.photos import load_photos
from fvgen.scene.types import Photos

_DEMO = Path(__file__).parents[4] / "examples" / "demo" / "photos"


@dataclass(eq=False)
class System:
    """A model at a number of steps, run in one way, and what was measured of it.

    Attributes:
        label: its column in a table.
        pipeline: holds the model, and says how it is run.
        steps: of denoising that are run.
        all_steps: that a generation has; more than ``steps`` where only some are measured.
        settings: size, frames, steps, guidance and so on.
        seconds: per stage, an entry per repeat.
        resident, gpu: most bytes per stage, see :class:`fvgen.evaluation.benchmark.clock.StageClock`.
        calls: how often the networks ran in one generation.
    """

    label: str
    pipeline: NovelViewPipeline
    steps: int
    all_steps: int
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    resident: dict[str, int] = field(default_factory=dict)
    gpu: dict[str, int] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)

    @property
    def model(self) -> VideoModel:
        """The network."""
        assert self.pipeline.model is not None
        return self.pipeline.model


def parse_way(text: str, speed: Speed, dtype: str) -> tuple[Speed, str]:
    """A way of running a model, such as ``compile`` or ``bfloat16+offload``, as its :class:`Speed` and number format.

    Args:
        text: choices joined by ``+``.
        speed, dtype: of the way ``plain``.

    Raises:
        UserError: there is no such choice.
    """
    for word in text.split("+"):
        name, _, number = word.partition("=")
        if word in ("compile", "channels-last", "offload"):
            speed = replace(speed, **{word.replace("-", "_"): True})
        elif name == "window-batch" and number.isdigit() and int(number) > 0:
            speed = replace(speed, window_batch=int(number))
        elif word in ("float32", "bfloat16", "float16"):
            dtype = word
        elif word != "plain":
            choices = "plain, compile, channels-last, offload, window-batch=N, float32, bfloat16, float16"
            raise UserError(f"`ways` {text}: choose from {choices}, or join some of them by +")
    return speed, dtype


def load_systems(
    names: Sequence[str],
    ways: Sequence[str],
    device: str,
    dtype: str,
    preset: str | None = None,
    clips: int | None = None,
    most_steps: int | None = None,
) -> list[System]:
    """Models, each in every way; one that is named twice is loaded once.

    Args:
        names: written ``NAME`` or ``NAME:STEPS``; with a ``preset``, ``student`` (four steps, no guidance) and
            ``teacher``, which have the same random weights.
        ways: see :func:`parse_way`.
        device, dtype: as in :meth:`NovelViewPipeline.to`.
        preset: name of the shapes of student and teacher.
        clips: denoised together where the way does not say.
        most_steps: of denoising that are run; all by default.

    Raises:
        UserError: unknown model, preset, number of steps, way or device.
    """
    shape = None if preset is None else find_preset(preset)

    @cache
    def load(name: str, way: str) -> NovelViewPipeline:
        speed, form = parse_way(way, Speed(window_batch=clips), dtype)
        if shape is None:
            return NovelViewPipeline.from_pretrained(name, device=device, dtype=form, speed=speed)
        if name == "teacher":
            place = NovelViewPipeline(None).to(device, form)
            model = random_model(shape, place.device, place.dtype)
        else:
            place = load("teacher", way)
            teacher, few = place.model, SamplingConfig(steps=4, guidance_scale=1.0, few_step=True)
            assert teacher is not None
            parts = teacher.autoencoder, teacher.conditioner, teacher.denoiser
            model = VideoModel(replace(shape, sampling=few), *parts).eval()
        return NovelViewPipeline(model, f"{preset}, {name}", speed).to(place.device, place.dtype)

    for way in ways:
        parse_way(way, Speed(), dtype)  # complain before anything is loaded
    systems = []
    for text in names:
        name, steps = model_and_steps(text)
        if shape is not None and name not in ("student", "teacher"):
            raise UserError(f"`models` {text}: of a preset there are student and teacher")
        for way in ways:
            pipeline = load(name, way)
            if pipeline.config is None:
                raise UserError(f"`models` {text}: there are no stages of a model to measure")
            count = checked_steps(text, pipeline.config, steps)
            label = f"{Path(pipeline.name).name} {count}" + ("" if way == "plain" else f", {way}")
            systems.append(System(label, pipeline, min(count, most_steps or count), count))
    return systems


def random_model(config: ModelConfig, device: torch.device, dtype: torch.dtype, seed: int = 0) -> VideoModel:
    """A model with random weights that keep activations of ordinary size.

    Each tensor is made once, in its place and number format. In PyTorch's fake tensor mode it takes no memory.
    """
    generator = torch.Generator(device).manual_seed(seed)

    def made(name: str, shape: torch.Size) -> Tensor:
        if len(shape) < 2:
            one = float("norm" in name and name.endswith("weight"))
            return torch.full(shape, one, dtype=dtype, device=device)
        deviation = shape[1:].numel() ** -0.5
        return torch.empty(shape, dtype=dtype, device=device).normal_(std=deviation, generator=generator)

    model = VideoModel.build(config, device="meta")
    for part in model.components().values():
        part.load_state_dict({name: made(name, value.shape) for name, value in part.state_dict().items()}, assign=True)
    return model.eval().requires_grad_(False)


def default_photos() -> tuple[Photos, str]:
    """Photos and what they are: the example of a checkout, or, where there is none, a scene made up on the spot."""
    if _DEMO.is_dir():
        return load_photos([_DEMO]), "the five pictures of examples/demo"
    return made_up_photos(5, 512, 320), "five pictures of a made-up scene, their cameras given"


def made_up_photos(count: int, width: int, height: int) -> Photos:
    """Pictures of a procedural scene, always the same one, with their cameras."""
    scene = procedural_scene(0, count, width, height)
    pictures = [torch.from_numpy(picture) for picture in scene.film(scene.cameras)[0]]
    return Photos([f"{i:02d}.png" for i in range(count)], pictures, [None] * count, scene.cameras)

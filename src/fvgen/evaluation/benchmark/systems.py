"""What is measured: models at a number of steps, of the package, of a folder, or of a preset's shape."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from fvgen.errors import UserError
from fvgen.evaluation.benchmark.random_model import random_model
from fvgen.evaluation.systems import model_and_steps
from fvgen.models.model import ModelConfig, SamplingConfig, VideoModel
from fvgen.pipeline import NovelViewPipeline


@dataclass(frozen=True)
class System:
    """A model at a number of steps.

    Attributes:
        label: its column.
        pipeline: holds the model.
        steps: of denoising that are run.
        all_steps: that a generation has; more than ``steps`` where only some are measured.
    """

    label: str
    pipeline: NovelViewPipeline
    steps: int
    all_steps: int

    @property
    def guidance_scale(self) -> float:
        """The model's own."""
        return self.model.config.sampling.guidance_scale

    @property
    def model(self) -> VideoModel:
        """The network."""
        assert self.pipeline.model is not None
        return self.pipeline.model


def load_systems(names: tuple[str, ...], device: str, dtype: str) -> list[System]:
    """Models written ``NAME`` or ``NAME:STEPS``; one that is named twice is loaded once.

    Raises:
        UserError: unknown model, number of steps or device.
    """
    loaded: dict[str, NovelViewPipeline] = {}
    systems = []
    for text in names:
        name, steps = model_and_steps(text)
        if name == "none":
            raise UserError("--models none: there are no stages of a model to measure")
        if name not in loaded:
            loaded[name] = NovelViewPipeline(VideoModel.load(name), name)
            loaded[name].to(device, dtype)
        pipeline = loaded[name]
        assert pipeline.model is not None
        config = pipeline.model.config
        count = config.sampling.steps if steps is None else steps
        if not 1 <= count <= config.schedule.num_timesteps:
            raise UserError(f"--models {text}: choose 1 to {config.schedule.num_timesteps} steps")
        systems.append(System(f"{Path(name).name} {count}", pipeline, count, count))
    return systems


def sampled_as_student(config: ModelConfig) -> ModelConfig:
    """A teacher's shapes, sampled in four steps without guidance."""
    return replace(config, sampling=SamplingConfig(steps=4, guidance_scale=1.0, few_step=True))


def preset_systems(name: str, config: ModelConfig, most_steps: int | None, device: str, dtype: str) -> list[System]:
    """A student of a preset's shape (four steps, no guidance), and its teacher, both of the same random weights.

    Args:
        name: of the preset.
        config: its shapes, and how the teacher is sampled.
        most_steps: of denoising that are run; all by default.
        device, dtype: as in :meth:`NovelViewPipeline.to`.
    """
    place = NovelViewPipeline(None)
    place.to(device, dtype)
    teacher = random_model(config, place.device, place.dtype)
    student = VideoModel(sampled_as_student(config), teacher.autoencoder, teacher.conditioner, teacher.denoiser).eval()
    systems = []
    for kind, model in (("student", student), ("teacher", teacher)):
        steps = model.config.sampling.steps
        pipeline = NovelViewPipeline(model, name)
        pipeline.to(place.device, place.dtype)
        systems.append(System(f"{name}, {kind} {steps}", pipeline, min(steps, most_steps or steps), steps))
    return systems

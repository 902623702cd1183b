"""Every count of one model: its networks, the plane sweep and the splatter."""

import json
from pathlib import Path

import torch

from fvgen.errors import UserError
from fvgen.evaluation.benchmark.counting import Work, count_model
from fvgen.evaluation.benchmark.formulas import geometry_work
from fvgen.models.model import WEIGHTS, ModelConfig, VideoModel, config_from_dict
from fvgen.models.presets import preset


def config_of(name: str) -> ModelConfig:
    """The shapes of a model of the package or of a folder; its weights are not read.

    Raises:
        UserError: there is no such model.
    """
    for index in (WEIGHTS / name / "model_index.json", Path(name) / "model_index.json"):
        if index.is_file():
            try:
                return config_from_dict(json.loads(index.read_text(encoding="utf-8")))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise UserError(f"{index} does not describe an fvgen model: {error}") from error
    return VideoModel.load(name).config  # says what there is


def count_all(
    model: str | None,
    shape: str | None,
    frames: int | None,
    size: tuple[int, int] | None,
    dtype: torch.dtype,
    photos: int,
    planes: int,
) -> tuple[list[Work], list[Work]]:
    """Count everything.

    Args:
        model: by name or folder; ``mini`` if neither this nor ``shape`` is given.
        shape: name of a preset.
        frames, size, dtype: see `count_model`.
        photos, planes: see `geometry_work`.

    Returns:
        All stages, and those of the networks alone.

    Raises:
        UserError: unknown model or preset, or a size that does not suit it.
    """
    config = preset(shape) if shape is not None else config_of(model or "mini")
    grid = config.autoencoder.patch_size * 2 ** (len(config.autoencoder.channels) + len(config.unet.channel_mult) - 2)
    size = size or (config.width, config.height)
    if size[0] % grid or size[1] % grid:
        raise UserError(f"size {size[0]}x{size[1]}: width and height must be multiples of {grid}")
    if config.unet.per_frame_image_tokens and (frames or 0) > config.frames:
        raise UserError(f"--frames {frames}: this model's frames have image tokens of their own, for {config.frames}")
    stages = count_model(config, frames, size, dtype)
    return [*stages, *geometry_work(size, photos, planes)], stages

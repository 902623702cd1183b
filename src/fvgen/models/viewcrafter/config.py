"""Our configuration from ViewCrafter's own: the ``params`` of its YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fvgen.diffusion import ScheduleConfig
from fvgen.errors import UserError
from fvgen.models.autoencoder import AutoencoderConfig
from fvgen.models.conditioner import VisionConfig
from fvgen.models.model import ModelConfig
from fvgen.models.resampler import ResamplerConfig
from fvgen.models.unet import VideoUNetConfig
from fvgen.models.viewcrafter.text import TextConfig

# Options of the original's classes that change the network, with their default there and the value our network has.
_UNET_FIXED: dict[str, tuple[Any, Any]] = {
    "dims": (2, 2),
    "conv_resample": (True, True),
    "use_scale_shift_norm": (False, False),
    "resblock_updown": (False, False),
    "transformer_depth": (1, 1),
    "use_linear": (False, True),
    "temporal_conv": (False, True),
    "temporal_attention": (True, True),
    "temporal_selfatt_only": (True, True),
    "use_relative_position": (True, False),
    "use_causal_attention": (False, False),
    "image_cross_attention": (False, True),
    "image_cross_attention_scale_learnable": (False, False),
    "fs_condition": (False, True),
}
_MODEL_FIXED: dict[str, tuple[Any, Any]] = {"parameterization": ("v", "v"), "conditioning_key": ("hybrid", "hybrid")}
_VAE_FIXED: dict[str, tuple[Any, Any]] = {"double_z": (True, True), "attn_resolutions": ([], [])}


def read_config(path: Path) -> dict[str, Any]:
    """The ``params`` of a ViewCrafter YAML (``model.params``), or of a file that holds nothing but them.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"--config {path}: cannot be read as YAML: {' '.join(str(error).split())}") from error
    for part in ("model", "params"):
        values = values.get(part, values) if isinstance(values, dict) else values
    if not isinstance(values, dict) or "unet_config" not in values:
        raise UserError(f"--config {path}: this is not a ViewCrafter configuration: it has no unet_config")
    return values


def _check(where: str, values: Mapping[str, Any], fixed: dict[str, tuple[Any, Any]]) -> None:
    for name, (default, needed) in fixed.items():
        if values.get(name, default) != needed:
            raise UserError(
                f"the configuration's {where} has {name}: {values.get(name, default)}; ViewCrafter has {needed}, and "
                "fvgen has no other"
            )


def unet_config(params: Mapping[str, Any], per_frame_image_tokens: bool) -> VideoUNetConfig:
    """The UNet of ``unet_config.params``.

    Args:
        params: see above.
        per_frame_image_tokens: which token branch; the original decides it by the number of frames.
    """
    _check("unet_config", params, _UNET_FIXED)
    return VideoUNetConfig(
        in_channels=params["in_channels"],
        out_channels=params["out_channels"],
        model_channels=params["model_channels"],
        channel_mult=tuple(params["channel_mult"]),
        num_res_blocks=params["num_res_blocks"],
        attention_resolutions=tuple(params["attention_resolutions"]),
        num_head_channels=params["num_head_channels"],
        context_dim=params["context_dim"],
        text_tokens=77,
        per_frame_image_tokens=per_frame_image_tokens,
        init_attention_heads=8 if params.get("addition_attention") else 0,
        default_fs=params.get("default_fs", 4),
        dropout=params.get("dropout", 0.0),
    )


def autoencoder_config(params: Mapping[str, Any], scaling_factor: float) -> AutoencoderConfig:
    """The autoencoder of ``first_stage_config.params``."""
    shape = params["ddconfig"]
    _check("first_stage_config", shape, _VAE_FIXED)
    if params["embed_dim"] != shape["z_channels"] or shape["in_channels"] != 3 or shape["out_ch"] != 3:
        raise UserError("the configuration's first_stage_config is not that of an autoencoder of colour pictures")
    return AutoencoderConfig(
        patch_size=1,
        channels=tuple(shape["ch"] * mult for mult in shape["ch_mult"]),
        latent_channels=shape["z_channels"],
        layers=shape["num_res_blocks"],
        norm_groups=32,
        mid_attention=True,
        quant_conv=True,
        scaling_factor=scaling_factor,
    )


def resampler_config(params: Mapping[str, Any]) -> ResamplerConfig:
    """The resampler of ``image_proj_stage_config.params``."""
    return ResamplerConfig(
        dim=params["dim"],
        depth=params["depth"],
        heads=params["heads"],
        head_dim=params["dim_head"],
        num_queries=params["num_queries"] * params.get("video_length", 1),
        embedding_dim=params["embedding_dim"],
        output_dim=params["output_dim"],
        ff_mult=params["ff_mult"],
    )


def clip_configs(values: Mapping[str, Any] | None) -> tuple[VisionConfig, TextConfig]:
    """The two CLIP towers: OpenCLIP's ViT-H/14, or of ``values`` in the form of OpenCLIP's own configurations.

    ViewCrafter's YAML does not name their sizes; a file for towers of other sizes has an entry ``clip`` more.
    """
    if values is None:
        vision = VisionConfig(image_size=224, patch_size=14, hidden_size=1280, layers=32, heads=16, resize="blurred")
        return vision, TextConfig()
    image = values.get("vision_cfg") or values["vision"]
    text = values.get("text_cfg") or values["text"]
    vision = VisionConfig(
        image_size=image["image_size"],
        patch_size=image["patch_size"],
        hidden_size=image["width"],
        layers=image["layers"],
        heads=image["width"] // image.get("head_width", 64),
        resize="blurred",
    )
    return vision, TextConfig(text["vocab_size"], text["context_length"], text["width"], text["layers"], text["heads"])


def schedule_config(params: Mapping[str, Any], default: ScheduleConfig) -> ScheduleConfig:
    """The noise schedule of ``model.params``; what it does not name is as in ``default``."""
    rescaled = params.get("use_dynamic_rescale", True)
    return ScheduleConfig(
        num_timesteps=params.get("timesteps", default.num_timesteps),
        linear_start=params.get("linear_start", default.linear_start),
        linear_end=params.get("linear_end", default.linear_end),
        zero_terminal_snr=params.get("rescale_betas_zero_snr", default.zero_terminal_snr),
        base_scale=params.get("base_scale", default.base_scale) if rescaled else 1.0,
    )


def model_config(params: Mapping[str, Any], base: ModelConfig) -> tuple[ModelConfig, TextConfig]:
    """The whole model of ``model.params``; what they do not say (frames, token branch, sampling) is as in ``base``.

    Raises:
        UserError: an entry is missing, or asks for a network that we do not have.
    """
    try:
        _check("params", params, _MODEL_FIXED)
        unet = unet_config(params["unet_config"]["params"], base.unet.per_frame_image_tokens)
        autoencoder = autoencoder_config(params["first_stage_config"]["params"], params.get("scale_factor", 0.18215))
        vision, text = clip_configs(params.get("clip"))
        factor = 2 ** (len(autoencoder.channels) - 1)
        height, width = params.get("image_size") or (base.height // factor, base.width // factor)
        config = replace(
            base,
            width=width * factor,
            height=height * factor,
            unet=unet,
            autoencoder=autoencoder,
            vision=vision,
            resampler=resampler_config(params["image_proj_stage_config"]["params"]),
            schedule=schedule_config(params, base.schedule),
        )
    except KeyError as error:
        raise UserError(f"the configuration lacks {error.args[0]}") from error
    except (TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise UserError(f"the configuration has a value of the wrong kind: {error}") from error
    return config, text

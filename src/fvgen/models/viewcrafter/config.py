"""Our configuration from ViewCrafter's own: the ``params`` of its YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fvgen.errors import UserError
from fvgen.models.autoencoder import AutoencoderConfig
from fvgen.models.conditioner import VisionConfig
from fvgen.models.model import ModelConfig
from fvgen.models.presets import VIEWCRAFTER_AUTOENCODER, VIEWCRAFTER_VISION
from fvgen.models.resampler import ResamplerConfig
from fvgen.models.unet import VideoUNetConfig
from fvgen.models.viewcrafter.text import TextConfig

# Options of the original's classes that change the network, with their default there and the value our network has.
_FIXED: dict[str, dict[str, tuple[Any, Any]]] = {
    "params": {"parameterization": ("v", "v"), "conditioning_key": ("hybrid", "hybrid")},
    "first_stage_config": {"double_z": (True, True), "attn_resolutions": ([], [])},
    "unet_config": {
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
    },
}
_UNET_SAME = ("in_channels", "out_channels", "model_channels", "num_res_blocks", "num_head_channels", "context_dim")
_RESAMPLER_SAME = ("dim", "depth", "heads", "embedding_dim", "output_dim", "ff_mult")


def read_config(path: Path) -> dict[str, Any]:
    """The ``params`` of a ViewCrafter YAML (``model.params``), or of a file that holds nothing but them.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"`config` {path}: cannot be read as YAML: {' '.join(str(error).split())}") from error
    for part in ("model", "params"):
        values = values.get(part, values) if isinstance(values, dict) else values
    if not isinstance(values, dict) or "unet_config" not in values:
        raise UserError(f"`config` {path}: this is not a ViewCrafter configuration: it has no unet_config")
    return values


def _check(where: str, values: Mapping[str, Any]) -> None:
    for name, (default, needed) in _FIXED[where].items():
        if values.get(name, default) != needed:
            raise UserError(
                f"the configuration's {where} has {name}: {values.get(name, default)}; ViewCrafter has {needed}, and "
                "fvgen has no other"
            )


def unet_config(params: Mapping[str, Any], per_frame_image_tokens: bool) -> VideoUNetConfig:
    """The UNet's configuration from ``unet_config.params``.

    Args:
        params: those values.
        per_frame_image_tokens: the token branch; the original decides it by the number of frames.

    Raises:
        UserError: they ask for a network that we do not have.
        KeyError: a value is missing.
    """
    _check("unet_config", params)
    return VideoUNetConfig(
        **{name: params[name] for name in _UNET_SAME},
        channel_mult=tuple(params["channel_mult"]),
        attention_resolutions=tuple(params["attention_resolutions"]),
        per_frame_image_tokens=per_frame_image_tokens,
        init_attention_heads=8 if params.get("addition_attention") else 0,
        default_fs=params.get("default_fs", 4),
        dropout=params.get("dropout", 0.0),
    )


def autoencoder_config(params: Mapping[str, Any], scaling_factor: float) -> AutoencoderConfig:
    """The autoencoder's configuration from ``first_stage_config.params``; errors as in :func:`unet_config`."""
    shape = params["ddconfig"]
    _check("first_stage_config", shape)
    if params["embed_dim"] != shape["z_channels"] or shape["in_channels"] != 3 or shape["out_ch"] != 3:
        raise UserError("the configuration's first_stage_config is not that of an autoencoder of colour pictures")
    return replace(
        VIEWCRAFTER_AUTOENCODER,
        channels=tuple(shape["ch"] * mult for mult in shape["ch_mult"]),
        latent_channels=shape["z_channels"],
        layers=shape["num_res_blocks"],
        scaling_factor=scaling_factor,
    )


def resampler_config(params: Mapping[str, Any]) -> ResamplerConfig:
    """The resampler's configuration from ``image_proj_stage_config.params``; KeyError where a value is missing."""
    queries = params["num_queries"] * params.get("video_length", 1)
    same = {name: params[name] for name in _RESAMPLER_SAME}
    return ResamplerConfig(head_dim=params["dim_head"], num_queries=queries, **same)


def clip_configs(values: Mapping[str, Any] | None) -> tuple[VisionConfig, TextConfig]:
    """The two CLIP towers: OpenCLIP's ViT-H/14, or of ``values`` in the form of OpenCLIP's own configurations.

    ViewCrafter's YAML does not name their sizes; a file for towers of other sizes has an entry ``clip`` more.
    """
    if values is None:
        return VIEWCRAFTER_VISION, TextConfig()
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


def model_config(params: Mapping[str, Any], base: ModelConfig) -> tuple[ModelConfig, TextConfig]:
    """The whole model of ``model.params``; what they do not say (frames, token branch, sampling) is as in ``base``.

    Raises:
        UserError: an entry is missing, or asks for a network that we do not have.
    """
    try:
        _check("params", params)
        unet = unet_config(params["unet_config"]["params"], base.unet.per_frame_image_tokens)
        autoencoder = autoencoder_config(params["first_stage_config"]["params"], params.get("scale_factor", 0.18215))
        vision, text = clip_configs(params.get("clip"))
        factor = autoencoder.spatial_factor
        height, width = params.get("image_size") or (base.height // factor, base.width // factor)
        default, rescaled = base.schedule, params.get("use_dynamic_rescale", True)
        schedule = replace(
            default,
            num_timesteps=params.get("timesteps", default.num_timesteps),
            linear_start=params.get("linear_start", default.linear_start),
            linear_end=params.get("linear_end", default.linear_end),
            zero_terminal_snr=params.get("rescale_betas_zero_snr", default.zero_terminal_snr),
            base_scale=params.get("base_scale", default.base_scale) if rescaled else 1.0,
        )
        config = replace(
            base,
            width=width * factor,
            height=height * factor,
            unet=unet,
            autoencoder=autoencoder,
            vision=vision,
            resampler=resampler_config(params["image_proj_stage_config"]["params"]),
            schedule=schedule,
        )
    except KeyError as error:
        raise UserError(f"the configuration lacks {error.args[0]}") from error
    except (TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise UserError(f"the configuration has a value of the wrong kind: {error}") from error
    return config, text

"""Key map from ViewCrafter's UNet and resampler to ours. A complete map: a key without a rule is an error."""

import re

from torch import Tensor

from fvgen.models.unet import VideoUNetConfig

_ATTENTION = {"to_k_ip": "to_k_image", "to_v_ip": "to_v_image", "to_out.0": "to_out"}
_RES = {
    "in_layers.0": "norm_in",
    "in_layers.2": "conv_in",
    "emb_layers.1": "embed",
    "out_layers.0": "norm_out",
    "out_layers.3": "conv_out",
    "skip_connection": "skip",
}
_TOP = {
    "time_embed.0": "time_embed.linear_in",
    "time_embed.2": "time_embed.linear_out",
    "fps_embedding.0": "fs_embed.linear_in",
    "fps_embedding.2": "fs_embed.linear_out",
    "input_blocks.0.0": "conv_in",
    "out.0": "norm_out",
    "out.2": "conv_out",
}


def _transformer_key(rest: str) -> str:
    rest = rest.replace("transformer_blocks.0.", "block.")
    rest = rest.replace("ff.net.0.proj", "ff.proj_in").replace("ff.net.2", "ff.proj_out")
    for theirs, ours in _ATTENTION.items():
        rest = re.sub(rf"\.{re.escape(theirs)}\.", f".{ours}.", rest)
    return rest


def _res_key(rest: str) -> str:
    temporal = re.fullmatch(r"temopral_conv\.conv(\d)\.(\d)\.(\w+)", rest)
    if temporal:
        part = "norm" if temporal[2] == "0" else "conv"
        return f"temporal.{int(temporal[1]) - 1}.{part}.{temporal[3]}"
    for theirs, ours in _RES.items():
        if rest.startswith(theirs + "."):
            return ours + rest[len(theirs) :]
    raise KeyError(rest)


def _stage_key(stage: str, part: int, rest: str) -> str:
    if rest.startswith(("in_layers", "emb_layers", "out_layers", "skip_connection", "temopral_conv")):
        return f"{stage}.res.{_res_key(rest)}"
    if rest.startswith("op.") or (rest.startswith("conv.") and part > 0):
        return f"{stage}.resample.conv.{rest.split('.')[-1]}"
    return f"{stage}.{'spatial' if part == 1 else 'temporal'}.{_transformer_key(rest)}"


def unet_key(key: str) -> str:
    """Our name for one key of ViewCrafter's ``model.diffusion_model``.

    Raises:
        KeyError: for a key that no rule covers.
    """
    for theirs, ours in _TOP.items():
        if key.startswith(theirs + "."):
            return ours + key[len(theirs) :]
    if key.startswith("init_attn.0."):
        return f"init_temporal.{_transformer_key(key[len('init_attn.0.') :])}"
    match = re.fullmatch(r"(input_blocks|output_blocks)\.(\d+)\.(\d)\.(.+)", key)
    if match:
        side, index, part = match[1], int(match[2]), int(match[3])
        stage = f"encoder.{index - 1}" if side == "input_blocks" else f"decoder.{index}"
        return _stage_key(stage, part, match[4])
    match = re.fullmatch(r"middle_block\.(\d)\.(.+)", key)
    if match:
        part = int(match[1])
        return _stage_key("middle.second" if part == 3 else "middle.first", part % 3, match[2])
    raise KeyError(key)


def unet_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """ViewCrafter's UNet state under our names; 1x1 ``Conv1d`` weights of the first attention become linear."""
    converted = {}
    for key, value in state.items():
        name = unet_key(key)
        if key.startswith("init_attn.0.proj") and key.endswith("weight"):
            value = value[..., 0]
        converted[name] = value
    return converted


def unet_config(params: dict, per_frame_image_tokens: bool) -> VideoUNetConfig:
    """Our configuration for the ``params`` of ViewCrafter's YAML.

    Args:
        params: ``model.params.unet_config.params`` of the YAML.
        per_frame_image_tokens: which token branch; the original decides it from the number of frames.
    """
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


_RESAMPLER = {
    "0.norm1": "attention.norm_image",
    "0.norm2": "attention.norm_latents",
    "0.to_q": "attention.to_q",
    "0.to_kv": "attention.to_kv",
    "0.to_out": "attention.to_out",
    "1.0": "norm",
    "1.1": "linear_in",
    "1.3": "linear_out",
}


def resampler_key(key: str) -> str:
    """Our name for one key of ViewCrafter's ``image_proj_model``.

    Raises:
        KeyError: for a key that no rule covers.
    """
    if key.split(".")[0] in ("latents", "proj_in", "proj_out", "norm_out"):
        return key
    match = re.fullmatch(r"layers\.(\d+)\.(\d\.\w+)\.(\w+)", key)
    if match and match[2] in _RESAMPLER:
        return f"layers.{match[1]}.{_RESAMPLER[match[2]]}.{match[3]}"
    raise KeyError(key)

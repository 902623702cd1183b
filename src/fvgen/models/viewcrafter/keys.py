"""Where each tensor of a ViewCrafter checkpoint lies in a model folder. A key without a rule is an error."""

import re
from dataclasses import dataclass

import torch
from torch import Tensor

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


UNUSED = "unused"  # travels with the model, so that the checkpoint can be restored
SCHEDULE = "schedule"  # not stored: computed from the noise schedule


@dataclass(frozen=True)
class Place:
    """Where a tensor goes.

    Attributes:
        component: folder of the model (``unet``, ``vae``, ``conditioner``, ``text_encoder``), :data:`UNUSED` or
            :data:`SCHEDULE`.
        names: its names there; three for a fused query-key-value projection.
        singletons: trailing axes of size 1 that a 1x1 convolution has and a linear layer does not.
    """

    component: str
    names: tuple[str, ...]
    singletons: int = 0

    def split(self, tensor: Tensor) -> list[Tensor]:
        """The tensor of a checkpoint as the tensors of :attr:`names`.

        Raises:
            ValueError: if it does not have the form that the rule expects.
        """
        for _ in range(self.singletons):
            if tensor.ndim == 0 or tensor.shape[-1] != 1:
                raise ValueError(f"shape {list(tensor.shape)} is not that of a 1x1 convolution")
            tensor = tensor[..., 0]
        if len(self.names) == 1:
            return [tensor]
        if tensor.ndim == 0 or tensor.shape[0] % len(self.names):
            raise ValueError(f"shape {list(tensor.shape)} is not that of {len(self.names)} projections in one")
        return list(tensor.chunk(len(self.names)))

    def join(self, tensors: list[Tensor]) -> Tensor:
        """The inverse of :meth:`split`."""
        tensor = tensors[0] if len(tensors) == 1 else torch.cat(tensors)
        return tensor[(...,) + (None,) * self.singletons]


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


def unet_place(key: str) -> Place:
    """Place of one key of ``model.diffusion_model``, without its prefix."""
    pointwise = key.startswith("init_attn.0.proj") and key.endswith("weight")
    return Place("unet", (unet_key(key),), singletons=int(pointwise))


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


_VAE_RES = {"nin_shortcut": "conv_shortcut"}
_VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


def vae_place(key: str, levels: int) -> Place:
    """Place of one key of ViewCrafter's ``first_stage_model``.

    Args:
        key: without its prefix.
        levels: resolutions of the autoencoder; its decoder counts them the other way round.

    Raises:
        KeyError: for a key that no rule covers.
    """
    if re.fullmatch(r"(post_)?quant_conv\.\w+|(en|de)coder\.conv_(in|out)\.\w+", key):
        return Place("vae", (key,))
    match = re.fullmatch(r"((?:en|de)coder)\.norm_out\.(\w+)", key)
    if match:
        return Place("vae", (f"{match[1]}.conv_norm_out.{match[2]}",))
    match = re.fullmatch(r"(encoder\.down|decoder\.up)\.(\d+)\.block\.(\d+)\.(\w+)\.(\w+)", key)
    if match:
        part = f"resnets.{match[3]}.{_VAE_RES.get(match[4], match[4])}.{match[5]}"
        return Place("vae", (f"{_vae_level(match[1], int(match[2]), levels)}.{part}",))
    match = re.fullmatch(r"(encoder\.down|decoder\.up)\.(\d+)\.(down|up)sample\.conv\.(\w+)", key)
    if match:
        part = f"{match[3]}samplers.0.conv.{match[4]}"
        return Place("vae", (f"{_vae_level(match[1], int(match[2]), levels)}.{part}",))
    match = re.fullmatch(r"((?:en|de)coder)\.mid\.block_([12])\.(\w+)\.(\w+)", key)
    if match:
        part = f"resnets.{int(match[2]) - 1}.{_VAE_RES.get(match[3], match[3])}.{match[4]}"
        return Place("vae", (f"{match[1]}.mid_block.{part}",))
    match = re.fullmatch(r"((?:en|de)coder)\.mid\.attn_1\.(\w+)\.(\w+)", key)
    if match and match[2] in _VAE_ATTENTION:
        linear = match[2] != "norm" and match[3] == "weight"
        name = f"{match[1]}.mid_block.attentions.0.{_VAE_ATTENTION[match[2]]}.{match[3]}"
        return Place("vae", (name,), singletons=2 if linear else 0)
    raise KeyError(key)


def _vae_level(side: str, index: int, levels: int) -> str:
    return f"encoder.down_blocks.{index}" if side == "encoder.down" else f"decoder.up_blocks.{levels - 1 - index}"


_CLIP_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_TEXT = {
    "positional_embedding": "embeddings.position_embedding.weight",
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_VISION = {
    "class_embedding": "embeddings.class_embedding",
    "positional_embedding": "embeddings.position_embedding.weight",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",  # the library's spelling
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
}


def _clip_names(key: str, top: dict[str, str]) -> tuple[str, ...]:
    """Names in transformers' CLIP towers of one key of an OpenCLIP tower."""
    if key in top:
        return (top[key],)
    match = re.fullmatch(r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)", key)
    if match:
        return tuple(f"encoder.layers.{match[1]}.self_attn.{part}_proj.{match[2]}" for part in "qkv")
    match = re.fullmatch(r"transformer\.resblocks\.(\d+)\.([\w.]+)\.(weight|bias)", key)
    if match and match[2] in _CLIP_BLOCK:
        return (f"encoder.layers.{match[1]}.{_CLIP_BLOCK[match[2]]}.{match[3]}",)
    raise KeyError(key)


# The image tower comes with the leftovers of a text tower; neither projection into the common space is used; masks
# are constants that some versions of the library stored.
_UNUSED = re.compile(
    r"(cond_stage_model|embedder)\.model\.(text_projection|logit_scale|attn_mask)"
    r"|embedder\.model\.(token_embedding\.weight|positional_embedding|ln_final\.(weight|bias)|visual\.proj)"
)
BUFFERS = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    "scale_arr",
)


def place(key: str, vae_levels: int = 4) -> Place:
    """Place of one key of a whole checkpoint.

    Raises:
        KeyError: for a key that no rule covers.
    """
    if key in BUFFERS:
        return Place(SCHEDULE, (key,))
    if _UNUSED.fullmatch(key):
        return Place(UNUSED, (key,))
    prefix, _, rest = key.partition(".")
    inner = rest.removeprefix("model.")
    try:
        if key.startswith("model.diffusion_model."):
            return unet_place(rest.removeprefix("diffusion_model."))
        if prefix == "first_stage_model":
            return vae_place(rest, vae_levels)
        if prefix == "image_proj_model":
            return Place("conditioner", (f"resampler.{resampler_key(rest)}",))
        if prefix == "cond_stage_model" and rest != inner:
            return Place("text_encoder", _clip_names(inner, _TEXT))
        if prefix == "embedder" and inner.startswith("visual."):
            names = _clip_names(inner.removeprefix("visual."), _VISION)
            return Place("conditioner", tuple(f"tower.{name}" for name in names))
    except KeyError:
        pass
    raise KeyError(key)

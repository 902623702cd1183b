"""Where each tensor of a ViewCrafter checkpoint lies in a model folder. A key without a rule is an error."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fvgen.diffusion import ScheduleConfig
from fvgen.diffusion.schedule import alphas_cumprod, betas

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
        """A checkpoint's tensor as the model's tensors, one for each of :attr:`names`.

        Args:
            tensor: ``[N * len(names), ...]``, with :attr:`singletons` more axes at its end than the results have.

        Returns:
            Views ``[N, ...]`` of it.

        Raises:
            ValueError: the tensor does not have that shape.
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
        """The inverse of :meth:`split`: a checkpoint's tensor ``[N * len(names), ...]`` from tensors ``[N, ...]``."""
        tensor = tensors[0] if len(tensors) == 1 else torch.cat(tensors)
        return tensor[(...,) + (None,) * self.singletons]


_UNET = {
    "time_embed.0": "time_embed.linear_in",
    "time_embed.2": "time_embed.linear_out",
    "fps_embedding.0": "fs_embed.linear_in",
    "fps_embedding.2": "fs_embed.linear_out",
    "input_blocks.0.0": "conv_in",
    "init_attn.0": "init_temporal",
    "out.0": "norm_out",
    "out.2": "conv_out",
}
_RES = {
    "in_layers.0": "norm_in",
    "in_layers.2": "conv_in",
    "emb_layers.1": "embed",
    "out_layers.0": "norm_out",
    "out_layers.3": "conv_out",
    "skip_connection": "skip",
    **{f"temopral_conv.conv{i + 1}.0": f"temporal.{i}.norm" for i in range(4)},
    **{f"temopral_conv.conv{i + 1}.{2 if i == 0 else 3}": f"temporal.{i}.conv" for i in range(4)},
}
_TRANSFORMER = {
    ".transformer_blocks.0.": ".block.",
    ".ff.net.0.proj.": ".ff.proj_in.",
    ".ff.net.2.": ".ff.proj_out.",
    ".to_k_ip.": ".to_k_image.",
    ".to_v_ip.": ".to_v_image.",
    ".to_out.0.": ".to_out.",
}
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
_VAE_KEYS = re.compile(
    r"((post_)?quant_conv|(en|de)coder\.(conv_in|conv_out|norm_out|mid\.block_[12]\.\w+|mid\.attn_1\.(norm|[qkv]|proj_out))"
    r"|(encoder\.down|decoder\.up)\.\d+\.(block\.\d+\.\w+|(down|up)sample\.conv))\.\w+"
)
_VAE = {
    "encoder.down.": "encoder.down_blocks.",
    "coder.norm_out.": "coder.conv_norm_out.",
    ".mid.block_1.": ".mid_block.resnets.0.",
    ".mid.block_2.": ".mid_block.resnets.1.",
    ".block.": ".resnets.",
    ".nin_shortcut.": ".conv_shortcut.",
    "sample.conv.": "samplers.0.conv.",
    ".mid.attn_1.norm.": ".mid_block.attentions.0.group_norm.",
    ".mid.attn_1.proj_out.": ".mid_block.attentions.0.to_out.0.",
    ".mid.attn_1.": ".mid_block.attentions.0.to_",
}
_CLIP = {
    "positional_embedding": "embeddings.position_embedding.weight",
    "class_embedding": "embeddings.class_embedding",
    "token_embedding": "embeddings.token_embedding",
    "conv1": "embeddings.patch_embedding",
    "ln_pre": "pre_layrnorm",  # the library's spelling
    "ln_post": "post_layernorm",
    "ln_final": "final_layer_norm",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
# The image tower comes with the leftovers of a text tower; neither projection into the common space is used; masks
# are constants that some versions of the library stored.
_UNUSED = re.compile(
    r"(cond_stage_model|embedder)\.model\.(text_projection|logit_scale|attn_mask)"
    r"|embedder\.model\.(token_embedding\.weight|positional_embedding|ln_final\.(weight|bias)|visual\.proj)"
)


def place(key: str, vae_levels: int = 4) -> Place:
    """Where the tensor of one key of a checkpoint lies in a model folder.

    Args:
        key: the tensor's full name in the checkpoint.
        vae_levels: resolutions of the autoencoder; its decoder counts them the other way round.

    Raises:
        KeyError: no rule covers the key.
    """
    if key in BUFFERS:
        return Place(SCHEDULE, (key,))
    if _UNUSED.fullmatch(key):
        return Place(UNUSED, (key,))
    prefix, _, rest = key.partition(".")
    inner = rest.removeprefix("model.")
    try:
        if key.startswith("model.diffusion_model."):
            pointwise = rest.startswith("diffusion_model.init_attn.0.proj") and key.endswith("weight")
            return Place("unet", (_unet_name(rest.removeprefix("diffusion_model.")),), int(pointwise))
        if prefix == "first_stage_model":
            linear = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", rest)
            return Place("vae", (_vae_name(rest, vae_levels),), 2 if linear else 0)
        if prefix == "image_proj_model":
            return Place("conditioner", (f"resampler.{_resampler_name(rest)}",))
        if prefix == "cond_stage_model" and rest != inner:
            return Place("text_encoder", _clip_names(inner))
        if prefix == "embedder" and inner.startswith("visual."):
            return Place("conditioner", tuple(f"tower.{name}" for name in _clip_names(inner.removeprefix("visual."))))
    except KeyError:
        pass
    raise KeyError(key)


def _renamed(key: str, beginnings: Mapping[str, str]) -> str:
    for theirs, ours in beginnings.items():
        if key == theirs or key.startswith(f"{theirs}."):
            return ours + key[len(theirs) :]
    raise KeyError(key)


def _replaced(key: str, parts: Mapping[str, str]) -> str:
    for theirs, ours in parts.items():
        key = key.replace(theirs, ours)
    return key


def _unet_name(key: str) -> str:
    match = re.fullmatch(r"(?:(input|output)_blocks\.(\d+)|middle_block)\.(\d)\.(.+)", key)
    if match is None or key.startswith("input_blocks.0."):
        return _replaced(_renamed(key, _UNET), _TRANSFORMER)
    side, index, part, rest = match[1], match[2], int(match[3]), match[4]
    if side is None:
        stage, part = "middle.second" if part == 3 else "middle.first", part % 3
    else:
        stage = f"encoder.{int(index) - 1}" if side == "input" else f"decoder.{index}"
    if rest.startswith("op.") or (rest.startswith("conv.") and part > 0):
        return f"{stage}.resample.conv.{rest.split('.')[-1]}"
    if part == 0:
        return f"{stage}.res.{_renamed(rest, _RES)}"
    return _replaced(f"{stage}.{'spatial' if part == 1 else 'temporal'}.{rest}", _TRANSFORMER)


def _resampler_name(key: str) -> str:
    match = re.fullmatch(r"layers\.(\d+)\.(.+)", key)
    if match:
        return f"layers.{match[1]}.{_renamed(match[2], _RESAMPLER)}"
    if key.split(".")[0] in ("latents", "proj_in", "proj_out", "norm_out"):
        return key
    raise KeyError(key)


def _vae_name(key: str, levels: int) -> str:
    if not _VAE_KEYS.fullmatch(key):
        raise KeyError(key)
    key = re.sub(r"decoder\.up\.(\d+)", lambda m: f"decoder.up_blocks.{levels - 1 - int(m[1])}", key)
    return _replaced(key, _VAE)


def _clip_names(key: str) -> tuple[str, ...]:
    """Names in transformers' CLIP towers of one key of an OpenCLIP tower."""
    match = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)", key)
    if match is None:
        return (_renamed(key, _CLIP),)
    layer, rest = f"encoder.layers.{match[1]}", match[2]
    if rest in ("attn.in_proj_weight", "attn.in_proj_bias"):
        return tuple(f"{layer}.self_attn.{part}_proj.{rest.rpartition('_')[2]}" for part in "qkv")
    return (f"{layer}.{_renamed(rest, _CLIP)}",)


def schedule_buffers(config: ScheduleConfig) -> dict[str, Tensor]:
    """The constants of the noise schedule that a checkpoint holds, computed again bit for bit.

    Returns:
        By name in the checkpoint, ``[T]`` float32 each; ``scale_arr`` is ``scale_steps`` longer. The ``sqrt_recip``
        pair, which a velocity-predicting model does not use, is zero; the posterior is that of Ho et al. 2020,
        equations 6 and 7.
    """
    cumulative = alphas_cumprod(config)
    before = torch.cat([cumulative.new_ones(1), cumulative[:-1]])
    noise = betas(config)
    variance = noise * (1 - before) / (1 - cumulative)
    ramp = torch.linspace(1.0, config.base_scale, config.scale_steps, dtype=torch.float64)
    rest = torch.full((config.num_timesteps,), config.base_scale, dtype=torch.float64)
    buffers = {
        "betas": noise,
        "alphas_cumprod": cumulative,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": cumulative.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - cumulative).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - cumulative).log(),
        "sqrt_recip_alphas_cumprod": torch.zeros_like(cumulative),
        "sqrt_recipm1_alphas_cumprod": torch.zeros_like(cumulative),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp_min(1e-20).log(),
        "posterior_mean_coef1": noise * before.sqrt() / (1 - cumulative),
        "posterior_mean_coef2": (1 - before) * (1 - noise).sqrt() / (1 - cumulative),
        "scale_arr": torch.cat([ramp, rest]),
    }
    return {name: value.float() for name, value in buffers.items()}


BUFFERS = frozenset(schedule_buffers(ScheduleConfig()))

"""The teacher's video UNet: a latent-diffusion UNet with temporal convolutions and temporal attention.

Architecture of ViewCrafter (DynamiCrafter's UNet); every width and depth is a parameter, so the published
1.44 B network and `mini` are the same class. Tensors keep frames folded into the batch, ``(b t) c h w``, and are
unfolded only inside temporal modules.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fvgen.models.attention import Keys, Tokens, TransformerBlock

Context = Tensor | Sequence[Keys | None]  # tokens, or their keys and values for each stage


@dataclass(frozen=True)
class VideoUNetConfig:
    """Widths and depths of :class:`VideoUNet`.

    Attributes:
        in_channels: channels of ``x_t`` and of the concatenated condition together.
        out_channels: channels of the predicted velocity.
        model_channels: width of the first level.
        channel_mult: width of each level as a multiple of ``model_channels``.
        num_res_blocks: residual blocks per level (the decoder has one more).
        attention_resolutions: downsampling factors at which spatial and temporal transformers sit.
        num_head_channels: channels per attention head.
        context_dim: width of the text and image tokens.
        text_tokens: how many leading tokens of the context are text.
        per_frame_image_tokens: ``True``: frame ``i`` sees only its own ``tokens_per_frame`` image tokens (ViewCrafter's
            16-frame branch); ``False``: every frame sees all of them (its 25-frame branch).
        tokens_per_frame: image tokens that one frame sees; a clip may have fewer frames than there are tokens for.
        init_attention_heads: heads of the temporal transformer after the first convolution; 0 leaves it out.
        norm_groups: groups of every group normalisation.
        default_fs: frame stride assumed where none is given.
        dropout: dropout probability inside residual blocks while training.
    """

    in_channels: int = 8
    out_channels: int = 4
    model_channels: int = 320
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    attention_resolutions: tuple[int, ...] = (4, 2, 1)
    num_head_channels: int = 64
    context_dim: int = 1024
    text_tokens: int = 77
    per_frame_image_tokens: bool = False
    tokens_per_frame: int = 16
    init_attention_heads: int = 8
    norm_groups: int = 32
    default_fs: int = 10
    dropout: float = 0.1


def sinusoidal_embedding(values: Tensor, dim: int) -> Tensor:
    """``[B]`` -> ``[B, dim]``: cosines, then sines, of ``values * 10000^(-i / (dim/2))``."""
    half = dim // 2
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, device=values.device, dtype=torch.float32) / half)
    angles = values.float()[:, None] * frequencies[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


M = TypeVar("M", bound=nn.Module)


def _zero(module: M) -> M:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class ScalarEmbedding(nn.Module):
    """Sinusoid, linear, SiLU, linear: ``[B]`` -> ``[B, out_dim]``."""

    def __init__(self, in_dim: int, out_dim: int, zero: bool = False) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.linear_in = nn.Linear(in_dim, out_dim)
        self.linear_out = nn.Linear(out_dim, out_dim)
        if zero:
            _zero(self.linear_out)

    def forward(self, values: Tensor) -> Tensor:
        embedded = sinusoidal_embedding(values, self.in_dim).to(self.linear_in.weight.dtype)
        return self.linear_out(F.silu(self.linear_in(embedded)))


class TimeConv(nn.Conv3d):
    """Convolution over time only, kernel 3: ``[B, C, T, H, W]`` -> ``[B, C', T, H, W]``."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, (3, 1, 1), padding=(1, 0, 0))

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # A (3,1) convolution over (T, HW) is the same sum as the (3,1,1) one, and much faster on CPUs.
        found = F.conv2d(input.flatten(3), weight[..., 0], bias, padding=(1, 0))
        return found.unflatten(3, input.shape[3:])


def _temporal_conv(channels: int, groups: int, dropout: float) -> nn.Module:
    """``[B, C, T, H, W]`` -> the same; the normalisation pools over the clip."""
    layers = {"norm": nn.GroupNorm(groups, channels), "silu": nn.SiLU(), "dropout": nn.Dropout(dropout)}
    return nn.Sequential(OrderedDict(**layers, conv=TimeConv(channels, channels)))


class ResBlock(nn.Module):
    """Spatial residual block with the time embedding added, followed by four residual temporal convolutions."""

    def __init__(self, in_channels: int, out_channels: int, embed_dim: int, config: VideoUNetConfig) -> None:
        super().__init__()
        groups = config.norm_groups
        self.norm_in = nn.GroupNorm(groups, in_channels)
        self.conv_in = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.embed = nn.Linear(embed_dim, out_channels)
        self.norm_out = nn.GroupNorm(groups, out_channels)
        self.dropout = nn.Dropout(config.dropout)
        self.conv_out = _zero(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)
        rates = (0.0, config.dropout, config.dropout, config.dropout)
        self.temporal = nn.Sequential(*(_temporal_conv(out_channels, groups, rate) for rate in rates))
        _zero(self.temporal[-1].get_submodule("conv"))

    def forward(self, x: Tensor, embedding: Tensor, frames: int) -> Tensor:
        """``x [(B T), C, H, W]``, ``embedding [(B T), E]`` -> ``[(B T), C', H, W]``."""
        h = self.conv_in(F.silu(self.norm_in(x)))
        h = h + self.embed(F.silu(embedding))[:, :, None, None]
        h = self.conv_out(self.dropout(F.silu(self.norm_out(h))))
        h = self.skip(x) + h
        clip = h.unflatten(0, (-1, frames)).transpose(1, 2)
        return (clip + self.temporal(clip)).transpose(1, 2).flatten(0, 1)


class SpatialTransformer(nn.Module):
    """Attention among the positions of each frame, and from them to text and image tokens."""

    def __init__(self, channels: int, config: VideoUNetConfig) -> None:
        super().__init__()
        heads = channels // config.num_head_channels
        self.norm = nn.GroupNorm(config.norm_groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.block = TransformerBlock(channels, config.context_dim, heads, config.num_head_channels)
        self.proj_out = _zero(nn.Linear(channels, channels))

    def forward(self, x: Tensor, tokens: Tokens | Keys | None) -> Tensor:
        """``x [(B T), C, H, W]``; the tokens of all frames, or their keys, which are this transformer's own."""
        h, w = x.shape[-2:]
        positions = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))
        positions = self.proj_out(self.block(positions, tokens))
        return x + positions.transpose(1, 2).unflatten(2, (h, w))


class TemporalTransformer(nn.Module):
    """Attention along time at each position; no positional encoding, order comes from the temporal convolutions."""

    def __init__(self, channels: int, heads: int, head_dim: int, groups: int) -> None:
        super().__init__()
        inner = heads * head_dim
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, inner)
        self.block = TransformerBlock(inner, None, heads, head_dim)
        self.proj_out = _zero(nn.Linear(inner, channels))

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """``[(B T), C, H, W]`` -> the same; the normalisation pools over the whole clip."""
        h, w = x.shape[-2:]
        clip = x.unflatten(0, (-1, frames)).transpose(1, 2)  # B C T H W
        tokens = self.norm(clip).permute(0, 3, 4, 2, 1).flatten(0, 2)  # (B H W) T C
        tokens = self.proj_out(self.block(self.proj_in(tokens)))
        return x + tokens.unflatten(0, (-1, h, w)).permute(0, 3, 4, 1, 2).flatten(0, 1)


def _downsample(channels: int) -> nn.Module:
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(channels, channels, 3, stride=2, padding=1)))


def _upsample(channels: int) -> nn.Module:
    conv = nn.Conv2d(channels, channels, 3, padding=1)
    return nn.Sequential(OrderedDict(nearest=nn.Upsample(scale_factor=2.0), conv=conv))


class Stage(nn.Module):
    """One entry of the encoder or decoder: residual block, transformers where the level has them, resampling.

    Args:
        config: the UNet's.
        channels: incoming and outgoing ones of the residual block; ``None`` for a stage that only resamples.
        attention: whether there are transformers.
        resample: what comes last.
    """

    def __init__(
        self,
        config: VideoUNetConfig,
        channels: tuple[int, int] | None,
        attention: bool = False,
        resample: nn.Module | None = None,
    ) -> None:
        super().__init__()
        embed_dim = config.model_channels * 4
        self.res = ResBlock(*channels, embed_dim, config) if channels else None
        width = channels[1] if channels else 0
        heads, head_dim = width // config.num_head_channels, config.num_head_channels
        self.spatial = SpatialTransformer(width, config) if attention else None
        self.temporal = TemporalTransformer(width, heads, head_dim, config.norm_groups) if attention else None
        self.resample = resample

    def forward(self, x: Tensor, embedding: Tensor, tokens: Tokens | Keys | None, frames: int) -> Tensor:
        """``x [(B T), C, H, W]``, ``embedding [(B T), E]`` -> ``[(B T), C', H', W']``."""
        if self.res is not None:
            x = self.res(x, embedding, frames)
        if self.spatial is not None and self.temporal is not None:
            x = self.temporal(self.spatial(x, tokens), frames)
        return x if self.resample is None else self.resample(x)


class Middle(nn.Module):
    """Residual block, both transformers, residual block, at the lowest resolution."""

    def __init__(self, config: VideoUNetConfig, channels: int) -> None:
        super().__init__()
        self.first = Stage(config, (channels, channels), attention=True)
        self.second = Stage(config, (channels, channels))

    def forward(self, x: Tensor, embedding: Tensor, tokens: Tokens | Keys | None, frames: int) -> Tensor:
        """``x [(B T), C, H, W]``, ``embedding [(B T), E]`` -> ``[(B T), C, H, W]``."""
        return self.second(self.first(x, embedding, tokens, frames), embedding, tokens, frames)


class VideoUNet(nn.Module):
    """Predicts the velocity of a noised latent clip, whose sides must be multiples of ``2 ** (levels - 1)``."""

    def __init__(self, config: VideoUNetConfig) -> None:
        super().__init__()
        self.config = config
        width, groups = config.model_channels, config.norm_groups
        self.time_embed = ScalarEmbedding(width, width * 4)
        self.fs_embed = ScalarEmbedding(width, width * 4, zero=True)
        self.conv_in = nn.Conv2d(config.in_channels, width, 3, padding=1)
        heads, head_dim = config.init_attention_heads, config.num_head_channels
        self.init_temporal = TemporalTransformer(width, heads, head_dim, groups) if heads else None
        widths, channels, skips = [mult * width for mult in config.channel_mult], width, [width]
        self.encoder = nn.ModuleList()
        for level, outgoing in enumerate(widths):
            for _ in range(config.num_res_blocks):
                self.encoder.append(Stage(config, (channels, outgoing), 2**level in config.attention_resolutions))
                channels = outgoing
                skips.append(channels)
            if level + 1 < len(widths):
                self.encoder.append(Stage(config, None, resample=_downsample(channels)))
                skips.append(channels)
        self.middle = Middle(config, channels)
        self.decoder = nn.ModuleList()
        for level, outgoing in reversed(list(enumerate(widths))):
            for i in range(config.num_res_blocks + 1):
                up = _upsample(outgoing) if level > 0 and i == config.num_res_blocks else None
                attention = 2**level in config.attention_resolutions
                self.decoder.append(Stage(config, (channels + skips.pop(), outgoing), attention, up))
                channels = outgoing
        self.norm_out = nn.GroupNorm(groups, width)
        self.conv_out = _zero(nn.Conv2d(width, config.out_channels, 3, padding=1))

    def blocks(self) -> list[nn.Module]:
        """The stages, each of which can be sharded or computed again by itself; last the network around them."""
        return [*self.encoder, self.middle.first, self.middle.second, *self.decoder, self]

    def split_context(self, context: Tensor, frames: int) -> Tokens:
        """The tokens that each clip sees, or where image tokens are per frame, each frame.

        Args:
            context: ``[B, text_tokens + image tokens, context_dim]``.
            frames: number of frames of each clip.

        Raises:
            ValueError: image tokens are per frame and do not suffice.
        """
        context = context.to(self.conv_in.weight.dtype)
        text, image = context[:, : self.config.text_tokens], context[:, self.config.text_tokens :]
        if not self.config.per_frame_image_tokens:
            return Tokens(text, image)
        each = self.config.tokens_per_frame
        if image.shape[1] < frames * each:
            raise ValueError(
                f"{frames} frames of {each} image tokens each need more than the {image.shape[1]} there are"
            )
        return Tokens(text, image[:, : frames * each].unflatten(1, (frames, each)).flatten(0, 1))

    def keys(self, context: Tensor, frames: int) -> tuple[Keys | None, ...]:
        """Keys and values of the tokens for each stage's cross-attention, the same in every step of a sampler.

        Args:
            context: ``[B, text_tokens + image tokens, context_dim]``.
            frames: number of frames of each clip.

        Returns:
            What :meth:`forward` takes instead of the context.
        """
        tokens = self.split_context(context, frames)
        transformers = [stage.spatial for stage in (*self.encoder, self.middle.first, *self.decoder)]
        return tuple(None if part is None else part.block.attn2.keys(tokens) for part in transformers)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        context: Context,
        fs: Tensor | None = None,
        return_features: bool = False,
        features_only: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Velocity of a clip, its middle-block features, or both in one pass.

        Args:
            x: ``[B, in_channels, T, H, W]``, the noised latents and the condition concatenated.
            t: ``[B]`` integer times.
            context: ``[B, text_tokens + image tokens, context_dim]``, or what :meth:`keys` made of it.
            fs: ``[B]`` frame strides; ``default_fs`` where absent.
            return_features: also return the middle block's output, ``[B, C, T, h, w]``.
            features_only: return only that; the decoder does not run.

        Returns:
            ``[B, out_channels, T, H, W]``, or features, or ``(velocity, features)``.

        Raises:
            ValueError: if image tokens are per frame and do not suffice for ``T``.
        """
        frames, dtype, depth = x.shape[2], self.conv_in.weight.dtype, len(self.encoder)
        fs = torch.full_like(t, self.config.default_fs) if fs is None else fs
        embedding = (self.time_embed(t) + self.fs_embed(fs)).repeat_interleave(frames, dim=0)
        seen: Sequence[Tokens | Keys | None]
        if isinstance(context, Tensor):
            seen = [self.split_context(context, frames)] * (depth + 1 + len(self.decoder))
        else:
            seen = context
        h = self.conv_in(x.to(dtype).transpose(1, 2).flatten(0, 1))
        if self.init_temporal is not None:
            h = self.init_temporal(h, frames)
        skips = [h]
        for stage, tokens in zip(self.encoder, seen):
            h = stage(h, embedding, tokens, frames)
            skips.append(h)
        h = self.middle(h, embedding, seen[depth], frames)
        features = h.unflatten(0, (-1, frames)).transpose(1, 2)
        if features_only:
            return features
        for stage, tokens in zip(self.decoder, seen[depth + 1 :]):
            h = stage(torch.cat([h, skips.pop()], dim=1), embedding, tokens, frames)
        velocity = self.conv_out(F.silu(self.norm_out(h))).unflatten(0, (-1, frames)).transpose(1, 2)
        return (velocity, features) if return_features else velocity

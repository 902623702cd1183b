"""Perceiver resampler: image tokens of CLIP to a fixed number of context tokens (as in IP-Adapter and ViewCrafter)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class ResamplerConfig:
    """Shape of :class:`Resampler`; the defaults are ViewCrafter's.

    Attributes:
        dim: width of the latents.
        depth: attention and feed-forward layers.
        heads: attention heads of ``head_dim`` channels each.
        head_dim: channels of one head.
        num_queries: latents in all (ViewCrafter: 16 queries times 16 frames).
        embedding_dim: width of the incoming tokens.
        output_dim: width of the outgoing tokens.
        ff_mult: width of the feed-forward relative to ``dim``.
    """

    dim: int = 1024
    depth: int = 4
    heads: int = 12
    head_dim: int = 64
    num_queries: int = 256
    embedding_dim: int = 1280
    output_dim: int = 1024
    ff_mult: int = 4


class PerceiverAttention(nn.Module):
    """Latents attend to the image tokens and to themselves."""

    def __init__(self, config: ResamplerConfig) -> None:
        super().__init__()
        inner = config.heads * config.head_dim
        self.heads = config.heads
        self.norm_image, self.norm_latents = nn.LayerNorm(config.dim), nn.LayerNorm(config.dim)
        self.to_q = nn.Linear(config.dim, inner, bias=False)
        self.to_kv = nn.Linear(config.dim, inner * 2, bias=False)
        self.to_out = nn.Linear(inner, config.dim, bias=False)

    def forward(self, image: Tensor, latents: Tensor) -> Tensor:
        """``image [B, S, dim]``, ``latents [B, L, dim]`` -> ``[B, L, dim]``."""
        image, latents = self.norm_image(image), self.norm_latents(latents)
        key, value = self.to_kv(torch.cat([image, latents], dim=1)).chunk(2, dim=-1)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (self.to_q(latents), key, value))
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class ResamplerLayer(nn.Module):
    """Perceiver attention and a feed-forward, both residual."""

    def __init__(self, config: ResamplerConfig) -> None:
        super().__init__()
        self.attention = PerceiverAttention(config)
        self.norm = nn.LayerNorm(config.dim)
        self.linear_in = nn.Linear(config.dim, config.dim * config.ff_mult, bias=False)
        self.linear_out = nn.Linear(config.dim * config.ff_mult, config.dim, bias=False)

    def forward(self, image: Tensor, latents: Tensor) -> Tensor:
        """``image [B, S, dim]``, ``latents [B, L, dim]`` -> ``[B, L, dim]``."""
        latents = latents + self.attention(image, latents)
        return latents + self.linear_out(F.gelu(self.linear_in(self.norm(latents))))


class Resampler(nn.Module):
    """``[B, S, embedding_dim]`` image tokens -> ``[B, num_queries, output_dim]`` context tokens."""

    def __init__(self, config: ResamplerConfig) -> None:
        super().__init__()
        self.config = config
        self.latents = nn.Parameter(torch.randn(1, config.num_queries, config.dim) / config.dim**0.5)
        self.proj_in = nn.Linear(config.embedding_dim, config.dim)
        self.layers = nn.ModuleList([ResamplerLayer(config) for _ in range(config.depth)])
        self.proj_out = nn.Linear(config.dim, config.output_dim)
        self.norm_out = nn.LayerNorm(config.output_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        image = self.proj_in(tokens.to(self.proj_in.weight.dtype))
        latents = self.latents.expand(tokens.shape[0], -1, -1)
        for layer in self.layers:
            latents = layer(image, latents)
        return self.norm_out(self.proj_out(latents))

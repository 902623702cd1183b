"""Attention and the transformer block of the video UNet; keys and values of tokens can be made once for many passes."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

_FEW = 32  # keys; with so few, plain products are twice as fast as the fused kernel on CPUs


class Tokens(NamedTuple):
    """What cross-attention sees: of each clip, or of each frame of each clip, in their order.

    Attributes:
        text: ``[N, S, context_dim]``.
        image: ``[N', S', context_dim]``.
    """

    text: Tensor
    image: Tensor


class Keys(NamedTuple):
    """Keys and values of one attention's tokens, ``[N, S, inner]`` each.

    Attributes:
        text: keys.
        text_values: values.
        image: keys.
        image_values: values.
    """

    text: Tensor
    text_values: Tensor
    image: Tensor
    image_values: Tensor


class Attention(nn.Module):
    """Multi-head attention; with ``image_context`` a second key-value pair whose result is added (IP-Adapter)."""

    def __init__(self, dim: int, context_dim: int | None, heads: int, head_dim: int, image_context: bool) -> None:
        super().__init__()
        inner = heads * head_dim
        self.heads = heads
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_k = nn.Linear(context_dim or dim, inner, bias=False)
        self.to_v = nn.Linear(context_dim or dim, inner, bias=False)
        self.to_out = nn.Linear(inner, dim)
        if image_context:
            self.to_k_image = nn.Linear(context_dim or dim, inner, bias=False)
            self.to_v_image = nn.Linear(context_dim or dim, inner, bias=False)

    def keys(self, tokens: Tokens) -> Keys:
        """Keys and values of tokens, for :meth:`forward`."""
        text, image = tokens
        return Keys(self.to_k(text), self.to_v(text), self.to_k_image(image), self.to_v_image(image))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """``q [N, L, inner]`` to keys and values ``[M, S, inner]``, each of which serves ``N / M`` rows of ``q``."""
        rows = q.shape[:2]
        q = q.reshape(k.shape[0], -1, q.shape[-1])  # rows that see the same keys side by side
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
        if k.shape[2] <= _FEW and not q.is_cuda:
            out = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v)
        return out.transpose(1, 2).reshape(*rows, -1)

    def forward(self, x: Tensor, tokens: Tokens | Keys | None = None) -> Tensor:
        """``x [N, L, dim]``; tokens or their keys, or neither for self-attention."""
        q = self.to_q(x)
        if tokens is None:
            return self.to_out(self._attend(q, self.to_k(x), self.to_v(x)))
        keys = tokens if isinstance(tokens, Keys) else self.keys(tokens)
        seen = self._attend(q, keys.text, keys.text_values) + self._attend(q, keys.image, keys.image_values)
        return self.to_out(seen)


class FeedForward(nn.Module):
    """GEGLU feed-forward with four times the width."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj_in = nn.Linear(dim, dim * 8)
        self.proj_out = nn.Linear(dim * 4, dim)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, L, dim]`` -> the same."""
        value, gate = self.proj_in(x).chunk(2, dim=-1)
        return self.proj_out(value * F.gelu(gate))


class TransformerBlock(nn.Module):
    """Self-attention, second attention (cross, or self again over time), feed-forward; each on a layer norm."""

    def __init__(self, dim: int, context_dim: int | None, heads: int, head_dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn1 = Attention(dim, None, heads, head_dim, image_context=False)
        self.attn2 = Attention(dim, context_dim, heads, head_dim, image_context=context_dim is not None)
        self.ff = FeedForward(dim)

    def forward(self, x: Tensor, tokens: Tokens | Keys | None = None) -> Tensor:
        """``x [N, L, dim]`` and what the second attention sees, see :class:`Attention`; shaped like ``x``."""
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), tokens)
        return x + self.ff(self.norm3(x))

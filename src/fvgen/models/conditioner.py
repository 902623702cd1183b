"""Tokens for cross-attention: a fixed text embedding and the resampled CLIP tokens of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fvgen.models.resampler import Resampler, ResamplerConfig

if TYPE_CHECKING:
    from transformers import CLIPVisionModel

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class VisionConfig:
    """Shape of a small CLIP image tower."""

    image_size: int = 64
    patch_size: int = 16
    hidden_size: int = 64
    layers: int = 2
    heads: int = 4


class ImageConditioner(nn.Module):
    """Image tower, resampler, and the cached embeddings of the fixed prompt and of the empty one.

    Args:
        tower: the CLIP vision transformer; all its tokens are used, before the final norm and projection.
        resampler: maps them to context tokens.
        text_tokens: number of text tokens.
    """

    def __init__(self, tower: CLIPVisionModel, resampler: Resampler, text_tokens: int) -> None:
        super().__init__()
        self.tower = tower
        self.resampler = resampler
        width = resampler.config.output_dim
        self.prompt = nn.Parameter(torch.randn(text_tokens, width) * 0.02)
        self.empty_prompt = nn.Parameter(torch.randn(text_tokens, width) * 0.02)

    @staticmethod
    def build(vision: VisionConfig, resampler: ResamplerConfig, text_tokens: int) -> ImageConditioner:
        """An untrained conditioner."""
        from transformers import CLIPVisionConfig, CLIPVisionModel

        config = CLIPVisionConfig(
            image_size=vision.image_size,
            patch_size=vision.patch_size,
            hidden_size=vision.hidden_size,
            intermediate_size=vision.hidden_size * 4,
            num_hidden_layers=vision.layers,
            num_attention_heads=vision.heads,
            hidden_act="gelu",
        )
        return ImageConditioner(CLIPVisionModel(config), Resampler(resampler), text_tokens)

    def preprocess(self, image: Tensor) -> Tensor:
        """``[B, 3, H, W]`` in -1..1 -> the tower's input: squashed to a square, normalised like CLIP."""
        size = int(self.tower.config.image_size)  # type: ignore[arg-type]
        square = F.interpolate(image, (size, size), mode="bicubic", antialias=True, align_corners=False)
        mean, std = (image.new_tensor(v)[:, None, None] for v in (_MEAN, _STD))
        return ((square.clamp(-1, 1) + 1) / 2 - mean) / std

    def _tokens(self, pixels: Tensor) -> Tensor:
        hidden = self.tower(pixel_values=pixels.to(self.prompt.dtype), output_hidden_states=True).hidden_states[-1]
        return self.resampler(hidden)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Context and null context, ``[B, L, D]`` each, of ``[B, 3, H, W]`` images in -1..1.

        The null context is the empty prompt with the tokens of a mid-grey image.
        """
        batch = image.shape[0]
        tokens = self._tokens(self.preprocess(image))
        null = self._tokens(self.preprocess(torch.zeros_like(image[:1]))).expand(batch, -1, -1)
        prompt, empty = (p.expand(batch, -1, -1) for p in (self.prompt, self.empty_prompt))
        return torch.cat([prompt, tokens], dim=1), torch.cat([empty, null], dim=1)

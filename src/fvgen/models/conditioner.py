"""Tokens for cross-attention: a fixed text embedding, and the resampled CLIP tokens of one image or fixed ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fvgen.models.resampler import Resampler, ResamplerConfig

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class VisionConfig:
    """Shape of a CLIP image tower; the defaults are ``mini``'s.

    Attributes:
        image_size: side of the square it sees, in pixels.
        patch_size: side of its patches.
        hidden_size: width of its tokens.
        layers: transformer blocks.
        heads: attention heads.
        resize: how images become that square, see :func:`squared`: ``antialiased`` or, as the teacher, ``blurred``.
    """

    image_size: int = 64
    patch_size: int = 16
    hidden_size: int = 64
    layers: int = 2
    heads: int = 4
    resize: str = "antialiased"


def _blur(images: Tensor, sigmas: tuple[float, float]) -> Tensor:
    """Gaussian blur with standard deviations (vertical, horizontal) in pixels, mirrored at the border."""
    kernels: list[Tensor] = []
    margins: list[int] = []
    for sigma in sigmas:
        half = max(int(4 * sigma), 3) // 2
        weights = torch.exp(-0.5 * torch.arange(-half, half + 1).float().square() / sigma**2)
        kernels.append((weights / weights.sum()).to(images))
        margins = [half, half, *margins]  # F.pad takes the last axis first
    kernel = (kernels[0][:, None] * kernels[1][None]).expand(images.shape[1], 1, -1, -1)
    return F.conv2d(F.pad(images, margins, mode="reflect"), kernel, groups=images.shape[1])


def squared(images: Tensor, size: int, resize: str) -> Tensor:
    """Squash images to a square by bicubic interpolation, against aliasing.

    Args:
        images: ``[B, 3, H, W]``.
        size: side of the square.
        resize: ``antialiased`` widens the interpolation kernel and clamps to -1..1; ``blurred`` is the teacher's:
            where a side shrinks by a factor ``f > 1``, a Gaussian blur of ``max((f - 1) / 2, 0.001)`` pixels per axis
            (kornia 0.7's rule), then interpolation between the centres of the corner pixels.

    Returns:
        ``[B, 3, size, size]``.

    Raises:
        ValueError: for another ``resize``.
    """
    if resize == "antialiased":
        square = F.interpolate(images, (size, size), mode="bicubic", antialias=True, align_corners=False)
        return square.clamp(-1, 1)
    if resize != "blurred":
        raise ValueError(f"there is no resize '{resize}'")
    height, width = (side / size for side in images.shape[-2:])
    if max(height, width) > 1:
        images = _blur(images, (max((height - 1) / 2, 0.001), max((width - 1) / 2, 0.001)))
    return F.interpolate(images, (size, size), mode="bicubic", align_corners=True)


class ImageConditioner(nn.Module):
    """CLIP's image tower, a resampler, and the cached embeddings of the fixed prompt and of the empty one; untrained.

    Args:
        vision: shape of the tower; all its tokens are used, before the final norm and projection. ``None``: there is
            no tower, and the image tokens are parameters, the same for every image.
        resampler: shape of what maps them to context tokens.
        text_tokens: number of text tokens.
    """

    def __init__(self, vision: VisionConfig | None, resampler: ResamplerConfig, text_tokens: int) -> None:
        super().__init__()
        self.tower: Any = None
        if vision is None:
            self.image_tokens = nn.Parameter(torch.randn(resampler.num_queries, resampler.output_dim) * 0.02)
        else:
            self._build_tower(vision)
            self.resampler = Resampler(resampler)
        self.prompt = nn.Parameter(torch.randn(text_tokens, resampler.output_dim) * 0.02)
        self.empty_prompt = nn.Parameter(torch.randn(text_tokens, resampler.output_dim) * 0.02)

    def _build_tower(self, vision: VisionConfig) -> None:
        from transformers import CLIPVisionConfig, CLIPVisionModel

        self.resize = vision.resize
        self.tower = CLIPVisionModel(
            CLIPVisionConfig(
                image_size=vision.image_size,
                patch_size=vision.patch_size,
                hidden_size=vision.hidden_size,
                intermediate_size=vision.hidden_size * 4,
                num_hidden_layers=vision.layers,
                num_attention_heads=vision.heads,
                hidden_act="gelu",
            )
        )
        # Not among the weights: it must be real even where the network is built without memory for them.
        positions = torch.arange(self.tower.embeddings.num_positions, device="cpu")[None]
        self.tower.embeddings.register_buffer("position_ids", positions, persistent=False)

    def preprocess(self, image: Tensor) -> Tensor:
        """``[B, 3, H, W]`` in -1..1 -> the tower's input ``[B, 3, S, S]``: a square, normalised like CLIP."""
        size = int(self.tower.config.image_size)
        mean, std = (image.new_tensor(v)[:, None, None] for v in (_MEAN, _STD))
        return ((squared(image, size, self.resize) + 1) / 2 - mean) / std

    def _tokens(self, image: Tensor) -> Tensor:
        if self.tower is None:
            return self.image_tokens.expand(len(image), -1, -1)
        pixels = self.preprocess(image).to(self.prompt.dtype)
        return self.resampler(self.tower(pixel_values=pixels, output_hidden_states=True).hidden_states[-1])

    def context(self, image: Tensor) -> Tensor:
        """The prompt's tokens and those of images ``[B, 3, H, W]`` in -1..1: ``[B, L, D]``."""
        return torch.cat([self.prompt.expand(len(image), -1, -1), self._tokens(image)], dim=1)

    def null_context(self, image: Tensor) -> Tensor:
        """The empty prompt's tokens and a grey image's, for each of the images ``[B, 3, H, W]``: ``[B, L, D]``."""
        tokens = self._tokens(torch.zeros_like(image[:1]))
        return torch.cat([self.empty_prompt[None], tokens], dim=1).expand(len(image), -1, -1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`context` and :meth:`null_context` of images ``[B, 3, H, W]``."""
        return self.context(image), self.null_context(image)

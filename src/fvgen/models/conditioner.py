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


def _gaussian(sigma: float) -> Tensor:
    size = max(int(4 * sigma), 3) // 2 * 2 + 1
    weights = torch.exp(-0.5 * (torch.arange(size) - size // 2).float().square() / sigma**2)
    return weights / weights.sum()


def _blur(images: Tensor, sigmas: tuple[float, float]) -> Tensor:
    """Gaussian blur with standard deviations (vertical, horizontal) in pixels, mirrored at the border."""
    vertical, horizontal = (_gaussian(sigma).to(images) for sigma in sigmas)
    channels = images.shape[1]
    margins = (len(horizontal) // 2,) * 2 + (len(vertical) // 2,) * 2
    kernel = (vertical[:, None] * horizontal[None]).expand(channels, 1, -1, -1)
    return F.conv2d(F.pad(images, margins, mode="reflect"), kernel, groups=channels)


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
    """Image tower, resampler, and the cached embeddings of the fixed prompt and of the empty one.

    Args:
        tower: the CLIP vision transformer; all its tokens are used, before the final norm and projection.
        resampler: maps them to context tokens.
        text_tokens: number of text tokens.
        resize: how images become the square that the tower sees, see :func:`squared`.
    """

    def __init__(self, tower: CLIPVisionModel, resampler: Resampler, text_tokens: int, resize: str) -> None:
        super().__init__()
        self.resize = resize
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
        tower = CLIPVisionModel(config)
        # Not among the weights: it must be real even where the network is built without memory for them.
        positions = torch.arange(tower.embeddings.num_positions, device="cpu")[None]
        tower.embeddings.register_buffer("position_ids", positions, persistent=False)
        return ImageConditioner(tower, Resampler(resampler), text_tokens, vision.resize)

    def preprocess(self, image: Tensor) -> Tensor:
        """``[B, 3, H, W]`` in -1..1 -> the tower's input: squashed to a square, normalised like CLIP."""
        size = int(self.tower.config.image_size)  # type: ignore[arg-type]
        mean, std = (image.new_tensor(v)[:, None, None] for v in (_MEAN, _STD))
        return ((squared(image, size, self.resize) + 1) / 2 - mean) / std

    def _tokens(self, pixels: Tensor) -> Tensor:
        hidden = self.tower(pixel_values=pixels.to(self.prompt.dtype), output_hidden_states=True).hidden_states[-1]
        return self.resampler(hidden)

    def context(self, image: Tensor) -> Tensor:
        """``[B, L, D]``, the prompt and the tokens of ``[B, 3, H, W]`` images in -1..1."""
        tokens = self._tokens(self.preprocess(image))
        return torch.cat([self.prompt.expand(len(image), -1, -1), tokens], dim=1)

    def null_context(self, image: Tensor) -> Tensor:
        """``[B, L, D]``, the empty prompt and the tokens of a mid-grey image of that size, for each of the images."""
        tokens = self._tokens(self.preprocess(torch.zeros_like(image[:1])))
        return torch.cat([self.empty_prompt[None], tokens], dim=1).expand(len(image), -1, -1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`context` and :meth:`null_context`."""
        return self.context(image), self.null_context(image)

"""What goes wrong with guides, done on purpose: wrong depth, missing points, thin coverage, unequal exposure.

Functions of their arguments alone; noise is drawn on the CPU, so that every device gets the same.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fvgen.data.recipe import Flaws
from fvgen.scene.depth import DepthMap

_GRIDS = (4, 9, 20, 45)  # cells along the longer side of what noise is made of


def smooth_noise(generator: torch.Generator, height: int, width: int) -> Tensor:
    """``[H, W]`` noise of several sizes, the larger the stronger; mean 0, deviation 1."""
    total = torch.zeros(height, width)
    for cells in _GRIDS:
        size = (max(2, round(cells * height / max(height, width))), max(2, round(cells * width / max(height, width))))
        grid = torch.randn((1, 1, *size), generator=generator)
        total += F.interpolate(grid, (height, width), mode="bicubic", align_corners=False)[0, 0] * cells**-0.5
    return (total - total.mean()) / total.std().clamp(min=1e-9)


def noisy_depth(depth: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    """Depth ``[H, W]`` off by a smooth relative error of some standard deviation; unknown (0) stays unknown."""
    return depth * torch.exp(deviation * smooth_noise(generator, *depth.shape).to(depth))


def without_patches(depth: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Depth ``[H, W]`` unknown (0) in patches that cover a share of the picture."""
    noise = smooth_noise(generator, *depth.shape)
    limit = noise.flatten().sort().values[min(int(share * noise.numel()), noise.numel() - 1)]
    return depth * (noise >= limit).to(depth)


def thinned(depth: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Depth ``[H, W]`` unknown (0) at a random share of the pixels."""
    return depth * (torch.rand(depth.shape, generator=generator) >= share).to(depth)


def exposed(pictures: NDArray[np.uint8], gains: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Pictures ``[N, H, W, 3]`` with their values multiplied by gains ``[N]``."""
    return np.clip(pictures * gains[:, None, None, None].astype(np.float32) + 0.5, 0, 255).astype(np.uint8)


def strengths(flaws: Flaws, rng: np.random.Generator) -> Flaws:
    """The flaws of one pair: each absent in half of the pairs, else of a random strength up to the recipe's."""
    drawn = {name: float(most) * float(rng.random()) * (rng.random() < 0.5) for name, most in flaws.__dict__.items()}
    if rng.random() < 0.5:
        drawn["exposure_difference"] *= -1
    return replace(flaws, **drawn)


def flawed(depths: list[DepthMap], drawn: Flaws, seed: int) -> list[DepthMap]:
    """Depth maps with the flaws of one pair, see :func:`strengths`."""
    spoilt = []
    for k, own in enumerate(depths):
        generator, depth = torch.Generator().manual_seed(seed * 2 + k), own.depth
        if drawn.depth_noise:
            depth = noisy_depth(depth, drawn.depth_noise, generator)
        if drawn.missing_points:
            depth = without_patches(depth, drawn.missing_points, generator)
        if drawn.thin_coverage:
            depth = thinned(depth, drawn.thin_coverage, generator)
        spoilt.append(replace(own, depth=depth))
    return spoilt

"""Pictures for the page."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_GAP = 4
_BACK = 24
WIDE = 640


def side_by_side(left: Tensor | None, right: Tensor | None, size: tuple[int, int]) -> np.ndarray:
    """Two pictures ``[H, W, 3]`` uint8 in one, dark where one is not there yet.

    Args:
        left, right: the pictures.
        size: (width, height) of each.

    Returns:
        ``[h, w, 3]`` uint8.
    """
    width, height = size
    empty = torch.full((height, width, 3), _BACK, dtype=torch.uint8)
    gap = torch.full((height, _GAP, 3), 255, dtype=torch.uint8)
    parts = [empty if left is None else left, gap, empty if right is None else right]
    return larger(torch.cat(parts, 1))


def larger(image: Tensor, width: int = WIDE) -> np.ndarray:
    """``[H, W, 3]`` uint8, scaled up to ``width`` where it is narrower, so that small frames fill their panel."""
    height, own = image.shape[:2]
    if own < width:
        size = (round(height * width / own), width)
        scaled = F.interpolate(image.movedim(-1, 0)[None].float(), size, mode="bicubic", antialias=True)
        image = scaled[0].movedim(0, -1).round().clamp(0, 255).byte()
    return image.contiguous().numpy()


def smaller(image: Tensor, longest: int) -> np.ndarray:
    """``[H, W, 3]`` uint8, averaged down so that its long side is ``longest`` at most."""
    height, width = image.shape[:2]
    scale = longest / max(height, width)
    if scale < 1:
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        image = F.interpolate(image.movedim(-1, 0)[None].float(), size, mode="area")[0].movedim(0, -1).round().byte()
    return image.contiguous().numpy()

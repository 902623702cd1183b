"""Contact sheets: some frames of every system side by side."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

_TITLE = 14  # pixels


def contact_sheet(pictures: Mapping[str, Tensor]) -> np.ndarray:
    """``[H, W, 3]`` uint8: one column per system under its name, one row per frame.

    Args:
        pictures: uint8 ``[F, H, W, 3]`` by name, all of one shape.
    """
    from PIL import Image, ImageDraw

    columns = []
    for name, clip in pictures.items():
        title = Image.new("RGB", (clip.shape[2], _TITLE), "white")
        ImageDraw.Draw(title).text((3, 1), name, fill="black")
        columns.append(torch.cat([torch.from_numpy(np.array(title)), *clip]))
    return torch.cat(columns, 1).numpy()

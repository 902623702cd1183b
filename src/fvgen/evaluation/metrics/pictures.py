"""What every metric takes: pictures ``[F, H, W, 3]``, uint8 or float in 0..1."""

import torch
from torch import Tensor

from fvgen.errors import UserError


def check_pictures(predicted: Tensor, truth: Tensor) -> None:
    """Refuse pictures that cannot be compared pixel by pixel.

    Raises:
        UserError: if they are not pictures, or their shapes differ.
    """
    for pictures, which in ((predicted, "scored"), (truth, "true")):
        if pictures.ndim != 4 or pictures.shape[-1] != 3:
            raise UserError(f"the {which} pictures have shape {tuple(pictures.shape)}, not [frames, height, width, 3]")
        if pictures.dtype != torch.uint8 and not pictures.is_floating_point():
            raise UserError(f"the {which} pictures are {pictures.dtype}; metrics take uint8, or float in 0..1")
    if predicted.shape != truth.shape:
        raise UserError(
            f"{_size(predicted)} were given to be compared with {_size(truth)}: numbers and sizes must agree"
        )


def unit_range(pictures: Tensor) -> Tensor:
    """uint8 as float32 in 0..1; float stays as it is.

    Raises:
        UserError: if float values are not finite or lie outside 0..1.
    """
    if pictures.dtype == torch.uint8:
        return pictures.float() / 255
    if pictures.numel() and not bool(((pictures >= 0) & (pictures <= 1)).all()):
        least, most = float(pictures.min()), float(pictures.max())
        raise UserError(f"float pictures must lie in 0..1; these reach from {least:.4g} to {most:.4g}")
    return pictures


def as_images(pictures: Tensor) -> Tensor:
    """``[F, 3, H, W]`` float32 of ``[F, H, W, 3]``, in that order in memory too.

    Other programs hold images so, and float32 convolutions of another layout differ from theirs in the sixth digit.
    """
    return pictures.float().movedim(-1, 1).contiguous()


def _size(pictures: Tensor) -> str:
    count, height, width = pictures.shape[:3]
    return f"{count} pictures of {width}x{height}"

"""Pictures as numbers."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor


def to_bytes(pictures: Tensor) -> Tensor:
    """Pictures of any shape in 0..1 as uint8 on the CPU, rounded to the nearest of 256 levels."""
    return (pictures.clamp(0, 1) * 255).round().byte().cpu()


def joint_upsample(
    values: Tensor,
    usable: Tensor,
    small: Tensor,
    picture: Tensor,
    rows: Tensor,
    columns: Tensor,
    alike: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Maps at a picture's size, their edges where the picture's are (Kopf et al. 2007), surfaces not mixed.

    Of the nine nearest values the one whose colour and place fit best is taken, and averaged with those like it.

    Args:
        values: ``[C, h, w]``; the first map tells surfaces apart.
        usable: ``[h, w]`` bool.
        small: ``[3, h, w]`` the picture where the values are, float 0..1.
        picture: ``[3, H, W]`` float 0..1.
        rows: ``[H]`` where each row of the picture lies among those of the values; 0 is the middle of the first.
        columns: ``[W]`` the same of columns.
        alike: tells from values ``[9, H, W]`` and the best ``[1, H, W]`` which are of one surface.

    Returns:
        ``[C, H, W]``, 0 where none of the nine is usable.
    """
    height, width = values.shape[1:]
    row, column = rows.round().long(), columns.round().long()
    near, fits = [], []
    for dy, dx in itertools.product((-1, 0, 1), repeat=2):
        at_row, at_column = (row + dy).clamp(0, height - 1), (column + dx).clamp(0, width - 1)
        near.append(values[:, at_row][:, :, at_column])
        unlike = (small[:, at_row][:, :, at_column] - picture).abs().sum(0) / 0.1
        apart = (row + dy - rows).square()[:, None] + (column + dx - columns).square()
        fits.append(torch.exp(-unlike - apart) * usable[at_row][:, at_column])
    value, fit = torch.stack(near), torch.stack(fits)
    best = value[:, 0].gather(0, fit.argmax(0, keepdim=True))
    fit = fit * alike(value[:, 0], best)
    return (value * fit[:, None]).sum(0) / fit.sum(0).clamp(min=1e-12)

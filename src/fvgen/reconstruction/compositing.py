"""Splats blended front to back, tile by tile: a differentiable operation in plain torch, vectorised for CPUs.

The picture is cut into tiles of 8 x 8 pixels; each splat is listed in the tiles that its box touches, nearest first.
Tiles with lists of similar length are worked on together, padded to the longest. The exponent of a splat is a
polynomial of six coefficients in the pixel's coordinates, so exponents of a batch are one matrix product.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fvgen.reconstruction.projection import ALPHA_LEAST, Splats

TILE = 8
ALPHA_MOST = 0.999
LEAST_TRANSMITTANCE = 1e-4  # the splat that would take it below this, and all behind it, are not drawn
_BATCH = 1 << 17  # pixels x splats at once: what fits a CPU's cache


@dataclass(frozen=True)
class Tiles:
    """Which splats touch which tiles.

    Attributes:
        entries: ``[E]`` numbers of splats, tile after tile, each tile's from near to far.
        tile: ``[E]`` the tile of each entry; tiles are counted row by row.
        counts: ``[T]`` entries of each tile.
        columns, rows: of tiles.
    """

    entries: Tensor
    tile: Tensor
    counts: Tensor
    columns: int
    rows: int

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Tiles ``[B]`` of similar counts and their entries ``[B, M]``, padded with the number E."""
        total = len(self.entries)
        counts, order = self.counts.sort(descending=True)
        starts = self.counts.cumsum(0) - self.counts
        lengths, done = counts.tolist(), 0
        while done < len(lengths) and lengths[done] > 0:
            longest = lengths[done]
            take = max(1, _BATCH // (longest * TILE * TILE))
            chosen = order[done : done + take]
            chosen = chosen[self.counts[chosen] > 0]
            steps = torch.arange(longest, device=chosen.device)
            index = starts[chosen, None] + steps
            yield chosen, torch.where(steps < self.counts[chosen, None], index, total)
            done += take


@torch.no_grad()
def assign_tiles(splats: Splats, size: tuple[int, int]) -> Tiles:
    """List the splats of each tile. Pixels whose centres no box reaches need not be listed."""
    columns, rows = (-(-side // TILE) for side in size)
    most = torch.tensor([columns - 1, rows - 1], device=splats.centers.device)
    low = ((splats.centers - splats.reach - (TILE - 0.5)) / TILE).ceil().long().clamp_min(0)
    high = torch.minimum(((splats.centers + splats.reach - 0.5) / TILE).floor().long(), most)
    spans = (high - low + 1).clamp_min(0)
    touched = spans.prod(1) * splats.drawn
    near_first = splats.depths.argsort(stable=True)
    near_first = near_first[touched[near_first] > 0]
    times = touched[near_first]
    entries = near_first.repeat_interleave(times)
    rank = torch.arange(len(entries), device=entries.device) - (times.cumsum(0) - times).repeat_interleave(times)
    wide = spans[entries, 0]
    tile = (low[entries, 1] + rank // wide) * columns + low[entries, 0] + rank % wide
    tile, order = tile.sort(stable=True)
    return Tiles(entries[order], tile, tile.bincount(minlength=columns * rows), columns, rows)


def composite(splats: Splats, opacities: Tensor, features: Tensor, size: tuple[int, int]) -> Tensor:
    """Blend splats front to back.

    ``sum_i w_i f_i`` with ``w_i = alpha_i prod_{j<i} (1 - alpha_j)``, ``alpha = min(0.999, o exp(-d' C d / 2))``; those
    under 1/255 are skipped, and a pixel is finished before its transmittance falls to 1e-4.

    Args:
        splats: in a picture; differentiable in centres and conics.
        opacities: ``[N]``, differentiable.
        features: ``[N, C]``, differentiable.
        size: (width, height).

    Returns:
        ``[H, W, C + 1]``: the features, and last ``sum_i w_i``, what of each pixel is covered.
    """
    width, height = size
    tiles = assign_tiles(splats, size)
    values = torch.cat([features, torch.ones_like(features[:, :1])], 1)
    table = torch.cat([splats.centers, splats.conics, opacities.log()[:, None], values], 1)
    picked = table.index_select(0, tiles.entries)
    coefficients = _polynomials(picked[:, :6], tiles)
    blended = _Blend.apply(coefficients, picked[:, 6:], tiles)
    picture = blended.view(tiles.rows, tiles.columns, TILE, TILE, -1).transpose(1, 2)
    return picture.reshape(tiles.rows * TILE, tiles.columns * TILE, -1)[:height, :width]


def _polynomials(picked: Tensor, tiles: Tiles) -> Tensor:
    """``[E, 6]`` coefficients of the exponents in 1, u, v, u^2, u v, v^2, coordinates from the middle of each tile."""
    middle = torch.stack([tiles.tile % tiles.columns, tiles.tile // tiles.columns], 1) * TILE + TILE / 2
    x, y = (picked[:, :2] - middle.to(picked)).unbind(1)
    a, b, c, log_opacity = picked[:, 2:].unbind(1)
    ax, cy = a * x + b * y, b * x + c * y
    return torch.stack([log_opacity - 0.5 * (ax * x + cy * y), ax, cy, -0.5 * a, -b, -0.5 * c], 1)


def _monomials(like: Tensor) -> Tensor:
    """``[6, TILE * TILE]`` 1, u, v, u^2, u v, v^2 of a tile's pixels, row by row."""
    axis = torch.arange(TILE).to(like) + 0.5 - TILE / 2
    v, u = (w.flatten() for w in torch.meshgrid(axis, axis, indexing="ij"))
    return torch.stack([torch.ones_like(u), u, v, u * u, u * v, v * v])


class _Blend(torch.autograd.Function):
    """Front-to-back blending of padded lists, with its gradient in closed form.

    With ``g`` the gradient of a pixel's result and ``v_i = w_i (g . f_i)``, the gradient of splat i's exponent is
    ``v_i - alpha_i / (1 - alpha_i) sum_{j>i} v_j``; 0 where alpha was cut or skipped.
    """

    @staticmethod
    def forward(ctx: Any, coefficients: Tensor, values: Tensor, tiles: Tiles) -> Tensor:
        """``[E, 6]``, ``[E, C]`` -> ``[T, TILE * TILE, C]``."""
        monomials = _monomials(coefficients)
        nothing = coefficients.new_tensor([[-100.0, 0, 0, 0, 0, 0]])
        padded = torch.cat([coefficients, nothing])
        padded_values = torch.cat([values, torch.zeros_like(values[:1])])
        result = values.new_zeros(len(tiles.counts), TILE * TILE, values.shape[1])
        kept = []
        for chosen, index in tiles.batches():
            alpha = torch.matmul(padded[index], monomials).exp_().clamp_(max=ALPHA_MOST)
            alpha.masked_fill_(alpha < ALPHA_LEAST, 0)
            weight = _weights(alpha)
            result[chosen] = torch.matmul(weight.transpose(1, 2), padded_values[index])
            kept.append((chosen, index, alpha, weight))
        ctx.kept, ctx.monomials, ctx.values = kept, monomials, padded_values
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """Gradients of the coefficients and values."""
        gradient, total = gradients[0], len(ctx.values) - 1
        to_coefficients = gradient.new_zeros(total + 1, 6)
        to_values = torch.zeros_like(ctx.values)
        for chosen, index, alpha, weight in ctx.kept:
            g = gradient[chosen]
            to_values[index] = torch.matmul(weight, g)
            share = torch.matmul(ctx.values[index], g.transpose(1, 2)).mul_(weight)
            passed = share.cumsum(1)
            behind = passed[:, -1:] - passed
            share.sub_(behind.mul_(alpha).div_(1 - alpha)).masked_fill_(alpha >= ALPHA_MOST, 0)
            to_coefficients[index] = torch.matmul(share, ctx.monomials.T)
        ctx.kept = None
        return to_coefficients[:total], to_values[:total], None


def _weights(alpha: Tensor) -> Tensor:
    """What each splat ``[B, M, P]`` contributes: alpha times what those before it let through."""
    through = (1 - alpha).cumprod(1)
    weight = alpha.clone()
    weight[:, 1:] *= through[:, :-1]
    return weight.masked_fill_(through <= LEAST_TRANSMITTANCE, 0)

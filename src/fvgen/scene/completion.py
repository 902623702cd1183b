"""Depth where nothing was matched: planes continued from around, within the picture's edges."""

import torch
from torch import Tensor

from fvgen.scene.sweep import pixel_centers

TRUSTED = 0.3  # trust from which depth is kept as it is
_REACHES = (0.02, 0.08, 0.3)  # of fits, in longer sides of the picture
_EDGE = 0.1  # difference of colour that counts like the whole reach


def complete(inverse: Tensor, trust: Tensor, image: Tensor) -> Tensor:
    """Replace inverse depth that is not trusted by planes fitted to the trusted one, within the picture's edges.

    A plane in space is affine in inverse depth over the picture, so walls and floors continue as planes. Fits over
    a short reach are taken where there is enough to fit, wider ones elsewhere.

    Args:
        inverse: ``[H, W]`` inverse depth.
        trust: ``[H, W]`` 0..1.
        image: ``[3, H, W]`` float 0..1.
    """
    height, width = inverse.shape
    longest = max(height, width)
    x, y = (pixel_centers(height, width, inverse.device)[..., :2] / longest).unbind(-1)
    one, weight = torch.ones_like(x), trust * trust
    moments = torch.stack([one, x, y, inverse, x * x, x * y, y * y, x * inverse, y * inverse]) * weight
    everywhere = 1e-6 * moments.mean((1, 2), keepdim=True)  # where nothing trusted reaches, the fit to the whole
    guess, known = torch.zeros_like(inverse), torch.zeros_like(inverse)
    for reach in _REACHES:
        fit, support = _affine_fit(_spread(moments, image, reach * longest) + everywhere, x, y, reach)
        share = (1 - known) * ((support / 0.1).clamp(max=1) if reach < _REACHES[-1] else 1)
        guess, known = guess + share * fit, known + share
    return torch.lerp(guess, inverse, (trust / TRUSTED).clamp(0, 1))


def _affine_fit(moments: Tensor, x: Tensor, y: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    """Value at ``x, y`` of the affine functions with these weighted moments, and the weight behind each.

    Slopes are damped where the samples are few, narrow, or far away: a plane is continued about as far as it is seen.
    """
    support = moments[0]
    mx, my, mw, mxx, mxy, myy, mxw, myw = (moments[1:] / support.clamp(min=1e-30)).unbind(0)
    dx, dy = x - mx, y - my
    damp = 0.1 * (dx * dx + dy * dy) + (0.05 * reach) ** 2
    xx, yy, xy = (mxx - mx * mx).clamp(min=0) + damp, (myy - my * my).clamp(min=0) + damp, mxy - mx * my
    xw, yw = mxw - mx * mw, myw - my * mw
    determinant = (xx * yy - xy * xy).clamp(min=1e-20)
    slope_x, slope_y = (yy * xw - xy * yw) / determinant, (xx * yw - xy * xw) / determinant
    return mw + slope_x * dx + slope_y * dy, support


def _spread(values: Tensor, image: Tensor, reach: float) -> Tensor:
    """Edge-aware recursive smoothing (domain transform, Gastal and Oliveira 2011) of ``values [C, H, W]``.

    ``reach`` in pixels on flat colour. Two passes.
    """
    for turn in range(2):
        sigma = reach * 3**0.5 * 2 ** (1 - turn) / 15**0.5
        for axis in (-1, -2):
            gap = image.diff(dim=axis).abs().sum(0)
            keep = torch.exp(-(2**0.5) / sigma * (1 + reach / _EDGE * gap))
            values = _recurse(values, keep, axis)
    return values


def _recurse(values: Tensor, keep: Tensor, axis: int) -> Tensor:
    lines = list(values.unbind(axis))
    weights = keep.unbind(axis)
    for k in range(1, len(lines)):
        lines[k] = torch.lerp(lines[k], lines[k - 1], weights[k - 1])
    for k in range(len(lines) - 2, -1, -1):
        lines[k] = torch.lerp(lines[k], lines[k + 1], weights[k])
    return torch.stack(lines, axis)

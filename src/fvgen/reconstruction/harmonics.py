"""Colours that depend on the direction of view: real spherical harmonics up to degree 3."""

import torch
from torch import Tensor

from fvgen.reconstruction.gaussians import DEGREES, SH0

_ONE = 0.4886025119029199
_TWO = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
_THREE = (0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154, 1.445305721320277)


def sh_basis(directions: Tensor, degree: int) -> Tensor:
    """The real spherical harmonics in the order and with the signs of 3D Gaussian files.

    Args:
        directions: ``[N, 3]`` unit vectors from the camera to the Gaussians, in world axes.
        degree: 0 to 3.

    Returns:
        ``[N, (degree + 1)**2]``.
    """
    x, y, z = directions.unbind(1)
    columns = [torch.full_like(x, SH0)]
    if degree > 0:
        columns += [-_ONE * y, _ONE * z, -_ONE * x]
    if degree > 1:
        a, b, c = _TWO
        columns += [a * x * y, -a * y * z, b * (2 * z * z - x * x - y * y), -a * x * z, c * (x * x - y * y)]
    if degree > 2:
        a, b, c, d, e = _THREE
        xx, yy, zz = x * x, y * y, z * z
        columns += [
            -a * y * (3 * xx - yy),
            b * x * y * z,
            -c * y * (4 * zz - xx - yy),
            d * z * (2 * zz - 3 * xx - 3 * yy),
            -c * x * (4 * zz - xx - yy),
            e * z * (xx - yy),
            -a * x * (xx - 3 * yy),
        ]
    return torch.stack(columns, 1)


def view_colors(means: Tensor, sh: Tensor, eye: Tensor) -> Tensor:
    """Colours of Gaussians as seen from ``eye``: ``[N, 3]``, ``max(0, 0.5 + sum_k sh_k Y_k(direction))``.

    Args:
        means: ``[N, 3]`` centres.
        sh: ``[N, K, 3]`` coefficients.
        eye: ``[3]`` centre of the camera.
    """
    degree = DEGREES[sh.shape[1]]
    if degree == 0:
        return (0.5 + SH0 * sh[:, 0]).clamp_min(0)
    directions = torch.nn.functional.normalize(means - eye, dim=1)
    return (0.5 + (sh_basis(directions, degree)[..., None] * sh).sum(1)).clamp_min(0)

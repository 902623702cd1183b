"""Gaussians as a pinhole camera sees them: elliptical splats in the picture (EWA, Zwicker et al. 2001)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

NEAR = 0.01  # world units; nearer Gaussians are not drawn
LOW_PASS = 0.3  # pixels squared, added to the splats' covariance
ALPHA_LEAST = 1 / 255  # less is not drawn
_MARGIN = 0.3  # of the half picture beyond its border, where the projection is still linearised about the centre itself


@dataclass(frozen=True)
class Splats:
    """``N`` Gaussians in a picture.

    Attributes:
        centers: ``[N, 2]`` pixels, the centre of the top-left pixel is at (0.5, 0.5).
        conics: ``[N, 3]`` xx, xy and yy of the inverse covariance, 1 / pixels squared.
        depths: ``[N]`` z in the camera's axes, world units.
        reach: ``[N, 2]`` half width and height of the box outside of which a splat is fainter than ``ALPHA_LEAST``,
            pixels, no gradient; 0 for those that are not drawn.
    """

    centers: Tensor
    conics: Tensor
    depths: Tensor
    reach: Tensor

    @property
    def drawn(self) -> Tensor:
        """``[N]`` bool."""
        return self.reach[:, 0] > 0


def rotation_matrices(quaternions: Tensor) -> Tensor:
    """``[N, 3, 3]`` rotations of quaternions wxyz of any length."""
    w, x, y, z = F.normalize(quaternions, dim=1).unbind(1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


def project(
    means: Tensor,
    scales: Tensor,
    quaternions: Tensor,
    opacities: Tensor,
    camera_from_world: Tensor,
    intrinsics: Tensor,
    size: tuple[int, int],
) -> Splats:
    """Project Gaussians; differentiable in everything but ``size``.

    The covariance in the picture is ``J W S W' J' + 0.3 I``, where ``S`` is the one in the world, ``W`` the camera's
    rotation and ``J`` the Jacobian of the perspective division at the centre, or, for centres far outside the picture,
    at the nearest direction within 1.3 times its half extent.

    Args:
        means: ``[N, 3]``. scales: ``[N, 3]`` standard deviations. quaternions: ``[N, 4]`` wxyz. opacities: ``[N]``.
        camera_from_world: ``[4, 4]``. intrinsics: ``[3, 3]``.
        size: (width, height) of the picture.
    """
    rotation = camera_from_world[:3, :3]
    seen = means @ rotation.T + camera_from_world[:3, 3]
    ahead = seen[:, 2] > NEAR
    depth = torch.where(ahead, seen[:, 2], torch.ones_like(seen[:, 2]))
    focal = torch.stack([intrinsics[0, 0], intrinsics[1, 1]])
    middle = intrinsics[:2, 2]
    flat = seen[:, :2] / depth[:, None]
    centers = flat * focal + middle
    axes = (rotation @ rotation_matrices(quaternions)) * scales[:, None]  # [N, 3, 3], columns are the own axes
    at = _limited(flat, focal, middle, size)
    across = (axes[:, :2] - at[..., None] * axes[:, 2:]) * (focal / depth[:, None])[..., None]
    a = across[:, 0].square().sum(1) + LOW_PASS
    b = (across[:, 0] * across[:, 1]).sum(1)
    c = across[:, 1].square().sum(1) + LOW_PASS
    determinant = a * c - b * b
    conics = torch.stack([c, -b, a], 1) / determinant[:, None]
    with torch.no_grad():
        reach = _reach(torch.stack([a, c], 1), opacities)
        edge = torch.tensor(size).to(centers)
        inside = ((centers + reach > 0) & (centers - reach < edge)).all(1)
        reach = reach * (inside & ahead & (determinant > 0))[:, None]
    return Splats(centers, conics, depth, reach)


def _limited(flat: Tensor, focal: Tensor, middle: Tensor, size: tuple[int, int]) -> Tensor:
    """``[N, 2]`` x/z and y/z, kept near the picture, where the linearisation is good."""
    edge = torch.tensor(size).to(flat)
    margin = _MARGIN * 0.5 * edge / focal
    return flat.maximum(-middle / focal - margin).minimum((edge - middle) / focal + margin)


def _reach(variances: Tensor, opacities: Tensor) -> Tensor:
    """``o exp(-d^2 / 2 v) = 1/255`` solved for d: the half box of an ellipse; 0 where fainter."""
    return (variances * 2 * (opacities / ALPHA_LEAST).clamp_min(1).log()[:, None]).sqrt()

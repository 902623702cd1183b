"""Which Gaussians go: faint, huge, in front of a lens, or seen by a single generated frame."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fvgen.reconstruction.capture import Capture
from fvgen.reconstruction.gaussians import SH0, Gaussians
from fvgen.reconstruction.render import Renderer

_SEEN = 0.1  # pixels that a Gaussian must make up in a frame to count as seen there


@dataclass(frozen=True)
class Limits:
    """What a Gaussian may be.

    Attributes:
        opacity: at least.
        size: largest standard deviation at most, in units of the scene's depth.
        near: distance to every camera at least, likewise.
    """

    opacity: float = 0.01
    size: float = 0.15
    near: float = 0.05


def contributions(gaussians: Gaussians, capture: Capture, renderer: Renderer) -> Tensor:
    """``[F, N]`` float: how many pixels each Gaussian makes up in each frame, ``sum_p w_i(p)``.

    It is the gradient of the sum of a picture with respect to a Gaussian's own colour.
    """
    rows = []
    device = gaussians.means.device
    plain = {name: value.detach() for name, value in gaussians.parameters().items()}
    for i in range(len(capture)):
        white = torch.full_like(plain["sh"][:, :1], 0.5 / SH0).requires_grad_()
        view = capture.cameras.camera_from_world[i].float().to(device)
        drawn = renderer(
            Gaussians(**{**plain, "sh": white}),
            view,
            capture.cameras.intrinsics[i].float().to(device),
            capture.cameras.size,
        )
        (gradient,) = torch.autograd.grad(drawn.image[..., 0].sum(), white)
        rows.append(gradient[:, 0, 0] / SH0)
    return torch.stack(rows)


def floaters(gaussians: Gaussians, capture: Capture, renderer: Renderer, depth: float, limits: Limits) -> Tensor:
    """``[N]`` bool, True for Gaussians that should go.

    Args:
        gaussians: of the scene.
        capture: its frames.
        renderer: for who is seen where.
        depth: a typical depth of the scene, world units.
        limits: see there.
    """
    seen = contributions(gaussians, capture, renderer) > _SEEN
    by_photo = seen[capture.photographs].any(0) if capture.photographs else torch.zeros_like(seen[0])
    with torch.no_grad():
        lonely = ~by_photo & (seen.sum(0) < min(2, len(capture)))
        faint = gaussians.opacities < limits.opacity
        huge = gaussians.scales.max(1).values > limits.size * depth
        eyes = capture.cameras.centers.to(gaussians.means)
        near = torch.cdist(gaussians.means, eyes).min(1).values < limits.near * depth
        return faint | huge | near | lonely

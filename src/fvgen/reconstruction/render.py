"""Two renderers of Gaussians behind one signature: plain torch for CPUs, gsplat for GPUs."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fvgen.errors import UserError
from fvgen.reconstruction.compositing import composite
from fvgen.reconstruction.gaussians import Gaussians
from fvgen.reconstruction.harmonics import view_colors
from fvgen.reconstruction.projection import LOW_PASS, NEAR, project


@dataclass(frozen=True)
class Rendered:
    """A picture of Gaussians, before any background.

    Attributes:
        image: ``[H, W, 3]`` blended colours, not clamped, black where nothing is.
        alpha: ``[H, W]`` how much of each pixel is covered, 0..1.
        depth: ``[H, W]`` blended z in world units, not divided by ``alpha``.
        centers: ``[N, 2]`` of the splats in pixels; after ``backward`` its ``grad`` says how the loss pulls them.
        drawn: ``[N]`` bool, which Gaussians the picture may show.
    """

    image: Tensor
    alpha: Tensor
    depth: Tensor
    centers: Tensor
    drawn: Tensor

    def over(self, background: Tensor | float) -> Tensor:
        """``[H, W, 3]`` the picture in front of a colour."""
        return self.image + (1 - self.alpha)[..., None] * background


class Renderer(Protocol):
    """BatchRandom Gaussians as one pinhole camera sees them; differentiable in the Gaussians and the camera's pose."""

    def __call__(
        self, gaussians: Gaussians, camera_from_world: Tensor, intrinsics: Tensor, size: tuple[int, int]
    ) -> Rendered:
        """Draw.

        Args:
            gaussians: on the renderer's device.
            camera_from_world: ``[4, 4]``, OpenCV axes, of the Gaussians' number format.
            intrinsics: ``[3, 3]`` in pixels, likewise.
            size: (width, height).
        """


def splat_torch(gaussians: Gaussians, camera_from_world: Tensor, intrinsics: Tensor, size: tuple[int, int]) -> Rendered:
    """The renderer in plain torch, for any device and float32 or float64; see `Renderer`."""
    opacities = gaussians.opacities
    splats = project(
        gaussians.means, gaussians.scales, gaussians.quaternions, opacities, camera_from_world, intrinsics, size
    )
    if splats.centers.requires_grad:
        splats.centers.retain_grad()
    colors = view_colors(gaussians.means, gaussians.sh, _eye(camera_from_world))
    blended = composite(splats, opacities, torch.cat([colors, splats.depths[:, None]], 1), size)
    return Rendered(blended[..., :3], blended[..., 4], blended[..., 3], splats.centers, splats.drawn)


def splat_gsplat(
    gaussians: Gaussians, camera_from_world: Tensor, intrinsics: Tensor, size: tuple[int, int]
) -> Rendered:
    """The renderer of gsplat (Ye et al. 2024), for CUDA and float32; see `Renderer`."""
    from gsplat import rasterization

    colors = view_colors(gaussians.means, gaussians.sh, _eye(camera_from_world))
    picture, alpha, extra = rasterization(
        gaussians.means,
        gaussians.quaternions,
        gaussians.scales,
        gaussians.opacities,
        colors,
        camera_from_world[None],
        intrinsics[None],
        *size,
        near_plane=NEAR,
        eps2d=LOW_PASS,
        render_mode="RGB+D",
        packed=False,
    )
    centers = extra["means2d"]
    if centers.requires_grad:
        centers.retain_grad()
    radii = extra["radii"][0]
    drawn = (radii > 0).all(-1) if radii.ndim == 2 else radii > 0
    return Rendered(picture[0, ..., :3], alpha[0, ..., 0], picture[0, ..., 3], centers, drawn)


def find_renderer(name: str, device: torch.device) -> Renderer:
    """The renderer of that name: ``torch``, ``gsplat``, or ``auto``: gsplat on CUDA where it is installed.

    Raises:
        UserError: gsplat was asked for and cannot run.
    """
    if name == "torch" or (name == "auto" and device.type != "cuda"):
        return splat_torch
    if device.type != "cuda":
        raise UserError(f"--renderer gsplat runs on CUDA only, not on {device}; choose torch")
    try:
        import gsplat  # noqa: F401
    except ImportError:
        if name == "auto":
            return splat_torch
        raise UserError("--renderer gsplat: install it with pip install 'fvgen[gs]', or choose torch") from None
    return splat_gsplat


def _eye(camera_from_world: Tensor) -> Tensor:
    return -camera_from_world[:3, :3].T @ camera_from_world[:3, 3]

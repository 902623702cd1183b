"""Photos in, scene out: cameras, depth, coloured points."""

from dataclasses import replace

import torch
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.errors import UserError
from fvgen.scene.types import Photos, Scene


def build_scene(
    photos: Photos,
    geometry: str = "auto",
    device: str | torch.device = "cpu",
    depth_long_side: int = 512,
    seed: int = 0,
) -> Scene:
    """Find out where the photos were taken and what they show.

    Args:
        photos: two at least.
        geometry: ``"given"`` uses the cameras that came with the photos, in their world and units; ``"colmap"``
            estimates them; ``"auto"`` uses given ones where there are any.
        device: where features and depth are computed.
        depth_long_side: longer side, in pixels, of the depth maps.
        seed: of the estimation of cameras.

    Returns:
        The scene; photos that could not be placed are in ``photos.dropped``.

    Raises:
        UserError: unknown geometry; no cameras given where they are asked for, or all of them at one place; photos
            that cannot be placed.
    """
    from fvgen.scene.depth import estimate_depths
    from fvgen.scene.points import fuse_points

    photos, cameras, sparse, found = _placed(photos, geometry, str(device), seed)
    depths = estimate_depths(photos.images, cameras, depth_long_side, str(device), sparse_points=sparse)
    return Scene(photos=photos, cameras=cameras, points=fuse_points(depths), geometry=found)


def _placed(photos: Photos, geometry: str, device: str, seed: int) -> tuple[Photos, Cameras, Tensor | None, str]:
    """Photos with cameras, points known to lie on surfaces if any, and how the cameras were found."""
    if geometry not in ("auto", "given", "colmap"):
        raise UserError(f"geometry {geometry!r} is unknown; use auto, given or colmap")
    if geometry == "given" and photos.cameras is None:
        raise UserError("no cameras came with these photos; name a transforms.json or a COLMAP folder, or use auto")
    if photos.cameras is not None and geometry != "colmap":
        _check_baseline(photos.cameras)
        return photos, photos.cameras, None, "given"
    from fvgen.scene.sfm import reconstruct

    found = reconstruct(replace(photos, cameras=None), device, seed)
    return found.photos, found.cameras, found.points, "colmap"


def _check_baseline(cameras: Cameras) -> None:
    """Depth comes from moving: cameras at one place see none."""
    spread = (cameras.centers - cameras.centers[0]).norm(dim=1).max()
    if float(spread) <= 1e-9 * max(1.0, float(cameras.centers.abs().max())):
        raise UserError("all given cameras stand at the same place; depth needs photos from at least two places")

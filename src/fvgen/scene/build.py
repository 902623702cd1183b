"""Photos in, scene out: cameras, depth, coloured points."""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from fvgen.cameras import Cameras
from fvgen.errors import UserError
from fvgen.scene.types import Photos, Scene

if TYPE_CHECKING:
    from fvgen.scene.geometry import Geometry


def build_scene(
    photos: Photos,
    geometry: str = "auto",
    device: str | torch.device = "cpu",
    depth_long_side: int = 512,
    seed: int = 0,
    weights: str | None = None,
    depth: str = "auto",
) -> Scene:
    """Find out where the photos were taken and what they show.

    Args:
        photos: two at least.
        geometry: ``"given"`` uses the cameras that came with the photos, in their world and units; ``"colmap"``,
            ``"dust3r"`` and ``"da3"`` estimate them; ``"auto"`` uses given ones where there are any, else ``"colmap"``.
        device: where features and depth are computed.
        depth_long_side: longer side, in pixels, of the depth maps of the plane sweep.
        seed: of the estimation of cameras.
        weights: of ``"dust3r"`` or ``"da3"``: see `fvgen.scene.geometry.weights.find_weights`.
        depth: ``"sweep"`` matches the photos along planes; ``"dust3r"`` and ``"da3"`` are those networks' own, scaled
            to the cameras where these are from elsewhere (`fvgen.scene.geometry.depth_for`); ``"auto"`` is the
            network's where the cameras are, else the sweep.

    Returns:
        The scene; photos that could not be placed are in ``photos.dropped``.

    Raises:
        UserError: unknown geometry or depth; no cameras given where they are asked for, or all of them at one place;
            photos that cannot be placed; depth that contradicts the cameras; a package or weights missing, which is
            said before anything is computed.
    """
    from fvgen.scene.depth import estimate_depths
    from fvgen.scene.geometry import depth_for, depth_source, network_for
    from fvgen.scene.points import fuse_points

    network_for(geometry, depth, weights)
    found = _placed(photos, geometry, str(device), seed, weights)
    name, source = found.name, depth_source(depth, found.name)
    if source not in ("sweep", name):
        posed = replace(found.photos, cameras=found.cameras)
        found = depth_for(source, posed, str(device), seed, weights)
    photos, cameras = found.photos, found.cameras
    depths = None if source == "sweep" else found.depths
    if depths is None:
        depths = estimate_depths(photos.images, cameras, depth_long_side, str(device), sparse_points=found.points)
    points = fuse_points(depths)
    return Scene(photos, cameras, points, depths, name, source, found.fit)


def _placed(photos: Photos, geometry: str, device: str, seed: int, weights: str | None) -> "Geometry":
    """Photos with cameras, by what they were found."""
    from fvgen.scene.geometry import NETWORKS, Geometry, estimate

    weights = weights if geometry in NETWORKS else None  # else they are of the depth
    if geometry == "given" and photos.cameras is None:
        raise UserError("no cameras came with these photos; name a transforms.json or a COLMAP folder, or use auto")
    if geometry not in ("auto", "given"):
        return estimate(geometry, photos, device, seed, weights)
    if photos.cameras is None:
        return estimate("colmap", photos, device, seed, weights)
    _check_baseline(photos.cameras)
    return Geometry(photos, photos.cameras, "given")


def _check_baseline(cameras: Cameras) -> None:
    """Depth comes from moving: cameras at one place see none."""
    spread = (cameras.centers - cameras.centers[0]).norm(dim=1).max()
    if float(spread) <= 1e-9 * max(1.0, float(cameras.centers.abs().max())):
        raise UserError("all given cameras stand at the same place; depth needs photos from at least two places")

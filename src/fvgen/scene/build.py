"""Photos in, scene out: cameras, depth, coloured points."""

import logging
import time
from dataclasses import replace

import torch

from fvgen.errors import UserError
from fvgen.scene.types import MEASURED, Photos, Scene

_log = logging.getLogger(__name__)


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
        seed: for the random choices in the estimation of cameras.
        weights: those of ``"dust3r"`` or ``"da3"``: see `fvgen.scene.geometry.weights.find_weights`.
        depth: ``"sweep"`` matches the photos along planes; ``"dust3r"`` and ``"da3"`` take those networks' own depth,
            scaled to the cameras where these are from elsewhere (`fvgen.scene.geometry.depth_for`); ``"auto"`` takes
            the network's depth where the cameras are the network's, else the sweep.

    Returns:
        The scene; photos that could not be placed are in ``photos.dropped``.

    Raises:
        UserError: unknown geometry or depth; no cameras given where they are asked for, or all of them at one place;
            photos that cannot be placed; depth that contradicts the cameras; a package or weights missing, which is
            said before anything is computed.
    """
    from fvgen.scene.depth import estimate_depths, without_masked
    from fvgen.scene.geometry import NETWORKS, Geometry, depth_for, depth_source, estimate, network_for
    from fvgen.scene.points import fuse_points

    network_for(geometry, depth, weights)
    start = time.perf_counter()
    if geometry == "auto":
        geometry = "colmap" if photos.cameras is None else "given"
    if geometry != "given":
        own_weights = weights if geometry in NETWORKS else None  # else they are of the depth
        found = estimate(geometry, photos, str(device), seed, own_weights)
    elif photos.cameras is None:
        raise UserError("no cameras came with these photos; name a transforms.json or a COLMAP folder, or use auto")
    else:
        centers = photos.cameras.centers
        if float((centers - centers[0]).norm(dim=1).max()) <= 1e-12 * float(centers.abs().max()):
            raise UserError("all given cameras stand at the same place; depth needs photos from at least two places")
        found = Geometry(photos, photos.cameras, "given")
    _tell_cameras(photos, found.photos, geometry, time.perf_counter() - start)
    start = time.perf_counter()
    source = depth_source(depth, geometry)
    if source not in ("sweep", geometry):
        found = depth_for(source, replace(found.photos, cameras=found.cameras), str(device), seed, weights)
    placed, cameras = found.photos, found.cameras
    depths = None if source == "sweep" else found.depths
    if depths is None:
        depths = estimate_depths(placed.images, cameras, depth_long_side, str(device), sparse_points=found.points)
    if placed.masks is not None:
        depths = [without_masked(one, cameras[i], mask) for i, (one, mask) in enumerate(zip(depths, placed.masks))]
    scene = Scene(placed, cameras, fuse_points(depths), depths, geometry, source, found.fit)
    share = sum(float((one.confidence >= MEASURED).float().mean()) for one in depths) / len(depths)
    seconds = time.perf_counter() - start
    _log.info("depth: %d photos (%s), %.0f %% measured, %.0f s", len(depths), source, 100 * share, seconds)
    return scene


def _tell_cameras(photos: Photos, placed: Photos, geometry: str, seconds: float) -> None:
    """Say how many photos got cameras, and which were left out for what."""
    how = "given" if geometry == "given" else f"{seconds:.0f} s"
    _log.info("cameras: %d of %d photos, %s", len(placed), len(photos), how)
    for one in placed.dropped[len(photos.dropped) :]:
        _log.info("left out %s: %s", one.name, one.reason)

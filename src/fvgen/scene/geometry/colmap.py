"""``--geometry colmap``: structure from motion; its matcher's weights come with a package of the core."""

from dataclasses import replace

from fvgen.errors import UserError
from fvgen.scene.geometry.result import Geometry
from fvgen.scene.types import Photos


def estimate(photos: Photos, device: str, seed: int, weights: str | None) -> Geometry:
    """Cameras and sparse points by `fvgen.scene.sfm.reconstruct`; depth is left to the plane sweep."""
    from fvgen.scene.sfm import reconstruct

    if weights is not None:
        raise UserError("--geometry-weights are for --geometry dust3r or da3; colmap takes none")
    found = reconstruct(replace(photos, cameras=None), device, seed)
    return Geometry(found.photos, found.cameras, "colmap", points=found.points)

"""An estimator's depth for photos whose cameras are known: its world carried onto theirs, its cameras left behind."""

from dataclasses import replace

import torch

from fvgen.cameras import Cameras
from fvgen.cameras.alignment import residual, similarity_between
from fvgen.errors import UserError
from fvgen.scene.depth import DepthMap
from fvgen.scene.geometry.result import Geometry
from fvgen.scene.types import Photos

_MOST_DEGREES = 15.0  # wrong by this much between two cameras, or ...
_MOST_CENTER_ERROR = 0.5  # ... with two cameras a baseline 30 degrees off: the depth is that of another place


class EstimateDisagrees(UserError):
    """What an estimator found contradicts the known cameras, or nothing can be told from them."""


def in_given_cameras(found: Geometry, photos: Photos) -> Geometry:
    """Depth that an estimator found, in the world and the cameras of the photos.

    One similarity transform, from centres and orientations of all cameras, carries the estimate onto the known cameras
    as a whole. Of it only the scale is used, on the depth maps; position and direction of each map are those of the
    known camera, and so are its intrinsics, brought to the map's size through the same resampling and crop. The
    estimator's own focal length would let a point leave the pixel that it came from: rendered from its own photo's
    camera, the photo would not be itself.

    Args:
        found: what an estimator with depth of its own answered.
        photos: the same photos with their known cameras.

    Returns:
        The photos that were found, the known cameras, the depth maps in their world, and how well both agree.

    Raises:
        EstimateDisagrees: cameras at one place; no scale above 0 fits; a rotation between two cameras that is more
            than 15 degrees off; centres that are off by more than half of their spread.
    """
    assert photos.cameras is not None
    assert found.depths is not None
    known = photos.cameras[[photos.names.index(name) for name in found.photos.names]]
    try:
        similarity = similarity_between(found.cameras, known)
    except ValueError as error:
        raise EstimateDisagrees(f"{found.name} cannot be brought to the given cameras: {error}") from None
    fit = residual(found.cameras, known, similarity)
    turned, off = fit["pair_rotation_degrees"], fit["center_error"]
    if not turned <= _MOST_DEGREES or not off <= _MOST_CENTER_ERROR:
        raise EstimateDisagrees(
            f"{found.name} contradicts the given cameras: rotations {turned:.1f} degrees off (up to {_MOST_DEGREES:g} "
            f"are taken), centres by {off:.2f} of their spread (up to {_MOST_CENTER_ERROR:g}); use --depth sweep"
        )
    depths = [
        DepthMap(own.depth * similarity.scale, own.confidence, _at_the_maps_size(camera, estimated, own), own.image)
        for own, camera, estimated in zip(found.depths, _each(known), _each(found.cameras))
    ]
    return replace(found, photos=replace(found.photos, cameras=known), cameras=known, depths=depths, fit=fit)


def _each(cameras: Cameras) -> list[Cameras]:
    return [cameras[i] for i in range(len(cameras))]


def _at_the_maps_size(known: Cameras, estimated: Cameras, own: DepthMap) -> Cameras:
    """A photo's known camera as the depth map sees it: both estimated cameras tell how pixels of the one became the
    other's, whatever was resampled and cut in between."""
    pixels = own.cameras.intrinsics @ torch.linalg.inv(estimated.intrinsics)
    return Cameras(known.world_from_camera, pixels @ known.intrinsics, own.cameras.sizes)

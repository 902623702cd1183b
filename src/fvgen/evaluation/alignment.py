"""A scene with estimated cameras brought into the world of given ones, as a whole: by one similarity transform."""

from dataclasses import replace

from fvgen.cameras import Cameras
from fvgen.cameras.alignment import residual, similarity_between
from fvgen.errors import UserError
from fvgen.scene.types import Scene


def aligned_scene(scene: Scene, given: Cameras) -> tuple[Scene, dict[str, float]]:
    """A scene with estimated cameras in the world of the given ones.

    Args:
        scene: ``N`` photos.
        given: their true cameras, at the same sizes.

    Returns:
        The scene, and how well it fits: see `fvgen.cameras.alignment.residual`.

    Raises:
        UserError: they cannot be aligned.
    """
    try:
        found = similarity_between(scene.cameras, given)
    except ValueError as error:
        raise UserError(f"the estimated cameras do not fit the given ones ({error}); use --poses given") from None
    points = replace(scene.points, positions=found.points(scene.points.positions))
    depths = [replace(own, depth=own.depth * found.scale, cameras=found.cameras(own.cameras)) for own in scene.depths]
    fit = residual(scene.cameras, given, found)
    return replace(scene, cameras=found.cameras(scene.cameras), points=points, depths=depths), fit

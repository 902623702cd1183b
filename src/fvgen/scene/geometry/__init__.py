"""Estimators of camera geometry behind one interface; each is a module, imported when it is used.

An estimator's module has ``estimate(photos, device, seed, weights) -> Geometry``.
"""

import importlib

from fvgen.errors import UserError
from fvgen.scene.geometry.result import Geometry, shifted_half_a_pixel
from fvgen.scene.types import Photos

ESTIMATORS = {
    "colmap": "fvgen.scene.geometry.colmap",
    "dust3r": "fvgen.scene.geometry.dust3r",
    "da3": "fvgen.scene.geometry.da3",
}

__all__ = ["ESTIMATORS", "Geometry", "estimate", "shifted_half_a_pixel"]


def estimate(name: str, photos: Photos, device: str = "cpu", seed: int = 0, weights: str | None = None) -> Geometry:
    """Find out where photos were taken.

    Args:
        name: of ``ESTIMATORS``.
        photos: two at least; cameras that came with them are not used.
        device: where networks run.
        seed: of everything that is drawn.
        weights: see `fvgen.scene.geometry.weights.find_weights`; only networks that do not come with their package
            take any.

    Raises:
        UserError: unknown name, a missing package or missing weights, photos that cannot be placed.
    """
    if name not in ESTIMATORS:
        raise UserError(f"geometry {name!r} is unknown; use auto, given, {', '.join(ESTIMATORS)}")
    found: Geometry = importlib.import_module(ESTIMATORS[name]).estimate(photos, device, seed, weights)
    return found

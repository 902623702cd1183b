"""Estimators of camera geometry behind one interface; each is a module, imported when it is used.

An estimator's module has ``estimate(photos, device, seed, weights) -> Geometry``; that of a network, which is a package
with weights of its own, also ``ready(weights)``.
"""

import importlib

from fvgen.errors import UserError
from fvgen.scene.geometry.posed import EstimateDisagrees, in_given_cameras
from fvgen.scene.geometry.result import Geometry
from fvgen.scene.geometry.weights import Unusable
from fvgen.scene.types import Photos

ESTIMATORS = {
    "colmap": "fvgen.scene.geometry.colmap",
    "dust3r": "fvgen.scene.geometry.dust3r",
    "da3": "fvgen.scene.geometry.da3",
}
NETWORKS = ("dust3r", "da3")
DEPTHS = ("auto", "sweep", *NETWORKS)

__all__ = [
    "DEPTHS",
    "ESTIMATORS",
    "NETWORKS",
    "EstimateDisagrees",
    "Geometry",
    "Unusable",
    "depth_for",
    "depth_source",
    "estimate",
    "network_for",
]


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
        UserError: unknown name, photos that cannot be placed.
        Unusable: a missing package or missing weights.
    """
    if name not in ESTIMATORS:
        raise UserError(f"geometry {name!r} is unknown; use auto, given, {', '.join(ESTIMATORS)}")
    found: Geometry = importlib.import_module(ESTIMATORS[name]).estimate(photos, device, seed, weights)
    return found


def depth_for(name: str, photos: Photos, device: str = "cpu", seed: int = 0, weights: str | None = None) -> Geometry:
    """A network's depth for photos whose cameras are known.

    The network is asked as if they were not; then its answer is brought to them as a whole, see
    `fvgen.scene.geometry.posed.in_given_cameras`.

    Args:
        name: of ``NETWORKS``.
        photos: two at least, with cameras.
        device, seed, weights: see `estimate`.

    Returns:
        The given cameras and the depth maps in their world; photos that the network could not use are dropped.

    Raises:
        EstimateDisagrees: what the network found contradicts the cameras.
        UserError, Unusable: see `estimate`.
    """
    return in_given_cameras(estimate(name, photos, device, seed, weights), photos)


def depth_source(depth: str, geometry: str) -> str:
    """``"sweep"`` or the network whose depth is used, where the cameras are from ``geometry``."""
    if depth == "auto":
        return geometry if geometry in NETWORKS else "sweep"
    return depth


def network_for(geometry: str, depth: str, weights: str | None) -> str | None:
    """The network that cameras, depth or both are asked of, ready to be used; ``None`` where neither is.

    Args:
        geometry: ``"auto"``, ``"given"``, or of ``ESTIMATORS``.
        depth: of ``DEPTHS``.
        weights: of the network.

    Raises:
        UserError: unknown names, two different networks, weights without a network.
        Unusable: the network's package or weights are missing.
    """
    if geometry not in ("auto", "given", *ESTIMATORS):
        raise UserError(f"geometry {geometry!r} is unknown; use auto, given, {', '.join(ESTIMATORS)}")
    if depth not in DEPTHS:
        raise UserError(f"depth {depth!r} is unknown; use {', '.join(DEPTHS)}")
    asked = [name for name in NETWORKS if name in (geometry, depth)]
    if len(asked) == 2:
        raise UserError(f"--geometry {geometry} with --depth {depth}: one network at a time; leave --depth at auto")
    if weights is not None and not asked:
        raise UserError("--geometry-weights are for --geometry dust3r or da3, or --depth dust3r or da3")
    if not asked:
        return None
    importlib.import_module(ESTIMATORS[asked[0]]).ready(weights)
    return asked[0]

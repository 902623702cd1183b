"""Estimators of camera geometry behind one interface; each is a module, imported when it is used.

A network, which is a package with weights of its own, is a module with ``MODULE``, what to import of the package;
``NAMES``, short names of weights, and ``RESTRICTED``, those not for commercial use that are refused by short name;
``load_network(path)``; and ``answer(images, network, device, seed) -> list[Seen]``.
"""

import contextlib
import importlib
from dataclasses import replace
from pathlib import Path

import torch

from fvgen.cameras.alignment import residual, similarity_between
from fvgen.errors import UserError
from fvgen.scene.geometry.refine import MOST_CENTER_ERROR, MOST_DEGREES, onto, refined
from fvgen.scene.geometry.result import Geometry, assemble
from fvgen.scene.geometry.weights import Unusable, find_weights, loaded, optional, quiet
from fvgen.scene.types import Photos

NETWORKS = {"dust3r": "fvgen.scene.geometry.dust3r", "da3": "fvgen.scene.geometry.da3"}
ESTIMATORS = ("colmap", *NETWORKS)
DEPTHS = ("auto", "sweep", *NETWORKS)

__all__ = ["EstimateDisagrees", "Geometry", "Unusable", "depth_for", "depth_source", "estimate", "network_for"]


class EstimateDisagrees(UserError):
    """What an estimator found contradicts the known cameras, or nothing can be told from them."""


def estimate(name: str, photos: Photos, device: str = "cpu", seed: int = 0, weights: str | None = None) -> Geometry:
    """Find out where photos were taken. A network's cameras are refined by the matches of the photos (`refined`).

    Args:
        name: one of ``ESTIMATORS``.
        photos: two different ones at least; cameras that came with them are not used.
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
    from fvgen.scene.sfm import observe, place  # which imports this package

    if name not in NETWORKS:
        if weights is not None:
            raise UserError("`geometry_weights` are for `geometry` dust3r or da3; colmap takes none")
        return place(photos, device, seed)
    found = _asked(name, photos, device, seed, weights)
    return refined(found, observe(found.photos, device, seed))


def _asked(name: str, photos: Photos, device: str, seed: int, weights: str | None) -> Geometry:
    """What a network says."""
    network, photos = importlib.import_module(NETWORKS[name]), photos.without_copies()
    if len(photos) < 2:
        raise UserError(f"{name} needs two different photos or more")
    path = _ready(name, weights)
    kind = torch.device(device).type  # all that some packages understand: of several GPUs they use the current one
    current = torch.cuda.device(device) if kind == "cuda" else contextlib.nullcontext()
    with current, quiet(), torch.random.fork_rng():
        model = loaded(network.load_network, path, device)
        torch.manual_seed(seed)
        return assemble(name, photos, network.answer(photos.images, model, kind, seed))


def _ready(name: str, weights: str | None) -> Path:
    """The weights of a network, once its package is known to be there."""
    network = importlib.import_module(NETWORKS[name])
    optional(network.MODULE, name)  # before weights are looked for or downloaded
    return find_weights(weights, network.NAMES, name, network.RESTRICTED)


def depth_for(name: str, photos: Photos, device: str = "cpu", seed: int = 0, weights: str | None = None) -> Geometry:
    """A network's depth for photos whose cameras are known.

    The network is asked as if they were not. Then one similarity transform, from centres and orientations of all
    cameras, carries its answer onto the known cameras as a whole. Of it only the scale is used, on the depth maps,
    unless points triangulated from the known cameras say better: see `fvgen.scene.geometry.refine.onto`. Position,
    direction and intrinsics of each map are the known camera's: rendered from there, the photo is itself.

    Args:
        name: one of ``NETWORKS``.
        photos: two at least, with cameras.
        device: where the network runs.
        seed: of everything that is drawn.
        weights: see `fvgen.scene.geometry.weights.find_weights`.

    Returns:
        The photos that the network could use, the known cameras, the depth maps in their world, and how well both
        agree: what `fvgen.cameras.alignment.residual` and `fvgen.scene.geometry.refine.onto` tell.

    Raises:
        EstimateDisagrees: cameras at one place; no scale above 0 fits; a rotation between two cameras that is more
            than 15 degrees off; centres that are off by more than half of their spread.
        UserError: photos that cannot be placed.
        Unusable: a missing package or missing weights.
    """
    from fvgen.scene.sfm import observe

    found = _asked(name, photos, device, seed, weights)
    assert photos.cameras is not None
    known = photos.cameras[[photos.names.index(one) for one in found.photos.names]]
    try:
        similarity = similarity_between(found.cameras, known)
    except ValueError as error:
        raise EstimateDisagrees(f"{name} cannot be brought to the given cameras: {error}") from None
    fit = residual(found.cameras, known, similarity)
    turned, off = fit["pair_rotation_degrees"], fit["center_error"]
    if not turned <= MOST_DEGREES or not off <= MOST_CENTER_ERROR:
        raise EstimateDisagrees(
            f"{name} contradicts the given cameras: rotations {turned:.1f} degrees off (up to {MOST_DEGREES:g} "
            f"are taken), centres by {off:.2f} of their spread (up to {MOST_CENTER_ERROR:g}); use `depth` sweep"
        )
    depths, told = onto(found, known, observe(found.photos, device, seed), similarity.scale)
    return replace(found, photos=replace(found.photos, cameras=known), cameras=known, depths=depths, fit=fit | told)


def depth_source(depth: str, geometry: str) -> str:
    """Whose depth is used where the cameras are from ``geometry``: ``"sweep"`` or the name of a network."""
    if depth == "auto":
        return geometry if geometry in NETWORKS else "sweep"
    return depth


def network_for(geometry: str, depth: str, weights: str | None) -> str | None:
    """The network that cameras, depth or both are asked of, ready to be used; ``None`` where neither is.

    Args:
        geometry: ``"auto"``, ``"given"`` or one of ``ESTIMATORS``.
        depth: one of ``DEPTHS``.
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
        raise UserError(f"`geometry` {geometry} with `depth` {depth}: one network at a time; leave `depth` at auto")
    if not asked:
        if weights is not None:
            raise UserError("`geometry_weights` are for `geometry` dust3r or da3, or `depth` dust3r or da3")
        return None
    _ready(asked[0], weights)
    return asked[0]

"""What matches of the photos make of a network's answer: its cameras are adjusted to them, its depth is aligned."""

import logging
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.cameras.alignment import residual, similarity_between
from fvgen.scene.depth import DepthMap
from fvgen.scene.geometry.result import Geometry, rescaled
from fvgen.sfm.bundle import Bundle, widest_angles
from fvgen.sfm.problem import (
    MATCH_ERROR,
    MIN_INLIERS,
    MIN_PARALLAX,
    Poses,
    Problem,
    epipolar_errors,
    inliers,
    turning_error,
)
from fvgen.sfm.tracks import POINT_ERROR, build_tracks, filtered, make_bundle, polish

_log = logging.getLogger(__name__)

MOST_DEGREES = 15.0  # wrong by this much between two cameras, or ...
MOST_CENTER_ERROR = 0.5  # ... with two cameras a baseline 30 degrees off: cameras of another place
_FOCAL_SPREAD = 0.1  # of the logarithm of a network's focal length
_WIDEST = 100.0  # reference pixels that a network's cameras may be off by
_LOWERED = 0.75  # times the error: less is what keypoints err by, and of few photos that bends the cameras
_MIN_ANGLE = 1.0  # degrees between rays: below, depth is too vague to compare
_FEWEST = 12  # points in a photo that tell the scale of its depth, and ...
_FEWEST_FOR_SHIFT = 30  # ... where they are, of which the nearest tenth is nearer than the farthest by ...
_RANGE = 1.25  # ... this, also a shift of its inverse depth
_BETTER = 0.8  # times the error, and ...
_MATTERS = 0.01  # ... lower by this share of depth: else the simpler correction holds
_DRAWS = 400


def _posed(observed: Problem, cameras: Cameras) -> tuple[Problem, Poses, float]:
    """What was observed, as pictures of pinholes with their principal point in the middle, and these cameras.

    Returns:
        The problem and the poses, centred and in units of the cameras' spread; and that unit.
    """
    intrinsics, pose = cameras.intrinsics.cpu().numpy(), cameras.camera_from_world.cpu().numpy()
    centers = cameras.centers.cpu().numpy()
    centers = centers - centers.mean(0)
    unit = max(float(np.sqrt((centers**2).sum(1).mean())), 1e-12)
    focal = np.sqrt(intrinsics[:, 0, 0] * intrinsics[:, 1, 1])
    points = []
    for own, matrix, f, size in zip(observed.points, intrinsics, focal, observed.sizes):
        rays = np.concatenate([own, np.ones((len(own), 1))], 1) @ np.linalg.inv(matrix).T
        points.append(rays[:, :2] * f + size / 2)
    group, rotation = np.arange(len(observed)), pose[:, :3, :3]
    problem = replace(
        observed, points=points, group=group, focal_prior=focal, focal_spread=np.full(len(focal), _FOCAL_SPREAD)
    )
    return problem, Poses(group, rotation, -np.einsum("nij,nj->ni", rotation, centers / unit), focal), unit


def refined(found: Geometry, observed: Problem) -> Geometry:
    """A network's cameras, adjusted to the matches of the photos; its depth follows.

    Bundle adjustment, as structure from motion ends with, starts from the network's cameras; at first matches may be
    off by as much as they typically are, in the end by no more than keypoints are. Photos of one size and EXIF focal
    length share a focal length. A photo that shares nothing with the others moves along with them. The network's
    cameras stay where the photos share too little or were taken from one spot, and where the adjusted ones explain
    fewer matches, do not lower the error by a quarter, or are those of another place. What was done is logged.

    Args:
        found: a network's answer.
        observed: keypoints and matches of the same photos.

    Returns:
        The same photos in the frame and scale of `Geometry`; ``fit`` has ``tracks``, the number of points, and, where
        there are enough, ``pixels_before`` and ``pixels``: their mean reprojection error in the network's cameras and
        in those returned.
    """
    adjusted = _adjusted(observed, found.cameras)
    if adjusted is None:
        _log.info("cameras: kept as %s found them, too few matches of places seen from two sides", found.name)
        return replace(found, fit={"tracks": 0.0})
    cameras, bundle, before, after = adjusted
    points = len(bundle.points)
    if cameras is None:
        _log.info("cameras: kept as %s found them, %.1f pixels on %d points", found.name, before, points)
        return replace(found, fit={"tracks": float(points), "pixels_before": before, "pixels": before})
    _log.info("cameras: refined, %.1f -> %.1f pixels on %d points", before, after, points)
    depths, _ = onto(found, cameras, observed)
    fit = {"tracks": float(points), "pixels_before": before, "pixels": after}
    return rescaled(replace(found, cameras=cameras, depths=depths, fit=fit))


def _adjusted(observed: Problem, cameras: Cameras) -> tuple[Cameras | None, Bundle, float, float] | None:
    """Adjusted cameras in the world of ``cameras``, or ``None`` if they are no better, the points, and the mean error
    on these before and after; ``None`` where too little is known to adjust anything."""
    ideal, old, unit = _posed(observed, cameras)
    groups = range(len(observed.focal_prior))
    focal = np.exp([np.log(old.focal[observed.group == g]).mean() for g in groups])
    problem = replace(observed, focal_prior=focal, focal_spread=np.full(len(focal), _FOCAL_SPREAD))
    poses = Poses(old.photos, old.rotation, old.translation, focal)
    errors = [
        epipolar_errors(problem, pair, poses.relative(pair), focal) / problem.unit(pair.first)
        for pair in problem.pairs
        if len(pair.indices)
    ]
    if not errors or sum(map(len, errors)) < MIN_INLIERS:
        return None
    widen = float(np.clip(3 * np.median(np.concatenate(errors)), MATCH_ERROR, _WIDEST)) / MATCH_ERROR
    while True:
        done = polish(problem, poses, rounds=1 if widen > 1 else 2, widen=widen)
        if done is None:
            return None
        poses, bundle = done
        if widen == 1:
            break
        widen = max(1.0, widen / 3)
    linked = _linked(bundle, len(poses.photos))
    if len(linked) < 2 or len(bundle.points) < MIN_INLIERS:
        return None
    bundle = bundle.keep(np.isin(bundle.camera_index, linked))
    agreeing = []
    for pair in problem.pairs:
        good = inliers(problem, pair, poses.relative(pair), poses.focal)
        agreeing.append(replace(pair, indices=pair.indices[good], scores=pair.scores[good]))
    if max(turning_error(problem, pair, poses.focal) for pair in agreeing) < MIN_PARALLAX:
        return None
    tracks = np.stack([bundle.camera_index, bundle.keypoint, bundle.point_index], 1)
    before, after = _error(ideal, old, tracks), _error(problem, poses, tracks)
    agreed = sum(int(inliers(ideal, pair, old.relative(pair), old.focal).sum()) for pair in ideal.pairs)
    better = after < _LOWERED * before and sum(len(pair.indices) for pair in agreeing) >= agreed
    moved = _carried(poses, problem, cameras, linked, unit) if better else None
    return moved, bundle, before, after


def _linked(bundle: Bundle, count: int) -> np.ndarray:
    """The most cameras that points join."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = count + len(bundle.points)
    edges = (np.ones(len(bundle.camera_index)), (bundle.camera_index, count + bundle.point_index))
    label = connected_components(coo_array(edges, shape=(size, size)), directed=False)[1][:count]
    return np.flatnonzero(label == np.bincount(label).argmax())


def _error(problem: Problem, poses: Poses, tracks: np.ndarray) -> float:
    """Mean reprojection error in pixels of the tracks, triangulated from the poses."""
    errors = np.linalg.norm(make_bundle(problem, poses, tracks).residuals, axis=1)
    return float(np.minimum(errors, problem.sizes.max()).mean())  # behind a camera it is infinite


def _carried(poses: Poses, problem: Problem, cameras: Cameras, linked: np.ndarray, unit: float) -> Cameras | None:
    """The poses in the world of the cameras that they were adjusted from, ``None`` if they are of another place."""
    count = len(cameras)
    matrix = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    matrix[:, :3, :3] = torch.from_numpy(poses.rotation)
    matrix[:, :3, 3] = torch.from_numpy(poses.translation) * unit
    intrinsics = torch.eye(3, dtype=torch.float64).repeat(count, 1, 1)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = torch.from_numpy(poses.focal[problem.group])
    intrinsics[:, :2, 2] = torch.from_numpy(problem.sizes / 2)
    if not bool(torch.isfinite(matrix).all() and torch.isfinite(intrinsics).all()):
        return None
    new = Cameras(torch.linalg.inv(matrix), intrinsics, cameras.sizes)
    chosen = linked.tolist()
    try:
        similarity = similarity_between(new[chosen], cameras[chosen])
    except ValueError:
        return None
    fit = residual(new[chosen], cameras[chosen], similarity)
    if not fit["pair_rotation_degrees"] <= MOST_DEGREES or not fit["center_error"] <= MOST_CENTER_ERROR:
        return None
    new = similarity.cameras(new)
    world, matrices = cameras.world_from_camera.clone(), cameras.intrinsics.clone()
    world[chosen], matrices[chosen] = new.world_from_camera[chosen], new.intrinsics[chosen]
    return Cameras(world, matrices, cameras.sizes)


@dataclass(frozen=True)
class _Spots:
    """Where a depth map shows triangulated points: its own depth ``[M]`` there, and the points' ``[M]``."""

    own: Tensor
    true: Tensor


def onto(
    found: Geometry, cameras: Cameras, observed: Problem, scale: float = 1.0
) -> tuple[list[DepthMap], dict[str, float]]:
    """A network's depth maps in other cameras of the same photos, at the depth of points that these see.

    The maps are the cameras' own: position, direction and intrinsics, the latter brought to the map's size through the
    same resampling and crop. The network's own focal length would let a point leave the pixel that it came from.
    Depth ``d`` becomes ``1 / (a / d + b)``. By default ``a`` is ``1 / scale``; where points triangulated from the
    matches say clearly better, the median over all photos, then of the photo alone, then with a shift ``b`` of its
    inverse depth, each fitted by least median of squares, which half of the points may be wrong for (Rousseeuw 1984).

    Args:
        found: with the network's depth and the cameras that belong to it.
        cameras: one per photo, in which the points are triangulated.
        observed: of the photos.
        scale: of the world of ``cameras`` over the network's.

    Returns:
        The maps; ``tracks``, the number of comparisons with points, and where there are any ``depth_error_before`` and
        ``depth_error``, the median relative errors of depth there at ``scale`` and as returned.
    """
    assert found.depths is not None
    maps = []
    for k, own in enumerate(found.depths):
        # Both estimated cameras tell how pixels of the photo became the map's, whatever was resampled and cut between.
        pixels = own.cameras.intrinsics @ torch.linalg.inv(found.cameras[k].intrinsics)
        camera = Cameras(cameras[k].world_from_camera, pixels @ cameras[k].intrinsics, own.cameras.sizes)
        maps.append(replace(own, cameras=camera))
    spots = _spots(observed, cameras, maps)
    every = _Spots(torch.cat([s.own for s in spots]), torch.cat([s.true for s in spots]))
    common = _best(every, (1 / scale, 0.0), shift=False)
    depths, before, after = [], [], []
    for own, some in zip(maps, spots):
        a, b = _best(some, common, shift=True)
        before.append(_off(some, 1 / scale, 0.0))
        after.append(_off(some, a, b))
        inverse = a / own.depth.clamp(min=1e-30) + b
        known = (own.depth > 0) & (inverse > 0)
        depth = own.depth / a if b == 0 else torch.where(known, 1 / inverse.clamp(min=1e-30), 0.0)
        depths.append(replace(own, depth=depth, confidence=own.confidence * known))
    told = {"tracks": float(len(every.own))}
    if len(every.own):
        told |= {
            "depth_error_before": float(torch.cat(before).median()),
            "depth_error": float(torch.cat(after).median()),
        }
    return depths, told


def _spots(observed: Problem, cameras: Cameras, maps: list[DepthMap]) -> list[_Spots]:
    """Of each photo the points that it shares with others, where its map has depth."""
    problem, poses, unit = _posed(observed, cameras)
    bundle = filtered(make_bundle(problem, poses, build_tracks(problem, poses)), POINT_ERROR)
    bundle = bundle.keep((widest_angles(bundle) > _MIN_ANGLE)[bundle.point_index])
    far = bundle.in_camera[:, 2] * unit
    spots = []
    for k, own in enumerate(maps):
        mine = bundle.camera_index == k
        at = torch.from_numpy(observed.points[k][bundle.keypoint[mine]])
        to_map = own.cameras.intrinsics[0] @ torch.linalg.inv(cameras[k].intrinsics[0])
        column, row = (at @ to_map[:2, :2].T + to_map[:2, 2]).floor().long().unbind(1)
        height, width = own.depth.shape
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        there = own.depth[row.clamp(0, height - 1), column.clamp(0, width - 1)].double()
        inside &= there > 0
        spots.append(_Spots(there[inside], torch.from_numpy(far[mine])[inside]))
    return spots


def _off(spots: _Spots, a: float | Tensor, b: float | Tensor) -> Tensor:
    """Relative errors of inverse depth ``[..., M]`` at the corrections ``a`` and ``b``, ``[..., 1]`` or plain."""
    return ((a / spots.own + b) * spots.true - 1).abs()


def _best(spots: _Spots, given: tuple[float, float], shift: bool) -> tuple[float, float]:
    """The correction ``(a, b)`` that fits the points, the simplest of those that are about as good."""
    if len(spots.own) < _FEWEST:
        return given
    best, error = given, float(_off(spots, *given).median())
    alone = (float((spots.own / spots.true).median()), 0.0)
    for trial in [alone, *([_with_shift(spots)] if shift else [])]:
        if trial is None:
            continue
        off = float(_off(spots, *trial).median())
        if off < _BETTER * error and off < error - _MATTERS:
            best, error = trial, off
    return best


def _with_shift(spots: _Spots) -> tuple[float, float] | None:
    """Scale and shift of inverse depth by least median of squares, then least squares over what agrees."""
    inverse, count = 1 / spots.own, len(spots.own)
    low, high = inverse.quantile(0.1), inverse.quantile(0.9)
    if count < _FEWEST_FOR_SHIFT or not high > _RANGE * low:
        return None
    i, j = torch.randint(count, (2, _DRAWS), generator=torch.Generator().manual_seed(0))
    run = inverse[i] - inverse[j]
    a = (1 / spots.true[i] - 1 / spots.true[j]) / torch.where(run == 0, torch.nan, run)
    b = 1 / spots.true[i] - a * inverse[i]
    medians = _off(spots, a[:, None], b[:, None]).median(1).values
    medians = torch.where((a > 0) & medians.isfinite(), medians, torch.inf)
    least = int(medians.argmin())
    if not medians[least].isfinite():
        return None
    agrees = _off(spots, a[least], b[least]) <= 3 * medians[least].clamp(min=1e-9)
    system = torch.stack([inverse, torch.ones_like(inverse)], 1) * spots.true[:, None]
    answer = torch.linalg.lstsq(system[agrees], torch.ones(int(agrees.sum()), 1, dtype=system.dtype)).solution[:, 0]
    scale, offset = float(answer[0]), float(answer[1])
    return (scale, offset) if scale > 0 else None

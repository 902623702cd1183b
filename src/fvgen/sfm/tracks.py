"""Tracks of keypoints through photos, and bundle adjustment over them. Pure numpy."""

from collections import Counter
from dataclasses import replace

import numpy as np

from fvgen.sfm.bundle import Bundle, adjust, triangulate
from fvgen.sfm.problem import Poses, Problem, epipolar_errors, inliers

POINT_ERROR = 4.0  # times sigma
_ENOUGH_POINTS = 6000  # more do not move the cameras any further,
_ENOUGH_PER_PHOTO = 200  # but of many photos each needs its share
_FEWEST_POINTS = 8


def build_tracks(problem: Problem, poses: Poses, widen: float = 1.0) -> np.ndarray:
    """Join the matches that agree with the poses into tracks, the best first, at most one keypoint per photo.

    Args:
        problem: the matches.
        poses: of some photos.
        widen: times the usual error up to which matches agree.

    Returns:
        ``[O, 3]`` int: photo, keypoint and point of each observation.
    """
    edges = []
    for pair in problem.pairs:
        if pair.first not in poses.photos or pair.second not in poses.photos or len(pair.indices) == 0:
            continue
        relative = poses.relative(pair)
        errors = epipolar_errors(problem, pair, relative, poses.focal)
        good = inliers(problem, pair, relative, poses.focal, widen)
        edges += [
            (float(error), (pair.first, int(a)), (pair.second, int(b)))
            for error, (a, b) in zip(errors[good], pair.indices[good])
        ]
    edges.sort()
    member: dict[tuple[int, int], dict[int, int]] = {}  # keypoint -> its track, which maps photos to keypoints
    for _, a, b in edges:
        track_a, track_b = member.setdefault(a, {a[0]: a[1]}), member.setdefault(b, {b[0]: b[1]})
        if track_a is track_b or track_a.keys() & track_b.keys():
            continue
        track_a.update(track_b)
        for keypoint in track_b.items():
            member[keypoint] = track_a
    tracks = [track for track in {id(t): t for t in member.values()}.values() if len(track) >= 2]
    tracks = _enough(sorted(tracks, key=len, reverse=True))
    rows = [(photo, keypoint, p) for p, track in enumerate(tracks) for photo, keypoint in sorted(track.items())]
    return np.array(rows, dtype=int).reshape(-1, 3)


def _enough(tracks: list[dict[int, int]]) -> list[dict[int, int]]:
    """The first of these tracks, and those of the others that go through a photo that has too few."""
    kept = tracks[:_ENOUGH_POINTS]
    has = Counter(photo for track in kept for photo in track)
    for track in tracks[_ENOUGH_POINTS:]:
        if any(has[photo] < _ENOUGH_PER_PHOTO for photo in track):
            kept.append(track)
            has.update(track.keys())
    return kept


def make_bundle(problem: Problem, poses: Poses, tracks: np.ndarray) -> Bundle:
    """The tracks ``[O, 3]`` of `build_tracks`, triangulated from the poses, as a bundle to adjust."""
    photo, keypoint, point = tracks.T
    local = np.full(len(problem), -1)
    local[poses.photos] = np.arange(len(poses.photos))
    start = np.cumsum([0] + [len(p) for p in problem.points])
    row = start[photo] + keypoint
    bundle = Bundle(
        rotation=poses.rotation,
        translation=poses.translation,
        focal=poses.focal,
        group=problem.group[poses.photos],
        points=np.zeros((int(point.max(initial=-1)) + 1, 3)),
        camera_index=local[photo],
        point_index=point,
        pixels=np.concatenate(problem.points)[row] - problem.sizes[photo] / 2,
        sigma=np.concatenate(problem.sigma)[row],
        focal_prior=problem.focal_prior,
        focal_spread=problem.focal_spread,
        keypoint=keypoint,
    )
    return triangulate(bundle)


def filtered(bundle: Bundle, limit: float) -> Bundle:
    """The bundle without the observations that are off by more than ``limit`` times their expected error."""
    return bundle.keep((bundle.residuals**2).sum(1) < (limit * bundle.sigma) ** 2)


def polish(
    problem: Problem, poses: Poses, rounds: int = 2, iterations: int = 25, widen: float = 1.0
) -> tuple[Poses, Bundle] | None:
    """Alternate between rebuilding the tracks under the poses and bundle adjustment of everything.

    Args:
        problem: the matches.
        poses: to start from.
        rounds: of both.
        iterations: at most, of each adjustment.
        widen: times the usual errors that are expected, where the poses are rough.

    Returns:
        The better poses and the bundle they came from, or ``None`` where nearly no matches agree with the poses.
    """
    problem = replace(problem, sigma=[widen * sigma for sigma in problem.sigma])
    for _ in range(rounds):
        bundle = filtered(make_bundle(problem, poses, build_tracks(problem, poses, widen)), 4 * POINT_ERROR)
        if len(bundle.points) < _FEWEST_POINTS:
            return None
        bundle = adjust(filtered(adjust(bundle, iterations), POINT_ERROR), iterations)
        if len(bundle.points) < _FEWEST_POINTS:
            return None
        poses = Poses(poses.photos, bundle.rotation, bundle.translation, bundle.focal)
    return poses, bundle

"""Camera poses from matched keypoints: pycolmap and numpy, in a process of its own.

``python -m fvgen.sfm.worker PROBLEM ANSWER``, started by `fvgen.scene.sfm`. COLMAP's library shares its process with
nothing else, because it has been seen to abort next to other image libraries; and a crash here cannot take a run down.
"""

import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fvgen.sfm.bundle import INDEPENDENT_PER_PHOTO, Bundle, widest_angles
from fvgen.sfm.mapping import likely_focal, place_many
from fvgen.sfm.pairs import VAGUE, place_two
from fvgen.sfm.problem import (
    MIN_INLIERS,
    MIN_PARALLAX,
    MIN_SUPPORT,
    USUAL_FOCAL,
    USUAL_SPREAD,
    Pair,
    Poses,
    Problem,
    epipolar_errors,
    find_turn,
    homography_error,
    inliers,
    pair_sigma,
    turn_limit,
    turning_error,
)
from fvgen.sfm.tracks import POINT_ERROR

# What matches of photos that turns join are off, in reference pixels, and of their limit, if they are to tell a motion.
# Of panoramas (12 places, focal lengths 0.6 to 1.5) they were off by up to 2, or, look-alikes, by 200 and more.
_BEYOND_TURNS, _LOOK_ALIKE = 2.0, 20.0
_DIFFERENT = 1.15  # times a known focal length
_CLEARLY = 3.0  # of twice the log-likelihood
_MIN_ANGLE = 0.3  # degrees between rays: below, the depth of a point is noise


def solve(problem: Problem) -> dict[str, Any]:
    """Place the photos.

    Returns:
        ``failure``: ``""``, or ``"overlap"`` or ``"parallax"``, what the photos lack; then ``matched``, the most
        matches of a pair, is the only other key. Else ``photos [n]``, those that were placed, ascending, with
        ``rotation [n, 3, 3]`` and ``translation [n, 3]`` (camera from world) and ``focal [n]`` in pixels;
        ``distrusted [D]``, the groups whose known focal length the matches contradict; ``points [P, 3]``; and for
        each observation ``camera_index [O]`` (into ``photos``), ``point_index [O]`` and ``errors [O]`` in pixels.
    """
    matched = max((len(pair.indices) for pair in problem.pairs), default=0)
    placed, distrusted = _weighed(problem) if problem.pairs else (None, np.zeros(0, dtype=int))
    if placed is None:
        return {"failure": "overlap", "matched": matched}
    poses, bundle = placed
    agreeing = []  # the matches of each pair that agree with the poses
    for pair in problem.pairs:
        if pair.first in poses.photos and pair.second in poses.photos and len(pair.indices):
            good = inliers(problem, pair, poses.relative(pair), poses.focal)
            agreeing.append(replace(pair, indices=pair.indices[good], scores=pair.scores[good]))
    if len(bundle.points) < MIN_INLIERS or max(pair.scores.sum() for pair in agreeing) < MIN_SUPPORT:
        return {"failure": "overlap", "matched": matched}
    still = max(turning_error(problem, pair, poses.focal) for pair in agreeing) < MIN_PARALLAX
    if still or _one_spot(problem, agreeing, poses):
        return {"failure": "parallax", "matched": matched}
    bundle = bundle.keep((widest_angles(bundle) > _MIN_ANGLE)[bundle.point_index])
    order = np.argsort(poses.photos)
    return {
        "failure": "",
        "photos": poses.photos[order],
        "rotation": poses.rotation[order],
        "translation": poses.translation[order],
        "distrusted": distrusted,
        "focal": poses.focal[problem.group[poses.photos[order]]],
        "points": bundle.points,
        "camera_index": np.argsort(order)[bundle.camera_index],
        "point_index": bundle.point_index,
        "errors": np.linalg.norm(bundle.residuals, axis=1),
    }


def _one_spot(problem: Problem, agreeing: list[Pair], poses: Poses) -> bool:
    """Whether turns of the camera explain what the photos share.

    Photos of a wide panorama need share nothing: look-alikes between two of them may fit some motion, while turns, for
    which more speaks, lead from one to the other by way of photos between them, and put the matches elsewhere.
    """
    spot = {int(photo): (int(photo), np.eye(3)) for photo in poses.photos}  # a photo, and from its own pixels to that's
    for pair in sorted(agreeing, key=lambda pair: -pair.scores.sum()):
        if not len(pair.indices):
            continue
        (one, to_one), (other, to_other) = spot[pair.first], spot[pair.second]
        turn = find_turn(problem, pair, poses.relative(pair), poses.focal)
        if turn is None and one != other:
            return False
        if turn is None:
            off = homography_error(problem, pair, np.linalg.inv(to_other) @ to_one)
            limit = _BEYOND_TURNS * turn_limit(problem, pair, poses.relative(pair), poses.focal)
            if limit < off < _LOOK_ALIKE:
                return False
        elif one != other and len(pair.indices) >= MIN_INLIERS and pair.scores.sum() >= MIN_SUPPORT:
            across = to_one @ np.linalg.inv(to_other @ turn)
            moved = {photo: (one, across @ own) for photo, (root, own) in spot.items() if root == other}
            spot |= moved
    return True


def _place(problem: Problem) -> tuple[Poses, Bundle] | None:
    return place_two(problem, problem.pairs[0]) if len(problem) == 2 else place_many(problem)


def _weighed(problem: Problem) -> tuple[tuple[Poses, Bundle] | None, np.ndarray]:
    """The poses, and the groups whose known focal length was given up, because the matches are clearly better
    explained by another one. EXIF of a crop, or of another camera, is wrong by any factor."""
    placed, nothing = _place(problem), np.zeros(0, dtype=int)
    known = problem.focal_spread < VAGUE
    if not known.any():
        return placed, nothing
    free = loosened(problem, known)
    if placed is not None and len(problem) > 2 and not _far(likely_focal(free), problem)[known].any():
        return placed, nothing
    other = _place(free)
    if other is None:
        return placed, nothing
    seen = np.isin(np.arange(len(known)), problem.group[other[0].photos])
    far = known & seen & _far(other[0].focal, problem)
    if not far.any():
        return placed, nothing
    kept = placed is not None and not _far(placed[0].focal, problem)[far].any()
    if placed is not None and kept and _gain(problem, placed[0], other[0]) < _CLEARLY:
        return placed, nothing
    if (known & ~far).any():
        other = _place(loosened(problem, far)) or other  # what is right of EXIF helps
    return other, np.flatnonzero(far)


def loosened(problem: Problem, groups: np.ndarray) -> Problem:
    """The problem without what is known of the focal lengths of some groups, ``[G]`` bool."""
    longer = np.array([problem.sizes[problem.group == g].max() for g in range(len(groups))], dtype=float)
    return replace(
        problem,
        focal_prior=np.where(groups, USUAL_FOCAL * longer, problem.focal_prior),
        focal_spread=np.where(groups, USUAL_SPREAD, problem.focal_spread),
    )


def _far(focal: np.ndarray, problem: Problem) -> np.ndarray:
    """Which focal lengths ``[G]`` are clearly not the expected ones."""
    return np.abs(np.log(focal / problem.focal_prior)) > np.log(_DIFFERENT)


def _gain(problem: Problem, poses: Poses, other: Poses) -> float:
    """How much better other poses explain the matches: of twice the log-likelihood, matches discounted as in `Bundle`.

    The expected errors are those that the other poses leave, where these are smaller.
    """
    errors = []
    for trial in (poses, other):
        each = []
        for pair in problem.pairs:
            if pair.first in trial.photos and pair.second in trial.photos:
                off = epipolar_errors(problem, pair, trial.relative(pair), trial.focal)
                each.append(np.minimum(off / pair_sigma(problem, pair), 2 * POINT_ERROR))
            else:
                each.append(np.full(len(pair.indices), 2 * POINT_ERROR))
        errors.append(np.concatenate(each))
    scale = np.clip(1.5 * np.median(errors[1]), 0.1, 1.0)
    costs = [np.log1p((error / scale) ** 2).sum() for error in errors]
    independent = INDEPENDENT_PER_PHOTO * (len(problem) - 1)
    return float((costs[0] - costs[1]) * min(1.0, independent / len(errors[0])))


def main(problem_path: str, answer_path: str) -> None:
    """Read a pickled `Problem`, write its pickled answer."""
    import pycolmap

    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.FATAL)
    problem: Problem = pickle.loads(Path(problem_path).read_bytes())
    Path(answer_path).write_bytes(pickle.dumps(solve(problem)))


if __name__ == "__main__":
    main(*sys.argv[1:])

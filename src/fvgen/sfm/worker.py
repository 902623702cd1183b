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

from fvgen.sfm.bundle import widest_angles
from fvgen.sfm.mapping import place_many
from fvgen.sfm.pairs import place_two
from fvgen.sfm.problem import MIN_INLIERS, MIN_SUPPORT, Problem, inliers, is_turn, turning_error

_MIN_PARALLAX = 1.2  # px: below, a turn of the camera alone explains the matches
_MIN_ANGLE = 0.3  # degrees between rays: below, the depth of a point is noise


def solve(problem: Problem) -> dict[str, Any]:
    """Place the photos.

    Returns:
        ``failure``: ``""``, or ``"overlap"`` or ``"parallax"``, what the photos lack; then ``matched``, the most
        matches of a pair, is the only other key. Else ``photos [n]``, those that were placed, ascending, with
        ``rotation [n, 3, 3]`` and ``translation [n, 3]`` (camera from world) and ``focal [n]`` in pixels; ``points
        [P, 3]``; and for each observation ``camera_index [O]`` (into ``photos``), ``point_index [O]`` and ``errors
        [O]`` in pixels.
    """
    matched = max((len(pair.indices) for pair in problem.pairs), default=0)
    placed = None
    if problem.pairs:
        placed = place_two(problem, problem.pairs[0]) if len(problem) == 2 else place_many(problem)
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
    still = max(turning_error(problem, pair, poses.focal) for pair in agreeing) < _MIN_PARALLAX
    if still or all(is_turn(problem, pair, poses.relative(pair), poses.focal) for pair in agreeing):
        return {"failure": "parallax", "matched": matched}
    bundle = bundle.keep((widest_angles(bundle) > _MIN_ANGLE)[bundle.point_index])
    order = np.argsort(poses.photos)
    return {
        "failure": "",
        "photos": poses.photos[order],
        "rotation": poses.rotation[order],
        "translation": poses.translation[order],
        "focal": poses.focal[problem.group[poses.photos[order]]],
        "points": bundle.points,
        "camera_index": np.argsort(order)[bundle.camera_index],
        "point_index": bundle.point_index,
        "errors": np.linalg.norm(bundle.residuals, axis=1),
    }


def main(problem_path: str, answer_path: str) -> None:
    """Read a pickled `Problem`, write its pickled answer."""
    import pycolmap

    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.FATAL)
    problem: Problem = pickle.loads(Path(problem_path).read_bytes())
    Path(answer_path).write_bytes(pickle.dumps(solve(problem)))


if __name__ == "__main__":
    main(*sys.argv[1:])

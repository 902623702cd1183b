"""Camera poses from matched keypoints: pycolmap and numpy, in a process of its own.

``python -m fvgen.sfm.worker PROBLEM ANSWER``, started by `fvgen.scene.sfm`. COLMAP's library shares its process with
nothing else, because it has been seen to abort next to other image libraries; and a crash here cannot take a run down.
"""

import sys
from dataclasses import replace

import numpy as np

from fvgen.sfm.bundle import widest_angles
from fvgen.sfm.mapping import place_many
from fvgen.sfm.pairs import place_two
from fvgen.sfm.problem import MIN_INLIERS, MIN_SUPPORT, Pair, Poses, Problem, inliers, read_problem, turning_error

_MIN_PARALLAX = 1.2  # px: below, a turn of the camera alone explains the matches
_MIN_ANGLE = 0.3  # degrees between rays: below, the depth of a point is noise


def agreeing(problem: Problem, pair: Pair, poses: Poses) -> Pair:
    """The matches of a pair that agree with the poses."""
    good = inliers(problem, pair, poses.relative(pair), poses.focal)
    return replace(pair, indices=pair.indices[good], scores=pair.scores[good])


def solve(problem: Problem) -> dict[str, np.ndarray]:
    """The arrays of the answer: see `fvgen.scene.sfm`."""
    matched = max((len(pair.indices) for pair in problem.pairs), default=0)
    placed = None
    if len(problem) == 2 and problem.pairs:
        placed = place_two(problem, problem.pairs[0])
    elif problem.pairs:
        placed = place_many(problem)
    if placed is None:
        return {"failure": np.array("overlap"), "matched": np.array(matched)}
    poses, bundle = placed
    pairs = [p for p in problem.pairs if p.first in poses.photos and p.second in poses.photos and len(p.indices)]
    support = max(agreeing(problem, pair, poses).scores.sum() for pair in pairs)
    if len(bundle.points) < MIN_INLIERS or support < MIN_SUPPORT:
        return {"failure": np.array("overlap"), "matched": np.array(matched)}
    if max(turning_error(problem, agreeing(problem, pair, poses), poses.focal) for pair in pairs) < _MIN_PARALLAX:
        return {"failure": np.array("parallax"), "matched": np.array(matched)}
    bundle = bundle.keep((widest_angles(bundle) > _MIN_ANGLE)[bundle.point_index])
    order = np.argsort(poses.photos)
    rank = np.argsort(order)
    return {
        "failure": np.array(""),
        "photos": poses.photos[order],
        "rotation": poses.rotation[order],
        "translation": poses.translation[order],
        "focal": poses.focal[problem.group[poses.photos[order]]],
        "points": bundle.points,
        "camera_index": rank[bundle.camera_index],
        "point_index": bundle.point_index,
        "errors": np.linalg.norm(bundle.residuals, axis=1),
    }


def main(problem_path: str, answer_path: str) -> None:
    """Read a problem, write its answer."""
    import pycolmap

    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.FATAL)
    np.savez(answer_path, **solve(read_problem(problem_path)))  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])

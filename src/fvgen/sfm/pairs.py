"""The motion between two photos, with a vaguely known focal length. Runs in the worker's process."""

from dataclasses import replace

import numpy as np

from fvgen.sfm.bundle import INDEPENDENT_PER_PHOTO, Bundle
from fvgen.sfm.problem import MATCH_ERROR, Pair, Poses, Problem, epipolar_errors, pair_sigma
from fvgen.sfm.tracks import POINT_ERROR, polish

_SEARCH_MATCHES = 500  # a sample is enough to tell focal lengths apart
VAGUE = 0.1  # spread of log focal above which a focal length is searched
_FOCAL_STARTS = (0.55, 0.68, 0.82, 1.0, 1.25)  # times the longer side, where nothing is known


def pinhole(problem: Problem, photo: int, focal: np.ndarray):
    """COLMAP's camera of a photo: its group's focal length of ``focal [G]``, the principal point in the middle."""
    import pycolmap

    width, height = (int(side) for side in problem.sizes[photo])
    parameters = [float(focal[problem.group[photo]]), width / 2, height / 2]
    return pycolmap.Camera(model="SIMPLE_PINHOLE", width=width, height=height, params=parameters)


def relative_pose(problem: Problem, pair: Pair, focal: np.ndarray) -> np.ndarray | None:
    """The motion ``[3, 4]`` from the first camera to the second by RANSAC at fixed focal lengths ``[G]``.

    ``None`` where no matches agree.
    """
    import pycolmap

    if len(pair.indices) < 8:
        return None
    options = pycolmap.RANSACOptions()
    options.max_error = MATCH_ERROR * (problem.unit(pair.first) + problem.unit(pair.second)) / 2
    options.random_seed = problem.seed
    options.min_num_trials, options.max_num_trials = 200, 5000
    found = pycolmap.estimate_relative_pose(
        pinhole(problem, pair.first, focal),
        problem.points[pair.first][pair.indices[:, 0]],
        pinhole(problem, pair.second, focal),
        problem.points[pair.second][pair.indices[:, 1]],
        options,
    )
    return None if found is None else np.asarray(found["cam2_from_cam1"].matrix())


def place_two(problem: Problem, pair: Pair) -> tuple[Poses, Bundle] | None:
    """The most probable motion between two photos: RANSAC from several focal lengths, the best one polished."""
    draw = np.random.default_rng(problem.seed).permutation(len(pair.indices))[:_SEARCH_MATCHES]
    small = replace(pair, indices=pair.indices[np.sort(draw)], scores=pair.scores[np.sort(draw)])
    sketch = replace(problem, pairs=[small])
    best, best_cost = None, np.inf
    for focal in _focal_starts(problem, [pair.first, pair.second]):
        relative = relative_pose(problem, small, focal)
        if relative is None:
            continue
        start = Poses(
            np.array([pair.first, pair.second]),
            np.stack([np.eye(3), relative[:, :3]]),
            np.stack([np.zeros(3), relative[:, 3]]),
            focal,
        )
        found = polish(sketch, start, rounds=1, iterations=12)
        cost = _pair_cost(problem, pair, found[0]) if found else np.inf
        if found and cost < best_cost:
            best, best_cost = found[0], cost
    return None if best is None else polish(replace(problem, pairs=[pair]), best)


def _pair_cost(problem: Problem, pair: Pair, poses: Poses) -> float:
    """Twice the negative log-posterior of a two-view motion, over all matches of the pair, the wrong ones too."""
    errors = epipolar_errors(problem, pair, poses.relative(pair), poses.focal) / pair_sigma(problem, pair)
    data = np.log1p(np.minimum(errors, 2 * POINT_ERROR) ** 2).sum()
    groups = np.unique(problem.group[[pair.first, pair.second]])
    prior = (np.log(poses.focal / problem.focal_prior) / problem.focal_spread)[groups]
    return float(data + max(1.0, len(errors) / INDEPENDENT_PER_PHOTO) * (prior**2).sum())


def _focal_starts(problem: Problem, photos: list[int]) -> list[np.ndarray]:
    """Focal lengths to begin from: the prior, and others where it is vague."""
    groups = np.unique(problem.group[photos])
    if (problem.focal_spread[groups] < VAGUE).all():
        return [problem.focal_prior]
    longer = np.array([problem.sizes[problem.group == g].max() for g in range(len(problem.focal_prior))], dtype=float)
    vague = problem.focal_spread >= VAGUE
    return [np.where(vague, start * longer, problem.focal_prior) for start in _FOCAL_STARTS]

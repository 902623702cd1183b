"""What the photos said about their cameras, and the geometry of pairs. Pure numpy, runs beside COLMAP."""

from dataclasses import dataclass

import numpy as np

from fvgen.sfm.bundle import cross_matrix

MIN_INLIERS = 15  # fewer agreeing matches than this can be chance
MIN_SUPPORT = 8.0  # sum of the scores of a pair's agreeing matches; look-alikes agree, but with low scores
MATCH_ERROR = 2.5  # px from the epipolar line
MIN_PARALLAX = 1.2  # px: below, a turn of the camera alone explains the matches
# Focal lengths of ordinary cameras in units of the longer side: phones 0.7 to 0.8, video and compact cameras 0.8 to 1.
USUAL_FOCAL, USUAL_SPREAD = 0.8, 0.3
REFERENCE = 1024.0  # thresholds are pixels of a photo whose longer side has this many


@dataclass(frozen=True)
class Pair:
    """Matches of two photos: keypoint ``indices`` ``[M, 2]`` and the matcher's ``scores`` ``[M]`` in (0, 1]."""

    first: int
    second: int
    indices: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Problem:
    """What the photos said: `fvgen.scene.sfm` asks it, the worker answers.

    Attributes:
        sizes: ``[N, 2]`` width and height in pixels.
        group: ``[N]`` int, the index of each photo's focal length: photos of one camera share theirs.
        focal_prior: ``[G]`` expected focal lengths in pixels.
        focal_spread: ``[G]`` standard deviations of their logarithms.
        points: per photo ``[K, 2]`` keypoints in pixels.
        sigma: per photo ``[K]`` expected errors in pixels.
        pairs: matched pairs.
        seed: of every random choice.
    """

    sizes: np.ndarray
    group: np.ndarray
    focal_prior: np.ndarray
    focal_spread: np.ndarray
    points: list[np.ndarray]
    sigma: list[np.ndarray]
    pairs: list[Pair]
    seed: int

    def __len__(self) -> int:
        return len(self.sizes)

    def centred(self, photo: int, index: np.ndarray) -> np.ndarray:
        """``[M, 2]`` keypoints relative to the principal point, the middle of the photo."""
        return self.points[photo][index] - self.sizes[photo] / 2

    def unit(self, photo: int) -> float:
        """Pixels of this photo per pixel of the reference size."""
        return float(max(self.sizes[photo])) / REFERENCE


@dataclass(frozen=True)
class Poses:
    """Cameras of some photos (``photos`` ``[n]``), camera from world, and the focal length of every group ``[G]``."""

    photos: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    focal: np.ndarray

    def relative(self, pair: Pair) -> np.ndarray:
        """The motion ``[3, 4]`` from a pair's first camera to its second; both photos must have been placed."""
        i, j = (int(np.flatnonzero(self.photos == photo)[0]) for photo in (pair.first, pair.second))
        rotation = self.rotation[j] @ self.rotation[i].T
        return np.concatenate([rotation, (self.translation[j] - rotation @ self.translation[i])[:, None]], axis=1)


def epipolar_errors(problem: Problem, pair: Pair, relative: np.ndarray, focal: np.ndarray) -> np.ndarray:
    """Sampson errors ``[M]`` in pixels of a pair's matches, for ``relative [3, 4]`` (first camera to second) and
    focal lengths ``[G]``."""
    essential = cross_matrix(relative[None, :, 3])[0] @ relative[:, :3]
    f1, f2 = focal[problem.group[pair.first]], focal[problem.group[pair.second]]
    ones = np.ones((len(pair.indices), 1))
    a = np.concatenate([problem.centred(pair.first, pair.indices[:, 0]) / f1, ones], axis=1)
    b = np.concatenate([problem.centred(pair.second, pair.indices[:, 1]) / f2, ones], axis=1)
    line_b, line_a = a @ essential.T, b @ essential
    slope = (line_b[:, :2] ** 2).sum(1) / f2**2 + (line_a[:, :2] ** 2).sum(1) / f1**2
    return np.abs((b * line_b).sum(1)) / np.sqrt(np.maximum(slope, 1e-30))


def pair_sigma(problem: Problem, pair: Pair) -> np.ndarray:
    """Expected errors ``[M]`` in pixels of a pair's matches: of the less certain of the two keypoints."""
    return np.maximum(problem.sigma[pair.first][pair.indices[:, 0]], problem.sigma[pair.second][pair.indices[:, 1]])


def inliers(problem: Problem, pair: Pair, relative: np.ndarray, focal: np.ndarray, widen: float = 1.0) -> np.ndarray:
    """Which matches of a pair agree with the motion ``relative [3, 4]`` at focal lengths ``[G]``: ``[M]`` bool.

    ``widen`` multiplies the error up to which they do.
    """
    unit = (problem.unit(pair.first) + problem.unit(pair.second)) / 2
    return epipolar_errors(problem, pair, relative, focal) < widen * MATCH_ERROR * unit


def turning_error(problem: Problem, pair: Pair, focal: np.ndarray) -> float:
    """Median error in reference pixels of a pair's matches if the camera had only turned between the photos.

    The rotation is the best one for the rays at focal lengths ``[G]`` (Kabsch), re-weighted against wrong matches.
    """
    return _turned(problem, pair, focal)[0]


def _turned(problem: Problem, pair: Pair, focal: np.ndarray) -> tuple[float, np.ndarray]:
    """`turning_error`, and the rotation ``[3, 3]`` from the first camera to the second."""
    if len(pair.indices) == 0:
        return 0.0, np.eye(3)
    rays = []
    for photo, column in ((pair.first, 0), (pair.second, 1)):
        f = focal[problem.group[photo]]
        plane = problem.centred(photo, pair.indices[:, column]) / f
        ray = np.concatenate([plane, np.ones((len(plane), 1))], axis=1)
        rays.append(ray / np.linalg.norm(ray, axis=1, keepdims=True))
    rotation, weight = np.eye(3), np.ones(len(rays[0]))
    error = weight
    for _ in range(10):
        left, _, right = np.linalg.svd((rays[1] * weight[:, None]).T @ rays[0])
        rotation = left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right
        error = np.linalg.norm(rays[1] - rays[0] @ rotation.T, axis=1)
        weight = 1 / np.maximum(error, 1e-5)
    pixels = float(np.median(error) * focal[problem.group[pair.second]] / problem.unit(pair.second))
    return pixels, rotation


def homography_error(problem: Problem, pair: Pair, homography: np.ndarray) -> float:
    """Median error in reference pixels of a pair's matches, of which ``homography [3, 3]`` takes pixels of the first
    photo to those of the second; infinite where it takes most of them behind the camera."""
    first = problem.points[pair.first][pair.indices[:, 0]]
    seen = np.concatenate([first, np.ones((len(first), 1))], axis=1) @ homography.T
    ahead = seen[:, 2] > 1e-9
    off = seen[:, :2] / np.where(ahead, seen[:, 2], 1.0)[:, None] - problem.points[pair.second][pair.indices[:, 1]]
    return float(np.median(np.where(ahead, np.linalg.norm(off, axis=1), np.inf)) / problem.unit(pair.second))


_TURN_FOCALS = (0.4, 1.7)  # times the longer side; with a longer lens a turn looks like a step along a wall
_TURN_RATIOS = (0.6, 0.8, 1.0, 1.25, 1.6)  # of two focal lengths that are not known to be the same
_TURN_MATCHES = 400
_AS_WELL = 3.5  # times the epipolar error: errors in the plane are 2.5 times those across a line
_NOTHING = 0.5  # reference pixels that say nothing, however exact the matches are


def turn_limit(problem: Problem, pair: Pair, relative: np.ndarray, focal: np.ndarray) -> float:
    """The median error in reference pixels up to which a turn explains matches as well as ``relative [3, 4]`` does."""
    epipolar = np.median(epipolar_errors(problem, pair, relative, focal)) / problem.unit(pair.second)
    return max(_NOTHING, _AS_WELL * float(epipolar))


def find_turn(problem: Problem, pair: Pair, relative: np.ndarray, focal: np.ndarray) -> np.ndarray | None:
    """The turn of the camera, at any focal lengths, that explains a pair's matches as well as a motion does.

    The motion of photos from one spot fits any noise, and its focal lengths may be any: those of the turn are sought.

    Args:
        problem, pair: the matches, one at least.
        relative: ``[3, 4]`` the motion, from the first camera to the second.
        focal: ``[G]`` the motion's focal lengths in pixels.

    Returns:
        ``[3, 3]`` from pixels of the first photo to those of the second, or ``None`` where there is no such turn.
    """
    chosen = slice(None, None, max(1, len(pair.indices) // _TURN_MATCHES))
    few = Pair(pair.first, pair.second, pair.indices[chosen], pair.scores[chosen])
    limit = turn_limit(problem, few, relative, focal)
    photos = [pair.first, pair.second]
    groups = problem.group[photos]
    separate = bool(groups[0] != groups[1])

    def tried(logs: np.ndarray) -> np.ndarray:
        lenses = focal.copy()
        lenses[groups] = np.exp(logs) * problem.sizes[photos].max(1)
        return lenses

    def error(logs: np.ndarray) -> float:
        return turning_error(problem, few, tried(logs))

    lows, highs = np.log(_TURN_FOCALS)
    starts = np.linspace(lows, highs, 13)
    ratios = np.log(_TURN_RATIOS) if separate else np.zeros(1)
    trials = [np.array([start, start + ratio]) for start in starts for ratio in ratios]
    least, logs = min(((error(trial), trial) for trial in trials), key=lambda found: found[0])
    moves = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1], [1, 1], [-1, -1]] if separate else [[1.0, 1], [-1, -1]])
    step = (starts[1] - starts[0]) / 2
    while least >= limit and step > 2e-3:
        nearby = [logs + step * move for move in moves]
        found, place = min(((error(trial), trial) for trial in nearby), key=lambda found: found[0])
        if found < least and lows <= place[0] <= highs:
            least, logs = found, place
        else:
            step /= 2
    if least >= limit:
        return None
    lenses = tried(logs)
    first, second = (
        np.array([[f, 0, width / 2], [0, f, height / 2], [0, 0, 1]])
        for f, (width, height) in zip(lenses[groups], problem.sizes[photos])
    )
    return second @ _turned(problem, few, lenses)[1] @ np.linalg.inv(first)

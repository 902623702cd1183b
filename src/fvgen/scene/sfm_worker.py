"""Camera poses from matched keypoints: pycolmap and numpy, in a process of its own.

Started by ``fvgen.scene.sfm``. COLMAP's library shares its process with nothing else, because it has been seen to
abort next to other image libraries; and a crash here cannot take a run down.
"""

import contextlib
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fvgen.scene.sfm_bundle import INDEPENDENT_PER_PHOTO, Bundle, adjust, cross_matrix, triangulate, widest_angles

MIN_INLIERS = 15  # fewer agreeing matches than this can be chance
MIN_PNP_INLIERS = 12
_MIN_PARALLAX = 1.2  # px: below, a turn of the camera alone explains the matches
_REFERENCE = 1024.0  # thresholds are pixels of a photo whose longer side has this many
_MATCH_ERROR = 2.5  # px from the epipolar line
_POINT_ERROR = 4.0  # times sigma
_SIGMA_ALIGNED, _SIGMA_DETECTED = 0.5, 1.0  # px, expected errors of keypoints
_PNP_ERROR = 6.0  # px
_MAPPER_STARTS = ((6.0, 40), (2.0, 20), (0.7, 15))  # smallest angle and matches of the first pair, strict to loose
_SEARCH_MATCHES = 500  # a sample is enough to tell focal lengths apart
_FOCAL_STARTS = (0.55, 0.68, 0.82, 1.0, 1.25)  # times the longer side, where nothing is known


@dataclass(frozen=True)
class Pair:
    """Matches of two photos: keypoint indices ``[M, 2]``."""

    first: int
    second: int
    indices: np.ndarray


@dataclass(frozen=True)
class Problem:
    """What the photos said.

    Attributes:
        sizes: ``[N, 2]`` width and height.
        group: ``[N]`` int, photos that share a focal length.
        focal_prior: ``[G]`` pixels.
        focal_spread: ``[G]`` standard deviation of log focal.
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
        return float(max(self.sizes[photo])) / _REFERENCE


@dataclass(frozen=True)
class Poses:
    """Cameras of some photos (``photos`` ``[n]``), camera from world, and the focal length of every group ``[G]``."""

    photos: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    focal: np.ndarray

    def relative(self, pair: Pair) -> np.ndarray:
        """``[3, 4]`` second from first of two placed photos."""
        i, j = (int(np.flatnonzero(self.photos == photo)[0]) for photo in (pair.first, pair.second))
        rotation = self.rotation[j] @ self.rotation[i].T
        return np.concatenate([rotation, (self.translation[j] - rotation @ self.translation[i])[:, None]], axis=1)

    def with_photo(self, photo: int, matrix: np.ndarray) -> "Poses":
        """These and one more, ``matrix`` ``[3, 4]`` camera from world."""
        return Poses(
            np.append(self.photos, photo),
            np.concatenate([self.rotation, matrix[None, :, :3]]),
            np.concatenate([self.translation, matrix[None, :, 3]]),
            self.focal,
        )


def read_problem(path: str) -> Problem:
    """The problem that ``fvgen.scene.sfm`` wrote."""
    with np.load(path, allow_pickle=False) as data:
        count, pairs = len(data["sizes"]), data["pairs"]
        sigma = []
        for i in range(count):
            unit = data["sizes"][i].max() / _REFERENCE
            sigma.append(np.where(data[f"aligned_{i}"], _SIGMA_ALIGNED, _SIGMA_DETECTED) * unit)
        return Problem(
            sizes=data["sizes"],
            group=data["group"],
            focal_prior=data["focal_prior"],
            focal_spread=data["focal_spread"],
            points=[data[f"points_{i}"] for i in range(count)],
            sigma=sigma,
            pairs=[Pair(int(a), int(b), data[f"matches_{p}"]) for p, (a, b) in enumerate(pairs)],
            seed=int(data["seed"]),
        )


# --- two photos ---


def epipolar_errors(problem: Problem, pair: Pair, relative: np.ndarray, focal: np.ndarray) -> np.ndarray:
    """``[M]`` Sampson errors in pixels of a pair's matches under ``relative`` (``[3, 4]`` second from first)."""
    essential = cross_matrix(relative[None, :, 3])[0] @ relative[:, :3]
    f1, f2 = focal[problem.group[pair.first]], focal[problem.group[pair.second]]
    ones = np.ones((len(pair.indices), 1))
    a = np.concatenate([problem.centred(pair.first, pair.indices[:, 0]) / f1, ones], axis=1)
    b = np.concatenate([problem.centred(pair.second, pair.indices[:, 1]) / f2, ones], axis=1)
    line_b, line_a = a @ essential.T, b @ essential
    slope = (line_b[:, :2] ** 2).sum(1) / f2**2 + (line_a[:, :2] ** 2).sum(1) / f1**2
    return np.abs((b * line_b).sum(1)) / np.sqrt(np.maximum(slope, 1e-30))


def pair_sigma(problem: Problem, pair: Pair) -> np.ndarray:
    """``[M]`` expected errors of a pair's matches."""
    return np.maximum(problem.sigma[pair.first][pair.indices[:, 0]], problem.sigma[pair.second][pair.indices[:, 1]])


def pinhole(problem: Problem, photo: int, focal: np.ndarray):
    """COLMAP's camera of a photo, principal point in the middle."""
    import pycolmap

    width, height = (int(side) for side in problem.sizes[photo])
    parameters = [float(focal[problem.group[photo]]), width / 2, height / 2]
    return pycolmap.Camera(model="SIMPLE_PINHOLE", width=width, height=height, params=parameters)


def relative_pose(problem: Problem, pair: Pair, focal: np.ndarray) -> np.ndarray | None:
    """``[3, 4]`` second from first by RANSAC at fixed focal lengths, or ``None`` where nothing agrees."""
    import pycolmap

    if len(pair.indices) < 8:
        return None
    options = pycolmap.RANSACOptions()
    options.max_error = _MATCH_ERROR * (problem.unit(pair.first) + problem.unit(pair.second)) / 2
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


def inliers(problem: Problem, pair: Pair, relative: np.ndarray, focal: np.ndarray) -> np.ndarray:
    """``[M]`` bool: the match agrees with the motion."""
    unit = (problem.unit(pair.first) + problem.unit(pair.second)) / 2
    return epipolar_errors(problem, pair, relative, focal) < _MATCH_ERROR * unit


# --- tracks and polishing ---


@dataclass(frozen=True)
class Tracks:
    """What was seen of the points: ``[O]`` photo, keypoint and point of each observation."""

    photo: np.ndarray
    keypoint: np.ndarray
    point: np.ndarray


def build_tracks(problem: Problem, poses: Poses) -> Tracks:
    """Join the matches that agree with the poses into tracks, the best first, at most one keypoint per photo."""
    edges = []
    for pair in problem.pairs:
        if pair.first not in poses.photos or pair.second not in poses.photos or len(pair.indices) == 0:
            continue
        relative = poses.relative(pair)
        errors = epipolar_errors(problem, pair, relative, poses.focal)
        good = inliers(problem, pair, relative, poses.focal)
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
    rows = [(photo, keypoint, p) for p, track in enumerate(tracks) for photo, keypoint in sorted(track.items())]
    table = np.array(rows, dtype=int).reshape(-1, 3)
    return Tracks(table[:, 0], table[:, 1], table[:, 2])


def make_bundle(problem: Problem, poses: Poses, tracks: Tracks) -> Bundle:
    """The tracks, triangulated from the poses, as a bundle to adjust."""
    local = np.full(len(problem), -1)
    local[poses.photos] = np.arange(len(poses.photos))
    start = np.cumsum([0] + [len(p) for p in problem.points])
    row = start[tracks.photo] + tracks.keypoint
    pixels = np.concatenate(problem.points)[row] - problem.sizes[tracks.photo] / 2
    bundle = Bundle(
        rotation=poses.rotation,
        translation=poses.translation,
        focal=poses.focal,
        group=problem.group[poses.photos],
        points=np.zeros((int(tracks.point.max(initial=-1)) + 1, 3)),
        camera_index=local[tracks.photo],
        point_index=tracks.point,
        pixels=pixels,
        sigma=np.concatenate(problem.sigma)[row],
        focal_prior=problem.focal_prior,
        focal_spread=problem.focal_spread,
        keypoint=tracks.keypoint,
    )
    return triangulate(bundle)


def filtered(bundle: Bundle, limit: float, min_angle: float = 0.0) -> Bundle:
    """Without observations off by more than ``limit`` sigma and without points seen under less than ``min_angle``."""
    good = (bundle.residuals**2).sum(1) < (limit * bundle.sigma) ** 2
    bundle = bundle.keep(good)
    return bundle.keep((widest_angles(bundle) >= min_angle)[bundle.point_index])


def polish(problem: Problem, poses: Poses, rounds: int = 2, iterations: int = 25) -> tuple[Poses, Bundle]:
    """Alternate between rebuilding the tracks under the poses and bundle adjustment of everything.

    Raises:
        ValueError: if nearly no matches agree with the poses.
    """
    bundle = None
    for _ in range(rounds):
        bundle = filtered(make_bundle(problem, poses, build_tracks(problem, poses)), 4 * _POINT_ERROR)
        if len(bundle.points) < 8:
            raise ValueError("nearly no matches agree with the poses")
        bundle = adjust(bundle, iterations)
        bundle = adjust(filtered(bundle, _POINT_ERROR), iterations)
        if len(bundle.points) < 8:
            raise ValueError("nearly no matches agree with the poses")
        poses = Poses(poses.photos, bundle.rotation, bundle.translation, bundle.focal)
    assert bundle is not None
    return poses, bundle


def place_two(problem: Problem, pair: Pair) -> tuple[Poses, Bundle] | None:
    """The most probable motion between two photos: RANSAC from several focal lengths, the best one polished."""
    draw = np.random.default_rng(problem.seed).permutation(len(pair.indices))[:_SEARCH_MATCHES]
    small = replace(pair, indices=pair.indices[np.sort(draw)])
    sketch = replace(problem, pairs=[small])
    best, best_cost = None, np.inf
    for focal in focal_starts(problem, [pair.first, pair.second]):
        relative = relative_pose(problem, small, focal)
        if relative is None:
            continue
        start = Poses(
            np.array([pair.first, pair.second]),
            np.stack([np.eye(3), relative[:, :3]]),
            np.stack([np.zeros(3), relative[:, 3]]),
            focal,
        )
        try:
            poses, _ = polish(sketch, start, rounds=1, iterations=12)
        except ValueError:
            continue
        cost = pair_cost(problem, pair, poses)
        if cost < best_cost:
            best, best_cost = poses, cost
    try:
        return None if best is None else polish(replace(problem, pairs=[pair]), best)
    except ValueError:
        return None


def pair_cost(problem: Problem, pair: Pair, poses: Poses) -> float:
    """Twice the negative log-posterior of a two-view motion, over all matches of the pair, the wrong ones too."""
    errors = epipolar_errors(problem, pair, poses.relative(pair), poses.focal) / pair_sigma(problem, pair)
    data = np.log1p(np.minimum(errors, 2 * _POINT_ERROR) ** 2).sum()
    groups = np.unique(problem.group[[pair.first, pair.second]])
    prior = (np.log(poses.focal / problem.focal_prior) / problem.focal_spread)[groups]
    return float(data + max(1.0, len(errors) / INDEPENDENT_PER_PHOTO) * (prior**2).sum())


def focal_starts(problem: Problem, photos: list[int]) -> list[np.ndarray]:
    """Focal lengths ``[G]`` to begin from: the prior, and others where it is vague."""
    groups = np.unique(problem.group[photos])
    if (problem.focal_spread[groups] < 0.1).all():
        return [problem.focal_prior]
    longer = np.array([problem.sizes[problem.group == g].max() for g in range(len(problem.focal_prior))], dtype=float)
    vague = problem.focal_spread >= 0.1
    return [np.where(vague, start * longer, problem.focal_prior) for start in _FOCAL_STARTS]


# --- more than two photos ---


@dataclass(frozen=True)
class Verified:
    """A pair whose matches ``inlier`` (``[M]`` bool) agree with one motion ``relative`` (``[3, 4]``)."""

    pair: Pair
    relative: np.ndarray
    inlier: np.ndarray


def verify(problem: Problem, focal: np.ndarray) -> list[Verified]:
    """Pairs with a common motion at these focal lengths."""
    verified = []
    for pair in problem.pairs:
        relative = relative_pose(problem, pair, focal)
        if relative is None:
            continue
        inlier = inliers(problem, pair, relative, focal)
        if inlier.sum() >= MIN_INLIERS:
            verified.append(Verified(pair, relative, inlier))
    return verified


def likely_focal(problem: Problem, most: int = 5) -> np.ndarray:
    """Focal lengths ``[G]``: where they are vague, the median over the motions of the best matched pairs."""
    if (problem.focal_spread < 0.1).all():
        return problem.focal_prior
    found: list[list[float]] = [[] for _ in problem.focal_prior]
    for pair in sorted(problem.pairs, key=lambda pair: -len(pair.indices))[:most]:
        placed = place_two(problem, pair)
        if placed is not None:
            for g in set(problem.group[[pair.first, pair.second]].tolist()):
                found[g].append(placed[0].focal[g])
    return np.array([np.median(f) if f else prior for f, prior in zip(found, problem.focal_prior)])


def write_photos(problem: Problem, focal: np.ndarray, database) -> None:
    """Cameras (one per group and size), photos (ids from 1, in order) and keypoints into a COLMAP database."""
    import pycolmap

    camera_ids: dict[tuple[int, int, int], int] = {}
    for i, (width, height) in enumerate(problem.sizes.tolist()):
        key = (int(problem.group[i]), width, height)
        if key not in camera_ids:
            camera = pinhole(problem, i, focal)
            camera.has_prior_focal_length = True
            camera.camera_id = camera_ids[key] = database.write_camera(camera)
            rig = pycolmap.Rig(rig_id=camera.camera_id)
            rig.add_ref_sensor(camera.sensor_id)
            database.write_rig(rig, use_rig_id=True)
        image = pycolmap.Image(name=f"{i:06d}", camera_id=camera_ids[key], image_id=i + 1)
        database.write_image(image, use_image_id=True)
        frame = pycolmap.Frame(frame_id=i + 1, rig_id=camera_ids[key])
        frame.add_data_id(image.data_id)
        database.write_frame(frame, use_frame_id=True)
        database.write_keypoints(i + 1, problem.points[i].astype(np.float32))


def map_many(problem: Problem, focal: np.ndarray, verified: list[Verified], **mapper: float) -> Poses | None:
    """COLMAP's incremental mapping of the verified matches with thresholds for sparse sets; its largest model.

    Focal lengths stay fixed: with few photos COLMAP's free refinement of them runs away. ``polish`` refines them.
    ``mapper`` sets further options of ``IncrementalMapperOptions``.
    """
    import pycolmap

    with tempfile.TemporaryDirectory() as folder:
        database_path = Path(folder) / "database.db"
        database = pycolmap.Database.open(database_path)
        write_photos(problem, focal, database)
        for v in verified:
            a, b = v.pair.first + 1, v.pair.second + 1
            good = v.pair.indices[v.inlier].astype(np.uint32)
            database.write_matches(a, b, good)
            geometry = pycolmap.TwoViewGeometry()
            geometry.config = int(pycolmap.TwoViewGeometryConfiguration.CALIBRATED)
            geometry.inlier_matches = good
            geometry.E = cross_matrix(v.relative[None, :, 3])[0] @ v.relative[:, :3]
            geometry.cam2_from_cam1 = pycolmap.Rigid3d(v.relative)
            database.write_two_view_geometry(a, b, geometry)
        database.close()
        options = pycolmap.IncrementalPipelineOptions()
        options.min_num_matches, options.min_model_size, options.max_num_models = MIN_INLIERS, 2, 3
        options.extract_colors = False
        options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = problem.seed
        options.num_threads = 1
        options.ba_refine_focal_length = options.ba_refine_extra_params = False
        options.mapper.abs_pose_refine_focal_length = options.mapper.abs_pose_refine_extra_params = False
        options.mapper.abs_pose_min_num_inliers = MIN_INLIERS
        options.mapper.abs_pose_min_inlier_ratio = 0.1
        options.mapper.filter_min_tri_angle = options.triangulation.min_angle = 0.5
        options.triangulation.ignore_two_view_tracks = False
        for name, value in mapper.items():
            setattr(options.mapper, name, value)
        models = pycolmap.incremental_mapping(database_path, folder, Path(folder) / "models", options)
        best = max(models.values(), key=lambda m: (m.num_reg_images(), m.num_points3D()), default=None)
        if best is None or best.num_reg_images() < 2:
            return None
        ids = sorted(best.reg_image_ids())
        matrices = np.stack([best.image(i).cam_from_world().matrix() for i in ids])
        return Poses(np.array(ids) - 1, matrices[:, :, :3], matrices[:, :, 3], focal)


def register(problem: Problem, poses: Poses, bundle: Bundle, photo: int) -> Poses | None:
    """Add one photo by the points it shares with the placed ones (PnP), or ``None`` where too few agree."""
    import pycolmap

    owner = poses.photos[bundle.camera_index]
    known = {(int(p), int(k)): int(x) for p, k, x in zip(owner, bundle.keypoint, bundle.point_index)}
    seen: dict[int, int] = {}
    for pair in problem.pairs:
        if photo in (pair.first, pair.second):
            other, mine, theirs = (pair.second, 0, 1) if pair.first == photo else (pair.first, 1, 0)
            keys = ((int(m[mine]), (other, int(m[theirs]))) for m in pair.indices)
            seen.update({keypoint: known[key] for keypoint, key in keys if key in known})
    if len(seen) < MIN_PNP_INLIERS:
        return None
    options = pycolmap.AbsolutePoseEstimationOptions()
    options.ransac.max_error = _PNP_ERROR * problem.unit(photo)
    options.ransac.random_seed = problem.seed
    pixels, points = problem.points[photo][list(seen)], bundle.points[list(seen.values())]
    camera = pinhole(problem, photo, poses.focal)
    found = pycolmap.estimate_and_refine_absolute_pose(pixels, points, camera, options)
    if found is None or found["num_inliers"] < MIN_PNP_INLIERS:
        return None
    return poses.with_photo(photo, np.asarray(found["cam_from_world"].matrix()))


def place_many(problem: Problem) -> tuple[Poses, Bundle] | None:
    """As many photos as possible in one world: mapping with ever looser starts, then the others one by one."""
    focal = likely_focal(problem)
    verified = verify(problem, focal)
    best: Poses | None = None
    for angle, matches in _MAPPER_STARTS:
        found = map_many(problem, focal, verified, init_min_tri_angle=angle, init_min_num_inliers=matches)
        if found is not None and (best is None or len(found.photos) > len(best.photos)):
            best = found
        if best is not None and len(best.photos) == len(problem):
            break
    placed = None
    if best is not None:
        with contextlib.suppress(ValueError):
            placed = polish(problem, best)
    for v in sorted(verified, key=lambda v: -v.inlier.sum())[: 0 if placed else 5]:
        placed = placed or place_two(problem, v.pair)
    while placed is not None:
        bigger = grow(problem, *placed)
        if bigger is None:
            break
        placed = bigger
    return placed


def grow(problem: Problem, poses: Poses, bundle: Bundle) -> tuple[Poses, Bundle] | None:
    """The same with one or more photos added, or ``None`` where none fits."""
    grown = poses
    for photo in range(len(problem)):
        if photo not in poses.photos:
            grown = register(problem, grown, bundle, photo) or grown
    if grown is poses:
        return None
    try:
        poses, bundle = polish(problem, grown)
    except ValueError:
        return None
    return poses, bundle


# --- the answer ---


def turn_only_error(problem: Problem, pair: Pair, poses: Poses) -> float:
    """Median error in reference pixels of the matches of two photos if the camera had only turned between them.

    The rotation is the best one for the rays (Kabsch), re-weighted against wrong matches.
    """
    good = inliers(problem, pair, poses.relative(pair), poses.focal)
    rays = []
    for photo, column in ((pair.first, 0), (pair.second, 1)):
        f = poses.focal[problem.group[photo]]
        ray = np.concatenate(
            [problem.centred(photo, pair.indices[good, column]) / f, np.ones((int(good.sum()), 1))], axis=1
        )
        rays.append(ray / np.linalg.norm(ray, axis=1, keepdims=True))
    weight = np.ones(len(rays[0]))
    for _ in range(10):
        left, _, right = np.linalg.svd((rays[1] * weight[:, None]).T @ rays[0])
        rotation = left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right
        error = np.linalg.norm(rays[1] - rays[0] @ rotation.T, axis=1)
        weight = 1 / np.maximum(error, 1e-5)
    return float(np.median(error) * poses.focal[problem.group[pair.second]] / problem.unit(pair.second))


def solve(problem: Problem) -> dict[str, np.ndarray]:
    """The arrays of the answer: see ``fvgen.scene.sfm``."""
    matched = max((len(pair.indices) for pair in problem.pairs), default=0)
    placed = None
    if len(problem) == 2 and problem.pairs:
        placed = place_two(problem, problem.pairs[0])
    elif problem.pairs:
        placed = place_many(problem)
    if placed is None:
        return {"failure": np.array("overlap"), "matched": np.array(matched)}
    poses, bundle = placed
    if len(bundle.points) < MIN_INLIERS:
        return {"failure": np.array("overlap"), "matched": np.array(len(bundle.points))}
    pairs = [p for p in problem.pairs if p.first in poses.photos and p.second in poses.photos and len(p.indices)]
    if max(turn_only_error(problem, pair, poses) for pair in pairs) < _MIN_PARALLAX:
        return {"failure": np.array("parallax"), "matched": np.array(matched)}
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

"""Poses of more than two photos: COLMAP's incremental mapper, with thresholds for sparse sets. The worker's process."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fvgen.sfm.bundle import Bundle, cross_matrix, focal_precision
from fvgen.sfm.pairs import VAGUE, pinhole, place_two, relative_pose
from fvgen.sfm.problem import MIN_INLIERS, MIN_SUPPORT, Pair, Poses, Problem, inliers, turning_error
from fvgen.sfm.tracks import polish

_MIN_PNP_INLIERS = 12
_PNP_ERROR = 6.0  # px
# COLMAP adjusts everything again whenever a tenth is new, five times over, to the last digit. Of many photos that is
# nearly all the time it takes, and ``polish`` comes after it.
_FEW = 16
_SPARING = {
    "ba_global_frames_ratio": 1.4,
    "ba_global_points_ratio": 1.4,
    "ba_global_max_refinements": 2,
    "ba_global_function_tolerance": 1e-6,
    "ba_local_function_tolerance": 1e-6,
    "ba_refine_focal_length": True,
}
# Smallest angle, fewest matches and most forward motion of the first pair, strict to loose. A walk straight ahead has
# no pair that moves sideways.
_MAPPER_STARTS = ((6.0, 40, 0.95), (2.0, 20, 0.95), (0.7, 15, 0.95), (6.0, 40, 1.0), (0.7, 15, 1.0))


class Verified(NamedTuple):
    """A pair, the motion ``relative [3, 4]`` that its matches ``agreeing [K, 2]`` share, and their summed scores."""

    pair: Pair
    relative: np.ndarray
    agreeing: np.ndarray
    support: float


def verify(problem: Problem, focal: np.ndarray) -> list[Verified]:
    """The pairs whose matches agree with a motion at the focal lengths ``[G]``, the best supported first."""
    verified = []
    for pair in problem.pairs:
        relative = relative_pose(problem, pair, focal)
        if relative is not None:
            good = inliers(problem, pair, relative, focal)
            support = float(pair.scores[good].sum())
            if good.sum() >= MIN_INLIERS and support >= MIN_SUPPORT:
                verified.append(Verified(pair, relative, pair.indices[good], support))
    return sorted(verified, key=lambda v: -v.support)


def likely_focal(problem: Problem, most: int = 5) -> np.ndarray:
    """Focal lengths ``[G]``: the prior and what the motions of some pairs say, weighted by how much each can tell.

    The pairs are the best supported ones of those whose matches a mere turn of the camera explains badly: photos from
    nearly one place match best and tell nothing about the focal length.
    """
    if (problem.focal_spread < VAGUE).all():
        return problem.focal_prior
    rated = [
        (pair.scores.sum() * min(turning_error(problem, pair, problem.focal_prior), 30.0), pair)
        for pair in problem.pairs
    ]
    weight = 1 / problem.focal_spread**2
    total = weight * np.log(problem.focal_prior)
    for _, pair in sorted(rated, key=lambda entry: -entry[0])[:most]:
        placed = place_two(problem, pair)
        if placed is not None:
            poses, bundle = placed
            precision = focal_precision(bundle)
            total, weight = total + precision * np.log(poses.focal), weight + precision
    return np.exp(total / weight)


def _write_photos(problem: Problem, focal: np.ndarray, database) -> None:
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


def _map(problem: Problem, focal: np.ndarray, verified: list[Verified], **mapper: float) -> Poses | None:
    """The largest model of COLMAP's incremental mapping of the verified matches, with these mapper options."""
    import pycolmap

    with tempfile.TemporaryDirectory() as folder:
        database_path = Path(folder) / "database.db"
        database = pycolmap.Database.open(database_path)
        _write_photos(problem, focal, database)
        for v in verified:
            a, b = v.pair.first + 1, v.pair.second + 1
            good = v.agreeing.astype(np.uint32)
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
        # Free refinement of the focal length runs away with few photos: there ``polish`` does it. Over many photos a
        # wrong one bends the whole walk, so that it is refined from the beginning (``_SPARING``).
        options.ba_refine_focal_length = options.ba_refine_extra_params = False
        options.mapper.abs_pose_refine_focal_length = options.mapper.abs_pose_refine_extra_params = False
        options.mapper.abs_pose_min_num_inliers = MIN_INLIERS
        options.mapper.abs_pose_min_inlier_ratio = 0.1
        options.mapper.filter_min_tri_angle = options.triangulation.min_angle = 0.5
        options.triangulation.ignore_two_view_tracks = False
        if len(problem) > _FEW:
            for name, value in _SPARING.items():
                setattr(options, name, value)
        for name, value in mapper.items():
            setattr(options.mapper, name, value)
        models = pycolmap.incremental_mapping(database_path, folder, Path(folder) / "models", options)
        best = max(models.values(), key=lambda m: (m.num_reg_images(), m.num_points3D()), default=None)
        if best is None or best.num_reg_images() < 2:
            return None
        ids = sorted(best.reg_image_ids())
        matrices = np.stack([best.image(i).cam_from_world().matrix() for i in ids])
        refined = focal.copy()
        for i in ids:
            refined[problem.group[i - 1]] = best.cameras[best.image(i).camera_id].focal_length
        return Poses(np.array(ids) - 1, matrices[:, :, :3], matrices[:, :, 3], refined)


def _register(problem: Problem, poses: Poses, bundle: Bundle, photo: int) -> Poses | None:
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
    if len(seen) < _MIN_PNP_INLIERS:
        return None
    options = pycolmap.AbsolutePoseEstimationOptions()
    options.ransac.max_error = _PNP_ERROR * problem.unit(photo)
    options.ransac.random_seed = problem.seed
    pixels, points = problem.points[photo][list(seen)], bundle.points[list(seen.values())]
    camera = pinhole(problem, photo, poses.focal)
    found = pycolmap.estimate_and_refine_absolute_pose(pixels, points, camera, options)
    if found is None or found["num_inliers"] < _MIN_PNP_INLIERS:
        return None
    matrix = found["cam_from_world"].matrix()[None]
    return Poses(
        np.append(poses.photos, photo),
        np.concatenate([poses.rotation, matrix[:, :, :3]]),
        np.concatenate([poses.translation, matrix[:, :, 3]]),
        poses.focal,
    )


def map_with_any_start(problem: Problem, focal: np.ndarray, verified: list[Verified]) -> Poses | None:
    """The largest of COLMAP's models over ever looser demands on the first pair, if it has more than two photos.

    Args:
        problem: what the photos said.
        focal: ``[G]`` focal lengths in pixels.
        verified: the matches to use.
    """
    best = None
    for angle, matches, forward in _MAPPER_STARTS:
        first = {"init_min_tri_angle": angle, "init_min_num_inliers": matches, "init_max_forward_motion": forward}
        found = _map(problem, focal, verified, **first)
        if found is not None and len(found.photos) > (2 if best is None else len(best.photos)):
            best = found
        if best is not None and len(best.photos) == len(problem):
            break
    return best


def place_many(problem: Problem) -> tuple[Poses, Bundle] | None:
    """As many photos as possible in one world: mapping with ever looser starts, then the others one by one."""
    focal = likely_focal(problem)
    verified = verify(problem, focal)
    problem = replace(problem, pairs=[v.pair for v in verified])
    placed = None
    for _ in range(2):
        best = map_with_any_start(problem, focal, verified) if len(verified) > 1 else None
        if best is None:
            break
        placed = polish(problem, best) or placed
        if placed is None or len(best.photos) == len(problem):
            break
        focal = placed[0].focal  # known better now: perhaps the others fit
        verified = verify(problem, focal)
    for pair in problem.pairs[:5]:
        placed = placed or place_two(problem, pair)
    bigger = placed
    while bigger is not None:
        placed, bigger = bigger, _grow(problem, *bigger)
    return placed


def _grow(problem: Problem, poses: Poses, bundle: Bundle) -> tuple[Poses, Bundle] | None:
    """The same with one or more photos added, or ``None`` where none fits."""
    grown = poses
    for photo in range(len(problem)):
        if photo not in poses.photos:
            grown = _register(problem, grown, bundle, photo) or grown
    return None if grown is poses else polish(problem, grown)

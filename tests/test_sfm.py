"""Poses from photos: exact geometry on made-up matches, real photos where they are at hand, and bad input."""

import logging
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fvgen.cameras import Cameras
from fvgen.errors import UserError
from fvgen.scene import matching, sfm
from fvgen.scene.depth import DepthMap
from fvgen.scene.geometry.refine import onto, refined
from fvgen.scene.geometry.result import Geometry
from fvgen.scene.keypoints import align, grey, refine_keypoints
from fvgen.scene.matching import Features, choose_pairs, extract_features, match_features
from fvgen.scene.types import Photos
from fvgen.sfm import bundle as sfm_bundle
from fvgen.sfm import tracks as sfm_tracks
from fvgen.sfm import worker
from fvgen.sfm.bundle import Bundle, adjust, focal_precision, rotation_from_vector, triangulate, widest_angles
from fvgen.sfm.mapping import likely_focal, map_with_any_start, verify
from fvgen.sfm.problem import Pair, Poses, Problem
from fvgen.sfm.tracks import build_tracks, filtered, make_bundle

FOCAL = 900.0
SIZE = (1024, 768)


def made_up_scene(
    cameras: int, seed: int = 0, noise: float = 0.3, ahead: bool = False
) -> tuple[Problem, np.ndarray, np.ndarray]:
    """Random points in a box seen by cameras on an arc or going straight ``ahead``.

    Returns:
        The problem, true rotations and translations.
    """
    rng = np.random.default_rng(seed)
    points = rng.uniform([-2, -1.5, 4], [2, 1.5, 8], (400, 3))
    rotation = rotation_from_vector(np.stack([np.zeros(cameras), 0.06 * np.arange(cameras), np.zeros(cameras)], 1))
    centre = np.stack([0.45 * np.arange(cameras), 0.05 * np.arange(cameras) ** 2, np.zeros(cameras)], 1)
    if ahead:
        rotation, centre = np.tile(np.eye(3), (cameras, 1, 1)), np.array([0.0, 0.0, 0.3]) * np.arange(cameras)[:, None]
    translation = -np.einsum("nij,nj->ni", rotation, centre)
    keypoints, visible = [], []
    for r, t in zip(rotation, translation):
        local = points @ r.T + t
        pixels = FOCAL * local[:, :2] / local[:, 2:] + np.array(SIZE) / 2
        visible.append(((pixels > 0) & (pixels < SIZE)).all(1))
        keypoints.append(pixels + rng.normal(0, noise, pixels.shape))
    pairs = []
    for i in range(cameras):
        for j in range(i + 1, cameras):
            both = np.flatnonzero(visible[i] & visible[j])
            other = both.copy()
            other[::8] = rng.permutation(other[::8])  # one in eight is wrong
            pairs.append(Pair(i, j, np.stack([both, other], 1), np.full(len(both), 0.5)))
    problem = Problem(
        sizes=np.tile(SIZE, (cameras, 1)),
        group=np.zeros(cameras, dtype=int),
        focal_prior=np.array([0.8 * 1024]),
        focal_spread=np.array([0.3]),
        points=keypoints,
        sigma=[np.full(len(points), 0.5)] * cameras,
        pairs=pairs,
        seed=0,
    )
    return problem, rotation, translation


def relative_errors(
    rotation: np.ndarray, translation: np.ndarray, true_rotation: np.ndarray, true_translation: np.ndarray
) -> tuple[float, float]:
    """Largest relative rotation and translation direction error in degrees over all pairs."""
    worst_r = worst_t = 0.0
    for i in range(len(rotation)):
        for j in range(i + 1, len(rotation)):
            r, true_r = rotation[j] @ rotation[i].T, true_rotation[j] @ true_rotation[i].T
            t, true_t = translation[j] - r @ translation[i], true_translation[j] - true_r @ true_translation[i]
            worst_r = max(worst_r, np.degrees(np.arccos(np.clip((np.trace(r @ true_r.T) - 1) / 2, -1, 1))))
            cosine = t @ true_t / np.linalg.norm(t) / np.linalg.norm(true_t)
            worst_t = max(worst_t, np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    return worst_r, worst_t


def textured_image(width: int = 320, height: int = 240, seed: int = 0) -> torch.Tensor:
    """Smooth noise of several octaves, ``[H, W, 3]`` float 0..1."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(1, 3, height, width)
    for cells in (8, 24, 64, 160):
        noise = torch.rand(1, 3, cells, cells, generator=generator)
        total += F.interpolate(noise, (height, width), mode="bicubic", align_corners=False)
    return ((total - total.min()) / (total.max() - total.min()))[0].permute(1, 2, 0)


def photos_of(*images: torch.Tensor) -> Photos:
    images_8bit = [(image * 255).round().to(torch.uint8) for image in images]
    return Photos([f"{i}.png" for i in range(len(images))], images_8bit, [None] * len(images))


# --- geometry ---


@pytest.mark.parametrize(("cameras", "focal_error"), [(2, 0.15), (5, 0.04)])
def test_solve_finds_poses_and_focal_from_made_up_matches(cameras: int, focal_error: float) -> None:
    problem, rotation, translation = made_up_scene(cameras)
    answer = worker.solve(problem)
    assert str(answer["failure"]) == ""
    assert answer["photos"].tolist() == list(range(cameras))
    worst_r, worst_t = relative_errors(answer["rotation"], answer["translation"], rotation, translation)
    assert worst_r < 1.0
    assert worst_t < 3.0
    assert answer["focal"] == pytest.approx(FOCAL, rel=focal_error)
    assert len(answer["points"]) > 250


def test_bundle_adjustment_recovers_the_truth_without_noise() -> None:
    problem, rotation, translation = made_up_scene(3, noise=0.0)
    problem.pairs[:] = [replace(pair, indices=pair.indices[:, :1].repeat(2, 1)) for pair in problem.pairs]
    rng = np.random.default_rng(1)
    nudge = rotation_from_vector(rng.normal(0, 0.01, (3, 3)))
    start = Poses(np.arange(3), nudge @ rotation, translation + 0.02, np.array([850.0]))
    tracks = build_tracks(problem, Poses(np.arange(3), rotation, translation, np.array([FOCAL])))
    bundle = adjust(make_bundle(problem, start, tracks), iterations=100)
    assert np.abs(bundle.residuals).max() < 0.2  # the prior of 819 px holds the focal length a little below 900
    worst_r, worst_t = relative_errors(bundle.rotation, bundle.translation, rotation, translation)
    assert worst_r < 0.1
    assert worst_t < 0.5


def test_eliminating_points_by_observation_is_the_schur_complement() -> None:
    problem, rotation, translation = made_up_scene(5)
    poses = Poses(np.arange(5), rotation, translation, np.array([FOCAL]))
    system = sfm_bundle._linearise(make_bundle(problem, poses, build_tracks(problem, poses)))
    size = len(system.u)
    mixed = np.zeros((len(system.v), 3, size))
    for point, column, block in zip(system.point, system.column, system.w):
        mixed[point][:, column] += block
    mixed = mixed.reshape(-1, size)
    inverse = np.linalg.inv(system.v + 1e-9 * np.eye(3))
    dense = system.u - mixed.T @ (inverse @ mixed.reshape(-1, 3, size)).reshape(-1, size)
    assert np.allclose(sfm_bundle._eliminated(system, system.u, inverse), dense, rtol=0, atol=1e-9 * abs(dense).max())


def test_every_photo_of_many_has_its_share_of_points() -> None:
    long = [dict.fromkeys(range(5), k) for k in range(7000)]
    short = [{5: k, 6: k} for k in range(900)]
    kept = sfm_tracks._enough(long + short)
    assert kept[:6000] == long[:6000]
    assert len(kept) == 6200
    assert sfm_tracks._enough(short) == short


def test_a_walk_straight_ahead_is_mapped() -> None:
    problem, rotation, translation = made_up_scene(8, ahead=True)
    focal = np.array([FOCAL])
    found = map_with_any_start(problem, focal, verify(problem, focal))
    assert found is not None
    assert found.photos.tolist() == list(range(8))
    worst_r, worst_t = relative_errors(found.rotation, found.translation, rotation, translation)
    assert worst_r < 1.0
    assert worst_t < 3.0


def test_triangulation_and_angles_by_hand() -> None:
    turn = np.eye(3)[None].repeat(2, 0)
    bundle = Bundle(
        rotation=turn,
        translation=np.array([[0.0, 0, 0], [-1.0, 0, 0]]),  # the second camera stands at x = 1
        focal=np.array([100.0]),
        group=np.zeros(2, dtype=int),
        points=np.zeros((1, 3)),
        camera_index=np.array([0, 1]),
        point_index=np.array([0, 0]),
        pixels=np.array([[50.0, 0.0], [-50.0, 0.0]]),  # both at 26.57 degrees inwards: they meet at (0.5, 0, 1)
        sigma=np.ones(2),
        focal_prior=np.array([100.0]),
        focal_spread=np.array([0.3]),
        keypoint=np.zeros(2, dtype=int),
    )
    solved = triangulate(bundle)
    assert solved.points[0] == pytest.approx([0.5, 0.0, 1.0], abs=1e-6)
    assert widest_angles(solved)[0] == pytest.approx(2 * np.degrees(np.arctan(0.5)), abs=1e-4)


def test_photos_from_one_place_say_little_about_the_focal_length() -> None:
    """The information in the matches grows with the baseline, so that such pairs weigh little in the first guess."""
    problem, rotation, translation = made_up_scene(4)
    precision = []
    for other in (1, 3):
        poses = Poses(np.array([0, other]), rotation[[0, other]], translation[[0, other]], np.array([FOCAL]))
        bundle = make_bundle(problem, poses, build_tracks(problem, poses))
        precision.append(float(focal_precision(filtered(bundle, 10.0))[0]))
    assert 0 < precision[0] < precision[1]
    assert likely_focal(problem)[0] == pytest.approx(FOCAL, rel=0.05)


def test_a_known_focal_length_is_kept() -> None:
    problem, _, _ = made_up_scene(3)
    problem = replace(problem, focal_prior=np.array([1000.0]), focal_spread=np.array([0.001]))
    assert worker.solve(problem)["focal"] == pytest.approx(1000.0, rel=0.01)


@pytest.mark.parametrize("wrong", [0.6, 1.6])
def test_a_focal_length_that_the_matches_contradict_is_given_up(wrong: float) -> None:
    problem, rotation, translation = made_up_scene(3)
    exif = {"focal_prior": np.array([wrong * FOCAL]), "focal_spread": np.array([0.05])}
    answer = worker.solve(replace(problem, **exif))
    assert answer["distrusted"].tolist() == [0]
    assert answer["focal"] == pytest.approx(FOCAL, rel=0.03)
    worst_r, worst_t = relative_errors(answer["rotation"], answer["translation"], rotation, translation)
    assert worst_r < 1.0
    assert worst_t < 3.0


def test_only_the_wrong_one_of_two_known_focal_lengths_is_given_up() -> None:
    problem, _, _ = made_up_scene(4)
    exif = {"focal_prior": np.array([FOCAL, 0.6 * FOCAL]), "focal_spread": np.full(2, 0.05)}
    answer = worker.solve(replace(problem, group=np.array([0, 0, 0, 1]), **exif))
    assert answer["distrusted"].tolist() == [1]
    assert answer["focal"] == pytest.approx(FOCAL, rel=0.05)
    right = worker.solve(replace(problem, focal_prior=np.array([1.05 * FOCAL]), focal_spread=np.array([0.05])))
    assert right["distrusted"].tolist() == []


def test_what_exif_said_wrongly_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "fvgen")
    problem, _, _ = made_up_scene(3)
    problem = replace(problem, focal_prior=np.array([0.6 * FOCAL]), focal_spread=np.array([0.05]))
    monkeypatch.setattr(sfm, "observe", lambda photos, device, seed: problem)
    images = [torch.full((SIZE[1], SIZE[0], 3), k, dtype=torch.uint8) for k in range(3)]
    found = sfm.place(Photos(["a.jpg", "b.jpg", "c.jpg"], images, [0.6 * FOCAL] * 3))
    assert float(found.cameras.intrinsics[0, 0, 0]) == pytest.approx(FOCAL, rel=0.03)
    assert any("a.jpg and 2 more: the focal length in EXIF (540 pixels) contradicts" in m for m in caplog.messages)


def test_points_behind_a_camera_cost_and_do_not_crash() -> None:
    problem, rotation, translation = made_up_scene(2)
    poses = Poses(np.arange(2), rotation, translation, np.array([FOCAL]))
    bundle = make_bundle(problem, poses, build_tracks(problem, poses))
    good = bundle.cost
    bundle.points[:5, 2] *= -1
    assert bundle.cost > good + 50
    assert np.isfinite(adjust(bundle).cost)


def test_a_turn_of_the_camera_alone_is_refused() -> None:
    problem, rotation, _ = made_up_scene(2, noise=0.2)
    rng = np.random.default_rng(3)
    rays = rng.uniform([-2, -1.5, 4], [2, 1.5, 8], (400, 3))
    for i in range(2):
        local = rays @ rotation[i].T
        problem.points[i][:] = FOCAL * local[:, :2] / local[:, 2:] + np.array(SIZE) / 2 + rng.normal(0, 0.2, (400, 2))
    assert str(worker.solve(problem)["failure"]) in ("parallax", "overlap")


def seen_from(
    points: np.ndarray, rotation: np.ndarray, centre: np.ndarray, focals: list[float], noise: float
) -> Problem:
    """Matches, one in eight of them wrong, of points ``[P, 3]`` in all pairs of cameras; equal lenses are a group."""
    problem, _, _ = made_up_scene(2)
    rng = np.random.default_rng(7)
    keypoints, visible = [], []
    for turn, eye, focal in zip(rotation, centre, focals):
        local = (points - eye) @ turn.T
        pixels = focal * local[:, :2] / local[:, 2:] + np.array(SIZE) / 2
        visible.append(((pixels > 0) & (pixels < SIZE)).all(1) & (local[:, 2] > 0))
        keypoints.append(pixels + rng.normal(0, noise, pixels.shape))
    pairs = []
    for i in range(len(focals)):
        for j in range(i + 1, len(focals)):
            both = np.flatnonzero(visible[i] & visible[j])[:600]
            other = both.copy()
            other[::8] = rng.permutation(other[::8])
            pairs.append(Pair(i, j, np.stack([both, other], 1), np.full(len(both), 0.5)))
    known = sorted(set(focals))
    return replace(
        problem,
        sizes=np.tile(SIZE, (len(focals), 1)),
        group=np.array([known.index(focal) for focal in focals]),
        focal_prior=np.full(len(known), 0.8 * 1024),
        focal_spread=np.full(len(known), 0.3),
        points=keypoints,
        sigma=[np.full(len(points), 0.5)] * len(focals),
        pairs=sorted(pairs, key=lambda pair: -len(pair.indices)),
    )


@pytest.mark.parametrize("noise", [0.1, 1.0])
@pytest.mark.parametrize(
    ("focals", "degrees"),
    [([0.5] * 2, 25), ([0.7] * 2, 12), ([1.0] * 2, 5), ([1.5] * 2, 15), ([0.7, 0.95], 10), ([0.65] * 4, 14)],
)
def test_photos_from_one_spot_are_refused_whatever_their_lens(
    focals: list[float], degrees: float, noise: float
) -> None:
    rng = np.random.default_rng(1)
    points = (rng.uniform([-2.5, -1, 0], [2.5, 1, 0], (4000, 3)) + [0, 0, 1]) * rng.uniform(3, 9, (4000, 1))
    turns = [[0.01 * k, np.radians(degrees) * (k - len(focals) / 2 + 0.5), 0.02 * k] for k in range(len(focals))]
    rotation = rotation_from_vector(np.array(turns))
    problem = seen_from(points, rotation, np.zeros((len(focals), 3)), [1024 * f for f in focals], noise)
    assert str(worker.solve(problem)["failure"]) == "parallax"


@pytest.mark.parametrize(
    ("look_alikes", "joined", "one_spot"), [(20, True, True), (100, True, True), (400, True, False), (20, False, False)]
)
def test_look_alikes_at_the_ends_of_a_panorama_are_no_motion(look_alikes: int, joined: bool, one_spot: bool) -> None:
    """A few matches between photos that turns join say nothing; many do, and those of a photo that no turn joins."""
    rng = np.random.default_rng(1)
    points = (rng.uniform([-2.5, -1, 0], [2.5, 1, 0], (4000, 3)) + [0, 0, 1]) * rng.uniform(3, 9, (4000, 1))
    rotation = rotation_from_vector(np.array([[0, np.radians(degrees), 0] for degrees in (-20, 0, 20)]))
    problem = seen_from(points, rotation, np.zeros((3, 3)), [FOCAL] * 3, 0.1)
    pairs = [pair for pair in problem.pairs if (pair.first, pair.second) in {(0, 1), (1, 2)}][: 2 if joined else 1]
    first, count = pairs[0].first, len(points)
    last = 2 if first == 0 else 0
    moved = np.array([1.0, 0.1, 0.2])  # what look-alikes fit, where the last photo is said to stand
    translation = np.zeros((3, 3))
    translation[last] = moved
    ends = sorted((last, 2 - last))
    seen = rng.uniform([-1, -1, 4], [1, 1, 8], (look_alikes, 3))  # before the first of the ends
    relative = rotation[ends[1]] @ rotation[ends[0]].T
    shift = translation[ends[1]] - relative @ translation[ends[0]]
    for photo, local in zip(ends, (seen, seen @ relative.T + shift)):
        pixels = FOCAL * local[:, :2] / local[:, 2:] + np.array(SIZE) / 2
        problem.points[photo] = np.concatenate([problem.points[photo], pixels])
        problem.sigma[photo] = np.full(count + look_alikes, 0.5)
    index = np.arange(count, count + look_alikes)
    pairs.append(Pair(*ends, np.stack([index, index], 1), np.full(look_alikes, 0.3)))
    poses = Poses(np.arange(3), rotation, translation, np.array([FOCAL]))
    assert worker._one_spot(problem, pairs, poses) is one_spot


@pytest.mark.parametrize(
    ("depth", "centre"),
    [((4, 8), [0.1, 0.02, 0]), ((6, 6.001), [0.45, 0.02, 0]), ((6, 6.6), [0.2, 0.02, 0]), ((6, 6.6), [0, 0, 0.3])],
)
def test_small_steps_are_no_turns(depth: tuple[float, float], centre: list[float]) -> None:
    """A step to the side of a fiftieth of the distance, along a bare wall, or ahead."""
    points = np.random.default_rng(2).uniform([-4, -3, depth[0]], [4, 3, depth[1]], (1500, 3))
    rotation = rotation_from_vector(np.array([[0.0, 0, 0], [0, 0.02, 0]]))
    problem = seen_from(points, rotation, np.array([[0.0, 0, 0], centre]), [FOCAL] * 2, 0.3)
    assert str(worker.solve(problem)["failure"]) == ""


def test_chance_matches_are_refused() -> None:
    problem, _, _ = made_up_scene(2)
    rng = np.random.default_rng(5)
    indices = np.stack([rng.permutation(400)[:40], rng.permutation(400)[:40]], 1)
    problem.pairs[:] = [Pair(0, 1, indices, np.full(40, 0.5))]
    assert str(worker.solve(problem)["failure"]) == "overlap"


# --- features and alignment ---


def test_keypoints_follow_a_shift_of_the_picture() -> None:
    image = textured_image(704, 512)
    a = (image[:480, :640] * 255).to(torch.uint8)
    b = (image[32:, 64:] * 255).to(torch.uint8)
    fa, fb = extract_features(a, 1024), extract_features(b, 1024)
    indices, scores = match_features(fa, fb)
    assert len(indices) > 100
    assert scores.min() > 0
    moved = fa.points[indices[:, 0]] - fb.points[indices[:, 1]]
    assert (moved - torch.tensor([64.0, 32.0])).norm(dim=1).median() < 1.5
    points, aligned = refine_keypoints([a, b], [fa, fb], [Pair(0, 1, indices.numpy(), scores.numpy())])
    use = aligned[0][indices[:, 0]]
    assert use.mean() > 0.5
    moved_to = (points[0][indices[:, 0]] - points[1][indices[:, 1]])[use]
    assert np.median(np.linalg.norm(moved_to - [64.0, 32.0], axis=1)) < 0.1


@pytest.mark.usefixtures("few_keypoints")
def test_masked_pixels_are_not_matched() -> None:
    image = textured_image(352, 256)
    photos = photos_of(image[:240, :320], image[16:, 32:])
    mask = torch.ones(240, 320, dtype=torch.bool)
    mask[:, :150] = False
    whole, part = (sfm.observe(replace(photos, masks=masks)) for masks in (None, [mask, None]))
    assert len(whole.pairs[0].indices) > len(part.pairs[0].indices) > 30
    matched = part.points[0][part.pairs[0].indices[:, 0]]
    assert matched[:, 0].min() > 148  # moved by a pixel or so once matched


@pytest.mark.usefixtures("few_keypoints")
def test_focal_lengths_of_crops_are_held_less() -> None:
    """Of photos of one size the crops have a focal length of their own."""
    image = textured_image(352, 256)
    photos = replace(photos_of(image[:240, :320], image[16:, 32:]), focals=[300.0, 300.0])
    whole, some = sfm.observe(photos), sfm.observe(replace(photos, cropped=[False, True]))
    assert (whole.group.tolist(), whole.focal_spread.tolist()) == ([0, 0], [0.05])
    assert (some.group.tolist(), some.focal_spread.tolist()) == ([0, 1], [0.05, 0.2])
    assert some.focal_prior.tolist() == [300.0, 300.0]


def test_alignment_finds_a_known_affine_motion() -> None:
    image = grey((textured_image(1024, 1024) * 255).to(torch.uint8))
    turn = torch.tensor([[1.05, 0.06, 0.0], [-0.04, 0.97, 0.0]])
    moved = F.grid_sample(
        image, F.affine_grid(turn[None], [1, 1, 1024, 1024], align_corners=False), align_corners=False
    )
    moved = moved * 0.7 + 0.1  # and the light
    at_second = torch.rand(200, 2, generator=torch.Generator().manual_seed(1)) * 600 + 200
    at_first = (at_second - 512) @ turn[:, :2].T + 512
    wrong = torch.rand(200, 2, generator=torch.Generator().manual_seed(2)) * 2 - 1
    found = align(image, moved, at_first, at_second + wrong)
    error = (found.shift + wrong).norm(dim=1)
    assert found.good.float().mean() > 0.9
    assert error[found.good].median() < 0.05
    assert torch.allclose(found.warp[found.good].median(0).values, torch.linalg.inv(turn[:, :2]), atol=0.02)


def test_pairs_of_many_photos_stay_few_and_connected() -> None:
    generator = torch.Generator().manual_seed(0)
    features = []
    for _ in range(24):
        descriptors = F.normalize(torch.randn(64, 64, generator=generator), dim=1)
        features.append(Features(torch.zeros(64, 2), torch.zeros(64, 2), descriptors, (640, 480), (640, 480)))
    pairs = choose_pairs(features)
    assert all(i < j for i, j in pairs)
    assert {(i, i + 1) for i in range(23)} <= set(pairs)
    assert len(pairs) < 24 * 7
    assert len(choose_pairs(features[:5])) == 10


def walk_past(order: list[int], words: int = 60, step: int = 12) -> list[Features]:
    """Features of a walk along a wall, photo ``k`` of which begins ``step`` spots after the one before it."""
    generator = torch.Generator().manual_seed(0)
    wall = F.normalize(torch.randn(step * len(order) + words, 64, generator=generator), dim=1)
    nowhere = torch.zeros(words, 2)
    seen = [wall[step * k : step * k + words] for k in order]
    return [Features(nowhere, nowhere, descriptors, (640, 480), (640, 480)) for descriptors in seen]


@pytest.mark.parametrize("photos", [40, 160])
def test_the_work_of_choosing_pairs_grows_with_the_photos(photos: int, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    plain = matching.similarity
    monkeypatch.setattr(matching, "similarity", lambda a, b: compared.append(1) or plain(a, b))
    pairs = choose_pairs(walk_past(list(range(photos))))
    assert len(compared) <= 16 * photos
    assert len(pairs) <= 8 * photos


def test_shuffled_photos_are_matched_with_their_true_neighbours() -> None:
    order = np.random.default_rng(0).permutation(80).tolist()
    taken = {tuple(sorted((order[i], order[j]))) for i, j in choose_pairs(walk_past(order))}
    assert {(k, k + 1) for k in range(79)} <= taken
    assert choose_pairs(walk_past(order)) == choose_pairs(walk_past(order))


def test_photos_farther_apart_that_share_enough_are_matched_too() -> None:
    pairs = choose_pairs(walk_past(list(range(60)), words=120, step=6))
    steps = np.bincount([j - i for i, j in pairs])
    assert steps[1] == 59
    assert steps[4:].sum() >= 60
    assert len(steps) <= 16


def test_few_photos_are_compared_all_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = set()
    monkeypatch.setattr(matching, "similarity", lambda a, b: compared.add((id(a), id(b))) or 0)
    choose_pairs(walk_past(list(range(16))))
    assert len(compared) == 16 * 15 // 2


def test_photos_without_features_have_signatures_too() -> None:
    none = Features(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0, 64), (640, 480), (640, 480))
    assert matching.signatures([none, none]).shape[0] == 2
    some = matching.signatures([*walk_past([0, 1]), none])
    assert some.isfinite().all()
    assert (some[:2].norm(dim=1) - 1).abs().max() < 1e-5


def test_only_the_best_pair_of_a_weak_photo_is_matched_again() -> None:
    found = {(0, 1): 200.0, (0, 2): 15.0, (1, 2): 30.0, (0, 3): 150.0}
    assert matching.weak_links(4, found) == [(1, 2)]


# --- the whole way ---


@pytest.fixture
def few_keypoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up pictures need no more, and matching is quick."""
    monkeypatch.setattr(matching, "_MOST_KEYPOINTS", 512)
    monkeypatch.setattr(matching, "keypoint_budget", lambda photos: 512)


@pytest.mark.usefixtures("few_keypoints")
def test_blank_photos_have_a_clear_error() -> None:
    with pytest.raises(UserError, match="too little in common"):
        sfm.place(photos_of(torch.zeros(120, 160, 3), torch.full((120, 160, 3), 0.5)))


def test_identical_photos_have_a_clear_error() -> None:
    image = textured_image()
    with pytest.raises(UserError, match=r"two different photos or more, got 1 \(1.png is the same picture as 0.png\)"):
        sfm.place(photos_of(image, image))
    with pytest.raises(UserError, match="got 1; take photos"):
        sfm.place(photos_of(image))


@pytest.mark.usefixtures("few_keypoints")
def test_the_same_picture_again_has_a_clear_error() -> None:
    image = textured_image()
    with pytest.raises(UserError, match="one spot"):
        sfm.place(photos_of(image, (image * 0.9).clamp(0, 1)))


def test_copies_are_named_and_left_out() -> None:
    a, b = textured_image(seed=1), textured_image(seed=2)
    kept = photos_of(a, b, a).without_copies()
    assert kept.names == ["0.png", "1.png"]
    assert [(d.name, d.reason) for d in kept.dropped] == [("2.png", "the same picture as 0.png")]


def test_a_dying_worker_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def die(command, **options):
        return subprocess.run([sys.executable, "-c", "import os; os.abort()"], capture_output=True, text=True)

    class Module:
        DEVNULL = subprocess.DEVNULL
        run = staticmethod(die)

    monkeypatch.setattr(sfm, "subprocess", Module)
    with pytest.raises(UserError, match="stopped with code -6"):
        sfm.solve(made_up_scene(2)[0], ["0.png", "1.png"])


def read_photos(paths: list, focals: list | None = None) -> Photos:
    image = pytest.importorskip("PIL.Image")
    pixels = [torch.from_numpy(np.array(image.open(path).convert("RGB"))) for path in paths]
    return Photos([path.name for path in paths], pixels, focals or [None] * len(paths))


def test_two_real_photos_after_opencv_and_pillow(shared) -> None:
    """COLMAP has been seen to abort in a process where these two had handled images."""
    cv2 = pytest.importorskip("cv2")
    paths = sorted((shared / "data" / "photos" / "vc-real2").glob("*.jpg"))
    photos = read_photos(paths)
    assert cv2.imread(str(paths[0])) is not None
    problem = sfm.observe(photos)
    answer = sfm.solve(problem, photos.names)
    found = sfm.placed(photos, problem.pairs, answer)
    assert found.photos.names == photos.names
    assert found.cameras.sizes.tolist() == [[960, 540]] * 2
    assert found.points is not None
    assert len(found.points) > 300
    assert np.median(np.bincount(answer["point_index"], answer["errors"]) / 2) < 1.0  # of points that both saw
    assert torch.equal(found.cameras.world_from_camera[0], torch.eye(4, dtype=torch.float64))
    depths = torch.cat([found.points @ own[2, :3] + own[2, 3] for own in found.cameras.camera_from_world])
    assert depths.min() > 0
    assert depths.median() == pytest.approx(1.0, abs=0.2)


@pytest.mark.slow
def test_a_stranger_among_real_photos_is_left_out_and_the_rest_repeats_exactly(shared) -> None:
    berlin = sorted((shared / "data" / "photos" / "berlin-3").glob("*.jpg"))
    stranger = sorted((shared / "data" / "photos" / "telebooth-2").glob("*.jpg"))[0]
    photos = read_photos([berlin[0], stranger, berlin[1], berlin[2]])
    first, second = sfm.place(photos), sfm.place(photos)
    assert first.photos.names == [path.name for path in berlin]
    assert [dropped.name for dropped in first.photos.dropped] == [stranger.name]
    assert torch.equal(first.cameras.world_from_camera, second.cameras.world_from_camera)
    assert first.points is not None
    assert second.points is not None
    assert torch.equal(first.points, second.points)
    unrelated = Pair(0, 1, np.zeros((3, 2), dtype=int), np.ones(3))
    assert "3 matching points" in sfm._why_dropped(0, [1], [unrelated])


# --- what matches say of a network's cameras and depth ---


def told_by_a_network(
    cameras: int, degrees: float, seed: int = 0, noise: float = 0.3
) -> tuple[Problem, Geometry, np.ndarray, np.ndarray]:
    """What is observed of a made-up scene, and a network's answer: cameras that are turned by some degrees, moved by a
    twentieth of the first baseline per degree and with focal lengths 5 % too long, depth that is right.

    Returns:
        The problem, the answer, true rotations and translations.
    """
    problem, rotation, translation = made_up_scene(cameras, seed, noise)
    rng = np.random.default_rng(100 + seed)
    turn = rng.normal(size=(cameras, 3))
    turn *= np.radians(degrees) / np.linalg.norm(turn, axis=1)[:, None]
    centre = -np.einsum("nji,nj->ni", rotation, translation)
    baseline = float(np.linalg.norm(centre[1] - centre[0]))
    centre += rng.normal(size=centre.shape) * min(degrees, 1) * 0.05 * baseline / np.sqrt(3)
    turned = rotation_from_vector(turn) @ rotation
    focal = FOCAL * (1.05 if degrees else 1.0)
    world = torch.eye(4, dtype=torch.float64).repeat(cameras, 1, 1)
    world[:, :3, :3], world[:, :3, 3] = torch.from_numpy(turned).mT, torch.from_numpy(centre)
    intrinsics = torch.diag(torch.tensor([focal, focal, 1.0], dtype=torch.float64)).repeat(cameras, 1, 1)
    intrinsics[:, :2, 2] = torch.tensor(SIZE) / 2
    found = Cameras(world, intrinsics, torch.tensor([SIZE] * cameras))
    photos = Photos(
        [f"{k}.png" for k in range(cameras)],
        [torch.zeros(SIZE[1], SIZE[0], 3, dtype=torch.uint8)] * cameras,
        [None] * cameras,
    )
    maps = []
    for k in range(cameras):
        depth = torch.zeros(SIZE[1], SIZE[0])
        inside, column, row = keypoint_pixels(problem, k)
        depth[row, column] = torch.from_numpy(true_depth(problem, k, rotation, translation, seed)[inside]).float()
        maps.append(DepthMap(depth, (depth > 0).float(), found[k], photos.images[k]))
    return problem, Geometry(photos, found, "net", maps), rotation, translation


def keypoint_pixels(problem: Problem, photo: int) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    """Which keypoints are in the photo, their columns and rows."""
    points = problem.points[photo]
    inside = ((points >= 0) & (points < SIZE)).all(1)
    column, row = torch.from_numpy(points[inside]).long().unbind(1)
    return inside, column, row


def true_depth(problem: Problem, photo: int, rotation: np.ndarray, translation: np.ndarray, seed: int) -> np.ndarray:
    """The z-depth ``[400]`` of the points that `made_up_scene` drew."""
    points = np.random.default_rng(seed).uniform([-2, -1.5, 4], [2, 1.5, 8], (400, 3))
    return points @ rotation[photo, 2] + translation[photo, 2]


@pytest.mark.parametrize(("cameras", "degrees"), [(2, 1), (2, 3), (5, 3)])
def test_a_networks_cameras_are_refined_by_matches(
    cameras: int, degrees: float, caplog: pytest.LogCaptureFixture
) -> None:
    problem, found, rotation, translation = told_by_a_network(cameras, degrees)
    with caplog.at_level(logging.INFO, "fvgen"):
        better = refined(found, problem)
    fit = better.fit
    assert fit["pixels_before"] > 4
    assert fit["pixels"] < 0.4
    assert fit["tracks"] > 300
    told = f"cameras: refined, {fit['pixels_before']:.1f} -> {fit['pixels']:.1f} pixels on {fit['tracks']:.0f} points"
    assert caplog.messages == [told]
    before, after = (geometry.cameras.camera_from_world.numpy() for geometry in (found, better))
    was = relative_errors(before[:, :3, :3], before[:, :3, 3], rotation, translation)
    worst_r, worst_t = relative_errors(after[:, :3, :3], after[:, :3, 3], rotation, translation)
    assert was[0] > degrees
    assert worst_r < 0.25
    assert worst_t < 0.4
    focal = better.cameras.intrinsics[:, 0, 0]
    assert torch.equal(focal, focal[:1].expand(cameras))  # one camera took them all
    assert float(focal[0]) == pytest.approx(FOCAL, rel=0.02 if cameras > 3 else 0.05)
    torch.testing.assert_close(better.cameras.world_from_camera[0], torch.eye(4, dtype=torch.float64))
    scale = float(better.cameras.centers[1].norm()) / np.linalg.norm(
        translation[1] - rotation[1] @ rotation[0].T @ translation[0]
    )
    for own, old, camera in zip(better.depths, found.depths, better.cameras):
        torch.testing.assert_close(own.cameras.world_from_camera[0], camera.world_from_camera[0])
        ratio = (own.depth / old.depth)[old.depth > 0] / scale
        assert float((ratio - 1).abs().median()) < 0.06  # the focal length stretches depth along the view


def test_exact_cameras_and_such_that_nothing_is_known_of_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    problem, found, _, _ = told_by_a_network(3, 0)
    with caplog.at_level(logging.INFO, "fvgen"):
        same = refined(found, problem)
        assert torch.equal(same.cameras.world_from_camera, found.cameras.world_from_camera)
        assert same.depths == found.depths
        assert same.fit["pixels"] == same.fit["pixels_before"] < 0.4
        few = replace(
            problem, pairs=[replace(p, indices=p.indices[:9], scores=p.scores[:9]) for p in problem.pairs[:1]]
        )
        for poor in (few, replace(problem, pairs=[])):
            same = refined(found, poor)
            assert same.cameras is found.cameras
            assert same.fit == {"tracks": 0}
    assert caplog.messages[0].startswith("cameras: kept as net found them, 0.")
    assert set(caplog.messages[1:]) == {
        "cameras: kept as net found them, too few matches of places seen from two sides"
    }


def test_cameras_at_one_spot_are_kept() -> None:
    problem, found, rotation, _ = told_by_a_network(3, 1)
    points = np.random.default_rng(0).uniform([-2, -1.5, 4], [2, 1.5, 8], (400, 3))
    for k, own in enumerate(rotation):
        local = points @ own.T
        problem.points[k] = FOCAL * local[:, :2] / local[:, 2:] + np.array(SIZE) / 2
    assert refined(found, problem).cameras is found.cameras


def test_a_photo_that_shares_nothing_moves_along() -> None:
    problem, found, _, _ = told_by_a_network(4, 1)
    alone = replace(problem, pairs=[pair for pair in problem.pairs if 3 not in (pair.first, pair.second)])
    better = refined(found, alone)
    assert better.fit["pixels"] < 0.4
    before, after = (
        torch.linalg.inv(g.cameras.world_from_camera[2]) @ g.cameras.world_from_camera[3] for g in (found, better)
    )
    assert float((before[:3, :3] - after[:3, :3]).abs().max()) < np.radians(3)
    assert torch.equal(better.cameras.intrinsics[3], found.cameras.intrinsics[3])


@pytest.mark.parametrize("offset", [0.0, 0.15])
def test_depth_is_brought_to_the_points_of_given_cameras(offset: float) -> None:
    """A network's depth with a wrong scale, another error of scale in each photo, an offset of inverse depth, and a
    fifth of it nonsense."""
    problem, exact, _, _ = told_by_a_network(4, 0)
    rng = np.random.default_rng(5)
    spoiled, sound = [], []
    for own, photo in zip(exact.depths, rng.normal(0, 0.1, 4)):
        inverse = torch.where(own.depth > 0, 1 / own.depth.clamp(min=1e-6), 0)
        wrong = torch.from_numpy(rng.uniform(size=own.depth.shape) < 0.2)
        factor = torch.from_numpy(rng.uniform(0.3, 3, own.depth.shape)).float()
        inverse = (inverse + offset / 6) / (3.7 * np.exp(photo)) * torch.where(wrong, factor, 1.0)
        depth = torch.where(own.depth > 0, 1 / inverse.float().clamp(min=1e-6), 0)
        spoiled.append(replace(own, depth=depth))
        sound.append((own.depth > 0) & ~wrong)
    depths, told = onto(replace(exact, depths=spoiled), exact.cameras, problem)
    for own, true, here in zip(depths, exact.depths, sound):
        off = (own.depth[here] / true.depth[here] - 1).abs()
        assert float(off.quantile(0.9)) < 0.02
    assert told["depth_error_before"] > 0.5
    assert told["depth_error"] < 0.02
    alone = replace(problem, pairs=[pair for pair in problem.pairs if 3 not in (pair.first, pair.second)])
    few, _ = onto(replace(exact, depths=spoiled), exact.cameras, alone)  # the last one has the others' scale
    off = few[3].depth[sound[3]] / exact.depths[3].depth[sound[3]]
    assert abs(float(off.median()) - 1) < 0.3

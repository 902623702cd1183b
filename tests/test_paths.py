"""Camera paths: through the photos, around the scene, and the user's own."""

import math

import pytest
import torch
from torch import Tensor

from fvgen.cameras import CameraPath, Cameras, follow, path_dolly, path_orbit, path_spiral, path_through
from fvgen.cameras.paths import middle_photo, photos_met
from fvgen.cameras.poses import look_at, rotation_angles, rotation_exp, rotation_log, smooth_poses
from fvgen.errors import UserError

UP = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
FOCUS = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)


def ring(degrees: list[float], radius: float = 4.0, sizes: list[tuple[int, int]] | None = None) -> Cameras:
    """Cameras on a circle that look at FOCUS, with sizes, focal lengths and principal points of their own."""
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    n = len(degrees)
    offsets = torch.stack([angles.cos(), angles.sin(), torch.full((n,), 0.3, dtype=torch.float64)], dim=1)
    intrinsics = torch.eye(3, dtype=torch.float64).repeat(n, 1, 1)
    size = torch.tensor(sizes or [(640, 480)] * n)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = 500.0 + 10 * torch.arange(n)
    intrinsics[:, :2, 2] = size / 2 + 3.0
    return Cameras(look_at(FOCUS + radius * offsets, FOCUS, UP), intrinsics, size)


def cloud() -> Tensor:
    return FOCUS + 0.5 * torch.randn(2000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def assert_rigid(cameras: Cameras) -> None:
    rotation = cameras.world_from_camera[:, :3, :3]
    torch.testing.assert_close(
        rotation @ rotation.transpose(1, 2), torch.eye(3, dtype=torch.float64).expand(len(cameras), 3, 3)
    )
    assert bool((torch.linalg.det(rotation) > 0).all())
    assert bool((cameras.world_from_camera[:, 3] == torch.tensor([0.0, 0, 0, 1])).all())


def off_axis(path: CameraPath, target: Tensor) -> Tensor:
    """Degrees between each optical axis and the direction to ``target``."""
    direction = torch.nn.functional.normalize(target - path.cameras.centers, dim=1)
    return (direction * path.cameras.world_from_camera[:, :3, 2]).sum(1).clamp(-1, 1).acos().rad2deg()


@pytest.mark.parametrize(("photos", "window"), [(2, 16), (3, 16), (5, 2), (4, 25)])
def test_windows_share_their_end_frames(photos: int, window: int) -> None:
    cameras = ring([0, 14, 40, 47, 90][:photos])
    path = path_through(cameras, window)
    assert len(path) == (photos - 1) * (window - 1) + 1
    keys = [k * (window - 1) for k in range(photos)]
    assert path.photo == [keys.index(i) if i in keys else None for i in range(len(path))]
    assert bool((path.cameras.world_from_camera[keys] == cameras.world_from_camera).all())
    assert_rigid(path.cameras)


@pytest.mark.parametrize("frames", [3, 4, 16, 30, 101])
def test_through_takes_any_number_of_frames(frames: int) -> None:
    path = path_through(ring([0, 20, 50]), frames=frames)
    assert len(path) == frames
    assert [k for k in path.photo if k is not None] == [0, 1, 2]
    assert path.photo[0] == 0
    assert path.photo[-1] == 2


def test_output_size_covers_and_never_squashes() -> None:
    cameras = ring([0, 20, 50], sizes=[(640, 480), (480, 640), (1000, 500)])
    path = path_through(cameras, size=(256, 160))
    assert path.cameras.size == (256, 160)
    scales = [256 / 640, 256 / 480, 160 / 500]
    keys = [0, 15, 30]
    for i, (frame, scale) in enumerate(zip(keys, scales)):
        intrinsics = path.cameras.intrinsics[frame]
        assert intrinsics[0, 0] == pytest.approx(float(cameras.intrinsics[i, 0, 0]) * scale)
        assert intrinsics[1, 1] == pytest.approx(float(intrinsics[0, 0]))
        center = torch.tensor([128.0, 80.0], dtype=torch.float64) + 3 * scale
        torch.testing.assert_close(intrinsics[:2, 2], center)
    steps = path.cameras.intrinsics[1:16, 0, 0] - path.cameras.intrinsics[:15, 0, 0]
    torch.testing.assert_close(steps, steps[:1].expand(15))


def test_two_photos_are_joined_by_a_straight_line_and_a_constant_turn() -> None:
    cameras = ring([0, 50])
    path = path_through(cameras, 11)
    centers = path.cameras.centers
    torch.testing.assert_close(
        centers, torch.lerp(centers[:1], centers[-1:], torch.linspace(0, 1, 11).double()[:, None])
    )
    rotation = path.cameras.world_from_camera[:, :3, :3]
    turns = rotation_angles(rotation[:-1], rotation[1:])
    torch.testing.assert_close(turns, rotation_angles(rotation[:1], rotation[-1:]).expand(10) / 10)
    assert float(off_axis(path, FOCUS).max()) < 2


def test_velocity_is_continuous_and_speed_does_not_overshoot() -> None:
    keys = ring([0, 2, 40, 41, 120]).world_from_camera
    step = 1e-4
    times = torch.arange(1, 4, dtype=torch.float64)
    before, at, after = (smooth_poses(keys, times + s) for s in (-step, 0, step))
    velocity = [(at - before)[:, :3, 3] / step, (after - at)[:, :3, 3] / step]
    torch.testing.assert_close(velocity[0], velocity[1], atol=0.05, rtol=0)
    spin = [rotation_log(a[:, :3, :3].transpose(1, 2) @ b[:, :3, :3]) / step for a, b in ((before, at), (at, after))]
    torch.testing.assert_close(spin[0], spin[1], atol=0.05, rtol=0)
    # between two near photos that have far neighbours the camera stays near them
    between = smooth_poses(keys, torch.linspace(2, 3, 50).double())[:, :3, 3]
    chord = float((keys[3, :3, 3] - keys[2, :3, 3]).norm())
    assert float((between - keys[2, :3, 3]).norm(dim=1).max()) < 1.4 * chord


def test_there_and_back_stops_at_the_turning_photo() -> None:
    keys = ring([0, 30, 0]).world_from_camera
    poses = smooth_poses(keys, torch.linspace(0, 2, 21).double())
    torch.testing.assert_close(poses, poses.flip(0))
    assert float((poses[10] - poses[9])[:3, 3].norm()) < 0.05 * float((keys[1] - keys[0])[:3, 3].norm())


def test_orbit_swings_as_far_as_the_photos_do() -> None:
    cameras = ring([-20, 0, 35])
    path = path_orbit(cameras, cloud(), 41, (256, 160))
    reference = middle_photo(cameras)
    assert reference == 1
    assert len(path) == 41
    assert path.photo[0] == path.photo[-1] == reference
    assert float(off_axis(path, FOCUS).max()) < 1.0
    offsets = path.cameras.centers - FOCUS
    azimuth = torch.atan2(offsets[:, 1], offsets[:, 0]).rad2deg()
    assert float(azimuth.min()) == pytest.approx(-20, abs=1)
    assert float(azimuth.max()) == pytest.approx(35, abs=1)
    torch.testing.assert_close(offsets.norm(dim=1), offsets.norm(dim=1)[:1].expand(41), rtol=0.02, atol=0)
    assert_rigid(path.cameras)


def test_orbit_turns_fully_where_the_photos_stand_all_around() -> None:
    path = path_orbit(ring([0, 90, 180, 270]), cloud(), 73)
    offsets = path.cameras.centers - FOCUS
    azimuth = torch.atan2(offsets[:, 1], offsets[:, 0]).rad2deg()
    steps = (azimuth[1:] - azimuth[:-1]) % 360
    torch.testing.assert_close(steps, torch.full((72,), 5.0).double(), atol=0.2, rtol=0)
    assert path.photo[0] == path.photo[72] == 0


def test_orbit_of_a_single_photo_still_moves() -> None:
    path = path_orbit(ring([0]), cloud(), 25)
    offsets = path.cameras.centers - FOCUS
    assert float(torch.atan2(offsets[:, 1], offsets[:, 0]).rad2deg().max()) == pytest.approx(6, abs=0.5)


def test_spiral_stays_near_the_photos_and_looks_at_one_point() -> None:
    cameras = ring([-20, 0, 20])
    path = path_spiral(cameras, cloud(), 60)
    assert path.photo[0] == path.photo[-1] == 1
    away = (path.cameras.centers - cameras.centers[1]).norm(dim=1)
    distance = float((cameras.centers[1] - FOCUS).norm())
    assert 0.02 * distance < float(away.max()) < 0.22 * distance
    assert float(off_axis(path, FOCUS).max()) < 1.0
    assert_rigid(path.cameras)


def test_dolly_goes_straight_ahead_and_stops_before_things() -> None:
    cameras = ring([-20, 0, 20])
    path = path_dolly(cameras, cloud(), 30)
    assert path.photo == [1] + [None] * 29
    moved = (path.cameras.centers - cameras.centers[1]) @ cameras.world_from_camera[1, :3, :3]
    assert float(moved[:, :2].abs().max()) < 1e-12
    distance = float((cameras.centers[1] - FOCUS).norm())
    assert float(moved[-1, 2]) == pytest.approx(distance / 3, rel=0.05)
    assert bool((moved[1:, 2] > moved[:-1, 2]).all())
    wall = cameras.centers[1] + 0.2 * cameras.world_from_camera[1, :3, 2]
    near = path_dolly(cameras, torch.cat([cloud(), wall.expand(200, 3)]), 30)
    assert float((near.cameras.centers[-1] - cameras.centers[1]).norm()) == pytest.approx(0.12, rel=1e-3)


@pytest.mark.parametrize("path", [path_orbit, path_spiral, path_dolly])
@pytest.mark.parametrize("frames", [2, 3, 7])
def test_paths_around_the_scene_take_any_number_of_frames(path, frames: int) -> None:
    made = path(ring([0, 10]), cloud(), frames, (160, 256))
    assert len(made) == frames
    assert made.cameras.size == (160, 256)
    assert made.photo[0] == 0


def test_paths_do_not_depend_on_world_and_units() -> None:
    cameras, points = ring([-20, 0, 30]), cloud()
    turn = rotation_exp(torch.tensor([0.4, -1.0, 0.7]).double())
    move = torch.tensor([100.0, -3, 8]).double()
    poses = cameras.world_from_camera.clone()
    poses[:, :3, :3] = turn @ poses[:, :3, :3]
    poses[:, :3, 3] = 0.01 * (poses[:, :3, 3] @ turn.T) + move
    other = Cameras(poses, cameras.intrinsics, cameras.sizes)
    for path in (path_orbit, path_spiral, path_dolly):
        a, b = path(cameras, points, 9), path(other, 0.01 * (points @ turn.T) + move, 9)
        torch.testing.assert_close(0.01 * (a.cameras.centers @ turn.T) + move, b.cameras.centers)
        torch.testing.assert_close(
            turn @ a.cameras.world_from_camera[:, :3, :3], b.cameras.world_from_camera[:, :3, :3]
        )
    a, b = path_through(cameras), path_through(other)
    torch.testing.assert_close(0.01 * (a.cameras.centers @ turn.T) + move, b.cameras.centers)


def test_own_path_is_followed_exactly_and_photos_on_it_are_found() -> None:
    photos = ring([0, 20, 50], sizes=[(640, 480), (960, 720), (640, 480)])
    own = path_through(photos, size=(320, 240), frames_per_window=9).cameras
    path = follow(own, photos, (256, 160))
    assert path.photo == [0] + [None] * 7 + [1] + [None] * 7 + [2]
    assert bool((path.cameras.world_from_camera == own.world_from_camera).all())
    assert path.cameras.size == (256, 160)
    torch.testing.assert_close(path.cameras.intrinsics[0, 0, 0], photos.intrinsics[0, 0, 0] * 256 / 640)
    assert follow(own[[3, 8]], photos).photo == [None, 1]
    assert follow(own[[8, 0, 8]], photos).photo == [1, 0, 1]


def test_a_frame_is_a_photo_only_with_its_pose_and_its_view() -> None:
    photos = ring([0, 20, 50])
    own = photos.covering(320, 240)[0]
    assert photos_met(own, photos) == [0, 1, 2]
    moved = own.world_from_camera.clone()
    moved[0, :3, 3] += 0.01
    moved[1, :3, :3] = moved[1, :3, :3] @ rotation_exp(torch.tensor([0.0, 0.01, 0.0]).double())
    zoomed = own.intrinsics.clone()
    zoomed[2, :2, :2] *= 1.1
    assert photos_met(Cameras(moved, zoomed, own.sizes), photos) == [None, None, None]
    rounded = torch.round(own.world_from_camera * 1e5) / 1e5  # as people write numbers into files
    assert photos_met(Cameras(rounded, own.intrinsics, own.sizes), photos) == [0, 1, 2]


def test_impossible_paths_are_refused() -> None:
    with pytest.raises(UserError, match="at least two"):
        path_through(ring([0]))
    with pytest.raises(UserError, match="at least 3 frames"):
        path_through(ring([0, 1, 2]), frames=2)
    with pytest.raises(UserError, match="at least two frames"):
        follow(ring([0]), ring([0, 1]))
    with pytest.raises(UserError, match="at least 2 frames"):
        path_orbit(ring([0, 10]), cloud(), 1)
    behind = FOCUS + 40 * ring([0]).centers
    with pytest.raises(UserError, match="none"):
        path_dolly(ring([0]), behind, 5)


def test_rotation_maths() -> None:
    vectors = torch.tensor([[0.0, 0, 0], [0, 0, 1e-9], [1, 2, 0.5], [math.pi - 1e-6, 0, 0]]).double()
    torch.testing.assert_close(rotation_log(rotation_exp(vectors)), vectors)
    eye = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(rotation_angles(eye, rotation_exp(vectors)), vectors.norm(dim=1))
    with pytest.raises(ValueError):
        look_at(FOCUS[None], FOCUS, UP)

"""Plane sweep, completion and fusion on a small world whose depth is known."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.errors import UserError
from fvgen.scene import depth, points
from fvgen.scene.depth import DepthMap, by_nearness, estimate_depths
from fvgen.scene.points import flying, fuse_points, lift
from fvgen.scene.sweep import aggregate, pick, transfer

WIDTH, HEIGHT, FOCAL = 160, 120, 140.0


def _cameras(centers: list[list[float]], yaw: list[float]) -> Cameras:
    poses = torch.eye(4, dtype=torch.float64).repeat(len(centers), 1, 1)
    turn = torch.tensor(yaw, dtype=torch.float64)
    poses[:, 0, 0], poses[:, 0, 2] = turn.cos(), turn.sin()
    poses[:, 2, 0], poses[:, 2, 2] = -turn.sin(), turn.cos()
    poses[:, :3, 3] = torch.tensor(centers, dtype=torch.float64)
    matrix = torch.tensor([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]], dtype=torch.float64)
    count = len(centers)
    return Cameras(poses, matrix.repeat(count, 1, 1), torch.tensor([[WIDTH, HEIGHT]]).repeat(count, 1))


def _texture(at: Tensor, seed: int) -> Tensor:
    """``[..., 3]`` colours 0..1 with detail at many scales, from plane coordinates ``[..., 2]``."""
    generator = torch.Generator().manual_seed(seed)
    color = torch.zeros(*at.shape[:-1], 3, dtype=at.dtype)
    for octave in range(5):
        for _ in range(3):
            direction = torch.randn(2, 3, generator=generator, dtype=at.dtype) * 2.0**octave
            phase = torch.rand(3, generator=generator, dtype=at.dtype) * 6.28
            color += torch.sin(at @ direction + phase) * 0.8**octave
    return 0.5 + 0.08 * color


def _picture(camera: Cameras) -> tuple[Tensor, Tensor]:
    """uint8 picture and true z-depth: a slanted wall behind, a card in front."""
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    rays = torch.stack([x, y, torch.ones_like(x)], -1).double() @ torch.linalg.inv(camera.intrinsics[0]).T
    pose = camera.world_from_camera[0]
    rays = rays @ pose[:3, :3].T
    center = pose[:3, 3]
    normal = torch.tensor([0.3, 0.0, 1.0], dtype=torch.float64)
    wall = (5.0 - center @ normal) / (rays @ normal)
    card = (2.5 - center[2]) / rays[..., 2]
    on_wall, on_card = center + rays * wall[..., None], center + rays * card[..., None]
    hit = ((on_card[..., 0] - 0.1).abs() < 0.5) & ((on_card[..., 1] - 0.1).abs() < 0.45)
    color = torch.where(hit[..., None], _texture(on_card[..., :2], 1), _texture(on_wall[..., :2], 2) * 0.8)
    depth = torch.where(hit, card, wall)  # rays have z = 1 in the camera, so the ray length is the z-depth
    return (color.clamp(0, 1) * 255).round().to(torch.uint8), depth.float()


CENTERS, YAW = [[-0.25, 0.0, 0.0], [0.25, 0.05, 0.1]], [0.06, -0.06]


@pytest.fixture(scope="module")
def two() -> tuple[list[DepthMap], list[Tensor], Cameras]:
    cameras = _cameras(CENTERS, YAW)
    pictures, truths = zip(*(_picture(cameras[i]) for i in range(2)), strict=True)
    darker = (pictures[1].float() * 0.8).to(torch.uint8)  # another exposure
    return estimate_depths([pictures[0], darker], cameras), list(truths), cameras


def _seen_by_other(cameras: Cameras, truths: list[Tensor], i: int) -> Tensor:
    pixels, _ = transfer(cameras[i], cameras[1 - i], 1 / truths[i])
    size = torch.tensor([WIDTH, HEIGHT])
    return ((pixels > 2) & (pixels < size - 2)).all(-1)


def test_depth_of_two_photos_is_right(two: tuple[list[DepthMap], list[Tensor], Cameras]) -> None:
    maps, truths, cameras = two
    for i in range(2):
        error = (maps[i].depth / truths[i] - 1).abs()
        seen = _seen_by_other(cameras, truths, i)
        assert error[seen].median() < 0.01
        assert (error[seen] > 0.05).float().mean() < 0.1
        assert (error > 0.1).float().mean() < 0.15, "also where only one photo looks"


def test_confidence_tells_right_from_wrong(two: tuple[list[DepthMap], list[Tensor], Cameras]) -> None:
    maps, truths, cameras = two
    for own, truth in zip(maps, truths, strict=True):
        wrong = (own.depth / truth - 1).abs() > 0.05
        sure = own.confidence > 0.5
        assert sure.float().mean() > 0.5
        assert wrong[sure].float().mean() < 0.05
        assert wrong[~sure].float().mean() > 2 * wrong[sure].float().mean()
        assert own.confidence.min() > 0
        assert own.confidence.max() <= 1


def test_shapes_and_cameras_follow_the_long_side() -> None:
    cameras = _cameras(CENTERS, YAW)
    maps = estimate_depths([_picture(cameras[i])[0] for i in range(2)], cameras, long_side=80)
    assert maps[0].depth.shape == maps[0].confidence.shape == maps[0].image.shape[:2] == (60, 80)
    assert maps[0].image.dtype == torch.uint8
    assert maps[0].cameras.size == (80, 60)
    assert torch.allclose(maps[0].cameras.intrinsics[0, 0, 0], torch.tensor(FOCAL / 2, dtype=torch.float64))


def test_third_photo_helps_where_one_is_hidden() -> None:
    cameras = _cameras([*CENTERS, [-0.7, 0.0, 0.0]], [*YAW, 0.15])
    pictures, truths = zip(*(_picture(cameras[i]) for i in range(3)), strict=True)
    two = estimate_depths(list(pictures[:2]), cameras[:2])[0]
    three = estimate_depths(list(pictures), cameras)[0]
    bad = [((m.depth / truths[0] - 1).abs() > 0.05).float().mean() for m in (two, three)]
    assert bad[1] < bad[0]


def test_sparse_points_set_the_range() -> None:
    cameras = _cameras(CENTERS, YAW)
    pictures, truths = zip(*(_picture(cameras[i]) for i in range(2)), strict=True)
    given = DepthMap(truths[0], torch.ones_like(truths[0]), cameras[0], pictures[0])
    points = lift(given).reshape(-1, 3)[::97].float()
    found = estimate_depths(list(pictures), cameras, sparse_points=points)[0]
    assert (found.depth / truths[0] - 1).abs().median() < 0.01


def test_one_photo_and_photos_apart_are_refused() -> None:
    cameras = _cameras([[0, 0, 0], [1, 0, 0]], [0.0, 3.1])
    picture = _picture(_cameras(CENTERS, YAW)[0])[0]
    with pytest.raises(UserError, match="at least two photos"):
        estimate_depths([picture], cameras[:1])
    with pytest.raises(UserError, match="share no part"):
        estimate_depths([picture, picture], cameras)


def test_aggregation_carries_a_surface_over_a_blank_and_breaks_at_edges() -> None:
    cost = torch.full((20, 40, 9), 0.5)
    cost[:, :15, 2] = 0.0
    cost[:, 25:, 6] = 0.0
    guide = torch.zeros(20, 40)
    guide[:, 18:] = 0.8
    best = aggregate(cost, guide).argmin(-1)
    assert (best[:, :18] == 2).all()
    assert (best[:, 18:] == 6).all()


def test_sub_plane_refinement_finds_the_bottom_of_a_parabola() -> None:
    planes = torch.linspace(0.1, 0.5, 9)
    cost = ((planes - 0.317) ** 2)[None, None].expand(4, 4, -1).contiguous()
    assert torch.allclose(pick(-cost, cost, planes).inverse_depth, torch.full((4, 4), 0.317), atol=1e-4)


def test_points_lie_on_the_surfaces(two: tuple[list[DepthMap], list[Tensor], Cameras]) -> None:
    cloud = fuse_points(two[0])
    assert len(cloud) > 0.8 * 2 * WIDTH * HEIGHT
    assert cloud.colors.dtype == torch.uint8
    assert set(cloud.photo.tolist()) == {0, 1}
    sure = cloud.positions[cloud.confidence > 0.5]
    to_wall = (sure @ torch.tensor([0.3, 0.0, 1.0], dtype=torch.float64) - 5).abs()
    to_card = (sure[:, 2] - 2.5).abs()
    assert (torch.minimum(to_wall, to_card) > 0.25).float().mean() < 0.02


def test_pixels_between_two_surfaces_are_dropped() -> None:
    depth = torch.full((12, 20), 2.0)
    depth[:, 10:] = 4.0
    depth[:, 10] = 2.8
    assert flying(depth)[:, 10].all()
    assert not flying(depth)[:, :10].any()
    assert not flying(depth)[:, 11:].any()
    slanted = 1 / torch.linspace(0.5, 0.25, 200).expand(12, 200)
    assert not flying(slanted).any(), "a plane is no jump"


def test_the_less_sure_of_two_contradicting_points_goes() -> None:
    cameras = _cameras([[0, 0, 0], [0.3, 0, 0]], [0.0, 0.0])
    far, near = torch.full((HEIGHT, WIDTH), 4.0), torch.full((HEIGHT, WIDTH), 4.0)
    near[40:80, 60:100] = 2.0  # a ghost, which the other photo looks through
    image = torch.zeros(HEIGHT, WIDTH, 3, dtype=torch.uint8)
    sure, unsure = torch.full((HEIGHT, WIDTH), 0.9), torch.full((HEIGHT, WIDTH), 0.3)
    ghost = DepthMap(near, unsure, cameras[0], image)
    cloud = fuse_points([ghost, DepthMap(far, sure, cameras[1], image)])
    assert (cloud.positions[:, 2] > 3).all()
    kept = fuse_points([DepthMap(near, sure, cameras[0], image), DepthMap(far, unsure, cameras[1], image)])
    assert (kept.positions[:, 2] < 3).sum() > 1000


def test_what_lies_beside_another_photo_is_not_looked_through_by_its_border() -> None:
    cameras = _cameras([[0, 0, 0], [1.5, 0, 0]], [0.0, 0.0])
    near, far = torch.full((HEIGHT, WIDTH), 4.0), torch.full((HEIGHT, WIDTH), 4.0)
    near[:, :40] = 2.0  # all of it out of the other photo's sight
    image = torch.zeros(HEIGHT, WIDTH, 3, dtype=torch.uint8)
    unsure, sure = torch.full((HEIGHT, WIDTH), 0.3), torch.full((HEIGHT, WIDTH), 0.9)
    cloud = fuse_points([DepthMap(near, unsure, cameras[0], image), DepthMap(far, sure, cameras[1], image)])
    assert (cloud.positions[:, 2] < 3).sum() > 38 * HEIGHT


def test_the_range_is_that_of_what_is_seen_when_the_camera_walks_ahead() -> None:
    cameras = _cameras([[0, 0, 0], [0, 0, 0.5]], [0.0, 0.0])
    pictures, truths = zip(*(_picture(cameras[i]) for i in range(2)), strict=True)
    views = [depth._view(p.movedim(-1, 0).float() / 255, cameras[i], 128) for i, p in enumerate(pictures)]
    for (low, high), truth in zip(depth._ranges(views, [[1], [0]], None), truths, strict=True):
        assert 0.4 / truth.max() < low < 1.05 / truth.max()
        assert 0.95 / truth.min() < high < 2 / truth.min()


def test_pictures_are_compared_only_where_points_do_not_tell_the_range() -> None:
    """Two photos of the wall without points, and two back to back, which share nothing, with points before them."""
    quarter = torch.pi / 2
    cameras = _cameras([*CENTERS, [50, 0, 0], [50, 0, 0.2]], [*YAW, quarter, -quarter])
    pictures = [*(_picture(cameras[i])[0] for i in range(2)), *torch.full((2, HEIGHT, WIDTH, 3), 99, dtype=torch.uint8)]
    views = [depth._view(p.movedim(-1, 0).float() / 255, cameras[i], 128) for i, p in enumerate(pictures)]
    spread = torch.rand(200, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    points = torch.cat([spread + torch.tensor([54.0, 0, 0]), spread + torch.tensor([42.0, 0, 0])])
    near = [[1], [0], [3], [2]]
    *without, ahead, behind = depth._ranges(views, near, points)
    assert without == depth._ranges(views[:2], near[:2], None)
    assert ahead[0] < 1 / 5 < 1 / 3 < ahead[1]
    assert behind[0] < 1 / 9 < 1 / 7 < behind[1]


def _views_of_a_wall(count: int, apart: float) -> list[DepthMap]:
    """Small exact depth maps of one wall along a walk past it, of random confidence."""
    generator = torch.Generator().manual_seed(0)
    centers = [[apart * k, 0.0, 0.05 * (k % 3)] for k in range(count)]
    cameras = _cameras(centers, [0.0] * count).resized(32, 24)
    image = torch.zeros(24, 32, 3, dtype=torch.uint8)
    return [
        DepthMap(torch.full((24, 32), 4.0 - z), torch.rand(24, 32, generator=generator) + 0.01, cameras[k], image)
        for k, (_, _, z) in enumerate(centers)
    ]


def test_few_maps_are_compared_all_with_all_and_lose_only_what_is_seen_through() -> None:
    maps = _views_of_a_wall(5, 0.1)
    maps[2].depth[5:15, 5:15] = 2.0
    cloud = fuse_points(maps)
    expected = []
    for i, own in enumerate(maps):
        keep = ~flying(own.depth)
        for j, other in enumerate(maps):
            if i != j:
                keep &= ~points._seen_through(own, other)
        expected.append(lift(own)[keep])
    assert torch.equal(cloud.positions, torch.cat(expected))
    assert len(cloud) < 5 * 24 * 32


def test_each_of_many_maps_is_compared_with_its_neighbours_only(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = _views_of_a_wall(40, 0.2)
    met = set()
    plain = points._seen_through

    def watched(own: DepthMap, other: DepthMap) -> Tensor:
        met.add((round(own.cameras.centers[0, 0].item() / 0.2), round(other.cameras.centers[0, 0].item() / 0.2)))
        return plain(own, other)

    monkeypatch.setattr(points, "_seen_through", watched)
    fuse_points(maps)
    assert len(met) == 40 * 16
    assert max(abs(i - j) for i, j in met) <= 16
    assert {(i, i + 1) for i in range(39)} <= met


def test_many_maps_of_one_wall_are_thinned_and_no_spot_of_it_is_lost() -> None:
    maps = _views_of_a_wall(20, 0.02)
    assert len(fuse_points(maps[:17])) == 17 * 24 * 32
    cloud = fuse_points(maps)
    assert len(cloud) < 0.4 * 20 * 24 * 32
    assert (cloud.positions[:, 2] - 4).abs().max() < 1e-5
    for own in maps:  # every pixel that anyone saw has a point within a pixel's width of the wall
        gap = torch.cdist(lift(own).reshape(-1, 3), cloud.positions).min(1).values
        assert gap.max() < 1.5 * 4 / own.cameras.intrinsics[0, 0, 0].item()


def test_a_long_walk_has_the_neighbours_of_a_short_one() -> None:
    yaw = [0.1 * (k % 2) for k in range(200)]
    long = _cameras([[0.3 * k, 0.0, 0.0] for k in range(200)], yaw)
    assert by_nearness(long[:17], 8)[:4] == by_nearness(long, 8)[:4]
    assert max(abs(k - 100) for k in by_nearness(long, 100)[:16]) <= 20


@pytest.mark.slow
def test_the_measure_of_depth_knows_exact_depth(tmp_path: Path) -> None:
    script = Path(__file__).resolve().parent.parent / "scripts" / "measure_depth.py"
    command = [sys.executable, str(script), "--output", str(tmp_path), "--seeds", "7005"]
    subprocess.run(command, check=True, capture_output=True)
    (scene,) = json.loads((tmp_path / "depth.json").read_text())["scenes"]
    rows = scene["rows"]
    assert rows["exact"]["2%_all"] == 1
    assert rows["seen"]["2%_both"] == 1 > rows["seen"]["2%_one"]
    assert rows["estimated"]["psnr"] < rows["exact"]["psnr"]
    assert sum(count for count, _ in rows["estimated"]["bins"]) == 2 * 512 * 320
    assert (tmp_path / "7005.png").is_file()

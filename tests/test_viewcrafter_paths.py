"""The original teacher's camera paths by name: requests, files, slips, and the same numbers as its own code."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fvgen.cameras import Cameras, ViewCrafterBetween, ViewCrafterTarget, ViewCrafterText
from fvgen.cameras.poses import look_at
from fvgen.cameras.viewcrafter import path_between
from fvgen.cameras.viewcrafter_paths import center_depth, parse_viewcrafter, plan_viewcrafter, read_trajectory
from fvgen.errors import UserError
from fvgen.pipeline import NovelViewPipeline, plan_path
from fvgen.scene.photos import load_photos
from fvgen.scene.types import Photos, PointCloud, Scene
from golden_numbers import GoldenSet
from viewcrafter_frames import to_object_frame

DEMO = Path(__file__).parent.parent / "examples" / "demo"
SIZE = (512, 320)


def scene(count: int = 3) -> Scene:
    """Photos on an arc around (0, 0, 4), a wall of points there, each photo's own lens."""
    angles = torch.linspace(-0.3, 0.3, count, dtype=torch.float64)
    focus = torch.tensor([0.0, 0.0, 4.0], dtype=torch.float64)
    centers = focus - 4 * torch.stack([angles.sin(), 0.1 * angles, angles.cos()], dim=1)
    poses = look_at(centers, focus, torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64))
    intrinsics = torch.eye(3, dtype=torch.float64).repeat(count, 1, 1)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = 400.0 + 20 * torch.arange(count)
    intrinsics[:, :2, 2] = torch.tensor([256.0, 160.0])
    cameras = Cameras(poses, intrinsics, torch.tensor([SIZE]).repeat(count, 1))
    grid = torch.stack(torch.meshgrid(torch.linspace(-1, 1, 41), torch.linspace(-1, 1, 41), indexing="xy"), -1)
    wall = torch.cat([grid.reshape(-1, 2), torch.full((41 * 41, 1), 4.0)], dim=1)
    owner = torch.arange(count).repeat_interleave(len(wall))
    points = wall.repeat(count, 1)
    cloud = PointCloud(points, torch.zeros(len(points), 3, dtype=torch.uint8), owner, torch.ones(len(points)))
    images = [torch.zeros(SIZE[1], SIZE[0], 3, dtype=torch.uint8)] * count
    return Scene(Photos([f"{i}.png" for i in range(count)], images, [None] * count), cameras, cloud, [], "given")


def test_text_becomes_a_request(tmp_path: Path) -> None:
    assert parse_viewcrafter("viewcrafter:target") == ViewCrafterTarget()
    assert parse_viewcrafter("viewcrafter:target,d_phi=-45,d_theta=0,d_r=.5,photo=-1") == ViewCrafterTarget(
        d_phi=-45, d_theta=0, d_r=0.5, photo=-1
    )
    assert parse_viewcrafter("viewcrafter:between") == ViewCrafterBetween()
    assert parse_viewcrafter("viewcrafter:between,double_last_step,early_intrinsics=true") == ViewCrafterBetween(
        True, True
    )
    file = tmp_path / "moves.txt"
    file.write_text("0 3 10 20\n0 -2\n\n0\n")
    assert parse_viewcrafter(f"viewcrafter:{file},elevation=0") == ViewCrafterText(
        (0, 3, 10, 20), (0, -2), (0,), elevation=0
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("viewcrafter:", "comes target, between, or a text file"),
        ("viewcrafter:orbit", "comes target, between, or a text file"),
        ("viewcrafter:target,phi=3", "no option 'phi'; choose from d_theta, d_phi"),
        ("viewcrafter:target,d_phi=left", "d_phi: 'left' is no number"),
        ("viewcrafter:target,d_phi=inf", "'inf' is no number"),
        ("viewcrafter:target,photo=first", "photo=first is no photo"),
        ("viewcrafter:target,center_scale=0", "center_scale must be above 0"),
        ("viewcrafter:between,double_last_step=2", "double_last_step is a switch"),
        ("viewcrafter:between,d_phi=3", "no option 'd_phi'; choose from double_last_step, early_intrinsics"),
        ("viewcrafter:absent.txt", "absent.txt: cannot be read"),
    ],
)
def test_mistakes_are_named(text: str, line: str) -> None:
    with pytest.raises(UserError, match=line):
        parse_viewcrafter(text)


@pytest.mark.parametrize(("content", "line"), [("0 1\n0 1\n", "this has 2"), ("0\n0 up\n0\n", "line 2: 'up'")])
def test_a_wrong_trajectory_is_refused(tmp_path: Path, content: str, line: str) -> None:
    (tmp_path / "moves.txt").write_text(content)
    with pytest.raises(UserError, match=line):
        read_trajectory(tmp_path / "moves.txt")


def test_target_starts_at_the_photo_and_turns_about_what_it_shows() -> None:
    known = scene()
    request = ViewCrafterTarget(d_theta=0, d_phi=20, d_r=0, elevation=0)
    path = plan_path(known, request, 9, SIZE)
    assert path.photo == [1] + [None] * 8
    torch.testing.assert_close(path.cameras.world_from_camera[0], known.cameras.world_from_camera[1])
    pivot = known.cameras.centers[1] + 4 * known.cameras.world_from_camera[1, :3, 2]
    torch.testing.assert_close((path.cameras.centers - pivot).norm(dim=1), torch.full((9,), 4.0).double())
    moved = path.cameras.centers[-1] - path.cameras.centers[0]
    assert float(moved @ known.cameras.world_from_camera[1, :3, 0]) > 1, "plus phi goes right"
    up = plan_path(known, ViewCrafterTarget(d_theta=-20, d_phi=0, d_r=0, elevation=0), 9, SIZE).cameras.centers
    assert float((up[-1] - up[0]) @ known.cameras.world_from_camera[1, :3, 1]) < -1, "minus theta goes up"
    near = plan_path(known, "viewcrafter:target,d_theta=0,d_phi=0,d_r=-.5,elevation=0", None, SIZE).cameras.centers
    torch.testing.assert_close(near[-1], known.cameras.centers[1] + 2 * known.cameras.world_from_camera[1, :3, 2])
    assert len(near) == 16, "one window, as the original"


def test_shifts_are_in_pixels_of_a_512_long_picture() -> None:
    known = scene()
    path = plan_path(known, ViewCrafterTarget(0, 0, 0, d_x=42, d_y=21, elevation=0), 3, SIZE)
    axes = known.cameras.world_from_camera[1, :3, :3]
    moved = axes.T @ (path.cameras.centers[-1] - path.cameras.centers[0])
    torch.testing.assert_close(moved, torch.tensor([42 * 4 / 420, -21 * 4 / 420, 0.0], dtype=torch.float64))


def test_text_path_reaches_its_last_values_and_comes_back() -> None:
    known = scene()
    away = plan_path(known, ViewCrafterText((0, 10, 30, 30, 20), (0,), (0, -0.2), photo=-1), 25, SIZE)
    target = ViewCrafterTarget(0, 20, -0.2, photo=2)
    torch.testing.assert_close(
        away.cameras.world_from_camera[-1], plan_path(known, target, 25, SIZE).cameras.world_from_camera[-1]
    )
    assert away.photo == [2] + [None] * 24
    back = plan_path(known, ViewCrafterText((0, 10, 0), (0, -5, 0), (0,), photo=2), 11, SIZE)
    assert back.photo == [2] + [None] * 9 + [2]


def test_between_is_right_by_default_and_slips_on_request() -> None:
    known = scene()
    fair = plan_path(known, "viewcrafter:between", None, SIZE, window=9)
    assert fair.photo == [0] + [None] * 7 + [1] + [None] * 7 + [2]
    steps = fair.cameras.centers.diff(dim=0).norm(dim=1)
    torch.testing.assert_close(steps[:8], steps[:1].expand(8))
    focal = fair.cameras.intrinsics[:, 0, 0]
    torch.testing.assert_close(focal, torch.linspace(400, 440, 17).double())
    late = plan_path(known, "viewcrafter:between,double_last_step", 17, SIZE).cameras
    steps = late.centers.diff(dim=0).norm(dim=1)
    torch.testing.assert_close(steps[7], 2 * steps[0])
    torch.testing.assert_close(late.intrinsics, fair.cameras.intrinsics)
    early = plan_path(known, "viewcrafter:between,early_intrinsics", 17, SIZE).cameras
    torch.testing.assert_close(early.centers, fair.cameras.centers)
    assert early.intrinsics[7, 0, 0] == early.intrinsics[8, 0, 0] == 420


def test_impossible_requests_are_refused() -> None:
    known = scene()
    with pytest.raises(UserError, match="ask for 17 or 19"):
        plan_path(known, ViewCrafterBetween(), 18, SIZE)
    with pytest.raises(UserError, match="ask for 5"):
        plan_path(known, ViewCrafterBetween(double_last_step=True), 3, SIZE)
    with pytest.raises(UserError, match="0 to 2"):
        plan_path(known, ViewCrafterTarget(photo=3), 9, SIZE)
    with pytest.raises(UserError, match="at least 2 frames"):
        plan_path(known, ViewCrafterTarget(), 1, SIZE)
    with pytest.raises(UserError, match="no point"):
        plan_viewcrafter(ViewCrafterTarget(), known.cameras, torch.zeros(0, 3), torch.zeros(0), 9, SIZE)
    apart = known.cameras.world_from_camera[:2].clone()
    apart[1, :3, :3] = apart[0, :3, :3] @ torch.diag(torch.tensor([-1.0, 1.0, -1.0])).double()
    turned = Cameras(apart, known.cameras.intrinsics[:2], known.cameras.sizes[:2])
    with pytest.raises(UserError, match="opposite"):
        plan_viewcrafter(ViewCrafterBetween(), turned, known.points.positions, known.points.photo, 3, SIZE)


@pytest.mark.golden("camera.io")
def test_requests_give_the_original_cameras(golden_set: GoldenSet) -> None:
    """The numbers of `test_golden_cameras` again, asked for by name and carried back to the world."""
    config, numbers, cameras = golden_set.config["camera"], golden_set.read("camera.io"), golden_set.cameras()
    count, size = len(cameras), cameras.size
    elevation = float(numbers["elevation"])
    close = {"atol": 1e-5 * max(1.0, float(numbers["c2ws"].abs().max()), float(numbers["radius"])), "rtol": 1e-5}
    view = config["anchor"] % count
    radius = float(numbers["radius"])
    middle = cameras.centers[view] + radius * cameras.world_from_camera[view, :3, 2]
    owner = torch.tensor([view])

    def in_object_frame(path: Cameras) -> Cameras:
        both = Cameras.concatenate([cameras, path])
        return to_object_frame(both, numbers["points"], view, radius, elevation)[0][count:]

    def planned(request: ViewCrafterTarget | ViewCrafterText, prefix: str) -> None:
        """Its cameras in the anchor's object frame are the recorded ones."""
        frames = int(numbers[f"{prefix}.num_views"])
        made = in_object_frame(plan_viewcrafter(request, cameras, middle[None], owner, frames, size).cameras)
        view_from_object = torch.diag(torch.tensor([-1.0, -1, 1, 1], dtype=torch.float64)) @ made.camera_from_world
        torch.testing.assert_close(view_from_object[:, :3, 3], numbers[f"{prefix}.T"].double(), **close)
        turned = view_from_object[:, :3, :3].transpose(1, 2)
        torch.testing.assert_close(turned, numbers[f"{prefix}.R"].double(), atol=1e-5, rtol=1e-5)

    wanted, text = dict(config["target"]), config["text"]
    pixels = float(cameras.intrinsics[view, 0, 0]) * 512 / max(size) / center_depth(cameras[view], middle[None])
    wanted.update({axis: wanted.get(axis, 0) * pixels for axis in ("d_x", "d_y")})
    planned(ViewCrafterTarget(**wanted, elevation=elevation, photo=config["anchor"]), "specified")
    moves = (tuple(text[key]) for key in ("phis", "thetas", "rs"))
    planned(ViewCrafterText(*moves, elevation, photo=config["anchor"]), "txt")
    if "interp.poses" in numbers:
        window = (len(numbers["interp.poses"]) - 1) // (count - 1) + 1
        between = ViewCrafterBetween(double_last_step=True, early_intrinsics=True)
        made = plan_viewcrafter(between, cameras, middle[None], owner, None, size, window).cameras
        torch.testing.assert_close(made.world_from_camera, numbers["interp.poses"].double(), **close)
        same = path_between(cameras, window, double_last_step=True, early_intrinsics=True)
        torch.testing.assert_close(made.intrinsics, same.intrinsics)


@pytest.mark.parametrize("path", ["viewcrafter:target,d_phi=8,d_theta=-4,photo=0", "viewcrafter:between", "text"])
def test_from_photos_to_frames(tmp_path: Path, path: str) -> None:
    """Each kind of path makes frames of a small scene; where the path meets a photo, its picture stands there."""
    if path == "text":
        (tmp_path / "moves.txt").write_text("0 2 5 8 8 4 0\n0 -2 0\n0 -.1 0\n")
        path = f"viewcrafter:{tmp_path / 'moves.txt'},photo=0"
    photos = load_photos([DEMO / "transforms_photos.json"], max_photos=2)
    small = Photos(
        photos.names,
        [image[::8, ::8].contiguous() for image in photos.images],
        photos.focals,
        photos.cameras.resized(photos.images[0].shape[1] // 8, photos.images[0].shape[0] // 8),
    )
    pipeline = NovelViewPipeline(None)
    views = pipeline(small, path=path, frames=5, size=(64, 48))
    assert views.frames.shape == (5, 48, 64, 3)
    assert views.photo[0] == 0
    assert float(views.guide.coverage.float().mean()) > 0.5
    assert np.isfinite(views.cameras.world_from_camera.numpy()).all()
    error = (views.frames[1].float() - views.frames[0].float()).abs().mean()
    assert error < 40, "the second frame shows the same place"

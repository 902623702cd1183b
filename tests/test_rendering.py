"""Guides and holes."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fvgen.cameras import Cameras
from fvgen.pictures import joint_upsample
from fvgen.rendering import (
    Guide,
    LookupRenderer,
    complete_picture,
    fill_holes,
    render_guide,
    render_points,
    render_points_guide,
    resample_photo,
)
from fvgen.rendering.exposure import exposure_levels
from fvgen.rendering.guide import points_picture
from fvgen.rendering.lookup import depth_along_edges, nearness
from fvgen.scene.depth import DepthMap
from fvgen.scene.types import PointCloud
from pretend_device import GPU, OnGpu, PretendedGpu


def _cameras(centers: list[list[float]], width: int = 40, height: int = 30, focal: float = 40.0) -> Cameras:
    poses = torch.eye(4, dtype=torch.float64).repeat(len(centers), 1, 1)
    poses[:, :3, 3] = torch.tensor(centers, dtype=torch.float64)
    matrix = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64)
    return Cameras(poses, matrix.repeat(len(centers), 1, 1), torch.tensor([[width, height]]).repeat(len(centers), 1))


def _wall(camera: Cameras, shade: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """A smooth coloured wall at z = 4: the picture of ``camera`` (uint8), and its pixels as points with colours."""
    width, height = camera.size
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    matrix = camera.intrinsics[0].float()
    points = torch.stack([(x - matrix[0, 2]) / matrix[0, 0], (y - matrix[1, 2]) / matrix[1, 1], torch.ones_like(x)], -1)
    points = points * 4 + camera.centers[0].float() * torch.tensor([1.0, 1.0, 0.0])
    wave = torch.stack([torch.sin(points[..., 0] * 3), torch.cos(points[..., 1] * 4), torch.sin(points.sum(-1))], -1)
    image = ((0.5 + 0.3 * wave) * shade * 255).round().to(torch.uint8)
    return image, points.reshape(-1, 3), image.reshape(-1, 3)


def _seen(cameras: Cameras, shades: list[float], confidence: float | Tensor = 1.0, device: str = "cpu"):
    """Pictures of the wall, their depth maps, and the points of all of them."""
    images, depths, points, colors = [], [], [], []
    for k, shade in enumerate(shades):
        image, own, seen = _wall(cameras[k], shade)
        trust = torch.ones(image.shape[:2]) * confidence
        images.append(image)
        depths.append(DepthMap(torch.full(image.shape[:2], 4.0), trust, cameras[k], image))
        points.append(own)
        colors.append(seen)
    photo = torch.arange(len(images)).repeat_interleave(len(points[0]))
    trust = torch.cat([own.confidence.flatten() for own in depths])
    return images, depths, PointCloud(torch.cat(points), torch.cat(colors), photo, trust).to(device)


def _guide(cameras: Cameras, shades: list[float], path: Cameras, shown: list[int | None]) -> Guide:
    images, depths, cloud = _seen(cameras, shades)
    return render_guide(path, shown, LookupRenderer(images, cameras, depths, cloud, path.size))


def _decibels(picture: Tensor, truth: Tensor, where: Tensor) -> float:
    return float(-10 * torch.log10(((picture.float() / 255 - truth)[where]).square().mean()))


@pytest.mark.parametrize("size", [(64, 40), (128, 80), (1024, 640)])
def test_guide_shows_photos_at_their_frames_and_the_truth_between(size: tuple[int, int]) -> None:
    cameras = _cameras([[0, 0, 0], [0.2, 0, 0], [0.4, 0, 0]], 1024, 640, 800)
    truth = _wall(cameras[1])[0]
    path, boxes = cameras.covering(*size)
    guide = _guide(cameras[[0, 2]], [1, 1], path, [0, None, 1])
    for frame, camera in ((0, cameras[0]), (2, cameras[2])):
        photo = resample_photo(_wall(camera)[0], boxes[frame], *size)
        torch.testing.assert_close(guide.completed[frame], (photo * 255).round().byte())
        assert (guide.told[frame] == 255).all()
        assert guide.coverage[frame].all()
    assert guide.coverage.float().mean() > 0.97
    assert _decibels(guide.completed[1], resample_photo(truth, boxes[1], *size), guide.coverage[1]) > 40
    assert guide.depth[1][guide.depth[1] > 0].sub(4).abs().max() < 0.05
    assert max(guide.depth.shape[1:]) <= 640
    assert guide.photo == [0, None, 1]


def test_guide_marks_what_no_photo_shows() -> None:
    cameras = _cameras([[0, 0, 0], [3.0, 0, 0]], 64, 40, 50)
    guide = _guide(cameras[[0]], [1], cameras[[1]], [None])
    for share in (guide.coverage[0], guide.told[0] > 0):
        assert not share[:, 40:].any()
        assert share[:, :20].float().mean() > 0.9
    assert guide.images()[0, :, 40:].max() == 0
    assert guide.completed[0, :, 40:].float().mean() > 50  # filled from around


def test_what_is_in_front_hides_what_is_behind() -> None:
    """A post before the wall: where a camera sees wall that a photo's post hides, that photo is not asked."""
    cameras = _cameras([[0, 0, 0], [0.5, 0, 0]], 256, 160, 200)
    image, depth = _wall(cameras[0])[0], torch.full((160, 256), 4.0)
    image[:, 120:150], depth[:, 120:150] = torch.tensor([255, 0, 255], dtype=torch.uint8), 2.0
    maps = [DepthMap(depth, torch.ones_like(depth), cameras[0], image)]
    matrix = torch.linalg.inv(cameras.intrinsics[0]).float()
    y, x = torch.meshgrid(torch.arange(160) + 0.5, torch.arange(256) + 0.5, indexing="ij")
    points = (torch.stack([x, y, torch.ones_like(x)], -1) @ matrix.T) * depth[..., None]
    count = depth.numel()
    cloud = PointCloud(points.view(-1, 3), image.view(-1, 3), torch.zeros(count, dtype=torch.int64), torch.ones(count))
    seen = LookupRenderer([image], cameras[[0]], maps, cloud, (256, 160)).picture(cameras[1])
    magenta = (seen.image - torch.tensor([1.0, 0, 1])).abs().sum(-1) < 0.3
    columns = magenta.float().mean(0)
    assert columns[72:98].min() > 0.9  # moved by 200 * 0.5 / 2 = 50 pixels
    assert columns[:66].max() == columns[108:].max() == 0
    assert not seen.coverage[:, 104:120].any()  # wall behind where the post stood, moved by 25
    assert seen.coverage[:, 130:200].float().mean() > 0.98


def test_a_far_photo_is_looked_up_at_the_size_that_the_frame_needs() -> None:
    """Fine stripes seen from twice as far are grey, not moire."""
    cameras = _cameras([[0, 0, 0], [0, 0, -4.0]], 512, 320, 400)
    image = torch.zeros(320, 512, 3, dtype=torch.uint8)
    image[:, ::2] = 255
    depth, count = torch.full((320, 512), 4.0), 320 * 512
    points = _wall(cameras[0])[1]
    cloud = PointCloud(points, image.view(-1, 3), torch.zeros(count, dtype=torch.int64), torch.ones(count))
    maps = [DepthMap(depth, torch.ones_like(depth), cameras[0], image)]
    seen = LookupRenderer([image], cameras[[0]], maps, cloud, (512, 320)).picture(cameras[1])
    inner = seen.image[100:220, 160:350]
    assert (inner - 0.5).abs().max() < 0.1
    assert not seen.coverage[:, :100].any()


def test_depth_gets_the_photos_edges() -> None:
    """A depth map of a quarter of the size: its step goes where the photo's is, and no depth lies between the two."""
    camera = _cameras([[0, 0, 0]], 128, 80, 100)
    picture = torch.zeros(3, 80, 128)
    picture[:, :, 66:] = 1
    small = torch.full((20, 32), 2.0)
    small[:, 16:] = 4.0
    found = depth_along_edges(DepthMap(small, torch.ones(20, 32), camera.resized(32, 20), picture), camera, picture)
    assert torch.allclose(found[:, :65], torch.tensor(0.5))
    assert torch.allclose(found[:, 67:], torch.tensor(0.25))
    part = camera.resized(32, 20).cropped(8, 0, 16, 20)
    found = depth_along_edges(DepthMap(small[:, 8:24], torch.ones(20, 16), part, picture), camera, picture)
    assert torch.allclose(found[:, 36:65], torch.tensor(0.5))
    assert torch.allclose(found[:, 67:90], torch.tensor(0.25))
    assert not found[:, :28].any()  # beyond what the map shows
    assert not found[:, 100:].any()


def test_of_many_photos_those_are_asked_that_see_the_frame_from_nearby() -> None:
    cameras = _cameras([[0.1 * k, 0, 0] for k in range(12)], 64, 40, 50)
    images, depths, cloud = _seen(cameras, [1.0] * 12)
    renderer = LookupRenderer(images, cameras, depths, cloud, (64, 40))
    assert renderer._chosen(cameras[0]) == [0, 1, 2, 3, 4, 5]
    assert 8 in renderer._chosen(cameras[8])
    renderer.picture(cameras[0])
    assert sorted(renderer._ready) == [0, 1, 2, 3, 4, 5]  # no more are made ready than are asked


def test_portrait_photo_is_cropped_not_squashed() -> None:
    image = torch.zeros(90, 60, 3, dtype=torch.uint8)
    image[30:60] = 255
    box = _cameras([[0, 0, 0]], 60, 90).covering(30, 30)[1][0]
    assert box == (0.0, 15.0, 60.0, 75.0)
    cut = resample_photo(image, box, 30, 30)
    assert cut[12:18].min() > 0.9
    assert cut[:5].max() < 0.1


def test_exposure_of_two_photos_is_found() -> None:
    cameras = _cameras([[0, 0, 0], [0.2, 0, 0]], 128, 80, 100)
    (_, p0, c0), (_, p1, c1) = _wall(cameras[0]), _wall(cameras[1], 0.8)
    photo = torch.cat([torch.zeros(len(p0)), torch.ones(len(p1))]).long()
    levels = exposure_levels(torch.cat([p0, p1]), torch.cat([c0, c1]).float() / 255, photo, cameras)
    assert torch.allclose(levels[0] - levels[1], torch.full((3,), -math.log(0.8)), atol=0.02)


def test_holes_are_filled_and_the_rest_is_untouched() -> None:
    ramp = torch.linspace(0, 1, 48)[None, None, :, None].expand(2, 32, 48, 3).contiguous()
    coverage = torch.ones(2, 32, 48, dtype=torch.bool)
    coverage[0, 10:20, 20:26] = False
    filled = fill_holes(ramp * coverage[..., None], coverage)
    assert torch.equal(filled[coverage], ramp[coverage])
    assert (filled - ramp).abs().max() < 0.06


def test_far_from_what_is_known_the_mean_of_the_surroundings_is_taken() -> None:
    image = torch.zeros(1, 80, 128, 3)
    image[..., :64, :] = 0.5
    image[..., 60:64, :] = 1.0  # a bright rim next to the hole
    known = torch.zeros(1, 80, 128, dtype=torch.bool)
    known[..., :64] = True
    none = torch.zeros_like(known)
    filled = complete_picture(image, known, torch.zeros_like(image), none)
    assert torch.equal(filled[known], image[known])
    assert filled[0, 40, 64].min() > 0.8
    assert 0.5 < filled[0, 40, 76].max() < 0.8


def test_hints_pull_the_fill_half_way() -> None:
    image, hints = torch.zeros(1, 80, 128, 3), torch.ones(1, 80, 128, 3)
    known = torch.ones(1, 80, 128, dtype=torch.bool)
    known[:, 20:60, 40:80] = False
    filled = complete_picture(image, known, hints, ~known)
    assert torch.allclose(filled[~known], torch.tensor(0.5), atol=1e-4)
    assert not filled[known].any()


def test_guessed_depth_completes_the_guide_but_does_not_cover_it() -> None:
    cameras = _cameras([[0, 0, 0], [0.2, 0, 0]], 64, 40, 50)
    measured = torch.full((40, 64), 0.03)
    measured[:, :32] = 1.0
    images, depths, cloud = _seen(cameras[[0]], [1.0], measured)
    guide = render_guide(cameras[[0]], [None], LookupRenderer(images, cameras[[0]], depths, cloud, (64, 40)))
    assert guide.coverage[0, :, :30].all()
    assert not guide.coverage[0, :, 34:].any()
    assert not guide.images()[0, :, 34:].any()
    assert (guide.told > 200).all()
    assert _decibels(guide.completed[0], images[0] / 255, torch.ones(40, 64, dtype=torch.bool)) > 35


def test_a_picture_without_any_coverage_stays_black() -> None:
    filled = fill_holes(torch.zeros(1, 9, 7, 3), torch.zeros(1, 9, 7, dtype=torch.bool))
    assert filled.shape == (1, 9, 7, 3)
    assert filled.abs().max() == 0


def test_guide_joins_photos_of_different_exposure_without_seams() -> None:
    cameras = _cameras([[0, 0, 0], [0.2, 0, 0], [0.4, 0, 0]], 128, 80, 100)
    guide = _guide(cameras[[0, 2]], [1, 0.8], cameras[[1]].covering(64, 40)[0], [None])
    truth = resample_photo(_wall(cameras[1], 0.9)[0], (0, 0, 128, 80), 64, 40)
    assert (guide.completed[0].float() / 255 - truth)[guide.coverage[0]].abs().max() < 0.05


@pytest.mark.parametrize("size", [(64, 40), (1024, 576), (360, 640)])
def test_points_are_the_teachers_splatting_of_what_was_measured(size: tuple[int, int]) -> None:
    cameras = _cameras([[0, 0, 0], [0.2, 0, 0], [0.4, 0, 0]], 128, 80, 100)
    generator = torch.Generator().manual_seed(0)
    _, _, cloud = _seen(cameras[[0, 2]], [1, 0.8], torch.rand(80, 128, generator=generator) * 0.6)
    moved = torch.tensor([0.1, 0.1, 0.0]) * torch.rand(cloud.positions.shape, generator=generator)  # between pixels
    cloud = PointCloud(cloud.positions + moved, cloud.colors, cloud.photo, cloud.confidence)
    path = cameras.covering(*size)[0]
    guide = render_points_guide(path, cloud)

    longest = max(size)
    splat = size if longest <= 512 else (512 * size[0] // longest, 512 * size[1] // longest)
    points, colors = cloud.positions[cloud.measured], cloud.colors[cloud.measured]
    assert 0.2 < len(points) / len(cloud) < 0.8
    rendered = render_points(points, colors.float() / 255, path[1].resized(*splat))
    image = rendered.image.movedim(-1, 1), rendered.alpha[:, None]
    if splat != size:
        image = tuple(F.interpolate(x, size[::-1], mode="bilinear", align_corners=False) for x in image)
    color, alpha = image[0][0].movedim(0, -1), image[1][0, 0]
    assert ((guide.completed[1].float() / 255 - color).abs() <= 0.5 / 255 + 1e-6).all()
    assert torch.equal(guide.coverage[1], alpha >= 0.5)
    faint = (alpha > 0.05) & (alpha < 0.5)
    assert faint.any()
    assert guide.images()[1][faint].amax(-1).min() > 0  # shown as they are, not cut off where coverage ends
    assert torch.equal(guide.images(), guide.completed)
    assert ((guide.depth[1] - 4).abs() < 0.01)[guide.coverage[1]].float().mean() > 0.99


def test_points_keep_their_colours_whatever_the_photos_exposure() -> None:
    """And come out the same twice."""
    cameras = _cameras([[0, 0, 0], [0.4, 0, 0]], 128, 80, 100)
    _, _, cloud = _seen(cameras, [1, 0.8])
    path = cameras[[0]].covering(64, 40)[0]
    one = PointCloud(cloud.positions, cloud.colors, torch.zeros_like(cloud.photo), cloud.confidence)
    guides = [render_points_guide(path, c) for c in (cloud, cloud, one)]
    assert torch.equal(guides[0].completed, guides[1].completed)
    assert torch.equal(guides[0].completed, guides[2].completed)


def _looked_up(device: str, size: tuple[int, int]) -> list[Tensor]:
    """What is known of a frame between two photos of the wall, each of its own brightness, some points guessed."""
    cameras = _cameras([[0, 0, 0], [0.2, 0, 0], [0.4, 0, 0]], 128, 80, 100)
    trust = torch.rand(80, 128, generator=torch.Generator().manual_seed(0)) * 0.15
    images, depths, cloud = _seen(cameras[[0, 2]], [1, 0.8], trust, device)
    frame = cameras[1].covering(*size)[0]
    seen = LookupRenderer(images, cameras[[0, 2]], depths, cloud, size).picture(frame)
    return [seen.image, seen.told, seen.coverage, seen.depth]


def _splatted(device: str, size: tuple[int, int]) -> list[Tensor]:
    cameras = _cameras([[0, 0, 0], [0.2, 0, 0]], 128, 80, 100)
    _, _, cloud = _seen(cameras[[0]], [1], device=device)
    return list(points_picture(cloud.positions, cloud.colors.float() / 255, cameras[1].covering(*size)[0]))


@pytest.mark.parametrize("made", [_looked_up, _splatted])
@pytest.mark.parametrize("size", [(64, 40), (1024, 576)])
def test_a_guide_is_made_on_the_device_of_its_points(made, size: tuple[int, int]) -> None:
    with PretendedGpu():
        there = made("cuda", size)
        assert {part.device for part in there} == {GPU}
    for one, other in zip(made("cpu", size), there, strict=True):
        assert torch.equal(one, other.as_subclass(Tensor))


def test_completion_exposure_and_weights_stay_on_their_device() -> None:
    cameras = _cameras([[0, 0, 0], [0.2, 0, 0]], 128, 80, 100)
    (image, p0, c0), (_, p1, c1) = _wall(cameras[0]), _wall(cameras[1], 0.8)
    photo = torch.cat([torch.zeros(len(p0)), torch.ones(len(p1))]).long()
    known = torch.zeros(1, 80, 128, dtype=torch.bool)
    known[:, 20:60, 30:90] = True

    def run(device: str) -> list[Tensor]:
        points, colors = torch.cat([p0, p1]).to(device), torch.cat([c0, c1]).to(device).float() / 255
        picture, seen = (image.to(device).float() / 255)[None], known.to(device)
        levels = exposure_levels(points, colors, photo.to(device), cameras)
        filled = complete_picture(picture, seen, picture.flip(1), ~seen)
        return [levels, filled, fill_holes(picture, seen), nearness(points[:5], points[7], 4)]

    with PretendedGpu():
        there = run("cuda")
        assert [value.device for value in there] == [GPU] * 4
    for one, other in zip(run("cpu"), there, strict=True):
        torch.testing.assert_close(one, other.as_subclass(Tensor), atol=1e-6, rtol=0)


def test_cameras_may_lie_on_a_device_too() -> None:
    cameras = _cameras([[0, 0, 0], [0.2, 0, 0]], 128, 80, 100)
    with PretendedGpu():
        there = Cameras(*(x.to("cuda") for x in (cameras.world_from_camera, cameras.intrinsics, cameras.sizes)))
        made = [there.resized(64, 40), there.cropped(3, 4, 50, 60), there.covering(60, 60)[0], there[[1]]]
        made.append(Cameras.concatenate([there, there]))
        for found in made:
            assert {found.world_from_camera.device, found.intrinsics.device, found.sizes.device} == {GPU}
        assert there.camera_from_world.device == there.centers.device == GPU


def test_the_pretended_device_refuses_what_a_gpu_refuses() -> None:
    """Or the tests above could not fail."""
    with PretendedGpu():
        there = torch.arange(100, device="cuda").float()
        assert isinstance(there, OnGpu)
        assert isinstance(there * 2 + there[3], OnGpu)
        assert not isinstance(torch.zeros(100), OnGpu)
        assert there[:3].tolist() == [0, 1, 2]
        for wrong in (
            lambda: there + torch.zeros(100),
            lambda: torch.cat([there, torch.zeros(1)]),
            lambda: there.scatter_add_(0, torch.zeros(1, dtype=torch.int64), there[:1]),
            lambda: there.cpu(),
            lambda: there.to("cpu"),
            lambda: there.tolist(),
            lambda: there[:3].numpy(),
        ):
            with pytest.raises(AssertionError, match="GPU"):
                wrong()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="NO GPU HERE: guides of the CPU and a GPU are not compared")
@pytest.mark.parametrize("made", [_looked_up, _splatted])
@pytest.mark.parametrize("size", [(64, 40), (1024, 576)])
def test_a_gpu_gives_the_guide_of_the_cpu(made, size: tuple[int, int]) -> None:
    here, there, again = made("cpu", size), made("cuda", size), made("cuda", size)
    assert torch.equal(there[0], again[0])
    covered, other = here[-2], there[-2].cpu()
    assert (covered != other).float().mean() < 1e-3
    same = covered & other
    assert ((here[0] - there[0].cpu()).abs().amax(-1)[same] < 2e-3).float().mean() > 0.999


def test_joint_upsampling_puts_edges_where_the_picture_has_them():
    picture = torch.zeros(3, 16, 32)
    picture[:, :, 13:] = 1.0
    small, values = torch.zeros(3, 8, 16), torch.full((1, 8, 16), 1.0)
    small[:, :, 6], small[:, :, 7:] = 0.5, 1.0
    values[..., 7:] = 3.0
    rows, columns = ((torch.arange(n) + 0.5) / 2 - 0.5 for n in (16, 32))
    usable = torch.ones(8, 16, dtype=torch.bool)
    found = joint_upsample(values, usable, small, picture, rows, columns, lambda value, best: (value - best).abs() < 1)
    assert torch.allclose(found[0, :, :13], torch.tensor(1.0))
    assert torch.allclose(found[0, :, 13:], torch.tensor(3.0))
    nothing = joint_upsample(values, ~usable, small, picture, rows, columns, lambda value, best: value == best)
    assert (nothing == 0).all()

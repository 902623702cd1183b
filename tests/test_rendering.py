"""Guides and holes."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fvgen.cameras import Cameras
from fvgen.rendering import (
    Guide,
    GuideKind,
    complete_picture,
    fill_holes,
    render_guide,
    render_points,
    resample_photo,
)
from fvgen.rendering.exposure import exposure_levels
from fvgen.rendering.guide import nearness
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


def test_guide_shows_photos_at_their_frames_and_the_truth_between() -> None:
    cameras = _cameras([[0, 0, 0], [0.2, 0, 0], [0.4, 0, 0]], 128, 80, 100)
    (first, p0, c0), (truth, _, _), (last, p1, c1) = (_wall(cameras[i]) for i in range(3))
    path, boxes = cameras.covering(64, 40)
    guide = render_guide(
        torch.cat([p0, p1]),
        torch.cat([c0, c1]),
        path,
        [0, None, 1],
        [first, last],
        cameras[[0, 2]],
        point_photo=torch.cat([torch.zeros(len(p0)), torch.ones(len(p1))]).long(),
        confidence=torch.ones(len(p0) + len(p1)),
    )
    assert torch.equal(guide.images[0], resample_photo(first, boxes[0], 64, 40))
    assert torch.equal(guide.images[2], resample_photo(last, boxes[2], 64, 40))
    assert guide.coverage[0].all()
    assert guide.coverage.float().mean() > 0.97
    error = (guide.images[1] - resample_photo(truth, boxes[1], 64, 40))[guide.coverage[1]]
    assert error.square().mean() < 10 ** (-3.5)
    assert guide.depth[1][guide.coverage[1]].sub(4).abs().max() < 0.05
    assert guide.photo == [0, None, 1]


def test_guide_marks_what_no_point_covers() -> None:
    cameras = _cameras([[0, 0, 0], [3.0, 0, 0]], 64, 40, 50)
    image, points, colors = _wall(cameras[0])
    guide = render_guide(points, colors, cameras[[1]], [None], [image], cameras[[0]])
    assert not guide.coverage[0, :, 40:].any()
    assert guide.coverage[0, :, :20].float().mean() > 0.9
    assert guide.images[0, :, 40:].max() == 0


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


def test_guessed_points_complete_the_guide_but_do_not_cover_it() -> None:
    cameras = _cameras([[0, 0, 0], [0.2, 0, 0]], 64, 40, 50)
    image, points, colors = _wall(cameras[0])
    measured = points[:, 0] < 0
    guide = render_guide(points, colors, cameras[[0]], [None], [image], cameras[[0]], measured=measured)
    assert guide.coverage[0, :, :30].all()
    assert not guide.coverage[0, :, 34:].any()
    assert not guide.images[0, :, 34:].any()
    assert guide.known.all()
    assert (guide.completed[0] - image / 255).square().mean() < 10 ** (-3.5)


def test_a_picture_without_any_coverage_stays_black() -> None:
    filled = fill_holes(torch.zeros(1, 9, 7, 3), torch.zeros(1, 9, 7, dtype=torch.bool))
    assert filled.shape == (1, 9, 7, 3)
    assert filled.abs().max() == 0


def test_guide_joins_photos_of_different_exposure_without_seams() -> None:
    cameras = _cameras([[0, 0, 0], [0.2, 0, 0], [0.4, 0, 0]], 128, 80, 100)
    (first, p0, c0), (truth, _, _), (last, p1, c1) = _wall(cameras[0]), _wall(cameras[1], 0.9), _wall(cameras[2], 0.8)
    guide = render_guide(
        torch.cat([p0, p1]),
        torch.cat([c0, c1]),
        cameras[[1]].covering(64, 40)[0],
        [None],
        [first, last],
        cameras[[0, 2]],
        point_photo=torch.cat([torch.zeros(len(p0)), torch.ones(len(p1))]).long(),
    )
    error = (guide.images[0] - resample_photo(truth, (0, 0, 128, 80), 64, 40))[guide.coverage[0]]
    assert error.abs().max() < 0.05


KINDS: list[GuideKind] = ["surface", "points"]


def _two_walls(kind: GuideKind, device: str = "cpu", width: int = 64, height: int = 40) -> Guide:
    """Two photos of the wall, each of its own brightness, some points distrusted and some guessed; a frame between."""
    cameras = _cameras([[0, 0, 0], [0.2, 0, 0], [0.4, 0, 0]], 128, 80, 100)
    (first, p0, c0), (last, p1, c1) = _wall(cameras[0]), _wall(cameras[2], 0.8)
    confidence = torch.rand(len(p0) + len(p1), generator=torch.Generator().manual_seed(0))
    return render_guide(
        torch.cat([p0, p1]).to(device),
        torch.cat([c0, c1]).to(device),
        cameras.covering(width, height)[0],
        [0, None, 1],
        [first, last],
        cameras[[0, 2]],
        kind=kind,
        point_photo=torch.cat([torch.zeros(len(p0)), torch.ones(len(p1))]).long().to(device),
        confidence=confidence.to(device),
        measured=(confidence > 0.3).to(device),
    )


@pytest.mark.parametrize("size", [(64, 40), (1024, 576), (360, 640)])
def test_points_are_the_teachers_splatting_of_what_was_measured(size: tuple[int, int]) -> None:
    cameras = _cameras([[0, 0, 0], [0.2, 0, 0], [0.4, 0, 0]], 128, 80, 100)
    (first, p0, c0), (last, p1, c1) = _wall(cameras[0]), _wall(cameras[2], 0.8)
    generator = torch.Generator().manual_seed(0)
    points, colors = torch.cat([p0, p1]), torch.cat([c0, c1])
    points = points + torch.tensor([0.1, 0.1, 0.0]) * torch.rand(
        points.shape, generator=generator
    )  # anywhere between the pixels
    path, boxes = cameras.covering(*size)
    measured = torch.rand(len(points), generator=generator) > 0.5
    trust = torch.linspace(0.05, 1, len(points))
    photo = (torch.arange(len(points)) >= len(p0)).long()
    shown = ([0, None, 1], [first, last], cameras[[0, 2]])
    options = {"point_photo": photo, "confidence": trust, "measured": measured}
    guide = render_guide(points, colors, path, *shown, kind="points", **options)

    longest = max(size)
    splat = size if longest <= 512 else (512 * size[0] // longest, 512 * size[1] // longest)
    rendered = render_points(points[measured], colors[measured].float() / 255, path[1].resized(*splat))
    image = rendered.image.movedim(-1, 1), rendered.alpha[:, None]
    if splat != size:
        image = tuple(F.interpolate(x, size[::-1], mode="bilinear", align_corners=False) for x in image)
    color, alpha = image[0][0].movedim(0, -1), image[1][0, 0]
    torch.testing.assert_close(guide.completed[1], color, atol=1e-6, rtol=0)
    assert torch.equal(guide.coverage[1], alpha >= 0.5)
    faint = (alpha > 0) & (alpha < 0.5)
    assert faint.any()
    assert guide.images[1][faint].amax(-1).min() > 0  # shown as they are, not cut off where coverage ends
    assert torch.equal(guide.images, guide.completed)
    assert torch.equal(guide.known, guide.coverage)
    assert guide.coverage[[0, 2]].all()
    for frame, picture in ((0, first), (2, last)):
        assert torch.equal(guide.completed[frame], resample_photo(picture, boxes[frame], *size))
    assert ((guide.depth[1] - 4).abs() < 0.01)[guide.coverage[1]].float().mean() > 0.99


def test_points_keep_their_colours_whatever_the_photos_exposure() -> None:
    """And come out the same twice."""
    cameras = _cameras([[0, 0, 0], [0.4, 0, 0]], 128, 80, 100)
    (_, p0, c0), (_, p1, c1) = _wall(cameras[0]), _wall(cameras[1], 0.8)
    photo = torch.cat([torch.zeros(len(p0)), torch.ones(len(p1))]).long()
    cloud = torch.cat([p0, p1]), torch.cat([c0, c1])
    path = cameras[[0]].covering(64, 40)[0]
    guides = [render_guide(*cloud, path, [None], [], cameras, kind="points", point_photo=photo) for _ in range(2)]
    alone = render_guide(*cloud, path, [None], [], cameras, kind="points")
    assert torch.equal(guides[0].completed, guides[1].completed)
    assert torch.equal(guides[0].completed, alone.completed)


def _as_plain(guide: Guide) -> list[Tensor]:
    return [x.as_subclass(Tensor) for x in (guide.completed, guide.coverage, guide.known, guide.depth)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_guide_stays_on_the_device_of_its_points(kind: GuideKind) -> None:
    with PretendedGpu():
        there = _two_walls(kind, "cuda")
        for part in (there.completed, there.coverage, there.known, there.depth, there.images):
            assert part.device == GPU
    here = _two_walls(kind)
    for one, other in zip(_as_plain(here), _as_plain(there), strict=True):
        assert torch.equal(one, other)


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
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(64, 40), (1024, 576)])
def test_a_gpu_gives_the_guide_of_the_cpu(kind: GuideKind, size: tuple[int, int]) -> None:
    here, there = _two_walls(kind, "cpu", *size), _two_walls(kind, "cuda", *size)
    assert there.completed.device.type == there.depth.device.type == "cuda"
    again = _two_walls(kind, "cuda", *size)
    assert torch.equal(there.completed, again.completed)
    back = there.to("cpu")
    assert (here.coverage != back.coverage).float().mean() < 1e-3
    same = here.coverage & back.coverage
    assert ((here.completed - back.completed).abs().amax(-1)[same] < 2e-3).float().mean() > 0.999
    assert (here.completed - back.completed).abs().mean() < 1e-3

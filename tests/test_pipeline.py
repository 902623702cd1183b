"""Windows, sizes and the whole way from photos to views."""

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fvgen.cameras import Cameras
from fvgen.errors import UserError
from fvgen.evaluation.benchmark.systems import made_up_photos, random_model
from fvgen.models import preset
from fvgen.models.model import WEIGHTS, ModelConfig, SamplingConfig, VideoModel, read_config
from fvgen.models.windows import plan_windows
from fvgen.pipeline import Completed, NovelViewPipeline, Settings, fitting_size, plan_path
from fvgen.rendering import Guide, render_points
from fvgen.rendering.holes import blur
from fvgen.scene.build import build_scene
from fvgen.scene.photos import load_photos
from fvgen.scene.types import MEASURED, Photos, PointCloud, Scene

DEMO = Path(__file__).parent.parent / "examples" / "demo"


def unknowns(levels, known):
    known, found = list(known), []
    for level in levels:
        made = []
        for window in level:
            made += [i for i in window if not known[i]]
            assert known[window[0]] or window[0] == 0 or level is levels[0]
        found += made
        for i in made:
            known[i] = True
    return found


@pytest.mark.parametrize("frames", [2, 3, 16, 17, 31, 40, 100, 300])
def test_every_unknown_frame_is_made_once(frames):
    known = [i in (0, frames - 1) for i in range(frames)]
    levels = plan_windows(known, 16)
    assert sorted(unknowns(levels, known)) == [i for i in range(frames) if not known[i]]
    assert all(len(w) <= 16 for level in levels for w in level)


def test_photos_in_a_row_share_their_end_frames_and_one_level():
    known = [i % 15 == 0 for i in range(46)]
    assert plan_windows(known, 16) == [[list(range(0, 16)), list(range(15, 31)), list(range(30, 46))]]


def test_paths_without_photos_are_made_too():
    levels = plan_windows([False] * 5, 16)
    assert levels == [[[0, 1, 2, 3, 4]]]


@pytest.mark.parametrize(
    ("photo", "expected"), [((1600, 1000), (256, 160)), ((1000, 1600), (160, 256)), ((640, 480), (240, 176))]
)
def test_size_follows_the_photos_shape(photo, expected):
    width, height = fitting_size([photo, photo])
    assert (width, height) == expected
    assert width % 16 == 0
    assert height % 16 == 0


@pytest.mark.slow
def test_a_stretch_in_two_levels_has_no_jumps():
    """Frames of the second level follow their anchors as evenly as the camera moves."""
    photos = load_photos([DEMO / "transforms_photos.json"])
    ends = replace(photos, **{n: getattr(photos, n)[:2] for n in ("names", "images", "focals", "cameras")})
    views = NovelViewPipeline.from_pretrained("mini")(ends, frames=28, size=(128, 80))
    assert len(views.frames) == 28
    assert [p for p in views.photo if p is not None] == [0, 1]
    moved = views.frames[1:-1].float().diff(dim=0).square().mean(dim=(1, 2, 3)).sqrt()
    assert moved.max() < 1.5 * moved.median()
    assert moved.min() > 0.5 * moved.median()


@pytest.fixture(scope="module")
def scene() -> Scene:
    return build_scene(made_up_photos(2, 96, 64))


def small_model(**changes: object) -> VideoModel:
    """A small student with ViewCrafter's switches: points in, no coverage, nothing predicted around the guide."""
    base = preset("mini-xs")
    unet = replace(base.unet, in_channels=2 * base.autoencoder.latent_channels)
    plain = replace(
        base,
        unet=unet,
        guide="points",
        coverage_channel=False,
        guide_variance=None,
        sampling=SamplingConfig(steps=2, guidance_scale=1.0, few_step=True),
    )
    return random_model(replace(plain, **changes), torch.device("cpu"), torch.float32)


def shown_to(model: VideoModel, scene: Scene, monkeypatch: pytest.MonkeyPatch):
    """The clip that reaches a model, ``[T, 3, H, W]`` in 0..1, and the views it then made."""
    clips: list[Tensor] = []
    condition = model.condition

    def noted(guide: Tensor, *more: object):
        clips.append((guide + 1) / 2)
        return condition(guide, *more)

    monkeypatch.setattr(model, "condition", noted)
    pipeline = NovelViewPipeline(model)
    views = pipeline(scene, path=plan_path(scene, "through", None, (64, 48), 8))
    (clip,) = clips
    return clip[0], views


def test_a_model_that_wants_points_is_shown_the_teachers_renders(scene, monkeypatch):
    clip, views = shown_to(small_model(), scene, monkeypatch)
    cloud = scene.points
    measured = cloud.confidence >= MEASURED
    assert 0.1 < measured.float().mean() < 1
    assert views.photo == [0, *[None] * 6, 1]
    rendered = render_points(cloud.positions[measured], cloud.colors[measured].float() / 255, views.cameras)
    between = slice(1, -1)
    wanted = rendered.image[between].movedim(-1, 1)
    torch.testing.assert_close(clip[between], wanted, atol=0.5 / 255 + 1e-6, rtol=0)  # eight bits, as in training pairs
    faint = (rendered.alpha[between] > 0.05) & (rendered.alpha[between] < 0.45)
    assert faint.any()
    assert wanted.movedim(1, -1)[faint].mean() > 0.01
    for end in (0, -1):
        torch.testing.assert_close((clip[end].movedim(0, -1) * 255).round().byte(), views.frames[end])


def test_a_model_that_wants_lookups_is_shown_the_completed_guide(scene, monkeypatch):
    clip, views = shown_to(small_model(guide="lookup"), scene, monkeypatch)
    pipeline = NovelViewPipeline(None)
    guide = pipeline.guide(scene, pipeline.plan(scene, "through", 8, (64, 48)))
    torch.testing.assert_close(clip, guide.completed.movedim(-1, 1) / 255, atol=1e-6, rtol=0)
    assert not guide.coverage.all()
    assert not guide.images()[~guide.coverage].any()
    assert guide.completed[~guide.coverage].any()
    assert torch.equal(views.guide.completed, guide.completed)


def test_where_photographs_tell_the_picture_a_share_of_the_change_is_taken(scene):
    """In proportion to what they tell: all of it where they say nothing, the share where they alone decide."""
    guide = NovelViewPipeline(None).guide(scene, plan_path(scene, "through", None, (96, 64), 8))
    assert {0, 255} < set(guide.told[1:-1].unique().tolist())
    pictures = {}
    for share in (1.0, 0.25):
        sampling = replace(preset("mini-xs").sampling, told_share=share)
        model = random_model(replace(preset("mini-xs"), sampling=sampling), torch.device("cpu"), torch.float32)
        pictures[share] = NovelViewPipeline(model).complete(scene, guide).pictures[1:-1]
    shown, told = guide.completed[1:-1] / 255, guide.told[1:-1, ..., None] / 255
    change = pictures[1.0] - shown
    assert change.abs().max() > 0.01
    torch.testing.assert_close(pictures[0.25] - shown, (1 - 0.75 * told) * change, atol=1e-6, rtol=0)


def test_a_share_of_the_change_needs_a_model_that_changes_its_guide():
    sampling = replace(preset("mini-xs").sampling, told_share=0.0)
    with pytest.raises(ValueError, match="told_share"):
        replace(preset("mini-xs"), guide="points", sampling=sampling)


def test_one_guide_serves_every_model_and_the_arrows_in_a_row_are_the_call(scene):
    path = plan_path(scene, "through", None, (96, 64), 8)
    guide = NovelViewPipeline(None).guide(scene, path)
    made = []
    for model in (small_model(), small_model(guide="lookup")):
        pipeline = NovelViewPipeline(model)
        completed = pipeline.complete(scene, guide)
        views = pipeline.compose(guide, completed)
        assert torch.equal(views, pipeline(scene, path=path).frames)
        assert completed.pictures.shape[1:3] == views.shape[1:3] == (64, 96)  # small enough for the model itself
        made.append(views)
    assert not torch.equal(*made)
    assert torch.equal(NovelViewPipeline(None).compose(guide, None), guide.completed)


def test_views_are_there_window_by_window(scene):
    """A guide is looked up as its frames are needed, and the same views come out as of a whole one."""
    through, orbit = plan_path(scene, "through", 15, (96, 64), 8), plan_path(scene, "orbit", 20, (64, 48))
    for model, path in ((small_model(), through), (None, through), (small_model(), orbit)):
        pipeline = NovelViewPipeline(model)
        guides: list[list[int]] = []
        made: list[tuple[list[int], int]] = []
        views = pipeline(
            scene,
            path=path,
            callback_on_guide=lambda guide, numbers, guides=guides: guides.append(numbers),
            callback_on_frames=lambda numbers, _, made=made, guides=guides: made.append(
                (numbers, len(sum(guides, [])))
            ),
        )
        whole = pipeline.guide(scene, path)
        for name in ("completed", "told", "coverage", "depth"):
            assert torch.equal(getattr(views.guide, name), getattr(whole, name))
        completed = pipeline.complete(scene, whole) if model else None
        assert torch.equal(pipeline.compose(whole, completed), views.frames)
        assert sorted(sum(guides, [])) == sorted(n for numbers, _ in made for n in numbers) == list(range(len(path)))
        assert made[0][1] <= 16  # frames of the guide were there before the first views
    lazy = NovelViewPipeline(None).guide(scene, orbit, frames=[3])
    assert lazy.completed[3].any()
    assert not lazy.completed[4].any()
    assert lazy.render([3, 4]) == [4]
    assert torch.equal(lazy.completed[[3, 4]], whole.completed[[3, 4]])


def test_weights_are_read_while_the_scene_is_worked_out(scene, monkeypatch):
    """Or in their own time where there is no scene to work out; a broken folder is told of all the same."""
    pipeline = NovelViewPipeline.from_pretrained("mini", device="cpu", deferred=True)
    read, during = threading.Event(), []
    load = VideoModel.load

    def loaded(*arguments):
        during.append(threading.current_thread() is not threading.main_thread())
        read.set()
        return load(*arguments)

    monkeypatch.setattr(VideoModel, "load", loaded)

    def built(photos, *_, **__):
        assert read.wait(20)
        return scene

    monkeypatch.setattr(pipeline, "scene", built)
    views = pipeline(scene.photos, path="through", frames=3, size="model")
    assert len(views.frames) == 3
    NovelViewPipeline.from_pretrained("mini", device="cpu", deferred=True)(scene, frames=3, size="model")
    assert during == [True, False]


def test_the_model_works_at_its_size_and_the_views_have_theirs():
    """Where photographs tell, they decide the detail; where they do not, the model's picture is seen."""
    large = build_scene(made_up_photos(2, 640, 400))
    path = plan_path(large, "through", 4, (640, 400), 8)
    guide = NovelViewPipeline(None).guide(large, path)
    for model in (small_model(), small_model(guide="lookup")):
        pipeline = NovelViewPipeline(model)
        assert pipeline.model_size((640, 400)) == (128, 80)
        completed = pipeline.complete(large, guide)
        assert completed.pictures.shape == (4, 80, 128, 3)
    constant = replace(completed, pictures=torch.full_like(completed.pictures, 0.25))
    views = pipeline.compose(guide, constant)
    assert torch.equal(views[[0, 3]], guide.completed[[0, 3]])  # photographs keep every pixel
    nothing = guide.told[1] == 0
    assert 0.01 < nothing.float().mean() < 0.5
    inner = ~F.max_pool2d((~nothing)[None].float(), 17, 1, 8)[0].bool()
    assert (views[1][inner].float() / 255 - 0.25).abs().mean() < 0.02
    told = ~F.max_pool2d((guide.told[1] < 255)[None].float(), 17, 1, 8)[0].bool()
    sharp = [x[1].float().diff(dim=1)[told[:, 1:]].square().mean() for x in (views, guide.completed)]
    assert 0.7 < sharp[0] / sharp[1] < 1.2  # the detail is the photographs'
    shown = F.interpolate(
        guide.completed.movedim(-1, 1).float() / 255, (80, 128), mode="bicubic", antialias=True, align_corners=False
    )
    same = pipeline.compose(guide, replace(completed, pictures=shown.movedim(1, -1).clamp(0, 1)))
    assert (same.float() - guide.completed.float()).abs().max() <= 1  # no change is no change


def test_between_photographs_and_model_there_is_no_seam_and_no_halo():
    """A grey guide whose left half photographs tell; the model's picture is brighter in the right half."""
    width, height = 640, 400
    left = torch.zeros(1, height, width)
    left[:, :, : width // 2] = 1
    told = (blur(left[..., None], 3.2)[..., 0] * left * 255).round().byte()
    grey = torch.full((1, height, width, 3), 128, dtype=torch.uint8)
    cameras = Cameras(torch.eye(4)[None], torch.eye(3)[None], torch.tensor([[width, height]]))
    guide = Guide(grey, told, left.bool(), torch.ones(1, height, width), cameras, [None])
    pictures = torch.full((1, 160, 256, 3), 128 / 255)
    pictures[:, :, 128:] = 0.8
    row = NovelViewPipeline(None).compose(guide, Completed(pictures, Settings("", 1, 1, 0, "", "")))[0, 200, :, 0] / 255
    assert (row[:316] - 128 / 255).abs().max() < 0.01  # nothing of it leaks to what photographs tell
    assert (row[326:] - 0.8).abs().max() < 0.025
    assert row.min() > 128 / 255 - 0.01
    assert row.max() < 0.825
    assert row.diff().min() > -0.025


def test_a_long_path_of_large_views_fits_into_memory(scene):
    """What is kept of a frame is bytes, not floats: 300 frames of 1024x640 in 2.4 GB at most."""
    views = NovelViewPipeline(small_model())(scene, path=plan_path(scene, "through", 8, (96, 64), 8))
    guide = views.guide
    kept = sum(x.nbytes for x in (views.frames, guide.completed, guide.told, guide.coverage, guide.depth))
    assert kept <= 12 * 8 * 96 * 64


def test_views_are_as_large_as_the_photographs():
    def photos(*sizes):
        images = [torch.zeros(height, width, 3, dtype=torch.uint8) for width, height in sizes]
        return Photos([f"{i}.png" for i in range(len(sizes))], images, [None] * len(sizes))

    pipeline = NovelViewPipeline(small_model())
    assert pipeline.frame_size(photos((1008, 756), (1008, 756))) == (1008, 756)
    assert pipeline.frame_size(photos((4000, 3000))) == (1024, 768)
    assert pipeline.frame_size(photos((3000, 4001))) == (768, 1024)
    assert pipeline.frame_size(photos((641, 481))) == (640, 480)
    assert pipeline.frame_size(photos((640, 480), (480, 640), (640, 480))) == (640, 480)
    assert pipeline.frame_size(photos((1024, 640)), "model") == (128, 80)
    assert pipeline.frame_size(photos((1024, 640)), (770, 482)) == (770, 482)
    for size, why in (((2048, 640), "larger than the photos, of which the longest is 1024x640"), ((99, 64), "even")):
        with pytest.raises(UserError, match=why):
            pipeline.frame_size(photos((1024, 640)), size)


def test_everything_is_made_on_the_pipelines_device(scene, monkeypatch):
    asked = []
    to = PointCloud.to
    monkeypatch.setattr(PointCloud, "to", lambda cloud, device: asked.append(device) or to(cloud, "cpu"))
    for model, times in ((None, 1), (small_model(), 2)):
        pipeline = NovelViewPipeline(model)
        pipeline.device = torch.device("cpu", 0)  # equal to no other that may be left over
        pipeline(scene, path=plan_path(scene, "through", None, (64, 48), 8))
        assert asked == [pipeline.device] * times
        asked.clear()


def test_a_folder_from_before_look_up_is_read(tmp_path):
    shutil.copytree(WEIGHTS / "mini", tmp_path / "old")
    index = tmp_path / "old" / "model_index.json"
    index.write_text(index.read_text().replace('"lookup"', '"surface"'))
    assert read_config(tmp_path / "old").guide == "lookup"


@pytest.mark.parametrize(("completed", "kind"), [(True, "lookup"), (False, "points")])
def test_folders_from_before_there_were_two_kinds_are_read(completed, kind, tmp_path):
    shutil.copytree(WEIGHTS / "mini", tmp_path / "old")
    index = tmp_path / "old" / "model_index.json"
    values = json.loads(index.read_text())
    assert values.pop("guide") == "lookup"
    values["sampling"].pop("told_share")
    index.write_text(json.dumps({**values, "completed_guide": completed}))
    assert read_config(tmp_path / "old").guide == kind
    again = tmp_path / "again"
    VideoModel.load(tmp_path / "old").save(again)
    assert read_config(again).guide == kind
    assert "completed_guide" not in (again / "model_index.json").read_text()


def test_the_share_of_the_change_had_another_name(tmp_path):
    shutil.copytree(WEIGHTS / "mini", tmp_path / "old")
    index = tmp_path / "old" / "model_index.json"
    index.write_text(index.read_text().replace('"told_share": 0.0', '"measured_share": 0.25'))
    assert read_config(tmp_path / "old").sampling.told_share == 0.25


def test_a_guide_that_nobody_knows_is_refused(tmp_path):
    shutil.copytree(WEIGHTS / "mini", tmp_path / "odd")
    index = tmp_path / "odd" / "model_index.json"
    index.write_text(index.read_text().replace('"lookup"', '"depth"'))
    with pytest.raises(UserError, match="guide 'depth' is neither lookup nor points"):
        read_config(tmp_path / "odd")
    with pytest.raises(ValueError, match="neither lookup nor points"):
        ModelConfig(guide="depth")


def test_masked_pixels_give_no_points_and_no_colours(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    """A magenta block in one photo, masked: other views do not know of it, and the photo as a frame keeps it."""
    magenta = torch.tensor([255, 0, 255], dtype=torch.uint8)
    mask = torch.ones(64, 96, dtype=torch.bool)
    mask[20:44, 30:60] = False
    photos, found = replace(scene.photos, images=[image.clone() for image in scene.photos.images]), scene.depths[1]
    photos.images[1][~mask] = magenta
    painted = [scene.depths[0], replace(found, image=photos.images[1])]
    assert found.image.shape == photos.images[1].shape
    monkeypatch.setattr("fvgen.scene.depth.estimate_depths", lambda *_, **__: painted)

    def is_magenta(colours: Tensor) -> Tensor:
        return (colours.float() - magenta).abs().amax(-1) < 60

    assert is_magenta(build_scene(photos).points.colors).sum() > 100
    made = build_scene(replace(photos, masks=[None, mask]))
    assert not made.depths[1].depth[~mask].any()
    assert not made.depths[1].confidence[~mask].any()
    assert made.depths[1].depth[mask].count_nonzero() > 0.9 * found.depth[mask].count_nonzero()
    assert torch.equal(made.depths[0].depth, scene.depths[0].depth)
    assert not is_magenta(made.points.colors).any()
    views = NovelViewPipeline.from_pretrained("none")(made, frames=5, size=(96, 64))
    assert views.photo == [0, None, None, None, 1]
    assert is_magenta(views.frames[4]).sum() > 500
    assert not is_magenta(views.frames[:4]).any()


def test_paths_are_checked_before_geometry(scene: Scene, tmp_path, monkeypatch):
    """Cameras of a file are in the world of given ones, so nothing else is needed to read it; numbers need less."""

    def computed(*_: object, **__: object) -> None:
        raise AssertionError("geometry was computed")

    monkeypatch.setattr("fvgen.pipeline.build_scene", computed)
    pipeline, photos = NovelViewPipeline.from_pretrained("none"), scene.photos
    assert photos.cameras is not None
    file = tmp_path / "camera_path.json"
    for content, message in (
        ('{"camera_path": [{"camera_to_world": [0], "fov": 50}, {}]}', "camera 0: its matrix"),
        ('{"frames": []}', "no frames"),
        ('{"keyframes": [{"fov": 50}]}', 'only keyframes, no "camera_path"'),
    ):
        file.write_text(content)
        with pytest.raises(UserError, match=message):
            pipeline(photos, path=file)
    pose = {"camera_to_world": torch.eye(4).flatten().tolist(), "fov": 50}
    file.write_text(json.dumps({"camera_path": [pose, pose]}))
    with pytest.raises(UserError, match="`frames` 3"):
        pipeline(photos, path=file, frames=3)
    with pytest.raises(UserError, match="in the world of given cameras"):
        pipeline(replace(photos, cameras=None), path=file)
    with pytest.raises(UserError, match="in the world of given cameras"):
        pipeline(photos, path=file, geometry="colmap")
    with pytest.raises(UserError, match="nor a path of this name"):
        pipeline(photos, path="sideways")
    few, count = replace(photos, cameras=None), len(photos)
    with pytest.raises(UserError, match=f"{count - 1} frames cannot pass through {count} photos"):
        pipeline(few, frames=count - 1)
    with pytest.raises(UserError, match=f"photo=9: there are {count} photos"):
        pipeline(photos, path="viewcrafter:target,d_phi=3,photo=9")
    with pytest.raises(UserError, match="needs 2 frames from photo to photo"):
        pipeline(photos, path="viewcrafter:between", frames=1)
    with pytest.raises(AssertionError, match="geometry was computed"):
        pipeline(photos, path="viewcrafter:between", frames=2 * count - 1)
    with pytest.raises(AssertionError, match="geometry was computed"):
        pipeline(photos, path=file)

"""Windows, sizes and the whole way from photos to views."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fvgen.cameras.windows import plan_windows
from fvgen.errors import UserError
from fvgen.evaluation.benchmark.photos import made_up_photos
from fvgen.evaluation.benchmark.random_model import random_model
from fvgen.models import preset
from fvgen.models.model import WEIGHTS, ModelConfig, SamplingConfig, VideoModel, read_config
from fvgen.pipeline import NovelViewPipeline, fitting_size, make_guide, plan_path
from fvgen.rendering import render_points
from fvgen.scene.build import build_scene
from fvgen.scene.photos import load_photos
from fvgen.scene.types import Scene
from pretend_device import GPU, PretendedGpu

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
    views = pipeline.along(scene, plan_path(scene, "through", None, (64, 48), 8))
    (clip,) = clips
    return clip[0], views


def test_a_model_that_wants_points_is_shown_the_teachers_renders(scene, monkeypatch):
    clip, views = shown_to(small_model(), scene, monkeypatch)
    cloud = scene.points
    measured = cloud.confidence >= 0.05
    assert 0.1 < measured.float().mean() < 1
    cameras = views.cameras
    assert views.photo == [0, *[None] * 6, 1]
    rendered = render_points(cloud.positions[measured], cloud.colors[measured].float() / 255, cameras)
    between = slice(1, -1)
    wanted = rendered.image[between].movedim(-1, 1)
    torch.testing.assert_close(clip[between], wanted, atol=1e-6, rtol=0)
    faint = (rendered.alpha[between] > 0.05) & (rendered.alpha[between] < 0.45)
    assert faint.any()
    assert wanted.movedim(1, -1)[faint].mean() > 0.01
    for end in (0, -1):
        torch.testing.assert_close((clip[end].movedim(0, -1) * 255).round().byte(), views.frames[end])
    assert torch.equal(views.guide, views.completed)
    torch.testing.assert_close(views.guide[between], (wanted.movedim(1, -1) * 255).round().byte())
    assert torch.equal(views.coverage[between], rendered.alpha[between] >= 0.5)


def test_a_model_that_wants_surfaces_is_shown_the_completed_guide(scene, monkeypatch):
    clip, views = shown_to(small_model(guide="surface"), scene, monkeypatch)
    guide = make_guide(scene, plan_path(scene, "through", None, (64, 48), 8), "surface", "cpu")
    torch.testing.assert_close(clip, guide.completed.movedim(-1, 1), atol=1e-6, rtol=0)
    assert not guide.coverage.all()
    assert not views.guide[~views.coverage].any()
    assert views.completed[~views.coverage].any()


@pytest.mark.parametrize("kind", ["surface", "points"])
def test_the_guide_is_made_where_it_is_asked_for(scene, kind):
    path = plan_path(scene, "through", None, (64, 48), 4)
    with PretendedGpu():
        there = make_guide(scene, path, kind, "cuda")
        assert there.completed.device == there.coverage.device == there.depth.device == GPU
    assert torch.equal(there.completed.as_subclass(Tensor), make_guide(scene, path, kind, "cpu").completed)


def test_the_pipelines_device_makes_the_guide(scene, monkeypatch):
    """All the way from points to frames; only what is written comes back."""
    devices = []
    real = make_guide
    monkeypatch.setattr("fvgen.pipeline.make_guide", lambda *a: devices.append(a[2:]) or real(*a[:3], "cpu"))
    for model, kind in ((None, "surface"), (small_model(), "points")):
        pipeline = NovelViewPipeline(model)
        pipeline.device = torch.device("cpu", 0)  # equal to no other that may be left over
        pipeline.along(scene, plan_path(scene, "through", None, (64, 48), 8))
        assert devices.pop() == (kind, pipeline.device)


@pytest.mark.parametrize(("completed", "kind"), [(True, "surface"), (False, "points")])
def test_folders_from_before_there_were_two_kinds_are_read(completed, kind, tmp_path):
    shutil.copytree(WEIGHTS / "mini", tmp_path / "old")
    index = tmp_path / "old" / "model_index.json"
    values = json.loads(index.read_text())
    assert values.pop("guide") == "surface"
    index.write_text(json.dumps({**values, "completed_guide": completed}))
    assert NovelViewPipeline.from_pretrained(tmp_path / "old", deferred=True).guide_kind == kind
    again = tmp_path / "again"
    VideoModel.load(tmp_path / "old").save(again)
    assert read_config(again).guide == kind
    assert "completed_guide" not in (again / "model_index.json").read_text()


def test_a_guide_that_nobody_knows_is_refused(tmp_path):
    shutil.copytree(WEIGHTS / "mini", tmp_path / "odd")
    index = tmp_path / "odd" / "model_index.json"
    index.write_text(index.read_text().replace('"surface"', '"lookup"'))
    with pytest.raises(UserError, match="guide 'lookup' is neither surface nor points"):
        read_config(tmp_path / "odd")
    with pytest.raises(ValueError, match="neither surface nor points"):
        ModelConfig(guide="depth")

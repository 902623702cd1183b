"""Windows, sizes and the whole way from photos to views."""

from dataclasses import replace
from pathlib import Path

import pytest

from fvgen.cameras.windows import plan_windows
from fvgen.pipeline import NovelViewPipeline, fitting_size
from fvgen.scene.photos import load_photos

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

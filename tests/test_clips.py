"""Which clips a training draws: lengths, ends, what the image tower sees; pairs that do not fit are refused."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fvgen.data.latents import LatentCorpus, check_size
from fvgen.data.procedural_corpus import ProceduralCorpus
from fvgen.data.reader import PairShards
from fvgen.data.recipe import PAPER_CLIPS, ClipDraw, ProceduralRecipe
from fvgen.data.samples import Sample
from fvgen.data.shards import write_manifest, write_scene
from fvgen.errors import UserError
from fvgen.models import VideoModel, preset
from fvgen.models.conditioner import squared
from fvgen.training.recipes import MINI_STUDENT, MINI_TEACHER, VIEWCRAFTER_STUDENT, VIEWCRAFTER_TEACHER
from test_shards import noise_pair

LENGTHS = (16, 16, 16, 12, 9, 6)


def between_photos(seed: int, frames: int):
    """A pair whose first and last frame are photographs."""
    pair = noise_pair(seed, frames)
    pair.photo[-1] = True
    pair.guide[-1] = pair.frames[-1]
    return pair


@pytest.fixture(scope="module")
def model() -> VideoModel:
    torch.manual_seed(0)
    return VideoModel.build(preset("mini-xs")).eval()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, model) -> LatentCorpus:
    folder: Path = tmp_path_factory.mktemp("pairs")
    for k, frames in enumerate(LENGTHS):
        write_scene(folder, "train", f"s{k}", [Sample(f"s{k}-0", between_photos(k, frames), {"guide": "lookup"})])
    write_manifest(folder)
    found = LatentCorpus(folder, model)
    found.refresh()
    return found


def ends_of(batch) -> tuple[bool, bool]:
    """Whether the guide is the truth itself at the first and at the last frame."""
    channels = batch.latents.shape[1]
    same = (batch.concat[0, :channels] == batch.latents[0]).flatten(2).all(2).all(0)
    return bool(same[0]), bool(same[-1])


def drawn(corpus: LatentCorpus, draw: ClipDraw, count: int) -> tuple[Counter, Counter]:
    lengths, ends = Counter[int](), Counter[tuple[bool, bool]]()
    for k in range(count):
        batch = corpus.sample((0, k), range(1), replace(draw, crop=None))
        lengths[batch.latents.shape[2]] += 1
        ends[ends_of(batch)] += 1
    return lengths, ends


@pytest.mark.parametrize("recipe", [VIEWCRAFTER_STUDENT, VIEWCRAFTER_TEACHER])
def test_the_papers_clips_have_sixteen_frames_and_a_photograph_at_both_ends(corpus, recipe):
    lengths, ends = drawn(corpus, recipe.clips, 1000)
    assert lengths == {16: 1000}
    assert ends == {(True, True): 1000}


@pytest.mark.parametrize("recipe", [MINI_STUDENT, MINI_TEACHER])
def test_minis_clips_have_two_to_eight_frames_from_anywhere(corpus, recipe):
    lengths, ends = drawn(corpus, recipe.clips, 1000)
    assert set(lengths) == set(range(2, 9))
    assert min(lengths.values()) > 90
    assert ends[True, False] + ends[False, True] > 500  # two thirds lie at an end of their pair, either way round
    assert ends[False, False] > 150


def test_a_clip_is_a_function_of_its_row_whoever_draws_it(corpus):
    draw = replace(MINI_STUDENT.clips, crop=(4, 4))
    whole = corpus.sample((3, 5), range(6), draw)
    parts = [corpus.sample((3, 5), rows, draw) for rows in (range(2), range(2, 3), range(3, 6))]
    for name in ("latents", "concat", "images"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in parts]))


def test_reversal_is_the_recipes(corpus):
    draw = ClipDraw(16, 16, "photos", reverse=0.0)
    firsts = {name: corpus.clip(name).latents[:, 0].float() for name in corpus.clips}
    for reverse, expected in ((0.0, 30), (1.0, 0)):
        batches = [corpus.sample((k,), range(1), replace(draw, reverse=reverse)) for k in range(30)]
        forward = sum(any(torch.equal(b.latents[0, :, 0], f) for f in firsts.values()) for b in batches)
        assert forward == expected


def test_the_image_tower_sees_what_the_guide_shows_as_in_use(corpus, model, tmp_path):
    """Also where the guide's first frame is no photograph; only 8-bit rounding of the small picture is between them."""
    resized = replace(model.config, vision=replace(model.config.vision, resize="blurred"))
    for config in (model.config, resized):
        other = VideoModel(config, model.autoencoder, model.conditioner, model.denoiser)
        folder = tmp_path / config.vision.resize
        pair = between_photos(0, 4)
        pair.photo[0] = False
        write_scene(folder, "train", "a", [Sample("a-0", pair)])
        again = LatentCorpus(folder, other)
        again.refresh()
        flipped, stored = again.clip("a/a-0"), PairShards(folder).read(0)[0]
        for frame in (0, 1):
            shown = torch.from_numpy(stored.guide[frame]).permute(2, 0, 1).float() / 127.5 - 1
            used = squared(shown[None], config.vision.image_size, config.vision.resize)[0].clamp(-1, 1)
            trained = flipped.images[frame].float() / 127.5 - 1
            errors = [(x - trained).square().mean() for x in (used, used.flip(-1))]  # half of the clips are mirrored
            assert 10 * np.log10(4 / float(min(errors))) > 50


def test_pairs_that_do_not_fit_are_refused(corpus, model, tmp_path):
    with pytest.raises(UserError, match="photographs at both ends of 5 to 5 frames.*`frames` 5.*`ends` anywhere"):
        corpus.sample((0,), range(1), ClipDraw(5, 5, "photos"))
    with pytest.raises(UserError, match="20 frames or more.*`least_frames`"):
        corpus.sample((0,), range(1), ClipDraw(24, 20))
    with pytest.raises(UserError, match="32x16 for a model of 128x80.*`size` 128x80"):
        check_size(corpus, model, PAPER_CLIPS)
    check_size(corpus, model, MINI_STUDENT.clips)  # crops have a size of their own
    write_scene(tmp_path, "train", "a", [Sample("a-0", noise_pair(0), {"guide": "points"})])
    with pytest.raises(UserError, match="prepared with `guide` points, but this model is shown lookup"):
        LatentCorpus(tmp_path, model).refresh()


def test_each_row_of_a_batch_has_procedural_clips_of_its_own(model):
    """So that several processes make each clip once, and none makes those of the others."""
    recipe = ProceduralRecipe(64, 48, 3, 5, depth="exact", reuse=2, window=2, held=1, workers=0)
    corpus, made = ProceduralCorpus(model, recipe, 1), []
    corpus._work = lambda number: made.append(number) or number
    try:
        asked = {
            row: {corpus.choose(np.random.default_rng((row, at)), 3, ClipDraw(4, 3), row, at) for at in range(12)}
            for row in range(3)
        }
        assert not set.intersection(*asked.values())
        assert len(made) == len(set(made))
        between = ClipDraw(4, 4, "photos")
        assert corpus.lengths(between) == [4]
        assert corpus.lengths(ClipDraw(16, 2)) == [2, 3, 4, 5]
    finally:
        corpus.close()

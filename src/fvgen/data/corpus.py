"""A folder of training pairs: made clip by clip, each in a tar of its own, so that making it can stop and go on."""

import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fvgen.data.pairs import Pair, posed_pair, procedural_pair
from fvgen.data.reader import PairShards
from fvgen.data.samples import Sample
from fvgen.data.shards import SPLITS, is_finished, write_manifest, write_scene
from fvgen.data.textures import TextureBank
from fvgen.errors import UserError
from fvgen.progress import track
from fvgen.scene.types import Photos

_HELD_OUT = 40


@dataclass(frozen=True)
class CorpusRecipe:
    """What a corpus holds.

    Attributes:
        procedural: number of procedural clips.
        posed: folders or files with posed photographs in filming order (transforms.json, COLMAP).
        textures: folders of photographs that texture the procedural scenes.
        width, height: of every pair, in pixels.
        shortest, longest: number of frames of a procedural clip; posed clips have 3 to 8.
        seed: of everything random.
    """

    procedural: int = 400
    posed: tuple[Path, ...] = ()
    textures: tuple[Path, ...] = ()
    width: int = 256
    height: int = 160
    shortest: int = 6
    longest: int = 16
    seed: int = 0


def _make_procedural(recipe: CorpusRecipe, index: int) -> Pair:
    rng = np.random.default_rng((recipe.seed, index, 7))
    frames = int(rng.integers(recipe.shortest, recipe.longest + 1))
    bank = TextureBank(list(recipe.textures), 0.6)
    return procedural_pair(recipe.seed * 1_000_003 + index, frames, recipe.width, recipe.height, bank)


def _posed_clips(recipe: CorpusRecipe) -> list[tuple[int, int, int]]:
    """``(source, start, length)`` of every posed clip, in random order."""
    from fvgen.scene.photos import load_photos

    clips, rng = [], np.random.default_rng((recipe.seed, 3))
    for k, source in enumerate(recipe.posed):
        photos = load_photos([source])
        if photos.cameras is None:
            raise UserError(f"{source} has no cameras; training pairs are made from posed photos")
        clips += [(k, start, int(rng.integers(3, 9))) for start in range(len(photos) - 8)]
    return [clips[i] for i in rng.permutation(len(clips))]


class _Maker:
    """Runs in each worker process; keeps the photographs of a source in memory."""

    def __init__(self, recipe: CorpusRecipe) -> None:
        self.recipe = recipe
        self.photos: dict[int, Photos] = {}

    def posed(self, clip: tuple[int, ...]) -> Pair:
        from fvgen.scene.photos import load_photos

        source, start, length = clip
        if source not in self.photos:
            self.photos[source] = load_photos([self.recipe.posed[source]])
        photos = self.photos[source]
        assert photos.cameras is not None
        rows = list(range(start, start + length))
        images = [photos.images[i] for i in rows]
        return posed_pair(images, photos.cameras[rows], self.recipe.width, self.recipe.height)


_maker: _Maker | None = None


def _start(recipe: CorpusRecipe) -> None:
    global _maker
    torch.set_num_threads(1)
    _maker = _Maker(recipe)


def _work(task: tuple[str, tuple[int, ...], Path, str, str]) -> None:
    """One clip, written as a scene of its own; without depth it is counted as dropped, not hidden."""
    kind, values, folder, split, name = task
    assert _maker is not None
    samples, dropped, facts = [], {}, {}
    try:
        pair = _maker.posed(values) if kind == "posed" else _make_procedural(_maker.recipe, values[0])
        samples.append(Sample(name, pair, {"source": kind}))
    except UserError as error:
        dropped, facts = {"no depth": 1}, {"error": str(error)}
    write_scene(folder, split, name, samples, dropped, facts)


def make_corpus(
    recipe: CorpusRecipe, folder: Path, workers: int = 1, should_stop: Callable[[], bool] | None = None
) -> int:
    """Make all pairs that ``folder`` does not hold yet; every 40th procedural scene is held out.

    Args:
        recipe: what to make.
        folder: receives one tar per clip and a manifest, see :mod:`fvgen.data.shards`.
        workers: processes.
        should_stop: asked between pairs.

    Returns:
        How many pairs the folder holds.
    """
    posed = [("posed", clip, folder, "train", f"posed-{i:05d}") for i, clip in enumerate(_posed_clips(recipe))]
    made = [
        ("procedural", (i,), folder, "heldout" if i % _HELD_OUT == 0 else "train", f"procedural-{i:05d}")
        for i in range(recipe.procedural)
    ]
    mixed: list[tuple[str, tuple[int, ...], Path, str, str]] = []
    for i in range(max(len(posed), len(made))):  # interleaved, so that an unfinished corpus is balanced too
        mixed += [tasks[i] for tasks in (posed, made) if i < len(tasks)]
    todo = [t for t in mixed if not is_finished(*t[2:])]
    with multiprocessing.get_context("spawn").Pool(workers, _start, (recipe,)) as pool:
        for _ in track(pool.imap_unordered(_work, todo), "pairs", total=len(todo)):
            if should_stop is not None and should_stop():
                break
    write_manifest(folder)
    return sum(len(PairShards(folder, split)) for split in SPLITS)

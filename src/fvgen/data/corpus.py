"""Where trainings get clips from: a folder of pairs, procedural scenes made on the way, or both."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fvgen.data.folders import check_data
from fvgen.data.latent_cache import LatentClip
from fvgen.data.latents import Corpus, LatentCorpus
from fvgen.data.procedural_corpus import ProceduralCorpus
from fvgen.data.recipe import ClipDraw, ProceduralRecipe
from fvgen.models.model import VideoModel


class MixedCorpus(Corpus):
    """Two corpora: filmed clips of one, procedural ones of the other, in the proportion that a draw asks for."""

    def __init__(self, filmed: Corpus, procedural: Corpus) -> None:
        self.filmed, self.procedural = filmed, procedural

    @property
    def clips(self) -> list[str]:
        """Names of the training clips of both."""
        return self.filmed.clips + self.procedural.clips

    @property
    def held(self) -> list[str]:
        """Names of the held-out clips: filmed ones, or procedural ones where none is filmed."""
        return self.filmed.held or self.procedural.held

    @property
    def sizes(self) -> set[tuple[int, int]]:
        """(width, height) of the pictures of both."""
        return self.filmed.sizes | self.procedural.sizes

    def refresh(self, limit: int | None = None, rank: int = 0, size: int = 1) -> int:
        """Find new clips in both; how many there are for training."""
        return self.filmed.refresh(limit, rank, size) + self.procedural.refresh(limit, rank, size)

    def lengths(self, draw: ClipDraw) -> list[int]:
        """The lengths that both can give, where both are drawn from."""
        shares = ((self.filmed, draw.filmed), (self.procedural, 1 - draw.filmed))
        return sorted(set.intersection(*(set(corpus.lengths(draw)) for corpus, share in shares if share > 0)))

    def choose(self, rng: np.random.Generator, length: int, draw: ClipDraw, row: int, at: int) -> LatentClip:
        """A random clip of one of the two, in the proportion that the draw asks for."""
        if rng.random() < draw.filmed:
            return self.filmed.choose(rng, length, draw, row, at)
        # What the procedural corpus has drawn so far is its share of all.
        return self.procedural.choose(rng, length, draw, row, int(at * (1 - draw.filmed)))

    def identity(self) -> dict[str, Any]:
        """What the clips of both are made from."""
        return self.filmed.identity() | self.procedural.identity()

    def held_clip(self, name: str) -> LatentClip:
        """A held-out clip, by one of the names in :attr:`held`."""
        return (self.filmed if self.filmed.held else self.procedural).held_clip(name)

    def close(self) -> None:
        """End what runs in the background of both."""
        self.filmed.close()
        self.procedural.close()


def open_corpus(
    data: Sequence[str],
    model: VideoModel,
    recipe: ProceduralRecipe | None = None,
    device: torch.device | str = "cpu",
) -> Corpus:
    """The corpus of clips that some names stand for.

    Args:
        data: a folder of pairs, ``procedural`` or ``procedural:SEED``, or one of each.
        model: whose autoencoder encodes clips.
        recipe: of procedural clips.
        device: of the training.

    Raises:
        UserError: the names are none of these, or a folder holds no pairs.
    """
    folders, seeds = check_data(data)
    found: list[Corpus] = [LatentCorpus(folder, model) for folder in folders]
    found += [ProceduralCorpus(model, recipe or ProceduralRecipe(), seed, device) for seed in seeds]
    return found[0] if len(found) == 1 else MixedCorpus(*found)

"""Pairs of procedural scenes, made while a training asks for them: no disk, and the same clips after a restart."""

import copy
import multiprocessing
import threading
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import nn

from fvgen.data.latent_cache import LatentClip, encode_pair
from fvgen.data.latents import Corpus
from fvgen.data.pairs import Pair, procedural_pair
from fvgen.data.recipe import MadeRecipe
from fvgen.data.textures import TextureBank
from fvgen.errors import UserError
from fvgen.models.model import VideoModel

_TRIES = 8  # scenes for one clip, where two photographs share too little
_HELD = 1 << 40  # numbers from here on are kept for measuring
_PHOTO_SHARE = 0.6


class _Maker:
    """Makes clips by number; what a worker holds."""

    def __init__(self, recipe: MadeRecipe, seed: int, encoder: VideoModel, device: torch.device) -> None:
        self.recipe, self.seed, self.encoder, self.device = recipe, seed, encoder, device
        self.bank = TextureBank(list(recipe.textures), _PHOTO_SHARE)

    def clip(self, number: int) -> LatentClip:
        """A function of the recipe, the seed and the number alone."""
        return encode_pair(self.encoder, self.pair(number))

    def pair(self, number: int) -> Pair:
        """See :meth:`clip`."""
        recipe = self.recipe
        for attempt in range(_TRIES):
            rng = np.random.default_rng((self.seed, number, attempt))
            frames = int(rng.integers(recipe.least_frames, recipe.frames + 1))
            scene, options = int(rng.integers(1 << 40)), (frames, recipe.width, recipe.height, self.bank)
            try:
                return procedural_pair(scene, *options, recipe.depth, recipe.flaws, self.device)
            except UserError:
                continue
        raise UserError(f"no clip {number} of seed {self.seed}: in {_TRIES} scenes the photographs share too little")


_maker: _Maker | None = None  # of this process, where it is a worker


def _start(recipe: MadeRecipe, seed: int, encoder: VideoModel) -> None:
    global _maker
    torch.set_num_threads(1)  # sums of several threads differ in their last bits
    _maker = _Maker(recipe, seed, encoder, torch.device("cpu"))


def _work(number: int) -> LatentClip:
    assert _maker is not None
    return _maker.clip(number)


class ProceduralCorpus(Corpus):
    """Clips of procedural scenes, numbered; a training that has drawn ``n`` clips draws from the last few of the first
    ``n / reuse`` ones.

    Clips are made ahead of time by processes of this machine, or where the training is on a GPU by one thread on that
    GPU; as many are ahead as there are workers, so nothing piles up.

    Args:
        model: whose autoencoder is used; it must not change any more.
        recipe: of the pairs.
        seed: of everything random.
        device: of the training.
    """

    def __init__(self, model: VideoModel, recipe: MadeRecipe, seed: int, device: torch.device | str = "cpu") -> None:
        self.recipe, self.seed = recipe, seed
        self._clips: dict[int, Future[LatentClip]] = {}
        self._lock = threading.Lock()
        self._pool: Executor
        self._work: Any = _work
        device = torch.device(device)
        # Only the autoencoder is needed: the networks in training stay where they are.
        alone = copy.deepcopy(model.autoencoder).to(device).eval().requires_grad_(False)
        encoder = VideoModel(model.config, alone, nn.Identity(), nn.Identity())  # type: ignore[arg-type]
        if device.type == "cpu" and recipe.workers:
            self._ahead = recipe.workers
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(recipe.workers, context, _start, (recipe, seed, encoder))
        else:
            self._ahead = 1
            self._pool, self._work = ThreadPoolExecutor(1), _Maker(recipe, seed, encoder, device).clip

    @property
    def clips(self) -> list[str]:
        """The clips that are kept or being made now."""
        with self._lock:
            return [f"procedural-{number:06d}" for number in sorted(self._clips) if number < _HELD]

    @property
    def held(self) -> list[str]:
        """Their number is the recipe's."""
        return [f"procedural-held-{k}" for k in range(self.recipe.held)]

    def refresh(self, limit: int | None = None) -> int:
        """Nothing appears by itself. Returns 1: there is always something to train on."""
        return 1

    def choose(self, rng: np.random.Generator, count: int, posed_share: float, at: int) -> list[LatentClip]:
        """``count`` random clips of those that a training has after it drew ``at`` clips."""
        newest = at // self.recipe.reuse
        oldest = max(0, newest - self.recipe.window + 1)
        numbers = [int(rng.integers(oldest, newest + 1)) for _ in range(count)]
        with self._lock:
            for number in [n for n in self._clips if n < oldest]:
                self._clips.pop(number).cancel()
            wanted = [*numbers, *range(oldest, newest + 1 + self._ahead)]
            futures = {number: self._future(number) for number in wanted if number in numbers or self._room()}
        return [futures[number].result() for number in numbers]

    def _room(self) -> bool:
        return sum(not future.done() for future in self._clips.values()) < 2 * self._ahead

    def _future(self, number: int) -> "Future[LatentClip]":
        if number not in self._clips:
            self._clips[number] = self._pool.submit(self._work, number)
        return self._clips[number]

    def held_clip(self, name: str) -> LatentClip:
        """Made, if it was not yet."""
        with self._lock:
            future = self._future(_HELD + self.held.index(name))
        return future.result()

    def close(self) -> None:
        """End the workers."""
        self._pool.shutdown(cancel_futures=True)

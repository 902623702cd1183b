"""Pairs of procedural scenes, made while a training asks for them: no disk, and the same clips after a restart."""

import copy
import multiprocessing
import threading
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import nn

from fvgen.data.latent_cache import LatentClip, encode_pair
from fvgen.data.latents import Corpus
from fvgen.data.pairs import procedural_pair
from fvgen.data.recipe import ClipDraw, ProceduralRecipe
from fvgen.errors import UserError
from fvgen.models.model import VideoModel
from fvgen.procedural.textures import TextureBank

_TRIES = 8  # scenes for one clip, where two photographs share too little
_HELD = 1 << 60  # numbers from here on are kept for measuring
_ROW = 1 << 32  # numbers of each row
_PHOTO_SHARE = 0.6


class _Maker:
    """Makes clips by number; what a worker holds."""

    def __init__(self, recipe: ProceduralRecipe, seed: int, encoder: VideoModel, device: torch.device) -> None:
        self.recipe, self.seed, self.encoder, self.device = recipe, seed, encoder, device
        self.bank = TextureBank(list(recipe.textures), _PHOTO_SHARE)

    def clip(self, number: int) -> LatentClip:
        """A function of the recipe, the seed and the number alone."""
        recipe = self.recipe
        options = (frames_of(recipe, self.seed, number), recipe.width, recipe.height, self.bank, recipe.depth)
        for attempt in range(_TRIES):
            scene = int(np.random.default_rng((self.seed, number, attempt)).integers(1 << 40))
            try:
                kind = self.encoder.config.guide
                pair = procedural_pair(scene, *options, recipe.flaws, self.device, guide=kind)
            except UserError:
                continue
            return encode_pair(self.encoder, pair)
        raise UserError(f"no clip {number} of seed {self.seed}: in {_TRIES} scenes the photographs share too little")


def frames_of(recipe: ProceduralRecipe, seed: int, number: int) -> int:
    """How many frames the clip of a number has, known before it is made."""
    return int(np.random.default_rng((seed, number)).integers(recipe.least_frames, recipe.frames + 1))


_maker: _Maker | None = None  # of this process, where it is a worker


def _start(recipe: ProceduralRecipe, seed: int, encoder: VideoModel) -> None:
    global _maker
    torch.set_num_threads(1)  # sums of several threads differ in their last bits
    _maker = _Maker(recipe, seed, encoder, torch.device("cpu"))


def _work(number: int) -> LatentClip:
    assert _maker is not None
    return _maker.clip(number)


class ProceduralCorpus(Corpus):
    """Clips of procedural scenes, numbered; each row of a training's batch has its own, so that several processes make
    each clip once. A row that has drawn ``n`` clips draws from the last few of its first ``n / reuse`` ones.

    Clips are made ahead of time by processes of this machine, or where the training is on a GPU by one thread on that
    GPU; as many are ahead as there are workers, so nothing piles up.

    Args:
        model: whose autoencoder is used; it must not change any more.
        recipe: of the pairs.
        seed: of everything random.
        device: of the training.
    """

    def __init__(
        self, model: VideoModel, recipe: ProceduralRecipe, seed: int, device: torch.device | str = "cpu"
    ) -> None:
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
        """Names of the held-out clips, as many as the recipe says."""
        return [f"procedural-held-{k}" for k in range(self.recipe.held)]

    @property
    def sizes(self) -> set[tuple[int, int]]:
        """(width, height) of all clips, the recipe's."""
        return {(self.recipe.width, self.recipe.height)}

    def identity(self) -> dict[str, Any]:
        """Recipe and seed, as JSON; how many workers there are changes nothing."""
        return {"procedural": {**asdict(self.recipe), "workers": None, "seed": self.seed}}

    def refresh(self, limit: int | None = None, rank: int = 0, size: int = 1) -> int:
        """Always 1, because there is always something to train on; no clips appear by themselves."""
        return 1

    def lengths(self, draw: ClipDraw) -> list[int]:
        """The lengths of a draw that the recipe's clips can have; photographs are at both of their ends."""
        longest = self.recipe.frames
        shortest = self.recipe.least_frames if draw.ends == "photos" else 2
        return list(range(max(draw.least_frames, shortest), min(draw.frames, longest) + 1))

    def choose(self, rng: np.random.Generator, length: int, draw: ClipDraw, row: int, at: int) -> LatentClip:
        """A random one of the clips that a row has at its ``at``-th draw, of those that have windows of the length.

        Where none has, the next one that will.
        """
        newest = at // self.recipe.reuse
        oldest = max(0, newest - self.recipe.window + 1)
        fit = [k for k in range(oldest, newest + 1) if self._fits(row, k, length, draw)]
        while not fit:
            newest += 1
            fit = [newest] if self._fits(row, newest, length, draw) else []
        start, chosen = row * _ROW, fit[int(rng.integers(len(fit)))]
        with self._lock:
            for old in [number for number in self._clips if start <= number < start + oldest]:
                self._clips.pop(old).cancel()
            future = self._future(start + chosen)
            for ahead in range(oldest, newest + 1 + self._ahead):
                if sum(not clip.done() for clip in self._clips.values()) < 2 * self._ahead:
                    self._future(start + ahead)
        return future.result()

    def _fits(self, row: int, k: int, length: int, draw: ClipDraw) -> bool:
        frames = frames_of(self.recipe, self.seed, row * _ROW + k)
        return frames == length if draw.ends == "photos" else frames >= length

    def _future(self, number: int) -> "Future[LatentClip]":
        if number not in self._clips:
            self._clips[number] = self._pool.submit(self._work, number)
        return self._clips[number]

    def held_clip(self, name: str) -> LatentClip:
        """A held-out clip, by one of the names in :attr:`held`; made when it is first asked for."""
        with self._lock:
            future = self._future(_HELD + self.held.index(name))
        return future.result()

    def close(self) -> None:
        """End the processes or the thread that make clips."""
        self._pool.shutdown(cancel_futures=True)

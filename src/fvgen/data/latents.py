"""Training pairs as latents, read from the disk as they are needed, and random clips cut from them."""

import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from fvgen.data.latent_cache import ClipEntry, LatentCache, LatentClip, fingerprint, load_clip
from fvgen.data.reader import PairShards
from fvgen.data.recipe import ClipDraw
from fvgen.data.shards import MANIFEST, SPLITS, Shard
from fvgen.errors import UserError
from fvgen.models.model import VideoModel
from fvgen.progress import track


@dataclass(frozen=True)
class ClipBatch:
    """Equal-sized clips.

    Attributes:
        latents: ``[B, C, T, h, w]``, the truth, unscaled ``x0``.
        concat: ``[B, Cc, T, h, w]``.
        images: ``[B, 3, s, s]`` in -1..1, the first frame of each clip's guide, as :class:`LatentClip` has it.
    """

    latents: Tensor
    concat: Tensor
    images: Tensor

    def to(self, device: torch.device) -> "ClipBatch":
        """The same clips on a device."""
        return ClipBatch(*(part.to(device) for part in (self.latents, self.concat, self.images)))


def starts_of(photos: Sequence[int], frames: int, length: int, ends: str) -> list[int]:
    """Where windows of ``length`` frames may begin in a clip of ``frames``.

    With ``ends="photos"`` a window begins and ends at one of the frames that are ``photos``.
    """
    if ends == "photos":
        return [k for k in photos if k + length - 1 in photos]
    return list(range(frames - length + 1))


class Corpus(ABC):
    """Where a training gets its clips from."""

    @property
    @abstractmethod
    def clips(self) -> list[str]:
        """Names of the training clips."""

    @property
    @abstractmethod
    def held(self) -> list[str]:
        """Names of the held-out clips."""

    @property
    @abstractmethod
    def sizes(self) -> set[tuple[int, int]]:
        """(width, height) of the clips."""

    @abstractmethod
    def refresh(self, limit: int | None = None, rank: int = 0, size: int = 1) -> int:
        """Find new clips, and return how many there are for training.

        All of ``size`` processes call it, each with its ``rank``, and share the work.
        """

    @abstractmethod
    def lengths(self, draw: ClipDraw) -> list[int]:
        """The lengths that clips of a draw can have, ascending."""

    @abstractmethod
    def choose(self, rng: np.random.Generator, length: int, draw: ClipDraw, row: int, at: int) -> LatentClip:
        """A random clip that has windows of the length, for one row of the ``at``-th batch of a training."""

    @abstractmethod
    def held_clip(self, name: str) -> LatentClip:
        """A held-out clip, by its name."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What the clips are made from, as JSON; below ``scenes`` by name what may become more during a training."""

    def sample(self, key: tuple[int, ...], rows: range, draw: ClipDraw, at: int = 0) -> ClipBatch:
        """Some rows of the batch that ``key`` names: each a function of the key and its number, whatever the others.

        Args:
            key: numbers of at least 0.
            rows: their numbers in the whole batch.
            draw: which clips.
            at: how many batches a training drew before; matters only to corpora whose clips change.

        Raises:
            UserError: no clip is fit for the draw.
        """
        lengths = self.lengths(draw)
        if not lengths:
            raise UserError(
                f"no training pair has photographs at both ends of {draw.least_frames} to {draw.frames} frames: "
                f"prepare pairs with `frames` {draw.frames}, or train with `ends` anywhere"
                if draw.ends == "photos"
                else f"no training pair has {draw.least_frames} frames or more: choose a smaller `least_frames`"
            )
        length = lengths[int(np.random.default_rng(key).integers(len(lengths)))]
        clips = []
        for row in rows:
            rng = np.random.default_rng((*key, row))
            clips.append(drawn(rng, _window(rng, self.choose(rng, length, draw, row, at), length, draw)))
        return collate(clips)

    def held_batch(self, name: str, frames: int) -> ClipBatch:
        """The beginning of a held-out clip, at most so many frames, as a batch of one."""
        c = self.held_clip(name)
        return collate([LatentClip(c.latents[:, :frames], c.concat[:, :frames], c.images[:frames], c.photo[:frames])])

    def close(self) -> None:  # noqa: B027
        """End what runs in the background, if anything does."""


def check_size(corpus: Corpus, model: VideoModel, draw: ClipDraw) -> None:
    """Refuse whole pairs of another size than the model's, and crops that its network cannot halve.

    Raises:
        UserError: the size of pairs, or of the crop, is wrong.
    """
    halved = model.config.grid // model.config.autoencoder.spatial_factor
    if draw.crop is not None and any(side % halved for side in draw.crop):
        height, width = draw.crop
        raise UserError(f"`crop` {height} {width}: both must be multiples of {halved} latents")
    wanted = (model.config.width, model.config.height)
    other = sorted(size for size in corpus.sizes if size not in (wanted, wanted[::-1]))
    if other and draw.crop is None:
        given, size = ("x".join(map(str, pair)) for pair in (other[0], wanted))
        raise UserError(f"training pairs of {given} for a model of {size}: prepare pairs with `size` {size}, or `crop`")


class LatentCorpus(Corpus):
    """All pairs of a folder as latents; scenes that appear later are picked up by :meth:`refresh`.

    Only as many clips as fit into the memory allowed stay there, those used last; it need not hold the corpus. Latents
    are drawn from the autoencoder's posterior for models that are sampled so (``sample_guide``); else its means.

    Args:
        folder: of pairs; ``heldout`` is kept for measuring.
        model: whose autoencoder is used; it must not change any more.
        memory_gb: for clips.

    Attributes:
        damaged: see :class:`fvgen.data.reader.PairShards`.
    """

    def __init__(self, folder: Path, model: VideoModel, memory_gb: float = 4.0) -> None:
        self.folder, self.model, self.posterior = folder, model, model.config.sampling.sample_guide
        self._entries: dict[str, dict[str, ClipEntry]] = {split: {} for split in SPLITS}
        self.damaged: dict[str, str] = {}
        self._files: dict[str, Path] = {}
        self._known: dict[tuple[str, str], dict[str, ClipEntry]] = {}  # by tar and its digest
        self._memory = _Memory(int(memory_gb * 1e9))
        self._fingerprint = fingerprint(model)
        self._seen: tuple[int, ...] | None = None
        self._scenes: dict[str, str] = {}
        self._fitting = lru_cache(maxsize=64)(self._find_fitting)

    @property
    def clips(self) -> list[str]:
        """Sorted names ``SCENE/KEY`` of the training clips; those that begin with ``procedural`` are not filmed."""
        return list(self._entries["train"])

    @property
    def held(self) -> list[str]:
        """Sorted names ``SCENE/KEY`` of the held-out clips."""
        return list(self._entries["heldout"])

    @property
    def sizes(self) -> set[tuple[int, int]]:
        """(width, height) of the pictures of training and held-out clips."""
        return {entry.size for entries in self._entries.values() for entry in entries.values()}

    @property
    def cached_in(self) -> Path:
        """The folder of the cached latents."""
        return self.folder / f"latents-{self._fingerprint}"

    def identity(self) -> dict[str, Any]:
        """The tars by their SHA-256, and the autoencoder."""
        return {"latents": self._fingerprint, "scenes": self._scenes}

    def refresh(self, limit: int | None = None, rank: int = 0, size: int = 1) -> int:
        """Find scenes not seen before and encode what is not cached, scene by scene, until ``limit`` clips or more.

        Several processes encode a scene in turn; then each waits for the files of the others, however long it takes.

        Returns:
            How many clips there are for training.
        """
        paths = [self.folder / name for name in (MANIFEST, *SPLITS)]  # one of them changes when a scene appears
        state = tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in paths)
        if state == self._seen:
            return len(self.clips)
        found: dict[str, dict[str, ClipEntry]] = {split: {} for split in SPLITS}
        encoded, all_done, self._scenes = 0, True, {}
        for split in SPLITS:
            shards = PairShards(self.folder, split)
            cache = LatentCache(shards, self.model, self._fingerprint)
            of_others: list[Shard] = []
            for number, shard in enumerate(track(shards.shards, f"latents of {split}")):
                known = self._known.get((shard.name, shard.sha256)) if shard.sha256 else None
                entries = known or cache.entries(shard)
                if entries is None:
                    if number % size != rank:
                        of_others.append(shard)
                        continue
                    if limit is not None and encoded >= limit:
                        all_done = False
                        continue
                    entries = cache.encode(shard)
                    encoded += len(entries)
                self._take(found, cache, shard, entries)
            for shard in track(of_others, f"latents of {split}, by other processes") if of_others else ():
                while (entries := cache.entries(shard)) is None:
                    time.sleep(0.2)
                self._take(found, cache, shard, entries)
            self.damaged |= shards.damaged
        self._entries = {split: dict(sorted(found[split].items())) for split in SPLITS}
        self._seen = state if all_done else None
        self._fitting.cache_clear()
        return len(self.clips)

    def _take(self, found: dict, cache: LatentCache, shard: Shard, entries: dict[str, ClipEntry]) -> None:
        self._known[shard.name, shard.sha256] = entries
        self._scenes[shard.name] = cache.identity(shard)
        names = {f"{shard.scene}/{key}": entry for key, entry in entries.items()}
        found[shard.split] |= names
        self._files |= dict.fromkeys(names, cache.path(shard))

    def clip(self, name: str) -> LatentClip:
        """A clip, from memory or from the disk.

        Raises:
            UserError: its file of latents is no longer there or whole.
        """
        kept = self._memory.get(name)
        if kept is None:
            try:
                kept = load_clip(self._files[name], name.rpartition("/")[2], self.posterior)
            except (OSError, SafetensorError) as error:
                raise UserError(f"{self._files[name]}: cached latents cannot be read ({error}); remove it") from None
            self._memory.put(name, kept)
        return kept

    def lengths(self, draw: ClipDraw) -> list[int]:
        """The lengths of a draw for which there are clips."""
        return [n for n in range(draw.least_frames, draw.frames + 1) if any(self._fitting(n, draw.ends))]

    def _find_fitting(self, length: int, ends: str) -> tuple[list[str], list[str]]:
        """Names of procedural and of filmed clips that have windows of a length."""
        found: tuple[list[str], list[str]] = ([], [])
        for name, entry in self._entries["train"].items():
            if starts_of(entry.photos, entry.frames, length, ends):
                found[not name.startswith("procedural")].append(name)
        return found

    def choose(self, rng: np.random.Generator, length: int, draw: ClipDraw, row: int, at: int) -> LatentClip:
        """A random clip, filmed or procedural as the draw asks for; ``row`` and ``at`` change nothing."""
        procedural, filmed = self._fitting(length, draw.ends)
        names = filmed if procedural == [] or (filmed and rng.random() < draw.filmed) else procedural
        return self.clip(names[rng.integers(len(names))])

    held_clip = clip


class _Memory:
    """Clips by their keys, those used last, up to so many bytes; for several threads."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0
        self._clips: OrderedDict[str, LatentClip] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> LatentClip | None:
        with self._lock:
            if key in self._clips:
                self._clips.move_to_end(key)
            return self._clips.get(key)

    def put(self, key: str, clip: LatentClip) -> None:
        with self._lock:
            if key in self._clips:
                return
            self._clips[key] = clip
            self.used += clip.bytes
            while self.used > self.limit:
                self.used -= self._clips.popitem(last=False)[1].bytes


def _window(rng: np.random.Generator, clip: LatentClip, length: int, draw: ClipDraw) -> LatentClip:
    total, h, w = clip.latents.shape[1:]
    starts = starts_of(clip.photo.nonzero()[:, 0].tolist(), total, length, draw.ends)
    start = starts[rng.integers(len(starts))]
    if draw.ends == "anywhere":
        start = (0, total - length, start)[rng.integers(3)]
    rows = torch.arange(start, start + length)
    if rng.random() < draw.reverse:
        rows = rows.flip(0)
    height, width = draw.crop or (h, w)
    if height > h or width > w:
        raise UserError(f"`crop` {height} {width}: the latents of the training pairs are {h} x {w}")
    top, left = int(rng.integers(h - height + 1)), int(rng.integers(w - width + 1))

    def cut(part: Tensor) -> Tensor:
        return part[:, rows, top : top + height, left : left + width]

    deviations = (part if part is None else cut(part) for part in (clip.deviation, clip.guide_deviation))
    return LatentClip(cut(clip.latents), cut(clip.concat), clip.images[rows], clip.photo[rows], *deviations)


def drawn(rng: np.random.Generator, clip: LatentClip) -> LatentClip:
    """A clip drawn from the posterior, truth and guide apart, where its deviations are there; else as it is."""
    if clip.deviation is None or clip.guide_deviation is None:
        return clip
    generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
    noises = (torch.randn(clip.latents.shape, generator=generator) for _ in range(2))
    latents = clip.latents.float() + clip.deviation.float() * next(noises)
    guide = clip.concat[: len(latents)].float() + clip.guide_deviation.float() * next(noises)
    return replace(clip, latents=latents, concat=torch.cat([guide, clip.concat[len(latents) :].float()]))


def collate(clips: list[LatentClip]) -> ClipBatch:
    """Stack clips of one size; the image tower sees the first frame of each guide."""
    return ClipBatch(
        torch.stack([c.latents.float() for c in clips]),
        torch.stack([c.concat.float() for c in clips]),
        torch.stack([c.images[0].float() for c in clips]) / 127.5 - 1,
    )

"""Training pairs as latents, read from the disk as they are needed, and random clips cut from them."""

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from fvgen.data.latent_cache import LatentCache, LatentClip, fingerprint, load_clip
from fvgen.data.reader import PairShards
from fvgen.data.shards import MANIFEST, SPLITS
from fvgen.errors import UserError
from fvgen.models.model import VideoModel
from fvgen.progress import track


@dataclass(frozen=True)
class ClipBatch:
    """Equal-sized clips.

    Attributes:
        latents: ``[B, C, T, h, w]``, the truth, unscaled ``x0``.
        concat: ``[B, Cc, T, h, w]``.
        images: ``[B, 3, s, s]`` in -1..1, the first frame of each clip.
    """

    latents: Tensor
    concat: Tensor
    images: Tensor


class Corpus(ABC):
    """Where a training gets its clips from."""

    @property
    @abstractmethod
    def clips(self) -> list[str]:
        """Names of the clips for training."""

    @property
    @abstractmethod
    def held(self) -> list[str]:
        """Names of the held-out clips."""

    @abstractmethod
    def refresh(self, limit: int | None = None) -> int:
        """Find new clips; how many there are for training."""

    @abstractmethod
    def choose(self, rng: np.random.Generator, count: int, posed_share: float, at: int) -> list[LatentClip]:
        """``count`` random clips of a training that drew ``at`` clips before."""

    @abstractmethod
    def held_clip(self, name: str) -> LatentClip:
        """A held-out clip."""

    def sample(
        self,
        rng: np.random.Generator,
        batch: int,
        frames: int,
        size: tuple[int, int] | None,
        posed_share: float = 0.5,
        at: int = 0,
    ) -> ClipBatch:
        """Random windows of ``frames`` frames, some played backwards, cropped to ``size = (h, w)`` latents.

        All clips of a batch have the length of the shortest chosen one, at most ``frames``. ``posed_share`` of them
        are filmed for real, where the corpus has both kinds. ``at``, how many clips a training drew before, matters
        only to corpora whose clips change.
        """
        return windows(rng, self.choose(rng, batch, posed_share, at), frames, size)

    def held_batches(self, frames: int) -> Iterator[ClipBatch]:
        """The held-out clips, whole frames, one by one."""
        for name in self.held:
            c = self.held_clip(name)
            yield collate([LatentClip(c.latents[:, :frames], c.concat[:, :frames], c.images[:frames])])

    def close(self) -> None:  # noqa: B027
        """End what runs in the background, if anything does."""


class LatentCorpus(Corpus):
    """All pairs of a folder as latents; scenes that appear later are picked up by :meth:`refresh`.

    Only as many clips as fit into the memory allowed stay there, those used last; it need not hold the corpus.

    Args:
        folder: of pairs; ``heldout`` is kept for measuring.
        model: whose autoencoder is used; it must not change any more.
        memory_gb: for clips.
        posterior: draw latents from the autoencoder's posterior instead of taking its means.

    Attributes:
        damaged: see :class:`fvgen.data.reader.PairShards`.
    """

    def __init__(self, folder: Path, model: VideoModel, memory_gb: float = 4.0, posterior: bool = False) -> None:
        self.folder, self.model, self.posterior = folder, model, posterior
        self._names: dict[str, list[str]] = {split: [] for split in SPLITS}
        self.damaged: dict[str, str] = {}
        self._files: dict[str, Path] = {}
        self._known: dict[tuple[str, str], list[str]] = {}  # by tar and its digest
        self._memory = _Memory(int(memory_gb * 1e9))
        self._fingerprint = fingerprint(model)
        self._seen: tuple[int, ...] | None = None

    @property
    def clips(self) -> list[str]:
        """Sorted names, ``SCENE/KEY``; scenes that start with ``procedural`` are made, all others filmed."""
        return self._names["train"]

    @property
    def held(self) -> list[str]:
        """Likewise."""
        return self._names["heldout"]

    @property
    def cached_in(self) -> Path:
        """The folder of the cached latents."""
        return self.folder / f"latents-{self._fingerprint}"

    def refresh(self, limit: int | None = None) -> int:
        """Find scenes not seen before and encode what is not cached, scene by scene, until ``limit`` clips or more.

        Returns:
            How many clips there are for training.
        """
        state = _state(self.folder)
        if state == self._seen:
            return len(self.clips)
        found: dict[str, dict[str, Path]] = {split: {} for split in SPLITS}
        encoded, all_done = 0, True
        for split in SPLITS:
            shards = PairShards(self.folder, split)
            cache = LatentCache(shards, self.model, self._fingerprint)
            for shard in track(shards.shards, f"latents of {split}"):
                known = self._known.get((shard.name, shard.sha256)) if shard.sha256 else None
                keys = known or cache.keys(shard)
                if keys is None and limit is not None and encoded >= limit:
                    all_done = False
                    continue
                if keys is None:
                    keys = cache.encode(shard)
                    encoded += len(keys)
                self._known[shard.name, shard.sha256] = keys
                found[split] |= {f"{shard.scene}/{key}": cache.path(shard) for key in keys}
            self.damaged |= shards.damaged
        self._names = {split: sorted(found[split]) for split in SPLITS}
        self._files = found["heldout"] | found["train"]
        self._seen = state if all_done else None
        return len(self.clips)

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

    def choose(self, rng: np.random.Generator, count: int, posed_share: float, at: int) -> list[LatentClip]:
        """See :class:`Corpus`; ``at`` changes nothing."""
        made = [name for name in self.clips if name.startswith("procedural")]
        filmed = [name for name in self.clips if not name.startswith("procedural")]
        chosen = []
        for _ in range(count):
            names = filmed if made == [] or (filmed and rng.random() < posed_share) else made
            chosen.append(self.clip(names[rng.integers(len(names))]))
        return chosen

    def held_clip(self, name: str) -> LatentClip:
        """See :meth:`clip`."""
        return self.clip(name)


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


def _state(folder: Path) -> tuple[int, ...]:
    """Changes when a scene appears."""
    paths = [folder / MANIFEST, *(folder / split for split in SPLITS)]
    return tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in paths)


def _window(rng: np.random.Generator, clip: LatentClip, length: int, size: tuple[int, int] | None) -> LatentClip:
    total, h, w = clip.latents.shape[1:]
    start = (0, total - length, int(rng.integers(total - length + 1)))[rng.integers(3)]
    rows = torch.arange(start, start + length)
    if rng.random() < 0.5:
        rows = rows.flip(0)
    height, width = size or (h, w)
    top, left = int(rng.integers(h - height + 1)), int(rng.integers(w - width + 1))

    def cut(part: Tensor) -> Tensor:
        return part[:, rows, top : top + height, left : left + width]

    deviations = (part if part is None else cut(part) for part in (clip.deviation, clip.guide_deviation))
    return LatentClip(cut(clip.latents), cut(clip.concat), clip.images[rows], *deviations)


def windows(rng: np.random.Generator, clips: list[LatentClip], frames: int, size: tuple[int, int] | None) -> ClipBatch:
    """A random window of each clip, of one length and size, see :meth:`LatentCorpus.sample`."""
    length = min(frames, *(c.latents.shape[1] for c in clips))
    return collate([drawn(rng, _window(rng, clip, length, size)) for clip in clips])


def drawn(rng: np.random.Generator, clip: LatentClip) -> LatentClip:
    """A clip drawn from the posterior, where its standard deviations are there; else as it is."""
    if clip.deviation is None or clip.guide_deviation is None:
        return clip
    generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
    noises = (torch.randn(clip.latents.shape, generator=generator) for _ in range(2))
    latents = clip.latents.float() + clip.deviation.float() * next(noises)
    guide = clip.concat[: len(latents)].float() + clip.guide_deviation.float() * next(noises)
    return LatentClip(latents, torch.cat([guide, clip.concat[len(latents) :].float()]), clip.images)


def collate(clips: list[LatentClip]) -> ClipBatch:
    """Stack clips of one size; the image tower sees the first frame of each."""
    return ClipBatch(
        torch.stack([c.latents.float() for c in clips]),
        torch.stack([c.concat.float() for c in clips]),
        torch.stack([c.images[0].float() for c in clips]) / 127.5 - 1,
    )

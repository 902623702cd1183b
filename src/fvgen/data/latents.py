"""Training pairs as latents in memory, and random clips cut from them."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from fvgen.data.pairs import Pair
from fvgen.models.model import VideoModel
from fvgen.progress import track


@dataclass(frozen=True)
class LatentClip:
    """A pair after the autoencoder.

    Attributes:
        latents: ``[C, T, h, w]`` half, of the truth.
        concat: ``[Cc, T, h, w]`` half, of the guide and its coverage.
        images: ``[T, 3, s, s]`` uint8, what the image tower would see of each frame.
    """

    latents: Tensor
    concat: Tensor
    images: Tensor


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


def _unit(frames: np.ndarray) -> Tensor:
    return torch.from_numpy(frames).movedim(-1, 1).float() / 127.5 - 1


@torch.no_grad()
def encode_pair(model: VideoModel, pair: Pair, flip: bool) -> LatentClip:
    """Both clips of a pair through the autoencoder, mirrored left to right where ``flip``."""
    arrays = (pair.frames, pair.guide, pair.coverage)
    frames, guide, coverage = (np.ascontiguousarray(a[:, :, ::-1]) if flip else a for a in arrays)
    covered = torch.from_numpy(coverage)
    shown = _unit(guide if model.config.completed_guide else np.where(coverage[..., None], guide, 0))
    truth = _unit(frames)
    size = model.config.vision.image_size
    small = F.interpolate(truth, (size, size), mode="bicubic", antialias=True, align_corners=False)
    return LatentClip(
        model.autoencoder.encode(truth[None])[0].half(),
        model.concat_condition(shown[None], covered[None])[0].half(),
        ((small.clamp(-1, 1) + 1) * 127.5).round().byte(),
    )


class LatentCorpus:
    """All pairs of a folder as latents; pairs that appear later are picked up by :meth:`refresh`.

    Args:
        folder: of ``.npz`` pairs; every ``held_out``-th is kept for measuring.
        model: whose autoencoder is used; it must not change any more.
        held_out: 0 holds nothing out.
    """

    def __init__(self, folder: Path, model: VideoModel, held_out: int = 40) -> None:
        self.folder, self.model, self.held_out = folder, model, held_out
        self.clips: dict[str, LatentClip] = {}
        self.held: dict[str, LatentClip] = {}
        digest = hashlib.sha256(repr(model.config.vision).encode() + repr(model.config.completed_guide).encode())
        for value in model.autoencoder.state_dict().values():
            digest.update(value.float().cpu().numpy().tobytes())
        self._fingerprint = digest.hexdigest()[:12]

    def refresh(self, limit: int | None = None) -> int:
        """Encode pairs not seen before, at most ``limit``; returns how many clips there are for training."""
        new = [p for p in sorted(self.folder.glob("*.npz")) if ".partial" not in p.name and p.stem not in self._known()]
        for path in track(new[:limit], "latents"):
            number = int(path.stem.rsplit("-", 1)[1])
            if self.held_out and number % self.held_out == 0:
                self.held[path.stem] = self._encoded(path, flip=False)
            else:
                self.clips[path.stem] = self._encoded(path, flip=number % 2 == 1)  # mirrored pixels, then encoded
        return len(self.clips)

    def _encoded(self, path: Path, flip: bool) -> LatentClip:
        """From the cache beside the pairs, which belongs to one autoencoder, or computed and put there."""
        cached = self.folder / f"latents-{self._fingerprint}" / f"{path.stem}{'-mirrored' if flip else ''}.safetensors"
        if cached.exists():
            return LatentClip(**load_file(cached))
        clip = encode_pair(self.model, Pair.load(path), flip)
        cached.parent.mkdir(exist_ok=True)
        partial = cached.with_suffix(".partial")
        save_file({k: v.contiguous() for k, v in clip.__dict__.items()}, partial)
        os.replace(partial, cached)
        return clip

    def _known(self) -> set[str]:
        return set(self.clips) | set(self.held)

    def sample(
        self,
        rng: np.random.Generator,
        batch: int,
        frames: int,
        size: tuple[int, int] | None,
        posed_share: float = 0.5,
    ) -> ClipBatch:
        """Random windows of ``frames`` frames, some played backwards, cropped to ``size = (h, w)`` latents.

        All clips of a batch have the length of the shortest chosen one, at most ``frames``. ``posed_share`` of them
        are filmed for real, where the corpus has both kinds.
        """
        filmed = sorted(n for n in self.clips if n.startswith("posed"))
        made = sorted(n for n in self.clips if not n.startswith("posed"))
        chosen = []
        for _ in range(batch):
            names = filmed if made == [] or (filmed and rng.random() < posed_share) else made
            chosen.append(self.clips[names[rng.integers(len(names))]])
        length = min(frames, *(c.latents.shape[1] for c in chosen))
        return collate([_window(rng, clip, length, size) for clip in chosen])

    def held_batches(self, frames: int) -> list[ClipBatch]:
        """The held-out clips, whole frames, one by one."""
        clips = [self.held[name] for name in sorted(self.held)]
        return [collate([LatentClip(c.latents[:, :frames], c.concat[:, :frames], c.images[:frames])]) for c in clips]


def _window(rng: np.random.Generator, clip: LatentClip, length: int, size: tuple[int, int] | None) -> LatentClip:
    total, h, w = clip.latents.shape[1:]
    start = (0, total - length, int(rng.integers(total - length + 1)))[rng.integers(3)]
    rows = torch.arange(start, start + length)
    if rng.random() < 0.5:
        rows = rows.flip(0)
    height, width = size or (h, w)
    top, left = int(rng.integers(h - height + 1)), int(rng.integers(w - width + 1))
    area = (slice(top, top + height), slice(left, left + width))
    return LatentClip(clip.latents[:, rows][..., *area], clip.concat[:, rows][..., *area], clip.images[rows])


def collate(clips: list[LatentClip]) -> ClipBatch:
    """Stack clips of one size; the image tower sees the first frame of each."""
    return ClipBatch(
        torch.stack([c.latents.float() for c in clips]),
        torch.stack([c.concat.float() for c in clips]),
        torch.stack([c.images[0].float() for c in clips]) / 127.5 - 1,
    )

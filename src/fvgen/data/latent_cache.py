"""Pairs after the autoencoder, cached beside them: one file of latents per scene, read clip by clip."""

import hashlib
import json
import zlib
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fvgen.data.pairs import Pair
from fvgen.data.reader import PairShards
from fvgen.data.samples import DamagedSample
from fvgen.data.shards import Shard
from fvgen.errors import UserError
from fvgen.files import clear_partials, sha256_of, write_whole
from fvgen.models.conditioner import squared
from fvgen.models.model import VideoModel

_VERSION = "2"  # of what is cached


@dataclass(frozen=True)
class LatentClip:
    """A pair after the autoencoder, in half precision.

    Attributes:
        latents: ``[C, T, h, w]`` means of the truth.
        concat: ``[Cc, T, h, w]`` means of the guide, and its coverage.
        images: ``[T, 3, s, s]`` uint8, what the image tower would see of each frame of the guide, as in use; ``s`` is
            0 for a model without one.
        photo: ``[T]`` bool, whether the guide of a frame is the photograph itself.
        deviation, guide_deviation: ``[C, T, h, w]`` standard deviations of the truth's and the guide's latents.
    """

    latents: Tensor
    concat: Tensor
    images: Tensor
    photo: Tensor
    deviation: Tensor | None = None
    guide_deviation: Tensor | None = None

    @property
    def bytes(self) -> int:
        """How much memory the clip takes."""
        return sum(part.nbytes for part in self.__dict__.values() if part is not None)


def mirrored(pair: Pair) -> Pair:
    """A pair with left and right exchanged, but for its cameras, which are not used after the autoencoder."""
    return replace(
        pair,
        frames=np.ascontiguousarray(pair.frames[:, :, ::-1]),
        guide=np.ascontiguousarray(pair.guide[:, :, ::-1]),
        coverage=np.ascontiguousarray(pair.coverage[:, :, ::-1]),
    )


@torch.no_grad()
def encode_pair(model: VideoModel, pair: Pair) -> LatentClip:
    """A pair through the autoencoder, on the device of that; the result is on the CPU."""
    device = next(model.autoencoder.parameters()).device
    truth, shown = _unit(pair.frames).to(device), _unit(pair.guide).to(device)
    mean, deviation = model.autoencoder.posterior(truth[None])
    guide_mean, guide_deviation = model.autoencoder.posterior(shown[None])
    concat = model.with_coverage(guide_mean, torch.from_numpy(pair.coverage).to(device)[None])
    vision = model.config.vision
    small = squared(shown, vision.image_size, vision.resize) if vision else shown[..., :0, :0]
    images = ((small.clamp(-1, 1) + 1) * 127.5).round().byte().cpu()
    latents, concat, deviation, guide_deviation = (
        x[0].half().cpu() for x in (mean, concat, deviation, guide_deviation)
    )
    return LatentClip(latents, concat, images, torch.from_numpy(pair.photo), deviation, guide_deviation)


@dataclass(frozen=True)
class ClipEntry:
    """What is known of a cached clip without reading it.

    Attributes:
        photos: its frames whose guide is a photograph.
        frames: how many it has.
        size: (width, height) in pixels.
    """

    photos: tuple[int, ...]
    frames: int
    size: tuple[int, int]


class LatentCache:
    """``PAIRS/latents-FINGERPRINT/{split}/SCENE.safetensors``; the fingerprint is that of the model's autoencoder.

    Half of the training clips, chosen by their keys, are mirrored before they are encoded.

    Args:
        shards: the pairs.
        model: whose autoencoder is used; it must not change any more.
        fingerprint: of the model, see :func:`fingerprint`.
    """

    def __init__(self, shards: PairShards, model: VideoModel, fingerprint: str) -> None:
        self.shards, self.model = shards, model
        self.folder = shards.folder / f"latents-{fingerprint}" / shards.split
        counts = accumulate((len(shard.samples) for shard in shards.shards), initial=0)
        self._first = dict(zip((shard.scene for shard in shards.shards), counts))

    def path(self, shard: Shard) -> Path:
        """The file of a scene's latents."""
        return self.folder / f"{shard.scene}.safetensors"

    def entries(self, shard: Shard) -> dict[str, ClipEntry] | None:
        """The clips in a scene's file by key, or ``None`` where there is no whole file, or one of another tar."""
        try:
            with safe_open(self.path(shard), "pt") as stored:
                told = stored.metadata() or {}
            if told.get("tar") != self.identity(shard):
                return None
            clips = json.loads(told["clips"])
            return {k: ClipEntry(tuple(c["photos"]), c["frames"], tuple(c["size"])) for k, c in sorted(clips.items())}
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            return None

    def encode(self, shard: Shard) -> dict[str, ClipEntry]:
        """Write a scene's file; samples that are damaged are left out and counted by the shards.

        Raises:
            UserError: pairs whose guides are of another kind than the model is shown.
        """
        tensors: dict[str, Tensor] = {}
        entries = {}
        for k, entry in enumerate(shard.samples, self._first[shard.scene]):
            try:
                pair, facts = self.shards.read(k)
            except DamagedSample:
                continue
            kind, wanted = facts.get("guide", "lookup"), self.model.config.guide
            if kind != wanted:
                raise UserError(
                    f"{self.shards.folder}: {shard.scene} was prepared with `guide` {kind}, but this model is shown "
                    f"{wanted}: prepare pairs with `guide` {wanted}"
                )
            flip = self.shards.split == "train" and zlib.crc32(entry.key.encode()) % 2 == 1
            clip = encode_pair(self.model, mirrored(pair) if flip else pair)
            tensors |= {f"{entry.key}/{name}": value.contiguous() for name, value in clip.__dict__.items()}
            photos = tuple(int(i) for i in pair.photo.nonzero()[0])
            entries[entry.key] = ClipEntry(photos, len(pair.frames), (pair.frames.shape[2], pair.frames.shape[1]))
        clips = json.dumps({key: asdict(entry) for key, entry in entries.items()})
        data, path = save(tensors, {"tar": self.identity(shard), "clips": clips}), self.path(shard)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda file: file.write(data))
        clear_partials(path)
        return entries

    def identity(self, shard: Shard) -> str:
        """SHA-256 of a scene's tar."""
        return shard.sha256 or sha256_of(self.shards.folder / shard.name)


def load_clip(path: Path, key: str, deviations: bool) -> LatentClip:
    """One clip of a scene's file, with the standard deviations only where they are wanted."""
    names = ["latents", "concat", "images", "photo", *(["deviation", "guide_deviation"] if deviations else [])]
    with safe_open(path, "pt") as stored:
        return LatentClip(**{name: stored.get_tensor(f"{key}/{name}") for name in names})


def fingerprint(model: VideoModel) -> str:
    """Twelve digits that change with anything that would change the latents."""
    config = model.config
    told = (_VERSION, config.vision, config.guide, config.coverage_channel)
    digest = hashlib.sha256(repr(told).encode())
    for value in model.autoencoder.state_dict().values():
        digest.update(value.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def _unit(frames: np.ndarray) -> Tensor:
    return torch.from_numpy(frames).movedim(-1, 1).float() / 127.5 - 1

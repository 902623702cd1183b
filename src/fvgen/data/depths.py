"""What the depth network learns from: photos of procedural scenes, what matching tells of them, exact depth."""

import math
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.data.flaws import exposed
from fvgen.errors import UserError
from fvgen.files import write_whole
from fvgen.procedural import procedural_scene
from fvgen.procedural.textures import TextureBank
from fvgen.progress import track
from fvgen.scene.depth import neighbours_of
from fvgen.scene.prior import Evidence, gather_evidence, scaled

# (width, height), drawn evenly: landscape most often.
SIZES = ((256, 160),) * 5 + ((256, 192),) * 2 + ((192, 256),) * 2 + ((160, 256),)
_FRAMES = 9  # of a scene's move; four are photographed
# Which of the four are matched with each other: two, three, or all.
_GROUPS = (([0, 3], [1, 2]), ([0, 3], [0, 2], [1, 3]), ([0, 1, 3],), ([0, 1, 2, 3],))
_SHARES = (0.35, 0.2, 0.2, 0.25)
_PHOTOGRAPHED = 0.65  # share of scenes with textures from photographs, where there are any


@dataclass(frozen=True)
class DepthSample:
    """One photo to learn from.

    Attributes:
        evidence: what the network is told.
        target: ``[H, W]`` the true ``t``, see `fvgen.scene.prior.scaled`.
    """

    evidence: Evidence
    target: Tensor


def size_of(seed: int) -> tuple[int, int]:
    """(width, height) of the photos of a scene."""
    return _size_drawn(np.random.default_rng((seed, 5)))


def _size_drawn(rng: np.random.Generator) -> tuple[int, int]:
    """The first draw of a scene."""
    return SIZES[int(rng.integers(len(SIZES)))]


def depth_samples(seed: int, photographs: Sequence[Path] = ()) -> list[DepthSample]:
    """Three or four photos of a random scene, each matched with one to three others.

    Exposures differ in most scenes, and in half of them cameras are a little wrong, as estimated ones are.

    Args:
        seed: of everything random.
        photographs: folders of photographs for textures.
    """
    rng = np.random.default_rng((seed, 5))
    width, height = _size_drawn(rng)
    bank = TextureBank(list(photographs), 0.6 if rng.random() < _PHOTOGRAPHED else 0.0)
    scene = procedural_scene(seed, _FRAMES, width, height, bank)
    chosen = [0, *sorted(rng.choice(np.arange(1, _FRAMES - 1), 2, replace=False).tolist()), _FRAMES - 1]
    cameras = scene.cameras[chosen]
    pictures, depths = scene.film(cameras, torch.linspace(0, 1, _FRAMES)[chosen])
    if rng.random() < 0.6:
        pictures = exposed(pictures, np.exp(rng.normal(0, 0.15) * np.linspace(0, 1, 4) + rng.normal(0, 0.03, 4)))
    if rng.random() < 0.5:
        cameras = _unsure(cameras, rng)
    photos = [torch.from_numpy(picture).movedim(-1, 0).float() / 255 for picture in pictures]
    samples = []
    for group in _GROUPS[int(rng.choice(len(_GROUPS), p=_SHARES))]:
        own = cameras[group]
        near = [neighbours_of(own, k) for k in range(len(group))]
        if not all(near):
            continue
        inverse = [torch.from_numpy(1 / depths[k]) for k in group]
        # The range is estimated when the network is used, so that it is never sure of it.
        highs = [float(w.quantile(0.99) * math.exp(np.clip(rng.normal(0.3, 0.25), -0.08, 1.0))) for w in inverse]
        found = gather_evidence([photos[k] for k in group], [own[k] for k in range(len(own))], near, highs)
        samples += [DepthSample(one, scaled(w, one.high)) for one, w in zip(found, inverse)]
    return samples


def _unsure(cameras: Cameras, rng: np.random.Generator) -> Cameras:
    """Cameras turned by a quarter of a pixel and moved by 0.3 % of the way between the first and the last."""
    poses = cameras.world_from_camera.clone()
    turns = rng.normal(0, 0.25 / float(cameras.intrinsics[0, 0, 0]), (len(cameras), 3))
    for pose, (x, y, z) in zip(poses, turns):
        twist = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=pose.dtype)
        pose[:3, :3] = pose[:3, :3] @ torch.linalg.matrix_exp(twist)
    way = float((cameras.centers[0] - cameras.centers[-1]).norm())
    poses[:, :3, 3] += torch.from_numpy(rng.normal(0, 0.003 * way, (len(cameras), 3)))
    return Cameras(poses, cameras.intrinsics, cameras.sizes)


def augmented(sample: DepthSample, rng: random.Random) -> DepthSample:
    """A sample as another one: mirrored, in another light, sometimes with nothing matched."""
    one, target = sample.evidence, sample.target
    if rng.random() < 0.5:
        mirrored = {name: getattr(one, name).flip(-1) for name in ("photo", "volume", "matched", "seen")}
        intrinsics = one.camera.intrinsics.clone()
        intrinsics[:, 0, 2] = one.camera.size[0] - intrinsics[:, 0, 2]
        camera = Cameras(one.camera.world_from_camera, intrinsics, one.camera.sizes)
        one, target = replace(one, camera=camera, **mirrored), target.flip(-1)
    if rng.random() < 0.5:
        gains = torch.tensor([math.exp(rng.gauss(0, 0.05) + shift) for shift in [rng.gauss(0, 0.1)] * 3])
        photo = one.photo.clamp(min=1e-4) ** math.exp(rng.gauss(0, 0.2)) * gains[:, None, None]
        one = replace(one, photo=photo.clamp(0, 1))
    if rng.random() < 0.08:
        matched = torch.zeros_like(one.matched)
        matched[:2] = one.matched[1].median()
        one = replace(one, volume=one.volume * 0, seen=one.seen * 0, matched=matched)
    return DepthSample(one, target)


class DepthScenes:
    """Scenes kept in a folder, one file each, made once.

    Args:
        folder: where they are.
        seeds: of the scenes.
        photographs: folders of photographs for textures.
    """

    def __init__(self, folder: Path, seeds: Sequence[int], photographs: Sequence[Path] = ()) -> None:
        self.folder, self.seeds, self.photographs = folder, list(seeds), list(photographs)
        self.by_size: dict[tuple[int, int], list[int]] = {}
        for seed in self.seeds:
            self.by_size.setdefault(size_of(seed), []).append(seed)

    def make(self, workers: int) -> None:
        """Make those that are missing, in so many processes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        missing = [seed for seed in self.seeds if not self._path(seed).is_file()]
        with ProcessPoolExecutor(workers) as pool:
            for _ in track(pool.map(self._make, missing), "scenes", len(missing)):
                pass

    def samples(self, seed: int) -> list[DepthSample]:
        """Those of a scene; it may have none."""
        return [_unpacked(part) for part in torch.load(self._path(seed), weights_only=True)]

    def _path(self, seed: int) -> Path:
        return self.folder / f"{seed}.pt"

    def _make(self, seed: int) -> None:
        torch.set_num_threads(1)
        try:
            packed = [_packed(sample) for sample in depth_samples(seed, self.photographs)]
        except UserError:  # two photos of it share nothing
            packed = []
        write_whole(self._path(seed), lambda file: torch.save(packed, file))


def _packed(sample: DepthSample) -> dict[str, Any]:
    """In few bytes."""
    one = sample.evidence
    return {
        "photo": (one.photo * 255).round().to(torch.uint8),
        "intrinsics": one.camera.intrinsics,
        "high": one.high,
        "volume": ((one.volume + 1) * 127.5).round().to(torch.uint8),
        "matched": one.matched.half(),
        "seen": (one.seen * 255).round().to(torch.uint8),
        "shift": one.shift,
        "target": sample.target,
    }


def _unpacked(part: dict[str, Any]) -> DepthSample:
    photo = part["photo"].float() / 255
    pose, size = torch.eye(4)[None], torch.tensor([[photo.shape[2], photo.shape[1]]])
    camera, volume = Cameras(pose, part["intrinsics"], size), part["volume"].float() / 127.5 - 1
    seen = part["seen"].float() / 255
    evidence = Evidence(photo, camera, part["high"], volume, part["matched"].float(), seen, part["shift"])
    return DepthSample(evidence, part["target"])

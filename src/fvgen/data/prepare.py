"""Footage into training pairs, scene by scene: read, make the guides, write.

Each step is a function of the scene and the recipe alone, so that a scene that is made again, by whatever process,
gives the same bytes. Nothing that is wrong with a scene stops the others: what is dropped is counted by reason and
named in the scene's record.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.data.clips import Stretch, against, overlapping, stretches
from fvgen.data.footage import Footage, SceneTask, TimesGoBackwards, open_footage
from fvgen.data.pairs import Pair, make_pair, procedural_pair
from fvgen.data.recipe import PrepareRecipe
from fvgen.data.samples import Sample
from fvgen.data.shards import write_scene
from fvgen.errors import UserError
from fvgen.pictures import to_bytes
from fvgen.procedural.textures import TextureBank
from fvgen.rendering.guide import GuideKind, resample_photo
from fvgen.scene.depth import estimate_depths, without_masked
from fvgen.scene.geometry import (
    NETWORKS,
    EstimateDisagrees,
    Geometry,
    Unusable,
    depth_for,
    depth_source,
    estimate,
)
from fvgen.scene.layouts import Stored
from fvgen.scene.photos import Shot
from fvgen.scene.types import Photos

_DEPTH_SCALE = 2  # depth and colour of the photographs are taken at twice the pairs' size
_TILE = 16
_MOVED = 0.22  # mean difference in a tile where something moved ...
_STILL = {"lookup": 0.06, "points": 0.08}  # ... while the median tile agrees; points are coarser, with faint rims
_MOVED_SHARE = 0.04
_NOTES = 8


@dataclass(frozen=True)
class Clip:
    """Pictures of a stretch of footage, no larger than needed.

    Attributes:
        stretch: which frames of the footage they are.
        images: ``T`` pictures of one size, ``[H, W, 3]`` uint8.
        cameras: ``T`` cameras at that size, or ``None``.
        focals: focal lengths in pixels where the pictures tell them.
        pictures: the folder they are from, where the scene has several sizes of them; else ``""``.
        masks: ``[H, W]`` bool of each picture, False where its pixels are not to be used, or ``None``; empty where
            no picture has one.
    """

    stretch: Stretch
    images: list[Tensor]
    cameras: Cameras | None
    focals: list[float | None]
    pictures: str = ""
    masks: list[Tensor | None] = field(default_factory=list)


@dataclass
class Ledger:
    """What was dropped: counts by reason, and the first few in words; and what else was done to a scene's pictures."""

    dropped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def drop(self, reason: str, note: str = "") -> None:
        """Count a clip or scene."""
        self.dropped[reason] += 1
        if note and len(self.notes) < _NOTES:
            self.notes.append(f"{reason}: {note}")


class Unfit(Exception):
    """A clip that makes no pair; the message is the reason."""


def split_of(scene: str, held_out: float) -> str:
    """``train`` or ``heldout``, by the name of a scene alone: no scene is in both, whatever else is prepared."""
    number = int.from_bytes(hashlib.sha256(scene.encode()).digest()[:8], "big")
    return "heldout" if number < held_out * 2**64 else "train"


def prepare_scene(task: SceneTask, recipe: PrepareRecipe, folder: Path) -> None:
    """Read a scene's clips, make their guides, and write the pairs."""
    torch.set_num_threads(1)  # sums of several threads differ in their last bits
    ledger = Ledger()
    samples = make_samples(read_clips(task, recipe, ledger), ledger, task, recipe)
    write_samples(samples, ledger, task, recipe, folder)


def read_clips(task: SceneTask, recipe: PrepareRecipe, ledger: Ledger) -> Iterator[Clip]:
    """Open a scene and read, one by one, the clips that their pictures alone do not forbid."""
    if task.layout == "procedural":
        return
    try:
        # Pictures whose part that is used covers the pairs: the truth is never enlarged where that can be helped.
        # Depth is estimated at twice that size, which is a bonus where the pictures have it.
        left, top, right, bottom = recipe.crop or (0.0, 0.0, 1.0, 1.0)
        size = (math.ceil(recipe.width / (right - left)), math.ceil(recipe.height / (bottom - top)))
        footage = open_footage(task, Stored(size, recipe.images))
    except TimesGoBackwards as error:
        ledger.drop("timestamps", str(error))
        return
    except (UserError, OSError) as error:
        ledger.drop("unreadable", str(error))
        return
    ledger.remarks += footage.notes
    tried = stretches(footage.count, recipe, _rng(task, recipe))
    if not tried:
        ledger.drop("too short", f"{footage.count} frames")
    for stretch in tried:
        clip = _read(footage, stretch, recipe, ledger)
        if clip is not None:
            yield clip


def _rng(task: SceneTask, recipe: PrepareRecipe) -> np.random.Generator:
    digest = hashlib.sha256(f"{recipe.seed} {task.name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _read(footage: Footage, stretch: Stretch, recipe: PrepareRecipe, ledger: Ledger) -> Clip | None:
    try:
        shots = [cropped(shot, recipe.crop) for shot in footage.read(stretch.rows)]
    except (UserError, OSError) as error:
        ledger.drop("unreadable", str(error))
        return None
    reason = against([shot.image for shot in shots])
    if reason:
        ledger.drop(reason)
        return None
    cameras = None
    if footage.centers is not None:
        cameras = Cameras.concatenate([shot.camera for shot in shots if shot.camera is not None])
        span = (cameras.centers - cameras.centers[0]).norm(dim=1).max()
        if not float(span) > 0:
            ledger.drop("static")
            return None
    images, focals, masks = ([getattr(shot, part) for shot in shots] for part in ("image", "focal", "mask"))
    height, width = images[0].shape[:2]
    scale = _DEPTH_SCALE * max(recipe.width / width, recipe.height / height)
    if scale < 1:  # just large enough to cover the size at which depth is estimated
        size, box = (round(width * scale), round(height * scale)), (0.0, 0.0, float(width), float(height))
        images = [to_bytes(resample_photo(image, box, *size)) for image in images]
        cameras = cameras.resized(*size) if cameras is not None else None
        focals = [focal and focal * size[0] / width for focal in focals]
        masks = [
            None if mask is None else F.interpolate(mask[None, None].float(), size[::-1])[0, 0] > 0 for mask in masks
        ]
    masks = masks if any(mask is not None for mask in masks) else []
    return Clip(stretch, images, cameras, focals, footage.pictures, masks)


def cropped(shot: Shot, crop: tuple[float, float, float, float] | None) -> Shot:
    """A part of a picture, left, top, right and bottom as shares of its size; its camera sees that part alone.

    Raises:
        UserError: the part is less than a pixel.
    """
    if crop is None:
        return shot
    height, width = shot.image.shape[:2]
    left, top, right, bottom = (round(share * side) for share, side in zip(crop, (width, height, width, height)))
    if right <= left or bottom <= top:
        raise UserError(f"nothing is left of {width}x{height} pixels after the crop")
    camera = shot.camera and shot.camera.cropped(left, top, right - left, bottom - top)
    mask = None if shot.mask is None else shot.mask[top:bottom, left:right]
    return Shot(shot.image[top:bottom, left:right], shot.focal, camera, mask)


def make_samples(clips: Iterable[Clip], ledger: Ledger, task: SceneTask, recipe: PrepareRecipe) -> list[Sample]:
    """Make guides for the clips on the recipe's device, until there are as many pairs as wanted.

    Raises:
        Unusable: a network cannot run here.
    """
    if task.layout == "procedural":
        return _procedural(task, recipe, ledger)
    samples: list[Sample] = []
    taken: list[Stretch] = []
    apart: list[Stretch] = []  # stretches whose ends share too little
    for clip in clips:
        if overlapping(clip.stretch, taken, recipe.overlap) or any(clip.stretch.contains(other) for other in apart):
            continue
        try:
            pair, facts = pair_of(clip, recipe, _rng(task, replace(recipe, seed=recipe.seed + 1 + clip.stretch.start)))
        except Unusable:  # nothing of the clip: no clip will fare better
            raise
        except EstimateDisagrees as error:
            ledger.drop("estimate disagrees", str(error))
            continue
        except UserError as error:
            ledger.drop("geometry", str(error))
            continue
        except Unfit as error:
            ledger.drop(str(error))
            apart += [clip.stretch] if str(error) == "little covered" else []
            continue
        taken.append(clip.stretch)
        told = {"source": task.layout, "scene": task.name, "guide": recipe.guide, "start": clip.stretch.start}
        key = f"{_key(task.name)}-{clip.stretch.start:06d}-{clip.stretch.stride}x{clip.stretch.length}"
        samples.append(Sample(key, pair, {**told, **facts, "stride": clip.stretch.stride}))
        if len(samples) == recipe.clips:
            break
    return samples


def _key(scene: str) -> str:
    """A scene's name fit for a key, still different from all others."""
    key = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in scene)
    if key == scene and len(key) <= 60:
        return key
    return f"{key[:50]}_{hashlib.sha256(scene.encode()).hexdigest()[:8]}"


def _procedural(task: SceneTask, recipe: PrepareRecipe, ledger: Ledger) -> list[Sample]:
    rng = _rng(task, recipe)
    frames = int(rng.integers(recipe.least_frames or min(6, recipe.frames), recipe.frames + 1))
    bank = TextureBank(list(recipe.textures), 0.6)
    try:
        options = (frames, recipe.width, recipe.height, bank, "sweep", recipe.flaws, recipe.device)
        pair = procedural_pair(recipe.seed * 1_000_003 + int(task.part), *options, guide=recipe.guide)  # type: ignore[arg-type]
    except UserError as error:
        ledger.drop("geometry", str(error))
        return []
    facts = {"source": "procedural", "scene": task.name, "guide": recipe.guide, **quality(pair)}
    return [Sample(task.name, pair, facts)]


def pair_of(clip: Clip, recipe: PrepareRecipe, rng: np.random.Generator) -> tuple[Pair, dict[str, float | str]]:
    """The pair of a clip, and what is known of it: its quality, and how its cameras and depth were found.

    Raises:
        UserError: no cameras or no depth can be found.
        EstimateDisagrees: a network's depth contradicts the cameras.
        Unusable: a network cannot run here.
        Unfit: the guide shows too little, or something else than the pictures.
    """
    found = _placed(clip, recipe)
    cameras, source, fit = found.cameras, depth_source(recipe.depth, found.name), found.fit
    last = len(clip.images) - 1
    shown = (0, last) if recipe.cloud == "ends" else (int(rng.integers(last + 1)),)
    rows = sorted({0, *shown, last})  # that depth is found from: where one frame is shown, the clip's ends too
    if source == "sweep":
        side = max(recipe.width, recipe.height) * _DEPTH_SCALE
        swept = estimate_depths([clip.images[i] for i in rows], cameras[rows], side, recipe.device)
        depths = [swept[rows.index(i)] for i in shown]
    elif source == found.name and found.depths is not None:
        depths = [found.depths[i] for i in shown]
    else:
        names, images, focals = found.photos.names, found.photos.images, found.photos.focals
        seen = Photos([names[i] for i in rows], [images[i] for i in rows], [focals[i] for i in rows], cameras[rows])
        told = depth_for(source, seen, recipe.device, recipe.seed, recipe.geometry_weights)
        if len(told.photos) < len(rows) or told.depths is None:
            raise Unfit("not all frames placed")
        depths, fit = [told.depths[rows.index(i)] for i in shown], told.fit
    if clip.masks:
        depths = [without_masked(one, cameras[i], clip.masks[i]) for one, i in zip(depths, shown)]
    path, boxes = cameras.covering(recipe.width, recipe.height)
    truth = torch.stack([resample_photo(im, box, recipe.width, recipe.height) for im, box in zip(clip.images, boxes)])
    pair = make_pair(to_bytes(truth).numpy(), path, depths, shown, recipe.device, recipe.guide)
    figures = quality(pair)
    if figures["coverage"] < recipe.least_coverage:
        raise Unfit("little covered")
    if moving(pair, recipe.guide):
        raise Unfit("something moves")
    if figures["psnr"] < recipe.least_psnr:
        raise Unfit("guide disagrees")
    facts: dict[str, float | str] = {**figures, "cloud": recipe.cloud, "geometry": found.name, "depth": source}
    if clip.pictures:
        facts["pictures"] = clip.pictures
    enlarged = max(recipe.width / (right - left) for left, _, right, _ in boxes)
    if enlarged > 1:  # the pictures are smaller than the pair
        facts["enlarged"] = round(enlarged, 4)
    return pair, facts | {f"fit_{name}": float(f"{value:.6g}") for name, value in fit.items()}


def _placed(clip: Clip, recipe: PrepareRecipe) -> Geometry:
    """The clip's frames with their cameras, given ones or else estimated from all of them."""
    names = [f"{k:04d}.png" for k in range(len(clip.images))]
    photos = Photos(names, clip.images, clip.focals, masks=clip.masks or None)
    if clip.cameras is not None:
        return Geometry(photos, clip.cameras, "given")
    weights = recipe.geometry_weights if recipe.geometry in NETWORKS else None
    found = estimate(recipe.geometry, photos, recipe.device, recipe.seed, weights)
    if len(found.photos) < len(photos):
        raise Unfit("not all frames placed")
    return found


def quality(pair: Pair) -> dict[str, float]:
    """What a guide shows of the frames that are no photographs.

    Returns:
        ``coverage``: share of pixels that were measured; ``psnr``: in dB over these, the mean over frames.
    """
    frames, guide, coverage = (a[~pair.photo] for a in (pair.frames, pair.guide, pair.coverage))
    errors = np.square(frames.astype(np.float32) - guide).mean(-1) / 255**2
    values = [-10 * np.log10(max(float(e[c].mean()), 1e-10)) for e, c in zip(errors, coverage) if c.any()]
    return {"coverage": float(coverage.mean()), "psnr": float(np.mean(values)) if values else 0.0}


def moving(pair: Pair, guide_kind: GuideKind) -> bool:
    """Whether a guide of some kind is right nearly everywhere and plainly wrong in some places, frame after frame."""
    frames, guide, coverage = (torch.from_numpy(a[~pair.photo]) for a in (pair.frames, pair.guide, pair.coverage))
    seen = coverage.float()[:, None]
    error = (frames.float() - guide.float()).abs().mean(-1)[:, None] / 255 * seen
    share, mean = F.avg_pool2d(seen, _TILE), F.avg_pool2d(error, _TILE)
    tiles = (mean / share.clamp_min(1e-6))[share > 0.5]
    if len(tiles) < 10 or float(tiles.median()) > _STILL[guide_kind]:
        return False
    return float((tiles > _MOVED).float().mean()) > _MOVED_SHARE


def write_samples(samples: list[Sample], ledger: Ledger, task: SceneTask, recipe: PrepareRecipe, folder: Path) -> None:
    """Write a scene and mark it as finished."""
    facts = {"layout": task.layout, "notes": ledger.notes, **({"remarks": ledger.remarks} if ledger.remarks else {})}
    write_scene(folder, split_of(task.name, recipe.held_out), task.name, samples, ledger.dropped, facts)

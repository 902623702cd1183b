"""Training pairs: a real clip and the guide that two of its frames would have given."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.data.flaws import exposed, flawed, noisy_depth, strengths
from fvgen.data.recipe import Flaws
from fvgen.procedural import procedural_scene
from fvgen.procedural.textures import TextureBank
from fvgen.rendering.guide import GuideKind, render_guide, render_points_guide
from fvgen.rendering.lookup import LookupRenderer
from fvgen.scene.depth import DepthMap, estimate_depths
from fvgen.scene.points import fuse_points
from fvgen.scene.sweep import inside, sample, transfer

_DEPTH_SCALE = 2  # depth and colour of the two photos are taken at twice the guide's size
_SAME = 0.03  # relative difference of depth of what is one surface
_GUESS = 0.1  # relative error of depth that only one photo tells
_SURE, _UNSURE = 0.9, 0.02  # confidence; under MEASURED depth counts as guessed


@dataclass(frozen=True)
class Pair:
    """A clip and its guide.

    Attributes:
        frames: ``[T, H, W, 3]`` uint8, the truth.
        guide: ``[T, H, W, 3]`` uint8, as a model is shown it (``rendering.Guide.completed``); photographs at their own
            frames.
        coverage: ``[T, H, W]`` bool, where the guide was measured.
        photo: ``[T]`` bool, True where the guide is a photograph.
        cameras: ``T`` cameras of the frames, at their size.
    """

    frames: NDArray[np.uint8]
    guide: NDArray[np.uint8]
    coverage: NDArray[np.bool_]
    photo: NDArray[np.bool_]
    cameras: Cameras


def make_pair(
    truth: NDArray[np.uint8],
    path: Cameras,
    depths: list[DepthMap],
    ends: tuple[int, ...],
    device: torch.device | str = "cpu",
    guide: GuideKind = "lookup",
) -> Pair:
    """Render the guide of a clip from the depth maps of two of its frames.

    Args:
        truth: ``[T, H, W, 3]`` uint8.
        path: ``T`` cameras at that size.
        depths: depth maps of the two photos.
        ends: which frames of the clip the two photos are.
        device: where to render.
        guide: looked up, or points, see `fvgen.rendering.guide`.
    """
    points = fuse_points(depths).to(device)
    shown: list[int | None] = [None] * len(path)
    for k, frame in enumerate(ends):
        shown[frame] = k
    if guide == "points":
        made = render_points_guide(path, points)
    else:
        images, photos = [d.image for d in depths], Cameras.concatenate([d.cameras for d in depths])
        made = render_guide(path, shown, LookupRenderer(images, photos, depths, points, path.size))
    pictures, coverage = made.completed.numpy(), made.coverage.numpy()
    isphoto = np.array([s is not None for s in shown])
    pictures[isphoto], coverage[isphoto] = truth[isphoto], True  # there truth and guide are the same photograph
    return Pair(truth, pictures, coverage, isphoto, path)


def procedural_pair(
    seed: int,
    frames: int = 16,
    width: int = 256,
    height: int = 160,
    bank: TextureBank | None = None,
    depth: Literal["sweep", "exact"] = "sweep",
    flaws: Flaws | None = None,
    device: torch.device | str = "cpu",
    kind: str | None = None,
    guide: GuideKind = "lookup",
) -> Pair:
    """A pair from a procedural scene.

    Args:
        seed: of everything random.
        frames: ``T``.
        width: of the pair, in pixels.
        height: of the pair, in pixels.
        bank: see :func:`fvgen.procedural.procedural_scene`.
        depth: from the plane sweep, as for real photos; or the scene's own where both photos see it.
        flaws: what goes wrong on purpose.
        device: where pictures are made, depth is estimated and the guide is rendered.
        kind: of scene; a random one by default.
        guide: looked up, or points, see `fvgen.rendering.guide`.

    Raises:
        UserError: if the two photos show too little in common for depth.
    """
    drawn = strengths(flaws or Flaws(), np.random.default_rng((seed, 1)))
    scene = procedural_scene(seed, frames, width, height, bank, device, kind)
    times, ends = torch.linspace(0, 1, frames), [0, frames - 1]
    gains = np.exp(drawn.exposure_difference * times.double().numpy())
    truth = exposed(scene.film(scene.cameras, times)[0], gains)
    large = scene.cameras[ends].resized(width * _DEPTH_SCALE, height * _DEPTH_SCALE)
    pictures, exact = scene.film(large, times[ends])
    images = [torch.from_numpy(picture) for picture in exposed(pictures, gains[ends])]
    if depth == "exact":
        depths = exact_depths(images, torch.from_numpy(exact), large, seed)
    else:
        depths = estimate_depths(images, large, max(width, height) * _DEPTH_SCALE, device)
    return make_pair(truth, scene.cameras, flawed(depths, drawn, seed), (0, frames - 1), device, guide)


def exact_depths(images: list[Tensor], depth: Tensor, cameras: Cameras, seed: int) -> list[DepthMap]:
    """Depth maps as an estimator would give that errs nowhere but where only one of two photos sees a surface.

    Args:
        images: two photos, uint8 ``[H, W, 3]``.
        depth: ``[2, H, W]``.
        cameras: of the photos.
        seed: of the errors.
    """
    maps = []
    for k in range(2):
        pixels, z = transfer(cameras[k], cameras[1 - k], 1 / depth[k])
        there = sample(1 / depth[1 - k][None], pixels[None])[0, 0]
        seen = inside(pixels, z, cameras[1 - k]) & ((there * depth[k] * z - 1).abs() < _SAME)
        guessed = noisy_depth(depth[k], _GUESS, torch.Generator().manual_seed(seed * 2 + k))
        trust = torch.where(seen, _SURE, _UNSURE)
        maps.append(DepthMap(torch.where(seen, depth[k], guessed), trust, cameras[k], images[k]))
    return maps

"""Training pairs: a real clip and the guide that two of its frames would have given."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fvgen.cameras import Cameras
from fvgen.data.procedural import procedural_scene
from fvgen.data.textures import TextureBank
from fvgen.rendering.guide import render_guide
from fvgen.scene.depth import DepthMap, estimate_depths
from fvgen.scene.points import fuse_points

_DEPTH_SCALE = 2  # depth and colour of the two photos are taken at twice the guide's size


@dataclass(frozen=True)
class Pair:
    """A clip and its guide.

    Attributes:
        frames: ``[T, H, W, 3]`` uint8, the truth.
        guide: ``[T, H, W, 3]`` uint8, completed (see ``rendering.Guide``); photographs at their own frames.
        coverage: ``[T, H, W]`` bool, where the guide was measured.
        photo: ``[T]`` bool, True where the guide is a photograph.
        cameras: ``T`` cameras of the frames, at their size.
    """

    frames: NDArray[np.uint8]
    guide: NDArray[np.uint8]
    coverage: NDArray[np.bool_]
    photo: NDArray[np.bool_]
    cameras: Cameras


def make_pair(truth: NDArray[np.uint8], path: Cameras, depths: list[DepthMap], ends: tuple[int, ...]) -> Pair:
    """Render the guide of a clip from the depth maps of two of its frames.

    Args:
        truth: ``[T, H, W, 3]`` uint8.
        path: ``T`` cameras at that size.
        depths: depth maps of the two photos.
        ends: which frames of the clip the two photos are.
    """
    points = fuse_points(depths)
    shown: list[int | None] = [None] * len(path)
    for k, frame in enumerate(ends):
        shown[frame] = k
    photos = Cameras.concatenate([d.cameras for d in depths])
    guide = render_guide(
        points.positions,
        points.colors,
        path,
        shown,
        [d.image for d in depths],
        photos,
        point_photo=points.photo,
        confidence=points.confidence,
        measured=points.measured,
    )
    images = (guide.completed * 255 + 0.5).clamp(0, 255).byte().numpy()
    isphoto = np.array([s is not None for s in shown])
    images[isphoto] = truth[isphoto]  # at these frames truth and guide are the same photograph
    return Pair(truth, images, guide.coverage.numpy(), isphoto, path)


def procedural_pair(
    seed: int, frames: int = 16, width: int = 256, height: int = 160, bank: TextureBank | None = None
) -> Pair:
    """A pair from a procedural scene; depth comes from the plane sweep, as it does for real photos.

    Raises:
        UserError: if the two photos show too little in common for depth.
    """
    rng = np.random.default_rng((seed, 1))
    scene = procedural_scene(seed, frames, width, height, bank)
    ends = [0, frames - 1]
    gains = np.linspace(1.0, rng.choice([1.0, 1.0, 0.92, 1.08]), frames)
    truth = np.concatenate([scene.film(scene.cameras[i], float(gains[i]))[0] for i in range(frames)])
    large = scene.cameras[ends].resized(width * _DEPTH_SCALE, height * _DEPTH_SCALE)
    images = [torch.from_numpy(scene.film(large[k], float(gains[e]))[0][0]) for k, e in enumerate(ends)]
    depths = estimate_depths(images, large, long_side=max(width, height) * _DEPTH_SCALE)
    return make_pair(truth, scene.cameras, depths, (0, frames - 1))

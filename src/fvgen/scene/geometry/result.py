"""What every estimator of cameras hands on, the frame and scale that all end in, and photos as networks want them."""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.errors import UserError
from fvgen.scene.depth import DepthMap
from fvgen.scene.types import MEASURED, Photos

_UNSURE = 0.02  # confidence of depth that the estimator gives without believing in it


@dataclass(frozen=True)
class Geometry:
    """Where photos were taken, and what the estimator saw there.

    The world is the first placed photo's camera (OpenCV axes, at the origin), scaled so that the median depth of what
    was measured is 1.

    Attributes:
        photos: the photos that were placed, in the user's order, ``cameras`` unset; ``dropped`` names the others.
        cameras: one per photo, at its full size.
        name: the estimator's.
        depths: the estimator's own depth, one map per photo, or ``None`` where it has none.
        points: ``[S, 3]`` sparse points on surfaces, or ``None``.
        fit: how well a network's cameras fit the matches of the photos (`fvgen.scene.geometry.refine.refined`); or
            given cameras, where depth was brought to these: then everything is in their world (see
            `fvgen.scene.geometry.depth_for`).
    """

    photos: Photos
    cameras: Cameras
    name: str
    depths: list[DepthMap] | None = None
    points: Tensor | None = None
    fit: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """A photo resampled as a whole, then cropped, for a network.

    Attributes:
        image: ``[h, w, 3]`` uint8.
        photo: (width, height) of the photo.
        resized: (width, height) of the whole photo after resampling.
        corner: (left, top) of the crop in it.
    """

    image: Tensor
    photo: tuple[int, int]
    resized: tuple[int, int]
    corner: tuple[int, int] = (0, 0)

    def camera_of_photo(self, camera: Cameras) -> Cameras:
        """The full-size photo's camera from the picture's."""
        left, top = self.corner
        return camera.cropped(-left, -top, *self.resized).resized(*self.photo)

    def cut(self, width: int, height: int) -> "Picture":
        """The middle ``width`` x ``height`` pixels."""
        left, top = (self.image.shape[1] - width) // 2, (self.image.shape[0] - height) // 2
        image = self.image[top : top + height, left : left + width].contiguous()
        return replace(self, image=image, corner=(self.corner[0] + left, self.corner[1] + top))


def resample(image: Tensor, width: int, height: int) -> Picture:
    """The photo ``[H, W, 3]`` uint8 at another size, uncropped."""
    from PIL import Image

    photo = (image.shape[1], image.shape[0])
    kernel = Image.Resampling.LANCZOS if max(photo) > max(width, height) else Image.Resampling.BICUBIC
    small = Image.fromarray(image.cpu().numpy()).resize((width, height), kernel)
    return Picture(torch.from_numpy(np.array(small)), photo, (width, height))


@dataclass(frozen=True)
class Seen:
    """One photo as a network answered: everything in the conventions of `fvgen.cameras`, at the picture's size.

    Attributes:
        picture: what the network was shown, ``h`` x ``w``.
        world_from_camera: ``[4, 4]``, in any world and scale that all photos share.
        intrinsics: ``[3, 3]`` in pixels of the picture.
        depth: ``[h, w]`` z-depth in that scale.
        certainty: ``[h, w]``; 1 and below says nothing is known, no upper end; 0 and below says it is wrong.
    """

    picture: Picture
    world_from_camera: Tensor
    intrinsics: Tensor
    depth: Tensor
    certainty: Tensor


def assemble(name: str, photos: Photos, seen: list[Seen]) -> Geometry:
    """A network's answers in the frame and scale of `Geometry`.

    Certainty ``c`` becomes the confidence ``1 - 1 / c``: 0.67 at the 3 from which the networks' authors trust it.

    Args:
        name: the network's.
        photos: those that it was shown.
        seen: its answer for each.

    Raises:
        UserError: answers that are no cameras, or no depth above 0.
    """
    poses = torch.stack([_rigid(one.world_from_camera) for one in seen])
    intrinsics = torch.stack([one.intrinsics.detach().cpu().double() for one in seen])
    depths = [one.depth.detach().cpu().float() for one in seen]
    confidences = [_confidence(one.certainty.detach().cpu().float(), depth) for one, depth in zip(seen, depths)]
    some = any(bool((c > 0).any()) for c in confidences)
    usable = bool(torch.isfinite(poses).all() and torch.isfinite(intrinsics).all() and some)
    if not usable or float(intrinsics[:, [0, 1], [0, 1]].min()) <= 0:
        raise UserError(f"{name} found no cameras that agree for these photos: try `geometry` colmap, or other photos")
    cameras, maps = [], []
    for one, pose, matrix, depth, confidence in zip(seen, poses, intrinsics, depths, confidences):
        height, width = depth.shape
        small = Cameras(pose[None], matrix[None], torch.tensor([[width, height]]))
        cameras.append(one.picture.camera_of_photo(small))
        known = torch.where(confidence > 0, depth, torch.zeros_like(depth))
        maps.append(DepthMap(known, confidence, small, one.picture.image))
    return rescaled(Geometry(replace(photos, cameras=None), Cameras.concatenate(cameras), name, maps))


def rescaled(found: Geometry) -> Geometry:
    """A network's answer in any world, in the frame and scale of `Geometry`."""
    assert found.depths is not None
    maps = found.depths
    sure = torch.cat([own.depth[own.confidence >= MEASURED] for own in maps])
    sure = sure if len(sure) else torch.cat([own.depth[own.confidence > 0] for own in maps])
    scale = 1 / float(sure.median())
    first = torch.linalg.inv(found.cameras.world_from_camera[0])

    def moved(cameras: Cameras) -> Cameras:
        poses = first @ cameras.world_from_camera
        poses[:, :3, 3] *= scale
        return Cameras(poses, cameras.intrinsics, cameras.sizes)

    depths = [replace(own, depth=own.depth * scale, cameras=moved(own.cameras)) for own in maps]
    cameras = moved(found.cameras)
    cameras.world_from_camera[0] = depths[0].cameras.world_from_camera[0] = torch.eye(4, dtype=torch.float64)
    return replace(found, cameras=cameras, depths=depths)


def _confidence(certainty: Tensor, depth: Tensor) -> Tensor:
    believed = (1 - 1 / certainty.clamp(min=1)).clamp(min=_UNSURE, max=1)
    return torch.where(torch.isfinite(depth) & (depth > 0) & (certainty > 0), believed, torch.zeros_like(believed))


def _rigid(pose: Tensor) -> Tensor:
    """The nearest rigid transform in float64; what is not finite stays so."""
    pose = pose.detach().cpu().double().clone()
    if bool(torch.isfinite(pose).all()):
        u, _, v = torch.linalg.svd(pose[:3, :3])
        pose[:3, :3] = u @ torch.diag(torch.tensor([1.0, 1.0, float(torch.linalg.det(u @ v))]).double()) @ v
    return pose

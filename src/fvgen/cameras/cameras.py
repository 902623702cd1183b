"""A batch of pinhole cameras in OpenCV axes: x right, y down, z forward."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Cameras:
    """``N`` pinhole cameras without distortion.

    Attributes:
        world_from_camera: ``[N, 4, 4]`` float64 rigid transforms, OpenCV axes, in world units.
        intrinsics: ``[N, 3, 3]`` float64 in pixels; the centre of the top-left pixel is at (0.5, 0.5).
        sizes: ``[N, 2]`` int64, width and height in pixels.

    Raises:
        ValueError: if the shapes do not agree.
    """

    world_from_camera: Tensor
    intrinsics: Tensor
    sizes: Tensor

    def __post_init__(self) -> None:
        n = self.world_from_camera.shape[0]
        shapes = (tuple(self.world_from_camera.shape), tuple(self.intrinsics.shape), tuple(self.sizes.shape))
        if shapes != ((n, 4, 4), (n, 3, 3), (n, 2)):
            raise ValueError(f"cameras need shapes [N,4,4], [N,3,3], [N,2], got {shapes}")
        object.__setattr__(self, "world_from_camera", self.world_from_camera.to(torch.float64))
        object.__setattr__(self, "intrinsics", self.intrinsics.to(torch.float64))
        object.__setattr__(self, "sizes", self.sizes.to(torch.int64))

    def __len__(self) -> int:
        return self.world_from_camera.shape[0]

    def __getitem__(self, index: int | slice | list[int] | Tensor) -> "Cameras":
        """Select cameras; an integer keeps the batch axis."""
        if isinstance(index, int):
            index = [index]
        return Cameras(self.world_from_camera[index], self.intrinsics[index], self.sizes[index])

    @property
    def camera_from_world(self) -> Tensor:
        """``[N, 4, 4]``, the inverse of a rigid transform in closed form."""
        rotation = self.world_from_camera[:, :3, :3].transpose(1, 2)
        inverse = torch.eye(4, dtype=torch.float64, device=rotation.device).repeat(len(self), 1, 1)
        inverse[:, :3, :3] = rotation
        inverse[:, :3, 3] = -(rotation @ self.world_from_camera[:, :3, 3:])[..., 0]
        return inverse

    @property
    def centers(self) -> Tensor:
        """``[N, 3]`` camera centres in the world."""
        return self.world_from_camera[:, :3, 3]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) where all cameras share one size.

        Raises:
            ValueError: if they do not.
        """
        if len(self) == 0 or not bool((self.sizes == self.sizes[0]).all()):
            raise ValueError("these cameras do not share one image size")
        return int(self.sizes[0, 0]), int(self.sizes[0, 1])

    def resized(self, width: int, height: int) -> "Cameras":
        """The same cameras after their images are resampled to ``width`` x ``height`` (pixel-edge aligned)."""
        sizes = self._all_of(width, height)
        scale = sizes.double() / self.sizes
        intrinsics = self.intrinsics.clone()
        intrinsics[:, 0] *= scale[:, :1]
        intrinsics[:, 1] *= scale[:, 1:]
        return Cameras(self.world_from_camera, intrinsics, sizes)

    def cropped(self, left: float, top: float, width: int, height: int) -> "Cameras":
        """The same cameras after their images are cropped to a window whose top-left corner is (left, top)."""
        intrinsics = self.intrinsics.clone()
        intrinsics[:, 0, 2] -= left
        intrinsics[:, 1, 2] -= top
        return Cameras(self.world_from_camera, intrinsics, self._all_of(width, height))

    def covering(self, width: int, height: int) -> tuple["Cameras", list[tuple[float, float, float, float]]]:
        """Scale each image to cover ``width`` x ``height`` and crop its centre: never squashed, cropped least.

        Returns:
            The cameras of the result, and for each image the box ``(left, top, right, bottom)`` in its own pixels
            that must be resampled to ``width`` x ``height``.
        """
        boxes, intrinsics = [], self.intrinsics.clone()
        for i, (w, h) in enumerate(self.sizes.tolist()):
            scale = max(width / w, height / h)
            box_w, box_h = width / scale, height / scale
            left, top = (w - box_w) / 2, (h - box_h) / 2
            boxes.append((left, top, left + box_w, top + box_h))
            intrinsics[i, 0, 2] -= left
            intrinsics[i, 1, 2] -= top
            intrinsics[i, :2] *= scale
        return Cameras(self.world_from_camera, intrinsics, self._all_of(width, height)), boxes

    def _all_of(self, width: int, height: int) -> Tensor:
        return torch.tensor([width, height], device=self.sizes.device).repeat(len(self), 1)

    @staticmethod
    def concatenate(batches: list["Cameras"]) -> "Cameras":
        """Join batches along the camera axis."""
        return Cameras(*map(torch.cat, zip(*((b.world_from_camera, b.intrinsics, b.sizes) for b in batches))))


def plane_motion(reference: Cameras, source: Cameras) -> tuple[Tensor, Tensor]:
    """``A [3, 3]`` and ``b [3]``: reference pixel p at inverse depth w is source pixel ``A p + b w`` (homogeneous)."""
    motion = source.camera_from_world[0] @ reference.world_from_camera[0]
    inverse = torch.linalg.inv(reference.intrinsics[0])
    return source.intrinsics[0] @ motion[:3, :3] @ inverse, source.intrinsics[0] @ motion[:3, 3]

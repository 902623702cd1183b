"""What the scene room hands on: photos, a point cloud, and the scene that joins them."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fvgen.cameras import Cameras

if TYPE_CHECKING:
    from fvgen.scene.depth import DepthMap

MEASURED = 0.3  # least confidence of depth that counts as measured; under it depth is guessed


def listed(names: list[str], most: int = 12) -> str:
    """Names for a message of one line; of very many, how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


@dataclass(frozen=True)
class Dropped:
    """A photo that was left out, and why (one short clause)."""

    name: str
    reason: str


@dataclass(frozen=True)
class Photos:
    """``N`` photographs, upright, in the user's order.

    Attributes:
        names: unique file names (``IMG_1.jpg``), used for every output that speaks of a photo.
        images: ``N`` uint8 tensors ``[H_i, W_i, 3]`` sRGB, EXIF orientation applied.
        focals: ``N`` focal lengths in pixels of ``images`` from EXIF, ``None`` where unknown.
        cameras: cameras given with the photos (transforms.json, COLMAP), at the sizes of ``images``, or ``None``.
        dropped: photos that were named by the user and left out.
        masks: ``N`` of ``[H_i, W_i]`` bool, False where a photo's pixels are not to be used (people who walk by),
            ``None`` for a photo without a mask. A photo that is a frame of the path keeps all of its pixels.
        notes: what else was done to the photos that the user should know, a line each.
        files: ``N`` files that they were read from, ``None`` for frames of a video; empty where none is known.
        cropped: ``N``, whether a photo was cropped after EXIF was written: its focal length is a guess; empty: none.
    """

    names: list[str]
    images: list[Tensor]
    focals: list[float | None]
    cameras: Cameras | None = None
    dropped: list[Dropped] = field(default_factory=list)
    masks: list[Tensor | None] | None = None
    notes: list[str] = field(default_factory=list)
    files: list[Path | None] = field(default_factory=list)
    cropped: list[bool] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def select(self, index: list[int]) -> "Photos":
        """The photos of these numbers, in that order; ``dropped`` stays as it is."""
        return replace(
            self,
            names=[self.names[i] for i in index],
            images=[self.images[i] for i in index],
            focals=[self.focals[i] for i in index],
            cameras=None if self.cameras is None else self.cameras[index],
            masks=None if self.masks is None else [self.masks[i] for i in index],
            files=[self.files[i] for i in index] if self.files else [],
            cropped=[self.cropped[i] for i in index] if self.cropped else [],
        )

    def remarks(self) -> list[str]:
        """What the user should know of them, a line each: photos left out, by reason, and ``notes``."""
        names: dict[str, list[str]] = {}
        for photo in self.dropped:
            names.setdefault(photo.reason, []).append(photo.name)
        return [f"left out {listed(group)}: {reason}" for reason, group in names.items()] + self.notes

    def without_copies(self) -> "Photos":
        """The photos without pixel-identical copies of earlier ones, which are named in ``dropped``."""
        first: dict[tuple[torch.Size, bytes], int] = {}
        copies = []
        for i, image in enumerate(self.images):
            pixels = hashlib.sha256(image.cpu().numpy().tobytes()).digest()
            twin = first.setdefault((image.shape, pixels), i)
            if twin != i:
                copies.append(Dropped(self.names[i], f"the same picture as {self.names[twin]}"))
        return replace(self.select(list(first.values())), dropped=self.dropped + copies)


@dataclass(frozen=True)
class PointCloud:
    """Coloured points in world coordinates.

    Attributes:
        positions: ``[P, 3]`` float64, world units: a world may lie millions of units from its origin.
        colors: ``[P, 3]`` uint8 sRGB.
        photo: ``[P]`` int64, index of the photo each point came from.
        confidence: ``[P]`` float32 in (0, 1]; under ``MEASURED`` the depth was not matched but guessed from around.
    """

    positions: Tensor
    colors: Tensor
    photo: Tensor
    confidence: Tensor

    def __len__(self) -> int:
        return self.positions.shape[0]

    def to(self, device: torch.device | str) -> "PointCloud":
        """The cloud on another device."""
        return PointCloud(*(part.to(device) for part in (self.positions, self.colors, self.photo, self.confidence)))

    @property
    def measured(self) -> Tensor:
        """``[P]`` bool, False for points of guessed depth."""
        return self.confidence >= MEASURED


@dataclass(frozen=True)
class Scene:
    """A place as known from its photos.

    Attributes:
        photos: the photos that were placed, in order; ``photos.dropped`` names the others.
        cameras: one camera per photo at the photo's full size.
        points: measured ones and, marked by low confidence, guessed ones; those of one photo after the other's.
        depths: a depth map per photo, that the points were lifted from.
        geometry: how the cameras were found: ``"given"``, ``"colmap"``, ``"dust3r"`` or ``"da3"``.
        depth: how depth was: ``"sweep"``, ``"dust3r"`` or ``"da3"``.
        fit: of a network's cameras, how well they fit the photos (`fvgen.scene.geometry.refine.refined`); where only
            depth is a network's, how well its answer fits the cameras (`fvgen.scene.geometry.depth_for`); else empty.
    """

    photos: Photos
    cameras: Cameras
    points: PointCloud
    depths: list["DepthMap"]
    geometry: str
    depth: str = "sweep"
    fit: dict[str, float] = field(default_factory=dict)

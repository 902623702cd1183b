"""One camera as a file describes it, before its image is known to have the size that the file claims."""

import math
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fvgen.errors import UserError
from fvgen.files import absent
from fvgen.scene.formats.lens import Lens

_RIGID = 1e-3
_EXACT = 1e-5


@dataclass(frozen=True)
class CameraRecord:
    """A camera of a ``transforms.json`` or COLMAP model.

    Attributes:
        where: for messages, e.g. ``scene/transforms.json, frame 3 (images/0003.jpg)``.
        file_path: image name as written in the file, ``None`` where it has none.
        world_from_camera: ``[4, 4]`` float64, OpenCV axes.
        focal: ``(fl_x, fl_y)`` in pixels of ``size``, ``None`` where unknown.
        center: ``(cx, cy)``, pixel centres at .5; ``None`` means the middle.
        angle: horizontal and vertical field of view in radians, used where ``focal`` is ``None``.
        size: ``(width, height)`` that ``focal`` and ``center`` refer to, ``None`` where unknown.
        lens: the distortion.
        raw: the record as read, for keys that only the caller knows.
    """

    where: str
    file_path: str | None
    world_from_camera: Tensor
    focal: tuple[float, float] | None = None
    center: tuple[float, float] | None = None
    angle: tuple[float, float | None] | None = None
    size: tuple[int, int] | None = None
    lens: Lens = Lens()
    raw: dict[str, Any] = field(default_factory=dict)

    def with_size(self, size: tuple[int, int]) -> "CameraRecord":
        """The same record; where the file told no size, with this (width, height)."""
        return self if self.size else replace(self, size=size)

    def intrinsics(self) -> Tensor:
        """The camera's intrinsics ``[3, 3]`` float64 in pixels of ``size``.

        Raises:
            UserError: if the file gives neither a focal length nor an angle, or no size where one is needed.
        """
        if self.size is None:
            raise UserError(f"{self.where}: no image size; add w and h")
        width, height = self.size
        focal = self.focal
        if focal is None and self.angle is not None:
            horizontal = 0.5 * width / math.tan(0.5 * self.angle[0])
            vertical = 0.5 * height / math.tan(0.5 * self.angle[1]) if self.angle[1] else horizontal
            focal = (horizontal, vertical)
        if focal is None:
            raise UserError(f"{self.where}: no focal length; add fl_x and fl_y, or camera_angle_x")
        center = self.center or (width / 2, height / 2)
        return torch.tensor([[focal[0], 0, center[0]], [0, focal[1], center[1]], [0, 0, 1]], dtype=torch.float64)


def checked_rigid(matrix: Tensor, where: str) -> Tensor:
    """A rigid ``[4, 4]`` transform, or a complaint.

    A matrix that is rigid up to the file's digits is returned as it is; one that was written with few digits is
    replaced by the nearest rotation, so that its transpose is its inverse.

    Raises:
        UserError: for NaN, a scale, a shear or a mirror.
    """
    if not bool(matrix.isfinite().all()):
        raise UserError(f"{where}: the camera matrix has NaN or infinite numbers")
    rotation = matrix[:3, :3]
    error = float((rotation.T @ rotation - torch.eye(3, dtype=torch.float64)).abs().max())
    bottom = float((matrix[3] - torch.tensor([0, 0, 0, 1], dtype=torch.float64)).abs().max())
    if error > _RIGID or bottom > _EXACT or float(torch.linalg.det(rotation)) < 0:
        raise UserError(f"{where}: the camera matrix is not a rotation and a translation; export the cameras again")
    if error <= _EXACT:
        return matrix
    u, _, vh = torch.linalg.svd(rotation)
    nearest = matrix.clone()
    nearest[:3, :3] = u @ vh
    return nearest


def image_inside(folder: Path, file_path: str, where: str) -> Path:
    """The image file that ``file_path`` names below ``folder``.

    A name without suffix (Blender's habit) finds its ``.png`` or ``.jpg``; a missing ``images/x`` is looked for in
    ``images_2``, ``images_4`` and ``images_8``, where some data sets keep the same images, smaller.

    A link that lies in the folder is followed wherever it leads: the folder is the user's own.

    Raises:
        UserError: if it points out of the folder (``..``, an absolute path) or does not exist.
    """
    relative = Path(file_path.replace("\\", "/"))
    path = printable(repr(file_path))
    if relative.is_absolute() or relative.drive or re.match(r"[A-Za-z]:[\\/]", file_path):
        raise UserError(f"{where}: the image path {path} is absolute; write it as seen from {folder}")
    if os.path.normpath(relative).split(os.sep)[0] == os.pardir:
        raise UserError(f"{where}: the image path {path} leaves its folder; images must lie below {folder}")
    places = [relative]
    if "images" in relative.parts:
        at = relative.parts.index("images")
        places += [Path(*relative.parts[:at], f"images_{n}", *relative.parts[at + 1 :]) for n in (2, 4, 8)]
    for candidate in (f"{place}{suffix}" for place in places for suffix in ("", ".png", ".jpg")):
        target = folder.absolute() / os.path.normpath(candidate)
        if target.is_file():
            return target
    missing = f"{where}: there is no image {printable(str(folder / relative))}"
    if reason := absent(folder.absolute() / os.path.normpath(relative)):
        missing += f": {printable(reason)}"
    if re.search("[\ud800-\udfff]", file_path):
        missing += "; its name is not written in UTF-8: rename the photos in plain letters and find the cameras again"
    raise UserError(missing)


def mask_inside(folder: Path, record: CameraRecord) -> Path | None:
    """The mask that a frame of a ``transforms.json`` in ``folder`` names (``mask_path``), ``None`` where it has none.

    Raises:
        UserError: see `image_inside`; also where it is no name.
    """
    mask = record.raw.get("mask_path")
    if mask is not None and not isinstance(mask, str):
        raise UserError(f"{record.where}: mask_path must be a name")
    return image_inside(folder, mask, record.where) if mask else None


def local_path(source: str | Path) -> Path:
    """A path that a user names, ``~`` expanded.

    Raises:
        UserError: it is the address of something elsewhere.
    """
    path = Path(source).expanduser()
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(source)) and not path.exists():
        raise UserError(f"{source}: addresses (URLs) are not read; download it first and name the file")
    return path


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """A key to sort names by in which ``IMG_2`` comes before ``IMG_10``, whatever the case."""
    parts = re.split(r"([0-9]+)", name.lower())
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part) for part in parts] + [(0, 0, name)]


def printable(name: str) -> str:
    """A name fit for a message of one line: characters that cannot be printed become question marks."""
    return "".join(character if character.isprintable() else "?" for character in name)

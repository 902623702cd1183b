"""RealEstate10K: one text file of cameras per clip, and pixelSplat's chunks of them with their pictures inside.

Both give intrinsics as shares of width and height and world-to-camera matrices in OpenCV axes. A text file's first line
is the film's address; each other line is a time in microseconds, ``fx fy cx cy k1 k2`` and twelve numbers of a 3x4
matrix (Zhou et al. 2018). Chunks hold the same eighteen numbers per frame, the two distortions always 0.
"""

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fvgen.errors import UserError
from fvgen.files import genuine
from fvgen.scene.formats.lens import Lens
from fvgen.scene.formats.record import CameraRecord, checked_rigid

_COLUMNS = 18


@dataclass(frozen=True)
class TimedCamera:
    """A line of a camera file: its time in microseconds and its ``[18]`` float64 numbers."""

    time: int
    numbers: Tensor
    where: str

    def record(self, size: tuple[int, int]) -> CameraRecord:
        """The camera at a picture's (width, height).

        Raises:
            UserError: for numbers that are no camera.
        """
        (width, height), (fx, fy, cx, cy, k1, k2) = size, self.numbers[:6].tolist()
        if not (fx > 0 and fy > 0):
            raise UserError(f"{self.where}: the focal length is not above 0")
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3] = self.numbers[6:].view(3, 4)
        rigid = torch.linalg.inv(checked_rigid(pose, self.where))
        focal, center = (fx * width, fy * height), (cx * width, cy * height)
        return CameraRecord(self.where, None, rigid, focal, center, size=size, lens=Lens(radial=(k1, k2)))

    @property
    def center(self) -> Tensor:
        """The camera's centre ``[3]`` in the world."""
        matrix = self.numbers[6:].view(3, 4)
        return -matrix[:, :3].T @ matrix[:, 3]


def is_re10k(path: Path) -> bool:
    """Whether a text file looks like a clip's cameras."""
    try:
        with path.open(encoding="utf-8") as file:
            first, second = file.readline(), file.readline()
    except (OSError, UnicodeDecodeError):
        return False
    return bool(re.match(r"https?://", first)) and len(second.split()) == _COLUMNS + 1


def read_re10k(path: Path) -> list[TimedCamera]:
    """The cameras of a clip in the order of their lines.

    Raises:
        UserError: a line that is no camera.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()[1:]
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{path}: not a text file of cameras") from None
    cameras = []
    for number, line in enumerate(lines, 2):
        if not line.strip():
            continue
        where, words = f"{path}, line {number}", line.split()
        try:
            time, numbers = int(words[0]), torch.tensor([float(word) for word in words[1:]], dtype=torch.float64)
        except ValueError:
            raise UserError(f"{where}: not a time and 18 numbers") from None
        cameras.append(_checked(time, numbers, where))
    return cameras


def _checked(time: int, numbers: Tensor, where: str) -> TimedCamera:
    if numbers.shape != (_COLUMNS,):
        raise UserError(f"{where}: {numbers.numel()} numbers where a camera has {_COLUMNS}")
    if not bool(numbers.isfinite().all()):
        raise UserError(f"{where}: the camera has NaN or infinite numbers")
    return TimedCamera(time, numbers, where)


@dataclass(frozen=True)
class ChunkScene:
    """A scene of a chunk: its key, cameras, and one encoded picture (JPEG or PNG bytes, ``[n]`` uint8) for each."""

    key: str
    cameras: list[TimedCamera]
    pictures: list[Tensor]

    def picture(self, index: int) -> Tensor:
        """A decoded picture, ``[H, W, 3]`` uint8.

        Raises:
            UserError: bytes that are no picture.
        """
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(io.BytesIO(self.pictures[index].numpy().tobytes())) as image:
                return torch.from_numpy(np.array(image.convert("RGB"), dtype=np.uint8))
        except (OSError, UnidentifiedImageError, ValueError, SyntaxError):
            raise UserError(f"{self.cameras[index].where}: the picture cannot be decoded") from None


def read_chunk(path: Path) -> list[dict[str, Any]]:
    """The scenes of a ``.torch`` chunk as they are stored; only tensors and plain values are loaded.

    Raises:
        UserError: a file that is no chunk.
    """
    genuine(path)
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises whatever the damage makes it raise
        raise UserError(f"{path}: not a chunk of scenes ({type(error).__name__})") from None
    if not isinstance(stored, list) or not all(isinstance(scene, dict) and "key" in scene for scene in stored):
        raise UserError(f"{path}: not a chunk of scenes (a list of scenes with keys is expected)")
    return stored


def chunk_scene(path: Path, stored: dict[str, Any]) -> ChunkScene:
    """One stored scene, checked.

    Raises:
        UserError: cameras, times and pictures that do not fit together.
    """
    where, cameras = f"{path}, scene {stored['key']}", stored.get("cameras")
    pictures, times = list(stored.get("images", [])), stored.get("timestamps")
    if not isinstance(cameras, Tensor) or cameras.ndim != 2 or len(cameras) != len(pictures):
        raise UserError(f"{where}: {len(pictures)} pictures, but not as many cameras")
    numbered = times.tolist() if isinstance(times, Tensor) and len(times) == len(pictures) else range(len(pictures))
    rows = [
        _checked(int(time), row.double(), f"{where}, frame {k}") for k, (time, row) in enumerate(zip(numbered, cameras))
    ]
    return ChunkScene(str(stored["key"]), rows, pictures)

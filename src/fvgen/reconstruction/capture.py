"""What ``fvgen generate`` left in a folder, read and checked: frames, their cameras, what the guide covered, points."""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fvgen.cameras import Cameras
from fvgen.cameras.alignment import Similarity
from fvgen.errors import UserError
from fvgen.evaluation.task import Framing, nearest
from fvgen.pictures import to_bytes
from fvgen.progress import track
from fvgen.rendering.guide import resample_photo
from fvgen.scene.formats.images import read_photo
from fvgen.scene.formats.ply import read_ply
from fvgen.scene.formats.record import CameraRecord, image_inside, mask_inside
from fvgen.scene.formats.transforms_json import read_records, read_transforms_json
from fvgen.scene.photos import posed_shot

_FEWEST_POINTS = 10
_EXACT = "donot_use_mm_for_euclid_dist"  # the default takes differences of squares


@dataclass(frozen=True)
class Capture:
    """Frames along a path and the points they were made from, in one world.

    Attributes:
        images: ``[F, H, W, 3]`` uint8.
        covered: ``[F, H, W]`` bool, where the guide had points; in photographs what no mask hides.
        cameras: ``F`` cameras of one size.
        photo: for each frame the file name of the photograph it is, or ``None`` where it was generated.
        flight: how many of the frames, the first ones, are on the path; the rest are photographs beside it.
        positions: ``[P, 3]`` float64.
        colors: ``[P, 3]`` uint8.
        geometry: where the cameras came from; ``"given"``: they are in the user's own world.
    """

    images: Tensor
    covered: Tensor
    cameras: Cameras
    photo: list[str | None]
    flight: int
    positions: Tensor
    colors: Tensor
    geometry: str

    def __len__(self) -> int:
        return len(self.photo)

    def __getitem__(self, index: Sequence[int]) -> "Capture":
        """Some of the frames, all of the points."""
        chosen = list(index)
        return replace(
            self,
            images=self.images[chosen],
            covered=self.covered[chosen],
            cameras=self.cameras[chosen],
            photo=[self.photo[i] for i in chosen],
            flight=sum(i < self.flight for i in chosen),
        )

    def shrunk(self, longest: int) -> "Capture":
        """The same with frames of at most so many pixels on the longer side."""
        width, height = self.cameras.size
        scale = longest / max(width, height)
        if scale >= 1:
            return self
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        box = (0.0, 0.0, float(width), float(height))
        images = torch.stack([to_bytes(resample_photo(image, box, *size)) for image in self.images])
        covered = interpolate(self.covered[:, None].float(), size[::-1], mode="area")[:, 0] > 0.5
        return replace(self, images=images, covered=covered, cameras=self.cameras.resized(*size))

    def carried(self, to: Similarity) -> "Capture":
        """The same in another world."""
        return replace(self, cameras=to.cameras(self.cameras), positions=to.points(self.positions))

    @property
    def typical_depth(self) -> float:
        """Median over the points of the distance to the nearest camera, world units."""
        step = max(1, len(self.positions) // 20000)
        return float(
            torch.cdist(self.positions[::step].double(), self.cameras.centers, compute_mode=_EXACT).amin(1).median()
        )

    @property
    def photographs(self) -> list[int]:
        """Numbers of the frames that are photographs."""
        return [i for i, name in enumerate(self.photo) if name is not None]

    @property
    def generated(self) -> list[int]:
        """Numbers of the frames that were generated."""
        return [i for i, name in enumerate(self.photo) if name is None]


def read_capture(folder: str | Path) -> Capture:
    """Read an output of ``fvgen generate``: the frames of its path, and the photographs that the path does not pass.

    Raises:
        UserError: something is missing, damaged or does not fit the rest; names it.
    """
    folder = Path(folder)
    listed = folder / "transforms.json"
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; name one that fvgen generate wrote")
    if not listed.is_file():
        raise UserError(f"{folder}: no transforms.json in it; name a folder that fvgen generate wrote")
    cameras, records = read_transforms_json(listed)
    photo = [_photo_of(record, f"{listed}, frame {i}") for i, record in enumerate(records)]
    if len(photo) < 2:
        raise UserError(f"{folder}: only one frame in its transforms.json; two are needed at least")
    try:
        size = cameras.size
    except ValueError:
        raise UserError(f"{listed}: its frames differ in size; fvgen generate writes one") from None
    images, covered = [], []
    for record, name in zip(track(records, "reading frames"), photo):
        path = image_inside(folder, record["file_path"], f"{listed}")
        images.append(_sized(read_photo(path).upright(), size, path, "transforms.json says"))
        covered.append(torch.ones(size[::-1], dtype=torch.bool) if name else _mask(folder, path, size))
    positions, colors = _points(folder)
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{folder / 'summary.json'}: missing or damaged; this output is incomplete") from None
    geometry = summary.get("geometry", "") if isinstance(summary, dict) else ""
    flight, beside = len(photo), folder / "transforms_photos.json"
    if beside.is_file():
        passed, entries = {p for p in photo if p}, read_records(beside)
        for name, picture, camera, usable in framed_shots(entries, folder, passed, size):
            photo.append(name)
            images.append(to_bytes(picture))
            covered.append(usable)
            cameras = Cameras.concatenate([cameras, camera])
        masked = [entry for entry in entries if entry.raw.get("mask_path")]  # and those of frames of the path:
        hidden = {name: usable for name, *_, usable in framed_shots(masked, folder, set(photo[flight:]), size)}
        covered[:flight] = [hidden.get(name or "", own) for name, own in zip(photo, covered[:flight])]
    return Capture(torch.stack(images), torch.stack(covered), cameras, photo, flight, positions, colors, str(geometry))


def framed_shots(
    records: Iterable[CameraRecord], folder: Path, passed: Collection[str | None], size: tuple[int, int]
) -> Iterator[tuple[str, Tensor, Cameras, Tensor]]:
    """Photographs of a ``transforms.json``, scaled and cut to a size.

    Args:
        records: its entries.
        folder: that it lies in.
        passed: file names of photographs to leave out.
        size: (width, height).

    Yields:
        File name, picture ``[H, W, 3]`` float 0..1, camera and what is to be used of it, ``[H, W]`` bool, of each.

    Raises:
        UserError: an entry without file or camera.
    """
    framing = Framing(size)
    for record in records:
        if record.file_path is None:
            raise UserError(f"{record.where}: no file_path")
        path = image_inside(folder, record.file_path, record.where)
        if path.name in passed:
            continue
        shot = posed_shot(record, path, mask_inside(folder, record))
        if shot.camera is None:
            raise UserError(f"{record.where}: no camera")
        camera, boxes = framing.cameras(shot.camera)
        usable = torch.ones(size[::-1], dtype=torch.bool) if shot.mask is None else nearest(shot.mask, boxes[0], size)
        yield path.name, framing.picture(shot.image, boxes[0]), camera, usable


def _photo_of(record: dict[str, Any], where: str) -> str | None:
    source = record.get("source")
    if source not in ("photo", "generated") or not isinstance(record.get("file_path"), str):
        raise UserError(f"{where}: no file_path, or no source: photo or generated; fvgen generate writes both")
    return str(record.get("photo", record["file_path"])) if source == "photo" else None


def _sized(image: Tensor, size: tuple[int, int], path: Path, other: str) -> Tensor:
    if image.shape[1::-1] != size:
        raise UserError(f"{path}: {image.shape[1]}x{image.shape[0]} pixels, but {other} {size[0]}x{size[1]}")
    return image


def _mask(folder: Path, frame: Path, size: tuple[int, int]) -> Tensor:
    """What the guide covered of a frame."""
    from PIL import Image

    path = folder / "coverage" / frame.name
    try:
        with Image.open(path) as image:
            mask = torch.from_numpy(np.array(image.convert("L"))) > 127
    except FileNotFoundError:
        raise UserError(f"{path}: missing; this output is incomplete, generate it again") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error})") from None
    return _sized(mask, size, path, "its frame has")


def _points(folder: Path) -> tuple[Tensor, Tensor]:
    path = folder / "points.ply"
    if not path.is_file():
        raise UserError(f"{path}: missing; this output is incomplete, generate it again")
    positions, colors = read_ply(path)
    if len(positions) < _FEWEST_POINTS:
        raise UserError(f"{path}: {len(positions)} points; too few to begin with")
    return positions, colors

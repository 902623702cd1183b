"""Square pictures to cover surfaces with: procedural patterns, or pieces of photographs."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from fvgen.data.patterns import KINDS, Image8, to_image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".hdr")
_COMMON = ("dead_leaves",)  # twice as likely as the others


def procedural_texture(rng: np.random.Generator, size: int = 256) -> Image8:
    """One random texture, ``[size, size, 3]`` uint8, deterministic in ``rng``."""
    names = (*KINDS, *_COMMON)
    return KINDS[names[rng.integers(len(names))]](rng, size)


def read_hdr(path: Path) -> Image8:
    """A Radiance ``.hdr`` panorama (run-length encoded RGBE), exposed to a middle grey and gamma encoded.

    Raises:
        ValueError: if the file is not such a picture.
    """
    data = path.read_bytes()
    header, _, rest = data.partition(b"\n\n")
    line, _, body = rest.partition(b"\n")
    parts = line.split()
    if not header.startswith(b"#?") or len(parts) != 4 or parts[0] != b"-Y":
        raise ValueError(f"{path} is not a Radiance picture")
    height, width = int(parts[1]), int(parts[3])
    raw = np.frombuffer(body, np.uint8)
    rgbe, at = np.zeros((height, 4, width), np.uint8), 0
    for row in rgbe:
        at += 4  # each scan line repeats its width
        for channel in row:
            filled = 0
            while filled < width:
                count = int(raw[at])
                if count > 128:
                    channel[filled : filled + count - 128] = raw[at + 1]
                    filled, at = filled + count - 128, at + 2
                else:
                    channel[filled : filled + count] = raw[at + 1 : at + 1 + count]
                    filled, at = filled + count, at + 1 + count
    rgb = rgbe[:, :3].astype(np.float64) * np.exp2(rgbe[:, 3:].astype(np.float64) - 136)
    rgb = rgb.transpose(0, 2, 1)
    exposed = rgb * (0.35 / (np.exp(np.log(rgb + 1e-4).mean()) + 1e-6))
    return to_image((exposed / (1 + exposed * 0.4)) ** (1 / 2.2))


@lru_cache(maxsize=512)
def _load(path: Path) -> Image8:
    if path.suffix.lower() == ".hdr":
        return read_hdr(path)
    with Image.open(path) as image:
        image.draft("RGB", (1024, 1024))
        rgb = image.convert("RGB")
        rgb.thumbnail((1280, 1280), Image.Resampling.BOX)
        return np.asarray(rgb)


def image_files(folders: list[Path]) -> list[Path]:
    """All pictures under the folders, sorted."""
    return sorted(p for folder in folders for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)


class TextureBank:
    """Random square pictures: procedural, or cut from the photographs of some folders.

    Args:
        folders: where photographs are; empty for procedural textures only.
        photo_share: share of textures cut from photographs, where there are any.
    """

    def __init__(self, folders: list[Path] | None = None, photo_share: float = 0.7) -> None:
        self.files = image_files(folders or [])
        self.photo_share = photo_share if self.files else 0.0

    def sample(self, rng: np.random.Generator, size: int, zoom: tuple[float, float] = (0.15, 1.0)) -> Image8:
        """A ``[size, size, 3]`` uint8 picture; photographs are cropped to a random share of their shorter side."""
        if rng.random() >= self.photo_share:
            return procedural_texture(rng, size)
        return self._piece(rng, size, zoom)

    def _piece(self, rng: np.random.Generator, size: int, zoom: tuple[float, float]) -> Image8:
        photo = _load(self.files[rng.integers(len(self.files))])
        h, w = photo.shape[:2]
        side = int(min(h, w) * rng.uniform(*zoom))
        side = min(max(side, min(size, min(h, w))), min(h, w))
        top, left = int(rng.integers(h - side + 1)), int(rng.integers(w - side + 1))
        crop = Image.fromarray(photo[top : top + side, left : left + side])
        picture = np.asarray(
            crop.resize((size, size), Image.Resampling.BOX if side > size else Image.Resampling.BICUBIC)
        )
        return picture[:, ::-1] if rng.random() < 0.5 else picture

    def photo(self, number: int, size: int) -> Image8:
        """One of endlessly many seamless pictures ``[size, size, 3]``: pieces of photographs and their mirror images.

        Raises:
            ValueError: the bank has no photographs.
        """
        if not self.files:
            raise ValueError("a bank without photographs")
        rng = np.random.default_rng((number, 77))
        piece = self._piece(rng, size // 2, (0.25, 1.0))
        row = np.concatenate([piece, piece[:, ::-1]], 1)
        return np.concatenate([row, row[::-1]])

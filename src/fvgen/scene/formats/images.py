"""Photographs in files: decoding to upright 8-bit sRGB, EXIF orientation and focal length, writing PNG."""

import errno
import io
import math
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fvgen.errors import UserError
from fvgen.files import absent, other_content
from fvgen.progress import track

PHOTO_SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif"]
    + [".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pnm", ".tga"]
)
HEIF_SUFFIXES = frozenset([".heic", ".heif", ".hif"])
_RAW_SUFFIXES = frozenset([".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"])
UNREADABLE_SUFFIXES = frozenset([*HEIF_SUFFIXES, ".jxl", ".exr", ".hdr", *_RAW_SUFFIXES])  # but HEIF with an extra
MAX_PIXELS = 200_000_000
MIN_SIDE = 64

_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "JPEG2000", "PPM", "TGA")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_FILM_DIAGONAL_MM = math.hypot(36, 24)
_SHAPES, _SAME_SHAPE = (1.0, 4 / 3, 3 / 2, 16 / 9), 0.02  # of pictures as cameras and phones make them
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
_EXIF_IFD = 0x8769
_ORIENTATION, _FOCAL_MM, _FOCAL_35MM = 0x0112, 0x920A, 0xA405
_WIDTH, _HEIGHT, _PLANE_X, _PLANE_UNIT = 0xA002, 0xA003, 0xA20E, 0xA210
# EXIF orientation -> (quarter turns clockwise that make the stored picture upright, mirrored before turning or not).
_TURNS = {1: (0, False), 3: (2, False), 6: (1, False), 8: (3, False)}
_TURNS |= {2: (0, True), 4: (2, True), 5: (3, True), 7: (1, True)}
T = TypeVar("T")
_pillow_lock = threading.RLock()


@dataclass(frozen=True)
class StoredPhoto:
    """A decoded photograph as the file stores it, not yet turned upright.

    Attributes:
        image: ``[H, W, 3]`` uint8 sRGB.
        focal: focal length in pixels of ``image`` from EXIF, ``None`` where unknown.
        turns: quarter turns clockwise that make it upright, by EXIF.
        mirrored: whether it must be mirrored (left to right, before turning).
        cropped: whether its shape tells that it was cropped after EXIF was written: ``focal`` is a guess.
    """

    image: Tensor
    focal: float | None
    turns: int = 0
    mirrored: bool = False
    cropped: bool = False

    def upright(self) -> Tensor:
        """The picture turned as EXIF says: ``[H', W', 3]`` uint8."""
        image = self.image.flip(1) if self.mirrored else self.image
        return image.rot90(-self.turns, (0, 1)).contiguous()


def is_photo(path: Path) -> bool:
    """Whether a file's name is that of a photo; ``._IMG_1.jpg`` is not, which macOS leaves on other disks."""
    return path.suffix.lower() in PHOTO_SUFFIXES and not path.name.startswith(".")


def read_photo(path: str | Path) -> StoredPhoto:
    """Decode an image file.

    Transparency is laid over white, 16 bits are reduced to 8, grey, palette and CMYK become RGB, an embedded colour
    profile is converted to sRGB; of an animation the first picture is taken.

    Raises:
        UserError: not an image, a format that cannot be decoded, damaged, more than 200 million pixels (told from
            the header, before decoding), a side below 64 pixels, or a panorama.
    """
    path = Path(path)
    with _opened(path) as image:
        width, height = image.size
        if min(width, height) < MIN_SIDE:
            raise UserError(f"{path}: {width} x {height} pixels is too small; each side needs {MIN_SIDE} at least")
        rgb = _decoded(path, image, partial(_to_rgb, path=path))
        _refuse_panorama(path, image)
        exif = _exif(image)
        turns, mirrored = _TURNS.get(exif.get(_ORIENTATION, 1), (0, False))
        pixels = torch.from_numpy(np.array(rgb, dtype=np.uint8))
        focal = focal_from_exif(exif, *rgb.size)
        return StoredPhoto(pixels, focal, turns, mirrored, focal is not None and is_cropped(exif, *rgb.size))


def read_mask(path: str | Path) -> Tensor:
    """Which pixels of a photo are to be used, ``[H, W]`` bool as the file stores them: the bright ones.

    Bright is more than half of the brightest, as programs write 0 and 255, 0 and 1, or colours of a palette. Where a
    mask is transparent in some places, these are the ones not to be used, whatever their colour.

    Raises:
        UserError: see `read_photo`; but a mask may be of any small size.
    """
    path = Path(path)
    with _opened(path) as image:
        values = _decoded(path, image, _brightness)
    return torch.from_numpy(2 * values > values.max())


def _brightness(image: Image.Image) -> np.ndarray:
    """``[H, W]`` float32: the alpha of a picture that has some, else grey."""
    if image.mode.startswith(("I", "F")):
        return np.asarray(image).astype(np.float32)
    alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    grey = np.asarray(image.convert("RGB").convert("L"))
    return (alpha if alpha.min() < alpha.max() else grey).astype(np.float32)


def _decoded(path: Path, image: Image.Image, convert: Callable[[Image.Image], T]) -> T:
    """The pixels of an opened image, converted."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        most = MAX_PIXELS // 1_000_000
        raise UserError(f"{path}: {width} x {height} pixels is more than {most} million; make it smaller first")
    try:
        image.load()
        return convert(image)
    except _DAMAGED as error:
        raise UserError(f"{path}: damaged or cut off; copy or export the photo again ({_short(error)})") from None


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height of an image as stored, from the file's header.

    Raises:
        UserError: not an image.
    """
    with _opened(Path(path)) as image:
        return image.size


def focal_from_exif(exif: Mapping[int, Any], width: int, height: int) -> float | None:
    """Focal length in pixels of a ``width`` x ``height`` image, from EXIF tags.

    ``FocalLengthIn35mmFilm`` compares diagonals (CIPA DCG-001): ``f = f35 * hypot(width, height) / hypot(36, 24)``.
    ``FocalLength`` with ``FocalPlaneXResolution`` is exact where a camera writes both truly, so it is used where it
    agrees with the former within a tenth, or stands alone. ``None`` where neither is usable. Of a picture that was
    cropped (`is_cropped`) it is that of the whole one: of the size in EXIF, if the crop was not scaled, or else of the
    smallest around it of a shape between 3:2 and 4:3.

    Args:
        exif: tag number to value, main and Exif directories joined.
        width: of the image in pixels.
        height: of the image in pixels.
    """
    native, cropped = _native_size(exif), is_cropped(exif, width, height)
    short, long = sorted((width, height))
    scale, diagonal = 1.0, math.hypot(width, height)
    if cropped:
        scale = max(1.0, short / native[0], long / native[1]) if native else 1.0
        diagonal = scale * math.hypot(*native) if native else max(math.sqrt(1.5) * long, math.sqrt(3.0) * short)
    elif native:
        scale = long / native[1]
    film = _positive(exif.get(_FOCAL_35MM))
    from_film = _plausible(film * diagonal / _FILM_DIAGONAL_MM if film else None, width, height)
    mm, density = _positive(exif.get(_FOCAL_MM)), _positive(exif.get(_PLANE_X))
    unit = _UNIT_MM.get(exif.get(_PLANE_UNIT, 2))
    from_plane = _plausible(mm * density / unit * scale if mm and density and unit else None, width, height)
    if from_film and from_plane:
        return from_plane if abs(from_plane / from_film - 1) < 0.1 else from_film
    return from_film or from_plane


def is_cropped(exif: Mapping[int, Any], width: int, height: int) -> bool:
    """Whether a picture has another shape than the one that EXIF tells of, or, where it tells none, than cameras make.

    Args:
        exif: see `focal_from_exif`.
        width: of the image in pixels.
        height: of the image in pixels.
    """
    native = _native_size(exif)
    shapes = [native[1] / native[0]] if native else _SHAPES
    own = max(width, height) / min(width, height)
    return all(abs(own / shape - 1) > _SAME_SHAPE for shape in shapes)


def _native_size(exif: Mapping[int, Any]) -> tuple[float, float] | None:
    """Shorter and longer side of the picture that the camera made, in pixels."""
    width, height = _positive(exif.get(_WIDTH)), _positive(exif.get(_HEIGHT))
    return (min(width, height), max(width, height)) if width and height else None


def write_png(path: str | Path, image: Tensor) -> None:
    """Write a picture: ``[H, W, 3]`` uint8 (colour), ``[H, W]`` uint8 (grey) or ``[H, W]`` bool (0 and 255)."""
    if image.dtype == torch.bool:
        image = image.to(torch.uint8) * 255
    if image.dtype != torch.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(f"expected uint8 [H,W,3] or [H,W], got {image.dtype} {tuple(image.shape)}")
    Image.fromarray(image.cpu().contiguous().numpy()).save(path, format="PNG", compress_level=4)


class PngWriter:
    """Writes ``00000.png`` and so on into a folder, which it makes, by threads while more pictures are made.

    It is for a ``with``: leaving the block waits for what has been begun; after an error it drops what has not.

    Args:
        folder: for the files.

    Attributes:
        added: numbers of the pictures that it was given.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.added: set[int] = set()
        self._begun: list[Future[None]] = []
        self._pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1))
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "PngWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)

    def name(self, number: int) -> str:
        """The name of a picture's file."""
        return f"{number:05d}.png"

    def add(self, numbers: Iterable[int], pictures: Tensor) -> None:
        """Begin to write pictures ``[N, H, W, 3]`` or ``[N, H, W]``, see `write_png`; they must not change any more."""
        for number, picture in zip(numbers, pictures, strict=True):
            self.added.add(number)
            self._begun.append(self._pool.submit(write_png, self.folder / self.name(number), picture))

    def finish(self) -> None:
        """Wait until everything is written.

        Raises:
            OSError: a file cannot be written.
        """
        for one in track(self._begun, f"writing {self.folder.name}"):
            one.result()


_PANORAMA = 1.9  # times their height panoramas are wide, at least
PANORAMAS = "a panorama ({kind}), not what a lens draws; cut views of at most 90 degrees out of it, from several places"
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, TypeError, IndexError, KeyError, OverflowError)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The image with its header read and nothing decoded. Pillow's own size limit is lifted: we have ours."""
    with _pillow_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damage that costs nothing, or that raises later anyway
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            with open(path, "rb") as file:
                head = file.read(16)
                file.seek(0)
                with _identify(path, file, head) as image:
                    yield image
        except PermissionError:
            raise UserError(f"{path}: no permission to read it") from None
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP):
                raise
            raise UserError(f"{path}: {absent(path) or 'no such file'}") from None
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _identify(path: Path, file: Any, head: bytes) -> Image.Image:
    heif = head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS
    try:
        formats = (*_FORMATS, "HEIF") if heif and _reads_heif() else _FORMATS
        with suppress(Image.UnidentifiedImageError):
            if path.suffix.lower() not in _RAW_SUFFIXES:  # a raw file is a TIFF, of which a small preview would be read
                return Image.open(file, formats=formats)
    except _DAMAGED as error:
        raise UserError(f"{path}: damaged image header; copy or export the photo again ({_short(error)})") from None
    if heif and not _reads_heif():
        raise UserError(
            f"{path}: HEIC photos cannot be read; pip install pillow-heif (the extra fvgen[heif]), or export it as JPEG"
        )
    if path.suffix.lower() in UNREADABLE_SUFFIXES - HEIF_SUFFIXES:
        raise UserError(f"{path}: {path.suffix[1:].upper()} photos cannot be read; export it as JPEG or PNG")
    if not head:
        raise UserError(f"{path}: an empty file; copy the photo again")
    file.seek(0)
    if what := other_content(file.read(1024)):
        raise UserError(f"{path}: {what}")
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        raise UserError(f"{path}: a TIFF of a kind that cannot be read; export it with 8 bits per colour, or as PNG")
    raise UserError(f"{path}: not an image (its content is not JPEG, PNG, WebP, TIFF or the like)")


@cache
def _reads_heif() -> bool:
    """Whether pillow-heif is there, which teaches Pillow to read HEIC; it turns pictures upright itself."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode.startswith("I"):
        return _from_integers(image, path)
    if image.mode == "F":
        raise UserError(f"{path}: a floating point image has no known brightness; export it as JPEG or PNG")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return _to_srgb(Image.alpha_composite(white, rgba).convert("RGB"), image)
    return _to_srgb(image, image)


def _from_integers(image: Image.Image, path: Path) -> Image.Image:
    """Grey of 16 bits, or of 32 that hold 16."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise UserError(f"{path}: a 32 bit image has no known brightness; export it as JPEG or PNG")
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")


def _to_srgb(image: Image.Image, source: Image.Image) -> Image.Image:
    """RGB in sRGB, by the profile embedded in ``source`` where there is one."""
    profile = source.info.get("icc_profile")
    converted = None
    if profile:
        from PIL import ImageCms

        # A profile for another kind of image than this one leaves no better guess than sRGB.
        with suppress(ImageCms.PyCMSError, OSError, ValueError, TypeError):
            embedded = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "srgb" not in ImageCms.getProfileDescription(embedded).lower():
                converted = ImageCms.profileToProfile(image, embedded, ImageCms.createProfile("sRGB"), outputMode="RGB")
    return converted or image.convert("RGB")


def _exif(image: Image.Image) -> dict[int, Any]:
    """Main and Exif tags joined; an unreadable block counts as none, which only loses the focal length prior."""
    try:
        main = image.getexif()
        return {**dict(main), **dict(main.get_ifd(_EXIF_IFD))}
    except Exception:  # Pillow raises whatever the damaged bytes lead to
        return {}


def _refuse_panorama(path: Path, image: Image.Image) -> None:
    """Refuse what XMP says is no picture of one lens. Views cut out of a panorama keep its XMP, but not its shape."""
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    text = xmp if isinstance(xmp, str) else xmp.decode(errors="replace")
    kind = re.search(r"ProjectionType\W{1,3}(equirectangular|cylindrical)", text)
    if kind and image.width >= _PANORAMA * image.height:
        raise UserError(f"{path}: {PANORAMAS.format(kind=kind[1])}")


def _positive(value: Any) -> float | None:
    """A positive finite number, or ``None`` for all else that cameras write."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _plausible(focal: float | None, width: int, height: int) -> float | None:
    """``focal`` where it is that of a real lens: 0.2 to 30 times the longer side."""
    return focal if focal and 0.2 < focal / max(width, height) < 30 else None


def _short(error: BaseException) -> str:
    return re.sub(r"\s+", " ", str(error))[:80] or type(error).__name__

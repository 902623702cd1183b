"""Whatever the user names, as ``Photos``: image files, folders, videos, ``transforms.json``, COLMAP folders."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.errors import UserError
from fvgen.progress import track
from fvgen.scene.formats.colmap import colmap_image_folder, colmap_model_folder, read_colmap
from fvgen.scene.formats.images import MIN_SIDE, PHOTO_SUFFIXES, UNREADABLE_SUFFIXES, StoredPhoto, read_photo
from fvgen.scene.formats.lens import undistort
from fvgen.scene.formats.record import CameraRecord, image_inside
from fvgen.scene.formats.transforms_json import read_records
from fvgen.scene.formats.video import VIDEO_SUFFIXES, sharp_frames
from fvgen.scene.types import Dropped, Photos

VIDEO_FRAMES = 8


@dataclass(frozen=True)
class Shot:
    """One photo, read: image ``[H, W, 3]`` uint8, focal length in pixels, and its camera where one was given."""

    image: Tensor
    focal: float | None = None
    camera: Cameras | None = None


@dataclass(frozen=True)
class _Entry:
    """One photo, not yet read: its file name, the name of its folder, how to read it, and its file if it is one."""

    name: str
    folder: str
    read: Callable[[], Shot]
    file: Path | None = None


def load_photos(sources: str | Path | Sequence[str | Path], max_photos: int | None = None) -> Photos:
    """Load the photos that a user names.

    Args:
        sources: any of these, in the user's order: image files; folders of images (natural order of names; other
            files are ignored); videos (sharp, evenly spaced frames); and, alone, one set of photos with cameras: a
            ``transforms.json`` or a folder that holds one, or a COLMAP folder (``sparse/0``, ``images``).
        max_photos: of more photos, this many are taken, evenly from first to last; the others are in ``dropped``.
            Of a video, this many frames instead of 8.

    Returns:
        The photos, upright; ``cameras`` where the source gives them, undistorted, at the sizes of the images and in
        the source's own world.

    Raises:
        UserError: nothing there, fewer than two photos, photos that are all the same picture, or the first photo
            that cannot be used: no photo named by the user is ever silently left out.
    """
    sources = [sources] if isinstance(sources, str | Path) else list(sources)
    if not sources:
        raise UserError("no photos; name image files, a folder, a video, a transforms.json or a COLMAP folder")
    if max_photos is not None and max_photos < 2:
        raise UserError(f"at most {max_photos} photos are too few; at least two are needed")
    try:
        return _load([Path(source).expanduser() for source in sources], max_photos)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise UserError(f"{where}cannot be read ({error.strerror or error})") from None


def _load(sources: list[Path], max_photos: int | None) -> Photos:
    posed = [source for source in sources if _cameras_of(source)]
    if posed and len(sources) > 1:
        raise UserError(f"{posed[0]}: photos with cameras cannot be mixed with others; name them alone")
    entries = [entry for source in sources for entry in _entries(source, max_photos)]
    names, count = _unique_names(entries), len(entries)
    if count < 2:
        entries[0].read()  # what is wrong with it comes before that it is alone
        raise UserError(f"{sources[0]}: only one photo; at least two of the same place are needed")
    kept = list(range(count))
    if max_photos is not None and count > max_photos:
        kept = [round(i * (count - 1) / (max_photos - 1)) for i in range(max_photos)]
    rest = sorted(set(range(count)) - set(kept))
    shots = [entries[i].read() for i in track(kept, "reading photos")]
    if all(torch.equal(shot.image, shots[0].image) for shot in shots[1:]):
        raise UserError(
            f"{sources[0]}: all {len(shots)} photos are the same picture; photos from two places are needed"
        )
    cameras = [shot.camera for shot in shots if shot.camera is not None]
    return Photos(
        names=[names[i] for i in kept],
        images=[shot.image for shot in shots],
        focals=[shot.focal for shot in shots],
        cameras=Cameras.concatenate(cameras) if cameras else None,
        dropped=[Dropped(names[i], f"not among the {len(kept)} taken evenly of {count}") for i in rest],
        files=[entries[i].file for i in kept],
    )


def _cameras_of(source: Path) -> Path | None:
    """The ``transforms.json`` or the COLMAP model's folder of a source that brings cameras."""
    if (source / "transforms.json").is_file():
        return source / "transforms.json"
    if source.suffix.lower() == ".json":
        return source
    return colmap_model_folder(source) if source.is_dir() else None


def _entries(source: Path, max_photos: int | None) -> list[_Entry]:
    """The photos of one source, in order."""
    cameras = _cameras_of(source)
    if not source.exists():
        raise UserError(f"{source}: no such file or folder")
    if cameras:
        return _posed_entries(cameras)
    if source.suffix.lower() in VIDEO_SUFFIXES and not source.is_dir():
        frames = sharp_frames(source, max_photos or VIDEO_FRAMES)
        height, width = frames[0][1].shape[:2]
        if min(height, width) < MIN_SIDE:
            raise UserError(f"{source}: {width} x {height} pixels is too small; {MIN_SIDE} are needed")
        folder = source.absolute().parent.name
        return [_Entry(f"{source.stem}_{n:05d}.png", folder, partial(Shot, image)) for n, image in frames]
    paths = _photos_in(source) if source.is_dir() else [source]
    return [_Entry(path.name, path.absolute().parent.name, partial(_plain_shot, path), path) for path in paths]


def _plain_shot(path: Path) -> Shot:
    photo = read_photo(path)
    return Shot(photo.upright(), photo.focal)


def _photos_in(folder: Path) -> list[Path]:
    """Image files of a folder in natural order. Other files are no photos; photos that cannot be read are an error."""
    files = [path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file()]
    photos = sorted((p for p in files if p.suffix.lower() in PHOTO_SUFFIXES), key=lambda p: natural_key(p.name))
    stems = {photo.stem for photo in photos}
    for path in sorted(files, key=lambda p: natural_key(p.name)):
        if path.suffix.lower() in UNREADABLE_SUFFIXES and path.stem not in stems:  # a raw file may lie beside its JPEG
            raise UserError(f"{path}: {path.suffix[1:].upper()} photos cannot be read; export it as JPEG or PNG")
    if not photos:
        videos = [path.name for path in files if path.suffix.lower() in VIDEO_SUFFIXES]
        below = [path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
        hint = f"; name its video {min(videos)}" if videos else f"; name its folder {min(below)}" if below else ""
        raise UserError(f"{folder}: no photos in this folder{hint}")
    return photos


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """A key to sort names by in which ``IMG_2`` comes before ``IMG_10``, whatever the case."""
    parts = re.split(r"([0-9]+)", name.lower())
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part) for part in parts] + [(0, 0, name)]


def _posed_entries(cameras: Path) -> list[_Entry]:
    """The photos of a file or folder of cameras; each must be there, also those that ``max_photos`` will leave out."""
    if cameras.is_dir():
        records = sorted(read_colmap(cameras), key=lambda record: natural_key(record.file_path or ""))
        images = colmap_image_folder(cameras)
    else:
        records, images = read_records(cameras), cameras.parent
    entries = []
    for record in records:
        if record.file_path is None:
            raise UserError(f"{record.where}: no file_path; each frame needs its photo")
        path = image_inside(images, record.file_path, record.where)
        relative = Path(record.file_path.replace("\\", "/"))
        name = relative.name + ("" if relative.suffix else path.suffix)
        entries.append(_Entry(name, relative.parent.name, partial(posed_shot, record, path), path))
    return entries


def posed_shot(record: CameraRecord, path: Path) -> Shot:
    """One photo with its camera, read: intrinsics at the image's true size, distortion undone, both turned upright.

    Tools that find cameras mostly read the stored pixels and ignore EXIF orientation, so the stored picture is the
    camera's, unless only the upright one has the size that the file claims.

    Raises:
        UserError: a photo that cannot be read or has another shape than its camera, or a lens that cannot be undone.
    """
    photo = read_photo(path)
    stored = (photo.image.shape[1], photo.image.shape[0])
    claimed = record.size or stored
    upright = (stored[1], stored[0]) if photo.turns % 2 else stored
    if not _same_shape(stored, claimed) and _same_shape(upright, claimed):
        photo = StoredPhoto(photo.upright(), photo.focal)
    elif not _same_shape(stored, claimed):
        raise UserError(
            f"{record.where}: the photo has {stored[0]} x {stored[1]} pixels, its camera {claimed[0]} x {claimed[1]}; "
            "only a scaled photo can be used, not a cropped one"
        )
    image = photo.image
    camera = Cameras(
        record.world_from_camera[None], record.with_size(claimed).intrinsics()[None], torch.tensor([claimed])
    ).resized(image.shape[1], image.shape[0])
    if not record.lens.is_pinhole:
        try:
            image, intrinsics = undistort(image, camera.intrinsics[0], record.lens)
        except ValueError as error:
            raise UserError(f"{record.where}: {error}; undistort the photos with the tool that made them") from None
        camera = Cameras(camera.world_from_camera, intrinsics[None], camera.sizes)
    if photo.mirrored:
        return Shot(image, photo.focal, camera)  # a mirrored camera is none; the picture stays as its camera saw it
    for _ in range(photo.turns):
        image, camera = image.rot90(-1, (0, 1)), _turned_clockwise(camera)
    return Shot(image.contiguous(), photo.focal, camera)


def _turned_clockwise(cameras: Cameras) -> Cameras:
    """Cameras of images turned by 90 degrees clockwise: a pixel (u, v) of an image of height H comes to (H - v, u)."""
    turn = torch.zeros(4, 4, dtype=torch.float64)
    turn[0, 1], turn[1, 0], turn[2, 2], turn[3, 3] = 1.0, -1.0, 1.0, 1.0
    intrinsics = cameras.intrinsics.clone()
    intrinsics[:, 0, 0], intrinsics[:, 1, 1] = cameras.intrinsics[:, 1, 1], cameras.intrinsics[:, 0, 0]
    intrinsics[:, 0, 2] = cameras.sizes[:, 1] - cameras.intrinsics[:, 1, 2]
    intrinsics[:, 1, 2] = cameras.intrinsics[:, 0, 2]
    return Cameras(cameras.world_from_camera @ turn, intrinsics, cameras.sizes.flip(1))


def _same_shape(size: tuple[int, int], claimed: tuple[int, int]) -> bool:
    """Whether ``size`` is ``claimed`` scaled, up to a rounded pixel of the smaller one."""
    small, large = sorted((size, claimed))
    scale = max(large[0] / small[0], large[1] / small[1])
    return abs(large[0] / scale - small[0]) <= 1 and abs(large[1] / scale - small[1]) <= 1


def _unique_names(entries: list[_Entry]) -> list[str]:
    """One file name per photo, unique also without suffix and case; folders tell equal names apart, then numbers."""
    taken: set[str] = set()
    names = []
    for entry in entries:
        stem, suffix = Path(entry.name).stem, Path(entry.name).suffix
        choices = [stem, f"{entry.folder}_{stem}", *(f"{stem}_{n}" for n in range(2, len(entries) + 2))]
        free = next(_clean(choice) for choice in choices if _clean(choice).casefold() not in taken)
        taken.add(free.casefold())
        names.append(free + _clean(suffix))
    return names


def _clean(name: str) -> str:
    """Without characters that some output cannot hold (control characters, undecodable bytes)."""
    return re.sub(r"[\x00-\x1f\x7f/\\\ud800-\udfff]", "_", name)

"""Whatever the user names, as ``Photos``: image files, folders, videos, ``transforms.json``, COLMAP folders."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from fvgen.cameras import Cameras
from fvgen.errors import UserError
from fvgen.files import absent
from fvgen.progress import track
from fvgen.scene.formats.colmap import (
    colmap_image_folder,
    colmap_mask,
    colmap_model_folder,
    colmap_models,
    count_posed,
    read_colmap,
)
from fvgen.scene.formats.images import MIN_SIDE, UNREADABLE_SUFFIXES, StoredPhoto, is_photo, read_mask, read_photo
from fvgen.scene.formats.lens import undistort
from fvgen.scene.formats.record import CameraRecord, image_inside, local_path, mask_inside, natural_key
from fvgen.scene.formats.transforms_json import in_order, read_records
from fvgen.scene.formats.video import VIDEO_SUFFIXES, hdr_note, sharp_frames
from fvgen.scene.types import Dropped, Photos, listed

VIDEO_FRAMES = 8
P = TypeVar("P")
Q = TypeVar("Q")


@dataclass(frozen=True)
class Shot:
    """One photo, read: image ``[H, W, 3]`` uint8, focal length in pixels, its camera where one was given, and where
    there is a mask, ``[H, W]`` bool, False for pixels that are not to be used; and whether it was cropped, so that
    its focal length is a guess."""

    image: Tensor
    focal: float | None = None
    camera: Cameras | None = None
    mask: Tensor | None = None
    cropped: bool = False


@dataclass(frozen=True)
class _Entry:
    """One photo, not yet read: its file name, the name of its folder, how to read it, and its file if it is one."""

    name: str
    folder: str
    read: Callable[[], Shot]
    file: Path | None = None


@dataclass
class _Found:
    """What is found at the sources: photos to read, others that are left out, and what to tell of them."""

    entries: list[_Entry] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def load_photos(sources: str | Path | Sequence[str | Path], max_photos: int | None = None) -> Photos:
    """Load the photos that a user names.

    Args:
        sources: any of these, in the user's order: image files; folders of images (natural order of names; other
            files are ignored); videos (sharp, evenly spaced frames); and, alone, one set of photos with cameras, in the
            natural order of their names: a ``transforms.json`` or a folder that holds one (or, as Blender's do, a
            ``transforms_train.json``), or a COLMAP folder (``sparse/0``, ``images``; of several models the largest).
        max_photos: of more photos, this many are taken, evenly from first to last; the others are in ``dropped``.
            Of a video, this many frames instead of 8.

    Returns:
        The photos, upright; ``cameras`` where the source gives them, undistorted, at the sizes of the images and in
        the source's own world.

    Raises:
        UserError: nothing there, an address instead of a file, fewer than two photos, photos that are all the same
            picture, or photos that cannot be used, all of which are named: none is ever silently left out.
    """
    sources = [sources] if isinstance(sources, str | Path) else list(sources)
    if not sources:
        raise UserError("no photos; name image files, a folder, a video, a transforms.json or a COLMAP folder")
    if max_photos is not None and max_photos < 2:
        raise UserError(f"at most {max_photos} photos are too few; at least two are needed")
    try:
        return _load([local_path(source) for source in sources], max_photos)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise UserError(f"{where}cannot be read ({error.strerror or error})") from None


def _load(sources: list[Path], max_photos: int | None) -> Photos:
    posed = [source for source in sources if _cameras_of(source)]
    if posed and len(sources) > 1:
        raise UserError(f"{posed[0]}: photos with cameras cannot be mixed with others; name them alone")
    found = _Found()
    for source in sources:
        _find(source, max_photos, found)
    entries = _once(found)
    names, count = _unique_names(entries), len(entries)
    if count < 2:
        entries[0].read()  # what is wrong with it comes before that it is alone
        again = f" (named {len(found.entries)} times)" if len(found.entries) > 1 else ""
        raise UserError(f"{sources[0]}: only one photo{again}; at least two of the same place are needed")
    kept = list(range(count))
    if max_photos is not None and count > max_photos:
        kept = [round(i * (count - 1) / (max_photos - 1)) for i in range(max_photos)]
    rest = sorted(set(range(count)) - set(kept))
    shots = _read([entries[i] for i in kept])
    if all(torch.equal(shot.image, shots[0].image) for shot in shots[1:]):
        raise UserError(
            f"{sources[0]}: all {len(shots)} photos are the same picture; photos from two places are needed"
        )
    cameras = [shot.camera for shot in shots if shot.camera is not None]
    masks = [shot.mask for shot in shots]
    if not any(mask is None or bool(mask.any()) for mask in masks):
        raise UserError(f"{sources[0]}: the masks leave nothing of any photo; white is used, black is not")
    guessed = [names[i] for i, shot in zip(kept, shots) if shot.cropped and not cameras]
    if guessed:
        found.notes.append(f"{listed(guessed)}: cropped, so that EXIF's focal length is uncertain; matches decide")
    passed = [Dropped(names[i], f"not among the {len(kept)} taken evenly of {count}") for i in rest]
    return Photos(
        names=[names[i] for i in kept],
        images=[shot.image for shot in shots],
        focals=[shot.focal for shot in shots],
        cameras=Cameras.concatenate(cameras) if cameras else None,
        dropped=passed + found.dropped,
        masks=masks if any(mask is not None for mask in masks) else None,
        notes=found.notes,
        files=[entries[i].file for i in kept],
        cropped=[shot.cropped for shot in shots],
    ).without_copies()


def _once(found: _Found) -> list[_Entry]:
    """The photos that were found, each file once; those that are named again are told."""
    first: dict[str, _Entry] = {}
    again: list[str] = []
    for number, entry in enumerate(found.entries):
        kept = first.setdefault(os.path.realpath(entry.file) if entry.file else str(number), entry)
        if kept is not entry:
            again.append(entry.name)
    found.dropped += [Dropped(name, "named more than once, used once") for name in dict.fromkeys(again)]
    return list(first.values())


def _read(entries: list[_Entry]) -> list[Shot]:
    """All photos, or a complaint that names all of those that cannot be used."""
    return _every(track(entries, "reading photos"), lambda entry: entry.read(), lambda entry: entry.name)


def _every(photos: Iterable[P], make: Callable[[P], Q], name: Callable[[P], str]) -> list[Q]:
    """What is made of each photo, or a complaint that names all of those that cannot be used."""
    made, failed, count = [], [], 0
    for photo in photos:
        count += 1
        try:
            made.append(make(photo))
        except UserError as error:
            failed.append((name(photo), error))
    if len(failed) > 1:
        names = listed([name for name, _ in failed[1:]], 40)
        raise UserError(f"{failed[0][1]} ({len(failed) - 1} more of {count} photos cannot be used: {names})")
    if failed:
        raise failed[0][1]
    return made


def _cameras_of(source: Path) -> Path | None:
    """The ``transforms.json`` or the COLMAP model's folder of a source that brings cameras."""
    for name in ("transforms.json", "transforms_train.json"):
        if (source / name).is_file():
            return source / name
    if source.suffix.lower() == ".json":
        return source
    return colmap_model_folder(source) if source.is_dir() else None


def _find(source: Path, max_photos: int | None, found: _Found) -> None:
    """Add the photos of one source, in order."""
    cameras = _cameras_of(source)
    if not source.exists():
        raise UserError(f"{source}: {absent(source) or 'no such file or folder'}")
    if cameras and cameras.is_dir():
        _find_colmap(source, cameras, found)
    elif cameras:
        found.entries += _posed_entries(in_order(read_records(cameras)), cameras.parent)
        splits = [name for name in ("transforms_val.json", "transforms_test.json") if (source / name).is_file()]
        if cameras.name == "transforms_train.json" and splits:
            found.notes.append(f"{source}: used {cameras.name}; not used: {' and '.join(splits)}")
    elif source.suffix.lower() in VIDEO_SUFFIXES and not source.is_dir():
        frames = sharp_frames(source, max_photos or VIDEO_FRAMES)
        height, width = frames[0][1].shape[:2]
        if min(height, width) < MIN_SIDE:
            raise UserError(f"{source}: {width} x {height} pixels is too small; {MIN_SIDE} are needed")
        folder = source.absolute().parent.name
        found.entries += [_Entry(f"{source.stem}_{n:05d}.png", folder, partial(Shot, image)) for n, image in frames]
        if note := hdr_note(source):
            found.notes.append(f"{source.name}: {note}")
    else:
        paths = _photos_in(source, found.notes) if source.is_dir() else [source]
        folders = [path.absolute().parent.name for path in paths]
        for path, folder in zip(paths, folders):
            found.entries.append(_Entry(path.name, folder, partial(_plain_shot, path), path))


def _find_colmap(source: Path, model: Path, found: _Found) -> None:
    """Add the photos of a COLMAP model; what its folder holds besides is told: other models, photos without a pose."""
    records = sorted(read_colmap(model), key=lambda record: natural_key(record.file_path or ""))
    images = colmap_image_folder(model)
    masks = {record.file_path or "": colmap_mask(images, record.file_path or "") for record in records}
    found.entries += _posed_entries(records, images, masks)
    if masked := sum(mask is not None for mask in masks.values()):
        found.notes.append(f"{images.parent / 'masks'}: masks of {masked} photos; what is black in them is not used")
    models = colmap_models(source)
    if len(models) > 1:
        used, *others = [f"{path.relative_to(source)} (photos: {count_posed(path)})" for path in models]
        found.notes.append(f"{source}: used the model {used}; not used: {listed(others)}")
    known = {image_inside(images, record.file_path or "", record.where) for record in records}
    stored = [path for path in images.rglob("*") if is_photo(path) and path.is_file()]
    lost = [str(path.relative_to(images)) for path in stored if path not in known]
    found.dropped += [Dropped(name, "not placed by the COLMAP model") for name in sorted(lost, key=natural_key)]


def _plain_shot(path: Path) -> Shot:
    photo = read_photo(path)
    return Shot(photo.upright(), photo.focal, cropped=photo.cropped)


def _photos_in(folder: Path, notes: list[str]) -> list[Path]:
    """Image files of a folder in natural order. Other files are no photos; photos that cannot be read are an error.

    Of videos and folders of photos that lie beside the photos, ``notes`` tells that they are not read.
    """
    inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
    files = [path for path in inside if path.is_file() or (path.is_symlink() and not path.is_dir())]  # broken ones too
    photos = [path for path in files if is_photo(path)]
    stems = {photo.stem for photo in photos}  # a raw file may lie beside its JPEG
    photos += [path for path in files if path.suffix.lower() in UNREADABLE_SUFFIXES and path.stem not in stems]
    if not photos:
        videos = [path.name for path in files if path.suffix.lower() in VIDEO_SUFFIXES]
        below = [path.name for path in inside if path.is_dir()]
        cameras = [path.name for path in files if path.name.startswith("transforms") and path.suffix == ".json"]
        hint = f"; name its folder {min(below)}" if below else ""
        hint = f"; name its video {min(videos)}" if videos else hint
        hint = f"; name its cameras {min(cameras)}" if cameras else hint  # the folder alone would lose them
        raise UserError(f"{folder}: no photos in this folder{hint}")
    stems = {photo.stem for photo in photos}  # a phone's live photo lies beside its still one
    passed = [p.name for p in files if p.suffix.lower() in VIDEO_SUFFIXES and p.stem not in stems]
    passed += [
        f"{path.name}/"
        for path in inside
        if path.is_dir() and os.access(path, os.R_OK) and any(map(is_photo, path.iterdir()))
    ]
    if passed:
        notes.append(f"{folder}: used its photos; not used: {listed(sorted(passed, key=natural_key))}")
    return sorted(photos, key=lambda path: natural_key(path.name))


def _posed_entries(
    records: list[CameraRecord], images: Path, masks: dict[str, Path | None] | None = None
) -> list[_Entry]:
    """Photos with cameras; each must be there, also those that ``max_photos`` will leave out."""
    entry = partial(_posed_entry, images=images, masks=masks or {})
    return _every(records, entry, lambda record: Path(record.file_path or "?").name)


def _posed_entry(record: CameraRecord, images: Path, masks: dict[str, Path | None]) -> _Entry:
    if record.file_path is None:
        raise UserError(f"{record.where}: no file_path; each frame needs its photo")
    path = image_inside(images, record.file_path, record.where)
    mask_path = mask_inside(images, record) or masks.get(record.file_path)
    relative = Path(record.file_path.replace("\\", "/"))
    name = relative.name + ("" if relative.suffix else path.suffix)
    return _Entry(name, relative.parent.name, partial(posed_shot, record, path, mask_path), path)


def posed_shot(record: CameraRecord, path: Path, mask_path: Path | None = None) -> Shot:
    """One photo with its camera, read: intrinsics at the image's true size, distortion undone, both turned upright.

    A mask, as nerfstudio has them, is of the same pixels, black (or transparent) where they are not to be used; it is
    treated alike.

    Tools that find cameras mostly read the stored pixels and ignore EXIF orientation, so the stored picture is the
    camera's, unless only the upright one has the size that the file claims.

    Raises:
        UserError: a photo or mask that cannot be read or has another shape than its camera, or a lens that cannot be
            undone.
    """
    photo, mask = read_photo(path), None
    if mask_path is not None:
        mask = 255 * read_mask(mask_path).to(torch.uint8)[..., None].expand(-1, -1, 3)
    stored = (photo.image.shape[1], photo.image.shape[0])
    claimed = record.size or stored
    upright = (stored[1], stored[0]) if photo.turns % 2 else stored
    if not _same_shape(stored, claimed) and _same_shape(upright, claimed):
        photo = StoredPhoto(photo.upright(), photo.focal, cropped=photo.cropped)
    elif not _same_shape(stored, claimed):
        raise UserError(
            f"{record.where}: the photo has {stored[0]} x {stored[1]} pixels, its camera {claimed[0]} x {claimed[1]}; "
            "only a scaled photo can be used, not a cropped one"
        )
    image = photo.image
    if mask is not None:
        if not _same_shape((mask.shape[1], mask.shape[0]), (image.shape[1], image.shape[0])):
            raise UserError(f"{mask_path}: this mask has another shape than its photo {path.name}")
        mask = F.interpolate(mask.movedim(-1, 0)[None], image.shape[:2], mode="nearest")[0].movedim(0, -1)
    camera = Cameras(
        record.world_from_camera[None], record.with_size(claimed).intrinsics()[None], torch.tensor([claimed])
    ).resized(image.shape[1], image.shape[0])
    if not record.lens.is_pinhole:
        try:
            if mask is not None:
                mask, _ = undistort(mask, camera.intrinsics[0], record.lens)
            image, intrinsics = undistort(image, camera.intrinsics[0], record.lens)
        except ValueError as error:
            raise UserError(f"{record.where}: {error}; undistort the photos with the tool that made them") from None
        camera = Cameras(camera.world_from_camera, intrinsics[None], camera.sizes)
    usable = None if mask is None else mask[..., 0] > 127
    if photo.mirrored:  # a mirrored camera is none; the picture stays as its camera saw it
        return Shot(image, photo.focal, camera, usable, photo.cropped)
    for _ in range(photo.turns):
        image, camera = image.rot90(-1, (0, 1)), _turned_clockwise(camera)
    usable = None if usable is None else usable.rot90(-photo.turns, (0, 1)).contiguous()
    return Shot(image.contiguous(), photo.focal, camera, usable, photo.cropped)


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

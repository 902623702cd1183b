"""A scene on the disk, so that what was found out of photos once is not worked out again."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fvgen import __version__
from fvgen.cameras import Cameras
from fvgen.errors import UserError
from fvgen.files import SCENE, write_whole
from fvgen.scene.depth import DepthMap
from fvgen.scene.formats.images import read_photo
from fvgen.scene.points import fuse_points
from fvgen.scene.types import Dropped, Photos, Scene

_FORMAT = 1


def write_scene(scene: Scene, folder: Path, files: Sequence[str] = (), made_of: str = "") -> None:
    """Write cameras, depth maps and confidence exactly, as ``folder / SCENE``; of the photographs only their digests.

    Args:
        scene: with a depth map for each photo.
        folder: exists.
        files: of each photo its file in ``folder / "photos"``, which holds exactly its pixels; empty where they are not
            there.
        made_of: what :func:`made_of` says of the photos and options.
    """
    from safetensors.torch import save

    tensors = _tensors("photos", scene.cameras)
    for i, one in enumerate(scene.depths):
        tensors |= _tensors(f"maps.{i}", one.cameras)
        tensors |= {f"maps.{i}.depth": one.depth, f"maps.{i}.confidence": one.confidence, f"maps.{i}.image": one.image}
    tensors |= {f"masks.{i}": mask for i, mask in enumerate(scene.photos.masks or []) if mask is not None}
    told = {
        "format": _FORMAT,
        "made_of": made_of,
        "names": scene.photos.names,
        "files": list(files),
        "pixels": [_digest(image) for image in scene.photos.images],
        "focals": scene.photos.focals,
        "dropped": [asdict(one) for one in scene.photos.dropped],
        "notes": scene.photos.notes,
        "geometry": scene.geometry,
        "depth": scene.depth,
        "fit": scene.fit,
        "version": __version__,
    }
    plain = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    content = save(plain, {"fvgen": json.dumps(told, ensure_ascii=False)})
    write_whole(folder / SCENE, lambda file: file.write(content))


def read_scene(folder: Path, photos: Photos | None = None, made_of: str | None = None) -> Scene:
    """The scene that :func:`write_scene` wrote.

    Args:
        folder: it is in.
        photos: it was made of, where their files are not in the folder.
        made_of: what it must have been made of.

    Raises:
        UserError: it is damaged, or was made of something else, or a photograph is gone or was changed.
    """
    path = folder / SCENE
    tensors, told = _content(path)
    if made_of is not None and told["made_of"] != made_of:
        raise UserError(
            f"output folder {folder} holds the scene of an interrupted run of other photos or options: choose another, "
            "or add `overwrite`"
        )
    photos = _photos(folder, told) if photos is None else photos.select([photos.names.index(n) for n in told["names"]])
    for name, image, digest in zip(told["files"] or photos.names, photos.images, told["pixels"]):
        if _digest(image) != digest:
            raise UserError(f"{folder / 'photos' / name} is not the photo that {path} was made of: name your photos")
    cameras = _cameras("photos", tensors)
    masks = [tensors.get(f"masks.{i}") for i in range(len(photos))]
    photos = replace(
        photos,
        focals=told["focals"],
        cameras=cameras if told["geometry"] == "given" else None,
        dropped=[Dropped(**one) for one in told["dropped"]],
        masks=masks if any(mask is not None for mask in masks) else None,
        notes=told["notes"],
    )
    depths = []
    for i in range(len(photos)):
        depth, confidence, image = (tensors[f"maps.{i}.{part}"] for part in ("depth", "confidence", "image"))
        depths.append(DepthMap(depth, confidence, _cameras(f"maps.{i}", tensors), image))
    return Scene(photos, cameras, fuse_points(depths), depths, told["geometry"], told["depth"], told["fit"])


def made_of(photos: Photos, geometry: str, depth: str, weights: str | None, device: torch.device) -> str:
    """A digest of all that a scene depends on, see `fvgen.scene.build_scene`, and of the version of fvgen."""
    told: list[Any] = [__version__, geometry, depth, weights, device.type, photos.names, photos.focals]
    told += [_digest(image) for image in photos.images]
    told += [None if mask is None else _digest(mask) for mask in photos.masks or []]
    if photos.cameras is not None:
        told += [_digest(one) for one in _tensors("", photos.cameras).values()]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _photos(folder: Path, told: dict[str, Any]) -> Photos:
    if not told["files"]:
        raise UserError(f"{folder} holds the scene of an interrupted run: run the same command again")
    files = [folder / "photos" / name for name in told["files"]]
    for file in files:
        if not file.is_file():
            raise UserError(f"{file} is gone, which {folder / SCENE} was made of: name your photos")
    return Photos(told["names"], [read_photo(file).image for file in files], told["focals"], files=list(files))


def _content(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            told = json.loads((file.metadata() or {}).get("fvgen", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it cannot be iterated)
    except (SafetensorError, OSError, ValueError):
        raise UserError(f"{path}: damaged; name your photos, and another output folder") from None
    if told.get("format") != _FORMAT:
        raise UserError(f"{path} is of another version of fvgen ({told.get('version', 'unknown')}): name your photos")
    return tensors, told


def _tensors(name: str, cameras: Cameras) -> dict[str, Tensor]:
    parts = {"world_from_camera": cameras.world_from_camera, "intrinsics": cameras.intrinsics, "sizes": cameras.sizes}
    return {f"{name}.{part}": value for part, value in parts.items()}


def _cameras(name: str, tensors: dict[str, Tensor]) -> Cameras:
    return Cameras(*(tensors[f"{name}.{part}"] for part in ("world_from_camera", "intrinsics", "sizes")))


def _digest(values: Tensor) -> str:
    told = f"{values.dtype} {tuple(values.shape)}".encode()
    return hashlib.sha256(told + values.detach().cpu().contiguous().numpy().tobytes()).hexdigest()

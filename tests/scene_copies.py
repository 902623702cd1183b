"""Small faithful copies of data sets' layouts, written from the posed frames of a real scene."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fvgen.cameras import Cameras
from fvgen.scene.formats.colmap import write_colmap
from fvgen.scene.formats.transforms_json import read_transforms_json, write_transforms_json


class Copy:
    """Frames of a real scene, smaller.

    Args:
        source: folder with a ``transforms.json``.
        frames: how many, spread evenly.
        width: of the pictures; all get the first one's shape.
    """

    def __init__(self, source: Path, frames: int, width: int = 256) -> None:
        cameras, records = read_transforms_json(source / "transforms.json")
        chosen = [round(k * (len(records) - 1) / (frames - 1)) for k in range(frames)]
        w, h = cameras.sizes[chosen[0]].tolist()
        self.size = (width, round(width * h / w))
        self.cameras = cameras[chosen].resized(*self.size)
        self.pictures = []
        for i in chosen:
            with Image.open(source / records[i]["file_path"]) as image:
                self.pictures.append(image.convert("RGB").resize(self.size, Image.Resampling.LANCZOS))

    def save(self, folder: Path, names: list[str], factor: float = 1) -> None:
        """The pictures, smaller by ``factor``."""
        folder.mkdir(parents=True, exist_ok=True)
        size = (round(self.size[0] / factor), round(self.size[1] / factor))
        for name, picture in zip(names, self.pictures):
            picture.resize(size, Image.Resampling.LANCZOS).save(folder / name, quality=95)

    def nerfstudio(self, folder: Path) -> Path:
        """``transforms.json`` and ``images/frame_00001.png``."""
        names = [f"frame_{i + 1:05d}.png" for i in range(len(self.pictures))]
        self.save(folder / "images", names)
        write_transforms_json(folder / "transforms.json", self.cameras, [f"images/{name}" for name in names])
        return folder

    def dl3dv(self, folder: Path) -> Path:
        """``nerfstudio/{transforms.json, images_4, images_8}``; the file speaks of the film's own, larger size."""
        names = [f"frame_{i + 1:05d}.png" for i in range(len(self.pictures))]
        base = folder / "nerfstudio"
        self.save(base / "images_4", names)
        self.save(base / "images_8", names, 2)
        film = self.cameras.resized(4 * self.size[0], 4 * self.size[1])
        write_transforms_json(base / "transforms.json", film, [f"images/{name}" for name in names])
        return folder

    def colmap(self, folder: Path, images: dict[str, float], scale: int = 1, suffix: str = ".png") -> Path:
        """``sparse/0`` at ``scale`` times the pictures' size, and folders of pictures smaller by some factors."""
        names = [f"DSC{i + 8000:05d}{suffix}" for i in range(len(self.pictures))]
        for name, factor in images.items():
            self.save(folder / name, names, factor)
        model = folder / "sparse" / "0"
        model.mkdir(parents=True)
        full = self.cameras.resized(scale * self.size[0], scale * self.size[1])
        order = list(range(len(names)))[::-1]  # the order of a model's images is not that of their names
        write_colmap(model, full[order], [names[i] for i in order], torch.zeros(1, 3), torch.zeros(1, 3).byte())
        return folder

    def nerfpp(self, folder: Path) -> Path:
        """``{train,test}/{rgb,pose,intrinsics}``; every fourth frame is for testing."""
        for i, picture in enumerate(self.pictures):
            part = folder / ("test" if i % 4 == 0 else "train")
            for name in ("rgb", "pose", "intrinsics"):
                (part / name).mkdir(parents=True, exist_ok=True)
            picture.save(part / "rgb" / f"{i:06d}.png")
            intrinsics = torch.eye(4, dtype=torch.float64)
            intrinsics[:3, :3] = self.cameras.intrinsics[i]
            for name, matrix in (("pose", self.cameras.world_from_camera[i]), ("intrinsics", intrinsics)):
                (part / name / f"{i:06d}.txt").write_text(" ".join(repr(v) for v in matrix.flatten().tolist()))
        return folder

    def fvs(self, folder: Path) -> Path:
        """``dense/ibr3d_pw_0.50`` and, of half the size, ``ibr3d_pw_0.25``, world to camera in ``.npy`` files."""
        for scale, factor in (("0.50", 1.0), ("0.25", 2.0)):
            place = folder / "dense" / f"ibr3d_pw_{scale}"
            self.save(place, [f"im_{i:08d}.png" for i in range(len(self.pictures))], factor)
            small = self.cameras.resized(round(self.size[0] / factor), round(self.size[1] / factor))
            np.save(place / "Ks.npy", small.intrinsics.numpy())
            np.save(place / "Rs.npy", small.camera_from_world[:, :3, :3].numpy())
            np.save(place / "ts.npy", small.camera_from_world[:, :3, 3].numpy())
        return folder


def write_index_file(path: Path, entries: dict) -> Path:
    """An index as others write it."""
    path.write_text(json.dumps(entries))
    return path


def same_cameras(a: Cameras, b: Cameras, tolerance: float = 1e-6) -> None:
    """Assert that cameras agree, intrinsics in pixels."""
    assert torch.equal(a.sizes, b.sizes)
    torch.testing.assert_close(a.world_from_camera, b.world_from_camera, atol=tolerance, rtol=0)
    torch.testing.assert_close(a.intrinsics, b.intrinsics, atol=tolerance, rtol=0)

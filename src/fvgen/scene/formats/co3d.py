"""CO3D: ``CATEGORY/frame_annotations.jgz`` describes the frames of all sequences of a category.

Its cameras are PyTorch3D's: row vectors, ``x_camera = x_world R + T``, axes x left, y up, z forward, and focal length
and principal point in normalised device coordinates, of which there are two kinds (Reizenstein et al. 2021).
"""

import gzip
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from fvgen.errors import UserError
from fvgen.scene.formats.record import CameraRecord, checked_rigid

ANNOTATIONS = "frame_annotations.jgz"
_TURN = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))


def read_co3d(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The frames of each sequence, in order, as the file describes them.

    Raises:
        UserError: a file that is no list of frames.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            frames = json.load(file)
        sequences = defaultdict(list)
        for frame in frames:
            sequences[str(frame["sequence_name"])].append(frame)
        return {name: sorted(own, key=lambda f: f["frame_number"]) for name, own in sorted(sequences.items())}
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not CO3D's frame annotations ({type(error).__name__})") from None


def co3d_record(frame: dict[str, Any], where: str) -> CameraRecord:
    """One frame's camera.

    Raises:
        UserError: a frame without a whole camera.
    """
    try:
        view, (height, width) = frame["viewpoint"], frame["image"]["size"]
        rotation = torch.tensor(view["R"], dtype=torch.float64)
        translation = torch.tensor(view["T"], dtype=torch.float64)
        (fx, fy), (px, py) = view["focal_length"], view["principal_point"]
        kind = view.get("intrinsics_format", "ndc_norm_image_bounds")
        path = str(frame["image"]["path"])
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{where}: no whole camera") from None
    if kind == "ndc_isotropic":
        half_x = half_y = min(width, height) / 2
    elif kind == "ndc_norm_image_bounds":
        half_x, half_y = width / 2, height / 2
    else:
        raise UserError(f"{where}: unknown intrinsics '{kind}'")
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3], pose[:3, 3] = _TURN @ rotation.T, _TURN @ translation
    return CameraRecord(
        where,
        path,
        torch.linalg.inv(checked_rigid(pose, where)),
        (fx * half_x, fy * half_y),
        (width / 2 - px * half_x, height / 2 - py * half_y),
        size=(width, height),
    )

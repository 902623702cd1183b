"""Gaussians in the files of other programs: SPZ, small, and glTF with ``KHR_gaussian_splatting``.

Both have y up, while worlds of COLMAP have it down; so scenes are turned by half a turn about x on their way out.
"""

import base64
import gzip
import json
import math
import struct
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fvgen import __version__
from fvgen.cameras import Cameras
from fvgen.cameras.alignment import world_from_local
from fvgen.errors import UserError
from fvgen.files import check_file, output_file
from fvgen.reconstruction.gaussians import Gaussians, read_gaussians, write_gaussians
from fvgen.reconstruction.render import sh_basis
from fvgen.reconstruction.targets import SUFFIXES, check_suffix
from fvgen.scene.formats.ply import number_of

_TURN = torch.tensor([1.0, -1.0, -1.0])  # half a turn about x, of vectors

_MAGIC, _VERSION = 0x5053474E, 3  # "NGSP"; 3 has rotations of 32 bits
_POSITION_BITS = 23  # of a coordinate, besides its sign
_MOST_FRACTION_BITS = 20
_COLOR_SCALE = 0.15
_LOG_SCALES = (-9.5, 5.5)  # within what it stores in steps of 1/16
_ROTATION_BITS = 9  # of a component, besides its sign


def turned_over(gaussians: Gaussians) -> Gaussians:
    """The same scene after half a turn about the x axis: y down becomes y up. Doing it twice changes nothing."""
    turn = _TURN.to(gaussians.means)
    probe = F.normalize(torch.tensor([[0.3, 0.5, 0.7]], dtype=torch.float64), dim=1)
    signs = sh_basis(probe * _TURN, gaussians.degree) / sh_basis(probe, gaussians.degree)  # [1, K], +1 or -1
    return Gaussians(
        gaussians.means * turn,
        gaussians.log_scales,
        gaussians.quaternions * torch.cat([turn.new_ones(1), turn]),  # about the own axes too, which changes nothing
        gaussians.opacity_logits,
        gaussians.sh * signs.round().to(turn)[0, :, None],
    )


def pack_spz(gaussians: Gaussians) -> bytes:
    """Gaussians as SPZ, version 3 (Niantic): lossy, 8 bits for most numbers, 24 for coordinates.

    Coordinates get as many binary places as the scene's extent leaves.

    Args:
        gaussians: with y down; the file has x right, y up, z back.

    Raises:
        UserError: coordinates too large for the format.
    """
    plain = turned_over(gaussians.each(lambda value: value.detach().float().cpu()))
    farthest = max(1.0, float(plain.means.abs().max())) if len(plain) else 1.0
    places = min(_MOST_FRACTION_BITS, _POSITION_BITS - math.floor(math.log2(farthest)) - 1)
    if places < 0:
        raise UserError(f"coordinates up to {farthest:g} do not fit into an SPZ file; write a .ply")
    fixed = (plain.means.double() * 2**places).round().to(torch.int32)
    positions = fixed.numpy().astype("<i4")[..., None].view("u1")[..., :3]
    parts = [
        positions,
        _byte((plain.opacities * 255).clamp(1, 254)),  # readers take logits, which 0 and 255 have none of
        _byte((plain.sh[:, 0] * _COLOR_SCALE + 0.5) * 255),
        _byte((plain.log_scales + 10) * 16),
        _smallest_three(plain.quaternions),
        _byte(plain.sh[:, 1:] * 128 + 128),
    ]
    head = struct.pack("<IIIBBBB", _MAGIC, _VERSION, len(plain), plain.degree, places, 0, 0)
    return gzip.compress(head + b"".join(part.tobytes() for part in parts), mtime=0)


def fits(suffix: str, gaussians: Gaussians) -> bool:
    """Whether a file of this suffix can hold them as they are.

    PLY always can. The others need them near the origin; SPZ also neither too small nor too large for its 8 bits.
    """
    if suffix.lower() == ".ply":
        return True
    few = gaussians.log_scales.detach().cpu().flatten()[::7]
    low, high = few.quantile(torch.tensor([0.1, 0.9]).to(few)).tolist() if len(few) else (0.0, 0.0)
    sized = suffix.lower() != ".spz" or (_LOG_SCALES[0] < low and high < _LOG_SCALES[1])
    return sized and number_of(gaussians.means) == "float"


def brought_near(gaussians: Gaussians, cameras: Cameras) -> tuple[Gaussians, Cameras]:
    """Both about the cameras' middle and in a size that float32 and SPZ hold, where they do not fit as they are."""
    if fits(".spz", gaussians) or not len(gaussians):
        return gaussians, cameras
    distance = float((gaussians.means.double() - cameras.centers.mean(0)).norm(dim=1).median())
    near = world_from_local(cameras, max(distance, 1e-30)).inverse
    carried = gaussians.carried(near)
    return replace(carried, means=carried.means.float()), near.cameras(cameras)


def write_spz(path: str | Path, gaussians: Gaussians) -> None:
    """Write Gaussians as SPZ, see `pack_spz`."""
    Path(path).write_bytes(pack_spz(gaussians))


def _byte(values: Tensor) -> np.ndarray:
    return values.round().clamp(0, 255).to(torch.uint8).numpy()


def _smallest_three(quaternions: Tensor) -> np.ndarray:
    """``[N]`` 32 bits: which of x, y, z, w is largest, and of each other one, in order, the sign and the size."""
    xyzw = F.normalize(quaternions.double(), dim=1)[:, [1, 2, 3, 0]]
    largest = xyzw.abs().argmax(1, keepdim=True)
    xyzw = xyzw * torch.where(xyzw.gather(1, largest) < 0, -1, 1)
    packed = largest[:, 0]
    sizes = (xyzw.abs() * math.sqrt(2) * (2**_ROTATION_BITS - 1)).round().long().clamp_max(2**_ROTATION_BITS - 1)
    values = (xyzw < 0).long() << _ROTATION_BITS | sizes
    for i in range(4):
        packed = torch.where(largest[:, 0] == i, packed, packed << (_ROTATION_BITS + 1) | values[:, i])
    return packed.numpy().astype("<u4")


def write_gltf(path: str | Path, gaussians: Gaussians, text: bool = False) -> None:
    """Write Gaussians as glTF 2.0 with ``KHR_gaussian_splatting``, float32; programs without it see coloured points.

    Args:
        path: the file.
        gaussians: with y down.
        text: as one JSON file (``.gltf``) instead of a binary one (``.glb``).

    Raises:
        UserError: no Gaussians; glTF has no empty lists.
    """
    if len(gaussians) == 0:
        raise UserError("there are no Gaussians to write")
    plain = turned_over(gaussians.each(lambda value: value.detach().float().cpu()))
    name = "KHR_gaussian_splatting"
    parts: dict[str, Tensor] = {
        "POSITION": plain.means,
        "COLOR_0": torch.cat([_linear(plain.base_colors.clamp(0, 1)), plain.opacities[:, None]], 1),
        f"{name}:ROTATION": F.normalize(plain.quaternions, dim=1)[:, [1, 2, 3, 0]],
        f"{name}:SCALE": plain.scales,
        f"{name}:OPACITY": plain.opacities,
    }
    for degree in range(plain.degree + 1):
        for k in range(2 * degree + 1):
            parts[f"{name}:SH_DEGREE_{degree}_COEF_{k}"] = plain.sh[:, degree**2 + k]
    views: list[dict[str, int]] = []
    accessors: list[dict[str, Any]] = []
    body = bytearray()
    for values in parts.values():
        numbers = values.contiguous().numpy().astype("<f4").tobytes()
        views.append({"buffer": 0, "byteOffset": len(body), "byteLength": len(numbers), "target": 34962})
        kind = "SCALAR" if values.ndim == 1 else f"VEC{values.shape[1]}"
        accessors.append({"bufferView": len(accessors), "componentType": 5126, "count": len(plain), "type": kind})
        body += numbers
    accessors[0] |= {"min": plain.means.amin(0).tolist(), "max": plain.means.amax(0).tolist()}
    splatting = {
        "kernel": "ellipse",
        "colorSpace": "srgb_rec709_display",
        "sortingMethod": "cameraDistance",
        "projection": "perspective",
    }
    attributes = {name: i for i, name in enumerate(parts)}
    buffer: dict[str, Any] = {"byteLength": len(body)}
    if text:
        buffer["uri"] = "data:application/octet-stream;base64," + base64.b64encode(body).decode()
    content = {
        "asset": {"version": "2.0", "generator": f"fvgen {__version__}"},
        "extensionsUsed": [name],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"mode": 0, "attributes": attributes, "extensions": {name: splatting}}]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [buffer],
    }
    written = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
    if not text:
        written += b" " * (-len(written) % 4)
        head = struct.pack("<III", 0x46546C67, 2, 12 + 8 + len(written) + 8 + len(body))
        chunks = struct.pack("<II", len(written), 0x4E4F534A), written, struct.pack("<II", len(body), 0x004E4942), body
        written = head + b"".join(chunks)
    Path(path).write_bytes(written)


def _linear(colors: Tensor) -> Tensor:
    """sRGB 0..1 as light, which glTF's vertex colours are."""
    return torch.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)


WRITERS: dict[str, Callable[[str | Path, Gaussians], None]] = dict(
    zip(SUFFIXES, (write_gaussians, write_spz, write_gltf, partial(write_gltf, text=True)))
)


def convert(scene: str | Path, output: str | Path, overwrite: bool = False) -> int:
    """Write a PLY of Gaussians as another kind of file, chosen by its suffix, whole or not at all.

    Returns:
        The number of Gaussians.

    Raises:
        UserError: another suffix, a file that is there already or cannot be written, or no PLY of Gaussians.
    """
    output = Path(output)
    check_suffix(output)
    check_file(output, overwrite)
    gaussians = read_gaussians(scene)
    if not fits(output.suffix, gaussians):
        raise UserError(f"{scene}: its world is too far out, too large or too small for {output.suffix}; write a .ply")
    with output_file(output) as unfinished:
        WRITERS[output.suffix.lower()](unfinished, gaussians)
    return len(gaussians)

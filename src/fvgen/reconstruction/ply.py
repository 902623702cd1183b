"""Gaussians as PLY, in the layout of the original program, which every splat viewer opens.

Per vertex, float32: ``x y z nx ny nz f_dc_0..2 f_rest_* opacity scale_0..2 rot_0..3``. Normals are 0. Opacities are
logits, scales logarithms, rotations wxyz. ``f_rest`` holds the higher harmonics channel by channel: all coefficients of
red, then of green, then of blue.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fvgen.errors import UserError
from fvgen.reconstruction.gaussians import DEGREES, Gaussians

_NEEDED = ("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "scale_1", "scale_2")
_ROTATION = ("rot_0", "rot_1", "rot_2", "rot_3")
_TYPES = {"float": "<f4", "float32": "<f4", "double": "<f8", "float64": "<f8", "uchar": "u1", "uint8": "u1"}
_LONGEST_HEADER = 1 << 16


def write_gaussians(path: str | Path, gaussians: Gaussians) -> None:
    """Write Gaussians; rotations are normalised, everything else is stored as it is, in float32."""
    columns = _columns(gaussians)
    layout = np.dtype([(name, "<f4") for name in columns])
    table = torch.stack(list(columns.values()), 1).detach().float().cpu().contiguous().numpy()
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(gaussians)}"]
    head += [f"property float {name}" for name in layout.names or ()]
    with open(path, "wb") as file:
        file.write("\n".join([*head, "end_header", ""]).encode("ascii"))
        file.write(table.tobytes())


def _columns(gaussians: Gaussians) -> dict[str, Tensor]:
    rest = gaussians.sh[:, 1:].transpose(1, 2).flatten(1)
    rotation = torch.nn.functional.normalize(gaussians.quaternions, dim=1)
    zero = torch.zeros_like(gaussians.opacity_logits)
    parts = {
        **dict(zip("xyz", gaussians.means.unbind(1))),
        **dict.fromkeys(("nx", "ny", "nz"), zero),
        **{f"f_dc_{i}": gaussians.sh[:, 0, i] for i in range(3)},
        **{f"f_rest_{i}": rest[:, i] for i in range(rest.shape[1])},
        "opacity": gaussians.opacity_logits,
        **{f"scale_{i}": gaussians.log_scales[:, i] for i in range(3)},
        **dict(zip(_ROTATION, rotation.unbind(1))),
    }
    return parts


def read_gaussians(path: str | Path) -> Gaussians:
    """Read Gaussians of degree 0 to 3 from a binary little-endian PLY; other properties are skipped.

    Returns:
        float32 Gaussians on the CPU.

    Raises:
        UserError: no such file, not a PLY, points instead of Gaussians, cut off, or numbers that are not finite.
    """
    path = Path(path)
    layout, count, offset = _header(path)
    names = set(layout.names or ())
    absent = [name for name in (*_NEEDED, *_ROTATION) if name not in names]
    if absent:
        kind = "a point cloud" if {"x", "y", "z"} <= names else "something else"
        raise UserError(f"{path}: {kind}, not 3D Gaussians (no {absent[0]}); write one with fvgen reconstruct")
    rest = sum(name.startswith("f_rest_") for name in names)
    if rest % 3 or rest // 3 + 1 not in DEGREES or any(f"f_rest_{i}" not in names for i in range(rest)):
        raise UserError(f"{path}: {rest} properties f_rest; Gaussians have 0, 9, 24 or 45 of them")
    if path.stat().st_size - offset < count * layout.itemsize:
        raise UserError(f"{path}: cut off; its header promises {count} Gaussians")
    table = np.fromfile(path, layout, count, offset=offset)
    gaussians = _gaussians(table, rest)
    if not all(bool(value.isfinite().all()) for value in gaussians.parameters().values()):
        raise UserError(f"{path}: some numbers in it are not finite")
    return gaussians


def _header(path: Path) -> tuple[np.dtype, int, int]:
    """Layout and number of the vertices, and where they begin in the file."""
    try:
        with open(path, "rb") as file:
            start = file.read(_LONGEST_HEADER)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    head, found, _ = start.partition(b"end_header\n")
    lines = [line.split() for line in head.decode("ascii", "replace").splitlines()]
    if not found or lines[:1] != [["ply"]]:
        raise UserError(f"{path}: not a PLY file")
    if ["format", "binary_little_endian", "1.0"] not in lines:
        raise UserError(f"{path}: only binary little-endian PLY files are read")
    elements = [i for i, line in enumerate(lines) if line[:1] == ["element"]]
    if not elements or lines[elements[0]][1:2] != ["vertex"] or not lines[elements[0]][-1].isdigit():
        raise UserError(f"{path}: the first element of this PLY file is no list of vertices")
    end = elements[1] if len(elements) > 1 else len(lines)
    properties = [line for line in lines[elements[0] : end] if line[:1] == ["property"]]
    named = [line[-1] for line in properties]
    if any(len(line) != 3 or line[1] not in _TYPES for line in properties) or len(set(named)) < len(named):
        raise UserError(f"{path}: vertices with lists, doubled names or unknown types cannot be read")
    return np.dtype([(line[2], _TYPES[line[1]]) for line in properties]), int(lines[elements[0]][-1]), len(head) + 11


def _gaussians(table: np.ndarray, rest: int) -> Gaussians:
    def stack(names: list[str]) -> Tensor:
        values = np.stack([table[name].astype(np.float32) for name in names], 1) if names else np.zeros((len(table), 0))
        return torch.from_numpy(values.astype(np.float32))

    base = stack([f"f_dc_{i}" for i in range(3)])[:, None]
    higher = stack([f"f_rest_{i}" for i in range(rest)]).view(len(table), 3, rest // 3).transpose(1, 2)
    return Gaussians(
        means=stack(["x", "y", "z"]),
        log_scales=stack([f"scale_{i}" for i in range(3)]),
        quaternions=stack(list(_ROTATION)),
        opacity_logits=stack(["opacity"])[:, 0],
        sh=torch.cat([base, higher], 1).contiguous(),
    )

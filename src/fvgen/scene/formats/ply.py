"""Coloured points as PLY, the format of every point cloud viewer."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fvgen.errors import UserError

_POINT = np.dtype([("position", "<f4", 3), ("color", "u1", 3)])
_CHANNELS = ("red", "green", "blue")
_NUMBERS = ("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8")
_TYPES = dict(zip(("char", "uchar", "short", "ushort", "int", "uint", "float", "double"), _NUMBERS))
_TYPES |= dict(zip(("int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"), _NUMBERS))


def write_ply(path: str | Path, positions: Tensor, colors: Tensor) -> None:
    """Write points as binary little-endian PLY.

    Args:
        path: the file.
        positions: ``[P, 3]``, written as float32.
        colors: ``[P, 3]`` uint8.
    """
    if positions.shape != colors.shape or positions.shape[1:] != (3,) or colors.dtype != torch.uint8:
        raise ValueError("expected positions [P,3] and uint8 colors [P,3]")
    points = np.empty(len(positions), dtype=_POINT)
    points["position"] = positions.detach().cpu().numpy()
    points["color"] = colors.cpu().numpy()
    properties = [f"property float {axis}" for axis in "xyz"]
    properties += [f"property uchar {channel}" for channel in _CHANNELS]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}", *properties, "end_header", ""]
    with open(path, "wb") as file:
        file.write("\n".join(header).encode("ascii"))
        points.tofile(file)


def read_ply(path: str | Path) -> tuple[Tensor, Tensor]:
    """Read the points of a binary little-endian PLY whose first element is ``vertex``; other properties are skipped.

    Returns:
        positions ``[P, 3]`` float32 and colors ``[P, 3]`` uint8 (white where the file has none).

    Raises:
        UserError: another kind of file, or one that is cut off.
    """
    data = Path(path).read_bytes()
    head, found, body = data.partition(b"end_header\n")
    lines = [line.split() for line in head.decode("ascii", "replace").splitlines()]
    if not found or lines[:1] != [["ply"]] or ["format", "binary_little_endian", "1.0"] not in lines:
        raise UserError(f"{path}: not a binary little-endian PLY file")
    elements = [i for i, line in enumerate(lines) if line[:1] == ["element"]]
    if not elements or lines[elements[0]][1:2] != ["vertex"] or not lines[elements[0]][-1].isdigit():
        raise UserError(f"{path}: the first element must be vertex")
    count = int(lines[elements[0]][-1])
    end = elements[1] if len(elements) > 1 else len(lines)
    properties = [line for line in lines[elements[0] : end] if line[:1] == ["property"]]
    if any(len(line) != 3 or line[1] not in _TYPES for line in properties):
        raise UserError(f"{path}: vertices with lists or unknown types cannot be read")
    layout = np.dtype([(name, "<" + _TYPES[kind]) for _, kind, name in properties])
    if not {"x", "y", "z"} <= set(layout.names or ()) or len(body) < count * layout.itemsize:
        raise UserError(f"{path}: cut off, or without x, y and z")
    points = np.frombuffer(body, dtype=layout, count=count)
    positions = np.stack([points[axis] for axis in "xyz"], -1).astype(np.float32)
    if not set(_CHANNELS) <= set(layout.names or ()):
        return torch.from_numpy(positions), torch.full((count, 3), 255, dtype=torch.uint8)
    colors = np.stack([points[name] for name in _CHANNELS], -1).astype(np.uint8)
    return torch.from_numpy(positions), torch.from_numpy(colors)

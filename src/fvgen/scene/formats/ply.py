"""PLY, the format of every point cloud viewer: coloured points, and the one reader of its headers and vertices."""

import io
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fvgen.errors import UserError
from fvgen.files import other_content

_log = logging.getLogger(__name__)

_CHANNELS = ("red", "green", "blue")
_NUMBERS = ("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8")
_TYPES = dict(zip(("char", "uchar", "short", "ushort", "int", "uint", "float", "double"), _NUMBERS))
_TYPES |= dict(zip(("int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"), _NUMBERS))
NUMBERS = {"float": "<f4", "double": "<f8"}
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_LONGEST_HEADER = 1 << 20
_END = re.compile(rb"[\r\n]end_header[ \t]*(\r\n|\n|\r)")
_CR = re.compile(rb"ply[ \t]*\r(?!\n)")  # its lines end in CR alone: an LF after the header is data


@dataclass(frozen=True)
class Vertices:
    """The vertices of a PLY file.

    Attributes:
        table: ``[V]``, a structured array with one field per property.
        elements: number of entries of each element of the file, in order.
    """

    table: np.ndarray
    elements: dict[str, int]

    @property
    def names(self) -> set[str]:
        """Names of the properties."""
        return set(self.table.dtype.names or ())

    @property
    def kind(self) -> str:
        """What such a file is called."""
        if "chunk" in self.elements:
            return "a compressed splat PLY (SuperSplat's)"
        if self.elements.get("face", 0) or self.elements.get("tristrips", 0):
            return "a mesh"
        return "a point cloud" if {"x", "y", "z"} <= self.names else "something else"


def write_ply(path: str | Path, positions: Tensor, colors: Tensor) -> None:
    """Write points as binary little-endian PLY.

    Args:
        path: the file.
        positions: ``[P, 3]``, see `number_of`.
        colors: ``[P, 3]`` uint8.
    """
    if positions.shape != colors.shape or positions.shape[1:] != (3,) or colors.dtype != torch.uint8:
        raise ValueError("expected positions [P,3] and uint8 colors [P,3]")
    number = number_of(positions)
    points = np.empty(len(positions), [("position", NUMBERS[number], 3), ("color", "u1", 3)])
    points["position"] = positions.detach().cpu().numpy()
    points["color"] = colors.cpu().numpy()
    properties = [f"property {number} {axis}" for axis in "xyz"]
    properties += [f"property uchar {channel}" for channel in _CHANNELS]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}", *properties, "end_header", ""]
    with open(path, "wb") as file:
        file.write("\n".join(header).encode("ascii"))
        file.write(points.tobytes())


def read_ply(path: str | Path) -> tuple[Tensor, Tensor]:
    """Read the points of a PLY; other properties are skipped, and so are points that are not finite, which is said.

    Returns:
        positions ``[P, 3]`` float64 and colors ``[P, 3]`` uint8 (white where the file has none).

    Raises:
        UserError: another kind of file, or one that is cut off.
    """
    vertices = read_vertices(path)
    if not {"x", "y", "z"} <= vertices.names:
        raise UserError(f"{path}: no points with x, y and z in it; it is {vertices.kind}")
    positions = columns(vertices.table, "xyz", np.float64)
    finite = np.isfinite(positions).all(1)
    if not finite.all():
        _log.info(f"{path}: {(~finite).sum()} of {len(finite)} points left out, which are not finite")
    positions, table = positions[finite], vertices.table[finite]
    if not set(_CHANNELS) <= vertices.names:
        return torch.from_numpy(positions), torch.full((len(table), 3), 255, dtype=torch.uint8)
    return torch.from_numpy(positions), torch.from_numpy(rgb(table))


def rgb(table: np.ndarray) -> np.ndarray:
    """``[V, 3]`` uint8 colours of vertices: fractions count from 0 to 1, ``ushort`` to 65535, other integers to 255."""
    number = table.dtype["red"]
    most = 1.0 if number.kind == "f" else 65535.0 if number.kind == "u" and number.itemsize == 2 else 255.0
    return (columns(table, _CHANNELS) * (255 / most)).round().clip(0, 255).astype(np.uint8)


def number_of(positions: Tensor) -> str:
    """How to write positions ``[P, 3]``: ``double`` where float32 is coarse for them, that is far from the origin."""
    some = positions.detach()[:: max(1, len(positions) // 100_000)].cpu().double()
    if not len(some):
        return "float"
    wide = (some.quantile(0.95, 0) - some.quantile(0.05, 0)).max()
    return "double" if (some - some.float()).abs().max(1).values.median() > 1e-7 * wide else "float"


def columns(table: np.ndarray, names: Sequence[str], number: type = np.float32) -> np.ndarray:
    """``[V, C]`` of ``C`` properties in float32 or another ``number``; what is too large for that becomes infinite."""
    values: np.ndarray = np.empty((len(table), len(names)), number)
    with np.errstate(over="ignore"):
        for column, name in zip(values.T, names):
            column[:] = table[name]
    return values


def read_vertices(path: str | Path) -> Vertices:
    """Read the element ``vertex`` of a PLY: ASCII or binary of both byte orders, lines ended in any way.

    Comments and ``obj_info`` are skipped, and elements of fixed length before the vertices.

    Raises:
        UserError: no such file, not a PLY, vertices with lists, cut off.
    """
    path = Path(path)
    start = _start(path)
    end = _END.search(start)
    lines = [line.split() for line in start[: end.start() if end else 0].decode("latin-1").splitlines()]
    form = next((line[1] for line in lines if line[:1] == ["format"] and len(line) > 1), "")
    if end is None or lines[:1] != [["ply"]] or form not in _ORDERS:
        raise UserError(f"{path}: {other_content(start) or 'not a PLY file'}")
    offset = end.start(1) + 1 if _CR.match(start) else end.end()
    elements: dict[str, int] = {}
    layouts: dict[str, list[tuple[str, str]] | None] = {}
    name = ""
    for line in lines:
        if line[:1] == ["element"]:
            if len(line) != 3 or not line[2].isdecimal() or line[1] in elements:
                raise UserError(f"{path}: damaged header, {' '.join(line)}")
            name = line[1]
            elements[name], layouts[name] = int(line[2]), []
        elif line[:1] == ["property"]:
            layout = layouts.get(name)
            if len(line) != 3 or line[1] not in _TYPES:
                layouts[name] = None  # a list
            elif layout is not None:
                layout.append((line[2], _ORDERS[form] + _TYPES[line[1]]))
    if "vertex" not in elements:
        raise UserError(f"{path}: no vertices in it, only {', '.join(elements) or 'a header'}")
    before = list(elements)[: list(elements).index("vertex") + 1]
    if any(layouts[name] is None for name in before):
        raise UserError(f"{path}: vertices with lists or unknown types, or lists before them, cannot be read")
    named = [name for name, _ in layouts["vertex"] or ()]
    if not named or len(set(named)) < len(named):
        raise UserError(f"{path}: its vertices have no properties, or two of one name")
    dtype, count = np.dtype(layouts["vertex"]), elements["vertex"]
    skipped = [(elements[name], np.dtype(layouts[name]).itemsize) for name in before[:-1]]
    if form == "ascii":
        table = _ascii(path, offset, sum(rows for rows, _ in skipped), count, dtype)
    else:
        offset += sum(rows * size for rows, size in skipped)
        if path.stat().st_size - offset < count * dtype.itemsize:
            raise UserError(f"{path}: cut off; its header promises {count} vertices")
        table = np.fromfile(path, dtype, count, offset=offset)
    return Vertices(table, elements)


def _start(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_LONGEST_HEADER)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _ascii(path: Path, offset: int, skip: int, count: int, dtype: np.dtype) -> np.ndarray:
    table, names = np.empty(count, dtype), dtype.names or ()
    if count == 0:
        return table
    with open(path, "rb") as file:
        file.seek(offset)
        text = file.read().replace(b"(ind)", b"").replace(b"\r", b"\n")  # MSVC's -nan(ind)
    rows = [line for line in text.split(b"\n") if line.strip()][skip : skip + count]
    try:
        if len(rows) < count:
            raise UserError(f"{path}: cut off; its header promises {count} vertices")
        values = np.loadtxt(io.BytesIO(b"\n".join(rows)), ndmin=2, comments=None)
        if values.shape != (count, len(names)):
            raise ValueError
    except ValueError:
        raise UserError(f"{path}: damaged; a vertex of it is not {len(names)} numbers") from None
    for name, column in zip(names, values.T):
        table[name] = column
    return table

"""A scene as 3D Gaussians (Kerbl et al. 2023), in the parameters that are optimised and stored; and its files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fvgen.errors import UserError

DEGREES = {1: 0, 4: 1, 9: 2, 16: 3}  # of spherical harmonics, by the number of coefficients
SH0 = 0.28209479177387814  # the constant spherical harmonic, 1 / (2 sqrt(pi))


@dataclass(frozen=True)
class Gaussians:
    """``N`` Gaussians in world coordinates.

    Attributes:
        means: ``[N, 3]`` centres, world units.
        log_scales: ``[N, 3]`` natural logarithms of the standard deviations along the own axes, world units.
        quaternions: ``[N, 4]`` wxyz, rotations of the own axes into the world; of any length but 0.
        opacity_logits: ``[N]``; the opacity is their sigmoid.
        sh: ``[N, K, 3]`` coefficients of spherical harmonics, ``K`` 1, 4, 9 or 16; colour is 0.5 plus their sum.

    Raises:
        ValueError: if the shapes do not agree.
    """

    means: Tensor
    log_scales: Tensor
    quaternions: Tensor
    opacity_logits: Tensor
    sh: Tensor

    def __post_init__(self) -> None:
        n = self.means.shape[0]
        shapes = [tuple(getattr(self, f.name).shape) for f in fields(self)]
        k = self.sh.shape[1] if self.sh.ndim == 3 else 0
        if shapes != [(n, 3), (n, 3), (n, 4), (n,), (n, k, 3)] or k not in DEGREES:
            raise ValueError(f"Gaussians need shapes [N,3], [N,3], [N,4], [N], [N,1|4|9|16,3], got {shapes}")

    def __len__(self) -> int:
        return self.means.shape[0]

    def __getitem__(self, index: slice | Tensor) -> "Gaussians":
        """Select Gaussians by a slice, a mask or numbers."""
        return self.each(lambda value: value[index])

    @property
    def degree(self) -> int:
        """Degree of the spherical harmonics, 0 to 3."""
        return DEGREES[self.sh.shape[1]]

    @property
    def scales(self) -> Tensor:
        """``[N, 3]`` standard deviations."""
        return self.log_scales.exp()

    @property
    def opacities(self) -> Tensor:
        """``[N]`` in 0..1."""
        return self.opacity_logits.sigmoid()

    @property
    def base_colors(self) -> Tensor:
        """``[N, 3]`` the part of the colour that is the same from all sides; about 0..1."""
        return 0.5 + SH0 * self.sh[:, 0]

    def parameters(self) -> dict[str, Tensor]:
        """The tensors by name, in a fixed order."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def each(self, change: Callable[[Tensor], Tensor]) -> "Gaussians":
        """The Gaussians of the same tensors changed, each ``[N, ...]`` by itself: moved, detached, selected from."""
        return Gaussians(*map(change, self.parameters().values()))

    @staticmethod
    def concatenate(batches: list["Gaussians"]) -> "Gaussians":
        """Join batches of one degree."""
        return Gaussians(*map(torch.cat, zip(*(batch.parameters().values() for batch in batches))))


_POSITION = ("x", "y", "z")
_BASE = ("f_dc_0", "f_dc_1", "f_dc_2")
_SCALES = ("scale_0", "scale_1", "scale_2")
_ROTATION = ("rot_0", "rot_1", "rot_2", "rot_3")
_TYPES = {"float": "<f4", "float32": "<f4", "double": "<f8", "float64": "<f8", "uchar": "u1", "uint8": "u1"}
_LONGEST_HEADER = 1 << 16


def write_gaussians(path: str | Path, gaussians: Gaussians) -> None:
    """Write Gaussians as PLY; rotations are normalised, everything else is stored as it is, in float32."""
    rest = gaussians.sh[:, 1:].transpose(1, 2).flatten(1)
    parts = [
        (_POSITION, gaussians.means),
        (("nx", "ny", "nz"), torch.zeros_like(gaussians.means)),
        (_BASE, gaussians.sh[:, 0]),
        ([f"f_rest_{i}" for i in range(rest.shape[1])], rest),
        (("opacity",), gaussians.opacity_logits[:, None]),
        (_SCALES, gaussians.log_scales),
        (_ROTATION, torch.nn.functional.normalize(gaussians.quaternions, dim=1)),
    ]
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(gaussians)}"]
    head += [f"property float {name}" for names, _ in parts for name in names]
    table = torch.cat([values for _, values in parts], 1).detach().float().cpu().contiguous().numpy()
    with open(path, "wb") as file:
        file.write("\n".join([*head, "end_header", ""]).encode("ascii"))
        file.write(table.tobytes())


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
    absent = [name for name in (*_POSITION, *_BASE, "opacity", *_SCALES, *_ROTATION) if name not in names]
    if absent:
        kind = "a point cloud" if {"x", "y", "z"} <= names else "something else"
        raise UserError(f"{path}: {kind}, not 3D Gaussians (no {absent[0]}); write one with fvgen reconstruct")
    rest = sum(name.startswith("f_rest_") for name in names)
    if rest % 3 or rest // 3 + 1 not in DEGREES or any(f"f_rest_{i}" not in names for i in range(rest)):
        raise UserError(f"{path}: {rest} properties f_rest; Gaussians have 0, 9, 24 or 45 of them")
    if path.stat().st_size - offset < count * layout.itemsize:
        raise UserError(f"{path}: cut off; its header promises {count} Gaussians")
    table = np.fromfile(path, layout, count, offset=offset)

    def columns(names: Sequence[str]) -> Tensor:
        values = np.empty((count, len(names)), np.float32)
        for column, name in zip(values.T, names):
            column[:] = table[name]
        return torch.from_numpy(values)

    higher = columns([f"f_rest_{i}" for i in range(rest)]).view(count, 3, rest // 3).transpose(1, 2)
    gaussians = Gaussians(
        means=columns(_POSITION),
        log_scales=columns(_SCALES),
        quaternions=columns(_ROTATION),
        opacity_logits=columns(["opacity"])[:, 0],
        sh=torch.cat([columns(_BASE)[:, None], higher], 1).contiguous(),
    )
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

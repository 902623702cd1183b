"""A scene as 3D Gaussians (Kerbl et al. 2023), in the parameters that are optimised and stored; and its files."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fvgen.cameras.alignment import Similarity
from fvgen.errors import UserError
from fvgen.scene.formats.ply import NUMBERS, columns, number_of, read_vertices, rgb

_log = logging.getLogger(__name__)

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

    def carried(self, to: Similarity) -> "Gaussians":
        """The Gaussians in another world with the same axes; their means are float64 there.

        Raises:
            ValueError: if it is turned.
        """
        if not torch.equal(to.rotation, torch.eye(3, dtype=torch.float64)):
            raise ValueError("Gaussians are carried to worlds with the same axes only")
        log_scales = self.log_scales + math.log(to.scale)
        return replace(self, means=to.points(self.means.detach().cpu().double()), log_scales=log_scales)

    @staticmethod
    def concatenate(batches: list["Gaussians"]) -> "Gaussians":
        """Join batches of one degree."""
        return Gaussians(*map(torch.cat, zip(*(batch.parameters().values() for batch in batches))))


_POSITION = ("x", "y", "z")
_BASE = ("f_dc_0", "f_dc_1", "f_dc_2")
_SCALES = ("scale_0", "scale_1", "scale_2")
_ROTATION = ("rot_0", "rot_1", "rot_2", "rot_3")
_FLAT = math.log(1e3)  # a surfel is thinner than wide by this much


def write_gaussians(path: str | Path, gaussians: Gaussians) -> None:
    """Write Gaussians as PLY; rotations are normalised, everything else is stored as it is.

    Numbers are float32, centres far from the world's origin ``double`` (see `fvgen.scene.formats.ply.number_of`).
    """
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
    kinds = {name: "float" for names, _ in parts for name in names} | dict.fromkeys(
        _POSITION, number_of(gaussians.means)
    )
    table = np.empty(len(gaussians), [(name, NUMBERS[kind]) for name, kind in kinds.items()])
    for names, values in parts:
        for name, column in zip(names, values.detach().cpu().numpy().T, strict=True):
            table[name] = column
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(gaussians)}"]
    head += [f"property {kind} {name}" for name, kind in kinds.items()]
    with open(path, "wb") as file:
        file.write("\n".join([*head, "end_header", ""]).encode("ascii"))
        file.write(table.tobytes())


def read_gaussians(path: str | Path) -> Gaussians:
    """Read Gaussians from a PLY as any program writes them uncompressed; other properties are skipped.

    Harmonics above degree 3 are left out, which is said, and so are Gaussians with numbers that are not finite. Flat
    ones (2DGS, two scales) become thin ones, round ones (one scale) get it along all axes, and ``red``, ``green``,
    ``blue`` count where there are no harmonics.

    Returns:
        float32 Gaussians on the CPU; their means are float64 where they lie far from the world's origin, so that
        float32 is coarse for them.

    Raises:
        UserError: no such file, not a PLY, something else than Gaussians, cut off, or nothing finite in it.
    """
    vertices = read_vertices(path)
    table, names = vertices.table, vertices.names
    base = set(_BASE) <= names or not {"red", "green", "blue"} <= names
    needed = (*_POSITION, *(_BASE if base else ()), "opacity", "scale_0", *_ROTATION)
    absent = [name for name in needed if name not in names]
    if absent:
        hint = "; save it uncompressed" if "chunk" in vertices.elements else "; write one with fvgen reconstruct"
        raise UserError(f"{path}: {vertices.kind}, not 3D Gaussians (no {absent[0]}){hint}")
    scales = columns(table, [name for name in _SCALES if name in names])
    if scales.shape[1] == 1:
        scales = np.repeat(scales, 3, 1)
    elif scales.shape[1] == 2:
        scales = np.concatenate([scales, scales.min(1, keepdims=True) - _FLAT], 1)
    means = torch.from_numpy(columns(table, _POSITION, np.float64))
    finite = means.isfinite().all(1)
    gaussians = Gaussians(
        means=means if number_of(means[finite]) == "double" else means.float(),
        log_scales=torch.from_numpy(scales),
        quaternions=torch.from_numpy(columns(table, _ROTATION)),
        opacity_logits=torch.from_numpy(columns(table, ["opacity"])[:, 0]),
        sh=torch.from_numpy(_harmonics(path, table, names, base)),
    )
    parts = (*gaussians.parameters().values(), gaussians.scales)
    values = [value.reshape(len(table), math.prod(value.shape[1:])) for value in parts]
    whole = torch.cat(values, 1).isfinite().all(1) & (gaussians.quaternions.norm(dim=1) > 0)
    if len(whole) and not whole.any():
        raise UserError(f"{path}: none of its {len(whole)} Gaussians can be used: NaN, infinite or without rotation")
    if not whole.all():
        _log.info(
            f"{path}: {int((~whole).sum())} of {len(whole)} Gaussians left out: NaN, infinite or without rotation"
        )
    return gaussians if whole.all() else gaussians[whole]


def _harmonics(path: str | Path, table: np.ndarray, names: set[str], base: bool) -> np.ndarray:
    """``[N, K, 3]``, from coefficients stored channel after channel, or of plain colours."""
    if not base:
        return ((rgb(table).astype(np.float32) / 255 - 0.5) / SH0)[:, None]
    rest = sum(name.startswith("f_rest_") for name in names)
    each = rest // 3  # of a channel
    if rest % 3 or math.isqrt(each + 1) ** 2 != each + 1 or any(f"f_rest_{i}" not in names for i in range(rest)):
        raise UserError(f"{path}: {rest} properties f_rest; Gaussians have 0, 9, 24 or 45 of them")
    kept = min(each, max(DEGREES) - 1)
    if kept < each:
        _log.info(f"{path}: harmonics of degree {math.isqrt(each + 1) - 1}; those above degree 3 are left out")
    higher = columns(table, [f"f_rest_{channel * each + i}" for i in range(kept) for channel in range(3)])
    return np.concatenate([columns(table, _BASE), higher], 1).reshape(len(table), kept + 1, 3)

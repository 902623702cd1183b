"""What scenes are made of: materials, places, and meshes of triangles.

World units are metres, ``y`` points down. Parts are made in a frame of their own whose ``y`` points up and are put into
the world by a :class:`Place`.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Material:
    """How a surface looks.

    Attributes:
        texture: index into the scene's textures.
        gain, lift: albedo is ``texture * gain + lift``, linear light, per channel.
        chroma: share of the texture's own colour that is kept; at 0 it is grey before ``gain``.
        scale: metres per repeat of the texture; 0 stretches one copy over the surface.
        gloss: strength of highlights, 0..1.
        mirror: share of the scene's reflection in its mirror plane, 0..1.
        glow: light given off, times the albedo.
        mask: index into the scene's cut-outs; -1 for a solid surface.
        wear: strength of slow changes of brightness.
    """

    texture: int
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    lift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: float = 1.0
    gloss: float = 0.0
    mirror: float = 0.0
    glow: float = 0.0
    mask: int = -1
    wear: float = 0.3
    chroma: float = 1.0

    def stretched(self) -> "Material":
        """One copy over the whole surface."""
        return replace(self, scale=0.0)


@dataclass(frozen=True)
class Place:
    """Where a part stands: its origin in the world, its turn about the vertical, its size."""

    at: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turn: float = 0.0
    size: float = 1.0

    def points(self, local: Array) -> Array:
        """World points ``[..., 3]`` of local ones."""
        return self.vectors(local) * self.size + np.asarray(self.at)

    def vectors(self, local: Array) -> Array:
        """World directions of local ones; the local ``y`` points up."""
        c, s = np.cos(self.turn), np.sin(self.turn)
        x, y, z = local[..., 0], local[..., 1], local[..., 2]
        return np.stack([c * x + s * z, -y, -s * x + c * z], -1)

    def moved(self, x: float = 0.0, y: float = 0.0, z: float = 0.0, turn: float = 0.0, size: float = 1.0) -> "Place":
        """A place inside this one."""
        at = self.points(np.array([x, y, z], float))
        return Place((float(at[0]), float(at[1]), float(at[2])), self.turn + turn, self.size * size)


@dataclass(frozen=True)
class Block:
    """An upright box that keeps light from its surroundings: centre, half sizes, turn, and whose part it is."""

    center: Array
    half: Array
    turn: float
    part: int


@dataclass(frozen=True)
class Mesh:
    """Everything of a scene that can be seen.

    Attributes:
        positions, normals: ``[V, 3]`` float32, world; normals are unit vectors.
        uv: ``[V, 2]`` float32 in repeats of the texture.
        part: ``[V]`` int64, which part a vertex belongs to.
        faces: ``[N, 3]`` int64; seen from the side of its normals a face turns one way.
        material: ``[N]`` int64.
        sheet: ``[N]`` int64, which smooth surface a face is of.
        solid: ``[N]`` bool, True where the back of a face is never seen.
        materials: the list that ``material`` points into.
        blocks: for ambient occlusion.
    """

    positions: Array
    normals: Array
    uv: Array
    part: NDArray[np.int64]
    faces: NDArray[np.int64]
    material: NDArray[np.int64]
    sheet: NDArray[np.int64]
    solid: NDArray[np.bool_]
    materials: list[Material]
    blocks: list[Block]


def cross(a: Array, b: Array) -> Array:
    """Cross products of ``[..., 3]``; faster than NumPy's for many small arrays."""
    ax, ay, az = a[..., 0], a[..., 1], a[..., 2]
    bx, by, bz = b[..., 0], b[..., 1], b[..., 2]
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], -1)


def grid_normals(points: Array, wrap: bool) -> Array:
    """Unit normals of ``[n, m, 3]``; ``wrap``: the last column is the first one again."""
    if wrap:
        padded = np.concatenate([points[:, -2:-1], points, points[:, 1:2]], 1)
        along = padded[:, 2:] - padded[:, :-2]
    else:
        along = np.gradient(points, axis=1)
    normals = cross(np.gradient(points, axis=0), along)
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    if (length < 1e-9).any():  # poles: as the ring beside them
        for row, other in ((0, 1), (-1, -2)):
            normals[row] = np.where(length[row] < 1e-9, normals[other].mean(0), normals[row])
    return normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)


def length(line: Array) -> float:
    return float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum())

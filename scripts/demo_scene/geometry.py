"""A small kit of triangle meshes with normals and texture coordinates, in metres, z up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

Tile = tuple[float, float]
"""Metres covered by one repeat of a texture along (u, v)."""


@dataclass(frozen=True)
class Part:
    """A mesh: positions [n, 3], normals [n, 3], uvs [n, 2] (v up), faces [m, 3]."""

    positions: np.ndarray
    normals: np.ndarray
    uvs: np.ndarray
    faces: np.ndarray

    def moved(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Part:
        """The part shifted by (x, y, z) metres."""
        return replace(self, positions=self.positions + np.array([x, y, z]))

    def turned(self, axis: str, degrees: float) -> Part:
        """The part turned about a world axis through the origin, counter-clockwise seen against the axis."""
        angle = np.radians(degrees)
        c, s = np.cos(angle), np.sin(angle)
        a, b = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
        matrix = np.eye(3)
        matrix[a, a], matrix[a, b], matrix[b, a], matrix[b, b] = c, -s, s, c
        return replace(self, positions=self.positions @ matrix.T, normals=self.normals @ matrix.T)

    def deformed(self, bend: Callable[[np.ndarray], np.ndarray]) -> Part:
        """The part with positions [n, 3] sent through `bend`, and its normals smoothed again."""
        return smoothed(replace(self, positions=bend(self.positions)))

    def with_uvs(self, uvs: np.ndarray) -> Part:
        """The part with other texture coordinates [n, 2]."""
        return replace(self, uvs=uvs)


def joined(parts: Iterable[Part]) -> Part:
    """One part holding all the given ones."""
    parts = list(parts)
    starts = np.cumsum([0] + [len(part.positions) for part in parts[:-1]])
    return Part(
        np.concatenate([part.positions for part in parts]),
        np.concatenate([part.normals for part in parts]),
        np.concatenate([part.uvs for part in parts]),
        np.concatenate([part.faces + start for part, start in zip(parts, starts)]),
    )


def smoothed(part: Part) -> Part:
    """Area-weighted normals; vertices at the same place share one, so that seams do not show."""
    _, where = np.unique(np.round(part.positions, 6), axis=0, return_inverse=True)
    where = where.reshape(-1)
    corners = part.positions[part.faces]
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.zeros((where.max() + 1, 3))
    for corner in range(3):
        np.add.at(total, where[part.faces[:, corner]], flat)
    normals = total[where]
    return replace(part, normals=normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12))


def oriented(part: Part) -> Part:
    """Faces wound so that the flat normal agrees with the vertex normals."""
    corners = part.positions[part.faces]
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    wrong = np.sum(flat * part.normals[part.faces].mean(1), axis=1) < 0
    faces = part.faces.copy()
    faces[wrong] = faces[wrong][:, ::-1]
    return replace(part, faces=faces)


def grid(points: np.ndarray, uvs: np.ndarray) -> Part:
    """A sheet through points [a, b, 3] with uvs [a, b, 2] and smooth normals."""
    a, b = points.shape[:2]
    index = np.arange(a * b).reshape(a, b)
    first = np.stack([index[:-1, :-1], index[1:, :-1], index[1:, 1:]], -1).reshape(-1, 3)
    second = np.stack([index[:-1, :-1], index[1:, 1:], index[:-1, 1:]], -1).reshape(-1, 3)
    flat = points.reshape(-1, 3).astype(float)
    return smoothed(Part(flat, np.zeros_like(flat), uvs.reshape(-1, 2).astype(float), np.concatenate([first, second])))


def quad(corners: Sequence[Sequence[float]], uvs: Sequence[Sequence[float]] | None = None) -> Part:
    """A flat rectangle: corners bottom left, bottom right, top right, top left as seen from its front."""
    points = np.array(corners, dtype=float)
    normal = np.cross(points[1] - points[0], points[3] - points[0])
    normal /= np.linalg.norm(normal)
    texture = np.array(uvs if uvs is not None else [(0, 0), (1, 0), (1, 1), (0, 1)], dtype=float)
    return Part(points, np.tile(normal, (4, 1)), texture, np.array([[0, 1, 2], [0, 2, 3]]))


def _flat_uv(points: np.ndarray, axis: int, grain: int, tile: Tile, offset: Tile) -> np.ndarray:
    """Texture coordinates of points on a face across `axis`; u runs along the axis `grain` where it can."""
    a, b = (k for k in range(3) if k != axis)
    if grain == b:
        a, b = b, a
    return np.stack([points[:, a] / tile[0] + offset[0], points[:, b] / tile[1] + offset[1]], -1)


def box(
    size: Sequence[float], grain: int = 0, chamfer: float = 0.003, tile: Tile = (1.6, 0.8), offset: Tile = (0.0, 0.0)
) -> Part:
    """A box about the origin with softly shaded chamfers; the texture's u runs along the axis `grain`."""
    half = np.array(size, dtype=float) / 2
    cut = min(chamfer, 0.4 * half.min())
    inner = half - cut

    def corner(signs: Sequence[int], axis: int) -> np.ndarray:
        return np.array([signs[k] * (half[k] if k == axis else inner[k]) for k in range(3)])

    positions: list[np.ndarray] = []
    normals: list[np.ndarray] = []
    uvs: list[np.ndarray] = []
    faces: list[list[int]] = []

    def polygon(corners: list[tuple[list[int], int]], axis: int) -> None:
        points = np.stack([corner(signs, k) for signs, k in corners])
        start = sum(len(p) for p in positions)
        positions.append(points)
        normals.append(np.stack([np.eye(3)[k] * signs[k] for signs, k in corners]))
        uvs.append(_flat_uv(points, axis, grain, tile, offset))
        faces.extend([start, start + i, start + i + 1] for i in range(1, len(corners) - 1))

    loop = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    for axis in range(3):
        a, b = (k for k in range(3) if k != axis)
        for side in (-1, 1):
            signs = []
            for sa, sb in loop:
                s = [0, 0, 0]
                s[axis], s[a], s[b] = side, sa, sb
                signs.append(s)
            polygon([(s, axis) for s in signs], axis)
        for sa, sb in loop:  # the chamfer along `axis` between the faces across a and b
            low, high = [0, 0, 0], [0, 0, 0]
            low[axis], high[axis] = -1, 1
            for s in (low, high):
                s[a], s[b] = sa, sb
            polygon([(low, a), (high, a), (high, b), (low, b)], a)
    for sx in (-1, 1):
        for sy in (-1, 1):
            for sz in (-1, 1):
                polygon([([sx, sy, sz], 0), ([sx, sy, sz], 1), ([sx, sy, sz], 2)], 0)
    return oriented(Part(np.concatenate(positions), np.concatenate(normals), np.concatenate(uvs), np.array(faces)))


def board(low: Sequence[float], high: Sequence[float], grain: int = 0, **options) -> Part:
    """A box from its low to its high corner."""
    low_, high_ = np.array(low, dtype=float), np.array(high, dtype=float)
    return box(high_ - low_, grain, **options).moved(*((low_ + high_) / 2))


def rounded_box(size: Sequence[float], radius: float, steps: int = 5, tile: Tile = (0.5, 0.5)) -> Part:
    """A box with round edges and a dense enough grid to be bent, as cushions are."""
    half = np.array(size, dtype=float) / 2
    radius = min(radius, 0.95 * half.min())
    ticks = []
    for h in half:
        edge = h - radius * (1 - np.sin(np.linspace(0, np.pi / 2, steps + 1)))
        middle = np.linspace(-(h - radius), h - radius, 2 * steps)
        ticks.append(np.unique(np.round(np.concatenate([-edge, middle, edge]), 7)))
    parts = []
    for axis in range(3):
        a, b = (k for k in range(3) if k != axis)
        for side in (-1.0, 1.0):
            ga, gb = np.meshgrid(ticks[a], ticks[b], indexing="ij")
            points = np.empty((*ga.shape, 3))
            points[..., a], points[..., b], points[..., axis] = ga, gb, side * half[axis]
            flat = points.reshape(-1, 3)
            uvs = _flat_uv(flat, axis, a, tile, (0.13 * axis, 0.37 * side)).reshape(*ga.shape, 2)
            core = np.clip(points, -(half - radius), half - radius)
            away = points - core
            away /= np.linalg.norm(away, axis=-1, keepdims=True)
            part = grid(core + radius * away, uvs)
            outward = np.where(np.sum(part.normals * away.reshape(-1, 3), 1).mean() < 0, -1, 1)
            faces = part.faces[:, ::-1] if outward < 0 else part.faces
            parts.append(replace(part, faces=faces))
    return smoothed(joined(parts))


def lathe(profile: Sequence[tuple[float, float]], segments: int = 40, tile: Tile = (0.5, 0.5)) -> Part:
    """A surface of revolution about z; profile is (radius, height) from bottom outwards; repeat a point for an edge."""
    points = np.array(profile, dtype=float)
    runs, start = [], 0
    for i in range(1, len(points)):
        if np.allclose(points[i], points[i - 1]):
            runs.append(points[start:i])
            start = i
    runs.append(points[start:])
    turn = np.linspace(0, 2 * np.pi, segments + 1)
    around = max(1, round(2 * np.pi * points[:, 0].max() / tile[0]))
    parts, length = [], 0.0
    for run in runs:
        if len(run) < 2:
            continue
        steps = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(run, axis=0), axis=1))]) + length
        length = steps[-1]
        ring = np.stack(
            [
                run[:, None, 0] * np.cos(turn),
                run[:, None, 0] * np.sin(turn),
                np.broadcast_to(run[:, None, 1], (len(run), len(turn))),
            ],
            -1,
        )
        uvs = np.stack(np.broadcast_arrays(turn[None] / (2 * np.pi) * around, steps[:, None] / tile[1]), -1)
        part = grid(ring, uvs)
        tangent = np.gradient(run, axis=0)
        out = np.stack([tangent[:, 1], -tangent[:, 0]], -1)
        out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)
        normals = np.stack(
            [
                out[:, None, 0] * np.cos(turn),
                out[:, None, 0] * np.sin(turn),
                np.broadcast_to(out[:, None, 1], (len(run), len(turn))),
            ],
            -1,
        )
        parts.append(replace(part, normals=normals.reshape(-1, 3)))
    return oriented(joined(parts))


def ball(radius: float, rings: int = 20, tile: Tile = (0.5, 0.5)) -> Part:
    """A sphere about the origin; u goes around z."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, rings)
    return lathe([(max(radius * np.cos(a), 1e-4), radius * np.sin(a)) for a in angle], 2 * rings, tile)


def tube(path: np.ndarray, radius: float | np.ndarray, segments: int = 10, tile: Tile = (0.1, 0.4)) -> Part:
    """A tube with closed ends along path [n, 3]; radius is one number or [n]."""
    path = np.asarray(path, dtype=float)
    radii = np.broadcast_to(np.asarray(radius, dtype=float), (len(path),))
    tangents = np.gradient(path, axis=0)
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    side = np.cross(tangents[0], [0.0, 0.0, 1.0] if abs(tangents[0, 2]) < 0.9 else [1.0, 0.0, 0.0])
    turn = np.linspace(0, 2 * np.pi, segments + 1)
    rings = []
    for point, tangent, r in zip(path, tangents, radii):
        side = side - tangent * np.dot(side, tangent)
        side /= np.linalg.norm(side)
        up = np.cross(tangent, side)
        rings.append(point + r * (np.cos(turn)[:, None] * side + np.sin(turn)[:, None] * up))
    steps = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    uvs = np.stack(np.broadcast_arrays(turn[None] / (2 * np.pi), steps[:, None] / tile[1]), -1)
    first, last = np.broadcast_to(path[0], (1, segments + 1, 3)), np.broadcast_to(path[-1], (1, segments + 1, 3))
    points = np.concatenate([first, np.stack(rings), last])
    part = grid(points, np.concatenate([uvs[:1], uvs, uvs[-1:]]))
    middle = np.repeat(np.concatenate([path[:1], path, path[-1:]]), segments + 1, axis=0)
    inward = np.sum(part.normals * (part.positions - middle), 1).mean() < 0
    return smoothed(replace(part, faces=part.faces[:, ::-1])) if inward else part


def curve(points: Sequence[Sequence[float] | np.ndarray], count: int = 24) -> np.ndarray:
    """Points [count, 3] on a smooth curve (Catmull-Rom) through the given ones."""
    knots = np.array(points, dtype=float)
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    at = np.linspace(0, len(knots) - 1, count)
    i = np.minimum(at.astype(int), len(knots) - 2)
    t = (at - i)[:, None]
    a, b, c, d = padded[i], padded[i + 1], padded[i + 2], padded[i + 3]
    return 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)


def write_ply(path: Path, part: Part) -> None:
    """Writes a binary PLY with normals and texture coordinates."""
    vertices = np.concatenate([part.positions, part.normals, part.uvs], 1).astype("<f4")
    names = ("x", "y", "z", "nx", "ny", "nz", "u", "v")
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    header += [f"property float {name}" for name in names]
    header += [f"element face {len(part.faces)}", "property list uchar int vertex_indices", "end_header", ""]
    faces = np.empty(len(part.faces), dtype=[("count", "u1"), ("index", "<i4", 3)])
    faces["count"], faces["index"] = 3, part.faces
    path.write_bytes("\n".join(header).encode() + vertices.tobytes() + faces.tobytes())

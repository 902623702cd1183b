"""What scenes are made of: materials, places, and meshes of triangles.

World units are metres, ``y`` points down. Parts are made in a frame of their own whose ``y`` points up and are put into
the world by a :class:`Place`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Vector = Sequence[float] | Array  # [3]


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
        """World directions ``[..., 3]`` of local ones; the local ``y`` points up."""
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


def _length(line: Array) -> float:
    return float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum())


_FINEST = 48  # most cells along a side of a sheet
_WORLD = Place()


class MeshBuilder:
    """Collects sheets; :meth:`build` returns the mesh.

    Args:
        rng: of where textures begin, and of lumps.
        detail: longest cell of flat surfaces in metres; light is worked out at their corners.

    Attributes:
        vertices: positions ``[v, 3]``, normals ``[v, 3]``, uv ``[v, 2]`` and parts ``[v]`` of each sheet so far.
        blocks: of each part so far.
    """

    def __init__(self, rng: np.random.Generator, detail: float = 0.4) -> None:
        self.rng, self.detail = rng, detail
        self.vertices: list[tuple[Array, Array, Array, NDArray[np.int64]]] = []
        self.blocks: list[Block] = []
        self._faces: list[tuple[NDArray[Any], ...]] = []  # faces, their material, sheet, and whether they are solid
        self._count = self._part = self._sheets = 0
        self._materials: dict[Material, int] = {}

    def sheet(
        self,
        points: Array,
        material: Material,
        place: Place = _WORLD,
        *,
        reach: tuple[float, float] | None = None,
        wrap: bool = False,
        solid: bool = False,
        away: Vector | None = None,
        flat: Array | None = None,
    ) -> None:
        """A curved surface.

        Args:
            points: ``[n, m, 3]`` local.
            material: of all of it.
            place: of the local frame.
            reach: local length along both axes for the texture; by default measured through the middle.
            wrap: the last column is the first again.
            solid: its back is never seen.
            away: local point, or one for each of ``points``, that the normals point away from.
            flat: ``[3]`` the one local normal of a flat sheet.
        """
        n, m = points.shape[:2]
        normals = grid_normals(points, wrap) if flat is None else np.broadcast_to(flat, points.shape)
        if away is not None and ((points - np.asarray(away)) * normals).sum() < 0:
            normals = -normals
        if reach is None:
            reach = (_length(points[:, m // 2]), _length(points[n // 2]))
        uv = np.stack(np.meshgrid(np.linspace(0, 1, m), np.linspace(0, 1, n)), -1)
        if material.scale > 0:
            repeats = np.array([reach[1], reach[0]]) * place.size / material.scale
            if wrap:
                repeats[0] = max(1.0, round(repeats[0]))
            uv = uv * repeats + self.rng.uniform(0, 1, 2)
        world, out = place.points(points).reshape(-1, 3), place.vectors(normals).reshape(-1, 3)
        index = np.arange(n * m).reshape(n, m)
        a, b, c, d = (x.ravel() for x in (index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]))
        faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
        self._add(world, out, uv.reshape(-1, 2), faces, material, solid)

    def _add(
        self, positions: Array, normals: Array, uv: Array, faces: Any, material: Material, solid: bool, sheets: int = 1
    ) -> None:
        corner = positions[faces]
        turn = cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        area = np.linalg.norm(turn, axis=1)
        wrong = (turn * normals[faces].sum(1)).sum(1) < 0
        sheet = self._sheets + np.arange(len(faces)) * sheets // len(faces)
        kept = area > 1e-10
        faces = np.where(wrong[:, None], faces[:, [0, 2, 1]], faces)[kept]
        number = self._materials.setdefault(material, len(self._materials))
        self.vertices.append((positions, normals, uv, np.full(len(positions), self._part)))
        same = (np.full(len(faces), value) for value in (number, solid))
        self._faces.append((faces + self._count, sheet[kept], *same))
        self._sheets += sheets
        self._count += len(positions)

    def next_part(self, place: Place, low: Vector, high: Vector, blocks: bool = True) -> None:
        """Close the part in hand, whose local bounds ``[3]`` are given; what follows belongs to the next."""
        if blocks:
            ends = np.asarray(low, float), np.asarray(high, float)
            half = (ends[1] - ends[0]) / 2 * place.size
            self.blocks.append(Block(place.points((ends[0] + ends[1]) / 2), half, place.turn, self._part))
        self._part += 1

    def panel(self, origin: Vector, u: Vector, v: Vector, material: Material, place: Place = _WORLD, **kw: Any) -> None:
        """The parallelogram ``origin + a u + b v`` (``[3]`` each), cut into cells fine enough for light.

        Its normal is ``v x u``; ``kw`` goes to :meth:`sheet`.
        """
        origin, u, v = (np.asarray(x, float) for x in (origin, u, v))
        reach = (float(np.linalg.norm(v)), float(np.linalg.norm(u)))
        n, m = (int(np.clip(np.ceil(side * place.size / self.detail), 1, _FINEST)) for side in reach)
        b, a = np.linspace(0, 1, n + 1)[:, None, None], np.linspace(0, 1, m + 1)[None, :, None]
        normal = np.cross(v, u)
        flat = normal / np.linalg.norm(normal)
        self.sheet(origin + a * u + b * v, material, place, reach=reach, flat=flat, **kw)

    def box(self, half: Sequence[float], material: Material, place: Place, *, top: Material | None = None) -> None:
        """A box that stands on its place; ``half`` are half its sizes."""
        h = np.asarray(half, float)
        middle = np.array([0, h[1], 0])
        small = top is None and h.max() * 2 * place.size <= self.detail
        if small:  # one cell on each side, all at once
            uv = _BOX_UV
            if material.scale > 0:
                lengths = 2 * h[_BOX_AXES] * place.size / material.scale
                uv = uv * np.repeat(lengths, 4, 0) + self.rng.uniform(0, 1, 2)
            world, out = place.points(np.concatenate(_BOX_POINTS) * h + middle), place.vectors(_BOX_NORMALS)
            self._add(world, out, uv, _BOX_FACES, material, True, sheets=6)
        for i in () if small else range(3):
            j, k = (i + 1) % 3, (i + 2) % 3
            for side in (-1.0, 1.0):
                corner, u, v = middle.copy(), np.zeros(3), np.zeros(3)
                corner += np.where(np.arange(3) == i, side * h, -h)
                u[j], v[k] = 2 * h[j], 2 * h[k]
                face = (corner, v, u) if j == 1 else (corner, u, v)  # textures stand upright on the sides
                chosen = top if top is not None and i == 1 else material
                self.panel(*face, chosen, place, solid=True, away=middle)
        self.next_part(place, (-h[0], 0, -h[2]), (h[0], 2 * h[1], h[2]))

    def wall(
        self,
        width: float,
        height: float,
        holes: Sequence[tuple[float, float, float, float]],
        material: Material,
        place: Place,
        depth: float = 0.15,
    ) -> None:
        """An upright wall in the local plane ``z = 0``, seen from ``z > 0``, with holes (left, bottom, right, top).

        Holes have reveals ``depth`` deep.
        """
        xs = sorted({0.0, width, *(x for h in holes for x in (h[0], h[2]))})
        ys = sorted({0.0, height, *(y for h in holes for y in (h[1], h[3]))})
        behind = (width / 2, height / 2, -1)
        for left, right in zip(xs, xs[1:]):
            for low, high in zip(ys, ys[1:]):
                x, y = (left + right) / 2, (low + high) / 2
                if not any(h[0] < x < h[2] and h[1] < y < h[3] for h in holes):
                    sides = (right - left, 0, 0), (0, high - low, 0)
                    self.panel((left, low, 0), *sides, material, place, away=behind)
        for left, low, right, high in holes:
            right_, up_ = np.array([right - left, 0, 0]), np.array([0, high - low, 0])
            back, foot = np.array([0, 0, -depth]), np.array([left, low, 0.0])
            middle = foot + (right_ + up_ + back) / 2
            for origin, side in ((foot, right_), (foot + up_, right_), (foot, up_), (foot + right_, up_)):
                self.panel(origin, side, back, material, place, away=2 * origin + side + back - middle)
        self.next_part(place, (0, 0, -depth), (width, height, 0))

    def lathe(self, profile: Sequence[tuple[float, float]], material: Material, place: Place, sides: int = 14) -> None:
        """A turned solid: ``profile`` lists (radius, height) from the bottom up."""
        outline = np.asarray(profile, float)
        angle = np.linspace(0, 2 * np.pi, sides + 1)
        r, y = outline[:, :1], outline[:, 1:]
        points = np.stack([r * np.cos(angle), y + 0 * angle, r * np.sin(angle)], -1)
        big = float(r.max())
        reach = (_length(outline), 2 * np.pi * big)
        self.sheet(points, material, place, reach=reach, wrap=True, away=points * [0, 1, 0])
        self.next_part(place, (-big, float(y.min()), -big), (big, float(y.max()), big))

    def ball(self, radii: Sequence[float], material: Material, place: Place, bumps: float = 0.0, n: int = 12) -> None:
        """An ellipsoid that stands on its place, with a lumpy surface where ``bumps`` > 0."""
        lat, lon = np.meshgrid(np.linspace(0, np.pi, n), np.linspace(0, 2 * np.pi, 2 * n + 1), indexing="ij")
        unit = np.stack([np.sin(lat) * np.cos(lon), -np.cos(lat), np.sin(lat) * np.sin(lon)], -1)
        grow = np.ones_like(lat)
        for octave in range(4 if bumps else 0):
            wave = self.rng.normal(size=3) * 2.0 * 1.7**octave
            grow += bumps * 0.6**octave * np.sin(unit @ wave + self.rng.uniform(0, 6))
        r = np.asarray(radii, float)
        center = np.array([0, r[1], 0])
        self.sheet(unit * grow[..., None] * r + center, material, place, wrap=True, solid=True, away=center)
        self.next_part(place, center - r * 0.8, center + r * 0.8)

    def tube(
        self, path: Sequence[Vector] | Array, radius: float | Array, material: Material, place: Place, sides: int = 6
    ) -> None:
        """A tube of one radius, or of radii ``[k]``, along ``path [k, 3]``: legs, poles, branches, cables."""
        path = np.asarray(path, float)
        ahead = np.gradient(path, axis=0)
        ahead /= np.maximum(np.linalg.norm(ahead, axis=1, keepdims=True), 1e-9)
        other = np.where(np.abs(ahead[:, :1]) < 0.8, [[1.0, 0, 0]], [[0, 0, 1.0]])
        a = np.cross(ahead, other)
        a /= np.linalg.norm(a, axis=1, keepdims=True)
        b = np.cross(ahead, a)
        angle = np.linspace(0, 2 * np.pi, sides + 1)[None, :, None]
        ring = np.cos(angle) * a[:, None] + np.sin(angle) * b[:, None]
        points = path[:, None] + ring * np.broadcast_to(np.asarray(radius, float), len(path))[:, None, None]
        self.sheet(points, material, place, wrap=True, solid=True, away=path[:, None])
        wide = float(np.max(radius))
        self.next_part(place, path.min(0) - wide, path.max(0) + wide)

    def card(self, width: float, height: float, material: Material, place: Place, bend: float = 0.0) -> None:
        """An upright picture or cut-out that stands on its place, seen from both sides."""
        n = 3 if bend else 1
        t = np.linspace(-1, 1, n + 1)
        points = np.zeros((2, n + 1, 3))
        points[..., 0], points[..., 2] = t * width / 2, bend * t**2 * width
        points[1, :, 1] = height
        self.sheet(points, material.stretched(), place)
        self._part += 1

    def build(self) -> Mesh:
        """Everything collected."""
        *corners, part = (np.concatenate(x) for x in zip(*self.vertices))
        positions, normals, uv = (x.astype(np.float32) for x in corners)
        faces, sheet, material, solid = (np.concatenate(x) for x in zip(*self._faces))
        return Mesh(positions, normals, uv, part, faces, material, sheet, solid, list(self._materials), self.blocks)


_BOX_SIDES = [(axes, side) for axes in ((0, 2, 1), (1, 0, 2), (2, 0, 1)) for side in (-1.0, 1.0)]  # normal, u, v
_CORNERS = np.array([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)])
# [24, 3] of a box of half size 1, side after side
_BOX_POINTS = [side * np.eye(3)[i] + (2 * _CORNERS - 1) @ np.eye(3)[[u, v]] for (i, u, v), side in _BOX_SIDES]
_BOX_NORMALS = np.repeat([side * np.eye(3)[i] for (i, _, _), side in _BOX_SIDES], 4, 0)
_BOX_UV = np.tile(_CORNERS, (6, 1))
_BOX_AXES = np.array([axes[1:] for axes, _ in _BOX_SIDES])
_BOX_FACES = np.array([(4 * k, 4 * k + a, 4 * k + a + 1) for k in range(6) for a in (1, 2)])

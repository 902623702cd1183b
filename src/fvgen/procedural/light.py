"""Light: a sun and lamps with soft shadows, and how much of the surroundings' light reaches each corner of the mesh."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fvgen.procedural.looks import linear_rgb
from fvgen.procedural.mesh import Array, Mesh
from fvgen.procedural.raster import rasterise
from fvgen.procedural.textures import power_law_noise

_TAPS = 7
_SMALLEST = 0.02  # half the middle size of the blocks that count


@dataclass(frozen=True)
class Lamp:
    """A lamp or the sun, which casts soft shadows.

    Attributes:
        position: ``[3]`` world; the sun's is far away.
        target: ``[3]`` world, the middle of what it lights.
        color: ``[3]`` linear light; of a lamp at a distance of one metre.
        spread: half the angle of its cone in radians.
        softness: radius of the blur of its shadows, as a share of the cone.
        distant: no falloff with distance, none at the edge of the cone: the sun.
    """

    position: tuple[float, float, float]
    target: tuple[float, float, float]
    color: tuple[float, float, float]
    spread: float
    softness: float = 0.004
    distant: bool = False


@dataclass(frozen=True)
class Surroundings:
    """Light from everywhere: linear colours from above and from below, and haze that hides what is far.

    Attributes:
        above, below: ``[3]``.
        haze: ``[3]`` its colour.
        thickness: per metre.
    """

    above: tuple[float, float, float]
    below: tuple[float, float, float]
    haze: tuple[float, float, float] = (0.0, 0.0, 0.0)
    thickness: float = 0.0


def look(position: Any, target: Any) -> NDArray[np.float64]:
    """Rotation ``[3, 3]``, rows x, y, z of a camera at ``position`` that looks at ``target``, y down."""
    z = np.asarray(target, float) - np.asarray(position, float)
    z /= np.linalg.norm(z)
    down = np.array([0.0, 1.0, 0.0]) if abs(z[1]) < 0.99 else np.array([0.0, 0.0, 1.0])
    x = np.cross(down, z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z])


@dataclass(frozen=True)
class ShadowMap:
    """The depth that a lamp sees.

    Attributes:
        lamp: whose shadows these are.
        projection: ``[3, 4]`` float64, world to (pixel times depth, depth) of the map.
        inverse_depth: ``[S, S]`` float32, 0 where nothing is.
    """

    lamp: Lamp
    projection: Tensor
    inverse_depth: Tensor

    @staticmethod
    def of(lamp: Lamp, positions: Tensor, faces: Tensor, size: int) -> "ShadowMap":
        """Rasterise the mesh (``positions [V, 3]``, ``faces [N, 3]``) from the lamp, ``size`` pixels square."""
        rotation = look(lamp.position, lamp.target)
        shift = -rotation @ np.asarray(lamp.position)
        focal = size / 2 / np.tan(lamp.spread)
        matrix = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
        whole = torch.from_numpy(matrix @ np.concatenate([rotation, shift[:, None]], 1)).to(positions.device)
        all_sides = torch.zeros(len(faces), dtype=torch.bool, device=positions.device)
        seen = rasterise(positions, faces, all_sides, whole[None], (size, size))
        return ShadowMap(lamp, whole, seen.inverse_depth[0])

    def lit(self, points: Tensor, normals: Tensor) -> Tensor:
        """``[P]`` share of the lamp that reaches ``points [P, 3]`` with ``normals [P, 3]``; 1 outside its cone."""
        size = self.inverse_depth.shape[0]
        projection = self.projection.float()
        # Lifted off the surface by a little more than a cell of the map, so that no surface shades itself.
        distance = (points - points.new_tensor(self.lamp.position)).norm(dim=1)
        cell = distance * (2 * float(np.tan(self.lamp.spread)) / size)
        raised = points + normals * (1.5 * cell + 0.004)[:, None]
        local = raised @ projection[:, :3].T + projection[:, 3]
        inverse = 1 / local[:, 2].clamp(min=1e-6)
        u, v = local[:, 0] * inverse, local[:, 1] * inverse
        inside = (u > 0) & (u < size) & (v > 0) & (v < size) & (local[:, 2] > 0)
        reach = self.lamp.softness * size
        total = torch.zeros_like(u)
        for k in range(_TAPS):
            angle, radius = 2.399963 * k, reach * ((k + 0.5) / _TAPS) ** 0.5
            x = (u + radius * float(np.cos(angle))).long().clamp(0, size - 1)
            y = (v + radius * float(np.sin(angle))).long().clamp(0, size - 1)
            nearest = self.inverse_depth.flatten().index_select(0, y * size + x)
            total += (nearest <= inverse * (1 + 1e-4 if self.lamp.distant else 1.01)).float()
        return torch.where(inside, total / _TAPS, 1.0)

    def arriving(self, points: Tensor, normals: Tensor) -> tuple[Tensor, Tensor]:
        """Light ``[P, 3]`` that falls on points with normals, and the directions ``[P, 3]`` to the lamp."""
        lamp = self.lamp
        to_lamp = points.new_tensor(lamp.position) - points
        distance = to_lamp.norm(dim=1).clamp(min=1e-3)
        direction = to_lamp / distance[:, None]
        strength = (direction * normals).sum(1).clamp(min=0)
        rows = (strength > 0).nonzero()[:, 0]
        strength[rows] *= self.lit(points.index_select(0, rows), normals.index_select(0, rows))
        if not lamp.distant:
            axis = points.new_tensor(look(lamp.position, lamp.target)[2])
            cone = ((-direction @ axis) / float(np.cos(lamp.spread * 0.98)) - 1).clamp(0, 0.3) / 0.3
            strength = strength * (0.15 + 0.85 * cone) / (distance.square() + 0.2)
        return strength[:, None] * points.new_tensor(lamp.color), direction


def openness(mesh: Mesh, device: torch.device | str = "cpu", strength: float = 0.45) -> Tensor:
    """``[V]`` how open the surroundings of each vertex are, 0..1: darker near the blocks that stand before it."""
    order = np.argsort(mesh.positions[:, 0], kind="stable")  # so that a block's surroundings are one slice
    across = mesh.positions[order, 0]
    positions, normals, part = (
        torch.from_numpy(a[order]).to(device) for a in (mesh.positions, mesh.normals, mesh.part)
    )
    result = torch.ones(len(positions), device=device)
    for block in mesh.blocks:
        half = np.maximum(block.half, 0.005)
        reach = float(np.clip(0.5 * np.sort(half)[1], 0.03, 0.5))
        bound = float(np.linalg.norm(half)) + 4 * reach
        first, last = np.searchsorted(across, [block.center[0] - bound, block.center[0] + bound])
        if np.sort(half)[1] <= _SMALLEST or first >= last:
            continue
        center, some = positions.new_tensor(block.center), slice(int(first), int(last))
        near = ((positions[some] - center).square().sum(1) < bound * bound) & (part[some] != block.part)
        rows = near.nonzero()[:, 0] + int(first)
        if not len(rows):
            continue
        c, s = float(np.cos(block.turn)), float(np.sin(block.turn))
        axes = positions.new_tensor([[c, 0, -s], [0, 1, 0], [s, 0, c]])  # rows: the block's axes in the world
        local = (positions.index_select(0, rows) - center) @ axes.T
        out_by = local - local.clamp(-positions.new_tensor(half), positions.new_tensor(half))
        distance = out_by.norm(dim=1)
        facing = -((normals.index_select(0, rows) @ axes.T) * out_by).sum(1) / distance.clamp(min=1e-4)
        weight = torch.where(distance > 1e-3, (facing * 0.7 + 0.4).clamp(0, 1), 1.0)
        result[rows] *= 1 - strength * weight * torch.exp(-distance / reach)
    back = torch.empty_like(result)
    back[torch.from_numpy(order).to(device)] = result
    return back


def sky(rng: np.random.Generator, sun: Array, day: float) -> Array:
    """A panorama ``[128, 256, 3]``, linear light: gradient, clouds, the sun's glow, hills on the horizon.

    Args:
        rng: everything random.
        sun: ``[3]`` direction to the sun, y down.
        day: 1 at noon, 0 at sunset.
    """
    height, width = 128, 256
    v, u = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    up, around = (0.5 - v) * np.pi, (u - 0.5) * 2 * np.pi
    direction = np.stack([np.cos(up) * np.sin(around), -np.sin(up), np.cos(up) * np.cos(around)], -1)
    zenith = linear_rgb(rng.uniform(0.57, 0.63), rng.uniform(0.5, 0.95), rng.uniform(0.2, 0.45)) * (0.4 + 0.6 * day)
    low = linear_rgb(0.08, 0.6, 0.7) * (1 - day) + linear_rgb(0.58, rng.uniform(0.1, 0.4), 0.7) * day
    rise = np.clip(np.sin(np.maximum(up, 0)), 0, 1)[..., None] ** rng.uniform(0.3, 0.7)
    color = low * (1 - rise) + zenith * rise
    near_sun = np.clip(direction @ sun, 0, 1)[..., None]
    color = color + np.array([1.0, 0.85, 0.6]) * (0.5 * near_sun**12 + 3 * near_sun**300)
    cloud = power_law_noise(rng, width, rng.uniform(1.2, 1.8), stretch=1.0)[:height] + rng.uniform(-1.2, 0.8)
    cover = np.clip(cloud * rng.uniform(0.4, 1.5), 0, 1)[..., None] * np.clip(np.sin(up) * 5, 0, 1)[..., None]
    shade = 0.75 + 0.4 * (cloud - np.roll(cloud, -5, 0))[..., None] - 0.12 * cloud[..., None]
    color = color * (1 - cover) + np.clip(shade, 0.25, 1.3) * (low * 0.4 + 0.6) * cover
    ridge = power_law_noise(rng, width, 1.4, stretch=1.0)[0] * rng.uniform(0.01, 0.05) + rng.uniform(-0.02, 0.08)
    hill = (up < ridge[None])[..., None]
    far = low * 0.55 + linear_rgb(rng.uniform(0.2, 0.6), 0.25, 0.15) * 0.4
    return np.where(hill, far * (0.85 + 0.15 * np.clip(cloud, -1, 1)[..., None]), color).astype(np.float32)

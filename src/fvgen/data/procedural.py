"""Procedural scenes: textured rooms and streets with clutter, filmed by a moving camera, with exact depth.

A scene is a set of textured parallelograms ("quads"); cards with a cut-out outline stand for leaves, people and other
shapes that boxes cannot make. Pictures are rendered at twice their size and averaged, so edges are antialiased.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fvgen.cameras import Cameras
from fvgen.data.textures import TextureBank, power_law_noise

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Quad:
    """``origin + a * u + b * v`` for ``a, b`` in 0..1, with a texture pyramid and an optional cut-out.

    Attributes:
        origin, u, v: ``[3]`` world.
        pyramid: ``[s, s, 3]`` float32 0..1 pictures, each half as large as the one before.
        mask: ``[m, m]`` bool, True where the quad is solid, or ``None``.
        repeat: how many times the texture repeats along ``u`` and ``v``.
        shade: brightness factor.
    """

    origin: Array
    u: Array
    v: Array
    pyramid: list[Array]
    mask: NDArray[np.bool_] | None
    repeat: tuple[float, float]
    shade: float


def _pyramid(texture: NDArray[np.uint8]) -> list[Array]:
    levels: list[Array] = []
    image = Image.fromarray(np.ascontiguousarray(texture))
    while min(image.size) >= 4:
        levels.append(np.asarray(image, np.float32) / 255)
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    return levels


class _Builder:
    """Adds quads, boxes and cards to a scene."""

    def __init__(self, rng: np.random.Generator, bank: TextureBank) -> None:
        self.rng = rng
        self.quads: list[Quad] = []
        self.textures = [_pyramid(bank.sample(rng, 256, (0.3, 1.0))) for _ in range(int(rng.integers(6, 14)))]

    def quad(self, origin: Array, u: Array, v: Array, scale: float, texture: int | None = None) -> None:
        chosen = self.textures[self.rng.integers(len(self.textures)) if texture is None else texture]
        repeat = (float(np.linalg.norm(u)) / scale, float(np.linalg.norm(v)) / scale)
        shade = float(self.rng.uniform(0.55, 1.1))
        self._add(origin, u, v, chosen, None, repeat, shade)

    def box(self, center: Array, half: Array, turn: float, scale: float) -> None:
        c, s = np.cos(turn), np.sin(turn)
        axes = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) * half[:, None]
        texture = int(self.rng.integers(len(self.textures)))
        for i in range(3):
            a, b, n = axes[(i + 1) % 3], axes[(i + 2) % 3], axes[i]
            for side in (-1, 1):
                face = texture if self.rng.random() < 0.7 else None
                self.quad(center + side * n - a - b, 2 * a, 2 * b, scale, face)

    def card(self, center: Array, width: float, height: float, turn: float) -> None:
        u = np.array([np.cos(turn), 0, np.sin(turn)]) * width
        v = np.array([0.0, height, 0.0])
        field = power_law_noise(self.rng, 64, self.rng.uniform(1.0, 2.2))
        y, x = np.mgrid[-1:1:64j, -1:1:64j]
        mask = field * self.rng.uniform(0.1, 0.6) + 0.9 - (np.abs(x) ** 2.5 + np.abs(y) ** 2.5) > self.rng.uniform(
            0, 0.5
        )
        texture = self.textures[self.rng.integers(len(self.textures))]
        self._add(center - u / 2 - v / 2, u, v, texture, mask, (1.0, 1.0), float(self.rng.uniform(0.5, 1.1)))

    def _add(
        self,
        origin: Array,
        u: Array,
        v: Array,
        texture: list[Array],
        mask: NDArray[np.bool_] | None,
        repeat: tuple[float, float],
        shade: float,
    ) -> None:
        origin, u, v = (x.astype(np.float32) for x in (origin, u, v))
        self.quads.append(Quad(origin, u, v, texture, mask, repeat, shade))


def _room(build: _Builder, rng: np.random.Generator, outdoors: bool) -> float:
    """Walls, floor and furniture around the origin; y points down. Returns the distance to the far wall."""
    depth = rng.uniform(4, 9) * (2.5 if outdoors else 1.0)
    width, height = depth * rng.uniform(0.5, 1.1), rng.uniform(1.0, 1.5) * (2.5 if outdoors else 1.0)
    floor = rng.uniform(1.0, 1.7)
    scale = rng.uniform(1.0, 3.0)
    x, y, z = np.eye(3)
    corner = np.array([-width, floor, -2.0])
    build.quad(corner, 2 * width * x, (depth + 2) * z, scale)
    if not outdoors:
        build.quad(corner - (floor + height) * y, 2 * width * x, (depth + 2) * z, scale * 2)
    top = (floor + height) * -y
    for at, along in ((-width, (depth + 2) * z), (width, (depth + 2) * z)):
        build.quad(np.array([at, floor, -2.0]), along, top, scale)
    far = 40.0 if outdoors and rng.random() < 0.5 else depth
    build.quad(np.array([-far * 1.2, floor, far]), 2.4 * far * x, -(floor + height + far * 0.8) * y, scale * far / 4)
    for _ in range(int(rng.integers(2, 12))):  # furniture, cars, houses: boxes that stand on the floor
        half = rng.uniform(0.12, 0.7, 3) * (1.8 if outdoors else 1.0)
        place = np.array([rng.uniform(-width, width) * 0.9, floor - half[1], rng.uniform(1.0, depth)])
        build.box(place, half, rng.uniform(0, np.pi), rng.uniform(0.5, 1.5))
    for _ in range(int(rng.integers(3, 24))):  # things on them, and hanging
        half = rng.uniform(0.03, 0.22, 3)
        place = np.array([rng.uniform(-1, 1) * width * 0.7, rng.uniform(-0.8, 1) * floor, rng.uniform(1.0, depth)])
        build.box(place, half, rng.uniform(0, np.pi), rng.uniform(0.2, 0.8))
    for _ in range(int(rng.integers(0, 10))):
        place = np.array([rng.uniform(-1, 1) * width * 0.8, floor - rng.uniform(0.2, 1.5), rng.uniform(0.9, depth)])
        build.card(place, rng.uniform(0.2, 1.2), rng.uniform(0.3, 1.6), rng.uniform(-0.6, 0.6))
    return float(depth)


def _film(rng: np.random.Generator, frames: int, depth: float, width: int, height: int) -> Cameras:
    """A hand-held move: sideways, forward, or round a point, with a slowly wandering view."""
    target = np.array([rng.uniform(-0.5, 0.5), rng.uniform(-0.2, 0.4), depth * rng.uniform(0.35, 0.8)])
    start = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-0.4, 0.3), rng.uniform(-1.2, 0.0)])
    move = rng.normal(size=3) * [1.0, 0.25, 0.8]
    move *= rng.uniform(0.12, 0.5) * target[2] * 0.6 / np.linalg.norm(move)
    bend, drift = rng.normal(size=3) * 0.08, rng.normal(size=3) * 0.25
    focal = width * rng.uniform(0.6, 1.2) if width > height else height * rng.uniform(0.6, 1.2)
    shake = rng.normal(size=(frames, 3)) * 0.004
    poses = np.zeros((frames, 4, 4))
    for i in range(frames):
        s = i / max(frames - 1, 1)
        center = start + move * s + bend * np.sin(np.pi * s)
        z = target + drift * s + shake[i] * target[2] - center
        z /= np.linalg.norm(z)
        x = np.cross([0.05 * drift[0], 1.0, 0.0], z)
        x /= np.linalg.norm(x)
        poses[i, :3, :3] = np.stack([x, np.cross(z, x), z], axis=1)
        poses[i, :3, 3], poses[i, 3, 3] = center, 1
    intrinsics = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64)
    sizes = torch.tensor([[width, height]]).repeat(frames, 1)
    return Cameras(torch.from_numpy(poses), intrinsics.repeat(frames, 1, 1), sizes)


def _clip_near(corners: Array, near: float) -> Array:
    """Cut a polygon ``[n, 3]`` at ``z = near`` (Sutherland and Hodgman)."""
    kept = []
    for a, b in zip(corners, np.roll(corners, -1, axis=0)):
        if a[2] >= near:
            kept.append(a)
        if (a[2] >= near) != (b[2] >= near):
            kept.append(a + (b - a) * (near - a[2]) / (b[2] - a[2]))
    return np.array(kept, np.float32).reshape(-1, 3)


def _draw(quad: Quad, camera_from_world: Array, k: Array, color: Array, depth: Array) -> None:
    """Rasterise one quad into ``color [H, W, 3]`` and ``depth [H, W]`` with a depth test."""
    height, width = depth.shape
    rotation, shift = camera_from_world[:3, :3], camera_from_world[:3, 3]
    origin, u, v = rotation @ quad.origin + shift, rotation @ quad.u, rotation @ quad.v
    polygon = _clip_near(np.stack([origin, origin + u, origin + u + v, origin + v]), 0.05)
    if len(polygon) < 3:
        return
    x, y = polygon[:, 0] / polygon[:, 2] * k[0, 0] + k[0, 2], polygon[:, 1] / polygon[:, 2] * k[1, 1] + k[1, 2]
    left, right = max(int(x.min()), 0), min(int(x.max()) + 1, width)
    top, bottom = max(int(y.min()), 0), min(int(y.max()) + 1, height)
    if left >= right or top >= bottom:
        return
    # A ray hits the plane where (a, b, 1/z) are linear in the pixel: invert [u v origin] once.
    try:
        inverse = np.linalg.inv(np.stack([u, v, origin], axis=1).astype(np.float64)).astype(np.float32)
    except np.linalg.LinAlgError:
        return
    px = (np.arange(left, right, dtype=np.float32) + 0.5 - k[0, 2]) / k[0, 0]
    py = (np.arange(top, bottom, dtype=np.float32) + 0.5 - k[1, 2]) / k[1, 1]
    rows = [inverse[i, 0] * px[None] + inverse[i, 1] * py[:, None] + inverse[i, 2] for i in range(3)]
    with np.errstate(divide="ignore", invalid="ignore"):
        z = 1 / rows[2]
        a, b = rows[0] * z, rows[1] * z
        view = depth[top:bottom, left:right]
        hit = (rows[2] > 0) & (z > 0.05) & (z < view) & (a >= 0) & (a < 1) & (b >= 0) & (b < 1)
    if quad.mask is not None:
        m = quad.mask.shape[0]
        safe_a, safe_b = np.where(hit, a, 0), np.where(hit, b, 0)
        hit &= quad.mask[(safe_b * m).astype(np.int32), (safe_a * m).astype(np.int32)]
    if not hit.any():
        return
    a, b, z = a[hit] * quad.repeat[0] % 1.0, b[hit] * quad.repeat[1] % 1.0, z[hit]
    texels = quad.pyramid[0].shape[0] * quad.repeat[0] / np.linalg.norm(quad.u)  # per world unit
    footprint = np.median(z) / k[0, 0] * texels
    level = int(np.clip(round(np.log2(max(footprint, 1e-6))), 0, len(quad.pyramid) - 1))
    texture = quad.pyramid[level]
    size = texture.shape[0]
    picked = texture[
        np.minimum((b * size).astype(np.int32), size - 1), np.minimum((a * size).astype(np.int32), size - 1)
    ]
    color[top:bottom, left:right][hit] = picked * quad.shade
    view[hit] = z


@dataclass(frozen=True)
class ProceduralScene:
    """Quads, a sky colour, and a camera move through them.

    Attributes:
        quads: everything there is.
        sky: ``[3]`` float32, the colour where no quad is.
        cameras: ``T`` cameras of one size.
    """

    quads: list[Quad]
    sky: Array
    cameras: Cameras

    def film(self, cameras: Cameras, gain: float = 1.0) -> tuple[NDArray[np.uint8], Array]:
        """Pictures ``[N, H, W, 3]`` uint8 and z-depths ``[N, H, W]`` float32 (100 in the sky) at ``cameras``."""
        width, height = cameras.size
        large = cameras.resized(width * 2, height * 2)
        pictures, depths = [], []
        for i in range(len(cameras)):
            color = np.broadcast_to(self.sky, (height * 2, width * 2, 3)).copy()
            z = np.full((height * 2, width * 2), 100.0, np.float32)
            transform = large.camera_from_world[i].numpy().astype(np.float32)
            k = large.intrinsics[i].numpy().astype(np.float32)
            for quad in self.quads:
                _draw(quad, transform, k, color, z)
            averaged = color.reshape(height, 2, width, 2, 3).mean(axis=(1, 3)) * gain
            pictures.append((np.clip(averaged, 0, 1) * 255 + 0.5).astype(np.uint8))
            depths.append(z.reshape(height, 2, width, 2).min(axis=(1, 3)))
        return np.stack(pictures), np.stack(depths)


def procedural_scene(
    seed: int, frames: int = 16, width: int = 256, height: int = 160, bank: TextureBank | None = None
) -> ProceduralScene:
    """One scene and a camera move; deterministic by ``seed`` (and by the bank's photographs).

    Args:
        seed: of everything random.
        frames: number of cameras ``T``.
        width: of their pictures, in pixels.
        height: of their pictures, in pixels.
        bank: where textures come from; procedural ones by default.
    """
    rng = np.random.default_rng(seed)
    build = _Builder(rng, bank or TextureBank(photo_share=0.0))
    depth = _room(build, rng, outdoors=bool(rng.random() < 0.35))
    cameras = _film(rng, frames, depth, width, height)
    return ProceduralScene(build.quads, rng.uniform(0.5, 0.95, 3).astype(np.float32), cameras)

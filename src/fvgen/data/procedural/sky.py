"""Skies: gradients, clouds, the sun's glow, hills on the horizon."""

import numpy as np

from fvgen.data.patterns import power_law_noise
from fvgen.data.procedural.looks import linear_rgb
from fvgen.data.procedural.mesh import Array


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

"""Cut-out outlines: leaves, blades, fences, figures."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fvgen.data.procedural.shade import MASK

MASKS = ("spray", "tuft", "lattice", "pickets", "rails", "blob", "fronds", "mesh")


@lru_cache(maxsize=64)
def mask(shape: str, variant: int) -> NDArray[np.float32]:
    """A cut-out ``[128, 128]`` in 0..1, solid above one half; its first row is the bottom."""
    rng, size = np.random.default_rng((MASKS.index(shape), variant)), 4 * MASK
    image = Image.new("L", (size, size))
    draw = ImageDraw.Draw(image)
    _DRAWERS[shape](rng, draw, size)
    small = image.resize((MASK, MASK), Image.Resampling.BOX)
    return np.ascontiguousarray(np.asarray(small, np.float32)[::-1] / 255)


def _spray(rng: np.random.Generator, draw: ImageDraw.ImageDraw, size: int) -> None:
    """Leaves all over: a branch of a tree."""
    length = size * rng.uniform(0.05, 0.1)
    for _ in range(int(rng.integers(70, 150))):
        r, phi = size * 0.42 * rng.random() ** 0.6, rng.uniform(0, 6.3)
        x, y, turn = size / 2 + r * np.cos(phi), size / 2 + r * np.sin(phi), rng.uniform(0, 6.3)
        _leaf(draw, x, y, turn, length * rng.uniform(0.6, 1.3), 0.4)


def _leaf(draw: ImageDraw.ImageDraw, x: float, y: float, turn: float, length: float, slim: float) -> None:
    t = np.linspace(0, 2 * np.pi, 12)
    a, b = np.cos(t) * length, np.sin(t) * length * slim * (1 - 0.5 * np.cos(t))
    draw.polygon([(x + p * np.cos(turn) - q * np.sin(turn), y + p * np.sin(turn) + q * np.cos(turn))
                  for p, q in zip(a, b)], fill=255)  # fmt: skip


def _tuft(rng: np.random.Generator, draw: ImageDraw.ImageDraw, size: int) -> None:
    """Blades that rise from the bottom."""
    for _ in range(int(rng.integers(14, 40))):
        x, top = rng.uniform(0.2, 0.8) * size, rng.uniform(0.05, 0.7) * size
        lean, wide = rng.normal(0, 0.18) * size, size * rng.uniform(0.008, 0.025)
        middle = x + lean * 0.3
        draw.polygon([(x - wide, size), (middle - wide, (size + top) / 2), (x + lean, top),
                      (middle + wide, (size + top) / 2), (x + wide, size)], fill=255)  # fmt: skip


def _fronds(rng: np.random.Generator, draw: ImageDraw.ImageDraw, size: int) -> None:
    """A stem with leaves in pairs."""
    bend = rng.normal(0, 0.2)
    for k in np.linspace(0, 1, int(rng.integers(7, 14))):
        x, y = size * (0.5 + bend * k * k), size * (1 - 0.9 * k)
        draw.ellipse([x - 6, y - 20, x + 6, y + 40], fill=255)
        for side in (-1, 1):
            length = size * 0.2 * (1 - 0.7 * k)
            turn = -np.pi / 2 + side * rng.uniform(0.7, 1.1)
            _leaf(draw, x + length * np.cos(turn), y + length * np.sin(turn), turn, length, 0.3)


def _lattice(rng: np.random.Generator, draw: ImageDraw.ImageDraw, size: int) -> None:
    """Crossed slats."""
    step, wide = size / int(rng.integers(5, 10)), int(size * rng.uniform(0.012, 0.03))
    for k in np.arange(-size, 2 * size, step):
        draw.line([(k, 0), (k + size, size)], fill=255, width=wide)
        draw.line([(k, size), (k + size, 0)], fill=255, width=wide)


def _mesh(rng: np.random.Generator, draw: ImageDraw.ImageDraw, size: int) -> None:
    """Upright and level wires."""
    step, wide = size / int(rng.integers(4, 9)), int(size * rng.uniform(0.01, 0.025))
    for k in np.arange(wide, size, step):
        draw.line([(k, 0), (k, size)], fill=255, width=wide)
        draw.line([(0, k), (size, k)], fill=255, width=wide)


def _pickets(rng: np.random.Generator, draw: ImageDraw.ImageDraw, size: int) -> None:
    """A garden fence."""
    count = int(rng.integers(6, 14))
    wide, tip = size / count * rng.uniform(0.35, 0.75), size * rng.uniform(0.0, 0.08)
    for k in range(count):
        x = (k + 0.5) * size / count
        draw.polygon([(x - wide / 2, size), (x - wide / 2, tip + 4), (x, 4), (x + wide / 2, tip + 4),
                      (x + wide / 2, size)], fill=255)  # fmt: skip
    for y in (0.25, 0.75):
        draw.rectangle([0, y * size, size, (y + 0.07) * size], fill=255)


def _rails(rng: np.random.Generator, draw: ImageDraw.ImageDraw, size: int) -> None:
    """A railing: thin bars under a rail."""
    count, wide = int(rng.integers(6, 12)), size * rng.uniform(0.012, 0.03)
    for k in range(count):
        x = (k + 0.5) * size / count
        draw.rectangle([x - wide / 2, 0, x + wide / 2, size], fill=255)
    for y in (0.0, 0.9):
        draw.rectangle([0, y * size, size, (y + 0.06) * size], fill=255)


def _blob(rng: np.random.Generator, draw: ImageDraw.ImageDraw, size: int) -> None:
    """A standing figure: a head, a body, two legs, more or less."""
    x, wide = size / 2, size * rng.uniform(0.14, 0.24)
    draw.ellipse([x - wide * 0.55, 0.02 * size, x + wide * 0.55, 0.2 * size], fill=255)
    draw.rounded_rectangle([x - wide, 0.2 * size, x + wide, 0.62 * size], radius=wide * 0.5, fill=255)
    step = rng.uniform(0.0, 0.9) * wide
    for side in (-1, 1):
        foot = x + side * (wide * 0.5 + step)
        draw.polygon([(x + side * wide * 0.95, 0.55 * size), (x + side * wide * 0.05, 0.55 * size),
                      (foot - wide * 0.3, size), (foot + wide * 0.3, size)], fill=255)  # fmt: skip


_DRAWERS = {
    "spray": _spray,
    "tuft": _tuft,
    "lattice": _lattice,
    "pickets": _pickets,
    "rails": _rails,
    "blob": _blob,
    "fronds": _fronds,
    "mesh": _mesh,
}

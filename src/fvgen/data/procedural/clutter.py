"""Small things that lie and stand on others. Each takes a maker and a place."""

from collections.abc import Callable

import numpy as np

from fvgen.data.procedural.builder import MeshBuilder
from fvgen.data.procedural.looks import Looks
from fvgen.data.procedural.mesh import Array, Place


class Maker:
    """A mesh in the making, its materials, and chance."""

    def __init__(self, rng: np.random.Generator, looks: Looks, detail: float) -> None:
        self.rng, self.looks, self.mesh = rng, looks, MeshBuilder(rng, detail)

    def between(self, low: float, high: float) -> float:
        """A random number."""
        return float(self.rng.uniform(low, high))

    def chance(self, share: float) -> bool:
        """True in this share of cases."""
        return bool(self.rng.random() < share)

    def count(self, low: int, high: int) -> int:
        """A random whole number, both ends included."""
        return int(self.rng.integers(low, high + 1))


Prop = Callable[[Maker, Place], None]


def vase(m: Maker, at: Place) -> None:
    """A turned vessel of a random outline: vase, bottle, bowl, cup, lamp foot."""
    height, wide, rows = m.between(0.08, 0.4), m.between(0.03, 0.14), m.count(4, 8)
    t = np.linspace(0, 1, rows * 2)
    radius = wide * np.clip(1 + 0.45 * np.sin(t * m.between(2, 7) + m.between(0, 6)) - m.between(0, 0.6) * t, 0.2, 1.8)
    profile = [(0.001, 0.0), *((float(r), float(y)) for r, y in zip(radius, t * height)), (0.001, height * 0.96)]
    m.mesh.lathe(profile, m.looks.of(str(m.rng.choice(["ceramic", "metal", "plastic", "wood"]))), at, sides=14)


def plate(m: Maker, at: Place) -> None:
    """A plate, perhaps with a ball on it."""
    wide = m.between(0.08, 0.16)
    outline = [(0.001, 0.0), (wide * 0.5, 0.0), (wide, 0.025), (wide * 0.95, 0.03), (wide * 0.5, 0.008), (0.001, 0.008)]
    m.mesh.lathe(outline, m.looks.of("ceramic"), at, sides=18)
    if m.chance(0.6):
        fruit(m, at.moved(y=0.01))


def fruit(m: Maker, at: Place) -> None:
    """A few round things."""
    for _ in range(m.count(1, 3)):
        r = m.between(0.03, 0.07)
        spot = at.moved(m.between(-0.06, 0.06), 0, m.between(-0.06, 0.06))
        m.mesh.ball((r, r * m.between(0.8, 1.2), r), m.looks.of("flower"), spot, bumps=0.04, n=8)


def book_stack(m: Maker, at: Place) -> None:
    """Books lying on one another."""
    y = 0.0
    for _ in range(m.count(1, 6)):
        half = (m.between(0.07, 0.13), m.between(0.008, 0.03), m.between(0.09, 0.17))
        m.mesh.box(half, m.looks.of("goods").stretched(), at.moved(y=y, turn=m.between(-0.4, 0.4)))
        y += 2 * half[1]


def carton(m: Maker, at: Place) -> None:
    """A box with print on it."""
    half = (m.between(0.03, 0.18), m.between(0.03, 0.16), m.between(0.03, 0.14))
    m.mesh.box(half, m.looks.of(str(m.rng.choice(["goods", "goods", "plastic", "wood"]))).stretched(), at)


def frame(m: Maker, at: Place) -> None:
    """A small picture that stands on its own, leaning back."""
    wide, high = m.between(0.1, 0.25), m.between(0.12, 0.3)
    m.mesh.box((wide / 2, high / 2, 0.01), m.looks.of("wood"), at)
    m.mesh.card(wide * 0.85, high * 0.85, m.looks.of("picture"), at.moved(y=high * 0.07, z=0.013))


def plant(m: Maker, at: Place) -> None:
    """Leaves out of a pot."""
    pot, size = m.between(0.06, 0.2), m.between(0.25, 1.0)
    m.mesh.lathe([(pot * 0.7, 0), (pot, pot * 1.6), (pot * 0.9, pot * 1.5), (0.001, pot * 1.4)],
                 m.looks.of("ceramic"), at, sides=12)  # fmt: skip
    leaves = [m.looks.cut("leaf", str(m.rng.choice(["fronds", "spray", "tuft"]))) for _ in range(2)]
    for k in range(m.count(4, 9)):
        turn = k * 2.4 + m.between(0, 0.5)
        spot = at.moved(y=pot * 1.4, turn=turn).moved(z=pot * 0.3)
        m.mesh.card(size * 0.7, size, leaves[k % 2], spot, bend=m.between(-0.4, 0.4))


CLUTTER: tuple[Prop, ...] = (vase, vase, vase, plate, fruit, book_stack, carton, carton, frame, plant)


def clutter(m: Maker, at: Place, width: float, depth: float, count: int) -> None:
    """Things on a surface ``width`` x ``depth`` whose middle is the place; they keep out of each other's way."""
    taken: list[Array] = []
    for _ in range(count * 4):
        spot = np.array([m.between(-0.46, 0.46) * width, m.between(-0.44, 0.44) * depth])
        if len(taken) >= count:
            return
        if any(np.linalg.norm(spot - t) < 0.19 for t in taken):
            continue
        taken.append(spot)
        CLUTTER[m.rng.integers(len(CLUTTER))](m, at.moved(spot[0], 0.001, spot[1], turn=m.between(0, 6.3)))

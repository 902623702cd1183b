"""Things that scenes are furnished with: small things, furniture, plants, buildings. Each takes a maker and a place."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from fvgen.procedural.looks import Looks
from fvgen.procedural.mesh import Array, Material, MeshBuilder, Place

T = TypeVar("T")


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

    def one_of(self, things: Sequence[T]) -> T:
        """One of some things, all equally likely."""
        return things[int(self.rng.integers(len(things)))]

    def material(self, *roles: str) -> Material:
        """A material of one of at least two roles, see `fvgen.procedural.looks.ROLES`."""
        return self.looks.of(str(self.rng.choice(roles)))


Prop = Callable[[Maker, Place], None]


def vase(m: Maker, at: Place) -> None:
    """A turned vessel of a random outline: vase, bottle, bowl, cup, lamp foot."""
    height, wide, rows = m.between(0.08, 0.4), m.between(0.03, 0.14), m.count(4, 8)
    t = np.linspace(0, 1, rows * 2)
    radius = wide * np.clip(1 + 0.45 * np.sin(t * m.between(2, 7) + m.between(0, 6)) - m.between(0, 0.6) * t, 0.2, 1.8)
    profile = [(0.001, 0.0), *zip(radius, t * height), (0.001, height * 0.96)]
    m.mesh.lathe(profile, m.material("ceramic", "metal", "plastic", "wood"), at)


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
    m.mesh.box(half, m.material("goods", "goods", "plastic", "wood").stretched(), at)


def frame(m: Maker, at: Place) -> None:
    """A small picture that stands on its own."""
    wide, high = m.between(0.1, 0.25), m.between(0.12, 0.3)
    m.mesh.box((wide / 2, high / 2, 0.01), m.looks.of("wood"), at)
    m.mesh.card(wide * 0.85, high * 0.85, m.looks.of("picture"), at.moved(y=high * 0.07, z=0.013))


def plant(m: Maker, at: Place) -> None:
    """Leaves out of a pot."""
    pot, size = m.between(0.06, 0.2), m.between(0.25, 1.0)
    outline = [(pot * 0.7, 0), (pot, pot * 1.6), (pot * 0.9, pot * 1.5), (0.001, pot * 1.4)]
    m.mesh.lathe(outline, m.looks.of("ceramic"), at, sides=12)
    leaves = [m.looks.cut("leaf", str(m.rng.choice(["fronds", "spray", "tuft"]))) for _ in range(2)]
    for k in range(m.count(4, 9)):
        spot = at.moved(y=pot * 1.4, turn=k * 2.4 + m.between(0, 0.5)).moved(z=pot * 0.3)
        m.mesh.card(size * 0.7, size, leaves[k % 2], spot, bend=m.between(-0.4, 0.4))


CLUTTER: tuple[Prop, ...] = (vase, vase, vase, plate, fruit, book_stack, carton, carton, frame, plant)


def clutter(m: Maker, at: Place, width: float, depth: float, count: int) -> None:
    """Things on a surface ``width`` x ``depth`` whose middle is the place; they keep out of each other's way."""
    taken: list[Array] = []
    for _ in range(count * 4):
        spot = np.array([m.between(-0.46, 0.46) * width, m.between(-0.44, 0.44) * depth])
        if len(taken) >= count:
            return
        if all(np.linalg.norm(spot - t) >= 0.19 for t in taken):
            taken.append(spot)
            m.one_of(CLUTTER)(m, at.moved(spot[0], 0.001, spot[1], turn=m.between(0, 6.3)))


def legs(m: Maker, at: Place, width: float, depth: float, thick: float, high: float, material: Material) -> None:
    """Four legs with half sizes ``thick`` and ``high`` under the corners of a board ``width`` x ``depth``."""
    for x in (-1, 1):
        for z in (-1, 1):
            spot = at.moved(x * (width / 2 - 0.06), 0, z * (depth / 2 - 0.06))
            m.mesh.box((thick, high, thick), material, spot)


def table(m: Maker, at: Place) -> None:
    """A top on legs, with things on it."""
    width, depth, high = m.between(0.8, 1.8), m.between(0.5, 0.95), m.between(0.42, 0.78)
    wood, leg = m.looks.of("wood"), m.between(0.02, 0.045)
    m.mesh.box((width / 2, 0.018, depth / 2), wood, at.moved(y=high - 0.036))
    legs(m, at, width, depth, leg, high / 2 - 0.018, wood)
    if m.chance(0.3):
        m.mesh.box((width * 0.3, 0.003, depth * 0.52), m.looks.of("cloth"), at.moved(y=high))
    clutter(m, at.moved(y=high), width, depth, m.count(1, 8))


def chair(m: Maker, at: Place) -> None:
    """Four legs, a seat, a back of slats or one board."""
    wood, wide, high = m.material("wood", "plastic", "metal"), m.between(0.19, 0.24), 0.45
    for x in (-wide, wide):
        for z in (-wide, wide):
            top = high if z > 0 else high + m.between(0.4, 0.5)
            m.mesh.tube([(x, 0, z), (x * 0.95, top, z)], 0.018, wood, at, sides=5)
    m.mesh.box((wide, 0.02, wide), m.looks.of("cloth") if m.chance(0.5) else wood, at.moved(y=high - 0.02))
    if m.chance(0.5):
        for k in range(3):
            m.mesh.box((wide, 0.025, 0.01), wood, at.moved(y=high + 0.1 + 0.11 * k, z=-wide))
    else:
        m.mesh.box((wide, 0.14, 0.012), wood, at.moved(y=high + 0.12, z=-wide))


def shelf(m: Maker, at: Place) -> None:
    """Boards with books and other things between two sides, against a wall at the place."""
    width, levels, high, deep = m.between(0.6, 1.6), m.count(2, 6), m.between(0.28, 0.42), m.between(0.12, 0.2)
    wood = m.looks.of("wood")
    for x in (-1, 1):
        m.mesh.box((0.012, levels * high / 2, deep), wood, at.moved(x * width / 2, 0, deep))
    if m.chance(0.7):
        m.mesh.box((width / 2, levels * high / 2, 0.005), wood, at.moved(z=0.006))
    for k in range(levels + 1):
        m.mesh.box((width / 2, 0.01, deep), wood, at.moved(y=k * high - 0.01, z=deep))
    for k in range(levels):
        _fill(m, at.moved(y=k * high + 0.011, z=deep), width - 0.05, high - 0.03, deep)


def _fill(m: Maker, at: Place, width: float, high: float, deep: float) -> None:
    """Books side by side, then something else."""
    x = -width / 2
    while x < width / 2 - 0.05:
        if m.chance(0.65):
            run, tall = min(m.between(0.15, 0.6), width / 2 - x), high * m.between(0.6, 0.95)
            if m.chance(0.4):  # each book by itself
                while run > 0.06:
                    thick, t = m.between(0.012, 0.03), tall * m.between(0.75, 1.0)
                    m.mesh.box((thick, t / 2, deep * 0.75), m.looks.of("goods").stretched(), at.moved(x + thick))
                    x, run = x + 2 * thick + 0.002, run - 2 * thick - 0.002
            else:
                m.mesh.box((run / 2, tall / 2, deep * 0.7), m.looks.of("books"), at.moved(x + run / 2))
                x += run + 0.01
        elif m.chance(0.7) and width / 2 - x > 0.2:
            m.one_of(CLUTTER[:-1])(m, at.moved(x + 0.12, turn=m.between(-0.5, 0.5), size=0.75))
            x += 0.25
        else:
            x += m.between(0.05, 0.3)


def sofa(m: Maker, at: Place) -> None:
    """A seat, a back, two arms, cushions."""
    cloth, width = m.looks.of("cloth"), m.between(0.7, 2.2)
    m.mesh.box((width / 2, 0.2, 0.4), cloth, at.moved(z=0.4))
    m.mesh.box((width / 2, 0.42, 0.1), cloth, at.moved(z=0.1))
    for x in (-1, 1):
        m.mesh.box((0.09, 0.3, 0.42), cloth, at.moved(x * (width / 2 + 0.09), 0, 0.42))
    for _ in range(m.count(0, 4)):
        spot = at.moved(m.between(-0.4, 0.4) * width, 0.4, 0.3, turn=m.between(-0.4, 0.4))
        m.mesh.ball((0.22, 0.2, 0.09), m.looks.of("cloth"), spot, bumps=0.03, n=9)


def bed(m: Maker, at: Place) -> None:
    """A frame, a rumpled cover, pillows."""
    width, length = m.between(0.9, 1.8), m.between(1.9, 2.1)
    m.mesh.box((width / 2, 0.15, length / 2), m.looks.of("wood"), at.moved(z=length / 2))
    u, v = np.meshgrid(np.linspace(-1, 1, 15), np.linspace(0, 1, 17))
    folds = 0.02 * np.sin(5 * u + 3 * v + m.between(0, 6)) * np.sin(7 * v)
    top = 0.52 - 0.22 * np.clip(np.abs(u) - 0.8, 0, 1) * 5 + folds
    m.mesh.sheet(np.stack([u * width * 0.53, top, v * length + 0.02], -1), m.looks.of("cloth"), at, away=(0, 0, 0))
    m.mesh.box((width / 2, m.between(0.4, 0.6), 0.03), m.looks.of("wood"), at)
    for x in (-0.25, 0.25):
        m.mesh.ball((0.3, 0.1, 0.2), m.looks.of("cloth"), at.moved(x * width, 0.5, 0.3), bumps=0.03, n=9)


def cupboard(m: Maker, at: Place) -> None:
    """A chest with doors or drawers, handles, and things on top."""
    half = (m.between(0.3, 0.9), m.between(0.3, 1.0), m.between(0.17, 0.3))
    wood, rows, columns = m.material("wood", "wood", "paint"), m.count(1, 4), m.count(1, 3)
    m.mesh.box(half, wood, at.moved(z=half[2]))
    wide, high, handle = 2 * half[0] / columns, 2 * half[1] / rows, m.looks.of("metal")
    for i in range(columns):
        for j in range(rows):
            spot = at.moved(-half[0] + (i + 0.5) * wide, j * high + 0.02, 2 * half[2])
            m.mesh.box((wide / 2 - 0.012, high / 2 - 0.02, 0.01), wood, spot)
            m.mesh.box((0.05, 0.008, 0.02), handle, spot.moved(y=high * 0.6))
    if half[1] < 0.65:
        clutter(m, at.moved(y=2 * half[1], z=half[2]), 2 * half[0], 2 * half[2], m.count(1, 5))


def lamp(m: Maker, at: Place) -> None:
    """A lamp on a stand; its shade glows."""
    high, wide = m.between(1.1, 1.7), m.between(0.12, 0.25)
    m.mesh.tube([(0, 0, 0), (0, high, 0)], 0.012, m.looks.of("metal"), at)
    m.mesh.lathe([(0.14, 0), (0.14, 0.02), (0.001, 0.03)], m.looks.of("metal"), at)
    cover = m.looks.of("cloth")
    shade = Material(cover.texture, cover.gain, cover.lift, cover.scale, glow=m.between(0.5, 3.0))
    m.mesh.lathe([(wide, high - 0.1), (wide * m.between(0.5, 1), high + 0.15)], shade, at)


def basket(m: Maker, at: Place) -> None:
    """An open tub or barrel."""
    wide, high = m.between(0.12, 0.3), m.between(0.2, 0.6)
    role = str(m.rng.choice(["cloth", "wood", "plastic", "metal"]))
    foot = wide * m.between(0.7, 1)
    outline = [(foot, 0), (wide, high), (wide * 0.93, high), (wide * 0.8, 0.03), (0.001, 0.03)]
    m.mesh.lathe(outline, m.looks.of(role), at)


def crates(m: Maker, at: Place) -> None:
    """Boxes piled up."""
    y, turn = 0.0, 0.0
    for _ in range(m.count(1, 4)):
        half = (m.between(0.15, 0.35), m.between(0.1, 0.25), m.between(0.15, 0.3))
        m.mesh.box(half, m.material("goods", "wood", "plastic").stretched(), at.moved(y=y, turn=turn))
        y, turn = y + 2 * half[1], m.between(-0.5, 0.5)


def screen(m: Maker, at: Place) -> None:
    """A desk with a monitor and a keyboard."""
    m.mesh.box((0.7, 0.018, 0.35), m.looks.of("wood"), at.moved(y=0.7))
    for x in (-0.65, 0.65):
        m.mesh.box((0.03, 0.35, 0.3), m.looks.of("metal"), at.moved(x))
    spot = at.moved(m.between(-0.2, 0.2), 0.736, -0.1, turn=m.between(-0.3, 0.3))
    dark = m.looks.of("plastic")
    m.mesh.tube([(0, 0, -0.05), (0, 0.2, -0.05)], 0.03, dark, spot)
    m.mesh.box((0.3, 0.18, 0.015), dark, spot.moved(y=0.1))
    shown = m.looks.of("picture")
    glowing = Material(shown.texture, shown.gain, shown.lift, 0.0, 0.5, glow=m.between(0.5, 1.5))
    m.mesh.card(0.57, 0.33, glowing, spot.moved(y=0.115, z=0.018))
    m.mesh.box((0.22, 0.01, 0.07), m.looks.of("goods").stretched(), spot.moved(z=0.22))
    clutter(m, at.moved(0.45, 0.736, 0.1), 0.4, 0.3, 2)


def rug(m: Maker, at: Place) -> None:
    """A carpet, thin and patterned."""
    m.mesh.box((m.between(0.6, 1.6), 0.006, m.between(0.4, 1.1)), m.looks.of("cloth"), at)


def curtain(m: Maker, at: Place, width: float, high: float) -> None:
    """Folded cloth that hangs from a rod; its top is at the place."""
    x = np.linspace(-width / 2, width / 2, 33)
    fold = 0.05 * np.sin(np.linspace(0, 2 * np.pi * width * m.between(3, 6), 33) + m.between(0, 6))
    down, narrow = np.array([[0], [0.5], [1]]), np.array([[1.0], [0.94], [1.0]])
    points = np.stack(np.broadcast_arrays(x * narrow, -down * high, fold * (0.6 + 0.4 * down)), -1)
    m.mesh.sheet(points, m.looks.of("cloth"), at, reach=(high, width * 1.5))


STANDING: tuple[Prop, ...] = (table, table, chair, chair, chair, plant, basket, crates, lamp, screen)
AT_WALLS: tuple[Prop, ...] = (shelf, shelf, cupboard, cupboard, sofa, bed, crates, plant, screen)


def tree(m: Maker, at: Place) -> None:
    """A bent trunk, branches, and leaves on cards; or a cone of needles."""
    high = m.between(2.0, 6.0)
    if m.chance(0.25):
        _conifer(m, at, high)
        return
    t = np.linspace(0, 1, 6)
    bend = m.rng.normal(0, 0.08, 2) * high
    trunk = np.stack([bend[0] * t**2, t * high * 0.7, bend[1] * t**2], 1)
    bark, thick = m.looks.of("bark"), high * m.between(0.02, 0.045)
    m.mesh.tube(trunk, thick * (1 - 0.7 * t), bark, at, sides=8)
    leaves = [m.looks.cut("leaf", "spray") for _ in range(2)]
    for k in range(m.count(5, 9)):
        root = trunk[2 + k % 4]
        turn, reach = k * 2.4 + m.between(0, 1), high * m.between(0.15, 0.3)
        tip = root + np.array([np.cos(turn) * reach, reach * m.between(0.3, 1.0), np.sin(turn) * reach])
        branch = [root, (root + tip) / 2 + [0, 0.05 * high, 0], tip]
        m.mesh.tube(branch, thick * np.array([0.4, 0.3, 0.1]), bark, at, sides=5)
        for _ in range(m.count(2, 4)):
            size = high * m.between(0.18, 0.34)
            spot = tip + m.rng.normal(0, 0.06, 3) * high - [0, size / 2, 0]
            m.mesh.card(size, size, m.one_of(leaves), at.moved(spot[0], spot[1], spot[2], m.between(0, 3.1)), bend=0.2)


def _conifer(m: Maker, at: Place, high: float) -> None:
    """Cones of needles over one another on a stem."""
    m.mesh.tube([(0, 0, 0), (0, high, 0)], 0.02 * high, m.looks.of("bark"), at)
    leaf, y = m.looks.of("leaf"), high * 0.12
    layers, wide = m.count(3, 6), high * m.between(0.18, 0.3)
    step = high * 0.85 / layers
    for k in range(layers):
        r = wide * (1 - k / layers)
        m.mesh.lathe([(r, y), (r * 0.9, y + 0.03), (0.05 * wide, y + step * 1.5)], leaf, at, sides=11)
        y += step


def bush(m: Maker, at: Place) -> None:
    """A lumpy ball of leaves with sprays that stick out."""
    r = m.between(0.25, 0.8)
    m.mesh.ball((r, r * m.between(0.6, 1.1), r), m.looks.of("leaf"), at, bumps=0.14, n=13)
    leaves = m.looks.cut(str(m.rng.choice(["leaf", "leaf", "flower"])), "spray")
    for k in range(m.count(3, 7)):
        m.mesh.card(r * 1.5, r * 1.3, leaves, at.moved(y=r * 0.5, turn=k * 2.4).moved(z=r * 0.75), bend=0.3)


def rock(m: Maker, at: Place) -> None:
    """A displaced ball, half in the ground."""
    r = m.between(0.15, 0.9)
    radii = (r * m.between(0.7, 1.3), r * m.between(0.4, 0.9), r * m.between(0.7, 1.3))
    m.mesh.ball(radii, m.material("stone", "earth"), at.moved(y=-radii[1] * 0.6), bumps=0.17, n=15)


def herbs(m: Maker, at: Place) -> None:
    """Tufts of grass or flowers."""
    blades = m.looks.cut(str(m.rng.choice(["lawn", "leaf", "flower"])), str(m.rng.choice(["tuft", "tuft", "fronds"])))
    for _ in range(m.count(3, 9)):
        size = m.between(0.15, 0.6)
        spot = at.moved(m.rng.normal(0, 0.3), 0, m.rng.normal(0, 0.3), turn=m.between(0, 3.1))
        m.mesh.card(size, size, blades, spot, bend=0.2)


def hedge(m: Maker, at: Place, length: float) -> None:
    """A bumpy wall of leaves along the local x axis."""
    high, deep, n = m.between(0.5, 1.6), m.between(0.25, 0.5), max(8, int(length * 3))
    outline = np.array([[0, -1], [0.6, -1.05], [0.95, -0.7], [1, 0], [0.95, 0.7], [0.6, 1.05], [0, 1]])
    y, z = outline[:, :1] * high, outline[:, 1:] * deep
    points = np.stack(np.broadcast_arrays(np.linspace(0, length, n), y, z), -1)
    points = points + m.rng.normal(0, 0.035, points.shape)
    m.mesh.sheet(points, m.looks.of("leaf"), at, away=(length / 2, high / 2, 0))
    m.mesh.next_part(at, (0, 0, -deep), (length, high, deep))


def ground(
    m: Maker, size: float, rough: float, material: Material, flat: float, cells: int = 56
) -> Callable[..., Place]:
    """Rolling ground ``size`` across, flat within ``flat`` of the middle.

    Returns:
        A function of world x and z, and of a turn, that gives the place on the ground there.
    """
    waves = [(m.rng.normal(0, 1, 2) * 0.25 * 1.8**k, m.between(0, 6), rough * 0.55**k) for k in range(6)]

    def height(x: Array | float, z: Array | float) -> Array:
        rise = sum(size * np.sin(w[0] * x + w[1] * z + phase) for w, phase, size in waves)
        return np.asarray(rise * np.clip((np.hypot(x, z) - flat) / max(flat, 3.0), 0, 1))

    # Finer cells near the middle, where the camera is.
    axis = np.linspace(-1, 1, cells + 1)
    x, z = np.meshgrid(*[np.sign(axis) * np.abs(axis) ** 1.6 * size / 2] * 2)
    points = np.stack([x, height(x, z), z], -1)
    m.mesh.sheet(points, replace(material, scale=1.0), away=(0, -1e3, 0), reach=(size, size))
    m.mesh.vertices[-1][2][:] = np.stack([x, z], -1).reshape(-1, 2) / material.scale
    m.mesh.next_part(Place(), (0, 0, 0), (0, 0, 0), blocks=False)
    return lambda x, z, turn=0.0: Place((x, -float(height(x, -z)), z), turn)


PLANTS: tuple[Prop, ...] = (tree, tree, bush, bush, herbs, herbs, rock)


def house(m: Maker, at: Place) -> None:
    """A body with windows and doors that stand out a little, a pitched or flat roof, a chimney."""
    wide, deep = m.between(2.5, 5.0), m.between(2.0, 4.0)
    high = m.between(2.6, 7.0)
    wall = m.material("paint", "brick", "facade", "stone")
    m.mesh.box((wide, high / 2, deep), wall, at)
    if wall.texture != m.looks.of("facade").texture:
        _openings(m, at.moved(z=deep), 2 * wide, high)
        _openings(m, at.moved(wide, turn=-np.pi / 2), 2 * deep, high)
        _openings(m, at.moved(-wide, turn=np.pi / 2), 2 * deep, high)
    if m.chance(0.75):
        _roof(m, at.moved(y=high), wide, deep, wall)
    else:
        m.mesh.box((wide + 0.15, 0.12, deep + 0.15), m.looks.of("stone"), at.moved(y=high))
    if m.chance(0.5):
        m.mesh.box((0.3, 0.9, 0.3), m.looks.of("brick"), at.moved(m.between(-0.6, 0.6) * wide, high, 0))


def _roof(m: Maker, at: Place, wide: float, deep: float, wall: Material) -> None:
    """Two slopes and the gables under them."""
    rise, over = m.between(0.5, 1.1) * deep, 0.25
    for side in (-1, 1):
        eave = (-wide - over, -over * rise / deep, side * (deep + over))
        slope = (0, rise * (1 + over / deep), -side * (deep + over))
        m.mesh.panel(eave, (2 * (wide + over), 0, 0), slope, m.looks.of("roof"), at, away=(0, -9, 0))
        x = side * wide
        gable = np.array([[[x, 0, -deep], [x, 0, deep]], [[x, rise, 0], [x, rise, 0]]])
        m.mesh.sheet(gable, wall, at, away=(0, 0, 0))
    m.mesh.next_part(at, (-wide, 0, -deep), (wide, rise, deep), blocks=False)


def _openings(m: Maker, at: Place, width: float, high: float) -> None:
    """Windows in rows and a door on a wall whose middle foot is the place."""
    columns, rows = max(1, int(width / m.between(1.4, 2.4))), max(1, int(high / 2.6))
    wide, tall = m.between(0.4, 0.65), m.between(0.5, 0.8)
    edge, glass, door = m.looks.of("wood"), m.looks.of("metal"), m.looks.of("wood")
    dark = Material(glass.texture, (0.08, 0.1, 0.13), gloss=0.9)
    for i in range(columns):
        x = -width / 2 + (i + 0.5) * width / columns
        for j in range(rows):
            y = 0.9 + 2.6 * j
            if j == 0 and i == columns // 2:
                m.mesh.box((0.5, 1.05, 0.04), door, at.moved(x))
            elif y + 2 * tall <= high:
                m.mesh.box((wide, tall, 0.03), edge, at.moved(x, y))
                for half in (-1, 1):
                    spot = at.moved(x + half * wide * 0.5, y + 0.06, 0.035)
                    m.mesh.card(wide - 0.06, 2 * tall - 0.12, dark, spot)
                m.mesh.box((wide + 0.08, 0.03, 0.08), edge, at.moved(x, y - 0.06, 0.04))


def car(m: Maker, at: Place) -> None:
    """A body from its outline, dark glass, wheels."""
    paint, length, wide = m.looks.of("plastic"), m.between(3.6, 4.6), 0.85
    low, high = m.between(0.25, 0.32), m.between(0.95, 1.2)
    profile = [
        (-0.5, low),
        (-0.5, 0.75),
        (-0.36, 0.86),
        (-0.22, 1.4),
        (0.16, 1.42),
        (0.3, 0.92),
        (0.49, 0.8),
        (0.5, low),
    ]
    z, y = (np.array(profile) * [length, high]).T
    lean, middle = np.where(y > 1.1, 0.78, 1.0) * wide, (0, 0.6, 0)
    body = np.stack([np.stack([lean * s, y, z], -1) for s in (-1.0, -0.9, 0.9, 1.0)], 1)
    m.mesh.sheet(body, paint, at, away=middle)
    dark = Material(m.looks.of("metal").texture, (0.05, 0.06, 0.07), gloss=0.9)
    for s in (-1, 1):
        side = np.stack([np.stack([lean * s, edge, z], -1) for edge in (np.full(8, low), y)])
        m.mesh.sheet(side, paint, at, away=middle)
        panes = (((2, 0.95, 2), (4, 0.95, 5)), ((3, 1.36, 3), (4, 1.36, 4)))
        m.mesh.sheet(np.array([[[lean[k] * s * 1.012, h, z[j] * 0.92] for k, h, j in row] for row in panes]), dark, at)
        for along in (-0.3, 0.31):
            x = s * wide * 0.92
            axle = np.array([[x + side, 0.31, along * length] for side in (-0.1, -0.1, 0.1, 0.1)])
            axle = axle + np.linspace(0, 1e-3, 4)[:, None]
            m.mesh.tube(axle, np.array([0.01, 0.31, 0.31, 0.01]), dark, at, sides=14)
    for k, other in ((2, 3), (5, 4)):
        pane = np.array([[[x, y[j], z[j]] for x in (-half, half)] for j, half in ((k, 0.7), (other, 0.6))])
        m.mesh.sheet(pane * [1, 1, 1.012] + [0, 0.01, 0], dark, at)
    m.mesh.next_part(at, (-wide, low, -length / 2), (wide, 1.2, length / 2))


def lamp_post(m: Maker, at: Place) -> None:
    """A pole with an arm, or with a sign."""
    high, metal = m.between(2.2, 5.0), m.looks.of("metal")
    m.mesh.tube([(0, 0, 0), (0, high, 0)], m.between(0.03, 0.06), metal, at)
    if m.chance(0.5):
        m.mesh.tube([(0, high, 0), (0.2, high + 0.2, 0), (0.9, high + 0.25, 0)], 0.03, metal, at)
        m.mesh.box((0.25, 0.05, 0.09), metal, at.moved(0.9, high + 0.18))
    else:
        m.mesh.card(m.between(0.4, 1.2), m.between(0.4, 0.8), m.looks.of("goods"), at.moved(y=high - 0.9, z=0.06))


def fence(m: Maker, at: Place, length: float) -> None:
    """Posts and cut-out panels along the local x axis."""
    high, step = m.between(0.7, 1.5), m.between(1.0, 1.8)
    role = str(m.rng.choice(["wood", "metal", "paint"]))
    panel = m.looks.cut(role, str(m.rng.choice(["pickets", "pickets", "lattice", "rails", "mesh"])))
    for k in range(int(length / step)):
        m.mesh.box((0.04, high / 2 + 0.05, 0.04), m.looks.of("wood"), at.moved(k * step))
        m.mesh.card(step, high, panel, at.moved((k + 0.5) * step, 0.03))


def bench(m: Maker, at: Place) -> None:
    """Slats on two feet, with a back."""
    wood, width = m.looks.of("wood"), m.between(0.6, 1.0)
    for k in range(3):
        m.mesh.box((width, 0.018, 0.06), wood, at.moved(y=0.42, z=-0.15 + 0.15 * k))
        m.mesh.box((width, 0.05, 0.015), wood, at.moved(y=0.52 + 0.14 * k, z=-0.24 - 0.03 * k))
    for x in (-1, 1):
        m.mesh.box((0.04, 0.21, 0.2), m.looks.of("stone"), at.moved(x * width * 0.8))


def column(m: Maker, at: Place) -> None:
    """A turned column on a foot, whole or broken."""
    high, r = m.between(1.5, 4.5), m.between(0.16, 0.4)
    stone = m.looks.of("stone")
    m.mesh.box((r * 1.4, 0.1, r * 1.4), stone, at)
    broken = m.chance(0.3)
    high *= 0.45 if broken else 1.0
    shaft = [(r * 1.2, 0.2), (r * 1.2, 0.28), (r, 0.34), (r * 0.95, high * 0.5), (r * 0.85, high), (0.001, high)]
    m.mesh.lathe(shaft, stone, at, sides=16)
    if not broken:
        m.mesh.lathe([(r * 0.85, high), (r * 1.2, high + 0.15), (0.001, high + 0.15)], stone, at, sides=16)
        m.mesh.box((r * 1.3, 0.08, r * 1.3), stone, at.moved(y=high + 0.15))


def steps(m: Maker, at: Place) -> None:
    """A flight of stairs that rises backwards."""
    wide, stone = m.between(0.7, 2.0), m.looks.of("stone")
    for k in range(m.count(2, 7)):
        m.mesh.box((wide, 0.085 * (k + 1), 0.15), stone, at.moved(z=-0.3 * k))


def figure(m: Maker, at: Place) -> None:
    """A standing person: a turned body with arms and a head, dressed in two cloths."""
    k = m.between(1.5, 1.9) / 1.75
    top, cloth, skin = m.looks.of("cloth"), m.looks.of("cloth"), m.looks.of("skin")
    for x in (-0.1, 0.1):
        leg = np.array([[x, 0, 0.03], [x, 0.45, 0.02], [x * 0.9, 0.88, 0]]) * k
        m.mesh.tube(leg, np.array([0.055, 0.07, 0.1]) * k, cloth, at)
    outline = ((0.14, 0.82), (0.17, 1.05), (0.19, 1.35), (0.06, 1.48))
    body = [*((r * k, y * k) for r, y in outline), (0.001, 1.5 * k)]
    m.mesh.lathe(body, top, at)
    for s in (-1, 1):
        arm = np.array([[0.2 * s, 1.38, 0], [0.26 * s, 1.1, 0.02], [0.24 * s, 0.85, m.between(0, 0.25)]]) * k
        m.mesh.tube(arm, np.array([0.06, 0.05, 0.04]) * k, top, at)
    m.mesh.ball((0.09 * k, 0.125 * k, 0.1 * k), skin, at.moved(y=1.5 * k), n=9)


STREET: tuple[Prop, ...] = (lamp_post, bench, bush, figure, figure, herbs, tree)

"""Furniture, with clutter on it. Each piece takes a maker and a place."""

import numpy as np

from fvgen.data.procedural.clutter import CLUTTER, Maker, Prop, clutter, plant
from fvgen.data.procedural.mesh import Place


def table(m: Maker, at: Place) -> None:
    """A top on legs, with things on it."""
    width, depth, high = m.between(0.8, 1.8), m.between(0.5, 0.95), m.between(0.42, 0.78)
    wood, leg = m.looks.of("wood"), m.between(0.02, 0.045)
    m.mesh.box((width / 2, 0.018, depth / 2), wood, at.moved(y=high - 0.036))
    for x in (-1, 1):
        for z in (-1, 1):
            spot = at.moved(x * (width / 2 - 0.06), 0, z * (depth / 2 - 0.06))
            m.mesh.box((leg, high / 2 - 0.018, leg), wood, spot)
    if m.chance(0.3):
        runner = m.looks.of("cloth")
        m.mesh.box((width * 0.3, 0.003, depth * 0.52), runner, at.moved(y=high))
    clutter(m, at.moved(y=high), width, depth, m.count(1, 8))


def chair(m: Maker, at: Place) -> None:
    """Four legs, a seat, a back of slats or one board."""
    wood, wide, high = m.looks.of(str(m.rng.choice(["wood", "plastic", "metal"]))), m.between(0.19, 0.24), 0.45
    for x in (-1, 1):
        for z in (-1, 1):
            top = high if z > 0 else high + m.between(0.4, 0.5)
            foot = np.array([[x * wide, 0, z * wide], [x * wide * 0.95, top, z * wide]])
            m.mesh.tube(foot, 0.018, wood, at, sides=5)
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
            run = min(m.between(0.15, 0.6), width / 2 - x)
            tall = high * m.between(0.6, 0.95)
            if m.chance(0.4):  # each book by itself
                while run > 0.06:
                    thick, t = m.between(0.012, 0.03), tall * m.between(0.75, 1.0)
                    m.mesh.box((thick, t / 2, deep * 0.75), m.looks.of("goods").stretched(), at.moved(x + thick))
                    x, run = x + 2 * thick + 0.002, run - 2 * thick - 0.002
            else:
                m.mesh.box((run / 2, tall / 2, deep * 0.7), m.looks.of("books"), at.moved(x + run / 2))
                x += run + 0.01
        elif m.chance(0.7) and width / 2 - x > 0.2:
            CLUTTER[m.rng.integers(len(CLUTTER) - 1)](m, at.moved(x + 0.12, turn=m.between(-0.5, 0.5), size=0.75))
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
    top = (
        0.52
        - 0.22 * np.clip(np.abs(u) - 0.8, 0, 1) * 5
        + 0.02 * np.sin(5 * u + 3 * v + m.between(0, 6)) * np.sin(7 * v)
    )
    m.mesh.sheet(np.stack([u * width * 0.53, top, v * length + 0.02], -1), m.looks.of("cloth"), at, away=np.zeros(3))
    m.mesh.box((width / 2, m.between(0.4, 0.6), 0.03), m.looks.of("wood"), at)
    for x in (-0.25, 0.25):
        m.mesh.ball((0.3, 0.1, 0.2), m.looks.of("cloth"), at.moved(x * width, 0.5, 0.3), bumps=0.03, n=9)


def cupboard(m: Maker, at: Place) -> None:
    """A chest with doors or drawers, handles, and things on top."""
    half = (m.between(0.3, 0.9), m.between(0.3, 1.0), m.between(0.17, 0.3))
    wood, rows, columns = m.looks.of(str(m.rng.choice(["wood", "wood", "paint"]))), m.count(1, 4), m.count(1, 3)
    m.mesh.box(half, wood, at.moved(z=half[2]))
    wide, high = 2 * half[0] / columns, 2 * half[1] / rows
    handle = m.looks.of("metal")
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
    m.mesh.tube(np.array([[0, 0, 0], [0, high, 0]]), 0.012, m.looks.of("metal"), at)
    m.mesh.lathe([(0.14, 0), (0.14, 0.02), (0.001, 0.03)], m.looks.of("metal"), at)
    cover = m.looks.of("cloth")
    shade = type(cover)(cover.texture, cover.gain, cover.lift, cover.scale, glow=m.between(0.5, 3.0))
    m.mesh.lathe([(wide, high - 0.1), (wide * m.between(0.5, 1), high + 0.15)], shade, at)


def basket(m: Maker, at: Place) -> None:
    """An open tub or barrel."""
    wide, high = m.between(0.12, 0.3), m.between(0.2, 0.6)
    role = str(m.rng.choice(["cloth", "wood", "plastic", "metal"]))
    m.mesh.lathe([(wide * m.between(0.7, 1), 0), (wide, high), (wide * 0.93, high), (wide * 0.8, 0.03), (0.001, 0.03)],
                 m.looks.of(role), at)  # fmt: skip


def crates(m: Maker, at: Place) -> None:
    """Boxes piled up."""
    y, turn = 0.0, 0.0
    for _ in range(m.count(1, 4)):
        half = (m.between(0.15, 0.35), m.between(0.1, 0.25), m.between(0.15, 0.3))
        m.mesh.box(
            half, m.looks.of(str(m.rng.choice(["goods", "wood", "plastic"]))).stretched(), at.moved(y=y, turn=turn)
        )
        y, turn = y + 2 * half[1], m.between(-0.5, 0.5)


def screen(m: Maker, at: Place) -> None:
    """A desk with a monitor and a keyboard."""
    m.mesh.box((0.7, 0.018, 0.35), m.looks.of("wood"), at.moved(y=0.7))
    for x in (-0.65, 0.65):
        m.mesh.box((0.03, 0.35, 0.3), m.looks.of("metal"), at.moved(x))
    spot = at.moved(m.between(-0.2, 0.2), 0.736, -0.1, turn=m.between(-0.3, 0.3))
    dark = m.looks.of("plastic")
    m.mesh.tube(np.array([[0, 0, -0.05], [0, 0.2, -0.05]]), 0.03, dark, spot)
    m.mesh.box((0.3, 0.18, 0.015), dark, spot.moved(y=0.1))
    picture = m.looks.of("picture").stretched()
    glowing = type(picture)(picture.texture, picture.gain, picture.lift, 0.0, 0.5, glow=m.between(0.5, 1.5))
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
    points = np.stack([np.stack([x * s, np.full(33, -h * high), fold * (0.6 + 0.4 * h)], -1) for h, s in
                       ((0, 1.0), (0.5, 0.94), (1, 1.0))])  # fmt: skip
    m.mesh.sheet(points, m.looks.of("cloth"), at, reach=(high, width * 1.5))


STANDING: tuple[Prop, ...] = (table, table, chair, chair, chair, plant, basket, crates, lamp, screen)
AT_WALLS: tuple[Prop, ...] = (shelf, shelf, cupboard, cupboard, sofa, bed, crates, plant, screen)

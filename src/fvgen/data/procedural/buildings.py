"""Things people put up outdoors: houses, cars, lamp posts, fences, columns; and people."""

import numpy as np

from fvgen.data.procedural.clutter import Maker, Prop
from fvgen.data.procedural.greenery import bush, herbs, tree
from fvgen.data.procedural.mesh import Material, Place


def house(m: Maker, at: Place) -> None:
    """A body with windows and doors that stand out a little, a pitched or flat roof, a chimney."""
    wide, deep = m.between(2.5, 5.0), m.between(2.0, 4.0)
    high = m.between(2.6, 7.0)
    wall = m.looks.of(str(m.rng.choice(["paint", "brick", "facade", "stone"])))
    m.mesh.box((wide, high / 2, deep), wall, at)
    if wall.texture != m.looks.of("facade").texture:
        openings(m, at.moved(z=deep), 2 * wide, high)
        openings(m, at.moved(wide, turn=-np.pi / 2), 2 * deep, high)
        openings(m, at.moved(-wide, turn=np.pi / 2), 2 * deep, high)
    if m.chance(0.75):
        roof(m, at.moved(y=high), wide, deep, wall)
    else:
        m.mesh.box((wide + 0.15, 0.12, deep + 0.15), m.looks.of("stone"), at.moved(y=high))
    if m.chance(0.5):
        m.mesh.box((0.3, 0.9, 0.3), m.looks.of("brick"), at.moved(m.between(-0.6, 0.6) * wide, high, 0))


def roof(m: Maker, at: Place, wide: float, deep: float, wall: Material) -> None:
    """Two slopes and the gables under them."""
    rise, over = m.between(0.5, 1.1) * deep, 0.25
    for side in (-1, 1):
        eave = np.array([-wide - over, -over * rise / deep, side * (deep + over)])
        slope = np.array([0, rise * (1 + over / deep), -side * (deep + over)])
        m.mesh.panel(
            eave, np.array([2 * (wide + over), 0, 0]), slope, m.looks.of("roof"), at, away=np.array([0, -9.0, 0])
        )
        gable = np.array(
            [[[side * wide, 0, -deep], [side * wide, 0, deep]], [[side * wide, rise, 0], [side * wide, rise, 0]]]
        )
        m.mesh.sheet(gable, wall, at, away=np.zeros(3))
    m.mesh.next_part(at, (-wide, 0, -deep), (wide, rise, deep), blocks=False)


def openings(m: Maker, at: Place, width: float, high: float) -> None:
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
                continue
            if y + 2 * tall > high:
                continue
            m.mesh.box((wide, tall, 0.03), edge, at.moved(x, y))
            for half in (-1, 1):
                m.mesh.card(wide - 0.06, 2 * tall - 0.12, dark, at.moved(x + half * wide * 0.5, y + 0.06, 0.035))
            m.mesh.box((wide + 0.08, 0.03, 0.08), edge, at.moved(x, y - 0.06, 0.04))


def car(m: Maker, at: Place) -> None:
    """A body from its outline, dark glass, wheels."""
    paint, length, wide = m.looks.of("plastic"), m.between(3.6, 4.6), 0.85
    low = m.between(0.25, 0.32)
    outline = np.array([[-0.5, low], [-0.5, 0.75], [-0.36, 0.86], [-0.22, 1.4], [0.16, 1.42], [0.3, 0.92], [0.49, 0.8],
                        [0.5, low]]) * [length, m.between(0.95, 1.2)]  # fmt: skip
    lean = np.where(outline[:, 1] > 1.1, 0.78, 1.0) * wide
    ring = np.stack([np.stack([lean * s, outline[:, 1], outline[:, 0]], -1) for s in (-1.0, -0.9, 0.9, 1.0)], 1)
    m.mesh.sheet(ring, paint, at, away=np.array([0, 0.6, 0]))
    dark = Material(m.looks.of("metal").texture, (0.05, 0.06, 0.07), gloss=0.9)
    for s in (-1, 1):
        low_edge = np.stack([lean * s, np.full(8, low), outline[:, 0]], -1)
        side = np.stack([low_edge, np.stack([lean * s, outline[:, 1], outline[:, 0]], -1)])
        m.mesh.sheet(side, paint, at, away=np.array([0, 0.6, 0]))
        glass = np.stack(
            [
                np.array([[lean[k] * s * 1.012, y, z * 0.92] for k, y, z in rows])
                for rows in (
                    [(2, 0.95, outline[2, 0]), (4, 0.95, outline[5, 0])],
                    [(3, 1.36, outline[3, 0]), (4, 1.36, outline[4, 0])],
                )
            ]
        )
        m.mesh.sheet(glass, dark, at)
        for z in (-0.3, 0.31):
            x = s * wide * 0.92
            wheel = np.array([[x - 0.1, 0.31, z * length], [x + 0.1, 0.31, z * length]])
            axle = np.repeat(wheel, [2, 2], 0) + np.linspace(0, 1e-3, 4)[:, None]
            m.mesh.tube(axle, np.array([0.01, 0.31, 0.31, 0.01]), dark, at, sides=14)
    for z in (2, 5):
        a, b = outline[z], outline[z + (1 if z == 2 else -1)]
        pane = np.array([[[-0.7, a[1], a[0]], [0.7, a[1], a[0]]], [[-0.6, b[1], b[0]], [0.6, b[1], b[0]]]]) * [
            1,
            1,
            1.012,
        ]
        m.mesh.sheet(pane + [0, 0.01, 0], dark, at)
    m.mesh.next_part(at, (-wide, low, -length / 2), (wide, 1.2, length / 2))


def lamp_post(m: Maker, at: Place) -> None:
    """A pole with an arm, or with a sign."""
    high, metal = m.between(2.2, 5.0), m.looks.of("metal")
    m.mesh.tube(np.array([[0, 0, 0], [0, high, 0]]), m.between(0.03, 0.06), metal, at)
    if m.chance(0.5):
        m.mesh.tube(np.array([[0, high, 0], [0.2, high + 0.2, 0], [0.9, high + 0.25, 0]]), 0.03, metal, at)
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
    m.mesh.lathe([(r * 1.2, 0.2), (r * 1.2, 0.28), (r, 0.34), (r * 0.95, high * 0.5), (r * 0.85, high), (0.001, high)],
                 stone, at, sides=16)  # fmt: skip
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
    high = m.between(1.5, 1.9)
    top, legs, skin = m.looks.of("cloth"), m.looks.of("cloth"), m.looks.of("skin")
    k = high / 1.75
    for x in (-0.1, 0.1):
        m.mesh.tube(
            np.array([[x, 0, 0.03], [x, 0.45, 0.02], [x * 0.9, 0.88, 0]]) * k,
            np.array([0.055, 0.07, 0.1]) * k,
            legs,
            at,
        )
    m.mesh.lathe(
        [(0.14 * k, 0.82 * k), (0.17 * k, 1.05 * k), (0.19 * k, 1.35 * k), (0.06 * k, 1.48 * k), (0.001, 1.5 * k)],
        top,
        at,
    )
    for s in (-1, 1):
        arm = np.array([[0.2 * s, 1.38, 0], [0.26 * s, 1.1, 0.02], [0.24 * s, 0.85, m.between(0, 0.25)]]) * k
        m.mesh.tube(arm, np.array([0.06, 0.05, 0.04]) * k, top, at)
    m.mesh.ball((0.09 * k, 0.125 * k, 0.1 * k), skin, at.moved(y=1.5 * k), n=9)


STREET: tuple[Prop, ...] = (lamp_post, bench, bush, figure, figure, herbs, tree)

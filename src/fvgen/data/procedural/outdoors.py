"""Whole scenes under the sky: streets, gardens, wild land, towns from above, ruins."""

import numpy as np

from fvgen.data.procedural import buildings as b
from fvgen.data.procedural import greenery as g
from fvgen.data.procedural.clutter import Maker, vase
from fvgen.data.procedural.furniture import basket, crates
from fvgen.data.procedural.light import Lamp, Surroundings
from fvgen.data.procedural.looks import Looks, linear_rgb
from fvgen.data.procedural.mesh import Array, Place
from fvgen.data.procedural.moves import Stage
from fvgen.data.procedural.setting import Made, Setting
from fvgen.data.procedural.sky import sky
from fvgen.data.textures import TextureBank


def daylight(rng: np.random.Generator, reach: float, inside: bool = False) -> tuple[list[Lamp], Surroundings, Array]:
    """Sun (or none under clouds), the sky's light and the sky, for a place ``reach`` metres around the origin."""
    day, turn = float(np.clip(rng.normal(0.75, 0.3), 0, 1)), rng.uniform(0, 2 * np.pi)
    height = np.deg2rad(8 + 55 * day * rng.uniform(0.5, 1))
    to_sun = np.array([np.cos(height) * np.sin(turn), -np.sin(height), np.cos(height) * np.cos(turn)])
    panorama = sky(rng, to_sun, day)
    overcast = rng.random() < 0.25
    warm = np.array([1.0, 0.93, 0.82]) * day + np.array([1.0, 0.68, 0.42]) * (1 - day)
    strength = rng.uniform(0.05, 0.4) if overcast else rng.uniform(1.4, 3.2)
    distance = 25 * reach
    p, color = to_sun * distance, warm * strength
    spread = float(np.arctan(1.15 / 25))
    sun = Lamp((float(p[0]), float(p[1]), float(p[2])), (0.0, 0.0, 0.0), _triple(color), spread,
               float(rng.uniform(0.0008, 0.004) * (4 if overcast else 1)), distant=True)  # fmt: skip
    above = panorama[:64].mean((0, 1)) * rng.uniform(0.6, 1.1)
    below = linear_rgb(rng.uniform(0.05, 0.3), 0.3, 0.25) * rng.uniform(0.5, 1.0)
    haze = panorama[56:62].mean((0, 1))
    thick = 0.0 if inside or rng.random() < 0.5 else float(rng.uniform(0.05, 0.5)) / (2 * reach)
    return [sun], Surroundings(_triple(above), _triple(below), _triple(haze), thick), panorama


def _triple(color: Array) -> tuple[float, float, float]:
    return float(color[0]), float(color[1]), float(color[2])


def _begin(rng: np.random.Generator, bank: TextureBank, detail: float) -> Maker:
    return Maker(rng, Looks(rng, bank), detail)


def _made(m: Maker, stage: Stage, reach: float, mirror: float | None = None) -> Made:
    lamps, around, panorama = daylight(m.rng, reach)
    return Setting(m.mesh.build(), lamps, around, panorama, mirror), m.looks, stage


def street(rng: np.random.Generator, bank: TextureBank) -> Made:
    """A road between two rows of houses, pavements, cars, trees, lamp posts, people."""
    m = _begin(rng, bank, 0.8)
    half, walk, length = m.between(2.0, 4.0), m.between(1.0, 2.5), 44.0
    road = m.looks.of("road")
    m.mesh.panel(np.array([-half, 0, -8]), np.array([2 * half, 0, 0]), np.array([0, 0, length]), road, Place((0, 0, 0)),
                 away=np.array([0, -1e3, 0.0]))  # fmt: skip
    for side in (-1, 1):
        for k in range(6):
            m.mesh.box(
                (walk / 2, 0.07, length / 12),
                m.looks.of("road"),
                Place((side * (half + walk / 2), 0, -k * length / 6 + 4)),
            )
        z = m.between(-2, 4)
        while z < 34:
            before = len(m.mesh.blocks)
            b.house(m, Place((side * (half + walk + m.between(2.6, 5.0)), 0, -z), -side * np.pi / 2))
            z += 2 * max(m.mesh.blocks[before].half[0], 2.2) + m.between(0.0, 2.5)
        for _ in range(m.count(3, 9)):
            spot = Place((side * (half + m.between(0.1, 0.9) * walk), -0.14, m.between(-22, 2)), m.between(0, 6))
            b.STREET[rng.integers(len(b.STREET))](m, spot)
        for _ in range(m.count(0, 4)):
            turn = m.between(-0.05, 0.05) + np.pi * (side > 0)
            b.car(m, Place((side * (half - 1.0), 0, m.between(-22, 0)), turn))
    corner, far = np.array([-60, -0.02, -60]), np.array([0, -1e3, 0.0])
    m.mesh.panel(corner, np.array([120, 0, 0]), np.array([0, 0, 120]), m.looks.of("earth"), Place(), away=far)
    targets = [np.array([m.between(-1, 1) * (half + walk), -m.between(0.6, 2.2), m.between(-14, -6)]) for _ in range(6)]
    high = -1.1 if m.chance(0.7) else -0.6
    stage = Stage(
        np.array([-half - walk * 0.6, -2.4, -3.0]), np.array([half + walk * 0.6, high, 5.0]), targets, 3.0, 16.0
    )
    return _made(m, stage, 26.0, 0.0 if road.gloss > 0.15 else None)


def garden(rng: np.random.Generator, bank: TextureBank) -> Made:
    """A lawn or yard with a house wall behind, hedges, a fence, plants, pots, a bench."""
    m = _begin(rng, bank, 0.5)
    land = g.ground(m, 90.0, m.between(0.0, 0.5), m.looks.of(str(rng.choice(["lawn", "lawn", "earth", "stone"]))), 7.0)
    back = m.between(4, 8)
    if m.chance(0.75):
        b.house(m, Place((m.between(-3, 3), 0, -back - 3.5), m.between(-0.2, 0.2)))
    for _ in range(m.count(1, 3)):
        turn, x, z = m.between(-0.6, 0.6) + (np.pi / 2 if m.chance(0.4) else 0.0), m.between(-6, 1), -m.between(2, back)
        (b.fence if m.chance(0.55) else g.hedge)(m, Place((x, 0, z), turn), m.between(3, 7))
    things = (*g.PLANTS, *g.PLANTS, b.bench, basket, b.figure, b.column, b.steps, crates)
    for _ in range(m.count(9, 20)):
        x, z = m.between(-6, 6), m.between(-back - 1, 3)
        things[rng.integers(len(things))](m, land.at(x, z, m.between(0, 6.3)))
    for _ in range(m.count(3, 7)):
        g.tree(m, land.at(m.between(-18, 18), -m.between(9, 25)))
    for _ in range(m.count(10, 26)):
        g.herbs(m, land.at(m.between(-5, 5), m.between(-5, 2)))
    targets = [np.array([m.between(-2, 2), -m.between(0.2, 1.3), -m.between(1, 4)]) for _ in range(6)]
    stage = Stage(np.array([-3.5, -2.2, 1.0]), np.array([3.5, -0.7, 6.5]), targets, 2.0, 8.5)
    return _made(m, stage, 14.0)


def wild(rng: np.random.Generator, bank: TextureBank) -> Made:
    """Hills with rocks, trees and grass, perhaps by the water."""
    m = _begin(rng, bank, 0.6)
    soil = m.looks.of(str(rng.choice(["lawn", "earth", "stone"])))
    land = g.ground(m, 170.0, m.between(0.3, 1.6), soil, m.between(0.5, 4.0), cells=72)
    for _ in range(m.count(4, 22)):
        g.rock(m, land.at(m.between(-9, 9), m.between(-13, 3)).moved(size=m.between(0.6, 2.0)))
    for _ in range(m.count(6, 14)):
        g.tree(m, land.at(m.rng.normal(0, 9), -m.between(3, 30)).moved(y=-0.05))
    for _ in range(m.count(8, 20)):
        (g.bush if m.chance(0.3) else g.herbs)(m, land.at(m.between(-6, 6), m.between(-9, 2)))
    if m.chance(0.3):
        b.fence(m, land.at(-4, -m.between(3, 7), m.between(-0.5, 0.5)), 7)
    mirror = None
    if m.chance(0.35):  # a lake, whose surface shows the land
        level = m.between(0.05, 0.35)
        water = m.looks.of("stone")
        shiny = type(water)(water.texture, (0.1, 0.16, 0.18), scale=3.0, gloss=0.4, mirror=0.9, wear=0.1)
        m.mesh.panel(np.array([-80, -level, -80]), np.array([160, 0, 0]), np.array([0, 0, 160]), shiny, Place(),
                     away=np.array([0, -1e3, 0.0]))  # fmt: skip
        mirror = level
    targets = [np.array([m.between(-3, 3), -m.between(0.0, 1.6), -m.between(3, 8)]) for _ in range(6)]
    stage = Stage(np.array([-4, -3.0, 1.0]), np.array([4, -1.2, 6.0]), targets, 3.5, 13.0)
    return _made(m, stage, 20.0, mirror)


def town(rng: np.random.Generator, bank: TextureBank) -> Made:
    """Blocks of houses, trees and streets from the air."""
    m = _begin(rng, bank, 1.6)
    land = g.ground(m, 240.0, 0.0, m.looks.of(str(rng.choice(["lawn", "earth", "road"]))), 10.0, cells=40)
    step, turn = m.between(10, 14), m.between(-0.6, 0.6)
    c, s = np.cos(turn), np.sin(turn)
    for i in range(-2, 3):
        for j in range(-1, 4):
            x, z = i * step + m.rng.normal(0, 0.6), -j * step + m.rng.normal(0, 0.6)
            spot = land.at(c * x + s * z, -s * x + c * z, turn + m.between(-0.1, 0.1) + np.pi / 2 * m.count(0, 3))
            if m.chance(0.85):
                b.house(m, spot.moved(size=m.between(0.9, 1.2)))
            for _ in range(m.count(0, 3)):
                (g.tree if m.chance(0.6) else b.car)(
                    m, spot.moved(m.between(-6.5, -5), 0, m.between(-5, 6), m.between(0, 6))
                )
        road = Place((c * (i + 0.5) * step, 0, -s * (i + 0.5) * step), turn)
        m.mesh.box((1.6, 0.02, 45.0), m.looks.of("road"), road)
    for _ in range(m.count(2, 10)):
        g.tree(m, land.at(m.between(-25, 25), m.between(-30, 10)))
    targets = [np.array([m.between(-8, 8), -2.0, m.between(-18, -6)]) for _ in range(6)]
    stage = Stage(np.array([-12, -26.0, 4.0]), np.array([12, -11.0, 20.0]), targets, 15.0, 42.0)
    return _made(m, stage, 36.0)


def ruin(rng: np.random.Generator, bank: TextureBank) -> Made:
    """Columns, stairs, broken walls and arches in a row, plants between the stones."""
    m = _begin(rng, bank, 0.45)
    land = g.ground(m, 100.0, m.between(0.0, 0.8), m.looks.of(str(rng.choice(["earth", "stone", "lawn"]))), 6.0)
    m.mesh.box((5.0, 0.06, 5.0), m.looks.of("stone"), Place((0, 0, -4)))
    gap = m.between(1.4, 2.4)
    for k in range(m.count(3, 5)):
        for side in (-1, 1):
            b.column(m, Place((side * m.between(2.0, 2.2), -0.12, 0.5 - k * gap)))
    for _ in range(m.count(1, 3)):
        high, width = m.between(1.2, 3.2), m.between(2.5, 5.0)
        left = m.between(0.3, width - 1.5)
        hole = (left, 0.4 if m.chance(0.5) else 0.0, left + 0.9, high * 0.75)
        m.mesh.wall(width, high, [hole], m.looks.of(str(rng.choice(["stone", "brick"]))),
                    Place((m.between(-5, 1), 0, -m.between(5, 9)), m.between(-0.4, 0.4)), depth=0.4)  # fmt: skip
    things = (g.rock, g.rock, b.steps, g.herbs, g.bush, vase, b.figure, crates, b.bench)
    for _ in range(m.count(8, 18)):
        big = things[rng.integers(len(things))]
        big(
            m,
            land.at(m.between(-4, 4), m.between(-7, 2), m.between(0, 6.3)).moved(
                y=0.1, size=3.0 if big is vase else 1.0
            ),
        )
    for _ in range(m.count(4, 10)):
        g.tree(m, land.at(m.between(-16, 16), -m.between(10, 25)))
    targets = [np.array([m.between(-1.5, 1.5), -m.between(0.4, 2.0), -m.between(2, 6)]) for _ in range(6)]
    stage = Stage(np.array([-2.8, -2.4, 1.5]), np.array([2.8, -0.9, 6.0]), targets, 2.5, 10.0)
    return _made(m, stage, 13.0)

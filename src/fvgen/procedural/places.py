"""Whole scenes by kind: streets, gardens, wild land, towns from above, ruins; rooms, tables, halls, shops, clutter."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fvgen.procedural import things
from fvgen.procedural.camera import Stage
from fvgen.procedural.light import Lamp, Surroundings, sky
from fvgen.procedural.looks import Looks, linear_rgb
from fvgen.procedural.mesh import Array, Material, Mesh, Place
from fvgen.procedural.textures import TextureBank
from fvgen.procedural.things import AT_WALLS, PLANTS, STANDING, STREET, Maker


@dataclass(frozen=True)
class Setting:
    """A place and its light.

    Attributes:
        mesh: everything solid.
        lamps: the sun first, if any.
        around: light from everywhere.
        sky: ``[h, w, 3]`` panorama, linear light.
        mirror: height in metres of the level plane that polished surfaces mirror in, or ``None``.
    """

    mesh: Mesh
    lamps: list[Lamp]
    around: Surroundings
    sky: Array
    mirror: float | None = None

    @property
    def mirror_matrix(self) -> Tensor:
        """``[4, 4]`` float64 that mirrors the world in that plane."""
        matrix = torch.eye(4, dtype=torch.float64)
        matrix[1, 1], matrix[1, 3] = -1, -2 * (self.mirror or 0.0)  # y points down
        return matrix


Made = tuple[Setting, Looks, Stage]


def _daylight(rng: np.random.Generator, reach: float, inside: bool = False) -> tuple[Lamp, Surroundings, Array]:
    """Sun (or none under clouds), the sky's light and the sky, for a place ``reach`` metres around the origin."""
    day, turn = float(np.clip(rng.normal(0.75, 0.3), 0, 1)), rng.uniform(0, 2 * np.pi)
    height = np.deg2rad(8 + 55 * day * rng.uniform(0.5, 1))
    to_sun = np.array([np.cos(height) * np.sin(turn), -np.sin(height), np.cos(height) * np.cos(turn)])
    panorama = sky(rng, to_sun, day)
    overcast = rng.random() < 0.25
    warm = np.array([1.0, 0.93, 0.82]) * day + np.array([1.0, 0.68, 0.42]) * (1 - day)
    color = warm * (rng.uniform(0.05, 0.4) if overcast else rng.uniform(1.4, 3.2))
    softness = float(rng.uniform(0.0008, 0.004) * (4 if overcast else 1))
    spread = float(np.arctan(1.15 / 25))
    sun = Lamp(_triple(to_sun * (25 * reach)), (0.0, 0.0, 0.0), _triple(color), spread, softness, distant=True)
    above = panorama[:64].mean((0, 1)) * rng.uniform(0.6, 1.1)
    below = linear_rgb(rng.uniform(0.05, 0.3), 0.3, 0.25) * rng.uniform(0.5, 1.0)
    haze = panorama[56:62].mean((0, 1))
    thick = 0.0 if inside or rng.random() < 0.5 else float(rng.uniform(0.05, 0.5)) / (2 * reach)
    return sun, Surroundings(_triple(above), _triple(below), _triple(haze), thick), panorama


def _triple(color: Array) -> tuple[float, float, float]:
    return float(color[0]), float(color[1]), float(color[2])


def _outdoors(m: Maker, stage: Stage, reach: float, mirror: float | None = None) -> Made:
    sun, around, panorama = _daylight(m.rng, reach)
    return Setting(m.mesh.build(), [sun], around, panorama, mirror), m.looks, stage


def street(rng: np.random.Generator, bank: TextureBank) -> Made:
    """A road between two rows of houses, pavements, cars, trees, lamp posts, people."""
    m = Maker(rng, Looks(rng, bank), 0.8)
    half, walk, length = m.between(2.0, 4.0), m.between(1.0, 2.5), 44.0
    road = m.looks.of("road")
    m.mesh.panel((-half, 0, -8), (2 * half, 0, 0), (0, 0, length), road)
    for side in (-1, 1):
        for k in range(6):
            pavement = Place((side * (half + walk / 2), 0, -k * length / 6 + 4))
            m.mesh.box((walk / 2, 0.07, length / 12), m.looks.of("road"), pavement)
        z = m.between(-2, 4)
        while z < 34:
            before = len(m.mesh.blocks)
            things.house(m, Place((side * (half + walk + m.between(2.6, 5.0)), 0, -z), -side * np.pi / 2))
            z += 2 * max(m.mesh.blocks[before].half[0], 2.2) + m.between(0.0, 2.5)
        for _ in range(m.count(3, 9)):
            spot = Place((side * (half + m.between(0.1, 0.9) * walk), -0.14, m.between(-22, 2)), m.between(0, 6))
            m.one_of(STREET)(m, spot)
        for _ in range(m.count(0, 4)):
            turn = m.between(-0.05, 0.05) + np.pi * (side > 0)
            things.car(m, Place((side * (half - 1.0), 0, m.between(-22, 0)), turn))
    m.mesh.panel((-60, -0.02, -60), (120, 0, 0), (0, 0, 120), m.looks.of("earth"))
    targets = [(m.between(-1, 1) * (half + walk), -m.between(0.6, 2.2), m.between(-14, -6)) for _ in range(6)]
    high, wide = -1.1 if m.chance(0.7) else -0.6, half + walk * 0.6
    stage = Stage((-wide, -2.4, -3.0), (wide, high, 5.0), targets, 3.0, 16.0)
    return _outdoors(m, stage, 26.0, 0.0 if road.gloss > 0.15 else None)


def garden(rng: np.random.Generator, bank: TextureBank) -> Made:
    """A lawn or yard with a house wall behind, hedges, a fence, plants, pots, a bench."""
    m = Maker(rng, Looks(rng, bank), 0.5)
    land = things.ground(m, 90.0, m.between(0.0, 0.5), m.material("lawn", "lawn", "earth", "stone"), 7.0)
    back = m.between(4, 8)
    if m.chance(0.75):
        things.house(m, Place((m.between(-3, 3), 0, -back - 3.5), m.between(-0.2, 0.2)))
    for _ in range(m.count(1, 3)):
        turn, x, z = m.between(-0.6, 0.6) + (np.pi / 2 if m.chance(0.4) else 0.0), m.between(-6, 1), -m.between(2, back)
        (things.fence if m.chance(0.55) else things.hedge)(m, Place((x, 0, z), turn), m.between(3, 7))
    others = (things.bench, things.basket, things.figure, things.column, things.steps, things.crates)
    for _ in range(m.count(9, 20)):
        x, z = m.between(-6, 6), m.between(-back - 1, 3)
        m.one_of((*PLANTS, *PLANTS, *others))(m, land(x, z, m.between(0, 6.3)))
    for _ in range(m.count(3, 7)):
        things.tree(m, land(m.between(-18, 18), -m.between(9, 25)))
    for _ in range(m.count(10, 26)):
        things.herbs(m, land(m.between(-5, 5), m.between(-5, 2)))
    targets = [(m.between(-2, 2), -m.between(0.2, 1.3), -m.between(1, 4)) for _ in range(6)]
    return _outdoors(m, Stage((-3.5, -2.2, 1.0), (3.5, -0.7, 6.5), targets, 2.0, 8.5), 14.0)


def wild(rng: np.random.Generator, bank: TextureBank) -> Made:
    """Hills with rocks, trees and grass, perhaps by the water."""
    m = Maker(rng, Looks(rng, bank), 0.6)
    soil = m.material("lawn", "earth", "stone")
    land = things.ground(m, 170.0, m.between(0.3, 1.6), soil, m.between(0.5, 4.0), cells=72)
    for _ in range(m.count(4, 22)):
        things.rock(m, land(m.between(-9, 9), m.between(-13, 3)).moved(size=m.between(0.6, 2.0)))
    for _ in range(m.count(6, 14)):
        things.tree(m, land(m.rng.normal(0, 9), -m.between(3, 30)).moved(y=-0.05))
    for _ in range(m.count(8, 20)):
        (things.bush if m.chance(0.3) else things.herbs)(m, land(m.between(-6, 6), m.between(-9, 2)))
    if m.chance(0.3):
        things.fence(m, land(-4, -m.between(3, 7), m.between(-0.5, 0.5)), 7)
    level = None
    if m.chance(0.35):  # a lake, whose surface shows the land
        level = m.between(0.05, 0.35)
        texture = m.looks.of("stone").texture
        water = Material(texture, (0.1, 0.16, 0.18), scale=3.0, gloss=0.4, mirror=0.9, wear=0.1)
        m.mesh.panel((-80, -level, -80), (160, 0, 0), (0, 0, 160), water)
    targets = [(m.between(-3, 3), -m.between(0.0, 1.6), -m.between(3, 8)) for _ in range(6)]
    return _outdoors(m, Stage((-4, -3.0, 1.0), (4, -1.2, 6.0), targets, 3.5, 13.0), 20.0, level)


def town(rng: np.random.Generator, bank: TextureBank) -> Made:
    """Blocks of houses, trees and streets from the air."""
    m = Maker(rng, Looks(rng, bank), 1.6)
    land = things.ground(m, 240.0, 0.0, m.material("lawn", "earth", "road"), 10.0, cells=40)
    step, turn = m.between(10, 14), m.between(-0.6, 0.6)
    c, s = np.cos(turn), np.sin(turn)
    for i in range(-2, 3):
        for j in range(-1, 4):
            x, z = i * step + m.rng.normal(0, 0.6), -j * step + m.rng.normal(0, 0.6)
            spot = land(c * x + s * z, -s * x + c * z, turn + m.between(-0.1, 0.1) + np.pi / 2 * m.count(0, 3))
            if m.chance(0.85):
                things.house(m, spot.moved(size=m.between(0.9, 1.2)))
            for _ in range(m.count(0, 3)):
                thing = things.tree if m.chance(0.6) else things.car
                thing(m, spot.moved(m.between(-6.5, -5), 0, m.between(-5, 6), m.between(0, 6)))
        road = Place((c * (i + 0.5) * step, 0, -s * (i + 0.5) * step), turn)
        m.mesh.box((1.6, 0.02, 45.0), m.looks.of("road"), road)
    for _ in range(m.count(2, 10)):
        things.tree(m, land(m.between(-25, 25), m.between(-30, 10)))
    targets = [(m.between(-8, 8), -2.0, m.between(-18, -6)) for _ in range(6)]
    return _outdoors(m, Stage((-12, -26.0, 4.0), (12, -11.0, 20.0), targets, 15.0, 42.0), 36.0)


def ruin(rng: np.random.Generator, bank: TextureBank) -> Made:
    """Columns, stairs, broken walls and arches in a row, plants between the stones."""
    m = Maker(rng, Looks(rng, bank), 0.45)
    land = things.ground(m, 100.0, m.between(0.0, 0.8), m.material("earth", "stone", "lawn"), 6.0)
    m.mesh.box((5.0, 0.06, 5.0), m.looks.of("stone"), Place((0, 0, -4)))
    gap = m.between(1.4, 2.4)
    for k in range(m.count(3, 5)):
        for side in (-1, 1):
            things.column(m, Place((side * m.between(2.0, 2.2), -0.12, 0.5 - k * gap)))
    for _ in range(m.count(1, 3)):
        high, width = m.between(1.2, 3.2), m.between(2.5, 5.0)
        left = m.between(0.3, width - 1.5)
        hole = (left, 0.4 if m.chance(0.5) else 0.0, left + 0.9, high * 0.75)
        wall, foot = m.material("stone", "brick"), (m.between(-5, 1), 0, -m.between(5, 9))
        m.mesh.wall(width, high, [hole], wall, Place(foot, m.between(-0.4, 0.4)), depth=0.4)
    others = (things.steps, things.herbs, things.bush, things.vase, things.figure, things.crates, things.bench)
    for _ in range(m.count(8, 18)):
        thing = m.one_of((things.rock, things.rock, *others))
        spot = land(m.between(-4, 4), m.between(-7, 2), m.between(0, 6.3))
        thing(m, spot.moved(y=0.1, size=3.0 if thing is things.vase else 1.0))
    for _ in range(m.count(4, 10)):
        things.tree(m, land(m.between(-16, 16), -m.between(10, 25)))
    targets = [(m.between(-1.5, 1.5), -m.between(0.4, 2.0), -m.between(2, 6)) for _ in range(6)]
    return _outdoors(m, Stage((-2.8, -2.4, 1.5), (2.8, -0.9, 6.0), targets, 2.5, 10.0), 13.0)


_TURNS = (0.0, np.pi / 2, np.pi, -np.pi / 2)  # of four walls
Hole = tuple[float, float, float, float]  # left, bottom, right, top


def _shell(m: Maker, wide: float, deep: float, high: float, floor: Material, openings: tuple[int, int]) -> list[Place]:
    """Floor, ceiling, four walls with windows and doors, skirting; returns the walls' places (left foot, facing in).

    What the windows show is outside: ground, trees, houses.
    """
    wall = m.material("paint", "paint", "paint", "brick", "wood", "stone")
    other = m.looks.of("paint") if m.chance(0.3) else wall
    trim, places = m.looks.of("wood"), []
    m.mesh.panel((-wide / 2, 0, -deep / 2), (wide, 0, 0), (0, 0, deep), floor)
    paint = m.looks.of("paint")
    m.mesh.panel((-wide / 2, high, -deep / 2), (wide, 0, 0), (0, 0, deep), paint, away=(0, high + 9, 0))
    left = m.count(*openings)
    for index, turn in enumerate(_TURNS):
        length, out = (deep, wide / 2) if index % 2 else (wide, deep / 2)
        middle = Place((0, 0, 0), turn).moved(z=-out)
        place = middle.moved(-length / 2)
        places.append(place)
        holes: list[Hole] = []
        if index != 2 and left > 0 and m.chance(0.75):
            count = m.count(1, 2 if length > 4 else 1)
            left -= count
            for k in range(count):
                w = min(m.between(0.8, 2.0), 0.75 * length / count)
                x = (k + 0.5) * length / count - w / 2
                door = m.chance(0.25)
                low = 0.0 if door else m.between(0.5, 1.0)
                holes.append((x, low, x + w, min(high - 0.25, 2.1 if door else low + m.between(1.1, 1.6))))
        m.mesh.wall(length, high, holes, other if index == 1 else wall, place)
        for hole in holes:
            _window(m, place, hole, trim)
        if m.chance(0.7):
            m.mesh.box((length / 2, 0.045, 0.012), trim, middle.moved(z=0.012))
        for _ in range(m.count(0, 2)):
            _hang(m, place, length, high, holes)
    things.ground(m, 120.0, m.between(0, 0.8), m.material("lawn", "earth", "road"), 9.0, cells=28)
    for _ in range(m.count(3, 8)):
        turn, far = m.between(0, 6.3), m.between(9, 22)
        thing = m.one_of((things.tree, things.tree, things.bush, things.house))
        thing(m, Place((np.sin(turn) * far, 0.1, np.cos(turn) * far), m.between(0, 6.3)))
    return places


def _window(m: Maker, wall: Place, hole: Hole, trim: Material) -> None:
    """Bars in a hole that is no door, a sill, and perhaps curtains."""
    left, low, right, high = hole
    x, wide, tall = (left + right) / 2, right - left, high - low
    if low > 0:
        for k in range(m.count(1, 3)):
            m.mesh.box((0.02, tall / 2, 0.02), trim, wall.moved(left + wide * (k + 1) / 3, low, -0.1))
        m.mesh.box((wide / 2, 0.02, 0.02), trim, wall.moved(x, low + tall * m.between(0.4, 0.7), -0.1))
        m.mesh.box((wide / 2 + 0.05, 0.02, 0.1), trim, wall.moved(x, low - 0.04, 0.05))
        if m.chance(0.5):
            things.clutter(m, wall.moved(x, low, 0.06), wide, 0.12, 2)
    if m.chance(0.5):
        for side in (-1, 1):
            spot = wall.moved(x + side * (wide / 2 + 0.12), high + 0.15, 0.1)
            things.curtain(m, spot, m.between(0.3, 0.6), high)


def _hang(m: Maker, wall: Place, length: float, high: float, holes: list[Hole]) -> None:
    """A framed picture where there is no hole."""
    wide, tall = m.between(0.3, 1.2), m.between(0.3, 0.9)
    x, y = m.between(wide, max(length - wide, wide + 0.1)), m.between(1.1, max(1.2, high - tall - 0.2))
    if not any(h[0] - wide < x < h[2] + wide for h in holes):
        m.mesh.box((wide / 2 + 0.03, tall / 2 + 0.03, 0.012), m.looks.of("wood"), wall.moved(x, y - 0.03, 0.012))
        m.mesh.card(wide, tall, m.looks.of("picture"), wall.moved(x, y, 0.027))


def _floor(m: Maker) -> Material:
    """A floor; one in four is polished."""
    floor = m.looks.of("floor")
    return replace(floor, mirror=m.between(0.3, 0.8), gloss=0.5) if m.chance(0.25) else floor


def _anywhere(m: Maker, x: tuple[float, float], z: tuple[float, float], wide: float, deep: float) -> Place:
    """A place on the floor between shares of a room's size, turned at random."""
    return Place((m.between(*x) * wide, 0, m.between(*z) * deep), m.between(0, 6.3))


def _indoors(m: Maker, stage: Stage, high: float, wide: float, deep: float, mirror: float | None) -> Made:
    """Lit by the sun through the windows, by lamps of one colour each, and by what the walls throw back."""
    x, z = wide / 2, deep / 2
    sun, _, panorama = _daylight(m.rng, 9.0, inside=True)
    lamps = [replace(sun, color=_triple(np.array(sun.color) * 2.0))]
    for _ in range(m.count(0, 2)):
        color = linear_rgb(m.rng.choice([0.09, 0.1, 0.58, m.rng.random()]), m.between(0.05, 0.45), m.between(0.7, 2.2))
        spot = (m.between(-x, x) * 0.6, -high + 0.12, m.between(-z, z) * 0.6)
        aim = (spot[0] + m.between(-0.8, 0.8), 0.0, spot[2] + m.between(-0.8, 0.8))
        lamps.append(Lamp(spot, aim, _triple(color), 1.2, m.between(0.008, 0.03)))
    base = linear_rgb(m.between(0.05, 0.15) if m.chance(0.7) else 0.6, m.between(0, 0.25), m.between(0.3, 0.9))
    around = Surroundings(_triple(base * m.between(0.8, 1.2)), _triple(base * m.between(0.45, 0.9)))
    return Setting(m.mesh.build(), lamps, around, panorama, mirror), m.looks, stage


def room(rng: np.random.Generator, bank: TextureBank) -> Made:
    """Walls with windows and doors, furniture along them and in the middle, rugs, pictures, plants, clutter."""
    m = Maker(rng, Looks(rng, bank), 0.4)
    wide, deep, high = m.between(3.2, 6.5), m.between(3.4, 7.0), m.between(2.3, 3.2)
    floor = _floor(m)
    walls = _shell(m, wide, deep, high, floor, (1, 3))
    for index in (0, 1, 3):
        length, x = (deep if index else wide), 0.5
        while x < length - 0.6:
            thing = m.one_of(AT_WALLS)
            if m.chance(0.75):
                thing(m, walls[index].moved(x + 0.35, 0, 0.02))
            x += m.between(1.3, 2.6)
    targets = []
    for _ in range(m.count(2, 7)):
        spot = _anywhere(m, (-0.3, 0.3), (-0.28, 0.2), wide, deep)
        m.one_of(STANDING)(m, spot)
        targets.append((spot.at[0], -m.between(0.4, 0.9), spot.at[2]))
    if m.chance(0.6):
        things.rug(m, Place((m.between(-0.5, 0.5), 0, m.between(-0.8, 0.5)), m.between(-0.3, 0.3)))
    if m.chance(0.35):
        things.figure(m, Place((m.between(-0.3, 0.3) * wide, 0, -deep * 0.3), m.between(0, 6.3)))
    targets.append((m.between(-0.4, 0.4) * wide, -m.between(0.8, 1.4), -deep * 0.45))
    low, up = (-wide / 2 + 0.4, -min(high - 0.3, 1.9), -0.1 * deep), (wide / 2 - 0.4, -0.9, deep / 2 - 0.3)
    return _indoors(m, Stage(low, up, targets, 1.2, 5.5), high, wide, deep, 0.0 if floor.mirror else None)


def tabletop(rng: np.random.Generator, bank: TextureBank) -> Made:
    """Things on a table or a counter, from near; a room behind them."""
    m = Maker(rng, Looks(rng, bank), 0.3)
    floor = _floor(m)
    walls = _shell(m, 4.6, 4.6, 2.6, floor, (1, 3))
    width, depth, high = m.between(0.9, 1.9), m.between(0.7, 1.1), m.between(0.5, 0.85)
    top = m.material("wood", "wood", "stone", "cloth", "ceramic")
    at = Place((0, 0, -0.3), m.between(-0.4, 0.4))
    polished = m.chance(0.25)
    board = replace(top, mirror=m.between(0.25, 0.6), gloss=0.6) if polished else top
    m.mesh.box((width / 2, 0.02, depth / 2), top, at.moved(y=high - 0.04), top=board)
    things.legs(m, at, width, depth, 0.03, high / 2 - 0.02, top)
    things.clutter(m, at.moved(y=high), width, depth, m.count(6, 18))
    for wall in walls[:2]:
        for along in (1.0, 2.4, 3.7):
            if m.chance(0.7):
                m.one_of(AT_WALLS)(m, wall.moved(along))
    targets = [
        (m.between(-0.25, 0.25) * width, -high - m.between(0, 0.15), -0.3 + m.between(-0.2, 0.2)) for _ in range(4)
    ]
    kinds = ("orbit", "orbit", "track", "arc", "dolly", "crane")
    stage = Stage((-1.2, -high - 0.95, 0.2), (1.2, -high - 0.12, 1.6), targets, 0.55, 1.7, kinds)
    return _indoors(m, stage, 2.6, 4.6, 4.6, high if polished else 0.0 if floor.mirror else None)


def hall(rng: np.random.Generator, bank: TextureBank) -> Made:
    """A long hall with columns, doors, benches, figures; often a polished floor."""
    m = Maker(rng, Looks(rng, bank), 0.6)
    wide, deep, high = m.between(3.5, 7.0), m.between(10.0, 16.0), m.between(3.2, 4.8)
    floor = m.looks.of("floor")
    floor = replace(floor, mirror=m.between(0.4, 0.85), gloss=0.6) if m.chance(0.6) else floor
    _shell(m, wide, deep, high, floor, (3, 5))
    gap, pillar = m.between(1.8, 3.2), m.material("stone", "paint", "metal")
    r, square = m.between(0.12, 0.3), m.chance(0.4)
    z = -deep / 2 + 1
    while z < deep / 2:
        for side in (-1, 1):
            spot = Place((side * wide * 0.33, 0, z))
            if square:
                m.mesh.box((r, high / 2, r), pillar, spot)
            else:
                m.mesh.lathe([(r * 1.4, 0), (r * 1.4, 0.1), (r, 0.2), (r * 0.9, high)], pillar, spot)
        z += gap
    furniture = (things.bench, things.plant, things.basket, things.crates, things.figure, things.column)
    for _ in range(m.count(5, 14)):
        spot = _anywhere(m, (-0.42, 0.42), (-0.45, 0.3), wide, deep)
        m.one_of((*furniture, things.shelf, things.table, things.steps))(m, spot)
    targets = [(m.between(-0.3, 0.3) * wide, -m.between(0.8, 1.8), -m.between(0.0, 0.35) * deep) for _ in range(6)]
    stage = Stage((-wide * 0.3, -2.2, 0.1 * deep), (wide * 0.3, -1.0, 0.45 * deep), targets, 2.5, 11.0)
    return _indoors(m, stage, high, wide, deep, 0.0 if floor.mirror else None)


def shop(rng: np.random.Generator, bank: TextureBank) -> Made:
    """Rows of shelves full of books and goods, with aisles between them."""
    m = Maker(rng, Looks(rng, bank), 0.6)
    wide, deep, high = m.between(4.0, 6.5), m.between(5.0, 8.0), m.between(2.6, 3.4)
    floor = _floor(m)
    walls = _shell(m, wide, deep, high, floor, (0, 2))
    for index in (0, 1, 3):
        for x in np.arange(0.9, (deep if index else wide) - 0.5, 1.7):
            if m.chance(0.75):
                things.shelf(m, walls[index].moved(float(x)))
    if m.chance(0.7):  # two rows back to back down the middle
        x = m.between(-0.15, 0.15) * wide
        for z in np.arange(-deep * 0.3, deep * 0.15, 1.6):
            things.shelf(m, Place((x, 0, float(z)), np.pi / 2))
            things.shelf(m, Place((x, 0, float(z)), -np.pi / 2))
    for _ in range(m.count(2, 6)):
        spot = _anywhere(m, (-0.35, 0.35), (-0.3, 0.3), wide, deep)
        m.one_of((things.table, things.crates, things.basket, things.figure, things.plant))(m, spot)
    targets = [(m.between(-0.45, 0.45) * wide, -m.between(0.7, 1.6), m.between(-0.45, -0.05) * deep) for _ in range(6)]
    stage = Stage((-wide * 0.4, -1.9, -0.05 * deep), (wide * 0.4, -1.0, deep * 0.46), targets, 1.0, 5.0)
    return _indoors(m, stage, high, wide, deep, 0.0 if floor.mirror else None)


def jumble(rng: np.random.Generator, bank: TextureBank) -> Made:
    """Boxes, balls, turned things and cards anywhere in a hollow: no two alike, no rules that could be learnt."""
    m = Maker(rng, Looks(rng, bank), 0.6)
    roles = ("paint", "brick", "stone", "wood", "cloth", "goods", "picture", "lawn", "ceramic", "metal", "leaf")
    shapes = ("spray", "lattice", "pickets", "blob", "fronds", "mesh")
    size = m.between(3, 6)
    for turn in _TURNS:
        spot = Place((0, size * 0.6, 0), turn + m.between(-0.2, 0.2))
        corner, across, up = (-size * 1.6, 0, -size), (size * 3.2, 0, 0), (0, size * 2, 0)
        m.mesh.panel(corner, across, up, m.material(*roles), spot, away=(0, size, -size * 2))
    things.ground(m, 60.0, m.between(0.0, 0.5), m.material(*roles), 1.0, cells=40)
    for _ in range(m.count(25, 70)):
        at = Place((m.between(-1, 1) * size * 0.8, -m.between(0, 2.4), m.between(-0.9, 0.35) * size), m.between(0, 6.3))
        kind, r = rng.integers(5), m.between(0.08, 0.5)
        if kind == 0:
            m.mesh.box((r, m.between(0.05, 0.5), r * m.between(0.3, 1.5)), m.material(*roles), at)
        elif kind == 1:
            radii, lumpy = (r, r * m.between(0.6, 1.4), r), m.material(*roles)
            m.mesh.ball(radii, lumpy, at, bumps=float(rng.choice([0.0, 0.1, 0.2])))
        elif kind == 2:
            things.vase(m, at.moved(size=m.between(1, 4)))
        elif kind == 3:
            m.mesh.card(2 * r, 3 * r, m.looks.cut(str(rng.choice(roles)), str(rng.choice(shapes))), at, bend=0.2)
        else:
            ends = rng.normal(0, 0.8, (2, 3))
            path = [ends[0], ends.mean(0) + rng.normal(0, 0.3, 3), ends[1]]
            m.mesh.tube(path, m.between(0.01, 0.08), m.material(*roles), at)
    targets = [(m.between(-0.8, 0.8), -m.between(0.5, 1.5), m.between(-1.5, 0)) for _ in range(4)]
    stage = Stage((-1.5, -2.2, 0.3 * size), (1.5, -0.6, 0.8 * size), targets, 1.5, 6.0)
    return _indoors(m, stage, 3.5, size, size, 0.0 if m.looks.of("floor").mirror else None)


_ALL = (room, tabletop, hall, shop, jumble, street, garden, wild, town, ruin)
KINDS: dict[str, Callable[[np.random.Generator, TextureBank], Made]] = {kind.__name__: kind for kind in _ALL}
SHARES = (0.22, 0.14, 0.08, 0.08, 0.08, 0.12, 0.1, 0.07, 0.04, 0.07)  # of all scenes

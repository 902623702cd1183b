"""Whole scenes within walls: rooms, tables close up, halls, libraries, and clutter in the void."""

from dataclasses import replace

import numpy as np

from fvgen.data.procedural import buildings as b
from fvgen.data.procedural import clutter as c
from fvgen.data.procedural import furniture as p
from fvgen.data.procedural import greenery as g
from fvgen.data.procedural.clutter import Maker
from fvgen.data.procedural.light import Lamp, Surroundings
from fvgen.data.procedural.looks import Looks, linear_rgb
from fvgen.data.procedural.mesh import Material, Place
from fvgen.data.procedural.moves import Stage
from fvgen.data.procedural.outdoors import daylight
from fvgen.data.procedural.setting import Made, Setting
from fvgen.data.textures import TextureBank

_SIDES = ((0.0, 0), (np.pi / 2, 1), (np.pi, 0), (-np.pi / 2, 1))


def _shell(m: Maker, wide: float, deep: float, high: float, floor: Material, openings: tuple[int, int]) -> list[Place]:
    """Floor, ceiling, four walls with windows and doors, skirting; returns the walls' places (left foot, facing in)."""
    sizes, places = (wide, deep), []
    wall = m.looks.of(str(m.rng.choice(["paint", "paint", "paint", "brick", "wood", "stone"])))
    other = m.looks.of("paint") if m.chance(0.3) else wall
    trim = m.looks.of("wood")
    m.mesh.panel(np.array([-wide / 2, 0, -deep / 2]), np.array([wide, 0, 0]), np.array([0, 0, deep]), floor, Place(),
                 away=np.array([0, -9.0, 0]))  # fmt: skip
    m.mesh.panel(np.array([-wide / 2, high, -deep / 2]), np.array([wide, 0, 0]), np.array([0, 0, deep]),
                 m.looks.of("paint"), Place(), away=np.array([0, high + 9.0, 0]))  # fmt: skip
    left = m.count(*openings)
    for index, (turn, side) in enumerate(_SIDES):
        length, out = sizes[side], sizes[1 - side] / 2
        middle = Place((0, 0, 0), turn).moved(z=-out)
        place = middle.moved(-length / 2)
        places.append(place)
        holes = []
        if index != 2 and left > 0 and m.chance(0.75):
            count = m.count(1, 2 if length > 4 else 1)
            left -= count
            for k in range(count):
                w = min(m.between(0.8, 2.0), 0.75 * length / count)
                x = (k + 0.5) * length / count - w / 2
                door = m.chance(0.25)
                low = 0.0 if door else m.between(0.5, 1.0)
                holes.append((x, low, x + w, min(high - 0.25, low + m.between(1.1, 1.6) if not door else 2.1)))
        m.mesh.wall(length, high, holes, other if index == 1 else wall, place)
        for hole in holes:
            _window(m, place, hole, trim)
        if m.chance(0.7):
            m.mesh.box((length / 2, 0.045, 0.012), trim, middle.moved(z=0.012))
        for _ in range(m.count(0, 2)):
            _hang(m, place, length, high, holes)
    return places


def _window(m: Maker, wall: Place, hole: tuple[float, float, float, float], trim: Material) -> None:
    """Bars in a hole that is no door, a sill, and perhaps curtains."""
    left, low, right, high = hole
    x, wide, tall = (left + right) / 2, right - left, high - low
    if low > 0:
        for k in range(m.count(1, 3)):
            m.mesh.box((0.02, tall / 2, 0.02), trim, wall.moved(left + wide * (k + 1) / 3, low, -0.1))
        m.mesh.box((wide / 2, 0.02, 0.02), trim, wall.moved(x, low + tall * m.between(0.4, 0.7), -0.1))
        m.mesh.box((wide / 2 + 0.05, 0.02, 0.1), trim, wall.moved(x, low - 0.04, 0.05))
        if m.chance(0.5):
            c.clutter(m, wall.moved(x, low, 0.06), wide, 0.12, 2)
    if m.chance(0.5):
        for side in (-1, 1):
            p.curtain(m, wall.moved(x + side * (wide / 2 + 0.12), high + 0.15, 0.1), m.between(0.3, 0.6), high)


def _hang(m: Maker, wall: Place, length: float, high: float, holes: list[tuple[float, float, float, float]]) -> None:
    """A framed picture where there is no hole."""
    wide, tall = m.between(0.3, 1.2), m.between(0.3, 0.9)
    x, y = m.between(wide, max(length - wide, wide + 0.1)), m.between(1.1, max(1.2, high - tall - 0.2))
    if any(h[0] - wide < x < h[2] + wide for h in holes):
        return
    m.mesh.box((wide / 2 + 0.03, tall / 2 + 0.03, 0.012), m.looks.of("wood"), wall.moved(x, y - 0.03, 0.012))
    m.mesh.card(wide, tall, m.looks.of("picture"), wall.moved(x, y, 0.027))


def _view(m: Maker) -> None:
    """What the windows show: ground, trees, houses."""
    g.ground(m, 120.0, m.between(0, 0.8), m.looks.of(str(m.rng.choice(["lawn", "earth", "road"]))), 9.0, cells=28)
    for _ in range(m.count(3, 8)):
        turn, far = m.between(0, 6.3), m.between(9, 22)
        thing = (g.tree, g.tree, g.bush, b.house)[m.rng.integers(4)]
        thing(m, Place((np.sin(turn) * far, 0.1, np.cos(turn) * far), m.between(0, 6.3)))


def _indoor_light(m: Maker, high: float, x: float, z: float) -> tuple[list[Lamp], Surroundings, np.ndarray]:
    """The sun through the windows, lamps of one colour each, and what the walls throw back."""
    lamps, _, panorama = daylight(m.rng, 9.0, inside=True)
    sun = lamps[0]
    lamps = [replace(sun, color=tuple(c * 2.0 for c in sun.color))]  # type: ignore[arg-type]
    for _ in range(m.count(0, 2)):
        color = linear_rgb(m.rng.choice([0.09, 0.1, 0.58, m.rng.random()]), m.between(0.05, 0.45), m.between(0.7, 2.2))
        spot = (m.between(-x, x) * 0.6, -high + 0.12, m.between(-z, z) * 0.6)
        aim = (spot[0] + m.between(-0.8, 0.8), 0.0, spot[2] + m.between(-0.8, 0.8))
        lamps.append(Lamp(spot, aim, (float(color[0]), float(color[1]), float(color[2])), 1.2, m.between(0.008, 0.03)))
    base = linear_rgb(m.between(0.05, 0.15) if m.chance(0.7) else 0.6, m.between(0, 0.25), m.between(0.3, 0.9))
    up, down = base * m.between(0.8, 1.2), base * m.between(0.45, 0.9)
    around = Surroundings((float(up[0]), float(up[1]), float(up[2])), (float(down[0]), float(down[1]), float(down[2])))
    return lamps, around, panorama


def _floor(m: Maker) -> Material:
    """A floor; one in four is polished."""
    floor = m.looks.of("floor")
    return replace(floor, mirror=m.between(0.3, 0.8), gloss=0.5) if m.chance(0.25) else floor


def _finish(m: Maker, stage: Stage, high: float, wide: float, deep: float, floor: Material) -> Made:
    lamps, around, panorama = _indoor_light(m, high, wide / 2, deep / 2)
    return Setting(m.mesh.build(), lamps, around, panorama, 0.0 if floor.mirror else None), m.looks, stage


def room(rng: np.random.Generator, bank: TextureBank) -> Made:
    """Walls with windows and doors, furniture along them and in the middle, rugs, pictures, plants, clutter."""
    m = Maker(rng, Looks(rng, bank), 0.4)
    wide, deep, high = m.between(3.2, 6.5), m.between(3.4, 7.0), m.between(2.3, 3.2)
    floor = _floor(m)
    walls = _shell(m, wide, deep, high, floor, (1, 3))
    _view(m)
    for index, wall in enumerate(walls[:2] + walls[3:]):
        length, x = (wide if index == 0 else deep), 0.5
        while x < length - 0.6:
            thing = p.AT_WALLS[rng.integers(len(p.AT_WALLS))]
            if m.chance(0.75):
                thing(m, wall.moved(x + 0.35, 0, 0.02))
            x += m.between(1.3, 2.6)
    spots = []
    for _ in range(m.count(2, 7)):
        spot = Place((m.between(-0.3, 0.3) * wide, 0, m.between(-0.28, 0.2) * deep), m.between(0, 6.3))
        p.STANDING[rng.integers(len(p.STANDING))](m, spot)
        spots.append(np.array([spot.at[0], -m.between(0.4, 0.9), spot.at[2]]))
    if m.chance(0.6):
        p.rug(m, Place((m.between(-0.5, 0.5), 0, m.between(-0.8, 0.5)), m.between(-0.3, 0.3)))
    if m.chance(0.35):
        b.figure(m, Place((m.between(-0.3, 0.3) * wide, 0, -deep * 0.3), m.between(0, 6.3)))
    targets = [*spots, np.array([m.between(-0.4, 0.4) * wide, -m.between(0.8, 1.4), -deep * 0.45])]
    low, up = (
        np.array([-wide / 2 + 0.4, -min(high - 0.3, 1.9), -0.1 * deep]),
        np.array([wide / 2 - 0.4, -0.9, deep / 2 - 0.3]),
    )
    return _finish(m, Stage(low, up, targets, 1.2, 5.5), high, wide, deep, floor)


def tabletop(rng: np.random.Generator, bank: TextureBank) -> Made:
    """Things on a table or a counter, from near; a room behind them."""
    m = Maker(rng, Looks(rng, bank), 0.3)
    floor = _floor(m)
    walls = _shell(m, 4.6, 4.6, 2.6, floor, (1, 3))
    _view(m)
    width, depth, high = m.between(0.9, 1.9), m.between(0.7, 1.1), m.between(0.5, 0.85)
    top = m.looks.of(str(rng.choice(["wood", "wood", "stone", "cloth", "ceramic"])))
    at = Place((0, 0, -0.3), m.between(-0.4, 0.4))
    polished = m.chance(0.25)
    board = replace(top, mirror=m.between(0.25, 0.6), gloss=0.6) if polished else top
    m.mesh.box((width / 2, 0.02, depth / 2), top, at.moved(y=high - 0.04), top=board)
    for x in (-1, 1):
        for z in (-1, 1):
            m.mesh.box((0.03, high / 2 - 0.02, 0.03), top, at.moved(x * (width / 2 - 0.06), 0, z * (depth / 2 - 0.06)))
    c.clutter(m, at.moved(y=high), width, depth, m.count(6, 18))
    for wall in walls[:2]:
        for along in (1.0, 2.4, 3.7):
            if m.chance(0.7):
                p.AT_WALLS[rng.integers(len(p.AT_WALLS))](m, wall.moved(along))
    targets = [np.array([m.between(-0.25, 0.25) * width, -high - m.between(0, 0.15), -0.3 + m.between(-0.2, 0.2)])
               for _ in range(4)]  # fmt: skip
    stage = Stage(np.array([-1.2, -high - 0.95, 0.2]), np.array([1.2, -high - 0.12, 1.6]), targets, 0.55, 1.7,
                  ("orbit", "orbit", "track", "arc", "dolly", "crane"))  # fmt: skip
    level = high if polished else (0.0 if floor.mirror else None)
    made = _finish(m, stage, 2.6, 4.6, 4.6, floor)
    return replace(made[0], mirror=level), made[1], made[2]


def hall(rng: np.random.Generator, bank: TextureBank) -> Made:
    """A long hall with columns, doors, benches, figures; often a polished floor."""
    m = Maker(rng, Looks(rng, bank), 0.6)
    wide, deep, high = m.between(3.5, 7.0), m.between(10.0, 16.0), m.between(3.2, 4.8)
    floor = m.looks.of("floor")
    floor = replace(floor, mirror=m.between(0.4, 0.85), gloss=0.6) if m.chance(0.6) else floor
    _shell(m, wide, deep, high, floor, (3, 5))
    _view(m)
    gap, pillar = m.between(1.8, 3.2), m.looks.of(str(rng.choice(["stone", "paint", "metal"])))
    radius, square = m.between(0.12, 0.3), m.chance(0.4)
    z = -deep / 2 + 1
    while z < deep / 2:
        for side in (-1, 1):
            spot = Place((side * wide * 0.33, 0, z))
            if square:
                m.mesh.box((radius, high / 2, radius), pillar, spot)
            else:
                m.mesh.lathe(
                    [(radius * 1.4, 0), (radius * 1.4, 0.1), (radius, 0.2), (radius * 0.9, high)], pillar, spot
                )
        z += gap
    things = (b.bench, c.plant, p.basket, p.crates, b.figure, b.column, p.shelf, p.table, b.steps)
    for _ in range(m.count(5, 14)):
        spot = Place((m.between(-0.42, 0.42) * wide, 0, m.between(-0.45, 0.3) * deep), m.between(0, 6.3))
        things[rng.integers(len(things))](m, spot)
    targets = [
        np.array([m.between(-0.3, 0.3) * wide, -m.between(0.8, 1.8), -m.between(0.0, 0.35) * deep]) for _ in range(6)
    ]
    low, up = np.array([-wide * 0.3, -2.2, 0.1 * deep]), np.array([wide * 0.3, -1.0, 0.45 * deep])
    return _finish(m, Stage(low, up, targets, 2.5, 11.0), high, wide, deep, floor)


def shop(rng: np.random.Generator, bank: TextureBank) -> Made:
    """Rows of shelves full of books and goods, with aisles between them."""
    m = Maker(rng, Looks(rng, bank), 0.6)
    wide, deep, high = m.between(4.0, 6.5), m.between(5.0, 8.0), m.between(2.6, 3.4)
    floor = _floor(m)
    walls = _shell(m, wide, deep, high, floor, (0, 2))
    _view(m)
    for index in (0, 1, 3):
        length = wide if index == 0 else deep
        for x in np.arange(0.9, length - 0.5, 1.7):
            if m.chance(0.75):
                p.shelf(m, walls[index].moved(float(x)))
    if m.chance(0.7):  # two rows back to back down the middle
        x = m.between(-0.15, 0.15) * wide
        for z in np.arange(-deep * 0.3, deep * 0.15, 1.6):
            p.shelf(m, Place((x, 0, float(z)), np.pi / 2))
            p.shelf(m, Place((x, 0, float(z)), -np.pi / 2))
    for _ in range(m.count(2, 6)):
        spot = Place((m.between(-0.35, 0.35) * wide, 0, m.between(-0.3, 0.3) * deep), m.between(0, 6.3))
        (p.table, p.crates, p.basket, b.figure, c.plant)[rng.integers(5)](m, spot)
    targets = [np.array([m.between(-0.45, 0.45) * wide, -m.between(0.7, 1.6), m.between(-0.45, -0.05) * deep])
               for _ in range(6)]  # fmt: skip
    low, up = np.array([-wide * 0.4, -1.9, -0.05 * deep]), np.array([wide * 0.4, -1.0, deep * 0.46])
    return _finish(m, Stage(low, up, targets, 1.0, 5.0), high, wide, deep, floor)


def jumble(rng: np.random.Generator, bank: TextureBank) -> Made:
    """Boxes, balls, turned things and cards anywhere in a hollow: no two alike, no rules that could be learnt."""
    m = Maker(rng, Looks(rng, bank), 0.6)
    roles = ["paint", "brick", "stone", "wood", "cloth", "goods", "picture", "lawn", "ceramic", "metal", "leaf"]

    def any_material() -> Material:
        return m.looks.of(str(rng.choice(roles)))

    size = m.between(3, 6)
    for turn, _ in _SIDES:
        spot = Place((0, size * 0.6, 0), turn + m.between(-0.2, 0.2))
        m.mesh.panel(np.array([-size * 1.6, 0, -size]), np.array([size * 3.2, 0, 0]), np.array([0, size * 2, 0]),
                     any_material(), spot, away=np.array([0, size, -size * 2]))  # fmt: skip
    g.ground(m, 60.0, m.between(0.0, 0.5), any_material(), 1.0, cells=40)
    shapes = ("spray", "lattice", "pickets", "blob", "fronds", "mesh")
    for _ in range(m.count(25, 70)):
        at = Place((m.between(-1, 1) * size * 0.8, -m.between(0, 2.4), m.between(-0.9, 0.35) * size), m.between(0, 6.3))
        kind, r = rng.integers(5), m.between(0.08, 0.5)
        if kind == 0:
            m.mesh.box((r, m.between(0.05, 0.5), r * m.between(0.3, 1.5)), any_material(), at)
        elif kind == 1:
            m.mesh.ball((r, r * m.between(0.6, 1.4), r), any_material(), at, bumps=float(rng.choice([0.0, 0.1, 0.2])))
        elif kind == 2:
            c.vase(m, at.moved(size=m.between(1, 4)))
        elif kind == 3:
            m.mesh.card(2 * r, 3 * r, m.looks.cut(str(rng.choice(roles)), str(rng.choice(shapes))), at, bend=0.2)
        else:
            ends = rng.normal(0, 0.8, (2, 3))
            path = np.stack([ends[0], ends.mean(0) + rng.normal(0, 0.3, 3), ends[1]])
            m.mesh.tube(path, m.between(0.01, 0.08), any_material(), at)
    targets = [np.array([m.between(-0.8, 0.8), -m.between(0.5, 1.5), m.between(-1.5, 0)]) for _ in range(4)]
    stage = Stage(np.array([-1.5, -2.2, 0.3 * size]), np.array([1.5, -0.6, 0.8 * size]), targets, 1.5, 6.0)
    return _finish(m, stage, 3.5, size, size, m.looks.of("floor"))

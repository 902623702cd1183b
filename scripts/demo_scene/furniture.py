"""The things in the room. Each function gives (material, part) pairs standing at the origin, front towards -y."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from demo_scene.geometry import Part, ball, board, box, curve, grid, joined, lathe, quad, rounded_box, smoothed, tube

Things = list[tuple[str, Part]]
Rng = np.random.Generator
Rect = tuple[float, float, float, float]
"""A place in an atlas: u0, v0, u1, v1 in 0..1, v up."""


def place(things: Things, x: float = 0.0, y: float = 0.0, z: float = 0.0, turn: float = 0.0) -> Things:
    """The things turned about z by degrees and moved."""
    return [(name, part.turned("z", turn).moved(x, y, z)) for name, part in things]


def plank(low: Sequence[float], high: Sequence[float], grain: int, rng: Rng, chamfer: float = 0.004) -> Part:
    """A board cut from a random place of its wood texture."""
    return board(low, high, grain, chamfer=chamfer, offset=tuple(rng.random(2)))


def book(size: Sequence[float], spine: Rect, cover: Rect | None, rng: Rng) -> Things:
    """A book standing on z = 0, its spine towards -y, x in 0..thickness; size is thickness, depth, height."""
    t, d, h = size
    u0, v0, u1, v1 = spine
    arc = np.linspace(0, 1, 7)
    bow = 0.18 * t * (1 - (2 * arc - 1) ** 2)
    points = np.stack(
        [np.stack([arc * t, -bow, np.full(7, z)], -1) for z in (0.0, h)],
    )
    uvs = np.stack([np.stack([u0 + (u1 - u0) * arc, np.full(7, v)], -1) for v in (v0, v1)])
    back = grid(points.transpose(1, 0, 2), uvs.transpose(1, 0, 2))
    if back.normals[:, 1].mean() > 0:
        back = smoothed(replace(back, faces=back.faces[:, ::-1]))
    strip = u0 + 0.08 * (u1 - u0)
    plain = [(strip, v0), (strip, v0), (strip, v1), (strip, v1)]
    left = quad([(0, d, 0), (0, 0, 0), (0, 0, h), (0, d, h)], plain)
    right = quad([(t, 0, 0), (t, d, 0), (t, d, h), (t, 0, h)], plain)
    things: Things = [("books", back)]
    if cover is None:
        things += [("books", left), ("books", right)]
    else:
        c0, e0, c1, e1 = cover
        face = [(c0, e0), (c1, e0), (c1, e1), (c0, e1)]
        things += [("books", left), ("covers", replace(right, uvs=np.array(face, dtype=float)))]
    inset, rim = 0.004, 0.0035
    cut = rng.random()
    pages = board(
        (rim, 0.0, inset), (t - rim, d - inset, h - inset), grain=1, chamfer=0, tile=(0.25, 0.06), offset=(cut, cut)
    )
    thin = 0.0001
    lids = [board((0, 0, 0), (rim, d, h - thin), chamfer=0), board((t - rim, 0, 0), (t, d, h - thin), chamfer=0)]
    lids = [lid.with_uvs(np.tile([[strip, (v0 + v1) / 2]], (len(lid.uvs), 1))) for lid in lids]
    inner = [lid.moved(0.00005 if k == 0 else -0.00005) for k, lid in enumerate(lids)]
    return [*things, ("pages", pages), *(("books", lid) for lid in inner)]


def lying(things: Things, thickness: float, height: float) -> Things:
    """A standing book laid down on its left side: the right cover up, the spine towards -y, centred in x."""
    del thickness
    return [(name, part.turned("y", -90).moved(x=height / 2)) for name, part in things]


class Library:
    """Books handed out one by one: sizes that fit the spines of an atlas."""

    def __init__(self, spines: Sequence[tuple[Rect, float, float]], covers: Sequence[Rect], rng: Rng) -> None:
        self.spines, self.covers, self.rng, self.next = spines, covers, rng, 0

    def take(self, covered: bool = False) -> tuple[Things, float, float, float]:
        """A standing book and its thickness, depth and height in metres."""
        rect, thickness, height = self.spines[self.next % len(self.spines)]
        cover = self.covers[self.next % len(self.covers)] if covered else None
        self.next += 1
        depth = min(0.24, height * self.rng.uniform(0.66, 0.76))
        return book((thickness, depth, height), rect, cover, self.rng), thickness, depth, height

    def row(self, width: float, limit: float) -> Things:
        """Standing books side by side over `width` metres, none higher than `limit`, the last ones leaning."""
        things: Things = []
        x = 0.004
        while x < width - 0.03:
            part, thickness, _, height = self.take()
            if height > limit or x + thickness > width - 0.004:
                if width - x < 0.05:
                    break
                if height > limit:
                    continue
                break
            spare = width - x - thickness
            lean = self.rng.uniform(7, 13) if 0.045 < spare < 0.12 and self.rng.random() < 0.8 else 0.0
            if lean:
                part = [(n, p.moved(x=-thickness).turned("y", -lean).moved(x=thickness)) for n, p in part]
                x += height * np.sin(np.radians(lean)) * 0.98
            things += place(part, x=x, y=self.rng.uniform(0.0, 0.03))
            x += thickness + 0.0015
        return things

    def pile(self, count: int, spread: float = 8.0, covered: bool = True) -> tuple[Things, float]:
        """Books lying on each other, and the height of the pile."""
        things: Things = []
        z = 0.0
        for _ in range(count):
            part, thickness, depth, height = self.take(covered)
            flat = [(n, p.moved(y=-depth / 2)) for n, p in lying(part, thickness, height)]
            things += place(flat, z=z, turn=self.rng.uniform(-spread, spread))
            z += thickness
        return things, z


def vase(kind: int, scale: float, material: str) -> Things:
    """A turned vessel of one of four shapes, `scale` metres high."""
    shapes = [
        [
            (0, 0), (0.2, 0), (0.2, 0), (0.3, 0.15), (0.38, 0.4), (0.3, 0.7),
            (0.14, 0.85), (0.13, 0.95), (0.18, 1.0), (0.18, 1.0), (0.15, 1.0), (0.1, 0.9),
        ],
        [
            (0, 0), (0.25, 0), (0.25, 0), (0.34, 0.3), (0.3, 0.55), (0.12, 0.72),
            (0.1, 0.9), (0.14, 1.0), (0.14, 1.0), (0.12, 1.0), (0.08, 0.9),
        ],
        [
            (0, 0), (0.38, 0), (0.38, 0), (0.42, 0.5), (0.45, 1.0), (0.45, 1.0),
            (0.41, 1.0), (0.38, 0.2), (0.0, 0.2),
        ],
        [
            (0, 0), (0.18, 0), (0.18, 0), (0.42, 0.25), (0.48, 0.5), (0.42, 0.75),
            (0.25, 0.95), (0.25, 1.0), (0.25, 1.0), (0.22, 1.0), (0.2, 0.9),
        ],
    ]  # fmt: skip
    knots = shapes[kind]
    dense: list[tuple[float, float]] = []
    run: list[tuple[float, float]] = []
    for k, knot in enumerate(knots):
        run.append(knot)
        last = k == len(knots) - 1
        if last or knots[k + 1] == knot:
            if len(run) > 2:
                flat = curve([(r, 0, z) for r, z in run], 8 * len(run))
                run = [(max(0.0, float(r)), float(z)) for r, _, z in flat]
            dense += run
            run = []
    return [(material, lathe([(r * scale, z * scale) for r, z in dense], 48, (0.3, 0.3)))]


def bookshelf(width: float, height: float, depth: float, bays: int, shelves: int, library: Library, rng: Rng) -> Things:
    """A shelf full of books and ornaments; back at y = depth, x in 0..width."""
    wood = "walnut"
    things: Things = []
    side, base, thick = 0.028, 0.09, 0.024
    things.append((wood, plank((0, depth - 0.012, 0), (width, depth, height), 2, rng, 0.001)))
    edges = np.linspace(0, width, bays + 1)
    for k, x in enumerate(edges):
        left = min(max(x - side / 2, 0), width - side)
        del k
        things.append((wood, plank((left, 0, 0), (left + side, depth - 0.012, height), 2, rng)))
    things.append((wood, plank((-0.025, -0.03, height), (width + 0.025, depth, height + 0.035), 0, rng, 0.008)))
    things.append((wood, plank((-0.012, -0.015, height - 0.05), (width + 0.012, 0.0, height), 0, rng, 0.006)))
    things.append((wood, plank((-0.012, -0.014, 0), (width + 0.012, 0.004, base), 0, rng, 0.006)))
    levels = np.linspace(base, height - 0.05, shelves + 1)[:-1]
    pitch = levels[1] - levels[0]
    for bay in range(bays):
        left, right = edges[bay] + side / 2, edges[bay + 1] - side / 2
        if bay == 0:
            left = side
        if bay == bays - 1:
            right = width - side
        for level, z in enumerate(levels):
            things.append((wood, plank((left, 0.004, z - thick), (right, depth - 0.012, z), 0, rng)))
            things += place(
                _shelf_load(right - left, pitch - thick - 0.015, bay + level * bays, library, rng), left, 0.03, z
            )
    return things


def _shelf_load(width: float, limit: float, which: int, library: Library, rng: Rng) -> Things:
    kind = which % 7
    if kind in (0, 3):
        return library.row(width, limit)
    if kind in (1, 5):  # books and a lying pile with something on top
        part = width * rng.uniform(0.46, 0.54)
        things = library.row(part, limit)
        pile, top = library.pile(3, 4, covered=False)
        things += place(pile, part + (width - part) / 2 + 0.01, 0.1)
        pot = ("glaze_blue", "glaze_rust", "glaze_cream")[rng.integers(3)]
        return things + place(
            vase(int(rng.integers(4)), min(0.15, limit - top - 0.01), pot), part + (width - part) / 2, 0.11, top
        )
    if kind in (2, 6):  # a vase, then books
        room, shape = 0.19, int(rng.integers(4))
        pot = ("glaze_rust", "glaze_cream", "glaze_blue")[rng.integers(3)]
        things = place(vase(shape, min((0.21, 0.23, 0.16, 0.17)[shape], limit - 0.02), pot), 0.1, 0.11)
        return things + place(library.row(width - room, limit), x=room)
    things = library.row(width * 0.6, limit)  # books and a small framed picture
    frame = picture_frame(0.17, min(0.22, limit - 0.02), 0.02, f"art_{5 + which % 2}", "brass")
    tilted = [(n, p.turned("x", -9)) for n, p in frame]
    return things + place(tilted, width * 0.6 + (width * 0.4) / 2 + 0.01, 0.09, min(0.22, limit - 0.02) / 2 + 0.004)


def picture_frame(width: float, height: float, border: float, art: str, wood: str, mat: float = 0.0) -> Things:
    """A framed picture about the origin in the xz plane, facing -y."""
    w, h, b, d = width / 2, height / 2, border, 0.022
    rails = [
        board((-w, -d, h - b), (w, 0, h), 0, chamfer=0.006),
        board((-w, -d, -h), (w, 0, -h + b), 0, chamfer=0.006, offset=(0.3, 0.2)),
        board((-w, -d, -h + b), (-w + b, 0, h - b), 2, chamfer=0.006, offset=(0.6, 0.5)),
        board((w - b, -d, -h + b), (w, 0, h - b), 2, chamfer=0.006, offset=(0.1, 0.7)),
    ]
    iw, ih = w - b, h - b
    things: Things = [(wood, rail) for rail in rails]
    if mat:
        things.append(("paper", board((-iw, -0.008, -ih), (iw, -0.004, ih), chamfer=0, tile=(0.5, 0.5))))
        iw, ih = iw - mat, ih - mat
    y = -0.0085 if mat else -0.006
    return [*things, (art, quad([(-iw, y, -ih), (iw, y, -ih), (iw, y, ih), (-iw, y, ih)]))]


def armchair(rng: Rng) -> Things:
    """An upholstered chair facing -y, seat about 0.45 m high."""
    cloth, tile = "tweed", (0.5, 0.5)

    def puff(amount: float, half: Sequence[float], axis: int):
        a, b = (k for k in range(3) if k != axis)

        def bend(p: np.ndarray) -> np.ndarray:
            out = p.copy()
            dome = np.clip(1 - (p[:, a] / half[a]) ** 2, 0, 1) * np.clip(1 - (p[:, b] / half[b]) ** 2, 0, 1)
            out[:, axis] += np.sign(p[:, axis]) * amount * dome**0.7
            return out

        return bend

    base = rounded_box((0.62, 0.66, 0.2), 0.03, tile=tile).moved(0, 0.02, 0.25)
    seat = (
        rounded_box((0.56, 0.6, 0.15), 0.055, 6, tile).deformed(puff(0.025, (0.28, 0.3, 0.07), 2)).moved(0, -0.03, 0.41)
    )
    back = rounded_box((0.62, 0.17, 0.68), 0.07, 6, tile).turned("x", -10).moved(0, 0.33, 0.62)
    pad = rounded_box((0.53, 0.15, 0.46), 0.065, 6, tile).deformed(puff(0.03, (0.26, 0.07, 0.23), 1))
    pad = pad.turned("x", -11).moved(0, 0.21, 0.69)
    things: Things = [(cloth, part) for part in (base, seat, back, pad)]
    for side in (-1, 1):
        arm = rounded_box((0.14, 0.72, 0.44), 0.06, 6, tile).moved(side * 0.37, 0.0, 0.38)
        piping = tube(
            curve([(side * 0.37, -0.36, 0.2), (side * 0.37, -0.363, 0.5), (side * 0.37, -0.33, 0.595)], 12), 0.006
        )
        things += [(cloth, arm), ("leather", piping)]
        for y in (-0.28, 0.3):
            leg = lathe([(0.0, 0.0), (0.014, 0.0), (0.014, 0.0), (0.026, 0.17)], 20)
            things.append(("walnut", leg.moved(side * 0.33, y)))
    return things


def pillow(size: float, cloth: str) -> Things:
    """A square cushion about the origin in the xz plane."""
    part = rounded_box((size, 0.06, size), 0.028, 10, (size, size))

    def bend(p: np.ndarray) -> np.ndarray:
        x, z = 2 * p[:, 0] / size, 2 * p[:, 2] / size
        dome = np.clip(1 - x**4, 0, 1) * np.clip(1 - z**4, 0, 1)
        pinch = 1 - 0.1 * (np.abs(x) ** 2) * (1 - z**2) - 0.0
        waist = 1 - 0.1 * (np.abs(z) ** 2) * (1 - x**2)
        return np.stack([p[:, 0] * waist, np.sign(p[:, 1]) * (0.008 + 0.075 * dome**0.8), p[:, 2] * pinch], -1)

    return [(cloth, part.deformed(bend).with_uvs(part.positions[:, [0, 2]] / size + 0.5))]


def throw(width: float, rng: Rng) -> Things:
    """A blanket over an arm of the chair: lies on top along y and hangs down on both sides in x."""
    s = np.linspace(-1, 1, 60)
    t = np.linspace(0, 1, 30)
    ss, tt = np.meshgrid(s, t, indexing="ij")
    arm, radius, drop = 0.085, 0.05, 0.3
    reach = ss * (arm + drop)
    across = np.clip(reach, -arm, arm)
    down = np.maximum(np.abs(reach) - arm, 0)
    ripple = 0.012 * np.sin(9 * tt + 2.2 * ss) + 0.008 * np.sin(21 * tt - 3 * ss)
    x = (
        across
        + np.sign(ss) * np.minimum(down, radius) * 0.25
        + np.where(down > 0, np.sign(ss) * (0.004 + ripple * down / 0.15), 0)
    )
    z = 0.012 - 0.14 * across**2 / arm - down + 0.3 * ripple
    y = (tt - 0.5) * width * (1 - 0.08 * down) + 0.01 * np.sin(5 * ss)
    points = np.stack([x, y, z], -1)
    return [("throw", grid(points, np.stack([reach / 0.6, tt * width / 0.6], -1)))]


def desk(rng: Rng) -> Things:
    """A writing desk, x in -0.65..0.65, y in -0.3..0.3, top at 0.75."""
    wood = "oak"
    things: Things = [(wood, plank((-0.66, -0.31, 0.72), (0.66, 0.31, 0.75), 0, rng, 0.007))]
    things.append((wood, plank((-0.6, -0.27, 0.6), (0.6, -0.25, 0.72), 0, rng)))
    things.append((wood, plank((-0.6, 0.25, 0.45), (0.6, 0.27, 0.72), 0, rng)))
    for x in (-0.6, 0.58):
        things.append((wood, plank((x, -0.26, 0.6), (x + 0.02, 0.26, 0.72), 1, rng)))
    for k, x in enumerate((-0.29, 0.29)):
        things.append((wood, plank((x - 0.27, -0.282, 0.612), (x + 0.27, -0.268, 0.708), 0, rng, 0.006)))
        knob = lathe([(0.006, 0.0), (0.006, 0.015), (0.014, 0.022), (0.012, 0.032), (0.0, 0.034)], 16).turned("x", 90)
        things.append(("brass", knob.moved(x, -0.282, 0.66)))
        del k
    for x in (-0.6, 0.6):
        for y in (-0.25, 0.25):
            things.append(
                (wood, lathe([(0.0, 0.0), (0.014, 0.0), (0.014, 0.0), (0.02, 0.35), (0.028, 0.6)], 20).moved(x, y))
            )
    return things


def wooden_chair(rng: Rng) -> Things:
    """A spindle-back chair facing -y, seat 0.46 m high."""
    wood = "cherry"
    seat = rounded_box((0.43, 0.42, 0.035), 0.015, 5, (1.6, 0.8))

    def saddle(p: np.ndarray) -> np.ndarray:
        out = p.copy()
        out[:, 2] -= 0.012 * np.clip(1 - (p[:, 0] / 0.2) ** 2, 0, 1) * np.clip(1 - (p[:, 1] / 0.2) ** 2, 0, 1)
        out[:, 0] *= 1 - 0.12 * (p[:, 1] / 0.21)
        return out

    things: Things = [(wood, seat.deformed(saddle).moved(0, 0, 0.45))]
    for x in (-1, 1):
        for y in (-1, 1):
            path = np.linspace((x * 0.16, y * 0.15, 0.44), (x * 0.21, y * 0.2, 0.0), 6)
            things.append((wood, tube(path, np.array([0.016, 0.018, 0.02, 0.018, 0.014, 0.012]), 14, (0.1, 1.6))))
        rail = np.linspace((x * 0.19, -0.18, 0.2), (x * 0.19, 0.18, 0.2), 4)
        things.append((wood, tube(rail, 0.01, 12, (0.1, 1.6))))
    things.append((wood, tube(np.linspace((-0.19, 0, 0.2), (0.19, 0, 0.2), 4), 0.01, 12, (0.1, 1.6))))
    for k, x in enumerate(np.linspace(-0.17, 0.17, 7)):
        outer = k in (0, 6)
        path = curve([(x * 0.95, 0.18, 0.46), (x * 1.05, 0.21, 0.68), (x * 1.15, 0.27, 0.9)], 10)
        things.append((wood, tube(path, 0.013 if outer else 0.0085, 12, (0.1, 1.6))))
    s = np.linspace(-1, 1, 20)
    rows = []
    for dy, dz in ((-0.011, -0.045), (-0.011, 0.045), (0.011, 0.05), (0.011, -0.045), (-0.011, -0.045)):
        rows.append(np.stack([0.23 * s, 0.27 + dy + 0.03 * (1 - s**2), 0.92 + dz + 0.02 * (1 - s**2)], -1))
    crest = np.stack(rows)
    uvs = np.stack(np.broadcast_arrays(0.23 * s[None] / 1.6, np.array([0, 0.1, 0.12, 0.22, 0.24])[:, None] / 0.8), -1)
    parts = [grid(crest[k : k + 2], uvs[k : k + 2]) for k in range(4)]
    middle = np.stack([0.23 * s, 0.27 + 0.03 * (1 - s**2), 0.92 + 0.02 * (1 - s**2)], -1).mean(0)
    for part in parts:
        outward = np.sum(part.normals * (part.positions - middle)[:, [0, 1, 2]] * [0, 1, 1], 1).mean() > 0
        things.append((wood, part if outward else smoothed(replace(part, faces=part.faces[:, ::-1]))))
    return things


def coffee_table(radius: float, rng: Rng) -> Things:
    """A round table with three splayed legs and its top at 0.42."""
    turn = np.linspace(0, 2 * np.pi, 61)
    rim = [(0.0, 0.42), (radius - 0.006, 0.42)]
    top = lathe([rim[1], (radius, 0.412), (radius, 0.398), (radius - 0.02, 0.385), (0.0, 0.385)][::-1], 60, (1.6, 0.8))
    rings = np.linspace(0, radius - 0.006, 6)
    disc = np.stack([np.stack([r * np.cos(turn), r * np.sin(turn), np.full_like(turn, 0.42)], -1) for r in rings])
    face = grid(disc, disc[..., :2] / [1.6, 0.8] + 0.3)
    if face.normals[:, 2].mean() < 0:
        face = smoothed(replace(face, faces=face.faces[:, ::-1]))
    things: Things = [("walnut", top), ("walnut", face)]
    for k in range(3):
        angle = np.radians(90 + 120 * k)
        a = np.array([np.cos(angle), np.sin(angle), 0])
        path = np.linspace(a * radius * 0.5 + [0, 0, 0.39], a * radius * 0.85, 6)
        things.append(("walnut", tube(path, np.linspace(0.022, 0.013, 6), 14, (0.1, 1.6))))
    del rng
    return things


def mug(material: str) -> Things:
    """A mug 9 cm high with a handle."""
    body = lathe(
        [
            (0.0, 0.0),
            (0.033, 0.0),
            (0.04, 0.01),
            (0.041, 0.09),
            (0.041, 0.09),
            (0.037, 0.09),
            (0.036, 0.02),
            (0.0, 0.016),
        ],
        32,
        (0.3, 0.3),
    )
    loop = np.radians(np.linspace(-75, 75, 14))
    handle = tube(np.stack([0.036 + 0.028 * np.cos(loop), 0 * loop, 0.046 + 0.03 * np.sin(loop)], -1), 0.005, 10)
    drink = lathe([(0.0, 0.078), (0.0365, 0.078)], 24)
    return [(material, body), (material, handle), ("coffee", replace(drink, normals=np.abs(drink.normals)))]


def floor_lamp() -> Things:
    """A lamp with a fabric drum shade at 1.35 to 1.65 m."""
    stem = lathe(
        [(0.0, 0.0), (0.15, 0.0), (0.15, 0.018), (0.14, 0.026), (0.02, 0.032), (0.011, 0.06), (0.011, 1.42)], 36
    )
    shade = lathe([(0.22, 1.33), (0.165, 1.64)], 48, (2 * np.pi * 0.22 / 1.0, 0.32))
    rims = [
        tube(np.stack([r * np.cos(a), r * np.sin(a), np.full_like(a, z)], -1), 0.005, 8)
        for r, z in ((0.221, 1.33), (0.166, 1.64))
        for a in [np.linspace(0, 2 * np.pi, 50)]
    ]
    return [("brass", stem), ("shade", shade), *(("leather", rim) for rim in rims)]


def desk_lamp() -> Things:
    """A jointed reading lamp, its head over -y."""
    base = lathe([(0.0, 0.0), (0.085, 0.0), (0.085, 0.014), (0.07, 0.022), (0.0, 0.024)], 32)
    lower = tube(np.linspace((0, 0, 0.02), (0.0, 0.13, 0.3), 4), 0.007, 10)
    upper = tube(np.linspace((0.0, 0.13, 0.3), (0.03, -0.06, 0.5), 4), 0.007, 10)
    joint = ball(0.014, 10).moved(0, 0.13, 0.3)
    head = lathe(
        [
            (0.02, 0.11),
            (0.03, 0.1),
            (0.05, 0.05),
            (0.085, 0.0),
            (0.085, 0.0),
            (0.08, 0.002),
            (0.046, 0.05),
            (0.02, 0.09),
        ],
        32,
    )
    head = head.turned("x", 28).moved(0.03, -0.1, 0.43)
    return [("brass", base), ("brass", lower), ("brass", upper), ("brass", joint), ("enamel", head)]


def leaf(length: float, width: float, droop: float, fold: float, twist: float) -> Part:
    """A leaf growing from the origin along +x, its upper face towards +z, with waves along its edge."""
    t = np.linspace(0, 1, 13)
    s = np.linspace(-1, 1, 9)
    tt, ss = np.meshgrid(t, s, indexing="ij")
    half = width / 2 * np.sin(np.pi * np.clip(tt, 0.001, 0.999) ** 0.85) ** 0.75 * (0.72 + 0.42 * tt)
    angle = droop * tt
    run = np.cumsum(np.concatenate([[0], np.cos(angle[1:, 0])])) * length / 12
    fall = -np.cumsum(np.concatenate([[0], np.sin(angle[1:, 0])])) * length / 12
    y = half * ss * np.cos(fold)
    lift = (
        half * np.abs(ss) * np.sin(fold)
        + 0.02 * length * np.sin(7 * tt + 3 * ss) * np.abs(ss) ** 2
        + twist * half * ss * tt
    )
    points = np.stack([run[:, None] + lift * np.sin(angle), y, fall[:, None] + lift * np.cos(angle)], -1)
    part = grid(points, np.stack([(ss + 1) / 2, tt], -1))
    return part if part.normals[:, 2].mean() > 0 else smoothed(replace(part, faces=part.faces[:, ::-1]))


def fig_tree(height: float, count: int, rng: Rng) -> Things:
    """A fiddle-leaf fig in a basket: two stems with big leaves in a spiral."""
    things: Things = []
    basket = lathe(
        [
            (0.0, 0.0),
            (0.13, 0.0),
            (0.13, 0.0),
            (0.16, 0.08),
            (0.185, 0.18),
            (0.18, 0.28),
            (0.18, 0.28),
            (0.168, 0.28),
            (0.165, 0.22),
        ],
        48,
        (0.4, 0.4),
    )
    soil = lathe([(0.0, 0.24), (0.168, 0.235)], 24)
    things += [("basket", basket), ("soil", replace(soil, normals=np.abs(soil.normals)))]
    stems = [
        curve([(0.0, 0.0, 0.2), (0.03, 0.02, 0.55), (-0.02, 0.03, 0.9), (0.02, 0.0, height)], 40),
        curve([(0.03, 0.02, 0.2), (-0.06, -0.05, 0.45), (-0.13, -0.04, 0.7), (-0.14, -0.08, height * 0.8)], 40),
    ]
    leaves: dict[int, list[Part]] = {0: [], 1: []}
    for which, stem in enumerate(stems):
        things.append(("bark", tube(stem, np.linspace(0.014, 0.006, 40), 10)))
        number = count if which == 0 else int(count * 0.7)
        for k in range(number):
            f = k / (number - 1)
            at = stem[int((0.3 + 0.7 * f) * 39)]
            size = rng.uniform(0.2, 0.29) * (1 - 0.35 * f)
            blade = leaf(
                size,
                size * rng.uniform(0.56, 0.7),
                rng.uniform(0.5, 1.1),
                rng.uniform(0.1, 0.35),
                rng.uniform(-0.4, 0.4),
            )
            blade = (
                blade.moved(x=0.03)
                .turned("y", -rng.uniform(12, 40) - 35 * f)
                .turned("z", 137.5 * k + 60 * which + rng.uniform(-15, 15))
            )
            leaves[k % 2].append(blade.moved(*at))
    return [*things, ("leaf_dark", joined(leaves[0])), ("leaf_fresh", joined(leaves[1]))]


def trailing_plant(pot: str, vines: Sequence[Sequence[Sequence[float]]], rng: Rng) -> Things:
    """A small pot with hanging vines; each vine is a list of points from the pot's rim."""
    things = vase(2, 0.15, pot)
    soil = lathe([(0.0, 0.13), (0.06, 0.13)], 20)
    things.append(("soil", replace(soil, normals=np.abs(soil.normals))))
    leaves: dict[int, list[Part]] = {0: [], 1: []}
    for vine in vines:
        path = curve([(0, 0, 0.13), *vine], 40)
        things.append(("stalk", tube(path, 0.0028, 6)))
        for k in range(3, 40, 2):
            size = rng.uniform(0.05, 0.085)
            blade = leaf(size, size * 0.8, rng.uniform(0.4, 1.0), 0.25, 0.0)
            blade = blade.moved(x=0.012).turned("y", rng.uniform(-30, 50)).turned("z", rng.uniform(180, 360))
            leaves[k // 2 % 2].append(blade.moved(*path[k]))
    for k in range(14):
        size = rng.uniform(0.06, 0.1)
        blade = leaf(size, size * 0.8, 0.8, 0.25, 0.0).turned("y", -rng.uniform(10, 60)).turned("z", 137.5 * k)
        leaves[k % 2].append(blade.moved(0, 0, 0.13))
    return [*things, ("leaf_dark", joined(leaves[0])), ("leaf_pothos", joined(leaves[1]))]


def flowers(rng: Rng) -> Things:
    """A bunch of stems with many-petalled heads, standing in a vase 0.2 m high."""
    things: Things = []
    for k in range(9):
        angle, spread = 137.5 * k, rng.uniform(0.02, 0.11)
        tip = np.array([spread * np.cos(np.radians(angle)), spread * np.sin(np.radians(angle)), rng.uniform(0.3, 0.4)])
        stem = curve([(0, 0, 0.05), (0.1 * tip[0], 0.1 * tip[1], 0.2), tip], 12)
        things.append(("stalk", tube(stem, 0.0025, 6)))
        petals = []
        for ring, (n, size, rise) in enumerate(((9, 0.042, 10), (8, 0.036, 35), (6, 0.026, 60))):
            petals += [
                leaf(size, size * 0.55, 0.4, 0.3, 0.0).turned("y", -rise).turned("z", 360 / n * j + 20 * ring + 11 * k)
                for j in range(n)
            ]
        head = joined(petals).turned("x", -25 * tip[1] / 0.1).turned("y", 25 * tip[0] / 0.1).moved(*tip)
        things += [("petal_a" if k % 3 else "petal_b", head), ("pollen", ball(0.009, 8).moved(*(tip + [0, 0, 0.01])))]
        for j in range(2):
            blade = leaf(0.07, 0.028, 0.7, 0.2, 0.0).turned("y", -35).turned("z", angle + 180 * j + 40)
            things.append(("leaf_fresh", blade.moved(*stem[6 + 2 * j])))
    return things


def globe(radius: float) -> Things:
    """A terrestrial globe of another world on a foot."""
    foot = lathe(
        [(0.0, 0.0), (0.5, 0.0), (0.5, 0.06), (0.42, 0.12), (0.1, 0.16), (0.07, 0.3), (0.12, 0.4), (0.0, 0.42)], 32
    )
    foot = replace(foot, positions=foot.positions * radius)
    bow = np.radians(np.linspace(-100, 100, 40))
    arc = tube(np.stack([1.09 * radius * np.cos(bow), 0 * bow, 1.09 * radius * np.sin(bow)], -1), 0.05 * radius, 8)
    ball_ = ball(radius, 32, (2 * np.pi * radius, np.pi * radius)).turned("y", 20)
    return [
        ("walnut", foot),
        ("globe", ball_.moved(z=1.52 * radius)),
        ("brass", arc.turned("y", 20).moved(z=1.52 * radius)),
    ]


def curtain(width: float, height: float, folds: float, gather: float, rng: Rng) -> Things:
    """A hanging cloth in the yz plane, top at z = height, y in 0..width, folds towards x."""
    y = np.linspace(0, 1, 140)
    z = np.linspace(0, 1, 30)
    yy, zz = np.meshgrid(y, z, indexing="ij")
    phase = 2 * np.pi * folds * yy + 0.5 * np.sin(5 * yy + 2 * zz)
    x = 0.035 * np.sin(phase) * (0.75 + 0.35 * (1 - zz)) + 0.008 * np.sin(17 * yy + 3 * zz)
    pinch = 1 - gather * np.sin(np.pi * np.clip(zz * 1.05, 0, 1)) ** 2
    points = np.stack([x, yy * width * pinch, zz * height], -1)
    return [("curtain", grid(points, np.stack([yy * width * 1.7, zz * height], -1)))]


def pouf(radius: float, height: float) -> Things:
    """A round knitted seat."""
    a = np.linspace(0, np.pi / 2, 12)
    edge = 0.11
    low = [(radius - edge + edge * np.sin(t), edge - edge * np.cos(t)) for t in a]
    high = [(radius - edge + edge * np.cos(t), height - edge + edge * np.sin(t)) for t in a]
    dome = [(r, height + 0.025 * (1 - (r / (radius - edge)) ** 2)) for r in np.linspace(radius - edge, 0.0, 8)[1:]]
    return [("knit", lathe([(0.0, 0.0), *low, *high, *dome], 64, (0.5, 0.5)))]


def clock(radius: float) -> Things:
    """A wall clock facing -y about the origin."""
    rim = lathe(
        [
            (radius * 0.9, 0.0),
            (radius, 0.0),
            (radius * 1.06, 0.02),
            (radius, 0.04),
            (radius * 0.93, 0.036),
            (radius * 0.93, 0.015),
        ],
        48,
    )
    face = quad(
        [(-radius, -0.018, -radius), (radius, -0.018, -radius), (radius, -0.018, radius), (-radius, -0.018, radius)]
    )
    turn = np.linspace(0, 2 * np.pi, 49)
    rings = np.linspace(0, 0.95, 5)
    disc = np.stack(
        [
            np.stack([r * radius * np.sin(turn), np.full_like(turn, -0.018), r * radius * np.cos(turn)], -1)
            for r in rings
        ]
    )
    part = grid(disc, disc[..., [0, 2]] / (2 * radius) + 0.5)
    if part.normals[:, 1].mean() > 0:
        part = smoothed(replace(part, faces=part.faces[:, ::-1]))
    del face
    return [("brass", rim.turned("x", 90)), ("dial", part)]


def rug_with_fringe(width: float, depth: float, rng: Rng) -> Things:
    """A carpet 1.2 cm thick about the origin, with tassels at its short ends."""
    body = box((width, depth, 0.012), chamfer=0.004).moved(z=0.006)
    body = body.with_uvs(body.positions[:, :2] / [width, depth] + 0.5)
    tassels = []
    for end in (-1, 1):
        for y in np.linspace(-depth / 2 + 0.01, depth / 2 - 0.01, 90):
            x = end * width / 2
            tip = (x + end * rng.uniform(0.05, 0.07), y + rng.normal(0, 0.006), 0.003)
            tassels.append(tube(np.linspace((x, y, 0.007), tip, 3), np.array([0.004, 0.004, 0.006]), 5))
    return [("rug", body), ("fringe", joined(tassels))]

"""The study: which material each thing has, where it stands, and what lights it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from demo_scene import furniture as f
from demo_scene import textures as t
from demo_scene.furniture import Library, Rect, Things, place, plank
from demo_scene.geometry import Part, curve, joined, lathe, quad, tube, write_ply
from demo_scene.surface import Material, surface

LEFT, RIGHT, BACK, FRONT, CEILING = -2.2, 2.2, 2.0, -2.95, 2.6
RAIL = 0.88
WINDOW_Y, WINDOW_Z = (-0.45, 0.95), (0.95, 2.28)
SUN = (0.75, 0.4, -0.53)


def _rng(name: str) -> np.random.Generator:
    """A generator of its own for each thing, so that changing one leaves the others as they are."""
    return np.random.default_rng(list(name.encode()))


def _spine_atlas(rng: np.random.Generator) -> tuple[np.ndarray, list[tuple[Rect, float, float]]]:
    """A picture of many book spines at 1.6 pixels per millimetre, and each spine's place, thickness and height."""
    rows, row_height, width = 4, 448, 3072
    atlas = np.full((rows * row_height, width, 3), 0.2, dtype=np.float32)
    spines: list[tuple[Rect, float, float]] = []
    for row in range(rows):
        x = 0
        while True:
            thickness, height = rng.uniform(0.022, 0.058), rng.uniform(0.19, 0.275)
            w, h = int(thickness * 1600), int(height * 1600)
            if x + w > width:
                break
            bottom = (row + 1) * row_height
            atlas[bottom - h : bottom, x : x + w] = t.spine(h, w, rng)
            u0, u1 = (x + 0.5) / width, (x + w - 0.5) / width
            v0, v1 = 1 - (bottom - 0.5) / atlas.shape[0], 1 - (bottom - h + 0.5) / atlas.shape[0]
            spines.append(((u0, v0, u1, v1), thickness, height))
            x += w
    rng.shuffle(spines)
    return atlas, spines


def _cover_atlas(rng: np.random.Generator) -> tuple[np.ndarray, list[Rect]]:
    columns, rows, w, h = 4, 2, 320, 448
    atlas = np.zeros((rows * h, columns * w, 3), dtype=np.float32)
    places: list[Rect] = []
    for row in range(rows):
        for column in range(columns):
            atlas[row * h : (row + 1) * h, column * w : (column + 1) * w] = t.cover(h, w, rng)
            places.append((column / columns, 1 - (row + 1) / rows, (column + 1) / columns, 1 - row / rows))
    return atlas, places


def _dial(size: int, rng: np.random.Generator) -> np.ndarray:
    """The face of a clock at ten past ten."""
    out = t.worn(np.broadcast_to(t.hex_colour("efe4cb"), (size, size, 3)).astype(np.float32), 0.04, rng)
    y, x = np.mgrid[0:size, 0:size] / (size - 1) * 2 - 1
    r, angle = np.hypot(x, y), np.arctan2(x, -y) % (2 * np.pi)
    ink = t.hex_colour("2a211b")
    hour = np.abs((angle / (np.pi / 6) + 0.5) % 1 - 0.5)
    minute = np.abs((angle / (np.pi / 30) + 0.5) % 1 - 0.5)
    out = t.lay(out, (hour < 0.08) & (r > 0.6) & (r < 0.82), ink)
    out = t.lay(out, (minute < 0.14) & (r > 0.84) & (r < 0.88), ink)
    for length, half, turn in ((0.45, 0.035, 10.2), (0.7, 0.025, 2.0)):
        a = turn * np.pi / 6
        u, v = x * np.sin(a) - y * np.cos(a), x * np.cos(a) + y * np.sin(a)
        out = t.lay(out, (u > -0.12) & (u < length) & (np.abs(v) < half), ink)
    return out


def _globe(rng: np.random.Generator) -> np.ndarray:
    """Lands and seas with a graticule."""
    h, w = 512, 1024
    land = t.noise(h, w, 160, rng, 2.4)
    out = np.where(
        land[..., None] > 0.25,
        t.ramp(np.clip(land / 2.5, 0, 1), t.palette("8f9a5a c8b070 a87b48 efe6d0")),
        t.ramp(np.clip(0.5 + land / 3, 0, 1), t.palette("24506b 3f7c94 7fb0b8")),
    ).astype(np.float32)
    out = t.lay(out, np.abs(land - 0.25) < 0.04, t.hex_colour("4a3a28"))
    y, x = np.mgrid[0:h, 0:w]
    return t.lay(out, 0.5 * ((x % 85 < 3) | (y % 85 < 3)), t.hex_colour("4a3a28"))


def _wallpaper(width: int, rng: np.random.Generator) -> np.ndarray:
    """What the walls are papered with."""
    leaves, blooms = "8fb88a b3cf98 6f9f80 d0d9a0 80b3a4", "e8a284 f2d8b0 d9786c f7ebd0 e8c46a"
    return t.botanical(1340, width, "3f6b66", leaves, blooms, 140, rng)


def _surfaces() -> dict[str, np.ndarray]:
    """The textures of the building and of furniture wood."""
    r = _rng
    return {
        "floor": t.herringbone(2970, 2640, 50, r("floor")),
        "wallpaper": _wallpaper(3400, r("wallpaper")),
        "wallpaper_left": _wallpaper(3800, r("wallpaper_left")),
        "wainscot": t.planks(700, 3500, 42, t.palette("4b4434 7d7458 a89d79 c3b992 d8d0ae"), r("wainscot")),
        "brick": t.brickwork(1664, 3168, (48, 144), r("brick")),
        "ceiling": t.planks(1600, 1600, 22, t.palette("8f8674 b8af9a d6cdb8 e5decb"), r("ceiling")),
        "trim": t.wood(1024, 2048, t.palette("7d7056 b3a78a d3c9ae e3dbc4"), r("trim"), 16),
        "walnut": t.wood(1024, 2048, t.WALNUT, r("walnut"), 18),
        "oak": t.wood(1024, 2048, t.OAK, r("oak"), 18),
        "cherry": t.wood(1024, 2048, t.CHERRY, r("cherry"), 18),
        "garden": t.garden(1100, 1500, r("garden")),
    }


def _cloths() -> dict[str, np.ndarray]:
    """The textures of cloth and wickerwork."""
    r = _rng
    tweed_a = t.stripes("b8862f d2a548 8f5f22 d9b566 6f4a1e", [14, 10, 2, 10, 3])
    tweed_b = t.stripes("a87526 c89a40 7a4f1f e0c078 5f4420", [12, 9, 3, 10, 4])
    linen_a = t.stripes("cfc2a4 e0d6bd b9a883 e4dbc6 6f8a86 ded3b8 6f8a86 d9ceb4", [16, 20, 3, 18, 4, 6, 4, 16])
    linen_b = t.stripes("d3c7ab e3dac3 c4b693", [9, 12, 6])
    plaid_a = t.stripes("7a2f2b e4d8bf 24344f b04a3a", [22, 6, 14, 8])
    plaid_b = t.stripes("7a2f2b e4d8bf 24344f b04a3a", [20, 6, 16, 8])
    silk_a, silk_b = t.stripes("f2dfb6 e8cf9c f7e9c8", [5, 3, 6]), t.stripes("f0dcb0 e2c68f", [6, 4])
    return {
        "rug": t.rug(1140, 1710, r("rug")),
        "tweed": t.woven(780, 780, tweed_a, tweed_b, 4, r("tweed")),
        "curtain": t.woven(1566, 783, linen_a, linen_b, 3, r("curtain")),
        "throw": t.woven(640, 640, plaid_a, plaid_b, 4, r("throw")),
        "shade": t.woven(384, 1100, silk_a, silk_b, 3, r("shade")),
        "cushion_a": t.rug(402, 402, r("cushion_a"), 2),
        "cushion_b": t.botanical(400, 400, "e6d9bd", "4f7a58 2f5f55 7f9a5a", "b5473a d98e4f", 110, r("cushion_b")),
        "knit": t.knitted(512, 512, t.palette("c9b48f e0d0af a3552f 3f5f63"), 22, r("knit")),
        "basket": t.basketry(512, 512, 26, r("basket")),
    }


def _small_things() -> dict[str, np.ndarray]:
    """The textures of pots, plants and odds and ends."""
    r = _rng
    cream = t.mottled(256, 256, 40, t.palette("b9a680 e2d6b8 f3ecd8"), r("glaze_cream"))
    return {
        "marble": t.marble(512, 512, t.palette("4a5450 9aa6a0 dfe3dc f2f2ec"), r("marble")),
        "glaze_blue": t.glaze(320, 320, t.palette("12304f 2f6a8f 8fb9c4 e0e6da"), r("glaze_blue")),
        "glaze_rust": t.glaze(320, 320, t.palette("4a1e14 9a4526 cf7f45 e8c48f"), r("glaze_rust")),
        "glaze_cream": t.lay(cream, t.noise(256, 256, 9, r("speck"), 2) > 1.5, t.hex_colour("5a4630")),
        "leaf_dark": t.leaf_blade(384, 256, t.palette("143018 24512a 3a7038 5c8f48"), r("leaf_dark")),
        "leaf_fresh": t.leaf_blade(384, 256, t.palette("234f1f 3f7a2e 62a042 93bf5c"), r("leaf_fresh")),
        "leaf_pothos": t.leaf_blade(256, 192, t.palette("2f6a2c 4f9040 8fbf58 dfe8a0"), r("leaf_pothos"), "e6eec0"),
        "petal_a": t.leaf_blade(96, 64, t.palette("b5473a d9705a f0a080"), r("petal_a"), "f4c8a0"),
        "petal_b": t.leaf_blade(96, 64, t.palette("d9a83f efd080 f8ecc0"), r("petal_b"), "fff4d0"),
        "bark": t.wood(256, 512, t.palette("3a2b1c 6d5238 94785a"), r("bark"), 5),
        "soil": t.mottled(256, 256, 6, t.palette("1c130d 3f2e20 6a513a"), r("soil")),
        "leather": t.mottled(256, 256, 8, t.palette("2f1c12 5a3822 7d5433"), r("leather")),
        "pages": t.mottled(128, 256, (1, 90), t.palette("a8976f d9cba6 efe6cc"), r("pages")),
        "paper": t.mottled(256, 256, 60, t.palette("d9cfb8 e9e0cb f2ebda"), r("paper")),
        "dial": _dial(384, r("dial")),
        "globe": _globe(r("globe")),
    }


def _art() -> dict[str, np.ndarray]:
    """Paintings and prints."""
    r = _rng
    return {
        "print_a": t.page(640, 448, r("print_a")),
        "print_b": t.page(640, 448, r("print_b")),
        "art_0": t.landscape(600, 840, "f3c98b e8a07a b5838d 6d6a8a 4a5578 31405e 22304a 162338", r("art_0")),
        "art_1": t.abstract(720, 520, "ece0c8 c0532f 24405f d9a441 7f9a8a 2b2420", r("art_1")),
        "art_2": t.specimen(640, 460, r("art_2"), "3f6a45 5f8a55 2f5a4a", "b8453a"),
        "art_3": t.specimen(640, 460, r("art_3"), "6a7f3f 4f6f4a 8f9a5a", "c88a2f"),
        "art_4": t.landscape(620, 620, "bcd5df dfe6da f1e6c4 8fb0a8 5f8f8a 3f6f5f d9c38a 8a6a45", r("art_4")),
        "art_5": t.abstract(400, 320, "24344f e8c170 d0603f efe3c8 6f9a9f", r("art_5"), 10),
        "art_6": t.landscape(400, 320, "e9b27a d98a6a a85a5a 5a3a4f 3a2a44 241c33", r("art_6")),
        "art_7": t.abstract(900, 640, "d9cdb0 3f6f6a a8452f e0b050 1f2f3f efe6d0 7f5a3f", r("art_7"), 22),
        "art_8": t.landscape(480, 620, "f0dcae e6b98a c9897a 7d6f7a 5a6a5f 48583a 2f3f2a", r("art_8")),
    }


ROUGHNESS = {
    **dict.fromkeys(("glaze_blue", "glaze_rust", "coffee"), 0.3),
    **dict.fromkeys(("glaze_cream", "marble", "globe", "brass", "enamel"), 0.35),
    **dict.fromkeys(("floor", "cherry"), 0.4),
    **dict.fromkeys(("walnut", "oak", "leaf_dark", "leaf_fresh", "leaf_pothos", "leather"), 0.45),
    **{"covers": 0.5, "books": 0.6, "trim": 0.6},
}
"""Of the varnished, glazed or waxy materials; the others are matt."""

PLAIN = {
    "stalk": "4f7a35",
    "pollen": "8a5a1a",
    "coffee": "2a160b",
    "fringe": "ddd0b0",
    "plaster": "cfc4ae",
    "enamel": "1f5a4a",
    "brass": "dcb060",
}
"""Small things of one colour."""


def _materials(pictures: dict[str, np.ndarray], names: list[str]) -> list[Material]:
    """The named materials."""
    plain = {name: np.broadcast_to(t.hex_colour(code), (1, 1, 3)) for name, code in PLAIN.items()}
    both = pictures | plain
    return [Material(both[name], ROUGHNESS.get(name, 0.85), name == "brass") for name in names]


def _wall(
    y: tuple[float, float], z: tuple[float, float], x: float, origin: float, size: tuple[float, float], base: float
) -> Part:
    """A piece of a wall across x, its texture laid over the whole wall from (origin, base)."""
    uvs = [
        ((a - origin) / size[0], (b - base) / size[1])
        for a, b in ((y[0], z[0]), (y[1], z[0]), (y[1], z[1]), (y[0], z[1]))
    ]
    part = quad([(x, y[0], z[0]), (x, y[1], z[0]), (x, y[1], z[1]), (x, y[0], z[1])], uvs)
    return part


def _shell() -> Things:
    """Floor, walls, window frame, mouldings and ceiling."""
    rng, length = _rng("shell"), BACK - FRONT
    back = BACK - 0.008  # the panelling stands in front of the wall

    def across(y: float, low: float, high: float) -> Part:
        return quad([(LEFT, y, low), (RIGHT, y, low), (RIGHT, y, high), (LEFT, y, high)])

    floor = [(LEFT, FRONT, 0.0), (RIGHT, FRONT, 0.0), (RIGHT, BACK, 0.0), (LEFT, BACK, 0.0)]
    things: Things = [
        ("floor", quad(floor)),
        ("ceiling", quad([(x, y, CEILING) for x, y, _ in floor[::-1]])),
        ("wallpaper", across(BACK, RAIL, CEILING)),
        ("wainscot", across(back, 0, RAIL)),
        ("brick", quad([(RIGHT, y, z) for y, z in ((BACK, 0), (FRONT, 0), (FRONT, CEILING), (BACK, CEILING))])),
        ("plaster", across(FRONT, 0, CEILING)),
    ]
    low, high = WINDOW_Z
    near, far = WINDOW_Y
    size = (length, CEILING - RAIL)
    for y, z in (
        ((FRONT, near), (RAIL, CEILING)),
        ((far, BACK), (RAIL, CEILING)),
        ((near, far), (RAIL, low)),
        ((near, far), (high, CEILING)),
    ):
        things.append(("wallpaper_left", _wall(y, z, LEFT, FRONT, size, RAIL)))
    things.append(("wainscot", _wall((FRONT, BACK), (0, RAIL), LEFT + 0.008, FRONT + 0.7, (4.4, RAIL), 0)))
    trim = "trim"
    things += [
        (trim, plank((LEFT, BACK - 0.04, RAIL - 0.02), (RIGHT, BACK, RAIL + 0.03), 0, rng, 0.008)),
        (trim, plank((LEFT, FRONT, RAIL - 0.02), (LEFT + 0.04, BACK, RAIL + 0.03), 1, rng, 0.008)),
        (trim, plank((LEFT, BACK - 0.022, 0), (RIGHT, BACK, 0.13), 0, rng, 0.006)),
        (trim, plank((LEFT, FRONT, 0), (LEFT + 0.022, BACK, 0.13), 1, rng, 0.006)),
        (trim, plank((RIGHT - 0.022, FRONT, 0), (RIGHT, BACK, 0.13), 1, rng, 0.006)),
        (trim, plank((LEFT, BACK - 0.05, CEILING - 0.08), (RIGHT, BACK, CEILING), 0, rng, 0.02)),
        (trim, plank((LEFT, FRONT, CEILING - 0.08), (LEFT + 0.05, BACK, CEILING), 1, rng, 0.02)),
    ]
    deep = LEFT - 0.18
    things += [  # the reveal, the casing and the sill
        (trim, plank((deep, near - 0.03, low - 0.03), (LEFT, near, high + 0.03), 2, rng, 0.001)),
        (trim, plank((deep, far, low - 0.03), (LEFT, far + 0.03, high + 0.03), 2, rng, 0.001)),
        (trim, plank((deep, near, high), (LEFT, far, high + 0.03), 1, rng, 0.001)),
        (trim, plank((deep, near - 0.1, low - 0.035), (LEFT + 0.1, far + 0.1, low), 1, rng, 0.008)),
        (trim, plank((LEFT, near - 0.09, low), (LEFT + 0.025, near, high + 0.09), 2, rng, 0.006)),
        (trim, plank((LEFT, far, low), (LEFT + 0.025, far + 0.09, high + 0.09), 2, rng, 0.006)),
        (trim, plank((LEFT, near, high), (LEFT + 0.025, far, high + 0.09), 1, rng, 0.006)),
    ]
    middle, x = (near + far) / 2, deep + 0.03
    for y0, y1 in ((near, middle), (middle, far)):
        for z0, z1 in ((low, low + 0.055), (high - 0.055, high), (low + 0.86, low + 0.89)):
            things.append((trim, plank((x, y0, z0), (x + 0.04, y1, z1), 1, rng, 0.006)))
        for a in (y0, y1 - 0.045):
            things.append((trim, plank((x + 0.001, a, low), (x + 0.041, a + 0.045, high), 2, rng, 0.006)))
    return things


def _window_dressing() -> Things:
    """Curtains on a rod, and pots on the sill."""
    rng = _rng("window")
    x = LEFT + 0.1
    rod = tube(np.array([(x, -1.0, 2.44), (x, 0.2, 2.44), (x, 1.5, 2.44)]), 0.012, 12)
    things: Things = [("brass", rod)]
    things += place(f.curtain(0.48, 2.34, 5, 0.12, rng), x, -0.92, 0.09)
    things += place(f.curtain(0.46, 2.34, 5, 0.1, rng), x, 0.98, 0.09)
    sill = WINDOW_Z[0]
    vines = [
        [(0.1, 0.02, 0.12), (0.16, 0.05, -0.1), (0.15, 0.03, -0.34)],
        [(0.06, -0.08, 0.14), (0.13, -0.14, -0.04), (0.14, -0.12, -0.2)],
    ]
    things += place(f.trailing_plant("glaze_blue", vines, rng), LEFT + 0.0, 0.6, sill)
    things += place(f.vase(0, 0.2, "glaze_cream"), LEFT - 0.04, 0.32, sill)
    return things


def _back_wall(library: Library) -> Things:
    """The bookshelf, the desk with its chair, and the pictures."""
    rng = _rng("back")
    things = place(f.bookshelf(1.8, 2.0, 0.3, 3, 6, library, rng), -1.3, BACK - 0.31)
    vines = [
        [(-0.08, -0.1, 0.15), (-0.12, -0.2, -0.05), (-0.14, -0.19, -0.35), (-0.12, -0.2, -0.62)],
        [(0.05, -0.12, 0.16), (0.08, -0.2, -0.04), (0.1, -0.19, -0.3), (0.14, -0.2, -0.44)],
        [(0.12, -0.08, 0.16), (0.2, -0.17, 0.04), (0.3, -0.19, -0.12), (0.33, -0.19, -0.26)],
    ]
    things += place(f.trailing_plant("glaze_rust", vines, rng), 0.1, BACK - 0.16, 2.035)
    things += place(f.globe(0.13), -0.95, BACK - 0.17, 2.035)
    pile, top = library.pile(4, 6)
    things += place(pile, -0.45, BACK - 0.16, 2.035)
    things += place(f.vase(1, 0.17, "glaze_cream"), -0.45, BACK - 0.16, 2.035 + top)

    things += place(f.desk(rng), 1.4, BACK - 0.33)
    on = 0.751
    things += place(f.desk_lamp(), 0.93, BACK - 0.25, on, turn=-20)
    things += place(library.row(0.36, 0.3), 1.64, BACK - 0.26, on)
    things += place(f.vase(3, 0.2, "glaze_blue"), 1.52, BACK - 0.2, on)
    for name, x, y, turn in (("print_a", 1.2, 1.56, 12), ("print_b", 1.42, 1.52, -9)):
        sheet = quad([(-0.105, -0.15, 0), (0.105, -0.15, 0), (0.105, 0.15, 0), (-0.105, 0.15, 0)])
        things += place([(name, sheet)], x, y, on + (0.001 if name == "print_a" else 0.002), turn)
    pile, top = library.pile(2, 12)
    things += place(pile, 1.75, 1.52, on, 10)
    things += place(f.mug("glaze_rust"), 1.05, 1.5, on, 40)
    things += place(f.mug("glaze_cream"), 1.75, 1.52, on + top, 130)
    things += place(f.wooden_chair(rng), 1.28, 1.13, turn=205)

    frame, y = f.picture_frame, BACK - 0.002
    things += place(frame(0.86, 0.64, 0.045, "art_0", "walnut"), 1.33, y, 1.72)
    things += place(frame(0.34, 0.46, 0.025, "art_2", "brass", 0.03), 1.98, y, 1.9)
    things += place(frame(0.32, 0.4, 0.025, "art_6", "cherry", 0.02), 1.97, y, 1.42)
    things += place(frame(0.5, 0.68, 0.035, "art_1", "oak", 0.04), -1.75, y, 1.62)
    return things


def _right_wall(library: Library) -> Things:
    """Pictures, a clock and a small shelf on the bricks."""
    rng = _rng("right")
    things = place(f.picture_frame(0.66, 0.92, 0.04, "art_7", "walnut", 0.05), RIGHT - 0.004, 1.3, 1.75, -90)
    things += place(f.picture_frame(0.44, 0.58, 0.03, "art_3", "oak", 0.04), RIGHT - 0.004, 0.55, 1.98, -90)
    things += place(f.clock(0.16), RIGHT - 0.004, 0.62, 1.45, -90)
    ledge = plank((RIGHT - 0.2, 0.2, 1.06), (RIGHT, 1.55, 1.09), 1, rng)
    things.append(("oak", ledge))
    for y in (0.35, 1.4):
        things.append(("brass", tube(np.array([(RIGHT - 0.17, y, 1.06), (RIGHT - 0.01, y, 0.9)]), 0.008, 8)))
    things += place(library.row(0.4, 0.28), RIGHT - 0.19, 1.5, 1.09, -90)
    things += place(f.vase(0, 0.24, "glaze_rust"), RIGHT - 0.1, 0.98, 1.09)
    vines = [
        [(-0.08, 0.05, 0.14), (-0.13, 0.1, -0.1), (-0.11, 0.12, -0.4)],
        [(-0.1, -0.06, 0.15), (-0.14, -0.1, -0.1), (-0.12, -0.12, -0.3)],
    ]
    things += place(f.trailing_plant("glaze_cream", vines, rng), RIGHT - 0.1, 0.72, 1.09)
    return things


def _middle(library: Library) -> Things:
    """Rug, armchair, lamp, table, pouf and tree."""
    rng = _rng("middle")
    things = place(f.rug_with_fringe(2.5, 1.66, rng), -0.02, 0.2, 0.0, 3)
    chair = f.armchair(rng)
    chair += [(n, p.turned("x", -16).turned("y", 7).moved(0.02, 0.02, 0.68)) for n, p in f.pillow(0.4, "cushion_a")]
    chair += [(n, p.moved(-0.37, 0.02, 0.6)) for n, p in f.throw(0.42, rng)]
    things += place(chair, -1.0, 0.68, 0.0, 28)
    things += place(f.floor_lamp(), -1.72, 1.52)
    x, y, top = 0.1, 0.3, 0.42
    things += place(f.coffee_table(0.38, rng), x, y)
    pile, height = library.pile(3, 14)
    things += place(pile, x - 0.13, y - 0.06, top, 24)
    things += place(f.mug("glaze_blue"), x + 0.17, y - 0.17, top, -30)
    things += place(f.vase(3, 0.17, "marble"), x + 0.12, y + 0.12, top)
    things += place(f.flowers(rng), x + 0.12, y + 0.12, top + 0.06)
    del height
    things += place(f.pouf(0.27, 0.36), 0.72, -0.28, 0.0)
    things += [(n, p.turned("x", 74).moved(0.72, -0.28, 0.46)) for n, p in f.pillow(0.36, "cushion_b")]
    things += place(f.fig_tree(1.25, 22, rng), 1.38, 0.22, 0.0, 20)
    pile, height = library.pile(5, 10)
    things += place(pile, -0.32, 1.42, 0.0, -14)
    things += place(f.mug("glaze_rust"), -0.32, 1.42, height, 200)
    basket = lathe(
        [(0.0, 0.0), (0.17, 0.0), (0.17, 0.0), (0.2, 0.14), (0.19, 0.3), (0.19, 0.3), (0.18, 0.3), (0.17, 0.05)],
        40,
        (0.4, 0.4),
    )
    rolls = [
        tube(curve([(-0.05 + 0.09 * k, -0.02, 0.1), (-0.03 + 0.08 * k, 0.02, 0.44)], 8), 0.055, 18, (0.3, 0.5))
        for k in range(2)
    ]
    things += place([("basket", basket), *(("throw", roll) for roll in rolls)], 0.62, 1.66)
    return things


def build(mi: Any, folder: Path) -> dict[str, Any]:
    """The scene without sensor and integrator; meshes are written to `folder` as PLY files."""
    pictures = _surfaces() | _cloths() | _small_things() | _art()
    pictures["books"], spines = _spine_atlas(_rng("spines"))
    pictures["covers"], covers = _cover_atlas(_rng("covers"))
    library = Library(spines, covers, _rng("library"))
    things = [*_shell(), *_window_dressing(), *_back_wall(library), *_right_wall(library), *_middle(library)]
    shade = [part for name, part in things if name == "shade"]
    things = [(name, part) for name, part in things if name != "shade"]
    names = sorted({name for name, _ in things})
    write_ply(folder / "things.ply", joined([part for _, part in things]))
    of_face = np.concatenate([np.full(len(part.faces), names.index(name)) for name, part in things])
    look = surface(mi, _materials(pictures, names), of_face)
    scene = {"type": "scene", "things": {"type": "ply", "filename": str(folder / "things.ply"), "bsdf": look}}
    return scene | _lights(mi, pictures, joined(shade), folder)


def _radiance(mi: Any, linear: np.ndarray) -> dict[str, Any]:
    """An emission texture from linear values, first row up."""
    pixels = np.ascontiguousarray(np.flipud(linear), dtype=np.float32)
    return {"type": "area", "radiance": {"type": "bitmap", "bitmap": mi.Bitmap(pixels), "raw": True}}


def _lights(mi: Any, pictures: dict[str, np.ndarray], shade: Part, folder: Path) -> dict[str, Any]:
    """The sun, the garden outside, the lamp, and wide soft lights behind the camera and under the ceiling."""
    view = quad([(-4.6, -0.1, -1.4), (-4.6, 7.2, -1.4), (-4.6, 7.2, 4.4), (-4.6, -0.1, 4.4)])
    y, z = FRONT + 0.02, CEILING - 0.02
    behind = quad([(1.9, y, 0.6), (-1.9, y, 0.6), (-1.9, y, 2.4), (1.9, y, 2.4)])
    above = quad([(-1.5, 0.9, z), (1.5, 0.9, z), (1.5, -1.5, z), (-1.5, -1.5, z)])
    meshes = {"view": view, "fill": joined([behind, above]), "shade": shade}
    cloth = pictures["shade"] ** 2.2
    up = np.linspace(-1, 1, cloth.shape[0])[:, None, None]
    glow = cloth * [1.0, 0.68, 0.36] * (2.6 - 1.4 * up**2)
    emitters = {
        "view": _radiance(mi, 6.0 * pictures["garden"] ** 2.2),
        "fill": {"type": "area", "radiance": {"type": "rgb", "value": [1.35, 1.33, 1.3]}},
        "shade": _radiance(mi, glow),
    }
    out: dict[str, Any] = {"sun": {"type": "directional", "direction": list(SUN)}}
    out["sun"]["irradiance"] = {"type": "rgb", "value": [14.0, 11.6, 8.6]}
    for name, part in meshes.items():
        write_ply(folder / f"{name}.ply", part)
        colour = [0.6, 0.5, 0.36] if name == "shade" else 0.0
        look = {"type": "diffuse", "reflectance": {"type": "rgb", "value": colour}}
        out[name] = {"type": "ply", "filename": str(folder / f"{name}.ply"), "bsdf": look, "emitter": emitters[name]}
    return out

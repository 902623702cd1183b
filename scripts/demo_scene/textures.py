"""Textures made of noise and shapes. A picture is float32 [h, w, 3] in 0..1, sRGB, first row at the top."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from demo_scene.lettering import text_mask, title

Colour = Sequence[float] | np.ndarray
Rng = np.random.Generator


def hex_colour(code: str) -> np.ndarray:
    """ "b5651d" -> float32 [3]."""
    return np.array([int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)], dtype=np.float32)


def palette(codes: str) -> np.ndarray:
    """Colours [n, 3] from hex codes separated by spaces."""
    return np.stack([hex_colour(code) for code in codes.split()])


def noise(height: int, width: int, length: float | tuple[float, float], rng: Rng, power: float = 3.0) -> np.ndarray:
    """Tileable noise [h, w], mean 0 and deviation 1; length is the size of its largest features in pixels (y, x)."""
    ly, lx = (length, length) if isinstance(length, int | float) else length
    white = np.fft.rfft2(rng.standard_normal((height, width), dtype=np.float32))
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    field = np.fft.irfft2(white * (1 + (fy * ly) ** 2 + (fx * lx) ** 2) ** (-power / 2), (height, width))
    return ((field - field.mean()) / field.std()).astype(np.float32)


def ramp(field: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Colours [n, 3] spread evenly over 0..1 and looked up at field [h, w]."""
    at = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(field, at, colours[:, k]) for k in range(3)], -1).astype(np.float32)


def lay(under: np.ndarray, mask: np.ndarray, over: Colour) -> np.ndarray:
    """`over` where mask [h, w] is 1."""
    return under + (np.asarray(over, dtype=np.float32) - under) * np.clip(mask, 0, 1)[..., None].astype(np.float32)


def mottled(height: int, width: int, length: float | tuple[float, float], colours: np.ndarray, rng: Rng) -> np.ndarray:
    """Colours [n, 3] mixed by noise of one size."""
    return ramp(np.clip(0.55 + 0.25 * noise(height, width, length, rng, 2.5), 0, 1), colours)


def worn(picture: np.ndarray, amount: float, rng: Rng) -> np.ndarray:
    """The picture with light and dark blotches of three sizes."""
    h, w = picture.shape[:2]
    blotches = sum(noise(h, w, max(h, w) * size, rng) for size in (0.3, 0.06, 0.012))
    return np.clip(picture * np.exp(amount * blotches)[..., None], 0, 1).astype(np.float32)


def scatter(height: int, width: int, spacing: float, rng: Rng) -> np.ndarray:
    """Jittered grid points [n, 2] (x, y) in pixels, rows shifted by half."""
    rows, columns = int(height / spacing) + 2, int(width / spacing) + 2
    points = [
        ((c + 0.5 * (r % 2)) * spacing, r * spacing) for r in range(-1, rows) for c in range(-1, columns)
    ]  # fmt: skip
    return np.array(points) + rng.uniform(-0.28, 0.28, (len(points), 2)) * spacing


def wood(height: int, width: int, colours: np.ndarray, rng: Rng, rings: float = 14) -> np.ndarray:
    """Plain-sawn wood with the grain along x."""
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    warp = noise(height, width, (height * 0.25, width * 0.9), rng)
    ripple = noise(height, width, (height * 0.03, width * 0.2), rng)
    phase = y * rings + 0.9 * warp + 0.1 * ripple
    ring = phase - np.floor(phase)
    ring = np.where(ring < 0.8, ring / 0.8, (1 - ring) / 0.2) ** 1.6
    fibre = noise(height, width, (2.0, width * 0.12), rng, 2.0)
    pores = np.clip(noise(height, width, (1.5, width * 0.02), rng, 2.0) - 1.3, 0, 1)
    field = 0.62 - 0.42 * ring + 0.09 * fibre + 0.07 * noise(height, width, height * 0.5, rng)
    return np.clip(ramp(np.clip(field, 0, 1), colours) * (1 - 0.35 * pores[..., None]), 0, 1)


OAK = palette("4a2f19 7a5330 a3764a bf9565 d3b083")
WALNUT = palette("24150d 432a1a 623f27 7d5536 946b47")
PINE = palette("6d4a28 a97c4a c9a067 ddbb86 e8cf9f")
CHERRY = palette("3d1a10 6b3220 8d4a2d a9633f bf7d54")


def herringbone(height: int, width: int, unit: float, rng: Rng, blocks: int = 6) -> np.ndarray:
    """Parquet laid in herringbone at 45 degrees; a block is `unit` x `blocks` * `unit` pixels."""
    timber = wood(2048, 4096, OAK, rng, rings=40)
    py, px = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = (px + py) / (unit * np.sqrt(2)), (py - px) / (unit * np.sqrt(2)) + 1000
    ix, iy = np.floor(x).astype(int), np.floor(y).astype(int)
    across = (ix - iy) % (2 * blocks)
    lying = across < blocks
    place = np.where(lying, across, (iy - ix - 1) % (2 * blocks))
    head_x, head_y = np.where(lying, ix - place, ix), np.where(lying, iy, iy - place)
    u = np.where(lying, x - head_x, y - head_y)
    v = np.where(lying, y - head_y, x - head_x)
    name = (head_x * 7919 + head_y * 104729 + lying * 31) % 65536
    shift, tint = rng.integers(0, 4096, (65536, 2)), rng.normal(0, 1, (65536, 3)).astype(np.float32)
    pixels = timber[
        (v * unit + shift[name, 1]).astype(int) % timber.shape[0],
        (u * unit + shift[name, 0]).astype(int) % timber.shape[1],
    ]
    shade = np.exp(0.2 * tint[name, :1] + 0.03 * tint[name])
    edge = np.minimum(np.minimum(u, blocks - u), np.minimum(v, 1 - v)) * unit
    joint = np.clip(1 - edge / 1.8, 0, 1)
    return worn(np.clip(pixels * shade, 0, 1) * (1 - 0.75 * joint[..., None]), 0.04, rng)


def planks(height: int, width: int, count: int, colours: np.ndarray, rng: Rng, groove: float = 5) -> np.ndarray:
    """Upright boards with grooves, each cut from another place of the timber."""
    timber = wood(1024, 4096, colours, rng, rings=26)
    out = np.empty((height, width, 3), dtype=np.float32)
    edges = np.linspace(0, width, count + 1).astype(int)
    for left, right in zip(edges[:-1], edges[1:]):
        row, start = rng.integers(0, 1024 - (right - left)), rng.integers(0, 4096 - height)
        piece = timber[row : row + right - left, start : start + height].transpose(1, 0, 2)
        x = np.arange(right - left)
        depth = np.clip(1 - np.minimum(x, right - left - 1 - x) / groove, 0, 1)
        out[:, left:right] = piece * np.exp(rng.normal(0, 0.12)) * (1 - 0.7 * depth)[None, :, None]
    return worn(np.clip(out, 0, 1), 0.03, rng)


def brickwork(height: int, width: int, brick: tuple[float, float], rng: Rng) -> np.ndarray:
    """Running-bond bricks of (height, width) pixels, with the shading of their relief under light from above."""
    bh, bw = brick
    py, px = np.mgrid[0:height, 0:width].astype(np.float32)
    px += 0.035 * bw * noise(height, width, bh * 0.8, rng)
    py += 0.04 * bh * noise(height, width, bh * 0.8, rng)
    row = np.floor(py / bh).astype(int)
    column = np.floor(px / bw + 0.5 * (row % 2)).astype(int)
    u, v = (px / bw + 0.5 * (row % 2)) - column, py / bh - row
    edge = np.minimum(np.minimum(u, 1 - u) * bw, np.minimum(v, 1 - v) * bh)
    solid = np.clip((edge - 0.07 * bh) / (0.09 * bh), 0, 1)
    name = (row * 613 + column * 7907) % 4096
    tone = np.clip(rng.beta(2.2, 2.0, 4096), 0, 1)[name]
    grit = noise(height, width, bh * 0.5, rng) * 0.11 + noise(height, width, 3, rng, 2.0) * 0.09
    stone = ramp(np.clip(tone + grit, 0, 1), palette("54291f 7a3a29 97503a b06a4c c48a66 cda58a"))
    soot = np.clip(noise(height, width, bh * 2, rng) - 0.9, 0, 1)
    stone *= 1 - 0.4 * soot[..., None]
    mortar = ramp(np.clip(0.5 + 0.2 * noise(height, width, 12, rng, 2.0), 0, 1), palette("8f8577 b3a898 cbc1b1"))
    relief = solid * (0.85 + 0.1 * noise(height, width, bh * 0.3, rng)) + 0.05 * noise(height, width, 4, rng, 2.0)
    slope = np.gradient(relief, axis=0)
    return np.clip(lay(mortar, solid, stone) * np.exp(np.clip(1.1 * slope, -0.8, 0.4))[..., None], 0, 1)


def _leaf(
    draw: ImageDraw.ImageDraw, at: np.ndarray, angle: float, size: float, fill, vein, plump: float = 0.24
) -> None:
    t = np.linspace(0, 1, 14)
    half = plump * size * np.sin(np.pi * t**0.8)
    outline = np.concatenate([np.stack([t * size, half], 1), np.stack([t * size, -half], 1)[::-1]])
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, s], [-s, c]])
    draw.polygon([tuple(p) for p in outline @ turn + at], fill=fill)
    draw.line([tuple(at), tuple(np.array([size * 0.92, 0]) @ turn + at)], fill=vein, width=max(1, int(size * 0.03)))
    for k in (0.25, 0.42, 0.58, 0.73):
        for side in (-1, 1):
            tip = np.array([[k * size, 0], [(k + 0.16) * size, side * plump * size * 0.75 * np.sin(np.pi * k)]])
            draw.line([tuple(p) for p in tip @ turn + at], fill=vein, width=max(1, int(size * 0.018)))


def _flower(draw: ImageDraw.ImageDraw, at: np.ndarray, size: float, fill, heart, turn: float) -> None:
    for k in range(6):
        angle = turn + k * np.pi / 3
        centre = at + 0.55 * size * np.array([np.cos(angle), np.sin(angle)])
        r = 0.42 * size
        draw.ellipse([centre[0] - r, centre[1] - r, centre[0] + r, centre[1] + r], fill=fill)
    r = 0.3 * size
    draw.ellipse([at[0] - r, at[1] - r, at[0] + r, at[1] + r], fill=heart)


def _rgb(colour: np.ndarray) -> tuple[int, int, int]:
    red, green, blue = (int(c) for c in np.clip(np.asarray(colour) * 255, 0, 255))
    return red, green, blue


def botanical(
    height: int, width: int, ground: str, leaves: str, blooms: str, spacing: float, rng: Rng, size: float = 1.0
) -> np.ndarray:
    """Hand-painted wallpaper: curling stems with leaves, flowers and berries, nowhere repeated."""
    base = np.broadcast_to(hex_colour(ground), (height, width, 3)) * np.exp(
        0.05 * noise(height, width, 300, rng) + 0.05 * noise(height, width, (40, 4), rng)
    )[..., None].astype(np.float32)
    image = Image.fromarray((np.clip(base, 0, 1) * 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    greens, flowers = palette(leaves), palette(blooms)
    for at in scatter(height, width, spacing, rng):
        heading, bend = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.22)
        green = greens[rng.integers(len(greens))]
        length, place, trail = spacing * size * rng.uniform(0.75, 1.1), at.copy(), [tuple(at)]
        for k in range(9):
            heading += bend
            place = place + length / 9 * np.array([np.cos(heading), np.sin(heading)])
            trail.append(tuple(place))
            side = 1 if k % 2 else -1
            tone = np.clip(greens[rng.integers(len(greens))] * rng.uniform(0.8, 1.2), 0, 1)
            _leaf(
                draw, place, -(heading + side * rng.uniform(0.6, 1.0)), spacing * size * rng.uniform(0.2, 0.32),
                _rgb(tone), _rgb(tone * 0.62), rng.uniform(0.18, 0.28),
            )  # fmt: skip
        draw.line(trail, fill=_rgb(green * 0.7), width=max(2, int(spacing * 0.02)))
        bloom = flowers[rng.integers(len(flowers))]
        _flower(draw, place, spacing * size * rng.uniform(0.1, 0.16), _rgb(bloom), _rgb(bloom * 0.45), heading)
        for _ in range(5):
            spot, r = at + rng.normal(0, 0.3, 2) * spacing, spacing * rng.uniform(0.012, 0.03)
            draw.ellipse(
                [spot[0] - r, spot[1] - r, spot[0] + r, spot[1] + r], fill=_rgb(flowers[rng.integers(len(flowers))])
            )
    picture = np.asarray(image.filter(ImageFilter.GaussianBlur(0.8)), dtype=np.float32) / 255
    return worn(picture, 0.03, rng)


def woven(
    height: int, width: int, along: np.ndarray, across: np.ndarray, thread: int, rng: Rng, twill: bool = True
) -> np.ndarray:
    """Cloth; `along` [n, 3] are the colours of upright threads, `across` [m, 3] of lying ones, repeated."""
    y, x = np.mgrid[0:height, 0:width]
    ix, iy = x // thread, y // thread
    over = (ix + iy) % 4 < 2 if twill else (ix + iy) % 2 == 0
    slub_x = (
        1 + 0.09 * rng.standard_normal(width // thread + 1)[ix] + 0.1 * noise(height, width, (thread * 12, thread), rng)
    )
    slub_y = (
        1
        + 0.09 * rng.standard_normal(height // thread + 1)[iy]
        + 0.1 * noise(height, width, (thread, thread * 12), rng)
    )
    up = along[ix % len(along)] * slub_x[..., None]
    lie = across[iy % len(across)] * slub_y[..., None]
    fx, fy = (x % thread + 0.5) / thread - 0.5, (y % thread + 0.5) / thread - 0.5
    shade = 1 - 0.9 * np.where(over, fx, fy) ** 2
    return worn(np.clip(np.where(over[..., None], up, lie) * shade[..., None], 0, 1), 0.035, rng)


def stripes(codes: str, counts: Sequence[int]) -> np.ndarray:
    """Thread colours [sum(counts), 3]: each code repeated."""
    return np.repeat(palette(codes), counts, axis=0)


def knitted(height: int, width: int, colours: np.ndarray, stitch: int, rng: Rng) -> np.ndarray:
    """Coarse knitting: columns of V stitches in bands of colour."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    u = x / stitch
    f = np.abs(u - np.floor(u) - 0.5) * 2
    v = y / stitch + 0.9 * f
    g = v - np.floor(v)
    band = (np.floor(v / 4).astype(int) + (np.sin(np.floor(u) * 1.3) > 0.4)) % len(colours)
    shade = (1 - 1.6 * (g - 0.5) ** 2) * (0.75 + 0.35 * np.sin(np.pi * np.clip(f, 0.02, 1)))
    return worn(np.clip(colours[band] * shade[..., None], 0, 1), 0.06, rng)


def basketry(height: int, width: int, cell: int, rng: Rng) -> np.ndarray:
    """Wickerwork of flat strands."""
    straw = palette("5d4223 8c6a3d b08d58 cdb07c")
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    ix, iy = np.floor(x / (2.2 * cell)).astype(int), np.floor(y / cell).astype(int)
    over = (ix + iy) % 2 == 0
    fy, fx = y / cell - iy - 0.5, x / (2.2 * cell) - ix - 0.5
    bulge = np.where(over, np.cos(np.pi * fy) * (0.6 + 0.4 * np.cos(np.pi * fx)), 0.35 * np.cos(np.pi * fx))
    tone = rng.uniform(0.3, 0.8, (height // cell + 2, width // cell + 2))[iy, ix]
    return worn(
        ramp(np.clip(tone + 0.12 * noise(height, width, (2, 30), rng), 0, 1), straw)
        * np.clip(bulge, 0.3, 1)[..., None],
        0.05,
        rng,
    )


def glaze(height: int, width: int, colours: np.ndarray, rng: Rng) -> np.ndarray:
    """Reactive glaze on a thrown pot: drips, throwing rings and speckles."""
    field = 0.5 + 0.2 * noise(height, width, (height * 0.3, width * 0.15), rng) + 0.1 * noise(height, width, 7, rng)
    field += 0.1 * np.sin(np.arange(height) / height * 2 * np.pi * 9)[:, None]
    return lay(ramp(np.clip(field, 0, 1), colours), noise(height, width, 7, rng, 2.0) > 1.7, colours[0] * 0.6)


def marble(height: int, width: int, colours: np.ndarray, rng: Rng) -> np.ndarray:
    """Veined stone."""
    bend = noise(height, width, width * 0.5, rng)
    vein = 1 - np.abs(np.sin(3 * bend + 0.4 * noise(height, width, width * 0.1, rng))) ** 0.35
    return worn(ramp(np.clip(0.75 - 0.9 * vein + 0.1 * noise(height, width, 8, rng), 0, 1), colours), 0.02, rng)


def leaf_blade(height: int, width: int, colours: np.ndarray, rng: Rng, pale: str = "b9c98a") -> np.ndarray:
    """The face of one leaf, stalk at the bottom: midrib, side veins and mottling."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    t, s = 1 - y / height, np.abs(x / width - 0.5) * 2
    phase = (t - 0.35 * s) * 9 + 0.1 * noise(height, width, 40, rng)
    side = np.exp(-(((phase - np.round(phase)) / 0.06) ** 2)) * (1 - 0.6 * s)
    rib = np.exp(-((s / 0.05) ** 2))
    field = (
        0.45
        + 0.16 * noise(height, width, 60, rng)
        + 0.07 * noise(height, width, 6, rng)
        - 0.12 * np.cos(2 * np.pi * phase)
    )
    return lay(ramp(np.clip(field, 0, 1), colours), np.maximum(rib, 0.6 * side), hex_colour(pale))


def rug(height: int, width: int, rng: Rng, knot: int = 3) -> np.ndarray:
    """A knotted carpet: borders, spandrels, a scalloped medallion and small motifs, with uneven dye."""
    h, w = height // knot, width // knot
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    y, x = (y - (h - 1) / 2) / h * 2, (x - (w - 1) / 2) / h * 2  # y in -1..1, x in -aspect..aspect
    aspect = w / h
    red, navy, cream, gold, sky, rust = palette("8e2a24 1d2a4a e3d4b2 c08a3c 6d90a4 b5532f")
    out = np.broadcast_to(red, (h, w, 3)).astype(np.float32)
    inside = np.minimum(1 - np.abs(y), aspect - np.abs(x))  # distance to the rim

    def petals(cx: np.ndarray, cy: np.ndarray, count: int, size: float) -> np.ndarray:
        radius, angle = np.hypot(cx, cy), np.arctan2(cy, cx)
        return radius / size - (0.75 + 0.25 * np.cos(count * angle))

    def cells(period: float, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        ax, ay = np.abs(x), np.abs(y)
        return (ax / period + shift) % 1 - 0.5, (ay / period + shift) % 1 - 0.5

    for shift, count, size, colour in (
        (0.0, 4, 0.40, navy),
        (0.5, 8, 0.30, gold),
        (0.0, 4, 0.18, cream),
        (0.5, 4, 0.14, sky),
    ):
        cx, cy = cells(0.17, shift)
        out = lay(out, petals(cx, cy, count, size) < 0, colour)
    cx, cy = cells(0.085)
    out = lay(out, (np.abs(np.abs(cx) - np.abs(cy)) < 0.07) & (np.hypot(cx, cy) > 0.32), rust)
    radius, angle = np.hypot(x / 1.35, y), np.arctan2(y, x / 1.35)
    for size, colour, lobes in (
        (0.66, navy, 16),
        (0.62, cream, 16),
        (0.58, rust, 16),
        (0.44, navy, 12),
        (0.41, gold, 12),
        (0.37, red, 12),
        (0.22, cream, 8),
        (0.18, navy, 8),
        (0.1, gold, 6),
    ):
        out = lay(out, radius < size * (1 + 0.07 * np.cos(lobes * angle)), colour)
        ring = (np.abs(radius - size * 0.88) < 0.028) & (np.cos(lobes * 2 * angle) > 0.1)
        out = lay(out, ring & (radius < size * 0.94), cream if colour is not cream else red)
    corner = np.hypot((aspect - 0.28 - np.abs(x)) / 1.2, 0.72 - np.abs(y))
    theta = np.arctan2(0.72 - np.abs(y), aspect - 0.28 - np.abs(x))
    for size, colour in ((0.42, cream), (0.39, navy), (0.26, gold), (0.22, rust)):
        out = lay(out, (corner < size * (1 + 0.09 * np.cos(14 * theta))) & (inside > 0.27), colour)
    along = np.where(1 - np.abs(y) < aspect - np.abs(x), x, y)  # the coordinate that runs along the border
    for far, colour in (
        (0.28, cream),
        (0.265, navy),
        (0.22, gold),
        (0.205, navy),
        (0.06, gold),
        (0.045, red),
        (0.02, cream),
    ):
        out = lay(out, inside < far, colour)
    cx, cy = (along / 0.19) % 1 - 0.5, (inside - 0.132) / 0.19
    band = (inside > 0.065) & (inside < 0.2)
    for count, size, colour in ((8, 0.36, red), (8, 0.27, cream), (4, 0.2, gold), (4, 0.1, navy)):
        out = lay(out, band & (petals(cx, cy, count, size) < 0), colour)
    cx = (along / 0.19 + 0.5) % 1 - 0.5
    out = lay(out, band & (petals(cx, cy, 4, 0.22) < 0), sky)
    small = (along / 0.05) % 1 - 0.5
    out = lay(
        out, (inside > 0.225) & (inside < 0.262) & (np.abs(small) + np.abs((inside - 0.243) / 0.05) < 0.36), cream
    )
    out = lay(out, (inside > 0.025) & (inside < 0.043) & (small > 0), gold)
    dye = 0.09 * noise(h, w, (12, w), rng) + 0.09 * rng.standard_normal((h, w)) + 0.07 * noise(h, w, 60, rng)
    knots = np.clip(out * np.exp(dye)[..., None], 0, 1)
    full = np.repeat(np.repeat(knots, knot, 0), knot, 1)
    fy, fx = np.mgrid[0 : full.shape[0], 0 : full.shape[1]] % knot
    return full * np.where((fy == knot - 1) | (fx == knot - 1), 0.8, 1.0)[..., None].astype(np.float32)


def landscape(height: int, width: int, codes: str, rng: Rng, sun: str = "fff0c9") -> np.ndarray:
    """A painting of ridges under a sky."""
    colours = palette(codes)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / height
    out = ramp(np.clip(y * 1.6 + 0.12 * noise(height, width, (height * 0.08, width * 0.5), rng), 0, 1), colours[:3])
    cx, cy = rng.uniform(0.25, 0.75) * width / height, rng.uniform(0.18, 0.32)
    out = lay(out, np.hypot(x - cx, y - cy) < 0.09, hex_colour(sun))
    layers = len(colours) - 3
    for k in range(layers):
        skyline = 0.38 + 0.6 * k / layers + 0.06 * noise(1, width, width * 0.5, rng, 1.9)
        paint = colours[3 + k] * np.exp(0.28 * noise(height, width, (6, 26), rng, 2.2))[..., None]
        out = lay(out, np.clip((y - skyline) * 150, 0, 1), paint)
    return strokes(out, rng)


def abstract(height: int, width: int, codes: str, rng: Rng, count: int = 16) -> np.ndarray:
    """A painting of overlapping discs, bars and arcs."""
    colours = palette(codes)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / height
    aspect = width / height
    out = np.broadcast_to(colours[0], (height, width, 3)).astype(np.float32)
    for k in range(count):
        colour = colours[1 + k % (len(colours) - 1)]
        cx, cy, r, turn = (
            rng.uniform(0.1, 0.9) * aspect,
            rng.uniform(0.1, 0.9),
            rng.uniform(0.06, 0.24),
            rng.uniform(0, np.pi),
        )
        u, v = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn), (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
        away = np.hypot(u, v)
        disc, bar = away < r, (np.abs(u) < r) & (np.abs(v) < 0.3 * r)
        ring, line = np.abs(away - r) < 0.03, (np.abs(u) < 1.6 * r) & (np.abs(v) < 0.02)
        shape = (disc, bar, ring, line)[k % 4]
        out = lay(out, 0.9 * shape, colour * np.exp(0.15 * noise(height, width, (30, 8), rng))[..., None])
    return strokes(out, rng)


def strokes(picture: np.ndarray, rng: Rng) -> np.ndarray:
    """The picture with the marks of a brush."""
    h, w = picture.shape[:2]
    mark = 0.1 * noise(h, w, (3, 24), rng, 2.0) + 0.08 * noise(h, w, (20, 4), rng, 2.0)
    return np.clip(picture * np.exp(mark)[..., None], 0, 1).astype(np.float32)


def specimen(height: int, width: int, rng: Rng, leaves: str, bloom: str) -> np.ndarray:
    """A botanical plate on old paper with a caption."""
    paper = worn(np.broadcast_to(hex_colour("e4d6b4"), (height, width, 3)).astype(np.float32), 0.05, rng)
    image = Image.fromarray((paper * 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    greens = palette(leaves)
    for stem in range(3):
        place, heading = np.array([width * 0.5, height * 0.8]), -np.pi / 2 + (stem - 1) * 0.3
        for k in range(11):
            ahead = place + height * 0.055 * np.array([np.cos(heading), np.sin(heading)])
            draw.line([tuple(place), tuple(ahead)], fill=_rgb(greens[0] * 0.7), width=max(2, height // 110))
            place, heading = ahead, heading + rng.normal(0, 0.1)
            tone = greens[rng.integers(len(greens))]
            _leaf(
                draw,
                place,
                -(heading + (0.9 if k % 2 else -0.9)),
                height * rng.uniform(0.12, 0.17),
                _rgb(tone),
                _rgb(tone * 0.6),
                0.2,
            )
        _flower(draw, place, height * 0.06, _rgb(hex_colour(bloom)), _rgb(hex_colour(bloom) * 0.4), stem)
    picture = np.asarray(image, dtype=np.float32) / 255
    return strokes(stamp(picture, title(rng, 2), 0.5, 0.91, max(8, height // 18), hex_colour("40321f")), rng)


def stamp(
    picture: np.ndarray, text: str, x: float, y: float, height: int, colour: Colour, wide: float = 0.9
) -> np.ndarray:
    """The picture with a line of text centred at (x, y) in 0..1, never wider than `wide` of it."""
    mask = text_mask(text, height)
    room = int(picture.shape[1] * wide)
    if mask.shape[1] > room:
        image = Image.fromarray((mask * 255).astype(np.uint8))
        mask = np.asarray(image.resize((room, max(4, height * room // mask.shape[1]))), dtype=np.float32) / 255
    h, w = mask.shape
    top, left = int(y * picture.shape[0] - h / 2), int(x * picture.shape[1] - w / 2)
    top, left = np.clip(top, 0, picture.shape[0] - h), np.clip(left, 0, picture.shape[1] - w)
    out = picture.copy()
    out[top : top + h, left : left + w] = lay(out[top : top + h, left : left + w], mask, colour)
    return out


def page(height: int, width: int, rng: Rng, lines: int = 26) -> np.ndarray:
    """A printed page with a heading, paragraphs and a figure."""
    out = worn(np.broadcast_to(hex_colour("ece4d0"), (height, width, 3)).astype(np.float32), 0.02, rng)
    out = stamp(out, title(rng, 1), 0.5, 0.07, height // 14, hex_colour("2b2622"), 0.6)
    figure = rng.uniform(0.25, 0.6)
    top, size = int(figure * height), int(0.2 * height)
    picture = landscape(size, int(width * 0.7), "9fb4bd d9d2bd efe2c0 7d8a76 5d6a55 39442f", rng)
    out[top : top + size, int(width * 0.15) : int(width * 0.15) + picture.shape[1]] = picture
    for k in range(lines):
        y = 0.14 + 0.8 * k / lines
        if figure - 0.03 < y < figure + 0.23:
            continue
        words = " ".join(title(rng, 1) for _ in range(5))
        out = stamp(out, words, 0.5, y, max(5, height // 50), hex_colour("4a443c"), 0.8 if k % 6 != 5 else 0.5)
    return out


BOOK_CLOTHS = palette(
    "7d2321 1f3a5f 2f5d46 c79a3b e2d6bd 3b2a4d a8532a 20262e 6f8fa3 94463f d8b46a 4d6a3a b9a58b 14504f d9c9a3 5c3220 "
    "8a9a5b c4623d 284b63 f0e6d2 742f4c"
)
GOLD = hex_colour("d9b45f")


def spine(height: int, width: int, rng: Rng) -> np.ndarray:
    """The back of one book, upright, the title running down or set in a label."""
    cloth = BOOK_CLOTHS[rng.integers(len(BOOK_CLOTHS))] * rng.uniform(0.85, 1.1)
    light = cloth.mean() > 0.5
    ink = hex_colour("2a2320") if light else (GOLD if rng.random() < 0.6 else hex_colour("efe6d0"))
    other = BOOK_CLOTHS[rng.integers(len(BOOK_CLOTHS))]
    out = np.broadcast_to(cloth, (height, width, 3)).astype(np.float32).copy()
    y = np.linspace(0, 1, height)[:, None] * np.ones((1, width))
    x = np.linspace(-1, 1, width)[None] * np.ones((height, 1))
    style = rng.integers(5)
    low, high = 0.2, 0.8
    if style == 0:  # cloth with rules
        for at in (0.05, 0.09, 0.16, 0.84, 0.91, 0.95):
            out = lay(out, np.abs(y - at) < rng.uniform(0.004, 0.012), ink)
    elif style == 1:  # two colours
        cut = rng.uniform(0.2, 0.45)
        out = lay(out, y < cut, other)
        out = lay(out, np.abs(y - cut) < 0.012, ink)
        out = lay(out, np.hypot(x * width, (y - 0.9) * 2 * height) < 0.55 * width, other)
        low = cut
    elif style == 2:  # leather with raised bands and a label
        bands = np.linspace(0.1, 0.9, 6)
        for k, at in enumerate(bands):
            out = lay(out, np.abs(y - at) < 0.016, cloth * 0.55)
            out = lay(out, np.abs(y - at + 0.006) < 0.005, GOLD)
            if k < 5 and k != 1:
                middle = at + 0.08
                diamond = np.abs(x) * width + np.abs(y - middle) * 2 * height < 0.55 * width
                out = lay(out, diamond, GOLD * 0.85)
        out = lay(out, np.abs(y - 0.34) < 0.064, other * 0.7)
        low, high = 0.28, 0.4
    elif style == 3:  # printed pattern with a panel
        n = rng.integers(6, 14)
        wave = (np.sin(n * np.pi * y + (2 if rng.random() < 0.5 else 0) * x) > 0.2) | (
            np.abs(x + np.sin(3 * n * y)) < 0.25
        )
        out = lay(out, wave, other)
        out = lay(out, np.abs(y - 0.4) < 0.2, hex_colour("efe3c8"))
        ink, low, high = hex_colour("33261d"), 0.2, 0.6
    else:  # modern: a big block and a bar
        out = lay(out, y > rng.uniform(0.6, 0.8), other)
        out = lay(out, np.abs(y - 0.08) < 0.03, other)
        high = 0.62
    name = title(rng, 1 if style == 2 else 2)
    length = int((high - low) * height * 0.92)
    run = Image.fromarray((text_mask(name, max(8, int(width * 0.62)), 1.3) * 255).astype(np.uint8))
    if style == 2:
        run = run.resize((max(4, int(width * 0.85)), max(6, int(0.06 * height))))
        mask = np.asarray(run, dtype=np.float32) / 255
    else:
        run = run.resize((min(length, run.width), run.height)).rotate(-90, expand=True)
        mask = np.asarray(run, dtype=np.float32) / 255
    top, left = int((low + high) / 2 * height - mask.shape[0] / 2), (width - mask.shape[1]) // 2
    area = out[top : top + mask.shape[0], left : left + mask.shape[1]]
    out[top : top + mask.shape[0], left : left + mask.shape[1]] = lay(area, mask, ink)
    rub = np.clip(noise(height, width, 20, rng) - 1.6, 0, 1)
    out = lay(out, rub * 0.6, np.minimum(cloth * 1.5, 1))
    return worn(out * (1 - 0.3 * x**6)[..., None].astype(np.float32), 0.05, rng)


def cover(height: int, width: int, rng: Rng) -> np.ndarray:
    """The front of one book: a picture, a title and an author."""
    codes = (
        "e9d8b0 d98f5c b5573f 6d3b4a 3b2a4d 241a33",
        "b7d3da dfe9dc f3e9c7 7f9d86 4d7358 2c4736",
        "1c2e4a 35597d 7f9fb5 e8c170 c0623a 5a2a2a",
    )
    choice = codes[rng.integers(3)]
    base = landscape(height, width, choice, rng) if rng.random() < 0.5 else abstract(height, width, choice, rng, 12)
    panel = np.zeros((height, width), dtype=np.float32)
    panel[int(0.08 * height) : int(0.34 * height), int(0.08 * width) : int(0.92 * width)] = 1
    base = lay(base, 0.9 * panel, hex_colour("f0e6cd"))
    dark = hex_colour("2b2029")
    base = stamp(base, title(rng, 1), 0.5, 0.17, height // 8, dark, 0.76)
    base = stamp(base, title(rng, 1), 0.5, 0.28, height // 14, dark, 0.6)
    return worn(stamp(base, title(rng, 2), 0.5, 0.93, height // 16, hex_colour("f4ecd8"), 0.8), 0.03, rng)


def garden(height: int, width: int, rng: Rng) -> np.ndarray:
    """What is seen through the window: sky, far trees, near foliage; soft, as if out of focus."""
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None] * np.ones((1, width), dtype=np.float32)
    out = ramp(np.clip(y + 0.1 * noise(height, width, (60, 300), rng), 0, 1), palette("a9cdf0 cfe3f3 eef2ea f4f0dd"))
    for k, (line, codes) in enumerate(
        ((0.42, "7f9c86 9db79a b9cba6"), (0.56, "4c6d43 6f9150 9fb866"), (0.74, "35522c 5d8038 93ac4c c9cf7a"))
    ):
        crown = line + 0.09 * noise(1, width, width * 0.2, rng, 2.0) + 0.02 * noise(height, width, 24, rng)
        leaves = np.clip(
            0.5 + 0.2 * noise(height, width, 50 / (k + 1), rng) + 0.16 * noise(height, width, 12, rng), 0, 1
        )
        out = lay(out, np.clip((y - crown) * 40, 0, 1), ramp(leaves, palette(codes)))
    for _ in range(160):  # sparkles of light between the leaves
        cy, cx, r = rng.uniform(0.4, 1) * height, rng.uniform(0, width), rng.uniform(3, 12)
        rows = slice(max(0, int(cy - r)), min(height, int(cy + r)))
        columns = slice(max(0, int(cx - r)), min(width, int(cx + r)))
        gy, gx = np.mgrid[rows, columns]
        if gy.size:
            out[rows, columns] = lay(out[rows, columns], 0.5 * (np.hypot(gy - cy, gx - cx) < r), hex_colour("f3f0b8"))
    return out

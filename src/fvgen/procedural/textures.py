"""What covers surfaces: seamless patterns with natural statistics, cut-out outlines, pieces of photographs."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Image8 = NDArray[np.uint8]  # [S, S, 3]
Pattern = Callable[[np.random.Generator, int], Image8]
Color = tuple[int, int, int]
Draw = ImageDraw.ImageDraw

TEXTURE = 256  # side of the textures in texels
MASK = 128  # side of the cut-outs
LEVELS = 7


def pyramid(texture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A texture ``[256, 256, 3]`` and its halvings down to 4 x 4, ``[n, 3]`` one after the other."""
    levels: list[NDArray[np.uint8]] = []
    image: Any = texture.astype(np.float32)
    for _ in range(LEVELS):
        levels.append((image + 0.5).astype(np.uint8).reshape(-1, 3))
        image = (image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]) / 4
    return np.concatenate(levels)


def _palette(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """``[n, 3]`` colours in 0..1 around a common tint: surfaces share a light, few are saturated."""
    base = rng.uniform(0.15, 0.85)
    tint = rng.normal(0, 0.05, 3)
    spread = rng.uniform(0.05, 0.3)
    return np.clip(base + tint + rng.normal(0, spread, (n, 1)) + rng.normal(0, spread * 0.25, (n, 3)), 0.02, 0.98)


def power_law_noise(
    rng: np.random.Generator, size: int, exponent: float, stretch: float | None = None
) -> NDArray[np.float64]:
    """``[size, size]`` noise whose amplitude falls as ``f ** -exponent``, scaled to mean 0 and deviation 1.

    ``stretch`` > 1 draws it out horizontally; by default now and then by a random factor.
    """
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    if stretch is None:
        frequency = np.hypot(fy * (rng.uniform(0.3, 3.0) if rng.random() < 0.3 else 1.0), fx)
    else:
        frequency = np.hypot(fy, fx * stretch)
    frequency[0, 0] = 1.0
    spectrum = (rng.normal(size=frequency.shape) + 1j * rng.normal(size=frequency.shape)) / frequency**exponent
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, s=(size, size))
    return (noise - noise.mean()) / (noise.std() + 1e-9)


def _to_image(values: NDArray[np.float64]) -> Image8:
    return (np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)


def _bytes(color: NDArray[np.float64]) -> Color:
    r, g, b = (int(c * 255) for c in np.clip(color, 0, 1))
    return r, g, b


def _grain(rng: np.random.Generator, image: Image8, most: float = 0.08) -> Image8:
    noise = power_law_noise(rng, image.shape[0], rng.uniform(0.4, 1.3))
    return _to_image(image / 255.0 + noise[..., None] * rng.uniform(0.01, most))


def _ramp(colors: NDArray[np.float64], value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours ``[h, w, 3]`` for values 0..1 along a list of colours."""
    position = np.clip(value, 0, 0.9999) * (len(colors) - 1)
    low, mix = position.astype(int), (position % 1)[..., None]
    return colors[low] * (1 - mix) + colors[low + 1] * mix


def _wrapped(size: int, x: float, y: float, reach: float) -> list[tuple[float, float]]:
    """Where a shape must be drawn so that what leaves one edge comes in at the other."""
    xs = [x + d for d in (-size, 0, size) if -reach < x + d < size + reach]
    ys = [y + d for d in (-size, 0, size) if -reach < y + d < size + reach]
    return [(a, b) for a in xs for b in ys]


# Patterns: seamless pictures ``[size, size, 3]`` uint8, everything random from ``rng``.


def marble(rng: np.random.Generator, size: int) -> Image8:
    """Layers of 1/f noise mapped through a short colour ramp: plaster, stone, foliage far away."""
    value = power_law_noise(rng, size, rng.uniform(0.8, 1.7))
    if rng.random() < 0.4:
        value = np.sin(value * rng.uniform(2, 8))
    return _to_image(_ramp(_palette(rng, 4), (value + 2) / 4))


def plaster(rng: np.random.Generator, size: int) -> Image8:
    """Nearly one colour, lit from the side: painted walls, paper, concrete."""
    height = power_law_noise(rng, size, rng.uniform(0.7, 1.4))
    relief = height - np.roll(height, 1, axis=(0, 1))
    stains = power_law_noise(rng, size, 1.8)
    value = relief / relief.std() * rng.uniform(0.01, 0.06) + stains * rng.uniform(0.0, 0.05)
    return _to_image(_palette(rng, 1)[0] * 0.6 + 0.3 + value[..., None])


def dead_leaves(rng: np.random.Generator, size: int) -> Image8:
    """Occluding shapes with power-law sizes (Lee, Mumford and Huang 2001): edges at every scale."""
    colors = _palette(rng, 48)
    image = Image.new("RGB", (size, size), _bytes(colors[0]))
    draw, smallest = ImageDraw.Draw(image), rng.uniform(0.006, 0.03)
    for _ in range(int(rng.integers(200, 900))):
        radius = min(size * smallest * (1 - rng.random() * 0.995) ** -0.5, size * 0.45)
        x, y = rng.uniform(0, size, 2)
        color, is_round = _bytes(colors[rng.integers(48)]), rng.random() < 0.4
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 7))))
        reach = radius * rng.uniform(0.6, 1.4, len(angles))
        for cx, cy in _wrapped(size, x, y, 1.4 * radius):
            if is_round:
                draw.ellipse([cx - radius, cy - radius, cx + radius, cy + radius], fill=color)
            else:
                draw.polygon([(cx + r * np.cos(a), cy + r * np.sin(a)) for r, a in zip(reach, angles)], fill=color)
    return _grain(rng, np.asarray(image))


def _rows(
    rng: np.random.Generator, size: int, rows: int, aspect: float, gap: float, colors: NDArray[np.float64], joint: Color
) -> Image.Image:
    """Rows of blocks, ``aspect`` wide for one high, with joints; each row shifted, wrapped around."""
    image = Image.new("RGB", (size, size), joint)
    draw, height = ImageDraw.Draw(image), size / rows
    for row in range(rows):
        widths = rng.uniform(0.7, 1.3, max(1, round(size / (height * aspect))))
        ends = np.cumsum(widths) / widths.sum() * size
        shift = rng.uniform(0, size)
        for start, end in zip([0.0, *ends[:-1]], ends):
            color = _bytes(colors[rng.integers(len(colors))])
            for x in (start + shift, start + shift - size):
                if x < size and x + end - start > 0:
                    draw.rectangle([x, row * height, x + end - start - gap, (row + 1) * height - gap], fill=color)
    return image


def bricks(rng: np.random.Generator, size: int) -> Image8:
    """Rows of blocks with joints: walls, tiles, floorboards, book spines, depending on the proportions."""
    rows, aspect = int(rng.integers(3, 20)), float(rng.choice([0.15, 0.4, 1.0, 2.0, 4.0, 8.0]))
    gap = rng.uniform(0.0, 0.12) * min(size / rows, size / rows * aspect)
    image = _rows(rng, size, rows, aspect, gap, _palette(rng, 32), _bytes(_palette(rng, 1)[0]))
    return _grain(rng, np.asarray(image if rng.random() < 0.6 else image.rotate(90)))


def masonry(rng: np.random.Generator, size: int) -> Image8:
    """Brickwork: courses twice as long as high, stones of one clay, each stained."""
    rows, base = int(rng.choice([8, 10, 12, 16])), _palette(rng, 1)[0]
    colors = np.clip(base + rng.normal(0, 0.07, (24, 1)) + rng.normal(0, 0.02, (24, 3)), 0, 1)
    joint = _bytes(base * 0.4 + rng.uniform(0.2, 0.5))
    image = _rows(rng, size, rows, float(rng.uniform(1.8, 2.8)), 0.1 * size / rows, colors, joint)
    return _grain(rng, np.asarray(image), 0.12)


def tiles(rng: np.random.Generator, size: int) -> Image8:
    """A regular grid of squares in one or two colours, with joints."""
    count, colors = int(rng.choice([2, 4, 6, 8])), _palette(rng, 2)
    cell = (np.arange(size) * count / size).astype(int)
    odd = ((cell[:, None] + cell[None]) % 2)[..., None] * (rng.random() < 0.5)
    each = rng.normal(0, 0.03, (count, count))[cell][:, cell][..., None]
    value = colors[0] * (1 - odd) + colors[1] * odd + each
    inside = np.arange(size) * count / size % 1
    joint = (inside < rng.uniform(0.02, 0.06))[:, None] | (inside < rng.uniform(0.02, 0.06))[None]
    value = np.where(joint[..., None], value * 0.5 + rng.uniform(0, 0.3), value)
    return _grain(rng, _to_image(value + 0.04 * power_law_noise(rng, size, 1.5)[..., None]), 0.03)


def boards(rng: np.random.Generator, size: int) -> Image8:
    """Wood: rings drawn out along the grain, in one piece or in boards."""
    count = int(rng.choice([1, 4, 6, 8]))
    bent = power_law_noise(rng, size, 1.9, stretch=8.0) * rng.uniform(0.5, 2.0)
    fibre = power_law_noise(rng, size, 0.8, stretch=14.0)
    rows = np.arange(size) / size
    ring = np.sin(2 * np.pi * (rows[:, None] * rng.integers(2, 12) + bent * 0.5))
    value = 0.5 + 0.18 * ring + 0.12 * fibre
    board = (rows * count).astype(int)
    if count > 1:
        shifts = rng.integers(0, size, count)[board]
        value = value[np.arange(size)[:, None], (np.arange(size)[None] + shifts[:, None]) % size]
        value = value + rng.normal(0, 0.08, count)[board][:, None]
        value[(rows * count) % 1 < 0.03] -= 0.3
    dark = np.clip(np.array([0.36, 0.22, 0.12]) * rng.uniform(0.4, 1.8) + rng.normal(0, 0.02, 3), 0.02, 0.8)
    light = np.clip(dark + rng.uniform(0.12, 0.4) * np.array([1.0, 0.85, 0.65]), 0, 0.95)
    image = _to_image(_ramp(np.stack([dark, light]), value))
    return image if rng.random() < 0.5 else np.ascontiguousarray(image.transpose(1, 0, 2))


def weave(rng: np.random.Generator, size: int) -> Image8:
    """Stripes and checks: cloth, blinds, wallpaper."""
    turn, colors = 2 * np.pi * (np.arange(size) / size), _palette(rng, 3)
    a = np.sin(turn * rng.integers(4, 40) + rng.uniform(0, 6))
    b = np.sin(turn * rng.integers(4, 40) + rng.uniform(0, 6)) * rng.choice([0.0, 0.5, 1.0])
    sharp = rng.choice([0.8, 3.0, 20.0])
    u, v = 1 / (1 + np.exp(-sharp * a))[None, :, None], 1 / (1 + np.exp(-sharp * b))[:, None, None]
    return _grain(rng, _to_image(colors[0] * u + colors[1] * (1 - u) + (colors[2] - 0.5) * (v - 0.5)))


def pebbles(rng: np.random.Generator, size: int) -> Image8:
    """Cells around random points, shaded to their edges: gravel, cobbles, scales, cracked earth."""
    count = int(rng.choice([30, 80, 200, 400]))
    at = rng.uniform(0, size, (count, 2))
    many = (at[:, None] + np.array([(i, j) for i in (-size, 0, size) for j in (-size, 0, size)])).reshape(-1, 2)
    near = ((many > -0.25 * size) & (many < 1.25 * size)).all(1)
    from scipy.spatial import cKDTree

    distance, cell = cKDTree(many[near]).query(np.indices((size, size)).reshape(2, -1).T + 0.5, k=2)
    edge = np.clip((distance[:, 1] - distance[:, 0]) / np.sqrt(size * size / count) * rng.uniform(1.5, 4), 0, 1)
    colors = _palette(rng, 24)[(np.repeat(np.arange(count), 9)[near][cell[:, 0]]) % 24]
    value = colors * (0.35 + 0.65 * edge[:, None] ** rng.uniform(0.4, 1.2))
    return _grain(rng, _to_image(value.reshape(size, size, 3)), 0.06)


def grass(rng: np.random.Generator, size: int) -> Image8:
    """Short strokes in nearby colours, one over another: lawn, straw, fur, carpet."""
    colors = _palette(rng, 16)
    image = Image.new("RGB", (size, size), _bytes(colors.mean(0) * 0.6))
    draw, lean, spread = ImageDraw.Draw(image), rng.uniform(0, 6.3), rng.uniform(0.3, 1.6)
    longest = size * rng.uniform(0.03, 0.1)
    for _ in range(1100):
        x, y = rng.uniform(0, size, 2)
        angle, length = lean + rng.normal(0, spread), longest * rng.uniform(0.4, 1)
        dx, dy, color = np.cos(angle) * length, np.sin(angle) * length, _bytes(colors[rng.integers(16)])
        for cx, cy in _wrapped(size, x, y, longest):
            draw.line([(cx, cy), (cx + dx, cy + dy)], fill=color, width=2)
    return _grain(rng, np.asarray(image), 0.05)


def facade(rng: np.random.Generator, size: int) -> Image8:
    """Rows of windows in a wall: buildings seen from the street."""
    wall = (plaster if rng.random() < 0.5 else masonry)(rng, size)
    image = Image.fromarray(wall)
    draw, rows, columns = ImageDraw.Draw(image), int(rng.integers(2, 5)), int(rng.integers(2, 6))
    frame, glass = _bytes(_palette(rng, 1)[0] * 0.5 + 0.4), _palette(rng, 3) * np.array([0.5, 0.6, 0.75])
    wide, high = size / columns, size / rows
    share_x, share_y, bar = rng.uniform(0.35, 0.75), rng.uniform(0.45, 0.75), max(1, round(size * 0.008))
    for row in range(rows):
        for column in range(columns):
            x0, y0 = (column + (1 - share_x) / 2) * wide, (row + (1 - share_y) / 2) * high
            x1, y1 = x0 + share_x * wide, y0 + share_y * high
            draw.rectangle([x0 - bar, y0 - bar, x1 + bar, y1 + 2 * bar], fill=frame)
            draw.rectangle([x0, y0, x1, y1], fill=_bytes(glass[rng.integers(3)]))
            draw.line([((x0 + x1) / 2, y0), ((x0 + x1) / 2, y1)], fill=frame, width=bar)
            draw.line([(x0, y0 + (y1 - y0) * 0.35), (x1, y0 + (y1 - y0) * 0.35)], fill=frame, width=bar)
            if rng.random() < 0.3:
                draw.rectangle([x0, y0, x1, y0 + (y1 - y0) * rng.uniform(0.2, 0.8)], fill=_bytes(_palette(rng, 1)[0]))
    return _grain(rng, np.asarray(image), 0.03)


def print_page(rng: np.random.Generator, size: int) -> Image8:
    """Lines of letter-like strokes and a picture or two: posters, labels, pages."""
    paper, ink = _palette(rng, 2)
    paper = np.clip(paper + (0.35 if rng.random() < 0.7 else -0.2), 0, 1)
    image = Image.new("RGB", (size, size), _bytes(paper))
    draw, color = ImageDraw.Draw(image), _bytes(ink * 0.5)
    y = line = size / rng.integers(8, 30)
    while y < size - 2 * line:
        x = line
        while x < size - 2 * line:
            step = line * rng.uniform(0.25, 0.6)
            if rng.random() < 0.85:
                x1, y1 = x + step * rng.uniform(-0.2, 0.9), y + line * 0.6 * rng.uniform(-0.2, 1)
                draw.line([(x, y), (x1, y + line * 0.6), (x1, y1)], fill=color, width=max(1, int(line * 0.12)))
            x += step
        y += line
    for _ in range(int(rng.integers(0, 4))):
        side = int(size * rng.uniform(0.1, 0.4))
        x, y = rng.uniform(1, size - side - 1, 2)
        image.paste(Image.fromarray(marble(rng, 64)).resize((side, side)), (int(x), int(y)))
    return np.asarray(image)


_ALL = (marble, plaster, dead_leaves, bricks, masonry, tiles, boards, weave, pebbles, grass, facade, print_page)
KINDS: dict[str, Pattern] = {kind.__name__: kind for kind in _ALL}


@lru_cache(maxsize=64)
def mask(shape: str, variant: int) -> NDArray[np.float32]:
    """A cut-out ``[128, 128]`` in 0..1, solid above one half; its first row is the bottom.

    Args:
        shape: of `MASKS`.
        variant: a number; each gives another outline of that shape.
    """
    rng, size = np.random.default_rng((list(MASKS).index(shape), variant)), 4 * MASK
    image = Image.new("L", (size, size))
    MASKS[shape](rng, ImageDraw.Draw(image), size)
    small = image.resize((MASK, MASK), Image.Resampling.BOX)
    return np.ascontiguousarray(np.asarray(small, np.float32)[::-1] / 255)


def _spray(rng: np.random.Generator, draw: Draw, size: int) -> None:
    """Leaves all over: a branch of a tree."""
    length = size * rng.uniform(0.05, 0.1)
    for _ in range(int(rng.integers(70, 150))):
        r, phi = size * 0.42 * rng.random() ** 0.6, rng.uniform(0, 6.3)
        x, y, turn = size / 2 + r * np.cos(phi), size / 2 + r * np.sin(phi), rng.uniform(0, 6.3)
        _leaf(draw, x, y, turn, length * rng.uniform(0.6, 1.3), 0.4)


def _leaf(draw: Draw, x: float, y: float, turn: float, length: float, slim: float) -> None:
    t = np.linspace(0, 2 * np.pi, 12)
    a, b = np.cos(t) * length, np.sin(t) * length * slim * (1 - 0.5 * np.cos(t))
    c, s = np.cos(turn), np.sin(turn)
    draw.polygon([(x + p * c - q * s, y + p * s + q * c) for p, q in zip(a, b)], fill=255)


def _tuft(rng: np.random.Generator, draw: Draw, size: int) -> None:
    """Blades that rise from the bottom."""
    for _ in range(int(rng.integers(14, 40))):
        x, top = rng.uniform(0.2, 0.8) * size, rng.uniform(0.05, 0.7) * size
        lean, wide = rng.normal(0, 0.18) * size, size * rng.uniform(0.008, 0.025)
        mid, half = x + lean * 0.3, (size + top) / 2
        blade = [(x - wide, size), (mid - wide, half), (x + lean, top), (mid + wide, half), (x + wide, size)]
        draw.polygon(blade, fill=255)


def _fronds(rng: np.random.Generator, draw: Draw, size: int) -> None:
    """A stem with leaves in pairs."""
    bend = rng.normal(0, 0.2)
    for k in np.linspace(0, 1, int(rng.integers(7, 14))):
        x, y = size * (0.5 + bend * k * k), size * (1 - 0.9 * k)
        draw.ellipse([x - 6, y - 20, x + 6, y + 40], fill=255)
        for side in (-1, 1):
            length = size * 0.2 * (1 - 0.7 * k)
            turn = -np.pi / 2 + side * rng.uniform(0.7, 1.1)
            _leaf(draw, x + length * np.cos(turn), y + length * np.sin(turn), turn, length, 0.3)


def _lattice(rng: np.random.Generator, draw: Draw, size: int) -> None:
    """Crossed slats."""
    step, wide = size / int(rng.integers(5, 10)), int(size * rng.uniform(0.012, 0.03))
    for k in np.arange(-size, 2 * size, step):
        draw.line([(k, 0), (k + size, size)], fill=255, width=wide)
        draw.line([(k, size), (k + size, 0)], fill=255, width=wide)


def _mesh(rng: np.random.Generator, draw: Draw, size: int) -> None:
    """Upright and level wires."""
    step, wide = size / int(rng.integers(4, 9)), int(size * rng.uniform(0.01, 0.025))
    for k in np.arange(wide, size, step):
        draw.line([(k, 0), (k, size)], fill=255, width=wide)
        draw.line([(0, k), (size, k)], fill=255, width=wide)


def _pickets(rng: np.random.Generator, draw: Draw, size: int) -> None:
    """A garden fence."""
    count = int(rng.integers(6, 14))
    wide, tip = size / count * rng.uniform(0.35, 0.75), size * rng.uniform(0.0, 0.08)
    for k in range(count):
        x = (k + 0.5) * size / count
        left, right = x - wide / 2, x + wide / 2
        draw.polygon([(left, size), (left, tip + 4), (x, 4), (right, tip + 4), (right, size)], fill=255)
    for y in (0.25, 0.75):
        draw.rectangle([0, y * size, size, (y + 0.07) * size], fill=255)


def _rails(rng: np.random.Generator, draw: Draw, size: int) -> None:
    """A railing: thin bars under a rail."""
    count, wide = int(rng.integers(6, 12)), size * rng.uniform(0.012, 0.03)
    for k in range(count):
        x = (k + 0.5) * size / count
        draw.rectangle([x - wide / 2, 0, x + wide / 2, size], fill=255)
    for y in (0.0, 0.9):
        draw.rectangle([0, y * size, size, (y + 0.06) * size], fill=255)


def _blob(rng: np.random.Generator, draw: Draw, size: int) -> None:
    """A standing figure: a head, a body, two legs, more or less."""
    x, wide = size / 2, size * rng.uniform(0.14, 0.24)
    draw.ellipse([x - wide * 0.55, 0.02 * size, x + wide * 0.55, 0.2 * size], fill=255)
    draw.rounded_rectangle([x - wide, 0.2 * size, x + wide, 0.62 * size], radius=wide * 0.5, fill=255)
    step = rng.uniform(0.0, 0.9) * wide
    for side in (-1, 1):
        foot = x + side * (wide * 0.5 + step)
        hip = [(x + side * wide * 0.95, 0.55 * size), (x + side * wide * 0.05, 0.55 * size)]
        draw.polygon([*hip, (foot - wide * 0.3, size), (foot + wide * 0.3, size)], fill=255)


_DRAWERS = (_spray, _tuft, _lattice, _pickets, _rails, _blob, _fronds, _mesh)
MASKS: dict[str, Callable[[np.random.Generator, Draw, int], None]] = {f.__name__[1:]: f for f in _DRAWERS}
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".hdr")


def procedural_texture(rng: np.random.Generator, size: int = 256) -> Image8:
    """One random texture, ``[size, size, 3]`` uint8, deterministic in ``rng``."""
    names = (*KINDS, "dead_leaves")  # twice as likely as the others
    return KINDS[names[rng.integers(len(names))]](rng, size)


def read_hdr(path: Path) -> Image8:
    """A Radiance ``.hdr`` panorama (run-length encoded RGBE), exposed to a middle grey and gamma encoded.

    Returns:
        ``[H, W, 3]`` uint8.

    Raises:
        ValueError: if the file is not such a picture.
    """
    data = path.read_bytes()
    header, _, rest = data.partition(b"\n\n")
    line, _, body = rest.partition(b"\n")
    parts = line.split()
    if not header.startswith(b"#?") or len(parts) != 4 or parts[0] != b"-Y":
        raise ValueError(f"{path} is not a Radiance picture")
    height, width = int(parts[1]), int(parts[3])
    raw = np.frombuffer(body, np.uint8)
    rgbe, at = np.zeros((height, 4, width), np.uint8), 0
    for row in rgbe:
        at += 4  # each scan line repeats its width
        for channel in row:
            filled = 0
            while filled < width:
                run, count = (1, int(raw[at]) - 128) if raw[at] > 128 else (int(raw[at]), int(raw[at]))
                channel[filled : filled + count] = raw[at + 1 : at + 1 + run]  # one byte repeated, or all of them
                filled, at = filled + count, at + 1 + run
    rgb = (rgbe[:, :3] * np.exp2(rgbe[:, 3:].astype(np.float64) - 136)).transpose(0, 2, 1)
    exposed = rgb * (0.35 / (np.exp(np.log(rgb + 1e-4).mean()) + 1e-6))
    return _to_image((exposed / (1 + exposed * 0.4)) ** (1 / 2.2))


@lru_cache(maxsize=512)
def _load(path: Path) -> Image8:
    if path.suffix.lower() == ".hdr":
        return read_hdr(path)
    with Image.open(path) as image:
        image.draft("RGB", (1024, 1024))
        rgb = image.convert("RGB")
        rgb.thumbnail((1280, 1280), Image.Resampling.BOX)
        return np.asarray(rgb)


class TextureBank:
    """Random square pictures ``[S, S, 3]`` uint8: procedural, or cut from the photographs of some folders.

    Args:
        folders: where photographs are; empty for procedural textures only.
        photo_share: share of textures cut from photographs, where there are any.
    """

    def __init__(self, folders: list[Path] | None = None, photo_share: float = 0.7) -> None:
        files = (path for folder in folders or () for path in folder.rglob("*"))
        self.files = sorted(path for path in files if path.suffix.lower() in _SUFFIXES)
        self.photo_share = photo_share if self.files else 0.0

    def sample(self, rng: np.random.Generator, size: int, zoom: tuple[float, float] = (0.15, 1.0)) -> Image8:
        """One picture; photographs are cropped to a share of their shorter side between the two of ``zoom``."""
        return procedural_texture(rng, size) if rng.random() >= self.photo_share else self._piece(rng, size, zoom)

    def _piece(self, rng: np.random.Generator, size: int, zoom: tuple[float, float]) -> Image8:
        photo = _load(self.files[rng.integers(len(self.files))])
        h, w = photo.shape[:2]
        most = min(h, w)
        side = min(max(int(most * rng.uniform(*zoom)), min(size, most)), most)
        top, left = int(rng.integers(h - side + 1)), int(rng.integers(w - side + 1))
        crop = Image.fromarray(photo[top : top + side, left : left + side])
        way = Image.Resampling.BOX if side > size else Image.Resampling.BICUBIC
        picture = np.asarray(crop.resize((size, size), way))
        return picture[:, ::-1] if rng.random() < 0.5 else picture

    def photo(self, number: int, size: int) -> Image8:
        """One of endlessly many seamless pictures: pieces of photographs and their mirror images.

        Raises:
            ValueError: the bank has no photographs.
        """
        if not self.files:
            raise ValueError("a bank without photographs")
        rng = np.random.default_rng((number, 77))
        piece = self._piece(rng, size // 2, (0.25, 1.0))
        row = np.concatenate([piece, piece[:, ::-1]], 1)
        return np.concatenate([row, row[::-1]])

"""Procedural textures with natural statistics: 1/f noise, dead leaves, bricks, boards, weaves, pages of print."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Image8 = NDArray[np.uint8]  # [S, S, 3]
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".hdr")


def _palette(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """``[n, 3]`` colours in 0..1 around a common tint: surfaces share a light, few are saturated."""
    base = rng.uniform(0.15, 0.85)
    tint = rng.normal(0, 0.05, 3)
    spread = rng.uniform(0.05, 0.3)
    return np.clip(base + tint + rng.normal(0, spread, (n, 1)) + rng.normal(0, spread * 0.25, (n, 3)), 0.02, 0.98)


def power_law_noise(rng: np.random.Generator, size: int, exponent: float) -> NDArray[np.float64]:
    """``[size, size]`` noise whose amplitude falls as ``f ** -exponent``, scaled to mean 0 and deviation 1."""
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    stretch = rng.uniform(0.3, 3.0) if rng.random() < 0.3 else 1.0
    frequency = np.hypot(fy * stretch, fx)
    frequency[0, 0] = 1.0
    spectrum = (rng.normal(size=frequency.shape) + 1j * rng.normal(size=frequency.shape)) / frequency**exponent
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, s=(size, size))
    return (noise - noise.mean()) / (noise.std() + 1e-9)


def _to_image(values: NDArray[np.float64]) -> Image8:
    return (np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)


def _grain(rng: np.random.Generator, image: Image8) -> Image8:
    noise = power_law_noise(rng, image.shape[0], rng.uniform(0.4, 1.3))
    return _to_image(image / 255.0 + noise[..., None] * rng.uniform(0.01, 0.08))


def marble(rng: np.random.Generator, size: int) -> Image8:
    """Layers of 1/f noise mapped through a short colour ramp: plaster, stone, foliage far away."""
    ramp = _palette(rng, 4)
    value = power_law_noise(rng, size, rng.uniform(0.8, 1.7))
    if rng.random() < 0.4:
        value = np.sin(value * rng.uniform(2, 8))
    position = np.clip((value + 2) / 4, 0, 0.999) * 3
    low, mix = position.astype(int), (position % 1)[..., None]
    return _to_image(ramp[low] * (1 - mix) + ramp[low + 1] * mix)


def dead_leaves(rng: np.random.Generator, size: int) -> Image8:
    """Occluding shapes with power-law sizes (Lee, Mumford and Huang 2001): edges at every scale."""
    image = Image.new("RGB", (size, size))
    draw = ImageDraw.Draw(image)
    colors = (_palette(rng, 48) * 255).astype(int)
    smallest = rng.uniform(0.006, 0.03)
    for _ in range(int(rng.integers(200, 900))):
        radius = size * smallest * (1 - rng.random() * 0.995) ** -0.5
        x, y = rng.uniform(0, size, 2)
        color = tuple(int(c) for c in colors[rng.integers(48)])
        if rng.random() < 0.4:
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=color)
        else:
            corners = int(rng.integers(3, 7))
            angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
            reach = radius * rng.uniform(0.6, 1.4, corners)
            draw.polygon([(x + r * np.cos(a), y + r * np.sin(a)) for r, a in zip(reach, angles)], fill=color)
    return _grain(rng, np.asarray(image))


def bricks(rng: np.random.Generator, size: int) -> Image8:
    """Rows of blocks with joints: walls, tiles, floorboards, book spines, depending on the proportions."""
    rows = int(rng.integers(3, 20))
    aspect = rng.choice([0.15, 0.4, 1.0, 2.0, 4.0, 8.0])
    height = size / rows
    image = Image.new("RGB", (size, size), tuple(int(c * 255) for c in _palette(rng, 1)[0]))
    draw = ImageDraw.Draw(image)
    colors = _palette(rng, 32)
    gap = rng.uniform(0.0, 0.12) * min(height, height * aspect)
    for row in range(rows):
        x = -rng.uniform(0, height * aspect)
        while x < size:
            width = height * aspect * rng.uniform(0.7, 1.3)
            color = tuple(int(c * 255) for c in colors[rng.integers(32)])
            draw.rectangle([x, row * height, x + width - gap, (row + 1) * height - gap], fill=color)
            x += width
    return _grain(rng, np.asarray(image if rng.random() < 0.6 else image.rotate(90)))


def weave(rng: np.random.Generator, size: int) -> Image8:
    """Stripes and checks: cloth, blinds, wallpaper."""
    axis = np.arange(size) / size
    colors = _palette(rng, 3)
    a = np.sin(2 * np.pi * axis * rng.uniform(4, 40) + rng.uniform(0, 6))
    b = np.sin(2 * np.pi * axis * rng.uniform(4, 40) + rng.uniform(0, 6)) * rng.choice([0.0, 0.5, 1.0])
    sharp = rng.choice([0.8, 3.0, 20.0])
    u = 1 / (1 + np.exp(-sharp * a))[None, :, None]
    v = 1 / (1 + np.exp(-sharp * b))[:, None, None]
    return _grain(rng, _to_image(colors[0] * u + colors[1] * (1 - u) + (colors[2] - 0.5) * (v - 0.5)))


def print_page(rng: np.random.Generator, size: int) -> Image8:
    """Lines of letter-like strokes and a picture or two: posters, labels, pages."""
    paper, ink = _palette(rng, 2)
    paper = np.clip(paper + (0.35 if rng.random() < 0.7 else -0.2), 0, 1)
    image = Image.new("RGB", (size, size), tuple(int(c * 255) for c in paper))
    draw = ImageDraw.Draw(image)
    line = size / rng.integers(8, 30)
    color = tuple(int(c * 255) for c in np.clip(ink * 0.5, 0, 1))
    y = line
    while y < size - line:
        x = line
        while x < size - line:
            step = line * rng.uniform(0.25, 0.6)
            if rng.random() < 0.85:
                x1, y1 = x + step * rng.uniform(-0.2, 0.9), y + line * 0.6 * rng.uniform(-0.2, 1)
                draw.line([(x, y), (x1, y + line * 0.6), (x1, y1)], fill=color, width=max(1, int(line * 0.12)))
            x += step
        y += line
    for _ in range(int(rng.integers(0, 4))):
        x, y = rng.uniform(0, size * 0.7, 2)
        picture = Image.fromarray(marble(rng, 64)).resize((int(size * rng.uniform(0.1, 0.4)),) * 2)
        image.paste(picture, (int(x), int(y)))
    return np.asarray(image)


KINDS: tuple[Callable[[np.random.Generator, int], Image8], ...] = (
    marble,
    dead_leaves,
    dead_leaves,
    bricks,
    weave,
    print_page,
)


def procedural_texture(rng: np.random.Generator, size: int = 256) -> Image8:
    """One random texture, ``[size, size, 3]`` uint8, deterministic in ``rng``."""
    return KINDS[rng.integers(len(KINDS))](rng, size)


def read_hdr(path: Path) -> Image8:
    """A Radiance ``.hdr`` panorama (run-length encoded RGBE), exposed to a middle grey and gamma encoded.

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
                count = int(raw[at])
                if count > 128:
                    channel[filled : filled + count - 128] = raw[at + 1]
                    filled, at = filled + count - 128, at + 2
                else:
                    channel[filled : filled + count] = raw[at + 1 : at + 1 + count]
                    filled, at = filled + count, at + 1 + count
    rgb = rgbe[:, :3].astype(np.float64) * np.exp2(rgbe[:, 3:].astype(np.float64) - 136)
    rgb = rgb.transpose(0, 2, 1)
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


def image_files(folders: list[Path]) -> list[Path]:
    """All pictures under the folders, sorted."""
    return sorted(p for folder in folders for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)


class TextureBank:
    """Random square pictures: procedural, or cut from the photographs of some folders.

    Args:
        folders: where photographs are; empty for procedural textures only.
        photo_share: share of textures cut from photographs, where there are any.
    """

    def __init__(self, folders: list[Path] | None = None, photo_share: float = 0.7) -> None:
        self.files = image_files(folders or [])
        self.photo_share = photo_share if self.files else 0.0

    def sample(self, rng: np.random.Generator, size: int, zoom: tuple[float, float] = (0.15, 1.0)) -> Image8:
        """A ``[size, size, 3]`` uint8 picture; photographs are cropped to a random share of their shorter side."""
        if rng.random() >= self.photo_share:
            return procedural_texture(rng, size)
        photo = _load(self.files[rng.integers(len(self.files))])
        h, w = photo.shape[:2]
        side = int(min(h, w) * rng.uniform(*zoom))
        side = min(max(side, min(size, min(h, w))), min(h, w))
        top, left = int(rng.integers(h - side + 1)), int(rng.integers(w - side + 1))
        crop = Image.fromarray(photo[top : top + side, left : left + side])
        picture = np.asarray(
            crop.resize((size, size), Image.Resampling.BOX if side > size else Image.Resampling.BICUBIC)
        )
        return picture[:, ::-1] if rng.random() < 0.5 else picture

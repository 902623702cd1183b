"""What things are made of: materials by their role."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fvgen.procedural.mesh import Array, Material
from fvgen.procedural.textures import KINDS, TEXTURE, TextureBank, mask, power_law_noise, pyramid

_VARIANTS = 12  # of each pattern; colours and scales make more of them
_PHOTOS = 512
_OWN = {"print_page", "dead_leaves", "facade", "boards"}  # patterns whose own colours are kept more often

# Role: patterns, metres per repeat, colours (hue, saturation, brightness of the albedo, each low to high), gloss.
_Range = tuple[float, float]
ROLES: dict[str, tuple[str, _Range, tuple[_Range, _Range, _Range], _Range]] = {
    "paint": ("plaster plaster plaster weave marble", (1, 3), ((-0.05, 0.65), (0.02, 0.2), (0.35, 0.8)), (0, 0.1)),
    "brick": ("masonry masonry bricks", (0.8, 1.8), ((0.0, 0.12), (0.1, 0.6), (0.15, 0.5)), (0, 0)),
    "stone": ("pebbles marble plaster bricks", (0.7, 2.5), ((0.05, 0.2), (0, 0.25), (0.15, 0.6)), (0, 0.2)),
    "wood": ("boards", (0.5, 1.6), ((0.04, 0.11), (0.3, 0.7), (0.08, 0.45)), (0, 0.4)),
    "floor": ("boards tiles tiles grass weave", (0.7, 2.2), ((0, 0.15), (0, 0.5), (0.1, 0.5)), (0, 0.5)),
    "cloth": ("weave grass plaster dead_leaves", (0.2, 0.9), ((0, 1.0), (0.05, 0.7), (0.06, 0.6)), (0, 0)),
    "metal": ("plaster marble", (0.5, 2.0), ((0.5, 0.7), (0, 0.15), (0.1, 0.6)), (0.3, 1.0)),
    "plastic": ("plaster", (0.5, 2.0), ((0.0, 1.0), (0.2, 0.95), (0.08, 0.8)), (0.1, 0.9)),
    "ceramic": ("plaster marble bricks weave", (0.2, 0.6), ((0, 1.0), (0, 0.6), (0.15, 0.8)), (0.3, 1.0)),
    "goods": ("print_page print_page bricks weave", (0.3, 0.5), ((0, 1.0), (0.1, 0.9), (0.1, 0.7)), (0, 0.3)),
    "picture": ("dead_leaves marble print_page", (1.0, 1.0), ((0, 1.0), (0.05, 0.5), (0.2, 0.6)), (0, 0.2)),
    "lawn": ("grass grass dead_leaves", (0.8, 2.5), ((0.17, 0.33), (0.25, 0.6), (0.08, 0.3)), (0, 0)),
    "earth": ("pebbles marble dead_leaves", (0.7, 2.5), ((0.05, 0.12), (0.1, 0.45), (0.1, 0.4)), (0, 0)),
    "road": ("plaster pebbles tiles bricks", (0.6, 2.0), ((0.05, 0.65), (0, 0.1), (0.07, 0.4)), (0, 0.2)),
    "bark": ("boards pebbles", (0.3, 0.8), ((0.04, 0.1), (0.1, 0.4), (0.06, 0.3)), (0, 0)),
    "skin": ("plaster", (0.5, 1.0), ((0.04, 0.08), (0.3, 0.55), (0.15, 0.6)), (0, 0.1)),
    "leaf": ("grass dead_leaves marble", (0.3, 1.0), ((0.12, 0.36), (0.3, 0.75), (0.06, 0.35)), (0, 0.2)),
    "flower": ("marble plaster", (0.3, 1.0), ((0, 1.0), (0.4, 0.9), (0.3, 0.8)), (0, 0)),
    "roof": ("bricks masonry pebbles", (0.8, 2.0), ((0.0, 0.1), (0.1, 0.6), (0.08, 0.4)), (0, 0.1)),
    "facade": ("facade", (5.0, 9.0), ((0, 0.15), (0.05, 0.4), (0.25, 0.6)), (0, 0.1)),
    "books": ("bricks", (0.6, 1.0), ((0, 1.0), (0.1, 0.6), (0.1, 0.4)), (0, 0.1)),
}
_PHOTO_ROLES = {"paint", "stone", "floor", "cloth", "picture", "goods", "earth", "road", "facade", "lawn", "brick"}


@lru_cache(maxsize=256)
def _pattern(kind: str, variant: int) -> NDArray[np.uint8]:
    name = sum(ord(c) * 31**i for i, c in enumerate(kind)) % (1 << 31)
    return pyramid(KINDS[kind](np.random.default_rng((name, variant)), TEXTURE))


@lru_cache(maxsize=1)
def _wear() -> NDArray[np.uint8]:
    """The texture of slow changes of brightness."""
    noise = power_law_noise(np.random.default_rng(7), TEXTURE, 1.6, stretch=1.0)
    return pyramid(np.repeat((np.clip(0.5 + 0.22 * noise, 0, 1) ** 0.5 * 255).astype(np.uint8)[..., None], 3, 2))


def linear_rgb(hue: float, saturation: float, brightness: float) -> Array:
    """``[3]`` linear albedo of a hue and saturation (0..1) with a given mean."""
    k = (np.array([0.0, 4.0, 2.0]) + hue * 6) % 6
    full = np.clip(np.abs(k - 3) - 1, 0, 1)
    color = 1 - saturation * (1 - full)
    return np.clip(color * brightness / color.mean(), 0.01, 0.95)


class Looks:
    """The materials of one scene; few of each role, so that things repeat as they do in real places.

    Args:
        rng: everything random.
        bank: of photographs, which then cover some surfaces.
    """

    def __init__(self, rng: np.random.Generator, bank: TextureBank) -> None:
        self.rng, self.bank = rng, bank
        self.pyramids: list[NDArray[np.uint8]] = [_wear()]
        self.masks: list[NDArray[np.float32]] = []
        self._numbers: dict[tuple[str, int], int] = {}
        self._made: dict[str, list[Material]] = {}

    def of(self, role: str) -> Material:
        """A material of a role, often one that was used before."""
        made = self._made.setdefault(role, [])
        if len(made) < 2 or (len(made) < 6 and self.rng.random() < 0.35):
            made.append(self._new(role))
        return made[self.rng.integers(len(made))]

    def cut(self, role: str, shape: str) -> Material:
        """A material with a cut-out outline; see `fvgen.procedural.textures.MASKS`."""
        base, variant = self.of(role), int(self.rng.integers(4))
        self.masks.append(mask(shape, variant))
        return Material(base.texture, base.gain, base.lift, 0.0, 0.0, mask=len(self.masks) - 1, wear=0.1)

    def _new(self, role: str) -> Material:
        rng = self.rng
        kinds, scale, ranges, gloss = ROLES[role]
        color = linear_rgb(*(float(rng.uniform(*r)) for r in ranges))
        number, mean, spread, own = self._texture(role, kinds.split())
        gain = color / np.maximum(mean, 0.02)
        if own:
            gain = np.full(3, float(np.clip(color.mean() / max(mean.mean(), 0.02), 0.6, 1.8)))
        gain = np.clip(gain, 0.15, 2.5)
        # Softer patterns: contrast beyond that of real surfaces gives way to the plain colour.
        calm = 0.0 if own else 1 - min(1.0, float(rng.uniform(0.08, 0.45)) / max(spread, 1e-3))
        lift = calm * gain * mean
        return Material(
            number,
            tuple(float(g) for g in gain * (1 - calm)),  # type: ignore[arg-type]
            tuple(float(x) for x in lift),  # type: ignore[arg-type]
            float(rng.uniform(*scale)),
            float(rng.uniform(*gloss)),
            wear=float(rng.uniform(0.05, 0.5)),
            chroma=float(rng.uniform(0.5, 1.0)) if own else float(rng.uniform(0.05, 0.4)),
        )

    def _texture(self, role: str, kinds: list[str]) -> tuple[int, Array, float, bool]:
        """Its number, mean linear albedo, relative deviation of brightness, and whether it keeps its own colours."""
        rng, photo = self.rng, role in _PHOTO_ROLES and self.rng.random() < self.bank.photo_share
        kind = "photo" if photo else kinds[rng.integers(len(kinds))]
        key = (kind, int(rng.integers(_PHOTOS if photo else _VARIANTS)))
        if key not in self._numbers:
            self._numbers[key] = len(self.pyramids)
            self.pyramids.append(pyramid(self.bank.photo(key[1], TEXTURE)) if photo else _pattern(*key))
        number = self._numbers[key]
        coarse = (self.pyramids[number][-1360:-336].astype(float) / 255) ** 2  # 32 x 32
        grey = coarse.mean(1)
        own = photo or (kind in _OWN and rng.random() < 0.6)
        return number, coarse.mean(0), float(grey.std() / max(grey.mean(), 1e-3)), own

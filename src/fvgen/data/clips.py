"""Which stretches of footage become clips, and what their pictures alone say against them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fvgen.data.recipe import PrepareRecipe

_SMALL = (36, 64)  # height and width at which pictures are compared
_CUT = 0.10  # mean difference of neighbouring pictures of two shots, after matching their brightness ...
_CUT_TIMES = 4.0  # ... and as many times that of the clip's other neighbours
_STATIC = 0.012  # mean difference of the first and the last picture when nothing moved but noise
_BLUR = 0.3  # detail of the blurriest picture over the clip's median
_DETAIL = 0.002  # detail of a clip that shows anything
_FEWEST_CORRELATED = 0.5


@dataclass(frozen=True)
class Stretch:
    """A stretch of footage: ``length`` frames from number ``start`` on, every ``stride``-th."""

    start: int
    stride: int
    length: int

    @property
    def rows(self) -> list[int]:
        """Numbers of the frames in the footage."""
        return [self.start + k * self.stride for k in range(self.length)]

    @property
    def span(self) -> int:
        """Frames of the footage from the first to the last."""
        return (self.length - 1) * self.stride

    def contains(self, other: "Stretch") -> bool:
        """Whether it begins no later than another and ends no earlier."""
        return self.start <= other.start and other.start + other.span <= self.start + self.span


def stretches(count: int, recipe: PrepareRecipe, rng: np.random.Generator) -> list[Stretch]:
    """Random stretches of footage of ``count`` frames to try, each once, in random order.

    Strides are uniform over those that fit (the paper's are below 5), starts uniform over what a stride leaves.
    """
    found: dict[Stretch, None] = {}
    for _ in range(4 * recipe.clips * recipe.attempts):
        length = int(rng.integers(recipe.least_frames or recipe.frames, recipe.frames + 1))
        fitting = [s for s in range(1, recipe.longest_stride + 1) if (length - 1) * s < count]
        if fitting:
            stride = int(rng.choice(fitting))
            found.setdefault(Stretch(int(rng.integers(count - (length - 1) * stride)), stride, length))
        if len(found) == recipe.clips * recipe.attempts:
            break
    return list(found)


def overlapping(stretch: Stretch, others: Sequence[Stretch], share: float) -> bool:
    """Whether more than a share of a stretch's span is in one that was taken already."""
    first, last = stretch.start, stretch.start + stretch.span
    common = [min(last, other.start + other.span) - max(first, other.start) for other in others]
    return any(c > share * stretch.span for c in common)


def against(images: Sequence[Tensor]) -> str:
    """What the pictures ``[H, W, 3]`` uint8 of a clip say against it.

    Returns:
        ``"size changes"``, ``"shot cut"``, ``"static"``, ``"blur"``, ``"no detail"``, or nothing.
    """
    if len({tuple(image.shape) for image in images}) > 1:
        return "size changes"
    grey = torch.stack([_grey(image, _SMALL) for image in images])
    if _cut(grey):
        return "shot cut"
    if float((grey[-1] - grey[0]).abs().mean()) < _STATIC:
        return "static"
    detail = np.array([_detail(image) for image in images])
    usual = np.median(detail, axis=0)
    if usual.max() < _DETAIL:
        return "no detail"
    return "blur" if bool((detail.min(0) < _BLUR * usual).any()) else ""


def _grey(image: Tensor, size: tuple[int, int]) -> Tensor:
    """``[h, w]`` 0..1."""
    weights = torch.tensor([0.299, 0.587, 0.114])
    grey = (image.float() @ weights)[None, None] / 255
    return F.interpolate(grey, size, mode="area")[0, 0]


def _cut(grey: Tensor) -> bool:
    """Whether some neighbours of ``[T, h, w]`` differ far more than all others and have little in common."""
    level = grey - grey.mean((1, 2), keepdim=True)
    steps = (level[1:] - level[:-1]).abs().mean((1, 2))
    norm = level.flatten(1).norm(dim=1).clamp_min(1e-6)
    alike = (level[1:] * level[:-1]).sum((1, 2)) / (norm[1:] * norm[:-1])
    worst = int(steps.argmax())
    others = torch.cat([steps[:worst], steps[worst + 1 :]])
    usual = float(others.median()) if len(others) else 0.0
    return bool(steps[worst] > max(_CUT, _CUT_TIMES * usual) and alike[worst] < _FEWEST_CORRELATED)


def _detail(image: Tensor) -> tuple[float, float]:
    """Mean absolute second differences along x and y at 256 pixels' width: one is low where the camera moved."""
    width = 256
    height = max(3, round(image.shape[0] * width / image.shape[1]))
    g = _grey(image, (height, width))
    return float(g.diff(n=2, dim=1).abs().mean()), float(g.diff(n=2, dim=0).abs().mean())

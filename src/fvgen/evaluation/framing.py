"""How a scene's pictures become the pictures that are scored: scaled to cover a size, a part of it cut out."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.errors import UserError
from fvgen.rendering.guide import resample_photo

Box = tuple[float, float, float, float]

LEAST = 64  # pixels on a side that metrics need


@dataclass(frozen=True)
class Framing:
    """Size and crop.

    Attributes:
        size: (width, height) of the pictures.
        through: pictures are first scaled to cover this size and cut to it, then ``size`` is cut out of it without
            scaling, as MVSplat360 does; ``None``: they are scaled to cover ``size`` itself.
        corner: (left, top) of the part that is cut out of ``through``; ``None``: its centre.
    """

    size: tuple[int, int]
    through: tuple[int, int] | None = None
    corner: tuple[int, int] | None = None

    @staticmethod
    def parse(text: str) -> "Framing":
        """``WIDTHxHEIGHT`` or ``WIDTHxHEIGHT/WIDTHxHEIGHT``: size, and what it is cut out of.

        Raises:
            UserError: written otherwise, too small to be scored, or larger than what it is cut out of.
        """
        match = re.fullmatch(r"(\d+)x(\d+)(?:/(\d+)x(\d+))?", text)
        if match is None:
            raise UserError(f"{text}: write WIDTHxHEIGHT, or WIDTHxHEIGHT/WIDTHxHEIGHT, such as 448x256/480x270")
        size = (int(match[1]), int(match[2]))
        through = (int(match[3]), int(match[4])) if match[3] else None
        if min(size) < LEAST:
            raise UserError(f"{text}: pictures of {LEAST}x{LEAST} at least are scored")
        if through is not None and (through[0] < size[0] or through[1] < size[1]):
            raise UserError(f"{text}: {match[1]}x{match[2]} cannot be cut out of {match[3]}x{match[4]}")
        return Framing(size, None if through == size else through)

    def turned(self, landscape: bool) -> "Framing":
        """For portrait pictures with width and height swapped."""
        if landscape:
            return self
        swapped = (pair[::-1] if pair else None for pair in (self.through, self.corner))
        return Framing(self.size[::-1], *swapped)

    @property
    def text(self) -> str:
        """What is done, in words, for the results."""
        width, height = self.size
        if self.through is None:
            return f"scaled to cover {width}x{height} (Lanczos), cut from the centre"
        outer = "x".join(map(str, self.through))
        where = "from the centre" if self.corner is None else "at {}, {}".format(*self.corner)
        return f"scaled to cover {outer} (Lanczos), {width}x{height} cut {where} unscaled"

    def cameras(self, cameras: Cameras) -> tuple[Cameras, list[Box]]:
        """The cameras of the framed pictures, and of each the box of its photograph's pixels that it shows."""
        if self.through is None:
            return cameras.covering(*self.size)
        covering, boxes = cameras.covering(*self.through)
        left, top = self._corner
        cut = []
        for x0, y0, x1, y1 in boxes:
            pixel = (x1 - x0) / self.through[0]  # of the photograph, per pixel of the scaled picture
            corner = (x0 + left * pixel, y0 + top * pixel)
            cut.append((*corner, min(corner[0] + self.size[0] * pixel, x1), min(corner[1] + self.size[1] * pixel, y1)))
        return covering.cropped(left, top, *self.size), cut

    @property
    def _corner(self) -> tuple[int, int]:
        """Of ``size`` in ``through``."""
        outer = self.through or self.size
        return self.corner or ((outer[0] - self.size[0]) // 2, (outer[1] - self.size[1]) // 2)

    def picture(self, image: Tensor, box: Box) -> Tensor:
        """``[H, W, 3]`` float 0..1 of 256 levels."""
        return resample_photo(image, box, *self.size)

    def windows(self, shown: "Framing", cameras: Cameras) -> list[Box]:
        """Where in the pictures of this framing lies what another one shows.

        Args:
            shown: shows a part of what this framing does.
            cameras: of the whole photographs.

        Returns:
            For each photograph (left, top, right, bottom) in pixels of its framed picture, to a millionth.
        """
        places = zip(self.cameras(cameras)[1], shown.cameras(cameras)[1])
        return [_pixels(box, own, self.size) for own, box in places]

    @staticmethod
    def common(framings: Sequence["Framing"], cameras: Cameras) -> "Framing":
        """What all framings show of all photographs, in whole pixels of the coarsest of them.

        The coarsest has the fewest pixels per pixel of the photographs: nothing is enlarged to come to its scale.

        Args:
            framings: in the photographs' orientation.
            cameras: of the whole photographs.

        Raises:
            UserError: they have too little in common.
        """
        boxes = {framing: framing.cameras(cameras)[1] for framing in framings}
        coarse = min(boxes, key=lambda f: sum(f.size[0] / (x1 - x0) for x0, _, x1, _ in boxes[f]))
        low, high = [0, 0], list(coarse.size)
        for i, own in enumerate(boxes[coarse]):
            for framed in boxes.values():
                x0, y0, x1, y1 = _pixels(framed[i], own, coarse.size)
                low = [max(low[0], math.ceil(x0)), max(low[1], math.ceil(y0))]
                high = [min(high[0], math.floor(x1)), min(high[1], math.floor(y1))]
        size = (high[0] - low[0], high[1] - low[1])
        if min(size) < LEAST:
            told = ", ".join(dict.fromkeys("x".join(map(str, framing.size)) for framing in boxes))
            raise UserError(f"pictures of {told} pixels have too little in common to be scored: {size[0]}x{size[1]}")
        if size == coarse.size:
            return coarse
        left, top = coarse._corner
        return Framing(size, coarse.through or coarse.size, (left + low[0], top + low[1]))


def nearest(values: Tensor, window: Box, size: tuple[int, int]) -> Tensor:
    """What cannot be averaged, ``[H, W]``, in a window at another size: at each pixel's centre the nearest value."""
    left, top, right, bottom = window
    columns, rows = (
        (start + (torch.arange(count) + 0.5) * ((end - start) / count)).long().clamp(0, most - 1).to(values.device)
        for start, end, count, most in zip((left, top), (right, bottom), size, reversed(values.shape))
    )
    return values[rows[:, None], columns]


def _pixels(box: Box, outer: Box, size: tuple[int, int]) -> Box:
    """What a picture of ``size`` that shows ``outer`` has of a box, in its pixels, to a millionth."""
    across, down = size[0] / (outer[2] - outer[0]), size[1] / (outer[3] - outer[1])
    left, right = (min(max(round((x - outer[0]) * across, 6), 0), size[0]) for x in (box[0], box[2]))
    top, bottom = (min(max(round((y - outer[1]) * down, 6), 0), size[1]) for y in (box[1], box[3]))
    return left, top, right, bottom

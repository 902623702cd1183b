"""How a scene's pictures become the pictures that are scored: scaled to cover a size, cut from the centre."""

from dataclasses import dataclass

from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.rendering.guide import resample_photo

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Framing:
    """Size and crop.

    Attributes:
        size: (width, height) of the scored pictures.
        through: pictures are first scaled to cover this size and cut to it, then ``size`` is cut from its centre
            without scaling, as MVSplat360 does; ``None``: they are scaled to cover ``size`` itself.
    """

    size: tuple[int, int]
    through: tuple[int, int] | None = None

    def turned(self, landscape: bool) -> "Framing":
        """For portrait pictures with width and height swapped."""
        if landscape:
            return self
        return Framing(self.size[::-1], self.through[::-1] if self.through else None)

    @property
    def text(self) -> str:
        """What is done, in words, for the results."""
        width, height = self.size
        if self.through is None:
            return f"scaled to cover {width}x{height} (Lanczos), cut from the centre"
        outer = "x".join(map(str, self.through))
        return f"scaled to cover {outer} (Lanczos), {width}x{height} cut from the centre unscaled"

    def cameras(self, cameras: Cameras) -> tuple[Cameras, list[Box]]:
        """The cameras of the scored pictures, and of each the box of its photograph's pixels that it shows."""
        if self.through is None:
            return cameras.covering(*self.size)
        covering, boxes = cameras.covering(*self.through)
        left, top = ((outer - inner) // 2 for outer, inner in zip(self.through, self.size))
        cut = []
        for x0, y0, x1, _ in boxes:
            pixel = (x1 - x0) / self.through[0]  # of the photograph, per pixel of the scaled picture
            corner = (x0 + left * pixel, y0 + top * pixel)
            cut.append((*corner, corner[0] + self.size[0] * pixel, corner[1] + self.size[1] * pixel))
        return covering.cropped(left, top, *self.size), cut

    def picture(self, image: Tensor, box: Box) -> Tensor:
        """``[H, W, 3]`` float 0..1 of 256 levels."""
        return resample_photo(image, box, *self.size)

"""A result while it is being made, or whole."""

from dataclasses import dataclass, field

from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.viewer.result import Result


@dataclass
class Shown:
    """A result as far as it is there.

    Attributes:
        name: of the result.
        cameras: ``F``.
        guide: ``[F, H, W, 3]`` uint8, or ``None`` before it is rendered.
        frames: ``[F, H, W, 3]`` uint8, black where not yet done.
        done: the frames that are.
    """

    name: str
    cameras: Cameras
    guide: Tensor | None
    frames: Tensor
    done: set[int] = field(default_factory=set)


def shown_whole(result: Result) -> Shown:
    """A result that is complete."""
    return Shown(result.name, result.cameras, result.guide, result.frames, set(range(len(result.frames))))

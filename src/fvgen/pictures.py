"""Pictures as numbers."""

from torch import Tensor


def to_bytes(pictures: Tensor) -> Tensor:
    """Pictures of any shape in 0..1 as uint8 on the CPU, rounded to the nearest of 256 levels."""
    return (pictures.clamp(0, 1) * 255).round().byte().cpu()

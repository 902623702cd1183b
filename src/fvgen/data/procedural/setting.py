"""What a scene consists of."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fvgen.data.procedural.light import Lamp, Surroundings
from fvgen.data.procedural.looks import Looks
from fvgen.data.procedural.mesh import Array, Mesh
from fvgen.data.procedural.moves import Stage


@dataclass(frozen=True)
class Setting:
    """A place and its light.

    Attributes:
        mesh: everything solid.
        lamps: the sun first, if any.
        around: light from everywhere.
        sky: ``[h, w, 3]`` panorama, linear light.
        mirror: height in metres of the level plane that polished surfaces mirror in, or ``None``.
    """

    mesh: Mesh
    lamps: list[Lamp]
    around: Surroundings
    sky: Array
    mirror: float | None = None

    @property
    def mirror_matrix(self) -> Tensor:
        """``[4, 4]`` float64 that mirrors the world in that plane."""
        matrix = torch.eye(4, dtype=torch.float64)
        matrix[1, 1], matrix[1, 3] = -1, -2 * (self.mirror or 0.0)  # y points down
        return matrix


Made = tuple[Setting, Looks, Stage]

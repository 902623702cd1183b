"""A scene as 3D Gaussians (Kerbl et al. 2023), in the parameters that are optimised and stored."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

DEGREES = {1: 0, 4: 1, 9: 2, 16: 3}  # of spherical harmonics, by the number of coefficients
SH0 = 0.28209479177387814  # the constant spherical harmonic, 1 / (2 sqrt(pi))


@dataclass(frozen=True)
class Gaussians:
    """``N`` Gaussians in world coordinates.

    Attributes:
        means: ``[N, 3]`` centres, world units.
        log_scales: ``[N, 3]`` natural logarithms of the standard deviations along the own axes, world units.
        quaternions: ``[N, 4]`` wxyz, rotations of the own axes into the world; of any length but 0.
        opacity_logits: ``[N]``; the opacity is their sigmoid.
        sh: ``[N, K, 3]`` coefficients of spherical harmonics, ``K`` 1, 4, 9 or 16; colour is 0.5 plus their sum.

    Raises:
        ValueError: if the shapes do not agree.
    """

    means: Tensor
    log_scales: Tensor
    quaternions: Tensor
    opacity_logits: Tensor
    sh: Tensor

    def __post_init__(self) -> None:
        n = self.means.shape[0]
        shapes = [tuple(getattr(self, f.name).shape) for f in fields(self)]
        k = self.sh.shape[1] if self.sh.ndim == 3 else 0
        if shapes != [(n, 3), (n, 3), (n, 4), (n,), (n, k, 3)] or k not in DEGREES:
            raise ValueError(f"Gaussians need shapes [N,3], [N,3], [N,4], [N], [N,1|4|9|16,3], got {shapes}")

    def __len__(self) -> int:
        return self.means.shape[0]

    def __getitem__(self, index: slice | Tensor) -> "Gaussians":
        """Select Gaussians by a slice, a mask or numbers."""
        return Gaussians(**{name: value[index] for name, value in self.parameters().items()})

    @property
    def degree(self) -> int:
        """Of the spherical harmonics, 0 to 3."""
        return DEGREES[self.sh.shape[1]]

    @property
    def scales(self) -> Tensor:
        """``[N, 3]`` standard deviations."""
        return self.log_scales.exp()

    @property
    def opacities(self) -> Tensor:
        """``[N]`` in 0..1."""
        return self.opacity_logits.sigmoid()

    @property
    def base_colors(self) -> Tensor:
        """``[N, 3]`` the part of the colour that is the same from all sides; about 0..1."""
        return 0.5 + SH0 * self.sh[:, 0]

    def parameters(self) -> dict[str, Tensor]:
        """The tensors by name, in a fixed order."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @staticmethod
    def concatenate(batches: list["Gaussians"]) -> "Gaussians":
        """Join batches of one degree."""
        parts = [batch.parameters() for batch in batches]
        return Gaussians(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]})

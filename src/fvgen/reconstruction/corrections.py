"""Small errors of generated frames: their colours, and where their cameras seem to stand."""

import torch
from torch import Tensor, nn


class Corrections(nn.Module):
    """For each frame an affine map of colours and a rigid motion of its camera, both nothing at first.

    Args:
        frames: how many.
        depth: a typical depth of the scene, world units; scales translations so that rotations and translations move
            pixels alike.

    Attributes:
        colors: ``[F, 3, 4]``, added to identity and zero.
        motions: ``[F, 6]`` axis times angle in radians, and a translation in units of ``depth``.
    """

    def __init__(self, frames: int, depth: float) -> None:
        super().__init__()
        self.depth = depth
        self.colors = nn.Parameter(torch.zeros(frames, 3, 4))
        self.motions = nn.Parameter(torch.zeros(frames, 6))

    def color(self, frame: int, image: Tensor) -> Tensor:
        """``[H, W, 3]`` as this frame shows it: ``image + image A' + b``."""
        change = self.colors[frame]
        return image + image @ change[:, :3].T + change[:, 3]

    def camera(self, frame: int, camera_from_world: Tensor) -> Tensor:
        """``[4, 4]`` the camera moved in its own axes."""
        motion = self.motions[frame]
        moved = rigid(motion[:3], motion[3:] * self.depth).to(camera_from_world)
        return moved @ camera_from_world

    def penalty(self, frame: int, color: float, motion: float) -> Tensor:
        """Weighted squares of both, zero where nothing is corrected."""
        return color * self.colors[frame].square().sum() + motion * self.motions[frame].square().sum()


def rigid(rotation: Tensor, translation: Tensor) -> Tensor:
    """``[4, 4]`` a rotation by the axis times angle ``rotation [3]``, then a shift by ``translation [3]``."""
    x, y, z = rotation
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).view(3, 3)
    top = torch.cat([torch.linalg.matrix_exp(skew), translation[:, None]], 1)
    return torch.cat([top, top.new_tensor([[0.0, 0, 0, 1]])])

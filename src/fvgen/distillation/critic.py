"""The trainable part of the critic: 3D convolutions on the frozen teacher's middle-block features."""

from torch import Tensor, nn


class CriticHead(nn.Module):
    """``[B, C, T, h, w]`` features -> ``[B]`` logits, positive for real; any latent size and length.

    Args:
        channels: of the features.
        width: of the head.
    """

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(1, channels),
            nn.Conv3d(channels, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv3d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv3d(width, 1, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """The mean over time and space of the last map: padding and pooling, so no size is special."""
        return self.layers(features).float().mean(dim=(1, 2, 3, 4))

"""What a camera makes of light: exposure, white balance, vignetting, a curve, noise."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Lens:
    """Settings of one clip.

    Attributes:
        exposure: factor on linear light.
        key: mean brightness aimed at.
        white: ``[3]`` gains of the channels at the start.
        drift: ``[3]`` gains of the channels at the end, in proportion to the start.
        vignette: light lost in the corners, 0..1.
        noise: standard deviation in 0..1 of the picture.
        saturation: 1 keeps colours.
        contrast: of the curve, 0..1.
        seed: of the noise.
    """

    exposure: float
    key: float
    white: tuple[float, float, float]
    drift: tuple[float, float, float]
    vignette: float
    noise: float
    saturation: float
    contrast: float
    seed: int

    def exposed_for(self, light: Tensor) -> "Lens":
        """With the exposure that suits linear light ``[..., 3]``: between that of the mean and of the median."""
        grey = light.mean(-1).flatten().double().cpu()
        level = float((grey.mean() * grey.median()).sqrt())
        return replace(self, exposure=self.key / max(level, 1e-4))

    def develop(self, light: Tensor, times: Tensor) -> Tensor:
        """Pictures ``[N, H, W, 3]`` uint8 of linear light at moments ``[N]`` (0..1) of the clip."""
        count, height, width, _ = light.shape
        times = times.to(light)[:, None]
        gains = light.new_tensor(self.white) * (1 + times * (light.new_tensor(self.drift) - 1))
        y, x = (torch.linspace(-1, 1, n, device=light.device) for n in (height, width))
        corner = (y.square()[:, None] + x.square()) / 2
        value = light * (gains * self.exposure)[:, None, None] * (1 - self.vignette * corner)[..., None]
        grey = value.mean(-1, keepdim=True)
        value = (grey + (value - grey) * self.saturation).clamp(min=0)
        # A shoulder: highlights fade into white instead of being cut.
        value = ((value * (1 + value / 9) / (1 + value)).sqrt() * 1.18).clamp(0, 1)
        value = value.lerp(value * value * (3 - 2 * value), self.contrast)
        if self.noise > 0:
            value = value + self.noise * torch.stack([self._grain(t, light) for t in times[:, 0]])
        return (value.clamp(0, 1) * 255 + 0.5).to(torch.uint8)

    def _grain(self, moment: Tensor, light: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1009 + round(float(moment) * 1e6) + light.shape[1])
        return torch.randn(light.shape[1:], generator=generator).to(light.device)


def random_lens(rng: np.random.Generator, seed: int) -> Lens:
    """Settings as cameras have them; one in three changes its exposure along the clip."""
    warm = rng.normal(0, 0.05)
    drift = np.ones(3)
    if rng.random() < 0.33:
        drift = drift * rng.uniform(0.85, 1.18) * np.exp(rng.normal(0, 0.015, 3))
    return Lens(
        1.0,
        float(rng.uniform(0.22, 0.5)),
        (float(1 + warm), float(1 + rng.normal(0, 0.01)), float(1 - warm)),
        (float(drift[0]), float(drift[1]), float(drift[2])),
        float(rng.uniform(0, 0.25)) if rng.random() < 0.5 else 0.0,
        float(rng.uniform(0, 0.012)) if rng.random() < 0.4 else 0.0,
        float(rng.uniform(0.85, 1.25)),
        float(rng.uniform(0.1, 0.8)),
        seed % (1 << 40),
    )

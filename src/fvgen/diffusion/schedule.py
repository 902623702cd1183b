"""Noise schedule of the teacher: variance preserving, zero terminal SNR, v-prediction, latents scaled by t.

Notation: ``a_t = sqrt(alpha_bar_t)``, ``s_t = sqrt(1 - alpha_bar_t)``, ``c_t`` the dynamic scale of the latents.
Outside this module ``x0`` always means the unscaled latent; nothing else knows ``c_t``::

    x_t = a_t c_t x0 + s_t e        v = a_t e - s_t c_t x0        x0 = (a_t x_t - s_t v) / c_t
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ScheduleConfig:
    """How the schedule is built.

    Attributes:
        num_timesteps: length ``T`` of the training schedule.
        linear_start: first value of the betas (their square roots are linear in t).
        linear_end: last value of the betas.
        zero_terminal_snr: rescale so that ``alpha_bar_{T-1} = 0`` exactly (Lin et al. 2024, algorithm 1).
        base_scale: ``c_t`` falls linearly from 1 to this over the first ``scale_steps`` steps, then stays.
        scale_steps: over how many steps ``c_t`` falls.
    """

    num_timesteps: int = 1000
    linear_start: float = 0.00085
    linear_end: float = 0.012
    zero_terminal_snr: bool = True
    base_scale: float = 1.0
    scale_steps: int = 400


def betas(config: ScheduleConfig) -> Tensor:
    """The variance added at each step, ``[T]`` float64, 1 at the last with zero terminal SNR."""
    roots = torch.linspace(config.linear_start**0.5, config.linear_end**0.5, config.num_timesteps, dtype=torch.float64)
    if not config.zero_terminal_snr:
        return roots**2
    root = torch.cumprod(1 - roots**2, dim=0).sqrt()
    # Shifted first and scaled then, as the teacher does, to reproduce its float64 rounding.
    root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    return 1 - torch.cat([root[:1] ** 2, root[1:] ** 2 / root[:-1] ** 2])


def alphas_cumprod(config: ScheduleConfig) -> Tensor:
    """``alpha_bar_t`` as ``[T]`` float64."""
    return torch.cumprod(1 - betas(config), dim=0)


class NoiseSchedule:
    """Conversions between ``x0``, noise, ``v`` and ``x_t`` at integer times.

    All methods take ``t`` as ``[B]`` int64 and latents as ``[B, ...]``; they compute in float32.
    """

    def __init__(self, config: ScheduleConfig) -> None:
        self.config = config
        self.alphas_cumprod = alphas_cumprod(config).float()
        ramp = torch.linspace(1.0, config.base_scale, config.scale_steps)
        rest = torch.full((max(config.num_timesteps - config.scale_steps, 0),), config.base_scale)
        self.scale = torch.cat([ramp, rest])[: config.num_timesteps]
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def coefficients(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``a_t``, ``s_t``, ``c_t``, broadcastable to ``like``."""
        shape = (-1,) + (1,) * (like.ndim - 1)
        alphas, scale = self._on(like.device)
        t = t.to(like.device)
        alpha = alphas[t].reshape(shape)
        return alpha.sqrt(), (1 - alpha).sqrt(), scale[t].reshape(shape)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The tables on a device, copied there once: a copy of ``t`` to the CPU would make a GPU wait at every call."""
        if device not in self._tables:
            self._tables[device] = self.alphas_cumprod.to(device), self.scale.to(device)
        return self._tables[device]

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """``x_t = a_t c_t x0 + s_t e``."""
        a, s, c = self.coefficients(t, x0)
        return a * c * x0.float() + s * noise.float()

    def velocity(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The training target ``v = a_t e - s_t c_t x0``."""
        a, s, c = self.coefficients(t, x0)
        return a * noise.float() - s * c * x0.float()

    def x0_from_velocity(self, x_t: Tensor, v: Tensor, t: Tensor) -> Tensor:
        """``x0 = (a_t x_t - s_t v) / c_t``."""
        a, s, c = self.coefficients(t, x_t)
        return (a * x_t.float() - s * v.float()) / c

    def velocity_from_x0(self, x_t: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        """The inverse of :meth:`x0_from_velocity`; finite because ``s_t > 0`` for every t."""
        a, s, c = self.coefficients(t, x_t)
        return (a * x_t.float() - c * x0.float()) / s

    def noise_from_velocity(self, x_t: Tensor, v: Tensor, t: Tensor) -> Tensor:
        """``e = a_t v + s_t x_t``."""
        a, s, _ = self.coefficients(t, x_t)
        return a * v.float() + s * x_t.float()

    def trailing_timesteps(self, steps: int) -> list[int]:
        """Sampling times, high to low: four steps of a thousand are 999, 749, 499, 249.

        Raises:
            ValueError: if ``steps`` is not in ``1..T``.
        """
        total = self.config.num_timesteps
        if not 1 <= steps <= total:
            raise ValueError(f"the number of steps must be between 1 and {total}, not {steps}")
        return [round(total - k * total / steps) - 1 for k in range(steps)]

"""The constants of the noise schedule that a ViewCrafter checkpoint holds, computed again bit for bit."""

import torch
from torch import Tensor

from fvgen.diffusion import ScheduleConfig
from fvgen.diffusion.schedule import alphas_cumprod, betas


def schedule_buffers(config: ScheduleConfig) -> dict[str, Tensor]:
    """Every buffer by its name in the checkpoint, float32.

    ``scale_arr`` is ``scale_steps`` longer than the schedule; the ``sqrt_recip`` pair, which a velocity-predicting
    model does not use, is zero; the posterior is that of Ho et al. 2020, equations 6 and 7.
    """
    cumulative = alphas_cumprod(config)
    before = torch.cat([cumulative.new_ones(1), cumulative[:-1]])
    noise = betas(config)
    variance = noise * (1 - before) / (1 - cumulative)
    ramp = torch.linspace(1.0, config.base_scale, config.scale_steps, dtype=torch.float64)
    rest = torch.full((config.num_timesteps,), config.base_scale, dtype=torch.float64)
    buffers = {
        "betas": noise,
        "alphas_cumprod": cumulative,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": cumulative.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - cumulative).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - cumulative).log(),
        "sqrt_recip_alphas_cumprod": torch.zeros_like(cumulative),
        "sqrt_recipm1_alphas_cumprod": torch.zeros_like(cumulative),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp_min(1e-20).log(),
        "posterior_mean_coef1": noise * before.sqrt() / (1 - cumulative),
        "posterior_mean_coef2": (1 - before) * (1 - noise).sqrt() / (1 - cumulative),
        "scale_arr": torch.cat([ramp, rest]),
    }
    return {name: value.float() for name, value in buffers.items()}

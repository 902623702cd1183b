"""Sampling a batch of clips with a complete model, many-step with guidance or few-step without."""

from collections.abc import Callable

import torch
from torch import Tensor

from fvgen.diffusion import ddim_sample, few_step_sample, guide
from fvgen.models.denoiser import Condition
from fvgen.models.model import VideoModel

StepCallback = Callable[[int, int, Tensor], Tensor | None]


@torch.no_grad()
def sample_latents(
    model: VideoModel,
    condition: Condition,
    noise: Tensor,
    steps: int,
    guidance_scale: float,
    generator: torch.Generator,
    callback: StepCallback | None = None,
) -> Tensor:
    """Latents of a batch of clips.

    Args:
        model: says whether it is sampled in few steps or by DDIM, and with which rescale and eta.
        condition: of ``B`` clips.
        noise: ``[B, C, T, h, w]`` unit noise to start from.
        steps: network evaluations (twice as many passes with guidance).
        guidance_scale: 1 runs the conditional branch only.
        generator: of the noise between steps.
        callback: ``(step, t, latents)``, may return changed latents.

    Returns:
        ``[B, C, T, h, w]`` unscaled latents.
    """
    denoiser, sampling = model.denoiser, model.config.sampling
    null = denoiser.drop(condition)

    def velocity(x_t: Tensor, t: Tensor) -> Tensor:
        conditional = denoiser.velocity(x_t, t, condition)
        if guidance_scale == 1.0:
            return conditional
        return guide(conditional, denoiser.velocity(x_t, t, null), guidance_scale, sampling.guidance_rescale)

    if not sampling.few_step:
        return ddim_sample(velocity, denoiser.schedule, noise, steps, sampling.eta, generator, callback=callback)

    def x0(x_t: Tensor, t: Tensor) -> Tensor:
        return denoiser.schedule.x0_from_velocity(x_t, velocity(x_t, t), t)

    times = denoiser.schedule.trailing_timesteps(steps)
    return few_step_sample(x0, denoiser.schedule, noise, times, generator, callback)

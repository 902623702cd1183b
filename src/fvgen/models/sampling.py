"""Sampling a batch of clips with a complete model, many-step with guidance or few-step without."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fvgen.diffusion import Generators, StepCallback, ddim_sample, few_step_sample, guide, guide_twice
from fvgen.models.denoiser import Condition
from fvgen.models.model import VideoModel


@torch.no_grad()
def sample_latents(
    model: VideoModel,
    condition: Condition,
    noise: Tensor,
    steps: int,
    guidance_scale: float,
    generator: Generators = None,
    callback: StepCallback | None = None,
    *,
    image_guidance_scale: float | None = None,
    step_noise: Sequence[Tensor] | None = None,
) -> Tensor:
    """Latents of a batch of clips.

    Args:
        model: says whether it is sampled in few steps or by DDIM, and with which rescale and eta.
        condition: of ``B`` clips; without guidance it needs no null context.
        noise: ``[B, C, T, h, w]`` unit noise to start from.
        steps: network evaluations (twice as many passes with guidance).
        guidance_scale: 1 runs the conditional branch only.
        generator: of the noise between steps, one or one per clip.
        callback: ``(step, t, latents)``, may return changed latents.
        image_guidance_scale: guides by text and image apart, in three passes: ``guidance_scale`` is then the text's.
        step_noise: of a DDIM sampler, the noise of each step instead of the generator's.

    Returns:
        ``[B, C, T, h, w]`` unscaled latents.
    """
    denoiser, sampling = model.denoiser, model.config.sampling
    condition = replace(condition, temperature=sampling.temperature)
    wanted = [condition]
    if image_guidance_scale is not None:
        wanted += [denoiser.drop_text(condition), denoiser.drop(condition)]
    elif guidance_scale != 1.0:
        wanted += [denoiser.drop(condition)]
    branches = [denoiser.prepared(one) for one in wanted]

    def velocity(x_t: Tensor, t: Tensor) -> Tensor:
        found = [denoiser.velocity(x_t, t, branch) for branch in branches]
        if image_guidance_scale is not None:
            conditional, textless, null = found
            scales = guidance_scale, image_guidance_scale
            return guide_twice(conditional, textless, null, *scales, sampling.guidance_rescale)
        return found[0] if len(found) == 1 else guide(found[0], found[1], guidance_scale, sampling.guidance_rescale)

    if not sampling.few_step:
        eta, schedule = sampling.eta, denoiser.schedule
        return ddim_sample(velocity, schedule, noise, steps, eta, generator, step_noise, callback)

    def x0(x_t: Tensor, t: Tensor) -> Tensor:
        return denoiser.schedule.x0_from_velocity(x_t, velocity(x_t, t), t)

    times = denoiser.schedule.trailing_timesteps(steps)
    return few_step_sample(x0, denoiser.schedule, noise, times, generator, callback)

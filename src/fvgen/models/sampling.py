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
    """Sample the latents of a batch of clips.

    Args:
        model: says whether it is sampled in few steps or by DDIM, and with which rescale and eta.
        condition: what ``B`` clips are made from; without guidance it needs no null context.
        noise: ``[B, C, T, h, w]`` unit noise to start from.
        steps: network evaluations (twice as many passes with guidance).
        guidance_scale: 1 runs the conditional branch only.
        generator: source of the noise between steps, one or one per clip.
        callback: ``(step, t, latents)``, may return changed latents.
        image_guidance_scale: guides by text and image apart, in three passes: ``guidance_scale`` is then the text's.
        step_noise: ``[B, C, T, h, w]`` noise for each step of DDIM instead of the generator's.

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
        first, *others = [denoiser.velocity(x_t, t, branch) for branch in branches]
        rescale = sampling.guidance_rescale
        if image_guidance_scale is not None:
            textless, null = others
            return guide_twice(first, textless, null, guidance_scale, image_guidance_scale, rescale)
        return guide(first, others[0], guidance_scale, rescale) if others else first

    if not sampling.few_step:
        eta, schedule = sampling.eta, denoiser.schedule
        return ddim_sample(velocity, schedule, noise, steps, eta, generator, step_noise, callback)

    def x0(x_t: Tensor, t: Tensor) -> Tensor:
        return denoiser.schedule.x0_from_velocity(x_t, velocity(x_t, t), t)

    times = denoiser.schedule.trailing_timesteps(steps)
    return few_step_sample(x0, denoiser.schedule, noise, times, generator, callback)

"""Samplers: DDIM for the teacher, re-noising few-step sampling for the student."""

from collections.abc import Callable

import torch
from torch import Tensor

from fvgen.diffusion.schedule import NoiseSchedule

Velocity = Callable[[Tensor, Tensor], Tensor]  # (x_t [B,...], t [B]) -> v [B,...]
StepCallback = Callable[[int, int, Tensor], Tensor | None]  # (step, t, latents) -> replacement latents or None


def _noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    device = generator.device if generator is not None else like.device
    return torch.randn(like.shape, generator=generator, device=device).to(like.device)


def ddim_sample(
    velocity: Velocity,
    schedule: NoiseSchedule,
    x_start: Tensor,
    steps: int,
    eta: float = 1.0,
    generator: torch.Generator | None = None,
    step_noise: list[Tensor] | None = None,
    callback: StepCallback | None = None,
) -> Tensor:
    """DDIM on trailing timesteps, as ViewCrafter samples (Song et al. 2021, equation 12).

    The last step lands on ``alpha_bar_0`` (slightly below 1), as the teacher's does.

    Args:
        velocity: the (guided) network.
        x_start: ``[B, ...]`` unit noise, the state at t = 999.
        steps: number of network evaluations.
        eta: 0 is deterministic, 1 adds as much noise as the ancestral sampler.
        generator: source of the step noise.
        step_noise: the noise of each step, instead of drawing it.
        callback: called after each step; may return changed latents.

    Returns:
        ``[B, ...]`` unscaled latents.
    """
    times = schedule.trailing_timesteps(steps)
    x = x_start.float()
    for step, t in enumerate(times):
        previous = times[step + 1] if step + 1 < len(times) else 0
        batch_t = torch.full((x.shape[0],), t, device=x.device)
        v = velocity(x, batch_t)
        x0 = schedule.x0_from_velocity(x, v, batch_t)
        noise = schedule.noise_from_velocity(x, v, batch_t)
        alpha, alpha_prev = schedule.alphas_cumprod[t], schedule.alphas_cumprod[previous]
        sigma = eta * ((1 - alpha_prev) / (1 - alpha) * (1 - alpha / alpha_prev)).sqrt()
        # At zero SNR rounding makes this radicand slightly negative for several step counts: clamp, never NaN.
        direction = (1 - alpha_prev - sigma**2).clamp_min(0).sqrt()
        fresh = step_noise[step] if step_noise is not None else (_noise(x, generator) if eta > 0 else 0.0)
        x = alpha_prev.sqrt() * schedule.scale[previous] * x0 + direction * noise + sigma * fresh
        if callback is not None:
            changed = callback(step, t, x)
            x = x if changed is None else changed
    return x


def few_step_sample(
    x0_of: Velocity,
    schedule: NoiseSchedule,
    x_start: Tensor,
    times: list[int],
    generator: torch.Generator | None = None,
    callback: StepCallback | None = None,
) -> Tensor:
    """Predict ``x0``, add fresh noise at the next time, repeat (Yin et al. 2024, DMD2, section 4.4).

    Args:
        x0_of: the student, ``(x_t, t) -> x0``.
        x_start: ``[B, ...]`` unit noise.
        times: descending times, e.g. ``[999, 749, 499, 249]``.

    Returns:
        ``[B, ...]`` unscaled latents, the last prediction.
    """
    x = x_start.float()
    for step, t in enumerate(times):
        x0 = x0_of(x, torch.full((x.shape[0],), t, device=x.device))
        if callback is not None:
            changed = callback(step, t, x0)
            x0 = x0 if changed is None else changed
        if step + 1 == len(times):
            return x0
        following = torch.full((x.shape[0],), times[step + 1], device=x.device)
        x = schedule.add_noise(x0, _noise(x0, generator), following)
    raise ValueError("few_step_sample needs at least one time")

"""Samplers: DDIM for the teacher, re-noising few-step sampling for the student."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fvgen.diffusion.schedule import NoiseSchedule

Velocity = Callable[[Tensor, Tensor], Tensor]  # (x_t [B,...], t [B]) -> v [B,...]
StepCallback = Callable[[int, int, Tensor], Tensor | None]  # (step, t, latents) -> replacement latents or None
Generators = torch.Generator | Sequence[torch.Generator] | None


def unit_noise(shape: Sequence[int], generator: Generators, device: torch.device) -> Tensor:
    """Unit noise ``[B, ...]``, drawn where the generator is.

    Args:
        shape: the noise's, rows first.
        generator: one for the batch, or one for each of its rows, whose noise then does not depend on the other rows.
        device: where it is wanted.
    """
    if isinstance(generator, Sequence):
        rows = [torch.randn(tuple(shape[1:]), generator=one, device=one.device) for one in generator]
        return torch.stack(rows).to(device)
    source = generator.device if generator is not None else device
    return torch.randn(tuple(shape), generator=generator, device=source).to(device)


@dataclass(frozen=True)
class DdimStep:
    """The constants of one DDIM step.

    Attributes:
        t: time at which the network is asked.
        alpha: ``alpha_bar_t``.
        alpha_prev: ``alpha_bar`` of the time the step lands on.
        sigma: standard deviation of the fresh noise.
        direction: factor of the predicted noise, ``sqrt(1 - alpha_prev - sigma^2)``, 0 where that is negative.
        scale: ``c_t`` of the latents at ``t``.
        scale_prev: ``c`` at the time the step lands on.
    """

    t: int
    alpha: float
    alpha_prev: float
    sigma: float
    direction: float
    scale: float
    scale_prev: float


def ddim_steps(schedule: NoiseSchedule, steps: int, eta: float, keep_last_scale: bool = False) -> list[DdimStep]:
    """The steps of DDIM on trailing times, first to last (Song et al. 2021, equations 12 and 16).

    The last step lands on ``t = 0`` (``alpha_bar_0`` slightly below 1), as the teacher's does.

    Args:
        schedule: the noise schedule.
        steps: how many.
        eta: share of the ancestral sampler's noise.
        keep_last_scale: for comparison only: the last step leaves the latents at the scale of the time it starts from,
            as ViewCrafter's multi-condition sampler does. They decode too pale then.
    """
    times = schedule.trailing_timesteps(steps)
    alphas, all_scales = schedule.alphas_cumprod.tolist(), schedule.scale.tolist()
    made: list[DdimStep] = []
    for t, previous in zip(times, [*times[1:], 0]):
        alpha, alpha_prev = alphas[t], alphas[previous]
        sigma = eta * math.sqrt((1 - alpha_prev) / (1 - alpha) * (1 - alpha / alpha_prev))
        # At zero SNR rounding makes this radicand slightly negative for several step counts: clamp, never NaN.
        direction = math.sqrt(max(1 - alpha_prev - sigma**2, 0.0))
        scales = all_scales[t], all_scales[t if keep_last_scale and len(made) == steps - 1 else previous]
        made.append(DdimStep(t, alpha, alpha_prev, sigma, direction, *scales))
    return made


def ddim_sample(
    velocity: Velocity,
    schedule: NoiseSchedule,
    x_start: Tensor,
    steps: int,
    eta: float = 1.0,
    generator: Generators = None,
    step_noise: Sequence[Tensor] | None = None,
    callback: StepCallback | None = None,
    keep_last_scale: bool = False,
) -> Tensor:
    """DDIM as ViewCrafter samples, see :func:`ddim_steps`.

    Args:
        velocity: the (guided) network.
        x_start: ``[B, ...]`` unit noise, the state at t = 999.
        steps: number of network evaluations.
        eta: 0 is deterministic, 1 adds as much noise as the ancestral sampler.
        generator: source of the step noise, see :func:`unit_noise`.
        step_noise: the noise of each step, ``[B, ...]``, instead of drawing it.
        callback: called after each step; may return changed latents.
        keep_last_scale: for comparison only, see :func:`ddim_steps`.

    Returns:
        ``[B, ...]`` unscaled latents.
    """
    x = x_start.float()
    for number, step in enumerate(ddim_steps(schedule, steps, eta, keep_last_scale)):
        t = torch.full((x.shape[0],), step.t, device=x.device)
        v = velocity(x, t)
        x0 = schedule.x0_from_velocity(x, v, t)
        noise = schedule.noise_from_velocity(x, v, t)
        fresh: Tensor | float = 0.0
        if step_noise is not None:
            fresh = step_noise[number]
        elif eta > 0:
            fresh = unit_noise(x.shape, generator, x.device)
        x = math.sqrt(step.alpha_prev) * step.scale_prev * x0 + step.direction * noise + step.sigma * fresh
        if callback is not None:
            changed = callback(number, step.t, x)
            x = x if changed is None else changed
    return x


def few_step_sample(
    x0_of: Velocity,
    schedule: NoiseSchedule,
    x_start: Tensor,
    times: list[int],
    generator: Generators = None,
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
        x = schedule.add_noise(x0, unit_noise(x0.shape, generator, x0.device), following)
    raise ValueError("few_step_sample needs at least one time")

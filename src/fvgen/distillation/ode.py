"""Trajectories of the teacher's ODE, from which a student can learn by regression."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fvgen.diffusion import ddim_sample, guide
from fvgen.distillation.config import DistillationConfig
from fvgen.distillation.roles import Denoiser


class Trajectories(NamedTuple):
    """Where teachers' trajectories are at the student's times, and where they end.

    Attributes:
        states: ``[K, B, ...]``, ``x_t`` at each of the student's times, from high to low.
        x0: ``[B, ...]``, unscaled.
    """

    states: Tensor
    x0: Tensor


class TrajectoryPoints(NamedTuple):
    """Points ``x_t [B, ...]`` of trajectories at ``t [B]``, and their ends ``x0 [B, ...]``."""

    x_t: Tensor
    t: Tensor
    x0: Tensor
    condition: Any


@torch.no_grad()
def trajectories(teacher: Denoiser, noise: Tensor, condition: Any, config: DistillationConfig) -> Trajectories:
    """Follow the guided teacher by deterministic DDIM from ``noise [B, ...]`` (Yin et al. 2025, CausVid)."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        conditional = teacher.velocity(x, t, condition)
        if config.scale == 1.0:
            return conditional
        unconditional = teacher.velocity(x, t, teacher.drop(condition))
        return guide(conditional, unconditional, config.scale, config.guidance_rescale)

    states, every = [noise.float()], config.ode_steps // config.steps

    def keep(step: int, t: int, x: Tensor) -> None:
        if (step + 1) % every == 0 and step + 1 < config.ode_steps:
            states.append(x.clone())

    x0 = ddim_sample(velocity, teacher.schedule, noise, config.ode_steps, eta=0.0, callback=keep)
    return Trajectories(torch.stack(states), x0)

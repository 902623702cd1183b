"""Losses of the distillation: short, pure, keyword-only."""

import torch.nn.functional as F
from torch import Tensor


def critic_loss(*, real_logit: Tensor, fake_logit: Tensor) -> Tensor:
    """Binary cross-entropy with real = 1: at its optimum the logit is ``log p_real / p_fake`` (calibrated)."""
    return F.softplus(-real_logit.float()).mean() + F.softplus(fake_logit.float()).mean()


def generator_loss(*, fake_logit: Tensor) -> Tensor:
    """Non-saturating generator loss, ``-log D(fake)``."""
    return F.softplus(-fake_logit.float()).mean()


def distribution_matching_loss(*, x0: Tensor, real_x0: Tensor, fake_x0: Tensor, weight: Tensor) -> Tensor:
    """A surrogate whose gradient with respect to ``x0`` is ``weight (fake_x0 - real_x0) / normaliser / numel``.

    The normaliser is the mean of ``|x0 - real_x0|`` per sample (Yin et al. 2024, DMD, equation 8).

    Args:
        x0: ``[B, ...]`` the student's output, with gradient.
        real_x0: the teacher's prediction at a noised ``x0``.
        fake_x0: the fake score's prediction at the same.
        weight: ``[B]`` of the divergence.
    """
    axes = tuple(range(1, x0.ndim))
    shape = (-1,) + (1,) * (x0.ndim - 1)
    value = x0.detach().float()
    normaliser = (value - real_x0.float()).abs().mean(dim=axes).clamp_min(1e-5).view(shape)
    gradient = weight.float().view(shape) * (fake_x0.float() - real_x0.float()) / normaliser
    return 0.5 * F.mse_loss(x0.float(), (value - gradient).detach())

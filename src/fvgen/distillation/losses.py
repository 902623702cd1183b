"""Losses of the distillation: short, pure, keyword-only, float32. They own no network, optimizer or device."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

ADVERSARIAL = ("bce", "hinge", "relativistic")


def critic_loss(*, real_logit: Tensor, fake_logit: Tensor, kind: str = "bce") -> Tensor:
    """The critic's loss, polarity ``logit > 0`` for real.

    - ``bce``: binary cross-entropy with real = 1; at its optimum the logit is ``log p_real / p_fake`` (calibrated).
    - ``hinge``: margins of 1 (Lim and Ye 2017); its optimum is the sign of that ratio.
    - ``relativistic``: ``softplus(fake - real)`` (Jolicoeur-Martineau 2019); the ratio up to an unknown factor.

    Args:
        real_logit: ``[B]``.
        fake_logit: ``[B]``, of fakes under the same conditions, times and noise.
        kind: one of :data:`ADVERSARIAL`.
    """
    real, fake = real_logit.float(), fake_logit.float()
    if kind == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    if kind == "relativistic":
        return F.softplus(fake - real).mean()
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(*, fake_logit: Tensor, kind: str = "bce", real_logit: Tensor | None = None) -> Tensor:
    """The student's loss against a critic of some kind, of logits ``[B]`` of its fakes and of real clips.

    - ``bce``: ``-log D(fake)``, not saturating; with the optimal critic its gradient is that of the softened reverse KL
      (Shannon et al. 2020).
    - ``hinge``: ``-logit``.
    - ``relativistic``: the critic's loss with real and fake exchanged.

    Raises:
        ValueError: if ``relativistic`` is asked for without ``real_logit``.
    """
    fake = fake_logit.float()
    if kind == "hinge":
        return -fake.mean()
    if kind == "relativistic":
        if real_logit is None:
            raise ValueError("the relativistic loss compares with real_logit")
        return F.softplus(real_logit.float() - fake).mean()
    return F.softplus(-fake).mean()


def approximate_r1(*, logit: Tensor, moved_logit: Tensor, sigma: float) -> Tensor:
    """Finite-difference R1: ``mean(((l' - l) / sigma)^2)``, an estimate of ``E |grad l|^2`` (Lin et al. 2025, APT).

    Both logits ``[B]`` belong to the same noised clip at the same time; ``l'`` to that clip moved by ``sigma`` times
    unit noise *after* it was noised. (Comparing with a clip that was not noised to the same time measures the noise.)
    """
    return ((moved_logit.float() - logit.float()) / sigma).square().mean()


def distribution_matching_gradient(
    *, x0: Tensor, real_x0: Tensor, fake_x0: Tensor, weight: Tensor, normalise: bool = True
) -> Tensor:
    """``weight (fake_x0 - real_x0) / n``, what is to be subtracted from ``x0``; float32, no gradient.

    ``fake_x0 - real_x0`` is ``s_t^2 / a_t`` times ``s_fake - s_real``, so this descends the divergence. ``n`` is the
    mean of ``|x0 - real_x0|`` per sample, at least 1e-5 (Yin et al. 2024, DMD, equation 8), or 1.

    Args:
        x0: ``[B, ...]`` the student's output.
        real_x0: ``[B, ...]`` the teacher's prediction at a noised ``x0``.
        fake_x0: ``[B, ...]`` the fake score's prediction at the same.
        weight: ``[B]`` of the divergence.
        normalise: divide by ``n``.
    """
    shape = (-1,) + (1,) * (x0.ndim - 1)
    value, real, fake = (x.detach().float() for x in (x0, real_x0, fake_x0))
    gradient = weight.detach().float().view(shape) * (fake - real)
    if not normalise:
        return gradient
    return gradient / (value - real).abs().mean(dim=tuple(range(1, x0.ndim))).clamp_min(1e-5).view(shape)


def surrogate(*, x0: Tensor, gradient: Tensor) -> Tensor:
    """A loss whose gradient with respect to ``x0 [B, ...]`` is ``gradient / numel``.

    Half the mean squared error to ``x0 - gradient``: the value is half the mean square of the gradient.
    """
    return 0.5 * F.mse_loss(x0.float(), (x0.float() - gradient).detach())


def denoising_loss(*, predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of predictions ``[B, ...]`` of the teacher's own type.

    For velocities this is the error of ``x0`` times ``(c_t / s_t)^2``, finite also where the signal is gone.
    """
    return F.mse_loss(predicted.float(), target.float())


def regression_loss(*, x0: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of the student's ``x0 [B, ...]`` at points of teacher's ODE trajectories to their ends.

    (Yin et al. 2025, CausVid, equation 7.)
    """
    return F.mse_loss(x0.float(), target.float())


# name: (h as a function of the logit, whether h is bounded)
_WEIGHTS: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "reverse_kl": (torch.ones_like, True),  # f = -log r
    "softened_reverse_kl": (lambda l: torch.sigmoid(-l), True),  # f = (r + 1) log(1/2 + 1/(2r)), h = 1 / (r + 1)
    "jensen_shannon": (torch.sigmoid, True),  # f = r log r - (r + 1) log((r + 1) / 2), h = r / (r + 1)
    "forward_kl": (torch.exp, False),  # f = r log r, h = r
    "squared_hellinger": (lambda l: torch.exp(l / 2) / 4, False),  # f = 1 - sqrt r, h = sqrt(r) / 4
    "jeffreys": (lambda l: 1 + torch.exp(l), False),  # f = (r - 1) log r, h = 1 + r
}

DIVERGENCES = tuple(_WEIGHTS)


def weight(name: str, logit: Tensor, largest_ratio: float = 20.0) -> Tensor:
    """``h(r)`` in float32, same shape as ``logit``.

    ``softened_reverse_kl`` is ``1 / (r + 1) = sigmoid(-l)``, as the paper's supplement derives it (its equation 8
    prints ``1 / r``, which is the gradient of another divergence and unbounded).

    Args:
        name: one of :data:`DIVERGENCES`.
        logit: of the critic, positive for real.
        largest_ratio: ``r`` is cut here for the divergences whose ``h`` is unbounded (``forward_kl``,
            ``squared_hellinger``, ``jeffreys``); the others need no cut.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in _WEIGHTS:
        raise ValueError(f"unknown divergence '{name}'; use one of {', '.join(DIVERGENCES)}")
    h, bounded = _WEIGHTS[name]
    logit = logit.float()
    return h(logit if bounded else logit.clamp(max=math.log(largest_ratio)))


def needs_ratio(name: str) -> bool:
    """Whether the weight depends on the critic at all; the reverse KL's is 1 everywhere."""
    return name != "reverse_kl"

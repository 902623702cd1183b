"""Weights of the distribution-matching gradient for f-divergences, from the critic's logit.

``l`` is the critic's logit with ``l > 0`` meaning real, so ``r = p_real / p_fake = exp(l)`` for a calibrated critic.
The gradient of ``D_f(p || q) = E_q[f(r)]`` with respect to the student is the reverse KL's times ``h(r) = r^2 f''(r)``
(Xu et al. 2025, f-distill, theorem 1; the paper's equation 6 is half of ``D_f`` for the softened reverse KL).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

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

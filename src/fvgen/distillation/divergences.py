"""Weights of the distribution-matching gradient for f-divergences, from the critic's logit.

``l`` is the critic's logit with ``l > 0`` meaning real, so ``r = p_real / p_fake = exp(l)`` for a calibrated critic.
The gradient of ``D_f`` is the reverse-KL gradient times ``h(r) = r^2 f''(r)``.
"""

import torch
from torch import Tensor


def weight(name: str, logit: Tensor) -> Tensor:
    """``h(r)`` in float32, same shape as ``logit``.

    ``softened_reverse_kl`` is ``1 / (r + 1) = sigmoid(-l)``, as the paper's supplement derives it (its equation 8
    prints ``1 / r``, which is another divergence and unbounded).

    Raises:
        ValueError: for an unknown name.
    """
    logit = logit.float()
    if name == "reverse_kl":
        return torch.ones_like(logit)
    if name == "softened_reverse_kl":
        return torch.sigmoid(-logit)
    if name == "jensen_shannon":
        return torch.sigmoid(logit)
    raise ValueError(f"unknown divergence '{name}'; use reverse_kl, softened_reverse_kl or jensen_shannon")

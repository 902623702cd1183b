"""Classifier-free guidance on the velocity, with the teacher's rescale."""

from torch import Tensor


def guide(conditional: Tensor, unconditional: Tensor, scale: float, rescale: float = 0.0) -> Tensor:
    """``v = v_u + scale (v_c - v_u)``, pulled towards the spread of ``v_c`` (Lin et al. 2024, equations 14 to 16).

    Args:
        conditional: ``v_c``, ``[B, ...]``.
        unconditional: ``v_u``, ``[B, ...]``.
        scale: guidance scale; 1 returns ``v_c``.
        rescale: ``phi`` in 0..1; the standard deviation is taken per sample over all other axes.
    """
    guided = unconditional + scale * (conditional - unconditional)
    if rescale == 0.0:
        return guided
    axes = list(range(1, guided.ndim))
    matched = guided * (conditional.std(dim=axes, keepdim=True) / guided.std(dim=axes, keepdim=True))
    return rescale * matched + (1 - rescale) * guided

"""Classifier-free guidance on the velocity, with the teacher's rescale."""

from torch import Tensor


def rescaled(guided: Tensor, conditional: Tensor, rescale: float) -> Tensor:
    """``guided`` pulled towards the spread of ``conditional`` (Lin et al. 2024, equations 15 and 16).

    Args:
        guided: the guided prediction, ``[B, ...]``.
        conditional: the conditional one, ``[B, ...]``.
        rescale: ``phi`` in 0..1; the standard deviation is taken per sample over all other axes.
    """
    if rescale == 0.0:
        return guided
    axes = list(range(1, guided.ndim))
    matched = guided * (conditional.std(dim=axes, keepdim=True) / guided.std(dim=axes, keepdim=True))
    return rescale * matched + (1 - rescale) * guided


def guide(conditional: Tensor, unconditional: Tensor, scale: float, rescale: float = 0.0) -> Tensor:
    """``v = v_u + scale (v_c - v_u)``, then :func:`rescaled`.

    Args:
        conditional: ``v_c``, ``[B, ...]``.
        unconditional: ``v_u``, ``[B, ...]``.
        scale: guidance scale; 1 returns ``v_c``.
        rescale: ``phi`` in 0..1.
    """
    return rescaled(unconditional + scale * (conditional - unconditional), conditional, rescale)


def guide_twice(
    conditional: Tensor,
    textless: Tensor,
    unconditional: Tensor,
    scale: float,
    image_scale: float,
    rescale: float = 0.0,
) -> Tensor:
    """``v = v_u + image_scale (v_i - v_u) + scale (v_c - v_i)``, then rescaled (Brooks et al. 2023, equation 3).

    Args:
        conditional: ``v_c``, with text and image, ``[B, ...]``.
        textless: ``v_i``, with the image only.
        unconditional: ``v_u``, with neither.
        scale: how far the text is followed.
        image_scale: how far the image is followed.
        rescale: ``phi`` in 0..1.
    """
    guided = unconditional + image_scale * (textless - unconditional) + scale * (conditional - textless)
    return rescaled(guided, conditional, rescale)

"""Picture metrics whose names carry their definitions. Pictures are ``[F, H, W, 3]`` float in 0..1.

:class:`FrameMetrics` scores each picture, :class:`SetMetrics` compares two sets of pictures, :func:`neighbour_metrics`
looks at how views agree with their neighbours, and :func:`available` says which names can run here. Every definition,
its source and the weights that it needs: ``docs/evaluation.md``.
"""

from fvgen.evaluation.metrics.pixels import (
    Correspondences,
    correspondences,
    gradient_energy,
    neighbour_metrics,
    psnr,
    ssim,
    warp_consistency,
)
from fvgen.evaluation.metrics.registry import FRAME_METRICS, SET_METRICS, FrameMetrics, SetMetrics, available

__all__ = [
    "FRAME_METRICS",
    "SET_METRICS",
    "Correspondences",
    "FrameMetrics",
    "SetMetrics",
    "available",
    "correspondences",
    "gradient_energy",
    "neighbour_metrics",
    "psnr",
    "ssim",
    "warp_consistency",
]

"""Learning rates as functions of the number of updates."""

import math


def falling(update: int, start: int, updates: int, peak: float, floor: float = 0.05) -> float:
    """``peak`` up to ``start``, then in a straight line to ``floor * peak`` after ``updates`` more."""
    progress = min(1.0, max(0, update - start) / max(1, updates))
    return peak * (1 - (1 - floor) * progress)


def warmed_cosine(update: int, updates: int, peak: float, warmup: int = 100, floor: float = 0.05) -> float:
    """Linear warm-up, then a cosine from ``peak`` to ``floor * peak``."""
    if update < warmup:
        return peak * (update + 1) / warmup
    progress = (update - warmup) / max(1, updates - warmup)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))

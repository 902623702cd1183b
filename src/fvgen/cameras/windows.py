"""Which frames are denoised together: windows of at most so many frames, level by level."""

from collections.abc import Sequence


def plan_windows(known: Sequence[bool], most: int) -> list[list[list[int]]]:
    """Cut a path into windows that share their end frames.

    Stretches between known frames (photographs) become windows. A stretch longer than ``most`` is done in levels:
    first ``most`` frames spread evenly over it, then, with those known, the gaps between them, all in one batch.

    Args:
        known: for each frame whether its picture is known.
        most: most frames of a window, at least 3.

    Returns:
        Levels of windows, each a list of frame indices; every unknown frame is in exactly one window as an unknown.
    """
    ends = sorted({0, len(known) - 1} | {i for i, is_known in enumerate(known) if is_known})
    stretches = list(zip(ends, ends[1:]))
    levels: list[list[list[int]]] = []
    while stretches:
        windows, gaps = [], []
        for first, last in stretches:
            if last - first + 1 <= most:
                windows.append(list(range(first, last + 1)))
                continue
            anchors = [first + round(k * (last - first) / (most - 1)) for k in range(most)]
            windows.append(anchors)
            gaps += [(a, b) for a, b in zip(anchors, anchors[1:]) if b - a > 1]
        levels.append([w for w in windows if not all(known[i] for i in w)])
        stretches = gaps
    return [level for level in levels if level]

"""Lines over frames as SVG, for the page."""

import math
from collections.abc import Mapping, Sequence
from html import escape

COLOURS = (
    *("#2f6fde", "#e0563b", "#1f9d6b", "#c98a00", "#8a56c9", "#2aa5b5"),
    *("#a2653a", "#6b7280", "#d14b93", "#7d9c1f", "#1f3f8f", "#b58cf0"),
)
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 8, 8, 18


def colour_of(number: int) -> str:
    """The colour of the ``number``-th system."""
    return COLOURS[number % len(COLOURS)]


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers between two ends."""
    span = max(high - low, 1e-12)
    step = 10 ** math.floor(math.log10(span / count))
    step *= next(m for m in (1, 2, 5, 10) if span / (step * m) <= count + 1)
    return [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def frame_plot(lines: Mapping[str, Sequence[float | None]], width: int = 560, height: int = 150) -> str:
    """One figure over the frames of a split, one line per system in :func:`colour_of`'s order.

    Args:
        lines: ``F`` values by system; ``None`` leaves a gap.
        width, height: of the drawing, which scales with its place.
    """
    apart = far_away(lines)
    values = [v for name, line in lines.items() for v in line if v is not None and name not in apart]
    count = max((len(line) for line in lines.values()), default=0)
    if not values:
        return ""
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.5
    low, high = low - margin, high + margin

    def x(i: int) -> float:
        return _LEFT + (i / max(count - 1, 1)) * (width - _LEFT - _RIGHT)

    def y(v: float) -> float:
        return height - _BOTTOM - (v - low) / (high - low) * (height - _TOP - _BOTTOM)

    parts = [
        f'<path class="grid" d="M{_LEFT} {y(t):.1f}H{width - _RIGHT}"/>'
        f'<text x="{_LEFT - 5}" y="{y(t) + 3.5:.1f}" text-anchor="end">{t:g}</text>'
        for t in ticks(low, high)
    ]
    for i in sorted({round(k * (count - 1) / 6) for k in range(7)}):
        parts.append(f'<text x="{x(i):.1f}" y="{height - 4}" text-anchor="middle">{i}</text>')
    for number, (name, line) in enumerate(lines.items()):
        for run in _runs(line) if name not in apart else []:
            path = "L".join(f"{x(i):.1f} {y(v):.1f}" for i, v in run)
            dot = f"H{x(run[0][0]) + 0.1:.1f}" if len(run) == 1 else ""
            parts.append(
                f'<path class="line" data-system="{escape(name, quote=True)}" d="M{path}{dot}" '
                f'stroke="{colour_of(number)}"><title>{escape(name)}</title></path>'
            )
    size = f'viewBox="0 0 {width} {height}" data-left="{_LEFT}" data-right="{width - _RIGHT}" data-count="{count}"'
    for row, name in enumerate(apart):
        ends = [v for v in lines[name] if v is not None]
        told = f"far away: {name}, {min(ends):.3g} to {max(ends):.3g}"
        parts.append(f'<text x="{width - _RIGHT}" y="{_TOP + 10 + 12 * row}" text-anchor="end">{escape(told)}</text>')
    cursor = f'<path class="cursor" d="M0 {_TOP}V{height - _BOTTOM}"/>'
    return f'<svg class="plot" {size} role="img">{"".join(parts)}{cursor}</svg>'


def far_away(lines: Mapping[str, Sequence[float | None]]) -> list[str]:
    """The system, if there is one, so far from all others that these would be one line; it is told in words."""
    spans = {name: [v for v in line if v is not None] for name, line in lines.items()}
    spans = {name: values for name, values in spans.items() if values}
    for name, own in spans.items():
        others = [v for other, values in spans.items() if other != name for v in values]
        room = 2 * (max(others) - min(others)) if len(spans) > 2 else math.inf
        if others and (max(own) < min(others) - room or min(own) > max(others) + room):
            return [name]
    return []


def _runs(line: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """Stretches without gaps."""
    runs: list[list[tuple[int, float]]] = [[]]
    for i, value in enumerate(line):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((i, value))
    return [run for run in runs if run]

"""Line charts and scatter plots as SVG, without a plotting library: the one place that draws them."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = (
    *("#2f6fde", "#e0563b", "#1f9d6b", "#c98a00", "#8a56c9", "#2aa5b5"),
    *("#a2653a", "#6b7280", "#d14b93", "#7d9c1f", "#1f3f8f", "#b58cf0"),
)
Line = Sequence[tuple[float, float]]

_HELD = re.compile(r"(held_[a-z]+)_(student|teacher)_?(\d*)")
_DASHES = ("", "5 3", "1.5 2.5")  # student, teacher at as many steps, at many


def colour_of(number: int) -> str:
    """The colour of the ``number``-th line of a chart."""
    return COLOURS[number % len(COLOURS)]


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About ``count`` round numbers between two ends."""
    span = max(high - low, 1e-12)
    step = 10 ** math.floor(math.log10(span / count))
    step *= next(m for m in (1, 2, 5, 10) if span / (step * m) <= count + 1)
    return [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Axes:
    """Where points lie in a drawing.

    Attributes:
        x, y: ``(low, high)`` of the axes.
        width, height: of the drawing in pixels.
        margins: left, top, right and bottom of the axes, in pixels.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    width: int
    height: int
    margins: tuple[int, int, int, int]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of a point."""
        left, top, right, bottom = self.margins
        u, v = ((value - low) / (high - low) for value, (low, high) in ((x, self.x), (y, self.y)))
        return left + u * (self.width - left - right), self.height - bottom - v * (self.height - top - bottom)

    def path(self, points: Line) -> str:
        """Connected points as an SVG path."""
        return "M" + "L".join("{:.1f} {:.1f}".format(*self.at(x, y)) for x, y in points)


class Panel:
    """One chart: a title, axes that fit the data, lines or dots in colours of their own.

    Args:
        title: above it.
        x, y: ``(low, high)`` of the axes.
        width, height: in pixels.
    """

    def __init__(
        self, title: str, x: tuple[float, float], y: tuple[float, float], width: int = 360, height: int = 220
    ) -> None:
        self.axes = axes = Axes(_apart(x), _apart(y), width, height, (48, 26, 12, 24))
        self.parts = [f'<text x="{width / 2}" y="16" text-anchor="middle" font-weight="bold">{escape(title)}</text>']
        for value in ticks(*axes.x):
            u, v = axes.at(value, axes.y[0])
            self.parts.append(f'<text x="{u:.1f}" y="{v + 14:.1f}" text-anchor="middle">{value:g}</text>')
        for value in ticks(*axes.y):
            u, v = axes.at(axes.x[0], value)
            end = axes.at(axes.x[1], value)[0]
            self.parts.append(f'<path d="M{u:.1f} {v:.1f}H{end:.1f}" stroke="#ddd"/>')
            self.parts.append(f'<text x="{u - 4:.1f}" y="{v + 4:.1f}" text-anchor="end">{value:g}</text>')

    def line(self, points: Line, colour: str, dash: str = "") -> None:
        """Connected points, dashed as SVG has it; one alone is a dot; those that are not finite are left out."""
        finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
        if len(finite) == 1:
            self.dots(finite, colour, 2)
        elif finite:
            dashed = f' stroke-dasharray="{dash}"' if dash else ""
            path = self.axes.path(finite)
            self.parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.3"{dashed}/>')

    def dots(self, points: Line, colour: str, radius: float = 1.0) -> None:
        """Unconnected points inside the axes."""
        (left, right), (low, high) = self.axes.x, self.axes.y
        for x, y in points:
            if left <= x <= right and low <= y <= high:
                u, v = self.axes.at(x, y)
                self.parts.append(f'<circle cx="{u:.1f}" cy="{v:.1f}" r="{radius}" fill="{colour}"/>')


def _apart(ends: tuple[float, float]) -> tuple[float, float]:
    low, high = ends
    return (low, high) if high - low > 1e-12 else (low - 0.5, high + 0.5)


def page(panels: Sequence[Panel], columns: int, legend: Mapping[str, str] | None = None) -> str:
    """The SVG of panels of one size in rows of ``columns``; ``legend`` maps names to colours."""
    width, height = panels[0].axes.width, panels[0].axes.height
    rows, top = -(-len(panels) // columns), 26 if legend else 4
    body = [
        f'<g transform="translate({k % columns * width},{top + k // columns * height})">{"".join(panel.parts)}</g>'
        for k, panel in enumerate(panels)
    ]
    left = 10
    for name, colour in (legend or {}).items():
        body.append(f'<rect x="{left}" y="8" width="12" height="12" fill="{colour}"/>')
        body.append(f'<text x="{left + 16}" y="18">{escape(name)}</text>')
        left += 30 + 7 * len(name)
    size = f'width="{max(columns * width, left)}" height="{top + rows * height}"'
    style = 'font-family="sans-serif" font-size="11"'
    background = '<rect width="100%" height="100%" fill="white"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{background}{"".join(body)}</svg>\n'


def smoothed(points: Line, most: int = 200) -> list[tuple[float, float]]:
    """At most ``most`` points, each the mean of its neighbours."""
    each = max(1, -(-len(points) // most))
    groups = [points[i : i + each] for i in range(0, len(points), each)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def curves(runs: Mapping[str, Sequence[Mapping[str, float]]], columns: int = 3) -> str:
    """The SVG of every figure that the logs of some runs hold, over steps, one colour per run.

    A student's figure on held-out clips is in one panel with its teacher's, which are dashed.

    Args:
        runs: log lines by the run's name.
        columns: panels side by side.
    """
    hidden = {"step", "stage", "t", "clips", "seconds"}
    names = sorted({key for lines in runs.values() for line in lines for key in line} - hidden, key=_by_steps)
    together: dict[str, list[str]] = {}
    for name in names:
        held = _HELD.fullmatch(name)
        together.setdefault(held[1] if held else name, []).append(name)
    panels = []
    for title, members in together.items():
        lines = {
            (name, run): smoothed([(x["step"], x[name]) for x in log if name in x and math.isfinite(x[name])])
            for name in members
            for run, log in runs.items()
        }
        points = [point for line in lines.values() for point in line]
        if not points:
            continue
        who = [name.removeprefix(f"{title}_").replace("_", " ") for name in members]
        told = f" ({', '.join(who)} steps)" if len(members) > 1 else ""
        xs, ys = zip(*points)
        panel = Panel(title.replace("_", " ") + told, (min(xs), max(xs)), (min(ys), max(ys)))
        for dash, name in zip(_DASHES, members):
            for number, run in enumerate(runs):
                panel.line(lines[name, run], colour_of(number), dash)
        panels.append(panel)
    legend = {run: colour_of(number) for number, run in enumerate(runs)}
    return page(panels, columns, legend if len(runs) > 1 else None)


def _by_steps(name: str) -> tuple[str, int]:
    """Teachers in the order of their numbers of steps."""
    held = _HELD.fullmatch(name)
    return (f"{held[1]}_{held[2]}", int(held[3] or 0)) if held else (name, 0)


_LEFT, _TOP, _RIGHT, _BOTTOM = 40, 8, 8, 18  # margins of a frame plot, which the report's script reads as well


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
    margin = 0.06 * (max(values) - min(values)) or 0.5
    ends = (min(values) - margin, max(values) + margin)
    axes = Axes((0, max(count - 1, 1)), ends, width, height, (_LEFT, _TOP, _RIGHT, _BOTTOM))
    parts = []
    for tick in ticks(*ends):
        v = axes.at(0, tick)[1]
        parts.append(f'<path class="grid" d="M{_LEFT} {v:.1f}H{width - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{v + 3.5:.1f}" text-anchor="end">{tick:g}</text>')
    for i in sorted({round(k * (count - 1) / 6) for k in range(7)}):
        parts.append(f'<text x="{axes.at(i, ends[0])[0]:.1f}" y="{height - 4}" text-anchor="middle">{i}</text>')
    for number, (name, line) in enumerate(lines.items()):
        for run in _runs(line) if name not in apart else []:
            dot = f"H{axes.at(*run[0])[0] + 0.1:.1f}" if len(run) == 1 else ""
            parts.append(
                f'<path class="line" data-system="{escape(name, quote=True)}" d="{axes.path(run)}{dot}" '
                f'stroke="{colour_of(number)}"><title>{escape(name)}</title></path>'
            )
    size = f'viewBox="0 0 {width} {height}" data-left="{_LEFT}" data-right="{width - _RIGHT}" data-count="{count}"'
    for row, name in enumerate(apart):
        own = [v for v in lines[name] if v is not None]
        told = f"far away: {name}, {min(own):.3g} to {max(own):.3g}"
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


def markdown_table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, without a line break at its end."""
    return "\n".join("| " + " | ".join(line) + " |" for line in (heads, ["---"] * len(heads), *lines))

"""Line charts and scatter plots as SVG, without a plotting library."""

import math
import re
from collections.abc import Mapping, Sequence
from html import escape

COLOURS = ("#1f6fb4", "#d1495b", "#2a9d5c", "#e08e0b", "#7b52ab", "#4aa3a2", "#8c6d46", "#666666")
Line = Sequence[tuple[float, float]]

_HELD = re.compile(r"(held_[a-z]+)_(student|teacher)_?(\d*)")
_DASHES = ("", "5 3", "1.5 2.5")  # student, teacher at as many steps, at many


def _ticks(low: float, high: float, count: int = 4) -> list[float]:
    step = 10 ** math.floor(math.log10((high - low) / count))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= count + 1)
    first = math.ceil(low / step)
    return [k * step for k in range(first, math.floor(high / step) + 1)]


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
        self.x, self.y, self.width, self.height = _apart(x), _apart(y), width, height
        self.parts = [f'<text x="{width / 2}" y="16" text-anchor="middle" font-weight="bold">{escape(title)}</text>']
        self._axes()

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of a point."""
        u, v = ((value - low) / (high - low) for value, (low, high) in ((x, self.x), (y, self.y)))
        return 48 + u * (self.width - 60), self.height - 24 - v * (self.height - 50)

    def _axes(self) -> None:
        for value in _ticks(*self.x):
            u, v = self.at(value, self.y[0])
            self.parts.append(f'<text x="{u:.1f}" y="{v + 14:.1f}" text-anchor="middle">{value:g}</text>')
        for value in _ticks(*self.y):
            u, v = self.at(self.x[0], value)
            end = self.at(self.x[1], value)[0]
            self.parts.append(f'<path d="M{u:.1f} {v:.1f}H{end:.1f}" stroke="#ddd"/>')
            self.parts.append(f'<text x="{u - 4:.1f}" y="{v + 4:.1f}" text-anchor="end">{value:g}</text>')

    def line(self, points: Line, colour: str, dash: str = "") -> None:
        """Connected points, dashed as SVG has it; one alone is a dot; those that are not finite are left out."""
        places = [self.at(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
        if len(places) == 1:
            self.parts.append(f'<circle cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="2" fill="{colour}"/>')
        elif places:
            path = "L".join(f"{u:.1f} {v:.1f}" for u, v in places)
            dashed = f' stroke-dasharray="{dash}"' if dash else ""
            self.parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.3"{dashed}/>')

    def dots(self, points: Line, colour: str, radius: float = 1.0) -> None:
        """Unconnected points inside the axes."""
        for x, y in points:
            if self.x[0] <= x <= self.x[1] and self.y[0] <= y <= self.y[1]:
                u, v = self.at(x, y)
                self.parts.append(f'<circle cx="{u:.1f}" cy="{v:.1f}" r="{radius}" fill="{colour}"/>')


def _apart(ends: tuple[float, float]) -> tuple[float, float]:
    low, high = ends
    return (low, high) if high - low > 1e-12 else (low - 0.5, high + 0.5)


def page(panels: Sequence[Panel], columns: int, legend: Mapping[str, str] | None = None) -> str:
    """The SVG of panels of one size in rows of ``columns``; ``legend`` maps names to colours."""
    width, height = panels[0].width, panels[0].height
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
            for colour, run in zip(_colours(len(runs)), runs):
                panel.line(lines[name, run], colour, dash)
        panels.append(panel)
    return page(panels, columns, dict(zip(runs, _colours(len(runs)))) if len(runs) > 1 else None)


def _by_steps(name: str) -> tuple[str, int]:
    """Teachers in the order of their numbers of steps."""
    held = _HELD.fullmatch(name)
    return (f"{held[1]}_{held[2]}", int(held[3] or 0)) if held else (name, 0)


def _colours(count: int) -> list[str]:
    return [COLOURS[k % len(COLOURS)] for k in range(count)]

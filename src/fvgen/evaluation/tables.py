"""Results as a table in the layout of the field's papers: data sets by systems, metrics side by side."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_SHORT = {"psnr": "PSNR", "fid": "FID", "kid": "KID", "seconds": "s/scene"}
_FIRST = ("psnr", "ssim", "lpips", "fid", "kid")
ARROWS = {"higher": ("↑", r"$\uparrow$"), "lower": ("↓", r"$\downarrow$"), "one": ("→1", r"$\to 1$"), "": ("", "")}


@dataclass(frozen=True)
class Column:
    """A figure of every row.

    Attributes:
        name: of the metric.
        title: as tables call it, definition included.
        better: ``higher``, ``lower``, ``one``, or empty for no order.
        digits: after the point.
    """

    name: str
    title: str
    better: str
    digits: int

    def text(self, value: float | None) -> str:
        """A cell."""
        return "" if value is None else f"{value:.{self.digits}f}"


Row = tuple[str, str, dict[str, float | None]]  # data set, system, figures

MEAN = "mean of data sets"


def title_of(metric: str) -> str:
    """A metric's name for a heading, its definition kept."""
    if metric in _SHORT:
        return _SHORT[metric]
    head, _, rest = metric.partition("_")
    return f"{head.upper() if head in ('psnr', 'ssim', 'lpips') else head} {rest.replace('_', ' ')}".strip()


def columns_of(results: dict[str, Any]) -> list[Column]:
    """The metrics that ran, in the order of the paper's tables, then seconds."""
    better = {name: spec["better"] for name, spec in results["metrics"].items()}
    guided = {name: spec["better"] for name, spec in results["metrics_of_guide"].items()}
    present = {n for rows in results["datasets"].values() for row in rows.values() for n in row["mean"]}
    better |= {name: way for name, way in guided.items() if name in present}

    def place(name: str) -> int:
        if name in guided:
            return len(_FIRST) + 1
        return next((i for i, head in enumerate(_FIRST) if name.startswith(head)), len(_FIRST))

    names = sorted(better, key=place)
    columns = [Column(n, title_of(n), better[n], 2 if n.startswith(("psnr", "fid")) else 3) for n in names]
    return [*columns, Column("seconds", title_of("seconds"), "lower", 2)]


def rows_of(results: dict[str, Any], part: str = "mean") -> list[Row]:
    """The figures of every data set and system, then their means; ``part``: ``mean`` or ``mean_with_given``."""
    groups = {**results["datasets"]}
    if "mean_of_datasets" in results:
        groups[MEAN] = results["mean_of_datasets"]
    return [
        (dataset, system, {**row.get(part, {}), **row["distances"], "seconds": row["seconds"]})
        for dataset, systems in groups.items()
        for system, row in systems.items()
    ]


def ranks(rows: list[Row], column: Column) -> dict[tuple[str, str], int]:
    """Place 0 or 1 of a column's best rows and the second ones, data set by data set; what reads the same shares it."""
    order: dict[str, Callable[[float], float]] = {
        "higher": lambda v: -v,
        "lower": lambda v: v,
        "one": lambda v: abs(v - 1),
    }
    found: dict[tuple[str, str], int] = {}
    if column.better not in order:
        return found
    for dataset in dict.fromkeys(row[0] for row in rows):
        shown = {s: float(column.text(v)) for d, s, f in rows if d == dataset and (v := f.get(column.name)) is not None}
        best = sorted(set(shown.values()), key=order[column.better])[:2]
        if len(best) > 1:
            found |= {(dataset, system): best.index(value) for system, value in shown.items() if value in best}
    return found


def _cells(results: dict[str, Any], part: str, mark: Callable[[str, int | None], str]) -> list[list[str]]:
    rows, columns = rows_of(results, part), columns_of(results)
    places = [ranks(rows, column) for column in columns]
    return [
        [dataset, system]
        + [mark(c.text(figures.get(c.name)), p.get((dataset, system))) for c, p in zip(columns, places)]
        for dataset, system, figures in rows
    ]


def markdown(results: dict[str, Any]) -> str:
    """``table.md``: the best of a data set bold, the second in italics, and below it what the numbers rest on."""

    def mark(text: str, place: int | None) -> str:
        return {0: f"**{text}**", 1: f"*{text}*"}.get(place, text) if place is not None else text

    columns = columns_of(results)
    head = ["data set", "system", *(f"{c.title} {ARROWS[c.better][0]}".strip() for c in columns)]

    def table(part: str) -> str:
        lines = [head, ["---"] * len(head), *_cells(results, part, mark)]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    text = f"{table('mean')}\n\n{notes(results)}\n"
    if any("mean_with_given" in row for rows in results["datasets"].values() for row in rows.values()):
        text += "\nThe same with the given views counted as targets (distances and images without them):\n\n"
        text += table("mean_with_given") + "\n"
    return text


def sizes(results: dict[str, Any]) -> str:
    """Width and height of the pictures that systems of ours made; those of all splits where these differ."""
    size = results["pictures"]["size"]
    if size is not None:
        return "{}x{}".format(*size)
    return ", ".join(dict.fromkeys("{}x{}".format(*record["size"]) for record in results["splits"].values()))


def notes(results: dict[str, Any]) -> str:
    """One line on what the numbers rest on."""
    any_row = {dataset: next(iter(rows.values())) for dataset, rows in results["datasets"].items()}
    images = ", ".join(f"{d}: {row['images']} images in {row['splits']}" for d, row in any_row.items())
    absent = "".join(f"; {name} not computed" for name in results["metrics_absent"])
    told = [name for name, definition in results["systems"].items() if "seconds_from" in definition]
    return (
        f"Protocol {results['protocol']}, index {results['index']['sha256'][:12]}, {size_text(results)}, "
        f"{results['poses']['poses']} poses; means over frames, then over scenes (or pairs)"
        f"{', then over data sets' if 'mean_of_datasets' in results else ''}; {images}; seconds without "
        f"finding cameras and depth, on {results['hardware'].get('gpu', results['hardware']['cpu'])}"
        f"{', of ' + ', '.join(told) + ' as told beside the frames' if told else ''}{absent}."
    )


def size_text(results: dict[str, Any]) -> str:
    """The size of the scored pictures, and where they are the part that systems of several sizes have in common."""
    made, common = sizes(results), results["pictures"].get("common_crop")
    if common is None:
        return made
    resampled = ", ".join(common["resampled"])
    told = f"; {resampled} resampled" if resampled else ""
    return f"{', '.join(common['sizes'])} (what all systems show; ours made at {made}{told})"


def latex(results: dict[str, Any]) -> str:
    """``table.tex``, for the packages ``booktabs`` and ``multirow``: the best bold, the second underlined."""

    def mark(text: str, place: int | None) -> str:
        if place is None or not text:
            return text
        return rf"\textbf{{{text}}}" if place == 0 else rf"\underline{{{text}}}"

    columns = columns_of(results)
    heads = [f"{tex(c.title)} {ARROWS[c.better][1]}".strip() for c in columns]
    lines = [
        f"% {_one_line(notes(results))}",
        r"\begin{tabular}{ll" + "r" * len(columns) + "}",
        r"\toprule",
        " & & " + " & ".join(heads) + r" \\",
    ]
    cells = _cells(results, "mean", mark)
    for dataset in dict.fromkeys(row[0] for row in cells):
        own = [row for row in cells if row[0] == dataset]
        lines.append(r"\midrule")
        for i, row in enumerate(own):
            first = rf"\multirow{{{len(own)}}}{{*}}{{{tex(dataset)}}}" if i == 0 else ""
            lines.append(" & ".join([first, tex(row[1]), *row[2:]]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def tex(text: str) -> str:
    """Text for LaTeX."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, rf"\{c}" if c in "&%$#_{}" else c) for c in text)


def _one_line(text: str) -> str:
    return " ".join(text.split())

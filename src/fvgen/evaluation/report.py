"""Reports of results: tables in the layout of the field's papers, plots, contact sheets, the page."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fvgen.errors import UserError
from fvgen.evaluation.store import Store
from fvgen.files import write_json, write_text
from fvgen.pages import data_uri, filled, script_json
from fvgen.progress import track

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
        f"finding cameras and depth, on {results['hardware'].get('gpu') or results['hardware']['cpu']}"
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


_TITLE = 14  # pixels


def contact_sheet(pictures: Mapping[str, Tensor]) -> np.ndarray:
    """``[H, W, 3]`` uint8: one column per system under its name, one row per frame.

    Args:
        pictures: uint8 ``[F, H, W, 3]`` by name, all of one shape.
    """
    from PIL import Image, ImageDraw

    columns = []
    for name, clip in pictures.items():
        title = Image.new("RGB", (clip.shape[2], _TITLE), "white")
        ImageDraw.Draw(title).text((3, 1), name, fill="black")
        columns.append(torch.cat([torch.from_numpy(np.array(title)), *clip]))
    return torch.cat(columns, 1).numpy()


QUALITY = 88  # of JPEG


def page(results: dict[str, Any], store: Store, megabytes: float) -> str:
    """The page.

    Args:
        results: what ``results.json`` holds.
        store: where the frames lie.
        megabytes: of embedded pictures, about. Where all do not fit, the worst frame of each split and then frames
            spread over it are embedded, and the page says how many.
    """
    systems = list(results["systems"])
    main = _main_system(results)
    metrics = list(next(iter(results["splits"].values()))["systems"][main]["frames"])
    better = {**results["metrics"], **results["metrics_of_guide"]}
    images = _embedded(results, store, systems, main, metrics[0], megabytes)
    content = {
        "systems": systems,
        "main": main,
        "metrics": metrics,
        "titles": {name: title_of(name) for name in metrics},
        "better": {name: better[name]["better"] for name in metrics},
        "colours": {name: colour_of(i) for i, name in enumerate(systems)},
        "splits": [_split(name, record, systems, metrics, images[name]) for name, record in results["splits"].items()],
    }
    parts = {
        "CHIPS": _chips(results),
        "TABLE": _table(results, systems),
        "NOTES": escape(notes(results)),
        "FOOTER": escape(_footer(results)),
        "DEFINITIONS": escape(_definitions(results)),
        "DATA": script_json(content),
    }
    return filled("fvgen.evaluation", "page.html", parts)


def _main_system(results: dict[str, Any]) -> str:
    """The system that is shown first: the last model, else the last of the others."""
    kinds = {name: definition["kind"] for name, definition in results["systems"].items()}
    models = [name for name, kind in kinds.items() if kind == "model"]
    return models[-1] if models else list(kinds)[-1]


def _split(
    name: str, record: dict[str, Any], systems: Sequence[str], metrics: Sequence[str], images: dict[int, dict[str, str]]
) -> dict[str, Any]:
    """What the page's script needs of one split."""
    scores = {s: record["systems"][s]["frames"] for s in systems}
    plots = {m: frame_plot({s: scores[s].get(m, []) for s in systems}) for m in metrics}
    rounded = {
        s: {m: [None if v is None else round(v, 4) for v in scores[s].get(m, [])] for m in metrics} for s in systems
    }
    return {
        "name": name,
        "dataset": record["dataset"],
        "given": len(record["context"]),
        "names": record["names"],
        "scores": rounded,
        "plots": plots,
        "images": images,
    }


def _embedded(
    results: dict[str, Any], store: Store, systems: Sequence[str], main: str, metric: str, megabytes: float
) -> dict[str, dict[int, dict[str, str]]]:
    """Pictures as data URIs by split, frame and system, frame by frame from every split until there is no more room."""
    found: dict[str, dict[int, dict[str, str]]] = {name: {} for name in results["splits"]}
    better = {**results["metrics"], **results["metrics_of_guide"]}[metric]["better"]
    orders = {n: frame_order(r["systems"][main]["frames"][metric], better) for n, r in results["splits"].items()}
    room = megabytes * 1e6
    for turn, name in track(list(_turns(orders)), "page"):
        frame = orders[name][turn]
        uris = {
            system: data_uri(_one(store, system, name, results["splits"][name], frame), QUALITY)
            for system in ("truth", *systems)
        }
        size = sum(map(len, uris.values()))
        if size > room and turn > 0:  # the worst frame of each split is always there
            break
        room -= size
        found[name][frame] = uris
    return {name: dict(sorted(frames.items())) for name, frames in found.items()}


def _turns(orders: dict[str, list[int]]) -> Iterator[tuple[int, str]]:
    """Every split's first frame, then every split's second, and so on."""
    for turn in range(max(map(len, orders.values()))):
        yield from ((turn, name) for name, order in orders.items() if turn < len(order))


def frame_order(scores: Sequence[float | None], better: str) -> list[int]:
    """All frames, the worst first, then always the one farthest from all before."""
    bad = {"higher": lambda v: -v, "lower": lambda v: v, "one": lambda v: abs(v - 1)}[better]
    order = [max(range(len(scores)), key=lambda i: -np.inf if scores[i] is None else bad(scores[i]))]
    distance = np.abs(np.arange(len(scores)) - order[0])
    while len(order) < len(scores):
        order.append(int(distance.argmax()))
        distance = np.minimum(distance, np.abs(np.arange(len(scores)) - order[-1]))
    return order


def _one(store: Store, system: str, split: str, record: dict[str, Any], frame: int) -> Tensor:
    picture = store.load_frame(system, split, record["names"][frame])
    if picture is None:
        raise UserError(f"frames of {split} in {store.folder} were removed while this ran; start it again")
    return picture


def _chips(results: dict[str, Any]) -> str:
    pictures, hardware = results["pictures"], results["hardware"]
    common = pictures["common_crop"]
    facts = {
        "protocol": results["protocol"],
        "size": ", ".join(common["sizes"]) if common else sizes(results),
        "poses": results["poses"]["poses"],
        "index": results["index"]["sha256"][:12],
        "splits": str(results["index"]["splits"]),
        "on": hardware.get("gpu") or hardware["cpu"],
        "fvgen": results["software"]["fvgen"],
        "revision": results["software"]["revision"][:10],
    }
    return "".join(f"<span>{name} <b>{escape(value)}</b></span>" for name, value in facts.items() if value)


def _table(results: dict[str, Any], systems: Sequence[str]) -> str:
    columns, rows = columns_of(results), rows_of(results)
    places = [ranks(rows, column) for column in columns]
    arrows = {"higher": " ↑", "lower": " ↓", "one": " → 1", "": ""}
    heads = "".join(f"<th>{escape(c.title)}{arrows[c.better]}</th>" for c in columns)
    body = []
    for dataset, system, figures in rows:
        cells = ""
        for column, place in zip(columns, places):
            kind = {0: ' class="first"', 1: ' class="second"', None: ""}[place.get((dataset, system))]
            cells += f"<td{kind}>{column.text(figures.get(column.name)) or '–'}</td>"
        key = f'<span class="key" style="background:{colour_of(systems.index(system))}"></span>'
        body.append(f"<tr><td>{escape(dataset)}</td><td>{key}{escape(system)}</td>{cells}</tr>")
    return (
        f"<table><thead><tr><th>data set</th><th>system</th>{heads}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    )


def _footer(results: dict[str, Any]) -> str:
    pictures, common = results["pictures"], results["pictures"]["common_crop"]
    crop = pictures["crop"]
    if common:
        declared = "".join(f"; {name}: {text}" for name, text in common["declared"].items())
        cut = "; ".join(dict.fromkeys(record["crop"] for record in results["splits"].values()))
        crop = f"ours {crop}{declared}; scored is {common['what']}: {cut}"
    return (
        f"Pictures: {crop}; {pictures['rounding']}; shown here as JPEG, scored from the PNG files in "
        f"frames/. Lens: {pictures['lens']}."
    )


def _definitions(results: dict[str, Any]) -> str:
    metrics = {**results["metrics"], **results["metrics_of_guide"]}
    lines = [f"{name}: {spec['definition']}" for name, spec in metrics.items()]
    lines += [f"{name}: not computed: {reason}" for name, reason in results["metrics_absent"].items()]
    lines += [f"weights {name}: SHA-256 {value}" for name, value in results["weights_sha256"].items()]
    lines += [f"system {name}: {json.dumps(definition)}" for name, definition in results["systems"].items()]
    return "\n".join(lines)


SHEET_FRAMES = 4


def write_report(store: Store, results: dict[str, Any], megabytes: float) -> str:
    """Write ``results.json``, ``table.md``, ``table.tex``, ``index.html`` and ``sheets/``.

    Args:
        store: of the finished run.
        results: what :func:`~fvgen.evaluation.run.evaluate` returned.
        megabytes: of pictures in the page, about.

    Returns:
        The Markdown table.
    """
    write_json(store.folder / "results.json", results)
    table = markdown(results)
    write_text(store.folder / "table.md", table)
    write_text(store.folder / "table.tex", latex(results))
    for name, record in track(results["splits"].items(), "sheets"):
        _write_sheet(store, name, record, list(results["systems"]))
    write_text(store.folder / "index.html", page(results, store, megabytes))
    return table


def _write_sheet(store: Store, split: str, record: dict[str, Any], systems: list[str]) -> None:
    from PIL import Image

    from fvgen.evaluation.store import safe_name

    total = len(record["names"])
    rows = sorted({round((k + 0.5) * total / SHEET_FRAMES - 0.5) for k in range(min(SHEET_FRAMES, total))})
    clips = {}
    for system in (*systems, "truth"):
        pictures = [store.load_frame(system, split, record["names"][row]) for row in rows]
        clips[system] = torch.stack([picture for picture in pictures if picture is not None])
    folder = store.folder / "sheets"
    folder.mkdir(exist_ok=True)
    Image.fromarray(contact_sheet(clips)).save(folder / f"{safe_name(split)}.png")

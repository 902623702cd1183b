"""Reports of results: tables in the layout of the field's papers, plots, contact sheets, the page."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby, zip_longest
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from fvgen.charts import colour_of, frame_plot, markdown_table
from fvgen.errors import UserError
from fvgen.evaluation.store import Store, safe_name
from fvgen.files import whole_file, write_json, write_text
from fvgen.pages import chips, data_uri, filled, script_json
from fvgen.progress import track

_SHORT = {"psnr": "PSNR", "fid": "FID", "kid": "KID", "seconds": "s/scene"}

_HEADS = {"psnr": "PSNR", "ssim": "SSIM", "lpips": "LPIPS", "stlpips": "ST-LPIPS"}

_FIRST = (*_HEADS, "fid", "kid")

MARKDOWN, LATEX, _HTML = 0, 1, 2

_ARROWS = {
    "higher": ("↑", r"$\uparrow$", "↑"),
    "lower": ("↓", r"$\downarrow$", "↓"),
    "one": ("→1", r"$\to 1$", "→ 1"),
    "": ("", "", ""),
}

_BADNESS: dict[str, Callable[[float], float]] = {
    "higher": lambda v: -v,
    "lower": lambda v: v,
    "one": lambda v: abs(v - 1),
}


@dataclass(frozen=True)
class Column:
    """A figure that every row of a table has.

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
        """A value as it stands in the table, empty where there is none."""
        return "" if value is None else f"{value:.{self.digits}f}"

    def head(self, form: int) -> str:
        """The title and an arrow to what is better, for ``MARKDOWN`` or ``LATEX``."""
        return f"{tex(self.title) if form == LATEX else self.title} {_ARROWS[self.better][form]}".strip()


Row = tuple[str, str, dict[str, float | None]]  # data set, system, figures

MEAN = "mean of data sets"


def title_of(metric: str) -> str:
    """A metric as headings call it: ``lpips_vgg_norm`` is ``LPIPS vgg norm``."""
    if metric in _SHORT:
        return _SHORT[metric]
    head, _, rest = metric.partition("_")
    return f"{_HEADS.get(head, head)} {rest.replace('_', ' ')}".strip()


def columns_of(results: dict[str, Any]) -> list[Column]:
    """The metrics that ran, in the order of the paper's tables, those of the guide, then seconds."""
    present = {n for rows in results["datasets"].values() for row in rows.values() for n in row["mean"]}
    specs = sorted(
        results["metrics"].items(),
        key=lambda spec: next(i for i, head in enumerate((*_FIRST, "")) if spec[0].startswith(head)),
    )
    specs += [(name, spec) for name, spec in results["metrics_of_guide"].items() if name in present]
    columns = [Column(n, title_of(n), spec["better"], 2 if n.startswith(("psnr", "fid")) else 3) for n, spec in specs]
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


def _ranks(rows: Sequence[Row], column: Column) -> dict[tuple[str, str], int]:
    """Place 0 or 1 of a column's best rows and the second ones, data set by data set; what reads the same shares it."""
    found: dict[tuple[str, str], int] = {}
    for dataset in dict.fromkeys(row[0] for row in rows) if column.better else ():
        shown = {s: float(column.text(v)) for d, s, f in rows if d == dataset and (v := f.get(column.name)) is not None}
        best = sorted(set(shown.values()), key=_BADNESS[column.better])[:2]
        if len(best) > 1:
            found |= {(dataset, system): best.index(value) for system, value in shown.items() if value in best}
    return found


def marked(
    rows: Sequence[Row], columns: Sequence[Column], best: str, second: str, other: str = "{}", none: str = ""
) -> list[list[str]]:
    """The figures of every row as text.

    Args:
        rows, columns: of the table.
        best, second, other: templates with ``{}`` for the best figures of a data set, the second ones, and the others.
        none: what stands in place of a figure that is not there.
    """
    forms = {0: best, 1: second, None: other}
    places = [_ranks(rows, column) for column in columns]
    return [
        [forms[p.get((dataset, system))].format(c.text(figures.get(c.name)) or none) for c, p in zip(columns, places)]
        for dataset, system, figures in rows
    ]


def markdown(results: dict[str, Any]) -> str:
    """``table.md``: the best of a data set bold, the second in italics, and below it what the numbers rest on."""
    columns = columns_of(results)
    heads = ["data set", "system", *(column.head(MARKDOWN) for column in columns)]

    def table(part: str) -> str:
        rows = rows_of(results, part)
        cells = marked(rows, columns, "**{}**", "*{}*")
        return markdown_table(heads, [[*row[:2], *line] for row, line in zip(rows, cells)])

    text = f"{table('mean')}\n\n{notes(results)}\n"
    if any("mean_with_given" in row for rows in results["datasets"].values() for row in rows.values()):
        text += "\nThe same with the given views counted as targets (distances and images without them):\n\n"
        text += table("mean_with_given") + "\n"
    return text


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
        f"finding cameras and depth, on {machine_of(results)}"
        f"{', of ' + ', '.join(told) + ' as told beside the frames' if told else ''}{absent}."
    )


def machine_of(results: dict[str, Any]) -> str:
    """What the seconds were measured on: the graphics card, or the processor where there was none."""
    return results["hardware"].get("gpu") or results["hardware"]["cpu"]


def _made_at(results: dict[str, Any]) -> str:
    """Width and height of the pictures that systems of ours made; those of all splits where these differ."""
    size = results["pictures"]["size"]
    sizes = [size] if size is not None else [record["size"] for record in results["splits"].values()]
    return ", ".join(dict.fromkeys("{}x{}".format(*size) for size in sizes))


def size_text(results: dict[str, Any]) -> str:
    """The size of the scored pictures, and where they are the part that systems of several sizes have in common."""
    made, common = _made_at(results), results["pictures"].get("common_crop")
    if common is None:
        return made
    told = f"; {', '.join(common['resampled'])} resampled" if common["resampled"] else ""
    return f"{', '.join(common['sizes'])} (what all systems show; ours made at {made}{told})"


def tabular(alignment: str, head: str, rows: Sequence[Sequence[str]], grouped: bool = True) -> str:
    """A table in LaTeX, for the packages ``booktabs`` and ``multirow``.

    Args:
        alignment: a letter for each column, as ``tabular`` takes it.
        head: the first line, without its end.
        rows: cells, escaped already except for the first if ``grouped``.
        grouped: rows of the same first cell stand together, under a rule, the cell once for all of them.
    """
    lines = [rf"\begin{{tabular}}{{{alignment}}}", r"\toprule", rf"{head} \\"]
    for name, group in groupby(rows, key=lambda row: row[0] if grouped else ""):
        lines.append(r"\midrule")
        own = list(group)
        firsts = [rf"\multirow{{{len(own)}}}{{*}}{{{tex(name)}}}", *[""] * (len(own) - 1)]
        lines += [" & ".join([first if grouped else row[0], *row[1:]]) + r" \\" for first, row in zip(firsts, own)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def latex(results: dict[str, Any]) -> str:
    """``table.tex``, for the packages ``booktabs`` and ``multirow``: the best bold, the second underlined."""
    columns, rows = columns_of(results), rows_of(results)
    cells = marked(rows, columns, r"\textbf{{{}}}", r"\underline{{{}}}")
    lines = [[dataset, tex(system), *line] for (dataset, system, _), line in zip(rows, cells)]
    head = " & & " + " & ".join(column.head(LATEX) for column in columns)
    return f"% {' '.join(notes(results).split())}\n{tabular('ll' + 'r' * len(columns), head, lines)}\n"


def tex(text: str) -> str:
    """Text for LaTeX, its special characters escaped."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, rf"\{c}" if c in "&%$#_{}" else c) for c in text)


_TITLE = 14  # pixels


def contact_sheet(pictures: Mapping[str, Tensor]) -> np.ndarray:
    """``[H, W, 3]`` uint8: one column per system under its name, one row per frame.

    Args:
        pictures: uint8 ``[F, H, W, 3]`` by name, all of one shape.
    """
    columns = []
    for name, clip in pictures.items():
        title = Image.new("RGB", (clip.shape[2], _TITLE), "white")
        ImageDraw.Draw(title).text((3, 1), name, fill="black")
        columns.append(torch.cat([torch.from_numpy(np.array(title)), *clip]))
    return torch.cat(columns, 1).numpy()


_QUALITY = 88  # of JPEG


def page(results: dict[str, Any], store: Store, megabytes: float) -> str:
    """``index.html``: the table, the worst frames, and every split with its pictures and plots.

    Args:
        results: what ``results.json`` holds.
        store: where the frames lie.
        megabytes: of embedded pictures, about. Where all do not fit, the worst frame of each split and then frames
            spread over it are embedded, and the page says how many.

    Raises:
        UserError: the frames are not there any more.
    """
    systems, definitions = list(results["systems"]), results["systems"].items()
    models = [name for name, definition in definitions if definition["kind"] == "model"]
    main = (models or systems)[-1]  # the system that is shown first
    metrics = list(next(iter(results["splits"].values()))["systems"][main]["frames"])
    specs = {**results["metrics"], **results["metrics_of_guide"]}
    better = {name: specs[name]["better"] for name in metrics}
    orders = {
        name: frame_order(record["systems"][main]["frames"][metrics[0]], better[metrics[0]])
        for name, record in results["splits"].items()
    }
    images = _embedded(results, store, orders, megabytes)
    splits = []
    for name, record in results["splits"].items():
        scores = {s: {m: record["systems"][s]["frames"].get(m, []) for m in metrics} for s in systems}
        rounded = {
            s: {m: [None if v is None else round(v, 4) for v in values] for m, values in own.items()}
            for s, own in scores.items()
        }
        split = {"name": name, "dataset": record["dataset"], "given": len(record["context"]), "names": record["names"]}
        plots = {m: frame_plot({s: scores[s][m] for s in systems}) for m in metrics}
        splits.append({**split, "scores": rounded, "plots": plots, "images": images[name]})
    content = {
        "systems": systems,
        "main": main,
        "metrics": metrics,
        "titles": {name: title_of(name) for name in metrics},
        "better": better,
        "colours": {name: colour_of(i) for i, name in enumerate(systems)},
        "splits": splits,
    }
    told = [f"{name}: {spec['definition']}" for name, spec in specs.items()]
    told += [f"{name}: not computed: {reason}" for name, reason in results["metrics_absent"].items()]
    told += [f"weights {name}: SHA-256 {value}" for name, value in results["weights_sha256"].items()]
    told += [f"system {name}: {json.dumps(definition)}" for name, definition in definitions]
    common = results["pictures"]["common_crop"]
    facts = {
        "protocol": results["protocol"],
        "size": ", ".join(common["sizes"]) if common else _made_at(results),
        "poses": results["poses"]["poses"],
        "index": results["index"]["sha256"][:12],
        "splits": results["index"]["splits"],
        "on": machine_of(results),
        "fvgen": results["software"]["fvgen"],
        "revision": results["software"]["revision"][:10],
    }
    columns, rows = columns_of(results), rows_of(results)
    cells = marked(rows, columns, '<td class="first">{}</td>', '<td class="second">{}</td>', "<td>{}</td>", "–")
    lines = ""
    for (dataset, system, _), line in zip(rows, cells):
        key = f'<span class="key" style="background:{colour_of(systems.index(system))}"></span>'
        lines += f"<tr><td>{escape(dataset)}</td><td>{key}{escape(system)}</td>{''.join(line)}</tr>"
    parts = {
        "CHIPS": chips(facts),
        "HEADS": "".join(f"<th>{escape(column.head(_HTML))}</th>" for column in columns),
        "ROWS": lines,
        "NOTES": escape(notes(results)),
        "FOOTER": escape(_footer(results)),
        "DEFINITIONS": escape("\n".join(told)),
        "DATA": script_json(content),
    }
    return filled("fvgen.evaluation", "page.html", parts)


def _embedded(
    results: dict[str, Any], store: Store, orders: Mapping[str, Sequence[int]], megabytes: float
) -> dict[str, dict[int, dict[str, str]]]:
    """Pictures as data URIs by split, frame and system, frame by frame from every split until there is no more room."""
    found: dict[str, dict[int, dict[str, str]]] = {name: {} for name in orders}
    turns = enumerate(zip_longest(*orders.values()))
    queue = [(turn, name, i) for turn, frames in turns for name, i in zip(orders, frames) if i is not None]
    room = megabytes * 1e6
    for turn, name, frame in track(queue, "page"):
        uris = {}
        for system in ("truth", *results["systems"]):
            picture = store.load_frame(system, name, results["splits"][name]["names"][frame])
            if picture is None:
                raise UserError(f"frames of {name} in {store.folder} were removed while this ran; start it again")
            uris[system] = data_uri(picture, _QUALITY)
        size = sum(map(len, uris.values()))
        if size > room and turn > 0:  # the worst frame of each split is always there
            break
        room -= size
        found[name][frame] = uris
    return {name: dict(sorted(frames.items())) for name, frames in found.items()}


def frame_order(scores: Sequence[float | None], better: str) -> list[int]:
    """All frames, the worst first, then always the one farthest from all before."""
    badness = [-np.inf if score is None else _BADNESS[better](score) for score in scores]
    order = [badness.index(max(badness))]
    distance = np.abs(np.arange(len(scores)) - order[0])
    while len(order) < len(scores):
        order.append(int(distance.argmax()))
        distance = np.minimum(distance, np.abs(np.arange(len(scores)) - order[-1]))
    return order


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


_SHEET_FRAMES = 4


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
    (store.folder / "sheets").mkdir(exist_ok=True)
    for split, record in track(results["splits"].items(), "sheets"):
        total = len(record["names"])
        rows = sorted({round((k + 0.5) * total / _SHEET_FRAMES - 0.5) for k in range(min(_SHEET_FRAMES, total))})
        clips = {}
        for system in (*results["systems"], "truth"):
            pictures = [store.load_frame(system, split, record["names"][row]) for row in rows]
            clips[system] = torch.stack([picture for picture in pictures if picture is not None])
        with whole_file(store.folder / "sheets" / f"{safe_name(split)}.png") as unfinished:
            Image.fromarray(contact_sheet(clips)).save(unfinished, format="PNG")
    write_text(store.folder / "index.html", page(results, store, megabytes))
    return table

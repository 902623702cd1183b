"""``index.html``: truth, guide and every system side by side, in one file that needs nothing else."""

import json
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

import numpy as np
from torch import Tensor

from fvgen.errors import UserError
from fvgen.evaluation.plots import colour_of, frame_plot
from fvgen.evaluation.store import Store
from fvgen.evaluation.tables import columns_of, notes, ranks, rows_of, sizes, title_of
from fvgen.pages import data_uri, filled, script_json
from fvgen.progress import track

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
        "on": hardware.get("gpu", hardware["cpu"]),
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

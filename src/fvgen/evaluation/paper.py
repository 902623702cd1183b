"""The tables of FVGen's paper, filled from results of ``fvgen evaluate``, the paper's own numbers beside ours."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from fvgen.charts import markdown_table
from fvgen.errors import UserError
from fvgen.evaluation.protocols import read_json
from fvgen.evaluation.report import (
    LATEX,
    MARKDOWN,
    Column,
    Row,
    machine_of,
    marked,
    size_text,
    tabular,
    tex,
)
from fvgen.evaluation.scores import mean_of_all

DATASETS = ("mip-360", "TNT")
BOTH = ""  # in the place of a data set: the mean of both


@dataclass(frozen=True)
class PaperRow:
    """A row of a table, which stands once in each of the table's data sets.

    Attributes:
        name: as the paper calls it.
        systems: names of ours that fill it unless told otherwise, a number of steps apart (``fvgen:4`` is ``fvgen``).
        numbers: the paper's, by data set, in the order of the table's columns.
        modules: of an ablation, what is in it.
    """

    name: str
    systems: tuple[str, ...]
    numbers: Mapping[str, tuple[float, ...]]
    modules: tuple[bool, ...] = ()


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper with its own numbers.

    Attributes:
        number: its number in the paper.
        title: what it compares.
        protocol: the reading of the paper's protocol that fills it.
        heads: of the columns before the numbers.
        timed: whether the last column is time, seconds.
        rows: its rows in their order.
    """

    number: int
    title: str
    protocol: str
    heads: tuple[str, ...]
    timed: bool
    rows: tuple[PaperRow, ...]

    @property
    def groups(self) -> tuple[str, ...]:
        """The data sets of its rows in their order, or ``BOTH`` alone."""
        return tuple(self.rows[0].numbers)


def _row(name: str, systems: str, *numbers: tuple[float, ...]) -> PaperRow:
    return PaperRow(name, tuple(systems.split()), dict(zip(DATASETS, numbers)))


# Teng et al., FVGen: Accelerating Novel-View Synthesis with Adversarial Video Diffusion Distillation (ICCV 2025),
# tables 1, 2 and 3, as printed: PSNR, SSIM, LPIPS, FID and, in the first, seconds. The third prints no data set; its
# full model is the mean of the two data sets of the others to the last digit, so all of it is read as means of both.
PAPER = (
    PaperTable(
        1,
        "novel view synthesis, 5 views given, 56 asked for",
        "fvgen-5x14",
        ("data set", "method"),
        True,
        (
            _row("DepthSplat", "DepthSplat", (11.23, 0.213, 0.715, 32.45, 4.2), (12.43, 0.263, 0.677, 35.88, 4.3)),
            _row("MVSplat360", "MVSplat360", (12.28, 0.285, 0.682, 25.69, 87.2), (14.18, 0.301, 0.532, 25.23, 87.3)),
            _row(
                "ViewCrafter",
                "ViewCrafter viewcrafter-512 teacher",
                (16.35, 0.346, 0.433, 16.28, 66.3),
                (18.69, 0.402, 0.208, 23.94, 65.9),
            ),
            _row("Ours", "fvgen", (16.28, 0.352, 0.429, 17.44, 5.1), (18.72, 0.411, 0.210, 23.64, 5.0)),
        ),
    ),
    PaperTable(
        2,
        "distillation methods, 2 views given, 14 asked for",
        "fvgen-2x14",
        ("data set", "method"),
        False,
        (
            _row("VC+DMD2", "dmd2", (9.29, 0.184, 0.836, 35.59), (10.27, 0.209, 0.731, 37.67)),
            _row("VC+CausVid", "causvid", (15.77, 0.336, 0.441, 19.27), (17.33, 0.405, 0.232, 24.92)),
            _row("Ours", "fvgen", (16.28, 0.352, 0.429, 17.44), (18.72, 0.411, 0.210, 23.64)),
        ),
    ),
    PaperTable(
        3,
        "ablations, means of both data sets",
        "fvgen-2x14",
        ("GAN", "DMD", "soften RKL"),
        False,
        (
            PaperRow("no_init", ("no_init",), {BOTH: (8.62, 0.154, 0.880, 40.17)}, (False, True, True)),
            PaperRow("gan_init", ("gan_init",), {BOTH: (16.23, 0.369, 0.375, 21.48)}, (True, False, False)),
            PaperRow("reverse_kl", ("reverse_kl",), {BOTH: (16.85, 0.385, 0.337, 21.05)}, (True, True, False)),
            PaperRow("Ours", ("fvgen",), {BOTH: (17.50, 0.382, 0.320, 20.54)}, (True, True, True)),
        ),
    ),
)
PROTOCOLS = tuple(dict.fromkeys(table.protocol for table in PAPER))

_STAND_IN = {  # which of ours stands for a column: the first that all results have; the paper says no more
    "PSNR": ("psnr",),
    "SSIM": ("ssim_skimage11", "ssim_torchmetrics"),
    "LPIPS": ("lpips_vgg_norm", "lpips_alex_norm", "lpips_vgg_3dgs", "lpips_alex_unscaled"),
    "FID": ("fid",),
}


@dataclass(frozen=True)
class Source:
    """Results of one evaluation.

    Attributes:
        name: of its folder.
        results: what ``results.json`` holds, data sets called as the paper calls them.
        dataset_names: what they were called.
    """

    name: str
    results: dict[str, Any]
    dataset_names: tuple[str, ...]


@dataclass(frozen=True)
class FilledTable:
    """A table of the paper with our numbers.

    Attributes:
        table: the paper's.
        columns: its columns, named by our metrics (empty where none stands for it).
        rows: data set, row and our figures, in the paper's order; no figures where nothing of ours is there.
        note: what our numbers rest on.
    """

    table: PaperTable
    columns: list[Column]
    rows: list[Row]
    note: str


def read_source(path: Path, datasets: Mapping[str, str]) -> Source:
    """The results in a folder of ``fvgen evaluate``, or in its ``results.json``.

    Args:
        path: of either.
        datasets: what the paper calls data sets of ours, by their names.

    Raises:
        UserError: no such results, or of a protocol or data set that is in no table of the paper.
    """
    file = path / "results.json" if path.is_dir() else path
    results = read_json(file)
    if not isinstance(results, dict) or not {"protocol", "datasets", "systems", "splits", "pictures"} <= set(results):
        raise UserError(f"{file}: not the results of fvgen evaluate")
    if results["protocol"] not in PROTOCOLS:
        wanted = " or ".join(PROTOCOLS)
        raise UserError(f"{file}: protocol {results['protocol']} fills none of the paper's tables; it takes {wanted}")
    for name in results["datasets"]:
        if datasets.get(name, name) not in DATASETS:
            known = " or ".join(DATASETS)
            raise UserError(f"{file}: data set {name} is none of the paper's; say `datasets` {name}=({known})")
    renamed = {name: datasets.get(name, name) for name in results["datasets"]}
    if len(set(renamed.values())) < len(renamed):
        raise UserError(f"{file}: two of its data sets ({', '.join(renamed)}) are called the same")
    splits = {name: {**record, "dataset": renamed[record["dataset"]]} for name, record in results["splits"].items()}
    content = {renamed[name]: rows for name, rows in results["datasets"].items()}
    return Source(file.resolve().parent.name, {**results, "datasets": content, "splits": splits}, tuple(renamed))


def fill_tables(sources: Sequence[Source], rows: Mapping[str, str]) -> list[FilledTable]:
    """The tables that these results fill.

    Args:
        sources: results of one protocol or of both.
        rows: system of ours by the paper's row, where it is not the default one.

    Raises:
        UserError: rows or systems that are not there, or results that contradict each other.
    """
    known = list(dict.fromkeys(row.name for table in PAPER for row in table.rows))
    for name in rows:
        if name not in known:
            raise UserError(f"`rows` {name}: there is no such row in the paper's tables; choose of {', '.join(known)}")
    filled, used = [], set()
    for table in PAPER:
        own = [source for source in sources if source.results["protocol"] == table.protocol]
        for complaint in _contradictions(own):
            raise UserError(complaint)
        chosen = {row.name: _system(row, rows.get(row.name), own) for row in table.rows}
        used |= {name for name, system in chosen.items() if system}
        if any(chosen.values()):
            filled.append(_filled(table, own, chosen))
    there = ", ".join(_systems(sources))
    for name, system in rows.items():
        if name not in used:
            raise UserError(f"`rows` {name}={system}: no such system where that row is; there are {there}")
    if not filled:
        raise UserError(f"no system fills a row by its name; there are {there}: say `rows` ROW=SYSTEM")
    return filled


def _systems(sources: Sequence[Source]) -> list[str]:
    return list(dict.fromkeys(system for source in sources for system in source.results["systems"]))


def _system(row: PaperRow, wanted: str | None, sources: Sequence[Source]) -> str | None:
    """The system that fills a row."""
    systems = _systems(sources)
    if wanted in systems:
        return wanted
    names = {name.lower() for name in ((wanted,) if wanted else row.systems)}
    found = [s for s in systems if {s.lower(), re.sub(r"(?<=.):\d+$", "", s).lower()} & names]
    if len(found) > 1:
        raise UserError(f"row {row.name} could be {' or '.join(found)}: say `rows` {row.name}={found[0]}")
    return found[0] if found else None


def _contradictions(sources: Sequence[Source]) -> Iterator[str]:
    """Why results of one protocol cannot stand in one table."""
    for other in sources[1:]:
        for what, ours, theirs in zip(("poses", "pictures", "metrics"), _settings(sources[0]), _settings(other)):
            if any(ours[key] != theirs[key] for key in ours.keys() & theirs.keys()):
                both = f"{sources[0].name} and {other.name}"
                yield f"{both} differ in their {what}: they cannot stand in one table"
    for one, other in combinations(sources, 2):
        both = f"{one.name} and {other.name}"
        shared = set(one.results["datasets"]) & set(other.results["datasets"])
        for dataset in shared:
            if _questions(one, dataset) != _questions(other, dataset):
                yield f"{both} ask for other frames of {dataset}, or score another part of them"
        for system in other.results["systems"]:
            if system not in one.results["systems"]:
                continue
            ours, theirs = (
                {k: v for k, v in s.results["systems"][system].items() if k != "device"} for s in (one, other)
            )
            if ours != theirs and theirs.get("kind") == "model":
                differing = next(k for k in {**theirs, **ours} if ours.get(k) != theirs.get(k))
                yield f"{both}: {system} is not the same system in both ({differing} differs)"
            for dataset in shared:
                ours, theirs = (_figures(s.results["datasets"][dataset][system]) for s in (one, other))
                if any(_rounded(ours[k]) != _rounded(theirs[k]) for k in ours.keys() & theirs.keys() - {"seconds"}):
                    yield f"{both} score {system} on {dataset} differently: leave one of them out"


def _settings(source: Source) -> tuple[dict[str, Any], ...]:
    """Cameras, pictures, and metrics of one name: what results of one table must share."""
    results = source.results
    poses = {key: value for key, value in results["poses"].items() if key != "device"}
    pictures = {key: value for key, value in results["pictures"].items() if key != "common_crop"}
    wanted = {name for names in _STAND_IN.values() for name in names}
    metrics = {name: spec["definition"] for name, spec in results["metrics"].items() if name in wanted}
    return poses, pictures, {**metrics, **results["weights_sha256"]}


def _questions(source: Source, dataset: str) -> dict[str, Any]:
    return {
        name: [record.get(key) for key in ("context", "target", "size", "crop")]
        for name, record in source.results["splits"].items()
        if record["dataset"] == dataset
    }


def _figures(row: Mapping[str, Any]) -> dict[str, float | None]:
    return {**row["mean"], **row["distances"], "seconds": row["seconds"]}


def _rounded(value: float | None) -> float | None:
    """As figures are told apart: on another machine the last digits move."""
    return None if value is None else round(value, 4)


def _filled(table: PaperTable, sources: Sequence[Source], chosen: Mapping[str, str | None]) -> FilledTable:
    """A table with the figures of the chosen systems."""
    shared = set.intersection(*(set(source.results["metrics"]) for source in sources))
    columns = []
    for title, names in _STAND_IN.items():
        name = next((name for name in names if name in shared), "")
        better, digits = ("lower" if title in ("LPIPS", "FID") else "higher"), (2 if title in ("PSNR", "FID") else 3)
        columns.append(Column(name, title, better, digits))
    if table.timed:
        columns.append(Column("seconds", "Time", "lower", 1))
    figures: dict[tuple[str, str], dict[str, float | None]] = {}
    for source in sources:
        for dataset, systems in source.results["datasets"].items():
            for system, row in systems.items():
                figures.setdefault((dataset, system), _figures(row))
    means: list[str] = []
    if table.groups == (BOTH,):
        used = [system for system in chosen.values() if system]
        means = [dataset for dataset in DATASETS if all((dataset, system) in figures for system in used)]
        if not means:
            raise UserError(f"table {table.number}: {', '.join(used)} share no data set")
        for system in used:
            own = [figures[dataset, system] for dataset in means]
            figures[BOTH, system] = {c.name: mean_of_all([values.get(c.name) for values in own]) for c in columns}
    rows = [
        (group, row.name, figures.get((group, chosen[row.name] or ""), {}))
        for group in table.groups
        for row in table.rows
    ]
    return FilledTable(table, columns, rows, _note(table, sources, columns, chosen, means))


def _note(
    table: PaperTable,
    sources: Sequence[Source],
    columns: Sequence[Column],
    chosen: Mapping[str, str | None],
    means: Sequence[str],
) -> str:
    """What the numbers rest on, in sentences."""
    metrics = [f"{c.title} is {c.name}" if c.name else f"{c.title} was not computed" for c in columns[1:4]]
    poses = sources[0].results["poses"]
    estimated = "" if poses["poses"] == "given" else f" ({poses['geometry']})"
    told = [f"In brackets the paper's numbers, its table {table.number}.", f"Protocol {table.protocol}."]
    for source in sources:
        results = source.results
        rows = {dataset: next(iter(systems.values())) for dataset, systems in results["datasets"].items()}
        images = ", ".join(f"{row['images']} images of {dataset}" for dataset, row in rows.items())
        told.append(f"{source.name}: {images}; index {results['index']['sha256'][:12]}; {size_text(results)}.")
    told.append(f"Poses {poses['poses']}{estimated}. {', '.join(metrics)}.")
    if means:
        alone = "" if len(means) == len(DATASETS) else "; the paper's are of " + " and ".join(DATASETS)
        told.append(f"Means of {' and '.join(means)}, each counted once{alone}.")
    if table.timed:
        machines = dict.fromkeys(machine_of(source.results) for source in sources)
        timed = {s for source in sources for s, d in source.results["systems"].items() if "seconds_from" in d}
        others = [system for system in dict.fromkeys(chosen.values()) if system in timed]
        told.append(
            "Time: seconds per scene (all frames asked for), rendering to decoding, without finding cameras and depth, "
            f"on {' and '.join(machines)}{''.join(f'; of {s} as told beside its frames' for s in others)}; "
            "what the paper's include is not said."
        )
    told.append("; ".join(f"{name} is {system}" for name, system in chosen.items() if system) + ".")
    outside = [system for system in _systems(sources) if system not in chosen.values()]
    if outside:
        told.append(f"In no row: {', '.join(outside)}.")
    return " ".join(told)


def _cells(filled: FilledTable, best: str, second: str, paper: str, marks: tuple[str, str]) -> list[list[str]]:
    """Row by row the names, then our figure and the paper's; what we mark is the best of ours."""
    lines = []
    for (group, name, _), ours in zip(filled.rows, marked(filled.rows, filled.columns, best, second)):
        row = next(row for row in filled.table.rows if row.name == name)
        printed = [paper.format(c.text(number)) for c, number in zip(filled.columns, row.numbers[group])]
        heads = [marks[0] if module else marks[1] for module in row.modules] or [group, name]
        lines.append(heads + [" ".join(filter(None, pair)) for pair in zip(ours, printed)])
    return lines


def markdown(tables: Sequence[FilledTable]) -> str:
    """All tables, ours before the paper's in brackets, the best of ours bold and the second in italics."""
    parts = []
    for filled in tables:
        heads = [*filled.table.heads, *(column.head(MARKDOWN) for column in filled.columns)]
        body = markdown_table(heads, _cells(filled, "**{}**", "*{}*", "[{}]", ("✓", "✗")))
        parts.append(f"## Table {filled.table.number}: {filled.table.title}\n\n{body}\n\n{filled.note}\n")
    return "\n".join(parts)


def latex(tables: Sequence[FilledTable]) -> str:
    """All tables, for the packages ``booktabs``, ``multirow`` and ``amssymb``; the best of ours bold, the second
    underlined."""
    parts = ["% Needs the packages booktabs, multirow and amssymb."]
    for filled in tables:
        heads = [*filled.table.heads, *(column.head(LATEX) for column in filled.columns)]
        marks = (r"$\checkmark$", r"$\times$")
        cells = _cells(filled, r"\textbf{{{}}}", r"\underline{{{}}}", r"{{\scriptsize [{}]}}", marks)
        alignment = "l" * len(filled.table.heads) + "r" * len(filled.columns)
        parts.append(
            rf"""\begin{{table}}
\centering
\caption{{{tex(filled.table.title[0].upper() + filled.table.title[1:])}.}}
{tabular(alignment, " & ".join(heads), cells, grouped=filled.table.groups != (BOTH,))}
\par\smallskip{{\footnotesize {tex(filled.note)}}}
\end{{table}}"""
        )
    return "\n\n".join(parts) + "\n"

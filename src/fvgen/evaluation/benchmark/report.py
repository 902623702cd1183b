"""Medians, spreads and ratios of measured stages, as JSON and as Markdown tables."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from fvgen.charts import markdown_table
from fvgen.evaluation.benchmark.systems import System

STAGES = ("geometry", "render", "encode", "denoise", "decode", "compose", "write")
PER_STEP, APART, ALL = "denoise, per step", "all but geometry", "all"
MIB = 2**20


def count_table(works: Mapping[str, dict[str, int]]) -> str:
    """What was counted of each stage, see :func:`fvgen.evaluation.benchmark.count.count_model`."""
    rows = []
    for stage, work in works.items():
        sizes = [f"{work[name] / MIB:,.0f}" for name in ("activations", "weights")]
        gflop = work["flop"] / 1e9
        rows.append([stage, f"{gflop:,.0f}" if gflop >= 1000 else f"{gflop:.4g}", *sizes, f"{work['parameters']:,}"])
    return markdown_table(["stage", "GFLOP", "activations, MiB", "weights, MiB", "parameters"], rows)


def rows_of(system: System) -> dict[str, list[float]]:
    """Seconds of each repeat by stage, with those per step and, where all steps were run, those of all stages."""
    rows = {name: system.seconds[name] for name in STAGES if name in system.seconds}
    whole = [sum(values) for values in zip(*rows.values(), strict=True)]
    rows[PER_STEP] = [value / system.steps for value in rows["denoise"]]
    if system.steps == system.all_steps:
        if "geometry" in rows:
            rows[APART] = [everything - geometry for everything, geometry in zip(whole, rows["geometry"])]
        rows[ALL] = whole
    return rows


def ratios(first: System, other: System) -> dict[str, list[float]]:
    """How many times longer ``other`` takes, repeat by repeat, where both ran the same share of their steps."""
    mine, theirs = rows_of(first), rows_of(other)
    whole = all(system.steps == system.all_steps for system in (first, other))
    names = [n for n in mine if n in theirs and n != "geometry" and (whole or n != "denoise")]
    return {n: [b / a for a, b in zip(mine[n], theirs[n], strict=True)] for n in names}


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "least": min(values), "most": max(values)}


def result(systems: Sequence[System], facts: dict[str, Any]) -> dict[str, Any]:
    """Everything that was measured, for JSON: of each system, and ratios of the others to the first."""
    first, *others = systems
    found = [
        {
            "system": system.label,
            **system.settings,
            "all_steps": system.all_steps,
            "calls": dict(system.calls),
            "seconds": {name: {**_spread(values), "all": values} for name, values in rows_of(system).items()},
            "peak_resident_bytes": system.resident,
            "peak_gpu_bytes": system.gpu,
        }
        for system in systems
    ]
    against = [
        {"of": other.label, "to": first.label, **{name: _spread(found) for name, found in ratios(first, other).items()}}
        for other in others
    ]
    return {**facts, "systems": found, "ratios": against}


def table(found: dict[str, Any]) -> str:
    """A :func:`result` with a row per stage: seconds as median (least..most), peak memory, ratios to the first."""
    systems, against = found["systems"], found["ratios"]
    kind, title = ("gpu", "GPU ") if any(system["peak_gpu_bytes"] for system in systems) else ("resident", "")
    head = ["stage", *(cell for system in systems for cell in (f"{system['system']}: s", f"peak {title}MiB"))]
    rows = []
    for name in (*STAGES[:4], PER_STEP, *STAGES[4:], APART, ALL):
        if any(name in system["seconds"] for system in systems):
            row = [name]
            for system in systems:
                peak = system[f"peak_{kind}_bytes"].get(name)
                row += [_told(system["seconds"].get(name)), f"{peak / MIB:,.0f}" if peak else ""]
            rows.append([*row, *(_told(ratio.get(name)) for ratio in against)])
    return markdown_table([*head, *(f"{ratio['of']} / {ratio['to']}" for ratio in against)], rows)


def _told(found: dict[str, float] | None) -> str:
    if found is None:
        return ""
    values = (found[name] for name in ("median", "least", "most"))
    middle, least, most = (f"{v:.1f}" if v >= 10 else f"{v:.2f}" if v >= 0.1 else f"{v:.2g}" for v in values)
    return middle if found["least"] == found["most"] else f"{middle} ({least}..{most})"


def heading(found: dict[str, Any]) -> str:
    """What a :func:`result` was measured on, in words."""
    machine, first = found["hardware"], found["systems"][0]
    where = f"{machine['gpu']}; " if machine["gpu"] else ""
    what = ", ".join(f"{first[name]} {name}" for name in ("frames", "photos", "clips", "points") if name in first)
    lines = [
        f"{where}{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, torch {machine['torch']}; "
        f"{found['dtype']} on {found['device']}; load at start {machine['load_at_start']}",
        f"{found['photos']}: {what}, {first['size'][0]}x{first['size'][1]}; "
        f"{found['repeats']} repeats after {found['warmup']} to warm up, median (least..most)",
    ]
    for system in found["systems"]:
        run, most, calls = system["steps"], system["all_steps"], system["calls"]
        lines.append(
            f"{system['system']}: {run} {f'of {most} ' if run < most else ''}steps, guidance "
            f"{system['guidance_scale']:g}, {calls['unet']} UNet calls ({calls['unet_clips']} clips), "
            f"{calls['decode']} decoder calls"
        )
    return "\n".join(f"- {line}" for line in lines)

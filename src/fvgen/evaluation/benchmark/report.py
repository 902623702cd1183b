"""Medians, spreads and ratios of measured stages, as JSON and as a Markdown table."""

from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from fvgen.evaluation.benchmark.clock import MIB
from fvgen.evaluation.benchmark.counting import Work
from fvgen.evaluation.benchmark.floor import floor
from fvgen.evaluation.benchmark.hardware import Machine
from fvgen.evaluation.benchmark.stages import Timing

STAGES = ("geometry", "render", "encode", "denoise", "decode", "compose", "write")
PER_STEP, APART, ALL = "denoise, per step", "all but geometry", "all"


@dataclass(frozen=True)
class Spread:
    """Median, least and most of some repeats."""

    median: float
    least: float
    most: float

    @staticmethod
    def of(values: list[float]) -> "Spread":
        """Median, least and most of one value or more."""
        return Spread(median(values), min(values), max(values))

    def __str__(self) -> str:
        if self.least == self.most:
            return _digits(self.median)
        return f"{_digits(self.median)} ({_digits(self.least)}..{_digits(self.most)})"


def rows_of(timing: Timing) -> dict[str, list[float]]:
    """Seconds of each repeat by stage, with those per step and, where all steps were run, those of all stages."""
    seconds = {name: timing.seconds[name] for name in STAGES if name in timing.seconds}
    steps = timing.settings["steps"]
    per_step = {PER_STEP: [value / steps for value in seconds["denoise"]]}
    if timing.system.steps < timing.system.all_steps:
        return {**seconds, **per_step}
    apart = [list(seconds[name]) for name in seconds if name != "geometry"]
    sums = {APART if "geometry" in seconds else ALL: [sum(values) for values in zip(*apart, strict=True)]}
    if "geometry" in seconds:
        sums[ALL] = [sum(values) for values in zip(*seconds.values(), strict=True)]
    return {**seconds, **per_step, **sums}


def ratios(first: Timing, other: Timing) -> dict[str, Spread]:
    """How many times longer ``other`` takes, repeat by repeat, where both ran the same share of their steps."""
    mine, theirs = rows_of(first), rows_of(other)
    whole = all(t.system.steps == t.system.all_steps for t in (first, other))
    names = [n for n in mine if n in theirs and n != "geometry" and (whole or n != "denoise")]
    return {n: Spread.of([b / a for a, b in zip(mine[n], theirs[n], strict=True)]) for n in names}


def floors(timing: Timing, works: list[Work], machine: Machine) -> dict[str, float]:
    """The least seconds for the networks' stages of what was measured, by how often they ran.

    Args:
        timing: of one system, every window of which had the frames that ``works`` were counted for.
        works: of its network, for one clip.
        machine: what can be reached.
    """
    of = {work.stage: floor(work, machine).seconds for work in works}
    passes = 1 if timing.settings["guidance_scale"] == 1 else 2
    clips = timing.calls.unet_clips / (timing.settings["steps"] * passes)
    return {
        "encode": clips * (of["encode"] + passes * of["image tokens"]),
        "denoise": timing.calls.unet_clips * of["UNet pass"] + clips * passes * of["token keys"],
        "decode": clips * of["decode"],
    }


def result(timings: list[Timing], facts: dict[str, Any]) -> dict[str, Any]:
    """Everything that was measured, for JSON."""
    systems = []
    for timing in timings:
        rows = {name: {**asdict(Spread.of(values)), "all": values} for name, values in rows_of(timing).items()}
        systems.append(
            {
                "system": timing.system.label,
                **timing.settings,
                "all_steps": timing.system.all_steps,
                "calls": asdict(timing.calls),
                "seconds": rows,
                "peak_resident_bytes": {name: max(values) for name, values in timing.resident.items()},
                "peak_gpu_bytes": {name: max(values) for name, values in timing.gpu.items()},
            }
        )
    against = [
        {
            "of": other.system.label,
            "to": timings[0].system.label,
            **{n: asdict(r) for n, r in ratios(timings[0], other).items()},
        }
        for other in timings[1:]
    ]
    return {**facts, "systems": systems, "ratios": against}


def table(timings: list[Timing], least: list[dict[str, float]] | None = None) -> str:
    """One row per stage: seconds as median (least..most), peak memory, and ratios to the first system.

    Args:
        timings: of the systems.
        least: floors of each, see :func:`floors`.
    """
    gpu = any(timing.gpu for timing in timings)
    head = ["stage"]
    for timing in timings:
        head += [f"{timing.system.label}: s", "peak GPU MiB" if gpu else "peak MiB"]
        head += ["x floor"] if least else []
    head += [f"{other.system.label} / {timings[0].system.label}" for other in timings[1:]]
    measured = [rows_of(timing) for timing in timings]
    against = [ratios(timings[0], other) for other in timings[1:]]
    names = list(dict.fromkeys(name for rows in measured for name in rows))
    order = [n for n in (*STAGES[:4], PER_STEP, *STAGES[4:], APART, ALL) if n in names]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name in order:
        cells = [name]
        for i, timing in enumerate(timings):
            values = measured[i].get(name)
            peaks = (timing.gpu if gpu else timing.resident).get(name)
            cells += [str(Spread.of(values)) if values else "", f"{max(peaks) / MIB:,.0f}" if peaks else ""]
            if least:
                cells.append(f"{median(values) / least[i][name]:.1f}" if values and name in least[i] else "")
        cells += [str(ratio[name]) if name in ratio else "" for ratio in against]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def heading(timings: list[Timing], facts: dict[str, Any]) -> str:
    """What was measured on what, in words."""
    machine = facts["hardware"]
    where = f"{machine['gpu']}; " if machine["gpu"] else ""
    first = timings[0].settings
    what = ", ".join(
        f"{value} {name}" for name, value in first.items() if name in ("frames", "photos", "clips", "points")
    )
    lines = [
        f"{where}{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, torch {machine['torch']}; "
        f"{facts['dtype']} on {facts['device']}; load at start {machine['load_at_start']}",
        f"{facts['photos']}: {what}, {first['size'][0]}x{first['size'][1]}; "
        f"{facts['repeats']} repeats after {facts['warmup']} to warm up, median (least..most)",
    ]
    for timing in timings:
        run, scale = timing.settings["steps"], timing.settings["guidance_scale"]
        share = f"{run} of {timing.system.all_steps} steps" if run < timing.system.all_steps else f"{run} steps"
        calls = timing.calls
        lines.append(
            f"{timing.system.label}: {share}, guidance {scale:g}, {calls.unet} UNet calls ({calls.unet_clips} clips), "
            f"{calls.decode} decoder calls"
        )
    return "\n".join(f"- {line}" for line in lines)


def _digits(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"

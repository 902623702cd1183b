"""The time that counted work needs at least on a machine, and the tables of both."""

from dataclasses import asdict, dataclass
from typing import Any

from fvgen.evaluation.benchmark.counting import Work
from fvgen.evaluation.benchmark.hardware import Machine


@dataclass(frozen=True)
class Floor:
    """The least time for some work.

    Attributes:
        seconds: the longer of what the operations and what the bytes need.
        bound: ``operations`` or ``bytes``, whichever needs longer.
        unfused: seconds where every operation reads its inputs from memory and writes its results there.
    """

    seconds: float
    bound: str
    unfused: float


def floor(work: Work, machine: Machine) -> Floor:
    """The roofline (Williams et al. 2009): neither operations nor bytes can be faster than the machine's best rate."""
    computing = work.flop / (machine.tflops * 1e12)
    moving, unfused = (amount / (machine.gbytes_per_s * 1e9) for amount in (work.bytes, work.moved))
    bound = "operations" if computing >= moving else "bytes"
    return Floor(max(computing, moving), bound, max(computing, unfused))


def clip_parts(stages: list[Work], steps: int, passes: int) -> list[tuple[Work, int]]:
    """How often each stage of :func:`fvgen.evaluation.benchmark.counting.count_model` runs for one clip."""
    often = {"UNet pass": steps * passes, "image tokens": passes, "token keys": passes}
    return [(work, often.get(work.stage, 1)) for work in stages]


def clip_flop(stages: list[Work], steps: int, passes: int) -> float:
    """Operations of one clip, all stages."""
    return sum(work.flop * times for work, times in clip_parts(stages, steps, passes))


def clip_seconds(stages: list[Work], steps: int, passes: int, machine: Machine) -> float:
    """Floor of one clip, one stage after another."""
    return sum(floor(work, machine).seconds * times for work, times in clip_parts(stages, steps, passes))


def work_table(works: list[Work], machine: Machine | None = None) -> str:
    """The counts as a Markdown table, with the floors on a machine if there is one."""
    head, rule = "| stage | parameters | operations | GFLOP | GB | GB unfused |", "|---|---|---|---|---|---|"
    rows = [
        f"| {w.stage} | {_thousands(w.parameters)} | {_thousands(w.operations)} | {_short(w.flop / 1e9)} | "
        f"{_short(w.bytes / 1e9)} | {_short(w.moved / 1e9)} |"
        for w in works
    ]
    if machine is not None:
        floors = [floor(w, machine) for w in works]
        head, rule = head + " floor s | bound by | unfused s |", rule + "---|---|---|"
        rows = [
            f"{row} {_short(f.seconds)} | {f.bound} | {_short(f.unfused)} |"
            for row, f in zip(rows, floors, strict=True)
        ]
    return "\n".join([head, rule, *rows])


def totals(stages: list[Work], machine: Machine | None) -> str:
    """One clip by four steps without and by fifty with guidance, in words, and their ratio."""
    few, many = clip_flop(stages, 4, 1), clip_flop(stages, 50, 2)
    lines = [
        f"One clip, 4 steps without guidance: {_short(few / 1e12)} TFLOP; 50 steps with it: "
        f"{_short(many / 1e12)} TFLOP, {many / few:.1f} times as many (denoising alone: 25)."
    ]
    if machine is not None:
        fast, slow = (clip_seconds(stages, s, p, machine) for s, p in ((4, 1), (50, 2)))
        lines.append(
            f"Floors on {machine.name} ({_short(machine.tflops)} TFLOP/s, {_short(machine.gbytes_per_s)} GB/s): "
            f"{_short(fast)} s and {_short(slow)} s, ratio {slow / fast:.1f}."
        )
    return "\n".join(lines)


def as_json(works: list[Work], machine: Machine | None) -> dict[str, Any]:
    """Counts and floors."""
    rows = [asdict(w) | ({} if machine is None else {"floor": asdict(floor(w, machine))}) for w in works]
    return {"machine": None if machine is None else asdict(machine), "stages": rows}


def _thousands(count: int) -> str:
    return f"{count:,}" if count else ""


def _short(value: float) -> str:
    """Three digits, without an exponent."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 1e-4 else f"{value:.1e}"

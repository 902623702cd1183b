"""Ways of running the same model on the same windows, side by side: seconds, memory, and what they change."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from fvgen.evaluation.benchmark.clock import MIB, ResidentPeak, StageClock
from fvgen.models.model import VideoModel
from fvgen.models.speed import Speed
from fvgen.pictures import to_bytes
from fvgen.pipeline import NovelViewPipeline
from fvgen.progress import track
from fvgen.rendering.guide import Guide, GuideKind

REFERENCE = "float32"
WAYS: dict[str, Speed] = {
    REFERENCE: Speed(),
    "bfloat16": Speed(),
    "one-window": Speed(window_batch=1),
    "channels-last": Speed(channels_last=True),
    "compile": Speed(compile=True),
    "offload": Speed(offload=True),
    "all": Speed(compile=True, channels_last=True),
    "teacher": Speed(compile=True, channels_last=True),
}
Load = Callable[[torch.dtype, bool], VideoModel]  # (number format, the teacher instead) -> a model of its own


@dataclass
class Way:
    """One way of running, and what was found of it.

    Attributes:
        name: key of :data:`WAYS`.
        pipeline: with a model of its own.
        seconds: of the clock, per stage, an entry per repeat.
        cpu_seconds: of all threads, all stages together, an entry per repeat; they say more where others compute too.
        peak: most bytes on the device (of a CPU: resident) at a time, its own weights included.
        graphs: compilations of all runs, the first included.
        pictures: ``[F, H, W, 3]`` uint8, the frames that are not photographs, of the last repeat.
    """

    name: str
    pipeline: NovelViewPipeline
    seconds: dict[str, list[float]] = field(default_factory=dict)
    cpu_seconds: list[float] = field(default_factory=list)
    peak: int | None = None
    graphs: int = 0
    pictures: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def totals(self) -> list[float]:
        """Seconds of all stages, an entry per repeat."""
        return [sum(values) for values in zip(*self.seconds.values(), strict=True)]


def make_ways(names: list[str], load: Load, device: torch.device, dtype: torch.dtype) -> list[Way]:
    """The reference, and the other ways named, each with a model of its own.

    Args:
        names: keys of :data:`WAYS`.
        load: makes the models.
        device: where they run.
        dtype: of all but those that are named after theirs.
    """
    ways = []
    for name in dict.fromkeys([REFERENCE, *names]):
        own = getattr(torch, name) if name in ("float32", "bfloat16") else dtype
        pipeline = NovelViewPipeline(load(own, name == "teacher"), name, WAYS[name])
        pipeline.to(device, own)
        ways.append(Way(name, pipeline))
    return ways


def random_guide(windows: int, frames: int, size: tuple[int, int], kind: GuideKind) -> Guide:
    """Soft random pictures with holes, a photograph at both ends of each window of ``frames`` frames."""
    from fvgen.cameras import Cameras

    count, (width, height) = windows * (frames - 1) + 1, size
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, max(height // 32, 2), max(width // 32, 2), generator=generator)
    pictures = nn.functional.interpolate(coarse, (height, width), mode="bilinear").movedim(1, -1)
    coverage = pictures[..., 0] < 0.7
    photo = [i // (frames - 1) if i % (frames - 1) == 0 else None for i in range(count)]
    poses = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    cameras = Cameras(
        poses, torch.eye(3, dtype=torch.float64).repeat(count, 1, 1), torch.tensor([[width, height]] * count)
    )
    return Guide(to_bytes(pictures), coverage.byte() * 255, coverage, coverage.float(), cameras, photo, kind)


def measure_ways(ways: list[Way], guide: Guide, repeats: int, warmup: int = 1) -> None:
    """Complete the guide in every way, in turn: each round runs all, so that what else the machine does hits all.

    Args:
        ways: what is found is added to them.
        guide: the same for all.
        repeats: rounds that count.
        warmup: rounds before, which compile and do not count.
    """
    with ResidentPeak() as resident:
        for turn in track(range(-warmup, repeats), "rounds"):
            for way in ways:
                _once(way, guide, resident, counts=turn >= 0)


def _once(way: Way, guide: Guide, resident: ResidentPeak, counts: bool) -> None:
    device = way.pipeline.device
    clock, before = StageClock(device, resident), _held(device, resident)
    graphs, start = counters["stats"]["unique_graphs"], time.process_time()
    pictures = way.pipeline.complete(None, guide, clock=clock).pictures
    spent = time.process_time() - start
    way.graphs += counters["stats"]["unique_graphs"] - graphs
    if not counts:
        return
    for name in ("encode", "denoise", "decode"):
        way.seconds.setdefault(name, []).append(clock.seconds[name])
    way.cpu_seconds.append(spent)
    peaks = (clock.gpu if device.type == "cuda" else clock.resident).values()
    if peaks:
        way.peak = max(way.peak or 0, max(peaks) - before + _weights(way, device))
    new = [i for i, photo in enumerate(guide.photo) if photo is None]
    way.pictures = to_bytes(pictures[new])


def _held(device: torch.device, resident: ResidentPeak) -> int:
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    resident.reset()
    return resident.bytes() or 0


def _weights(way: Way, device: torch.device) -> int:
    """Bytes of its own weights that lie on the device between the runs."""
    model = way.pipeline.model
    assert model is not None
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.device.type == device.type)


@dataclass(frozen=True)
class Change:
    """How pictures differ from the reference's.

    Attributes:
        psnr: in dB over all of them, infinite where nothing differs.
        worst: number of the worst picture.
        worst_psnr: of that.
    """

    psnr: float
    worst: int
    worst_psnr: float


def change(pictures: Tensor, reference: Tensor) -> Change:
    """PSNR of ``[F, H, W, 3]`` uint8 pictures against others, together and of the worst."""
    errors = (pictures.double() - reference.double()).square().mean(dim=(1, 2, 3)) / 255**2
    worst = int(errors.argmax())

    def decibel(error: Tensor) -> float:
        return float(-10 * error.log10())

    return Change(decibel(errors.mean()), worst, decibel(errors[worst]))


def profile(way: Way, guide: Guide, rows: int = 40) -> str:
    """What one run spends its time on: PyTorch's profiler, the operations that take most."""
    device = way.pipeline.device
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] if device.type == "cuda" else []
    with ResidentPeak() as resident, torch.profiler.profile(activities=activities) as found:
        way.pipeline.complete(None, guide, clock=StageClock(device, resident))
    key = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    return found.key_averages().table(sort_by=key, row_limit=rows, max_name_column_width=80)


def figures(ways: list[Way]) -> list[dict[str, Any]]:
    """Everything found, for JSON, the first being what the others are compared with."""
    found = []
    for way in ways:
        changed = change(way.pictures, ways[0].pictures)
        ratios = [[a / b for a, b in zip(mine, his)] for mine, his in _pairs(ways[0], way)]
        found.append(
            {
                "way": way.name,
                "dtype": str(way.pipeline.dtype).removeprefix("torch."),
                "steps": way.pipeline.settings().steps,
                "seconds": {**way.seconds, "all": way.totals},
                "cpu_seconds": way.cpu_seconds,
                "times_as_fast": ratios[0],
                "times_as_fast_by_cpu_seconds": ratios[1],
                "peak_bytes": way.peak,
                "compilations": way.graphs,
                "psnr": None if changed.psnr == float("inf") else changed.psnr,
                "worst_frame": changed.worst,
                "worst_psnr": None if changed.worst_psnr == float("inf") else changed.worst_psnr,
            }
        )
    return found


def _pairs(first: Way, other: Way) -> list[tuple[list[float], list[float]]]:
    return [(first.totals, other.totals), (first.cpu_seconds, other.cpu_seconds)]


def ways_table(rows: list[dict[str, Any]]) -> str:
    """The figures as a Markdown table: medians."""
    names = ["way", "format", "steps", "encode s", "denoise s", "decode s", "all s", "x as fast", "CPU s"]
    names += ["x by CPU s", "peak MiB", "compilations", "PSNR to float32, dB", "worst frame"]
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for row in rows:
        cells = [row["way"], row["dtype"], str(row["steps"])]
        cells += [f"{median(row['seconds'][name]):.3g}" for name in ("encode", "denoise", "decode", "all")]
        cells += [f"{median(row['times_as_fast']):.2f}", f"{median(row['cpu_seconds']):.3g}"]
        cells += [f"{median(row['times_as_fast_by_cpu_seconds']):.2f}"]
        cells += [f"{row['peak_bytes'] / MIB:,.0f}" if row["peak_bytes"] else "", str(row["compilations"])]
        if row["psnr"] is None:
            cells += ["the same", ""]
        else:
            cells += [f"{row['psnr']:.1f}", f"{row['worst_psnr']:.1f} (number {row['worst_frame']})"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)

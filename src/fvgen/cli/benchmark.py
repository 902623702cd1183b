"""``fvgen benchmark ...``: how fast the parts are on this machine."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from fvgen.errors import UserError

if TYPE_CHECKING:
    from fvgen.evaluation.benchmark.hardware import Machine
    from fvgen.evaluation.benchmark.stages import Timing
    from fvgen.evaluation.benchmark.systems import System


@dataclass(frozen=True)
class Data:
    """Measure how fast training pairs are read, against what a training step uses up."""

    folder: Annotated[Positional[Path], arg(metavar="PAIRS")]
    """The folder of pairs."""

    workers: Annotated[tuple[int, ...], arg(metavar="N...")] = (1, 2)
    """Numbers of reading processes to try."""

    seconds: float = 10.0
    """How long each is measured."""

    appetite: Annotated[float | None, arg(metavar="CLIPS")] = None
    """Clips per second that training uses."""

    training: Annotated[Path | None, arg(metavar="RUN")] = None
    """Take the appetite from a training run's log: its batch over the seconds of its steps."""

    latents: Annotated[str | None, arg(metavar="NAME|FOLDER")] = None
    """Also measure reading the cached latents of this model, which are made first if needed, with nothing in memory."""

    output: Annotated[Path | None, arg(aliases=["-o"], metavar="FILE")] = None
    """Also write the figures as JSON."""

    def run(self) -> None:
        """Measure and print."""
        from fvgen.data.speed import shard_speed

        if not self.workers or min(self.workers) < 1 or self.seconds <= 0:
            raise UserError("--workers and --seconds must be positive")
        appetite = run_appetite(self.training) if self.training is not None else self.appetite
        found: dict[str, Any] = {"pairs": self._pairs(), "appetite_clips_per_second": appetite, "rows": []}
        for workers in self.workers:
            speed = shard_speed(self.folder, workers, self.seconds)
            found["rows"].append({"what": "shards", "workers": workers, "clips_per_second": round(speed, 2)})
        if self.latents is not None:
            found["rows"].append({"what": "latents", "workers": 1, "clips_per_second": self._latents(self.latents)})
        print(table(found["rows"], appetite))
        if self.output is not None:
            self.output.write_text(json.dumps(found, indent=2) + "\n")

    def _pairs(self) -> dict[str, float]:
        from fvgen.data.reader import PairShards

        shards = PairShards(self.folder)
        if not len(shards):
            raise UserError(f"{self.folder}: no training pairs in 'train'")
        entries = [entry for _, entry in shards.samples]
        return {
            "clips": len(entries),
            "frames": sum(entry.frames for entry in entries) / len(entries),
            "width": entries[0].width,
            "height": entries[0].height,
            "bytes": sum(size for entry in entries for _, size in entry.members.values()) / len(entries),
        }

    def _latents(self, name: str) -> float:
        from fvgen.data.speed import latent_speed
        from fvgen.models.model import VideoModel

        return round(latent_speed(self.folder, VideoModel.load(name), 8, self.seconds), 2)


@dataclass(frozen=True)
class Stages:
    """Measure seconds and peak memory of each stage of a generation, the models in turn in the same run.

    Prints a Markdown table: per stage the median (least..most) of the repeats, the peak of memory, and how many times
    longer each further model takes than the first, compared repeat by repeat. See docs/benchmark.md.
    """

    photos: Annotated[Positional[tuple[str, ...]], arg(metavar="PHOTOS...")] = ()
    """As in fvgen generate. Default: the example of a checkout, or a made-up scene where there is none."""

    models: Annotated[tuple[str, ...], arg(metavar="MODEL[:STEPS]...")] = ("mini:4", "mini-teacher:50")
    """Models, each with a number of steps if not its own; the first is what the others are compared with."""

    preset: Annotated[str | None, arg(metavar="NAME")] = None
    """Instead of models, the shape of one, such as viewcrafter-512-16: a student (4 steps) and its teacher, encoding,
    denoising and decoding random pictures. It has no weights: say --random-weights too."""

    random_weights: bool = False
    """Take random weights, made where they are used. Speed and memory do not depend on them."""

    denoise_steps: Annotated[int | None, arg(metavar="INT")] = None
    """With --preset: run this many steps at most, and compare seconds per step."""

    clips: int = 1
    """With --preset: clips denoised together."""

    size: Annotated[str | None, arg(metavar="WIDTHxHEIGHT|model")] = None
    """Size of the views, as for fvgen generate; with --preset, of the model's pictures."""

    repeats: int = 3
    """Rounds that count; in each, every model runs once."""

    warmup: int = 1
    """Rounds before, with two steps, that do not."""

    floor: bool = False
    """Also say how many times longer the networks take than this machine's best rates allow, measured before."""

    threads: Annotated[int | None, arg(metavar="INT")] = None
    """Threads of the CPU. Default: PyTorch's."""

    device: Annotated[str, arg(metavar="DEVICE")] = "auto"
    """As in fvgen generate."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """As in fvgen generate."""

    output: Annotated[Path | None, arg(aliases=["-o"], metavar="FILE")] = None
    """Also write every figure as JSON."""

    def run(self) -> None:
        """Check, measure, print."""
        self._check()
        import torch

        from fvgen.devices import hardware, load
        from fvgen.evaluation.benchmark.report import heading, result, table

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        timings, what, least = self._measured()
        pipeline = timings[0].system.pipeline
        facts = {
            "hardware": hardware(pipeline.device) | load(),
            "device": str(pipeline.device),
            "dtype": str(pipeline.dtype).removeprefix("torch."),
            "photos": what,
            "repeats": self.repeats,
            "warmup": self.warmup,
        }
        print(heading(timings, facts), "", table(timings, least), sep="\n")
        write_figures(self.output, {**result(timings, facts), "floors": least})

    def _check(self) -> None:
        counts = [self.repeats, self.clips, self.threads, self.denoise_steps]
        if min(1 if count is None else count for count in counts) < 1 or self.warmup < 0:
            raise UserError("--repeats, --clips, --threads and --denoise-steps are at least 1, --warmup at least 0")
        if self.preset is not None and not self.random_weights:
            raise UserError(f"--preset {self.preset} is a shape without weights: add --random-weights")
        if self.preset is None and (self.random_weights or self.denoise_steps is not None or self.clips != 1):
            raise UserError("--random-weights, --denoise-steps and --clips go with --preset")
        if self.preset is not None and self.photos:
            raise UserError("--preset measures on random pictures: leave the photos out")
        if self.preset is None and not self.models:
            raise UserError("no models: name one at least, such as mini:4")
        check_file(self.output)

    def _measured(self) -> "tuple[list[Timing], str, list[dict[str, float]] | None]":
        """Timings, what they were measured on, and floors if they were asked for."""
        from fvgen.cli.generate import parse_size, view_size
        from fvgen.evaluation.benchmark.photos import default_photos
        from fvgen.evaluation.benchmark.stages import measure_clips, measure_generation
        from fvgen.evaluation.benchmark.systems import load_systems, preset_systems
        from fvgen.models.presets import preset
        from fvgen.outputs import write_files
        from fvgen.scene.photos import load_photos

        if self.preset is not None:
            config, size = preset(self.preset), parse_size(self.size)
            systems = preset_systems(self.preset, config, self.denoise_steps, self.device, self.dtype)
            machine = self._machine(systems[0])
            timings, what = measure_clips(systems, self.repeats, self.warmup, self.clips, size), "random pictures"
        else:
            photos, what = (load_photos(list(self.photos)), "photos") if self.photos else default_photos()
            systems = load_systems(self.models, self.device, self.dtype)
            machine = self._machine(systems[0])
            timings = measure_generation(photos, systems, write_files, self.repeats, self.warmup, view_size(self.size))
        return timings, what, None if machine is None else [_floors(timing, machine) for timing in timings]

    def _machine(self, system: "System") -> "Machine | None":
        from fvgen.evaluation.benchmark.hardware import measured_machine

        return measured_machine(system.pipeline.device, system.pipeline.dtype) if self.floor else None


def _floors(timing: "Timing", machine: "Machine") -> dict[str, float]:
    from fvgen.evaluation.benchmark.counting import count_model
    from fvgen.evaluation.benchmark.report import floors

    width, height = timing.settings["size"]
    config = timing.system.model.config
    return floors(timing, count_model(config, None, (width, height), timing.system.pipeline.dtype), machine)


def check_file(path: Path | None) -> None:
    """Say before the work that a file cannot be written after it."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise UserError(f"--output {path}: name a file in a folder that exists")


def write_figures(path: Path | None, figures: dict[str, Any]) -> None:
    """Write figures as JSON, if there is a file to write."""
    if path is not None:
        path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def run_appetite(run: Path) -> float:
    """Clips per second that a training run uses, from its log and its newest checkpoint.

    Raises:
        UserError: it is no training run, or has fewer than two logged steps or no checkpoint.
    """
    from fvgen.training.checkpoints import facts_of, whole_checkpoints
    from fvgen.training.logs import read_log

    lines, saved = read_log(run), whole_checkpoints(run)
    if len(lines) < 2 or not saved:
        raise UserError(f"{run}: too short a run; two logged steps and a checkpoint are needed")
    steps, seconds = (lines[-1][name] - lines[0][name] for name in ("step", "seconds"))
    return facts_of(saved[-1])["config"]["recipe"]["batch"] * steps / seconds


def table(rows: list[dict[str, Any]], appetite: float | None) -> str:
    """The figures as a Markdown table."""
    head = ["| what | processes | clips per second |", "|---|---|---|"]
    body = [f"| {r['what']} | {r['workers']} | {r['clips_per_second']:.1f} |" for r in rows]
    if appetite:
        head = [head[0] + " of the appetite |", head[1] + "---|"]
        body = [f"{line} {r['clips_per_second'] / appetite:.1f} x |" for line, r in zip(body, rows)]
    return "\n".join(head + body)

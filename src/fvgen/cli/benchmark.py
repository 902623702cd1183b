"""``fvgen benchmark ...``: how fast the parts are on this machine, and how much there is to do."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from fvgen.charts import markdown_table
from fvgen.data.folders import check_pairs
from fvgen.errors import UserError
from fvgen.files import check_file, must_exist, output_file, write_json
from fvgen.hub import check_models, find_model
from fvgen.training.run_folder import appetite_of

if TYPE_CHECKING:
    from fvgen.models.model import ModelConfig


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
        if not self.workers or min(self.workers) < 1 or self.seconds <= 0:
            raise UserError("--workers and --seconds must be positive")
        _check_file(self.output)
        check_pairs(self.folder)
        if self.latents is not None:
            find_model(self.latents)
        appetite = appetite_of(self.training) if self.training is not None else self.appetite
        from fvgen.data.speed import latent_speed, pairs_facts, shard_speed

        pairs = pairs_facts(self.folder)
        found = [("shards", workers, shard_speed(self.folder, workers, self.seconds)) for workers in self.workers]
        if self.latents is not None:
            found.append(("latents", 1, latent_speed(self.folder, self.latents, 8, self.seconds)))
        head, cells = ["what", "processes", "clips per second"], [[w, str(n), f"{speed:.1f}"] for w, n, speed in found]
        if appetite:
            head.append("of the appetite")
            cells = [[*row, f"{speed / appetite:.1f} x"] for row, (_, _, speed) in zip(cells, found)]
        print(markdown_table(head, cells))
        rows = [{"what": w, "workers": n, "clips_per_second": round(speed, 2)} for w, n, speed in found]
        _write(self.output, {"pairs": pairs, "appetite_clips_per_second": appetite, "rows": rows})


@dataclass(frozen=True)
class Stages:
    """Measure seconds and peak memory of each stage of a generation, the models in turn in the same run.

    Prints a Markdown table: per stage the median (least..most) of the repeats, the peak of memory, and how many times
    longer each further model, or way of running it, takes than the first, compared repeat by repeat. See
    docs/benchmark.md.
    """

    photos: Annotated[Positional[tuple[str, ...]], arg(metavar="PHOTOS...")] = ()
    """As in fvgen generate. Default: the example of a checkout, or a made-up scene where there is none."""

    models: Annotated[tuple[str, ...], arg(metavar="MODEL[:STEPS]...")] = ()
    """Models, each with a number of steps if not its own; the first is what the others are compared with. Default:
    mini:4 mini-teacher:50, with --preset student teacher."""

    ways: Annotated[tuple[str, ...], arg(metavar="WAY...")] = ("plain",)
    """Ways of running each model: plain, or choices of fvgen generate, compile, channels-last, offload, window-batch=N,
    float32, bfloat16 and float16, some of them joined by + (compile+bfloat16)."""

    preset: Annotated[str | None, arg(metavar="NAME")] = None
    """Instead of models, the shape of one, such as viewcrafter-512-16: a student (4 steps) and its teacher, encoding,
    denoising and decoding random pictures. It has no weights: say --random-weights too."""

    random_weights: bool = False
    """Take random weights, made where they are used. Speed and memory do not depend on them."""

    denoise_steps: Annotated[int | None, arg(metavar="INT")] = None
    """With --preset: run this many steps at most, and compare seconds per step."""

    clips: int = 1
    """With --preset: clips, denoised together where the way does not say how many are."""

    size: Annotated[str | None, arg(metavar="WIDTHxHEIGHT|model")] = None
    """Size of the views, as for fvgen generate; with --preset, of the model's pictures."""

    repeats: int = 3
    """Rounds that count; in each, every model runs once in every way."""

    warmup: int = 1
    """Rounds before, with two steps, that do not."""

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

        from fvgen.cli.generate import view_size
        from fvgen.devices import hardware, load
        from fvgen.evaluation.benchmark.report import heading, result, table
        from fvgen.evaluation.benchmark.stages import measure_clips, measure_generation
        from fvgen.evaluation.benchmark.systems import default_photos, load_systems
        from fvgen.outputs import write_files
        from fvgen.scene.photos import load_photos

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        place, count = (self.device, self.dtype), (self.repeats, self.warmup)
        if self.preset is not None:
            names, most, what = self.models or ("student", "teacher"), self.denoise_steps, "random pictures"
            systems = load_systems(names, self.ways, *place, self.preset, self.clips, most)
            measure_clips(systems, *count, self.clips, _model_size(self.size, systems[0].model.config))
        else:
            photos, what = (load_photos(list(self.photos)), "photos") if self.photos else default_photos()
            systems = load_systems(self.models or ("mini:4", "mini-teacher:50"), self.ways, *place)
            measure_generation(photos, systems, write_files, *count, view_size(self.size))
        pipeline = systems[0].pipeline
        facts = {
            "hardware": hardware(pipeline.device) | load(),
            "device": str(pipeline.device),
            "dtype": str(pipeline.dtype).removeprefix("torch."),
            "photos": what,
            "repeats": self.repeats,
            "warmup": self.warmup,
        }
        found = result(systems, facts)
        print(heading(found), "", table(found), sep="\n")
        _write(self.output, found)

    def _check(self) -> None:
        if not _positive(self.repeats, self.clips, self.threads, self.denoise_steps) or self.warmup < 0:
            raise UserError("--repeats, --clips, --threads and --denoise-steps are at least 1, --warmup at least 0")
        if self.preset is not None and not self.random_weights:
            raise UserError(f"--preset {self.preset} is a shape without weights: add --random-weights")
        if self.preset is None and (self.random_weights or self.denoise_steps is not None or self.clips != 1):
            raise UserError("--random-weights, --denoise-steps and --clips go with --preset")
        if self.preset is not None and self.photos:
            raise UserError("--preset measures on random pictures: leave the photos out")
        if not self.ways:
            raise UserError("no ways: name one at least, such as plain")
        must_exist(*self.photos)
        check_models(self.models if self.preset is None else ())  # `none` is told later to have no stages
        _check_file(self.output)


@dataclass(frozen=True)
class Count:
    """Count operations and memory of each stage of a model without running it.

    Nothing is allocated: the largest networks are counted on any machine. See docs/benchmark.md for what is counted.
    """

    model: Annotated[Positional[str | None], arg(metavar="NAME|FOLDER")] = None
    """The model. Default: mini."""

    preset: Annotated[str | None, arg(metavar="NAME")] = None
    """Instead, the shape of one, such as viewcrafter-512-16."""

    frames: Annotated[int | None, arg(metavar="INT")] = None
    """Frames of a clip. Default: the model's."""

    size: Annotated[str | None, arg(metavar="WIDTHxHEIGHT")] = None
    """Size of its pictures. Default: the model's."""

    clips: int = 1
    """Clips that are denoised together."""

    steps: Annotated[int | None, arg(metavar="INT")] = None
    """Denoising steps. Default: what the model was made for."""

    guidance_scale: Annotated[float | None, arg(metavar="FLOAT")] = None
    """Classifier-free guidance; 1 is none. Default: what the model was made for."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of weights and activations."""

    output: Annotated[Path | None, arg(aliases=["-o"], metavar="FILE")] = None
    """Also write the figures as JSON."""

    def run(self) -> None:
        """Count and print."""
        if self.model is not None and self.preset is not None:
            raise UserError("a model and --preset: name one of them")
        if not _positive(self.frames, self.clips, self.steps):
            raise UserError("--frames, --clips and --steps are at least 1")
        _check_file(self.output)
        folder = find_model(self.model or "mini") if self.preset is None else None
        import torch

        from fvgen.evaluation.benchmark.count import count_model
        from fvgen.evaluation.benchmark.report import MIB, count_table
        from fvgen.models.model import read_config
        from fvgen.models.presets import preset

        shape = read_config(folder) if folder is not None else preset(str(self.preset))
        frames, steps = self.frames or shape.frames, self.steps or shape.sampling.steps
        if shape.unet.per_frame_image_tokens and frames > shape.frames:
            raise UserError(
                f"--frames {frames}: this model's frames have image tokens of their own, for {shape.frames}"
            )
        scale = shape.sampling.guidance_scale if self.guidance_scale is None else self.guidance_scale
        size, dtype = _model_size(self.size, shape), getattr(torch, self.dtype)
        works = count_model(shape, frames, size, dtype, self.clips, steps, guided=scale != 1)
        *parts, whole = (work["weights"] + work["activations"] for work in works.values())
        print(f"{frames} frames of {size[0]}x{size[1]}, {self.dtype}; {steps} steps, guidance {scale:g}")
        print("", count_table(works), "", sep="\n")
        print(f"On the device at most: {whole / MIB:,.0f} MiB; off-loaded {max(parts) / MIB:,.0f} MiB.")
        facts = {"frames": frames, "size": list(size), "clips": self.clips, "dtype": self.dtype}
        facts |= {"steps": steps, "guidance_scale": scale, "peak_bytes": whole, "peak_bytes_offloaded": max(parts)}
        _write(self.output, {**facts, "stages": works})


def _positive(*counts: int | None) -> bool:
    return all(count is None or count >= 1 for count in counts)


def _model_size(text: str | None, config: "ModelConfig") -> tuple[int, int]:
    """``WIDTHxHEIGHT`` of a model's pictures, by default its own."""
    from fvgen.cli.generate import parse_size

    width, height = parse_size(text) or (config.width, config.height)
    if width % config.grid or height % config.grid:
        raise UserError(f"size {width}x{height}: width and height must be multiples of {config.grid}")
    return width, height


def _check_file(path: Path | None) -> None:
    """Say before the work that a file cannot be written after it."""
    if path is not None:
        check_file(path, overwrite=True)


def _write(path: Path | None, figures: dict[str, Any]) -> None:
    """Write figures as JSON, if there is a file to write."""
    if path is not None:
        with output_file(path) as unfinished:
            write_json(unfinished, figures)

"""``fvgen benchmark fast`` and ``memory``: what each way of running a model costs, and what it changes."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg

from fvgen.cli.benchmark import check_file, write_figures
from fvgen.errors import UserError

if TYPE_CHECKING:
    import torch

    from fvgen.evaluation.benchmark.fast import Load, Way
    from fvgen.models.model import ModelConfig
    from fvgen.rendering.guide import Guide


@dataclass(frozen=True)
class Fast:
    """Run a model in several ways on the same windows, in turn in the same run, and compare with plain float32.

    Prints a Markdown table: seconds per stage (medians), how many times as fast as float32 round by round, peak memory,
    compilations, and the PSNR between the pictures, together and of the worst frame. See docs/speed.md.
    """

    ways: Annotated[tuple[str, ...], arg(metavar="WAY...")] = ("bfloat16", "one-window", "channels-last", "compile")
    """bfloat16, one-window, channels-last, compile, offload, all (compile and channels-last), teacher (its teacher, run
    like all). float32, run plainly, is always there. All but the two named after one have the format of --dtype."""

    model: Annotated[str, arg(metavar="NAME|FOLDER")] = "mini"
    """The model, on photos."""

    teacher: Annotated[str, arg(metavar="NAME|FOLDER")] = "mini-teacher"
    """Its teacher, for the way of that name."""

    preset: Annotated[str | None, arg(metavar="NAME")] = None
    """Instead of a model, the shape of one, such as viewcrafter-512-16, on random pictures: a student (4 steps), its
    teacher of the same weights. It has none: say --random-weights too."""

    random_weights: bool = False
    """Take random weights, made where they are used. Speed and memory do not depend on them."""

    views: Annotated[int | None, arg(metavar="INT")] = None
    """With --preset: new views, as many windows as they need; 14 are one window of 16 frames with a photograph at both
    ends, 56 are four. Default: one window."""

    size: Annotated[str | None, arg(metavar="WIDTHxHEIGHT")] = None
    """Size of the views. Default: the model's, in the photos' orientation."""

    repeats: int = 3
    """Rounds that count; in each, every way is run once."""

    warmup: int = 1
    """Rounds before, which compile and do not count."""

    threads: Annotated[int | None, arg(metavar="INT")] = None
    """Threads of the CPU. Default: PyTorch's."""

    device: Annotated[str, arg(metavar="DEVICE")] = "auto"
    """As in fvgen generate."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """As in fvgen generate."""

    profile: Annotated[Path | None, arg(metavar="FILE")] = None
    """Also write what the last way spends its time on: the operations that take most."""

    output: Annotated[Path | None, arg(aliases=["-o"], metavar="FILE")] = None
    """Also write every figure as JSON."""

    def run(self) -> None:
        """Check, measure, print."""
        self._check()
        import torch

        from fvgen.devices import hardware, load
        from fvgen.evaluation.benchmark.fast import figures, make_ways, measure_ways, profile, ways_table
        from fvgen.pipeline import NovelViewPipeline

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        place = NovelViewPipeline(None).to(self.device, self.dtype)
        facts = hardware(place.device) | load()
        ways = make_ways(list(self.ways), self._loader(place.device), place.device, place.dtype)
        guide = self._guide(ways[0])
        measure_ways(ways, guide, self.repeats, self.warmup)
        rows = figures(ways)
        new, (width, height) = sum(photo is None for photo in guide.photo), guide.cameras.size
        what = f"{self.preset or self.model}: {new} new views of {width}x{height}"
        machine = f"{facts['gpu'] or facts['cpu']}, {facts['threads']} threads, torch {facts['torch']}"
        print(
            f"- {machine}; load at start {facts['load_at_start']}",
            f"- {what}; {self.repeats} repeats, medians",
            sep="\n",
        )
        print("", ways_table(rows), sep="\n")
        write_figures(self.output, {"hardware": facts, "views": new, "size": [width, height], "ways": rows})
        if self.profile is not None:
            self.profile.write_text(profile(ways[-1], guide) + "\n", encoding="utf-8")

    def _check(self) -> None:
        from fvgen.evaluation.benchmark.fast import WAYS

        unknown = sorted(set(self.ways) - set(WAYS))
        if unknown:
            raise UserError(f"--ways {unknown[0]}: choose from {', '.join(WAYS)}")
        if self.repeats < 1 or self.warmup < 0 or min(self.threads or 1, self.views or 1) < 1:
            raise UserError("--repeats, --threads and --views are at least 1, --warmup at least 0")
        if (self.preset is not None) != self.random_weights:
            raise UserError("--preset and --random-weights go together: a preset is a shape without weights")
        if self.views is not None and self.preset is None:
            raise UserError("--views goes with --preset: photos have 14 new views between each two")
        for file in (self.output, self.profile):
            check_file(file)

    def _loader(self, device: "torch.device") -> "Load":
        from fvgen.evaluation.benchmark.systems import sampled_as_student
        from fvgen.models.model import VideoModel
        from fvgen.models.presets import preset

        if self.preset is None:
            return lambda dtype, teacher: VideoModel.load(self.teacher if teacher else self.model, "cpu", dtype)
        config = preset(self.preset)

        def load(dtype: "torch.dtype", teacher: bool) -> VideoModel:
            import torch

            from fvgen.evaluation.benchmark.random_model import random_model

            # The same numbers for every format: made in float32, rounded then.
            shape = config if teacher else sampled_as_student(config)
            return random_model(shape, device, torch.float32).to(dtype)

        return load

    def _guide(self, way: "Way") -> "Guide":
        from fvgen.cli.generate import parse_size
        from fvgen.evaluation.benchmark.fast import random_guide
        from fvgen.evaluation.benchmark.photos import default_photos

        size, pipeline = parse_size(self.size), way.pipeline
        config = pipeline.config
        assert config is not None
        if self.preset is None:
            photos, _ = default_photos()
            scene = pipeline.scene(photos)
            return pipeline.guide(
                scene, pipeline.plan(scene, "through", None, pipeline.frame_size(photos, size or "model"))
            )
        size = size or (config.width, config.height)
        if size[0] % config.grid or size[1] % config.grid:
            raise UserError(f"size {size[0]}x{size[1]}: width and height must be multiples of {config.grid}")
        windows = -(-(self.views or 1) // (config.frames - 2))
        return random_guide(windows, config.frames, size, config.guide)


@dataclass(frozen=True)
class Memory:
    """Count the memory that a model needs on its device at most, tensor by tensor, without running it.

    Weights, and the tensors of each stage that exist at the same time; nothing is fused. What a GPU's libraries need
    for themselves, about a gigabyte, and the frames of the path come on top. See docs/speed.md.
    """

    model: Annotated[str | None, arg(metavar="NAME|FOLDER")] = None
    """The model. Default: mini."""

    preset: Annotated[str | None, arg(metavar="NAME")] = None
    """Instead, the shape of one, such as viewcrafter-512-16."""

    size: Annotated[str | None, arg(metavar="WIDTHxHEIGHT")] = None
    """Size of its pictures. Default: the model's."""

    dtypes: tuple[Literal["float32", "bfloat16", "float16"], ...] = ("float32", "bfloat16")
    """Number formats of weights and activations."""

    windows: Annotated[tuple[int, ...], arg(metavar="INT...")] = (1, 4)
    """Windows denoised together."""

    output: Annotated[Path | None, arg(aliases=["-o"], metavar="FILE")] = None
    """Also write the figures as JSON."""

    def run(self) -> None:
        """Count and print."""
        if self.model is not None and self.preset is not None:
            raise UserError("--model and --preset: name one of them")
        if not self.windows or min(self.windows) < 1:
            raise UserError("--windows: at least 1")
        check_file(self.output)
        import torch

        from fvgen.cli.generate import parse_size
        from fvgen.evaluation.benchmark.footprint import footprint_table, footprints

        config = self._config()
        size = parse_size(self.size) or (config.width, config.height)
        if size[0] % config.grid or size[1] % config.grid:
            raise UserError(f"size {size[0]}x{size[1]}: width and height must be multiples of {config.grid}")
        rows = footprints(config, size, [getattr(torch, name) for name in self.dtypes], list(self.windows))
        print(footprint_table(rows))
        found: list[dict[str, Any]] = [{**row.__dict__, "dtype": str(row.dtype), "peak": row.peak} for row in rows]
        write_figures(self.output, {"size": list(size), "rows": found})

    def _config(self) -> "ModelConfig":
        from fvgen.evaluation.benchmark.tally import config_of
        from fvgen.models.presets import preset

        return preset(self.preset) if self.preset is not None else config_of(self.model or "mini")

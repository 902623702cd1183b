"""``fvgen distill ...``, ``fvgen export``, ``fvgen plot``: a few-step student of a teacher, and what became of it."""

from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from fvgen.cli.train import check_run
from fvgen.data.folders import check_data
from fvgen.data.recipe import ProceduralRecipe
from fvgen.distillation.config import RECIPES, TOY_METHODS
from fvgen.errors import UserError
from fvgen.files import check_file, output_file
from fvgen.hub import find_model
from fvgen.models.weight_files import EFFICIENTNET_LITE1, Weights
from fvgen.training.engine_config import EngineConfig
from fvgen.training.recipes import (
    MINI_STUDENT,
    TOY_STUDENT,
    VIEWCRAFTER_ENGINE,
    VIEWCRAFTER_LORA_STUDENT,
    VIEWCRAFTER_ONE_GPU_ENGINE,
    VIEWCRAFTER_STUDENT,
    XS_STUDENT,
    StudentRecipe,
    variant,
)
from fvgen.training.run_folder import check_distilled, read_log

Recipe = Annotated[StudentRecipe, arg(name="")]
Engine = Annotated[EngineConfig, arg(name="")]
TeacherName = Annotated[str, arg(metavar="NAME|FOLDER")]


@dataclass(frozen=True)
class _Distill:
    data: Annotated[tuple[str, ...], arg(metavar="FOLDER|procedural:SEED")]
    """Training pairs of `fvgen prepare`; or procedural scenes, made while the training runs; or both."""

    output: Annotated[Path, arg(aliases=["-o"], metavar="RUN")]
    """The run's folder; a run that is there already is resumed."""

    teacher: TeacherName
    """The many-step teacher: a model of the package or a model folder."""

    recipe: Recipe
    """How the student is distilled."""

    engine: Engine
    """How the run is carried out."""

    procedural: Annotated[ProceduralRecipe, arg(name="made")] = field(default_factory=ProceduralRecipe, kw_only=True)
    """How procedural pairs are made."""

    def run(self) -> None:
        """Check what can be checked at once, then distil."""
        check_data(self.data)
        find_model(self.teacher)
        check_run(self.output, self.engine, "distillation", "teacher.json")
        if self.recipe.distillation.anchor.perceptual:
            Weights().find(EFFICIENTNET_LITE1)
        from fvgen.data.corpus import open_corpus
        from fvgen.models.model import VideoModel
        from fvgen.training.distributed import joined
        from fvgen.training.student import distill

        with joined(self.engine.device) as world:
            model = VideoModel.load(self.teacher)
            with closing(open_corpus(self.data, model, self.procedural, world.device)) as corpus:
                distill(model, corpus, self.recipe, self.output, self.engine, world, self.teacher)
        print(f"student in {self.output / 'model'}")


@dataclass(frozen=True)
class Mini(_Distill):
    """Distil mini's teacher, or another model of its size, on a CPU; RUN/model holds the student."""

    teacher: TeacherName = "mini-teacher"
    recipe: Recipe = field(default_factory=lambda: MINI_STUDENT)
    engine: Engine = field(default_factory=lambda: EngineConfig(bf16=True))


@dataclass(frozen=True)
class MiniXs(_Distill):
    """Distil a model of mini-xs's size, to see that everything works; RUN/model holds the student."""

    recipe: Recipe = field(default_factory=lambda: XS_STUDENT)
    engine: Engine = field(default_factory=lambda: EngineConfig())


@dataclass(frozen=True)
class ViewCrafter512(_Distill):
    """Distil a 16-frame 512x320 ViewCrafter as the paper does: 8 GPUs under torchrun, 4 clips on each.

    RUN/model holds the student.
    """

    recipe: Recipe = field(default_factory=lambda: VIEWCRAFTER_STUDENT)
    engine: Engine = field(default_factory=lambda: VIEWCRAFTER_ENGINE)


@dataclass(frozen=True)
class ViewCrafter512OneGpu(_Distill):
    """The same on one GPU of 80 GB: clips one by one, their gradients accumulated to the same batch.

    RUN/model holds the student.
    """

    recipe: Recipe = field(default_factory=lambda: VIEWCRAFTER_STUDENT)
    engine: Engine = field(default_factory=lambda: VIEWCRAFTER_ONE_GPU_ENGINE)


@dataclass(frozen=True)
class ViewCrafter512Lora(_Distill):
    """The same on one GPU of 24 GB: student and fake score are low-rank parts on the teacher's frozen weights.

    RUN/model holds the student, merged; fvgen export --adapter writes the small parts alone.
    """

    recipe: Recipe = field(default_factory=lambda: VIEWCRAFTER_LORA_STUDENT)
    engine: Engine = field(default_factory=lambda: VIEWCRAFTER_ONE_GPU_ENGINE)


@dataclass(frozen=True)
class Toy:
    """Distil a teacher of two-dimensional points by every method, and measure against the known truth.

    FOLDER receives ablation.json, ablation.md, samples.svg and one run per method and seed; finished runs are kept.
    """

    output: Annotated[Path, arg(aliases=["-o"], metavar="FOLDER")]
    """Receives the table, the plot and the runs."""

    methods: Annotated[tuple[str, ...], arg(metavar="NAME...")] = TOY_METHODS
    """Methods to compare; gan_init and regression are two more. +step: the critic is told the student's step;
    +loraRANK, such as +lora16: student and fake score are low-rank."""

    seeds: int = 5
    """Distillations of each method."""

    teacher_steps: int = 3000
    """Optimizer steps of the teacher."""

    recipe: Recipe = field(default_factory=lambda: TOY_STUDENT)
    """How each student is distilled; its method and seed are replaced."""

    def run(self) -> None:
        """Check what can be checked at once, then distil and measure."""
        if self.seeds < 1:
            raise UserError(f"--seeds {self.seeds}: at least one")
        for name in self.methods:
            if name.partition("+")[0] not in RECIPES:
                choice = ", ".join(RECIPES)
                raise UserError(f"--methods {name}: choose from {choice}, each also with +step or +loraRANK")
            variant(self.recipe, name, 0)
        check_run(self.output, EngineConfig(), "toy", "teacher.json")
        from fvgen.training.toy import ToyAblation, run_toy

        seeds = tuple(range(self.seeds))
        ablation = ToyAblation(recipe=self.recipe, methods=self.methods, seeds=seeds, teacher_steps=self.teacher_steps)
        run_toy(ablation, self.output)
        print((self.output / "ablation.md").read_text(), end="")


@dataclass(frozen=True)
class Export:
    """Write the averaged student of a distillation's newest checkpoint as a model folder that `generate` takes.

    The folder's provenance.json says which teacher, recipe, updates, times and guidance made it.
    """

    folder: Annotated[Positional[Path], arg(metavar="RUN")]
    """The run's folder; the run may still be going on."""

    output: Annotated[Path, arg(aliases=["-o"], metavar="DIR")]
    """The model folder to write; it must be empty or new."""

    teacher: Annotated[str | None, arg(metavar="NAME|FOLDER")] = None
    """The run's teacher, if it is no longer where it was."""

    adapter: bool = False
    """Of a low-rank run, write only the low-rank parts: a small folder, to be used where the teacher's folder is."""

    def run(self) -> None:
        """Check what can be checked at once, then export."""
        from fvgen.outputs import output_folder

        check_distilled(self.folder)
        if self.teacher is not None:
            find_model(self.teacher)
        with output_folder(self.output) as folder:
            from fvgen.training.export import export_student

            export_student(self.folder, folder, self.teacher, self.adapter)
        print(f"student in {self.output}")


@dataclass(frozen=True)
class Plot:
    """Draw every figure of the logs of some runs over their steps, one colour per run."""

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN...")]
    """Folders of training runs."""

    output: Annotated[Path | None, arg(aliases=["-o"], metavar="FILE")] = None
    """The SVG to write; by default curves.svg in the first run's folder."""

    def run(self) -> None:
        """Draw."""
        if not self.runs:
            raise UserError("no runs: name the folders of training runs")
        from fvgen.charts import curves

        output, logs = self.output or self.runs[0] / "curves.svg", {str(run): read_log(run) for run in self.runs}
        check_file(output, overwrite=True)
        with output_file(output) as unfinished:
            unfinished.write_text(curves(logs))
        print(output)

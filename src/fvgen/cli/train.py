"""``fvgen train ...``: depth network, autoencoder, teacher, or everything up to a four-step model."""

from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from fvgen.data.folders import check_data
from fvgen.data.recipe import ProceduralRecipe
from fvgen.errors import UserError
from fvgen.files import must_exist
from fvgen.hub import find_model
from fvgen.models.weight_files import EFFICIENTNET_LITE0, Weights
from fvgen.packages import require
from fvgen.training.engine_config import EngineConfig
from fvgen.training.recipes import MINI_TEACHER, VIEWCRAFTER_ENGINE, VIEWCRAFTER_TEACHER, DepthRecipe, TeacherRecipe
from fvgen.training.run_folder import check_run_folder, whole_checkpoints

Recipe = Annotated[TeacherRecipe, arg(name="")]
Engine = Annotated[EngineConfig, arg(name="")]


@dataclass(frozen=True)
class Depth:
    """Train the network that expects depth, on procedural scenes made first; RUN/depth.safetensors is the result.

    It starts from EfficientNet-Lite0's published weights (extra `train`), or where an earlier run ended.
    """

    output: Annotated[Path, arg(aliases=["-o"], metavar="RUN")]
    """The run's folder; a run that is there already is resumed."""

    scenes: int = 3000
    """Procedural scenes to learn from, about 5 MB each in RUN/scenes."""

    textures: Annotated[tuple[Path, ...], arg(metavar="FOLDER...")] = ()
    """Photographs for textures; without any, all are procedural."""

    start: Annotated[Path | None, arg(metavar="FILE|packaged")] = None
    """Weights to go on from: the depth.safetensors of another run, or those in the package."""

    recipe: Annotated[DepthRecipe, arg(name="")] = field(default_factory=DepthRecipe)
    """How it is trained."""

    engine: Engine = field(default_factory=lambda: EngineConfig(bf16=True))
    """How the run is carried out."""

    workers: int = 1
    """Processes that make scenes."""

    def run(self) -> None:
        """Check what can be checked at once, then train."""
        if self.scenes < 1 or self.workers < 1:
            raise UserError("--scenes and --workers are at least 1")
        must_exist(*self.textures, None if self.start == Path("packaged") else self.start)
        check_run(self.output, self.engine, "depth", "scenes", "held")
        if self.start is None and not whole_checkpoints(self.output):
            Weights().find(EFFICIENTNET_LITE0)
        from fvgen.models.depth import WEIGHTS
        from fvgen.training.depth import train_depth

        start = WEIGHTS if self.start == Path("packaged") else self.start
        path = train_depth(self.output, self.scenes, self.textures, self.recipe, self.engine, self.workers, start)
        print(f"depth network in {path}")


@dataclass(frozen=True)
class Autoencoder:
    """Train the image autoencoder of a fresh model; RUN/model is a model folder whose other parts are untrained."""

    output: Annotated[Path, arg(aliases=["-o"], metavar="RUN")]
    """The run's folder; a run that is there already is resumed."""

    preset: str = "mini"
    """Shape of the model: mini or mini-xs."""

    textures: Annotated[tuple[Path, ...], arg(metavar="FOLDER...")] = ()
    """Photographs to train on besides procedural textures."""

    steps: Annotated[int | None, arg(metavar="INT")] = None
    """Optimizer steps; by default the preset's recipe."""

    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda, or cuda:N."""

    bf16: bool = False
    """Compute in bfloat16."""

    def run(self) -> None:
        """Check what can be checked at once, then train."""
        preset, engine = _known(self.preset), EngineConfig(device=self.device, bf16=self.bf16)
        must_exist(*self.textures)
        check_run(self.output, engine, "autoencoder")
        from fvgen.training.autoencoder import train_autoencoder
        from fvgen.training.release import RELEASES

        recipe = RELEASES[preset].autoencoder
        recipe = replace(recipe, steps=recipe.steps if self.steps is None else self.steps)
        train_autoencoder(self.preset, self.textures, recipe, self.output, engine)
        print(f"autoencoder in {self.output / 'model'}")


@dataclass(frozen=True)
class Teacher:
    """Train the many-step teacher of a model whose autoencoder is trained; RUN/model holds the result."""

    model: Annotated[Path, arg(metavar="MODEL")]
    """The model folder to start from, such as the one that `fvgen train autoencoder` or `fvgen convert` leaves."""

    data: Annotated[tuple[str, ...], arg(metavar="FOLDER|procedural:SEED")]
    """Training pairs of `fvgen prepare`; or procedural scenes, made while the training runs; or both."""

    output: Annotated[Path, arg(aliases=["-o"], metavar="RUN")]
    """The run's folder; a run that is there already is resumed."""

    recipe: Recipe = field(default_factory=lambda: MINI_TEACHER)
    """How the teacher is trained."""

    engine: Engine = field(default_factory=lambda: EngineConfig())
    """How the run is carried out."""

    procedural: Annotated[ProceduralRecipe, arg(name="made")] = field(default_factory=ProceduralRecipe)
    """How procedural pairs are made."""

    def run(self) -> None:
        """Check what can be checked at once, then train."""
        check_data(self.data)
        find_model(self.model)
        check_run(self.output, self.engine, "teacher")
        from fvgen.data.corpus import open_corpus
        from fvgen.models.model import VideoModel
        from fvgen.training.distributed import joined
        from fvgen.training.teacher import train_teacher

        with joined(self.engine.device) as world:
            model = VideoModel.load(self.model)
            with closing(open_corpus(self.data, model, self.procedural, world.device)) as corpus:
                train_teacher(model, corpus, self.recipe, self.output, self.engine, world)
        print(f"teacher in {self.output / 'model'}")


@dataclass(frozen=True)
class ViewCrafter512(Teacher):
    """Tune ViewCrafter to the clips that its student is distilled on: 16 frames of 512x320, a photograph at both ends.

    Many GPUs under torchrun. RUN/model holds the result.
    """

    recipe: Recipe = field(default_factory=lambda: VIEWCRAFTER_TEACHER)
    engine: Engine = field(default_factory=lambda: VIEWCRAFTER_ENGINE)


@dataclass(frozen=True)
class Everything:
    """Train a model from nothing: pairs, autoencoder, teacher, student. Interrupted, it goes on where it was.

    Under torchrun the first process makes pairs and autoencoder, and all of them train teacher and student.
    """

    output: Annotated[Path, arg(aliases=["-o"], metavar="RUN")]
    """Everything is under this folder; RUN/mini and RUN/mini-teacher are the results in half precision."""

    preset: str = "mini"
    """mini, or mini-xs: a tiny model in two minutes, to see that everything works."""

    footage: Annotated[tuple[Path, ...], arg(metavar="SOURCE...")] = ()
    """Footage for pairs besides procedural scenes, as for `fvgen prepare`."""

    textures: Annotated[tuple[Path, ...], arg(metavar="FOLDER...")] = ()
    """Folders of photographs, for textures and for the autoencoder."""

    workers: int = 1
    """Processes that make pairs."""

    device: str = "auto"
    """What trains: auto (a GPU where there is one), cpu, cuda, or cuda:N."""

    def run(self) -> None:
        """Check what can be checked at once, then train."""
        name = _known(self.preset)
        if self.workers < 1:
            raise UserError(f"--workers {self.workers}: at least one")
        must_exist(*self.footage, *self.textures)
        check_run(self.output, EngineConfig(), "everything", "pairs")
        from fvgen.training.release import train_everything

        train_everything(name, self.output, self.footage, self.textures, self.workers, self.device)
        print(f"models in {self.output / self.preset} and {self.output / (self.preset + '-teacher')}")


def check_run(output: Path, engine: EngineConfig, task: str, *begun: str) -> None:
    """Say at once what would keep a run from its folder, see `check_run_folder`, or from its logs."""
    if engine.tensorboard:
        require("tensorboard", "--tensorboard")
    check_run_folder(output, task, *begun)


def _known(preset: str) -> str:
    if preset not in ("mini", "mini-xs"):
        raise UserError(f"--preset {preset}: choose mini or mini-xs")
    return preset

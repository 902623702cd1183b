"""``fvgen train ...`` and ``fvgen distill``: from training pairs to a four-step model."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from fvgen.errors import UserError


@dataclass(frozen=True)
class Pairs:
    """Make training pairs: clips, and the guides that two of their frames would have given.

    Pairs that FOLDER holds already are kept; run it again to go on after an interruption.
    """

    output: Annotated[Path, arg(aliases=["-o"], metavar="FOLDER")]
    """Receives one file per pair."""

    procedural: int = 110
    """Number of clips from procedural scenes."""

    posed: Annotated[tuple[Path, ...], arg(metavar="PATH...")] = ()
    """Posed photographs in filming order (transforms.json or COLMAP folders); every stretch of them gives a pair."""

    textures: Annotated[tuple[Path, ...], arg(metavar="FOLDER...")] = ()
    """Photographs that texture the procedural scenes; without any, textures are procedural too."""

    size: Annotated[str, arg(metavar="WIDTHxHEIGHT")] = "256x160"
    """Size of the pairs in pixels."""

    seed: int = 0
    """Seed of scenes and clips."""

    workers: int = 1
    """Processes."""

    def run(self) -> None:
        """Make the pairs."""
        from fvgen.cli.generate import parse_size
        from fvgen.data.corpus import CorpusRecipe, make_corpus

        width, height = parse_size(self.size) or (256, 160)
        recipe = CorpusRecipe(self.procedural, self.posed, self.textures, width, height, seed=self.seed)
        print(f"{make_corpus(recipe, self.output, self.workers)} pairs in {self.output}")


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

    bf16: bool = False
    """Compute in bfloat16."""

    def run(self) -> None:
        """Train."""
        from fvgen.training.release import make_autoencoder, release_recipe

        recipe = release_recipe(_known(self.preset), textures=self.textures)
        recipe = replace(recipe, bf16=self.bf16)
        if self.steps is not None:
            recipe = replace(recipe, autoencoder=replace(recipe.autoencoder, steps=self.steps))
        make_autoencoder(recipe, self.output)
        print(f"autoencoder in {self.output / 'model'}")


@dataclass(frozen=True)
class Teacher:
    """Train the many-step teacher of a model whose autoencoder is trained; RUN/model holds the result."""

    model: Annotated[Path, arg(metavar="MODEL")]
    """The model folder to start from, such as the one that `fvgen train autoencoder` leaves behind."""

    pairs: Annotated[Path, arg(metavar="FOLDER")]
    """Training pairs, from `fvgen train pairs`."""

    output: Annotated[Path, arg(aliases=["-o"], metavar="RUN")]
    """The run's folder; a run that is there already is resumed."""

    preset: str = "mini"
    """Whose recipe: mini or mini-xs."""

    steps: Annotated[int | None, arg(metavar="INT")] = None
    """Optimizer steps; by default the recipe's."""

    lr: Annotated[float | None, arg(metavar="FLOAT")] = None
    """Peak learning rate; by default the recipe's."""

    bf16: bool = False
    """Compute in bfloat16."""

    def run(self) -> None:
        """Train."""
        from fvgen.models.model import VideoModel
        from fvgen.training.release import make_teacher, release_recipe

        recipe = replace(release_recipe(_known(self.preset)), bf16=self.bf16)
        teacher = recipe.teacher
        if self.steps is not None:
            teacher = replace(teacher, steps=self.steps)
        if self.lr is not None:
            teacher = replace(teacher, lr=self.lr)
        make_teacher(VideoModel.load(self.model), replace(recipe, teacher=teacher), _pairs(self.pairs), self.output)
        print(f"teacher in {self.output / 'model'}")


@dataclass(frozen=True)
class Distill:
    """Distil a many-step teacher into a four-step student by FVGen's two stages; RUN/model holds the result."""

    teacher: Annotated[Positional[str], arg(metavar="TEACHER")]
    """A model of the package (mini-teacher; mini means the same here) or a model folder."""

    pairs: Annotated[Path, arg(metavar="FOLDER")]
    """Training pairs, from `fvgen train pairs`."""

    output: Annotated[Path, arg(aliases=["-o"], metavar="RUN")]
    """The run's folder; a run that is there already is resumed."""

    preset: str = "mini"
    """Whose recipe: mini or mini-xs."""

    gan_steps: Annotated[int | None, arg(metavar="INT")] = None
    """Student updates of stage 1, the GAN initialisation."""

    dmd_steps: Annotated[int | None, arg(metavar="INT")] = None
    """Student updates of stage 2, softened reverse-KL distribution matching."""

    bf16: bool = False
    """Compute in bfloat16."""

    def run(self) -> None:
        """Distil."""
        from fvgen.models.model import VideoModel
        from fvgen.training.release import make_student, release_recipe

        recipe = replace(release_recipe(_known(self.preset)), bf16=self.bf16)
        student = recipe.student
        if self.gan_steps is not None:
            student = replace(student, gan_steps=self.gan_steps)
        if self.dmd_steps is not None:
            student = replace(student, dmd_steps=self.dmd_steps)
        teacher = VideoModel.load("mini-teacher" if self.teacher == "mini" else self.teacher)
        scale = teacher.config.sampling.guidance_scale
        student = replace(student, distillation=replace(student.distillation, guidance_scale=scale))
        make_student(teacher, replace(recipe, student=student), _pairs(self.pairs), self.output)
        print(f"student in {self.output / 'model'}")


@dataclass(frozen=True)
class Everything:
    """Train a model from nothing: pairs, autoencoder, teacher, student. Interrupted, it goes on where it was."""

    output: Annotated[Path, arg(aliases=["-o"], metavar="RUN")]
    """Everything is under this folder; RUN/mini and RUN/mini-teacher are the results in half precision."""

    preset: str = "mini"
    """mini, or mini-xs: a tiny model in two minutes, to see that everything works."""

    posed: Annotated[tuple[Path, ...], arg(metavar="PATH...")] = ()
    """Posed photographs in filming order, as for `fvgen train pairs`."""

    textures: Annotated[tuple[Path, ...], arg(metavar="FOLDER...")] = ()
    """Folders of photographs, for textures and for the autoencoder."""

    workers: int = 1
    """Processes that make pairs."""

    def run(self) -> None:
        """Train."""
        from fvgen.training.release import release_recipe, train_everything

        recipe = release_recipe(_known(self.preset), self.posed, self.textures)
        train_everything(replace(recipe, workers=self.workers), self.output)
        print(f"models in {self.output / self.preset} and {self.output / (self.preset + '-teacher')}")


def _known(preset: str) -> str:
    if preset not in ("mini", "mini-xs"):
        raise UserError(f"--preset {preset}: choose mini or mini-xs")
    return preset


def _pairs(folder: Path) -> Path:
    if not any(folder.glob("*.npz")):
        raise UserError(f"--pairs {folder}: no training pairs there; make some with 'fvgen train pairs'")
    return folder

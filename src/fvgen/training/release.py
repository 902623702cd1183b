"""A whole model from nothing: pairs, autoencoder, teacher and student."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from fvgen.data.farm import prepare_pairs
from fvgen.data.latents import LatentCorpus
from fvgen.data.recipe import ClipDraw, PrepareRecipe
from fvgen.models.efficientnet import LITE1
from fvgen.models.model import VideoModel
from fvgen.models.weight_files import Weights
from fvgen.training.autoencoder import train_autoencoder
from fvgen.training.distributed import joined
from fvgen.training.engine_config import EngineConfig
from fvgen.training.recipes import (
    MINI_STUDENT,
    MINI_TEACHER,
    XS_STUDENT,
    AutoencoderRecipe,
    StudentRecipe,
    TeacherRecipe,
)
from fvgen.training.student import distill
from fvgen.training.teacher import train_teacher

MINI_PROCEDURAL = PrepareRecipe(width=256, height=160, frames=16, least_frames=6)

# Every stretch of footage gives a pair: photographs of a place are few, and no two stretches show quite the same holes.
MINI_FILMED = PrepareRecipe(
    width=256, height=160, frames=8, least_frames=3, clips=1000, attempts=1, overlap=1.0, longest_stride=1, held_out=0.0
)


@dataclass(frozen=True)
class ReleaseRecipe:
    """A model and how each of its parts is trained.

    Attributes:
        preset: of :func:`fvgen.models.preset`.
        procedural: the pairs of procedural scenes.
        scenes: how many of these.
        filmed: the pairs of footage.
        footage: see :func:`fvgen.data.footage.find_scenes`.
        autoencoder, teacher, student: recipes of the three trainings.
        engine: how the trainings are carried out.
        workers: processes that make pairs.
    """

    preset: str = "mini"
    procedural: PrepareRecipe = field(default_factory=PrepareRecipe)
    scenes: int = 110
    filmed: PrepareRecipe = field(default_factory=PrepareRecipe)
    footage: tuple[Path, ...] = ()
    autoencoder: AutoencoderRecipe = field(default_factory=AutoencoderRecipe)
    teacher: TeacherRecipe = field(default_factory=TeacherRecipe)
    student: StudentRecipe = field(default_factory=StudentRecipe)
    engine: EngineConfig = field(default_factory=EngineConfig)
    workers: int = 1


def release_recipe(
    name: str, footage: tuple[Path, ...] = (), textures: tuple[Path, ...] = (), device: str = "auto"
) -> ReleaseRecipe:
    """The recipe of ``mini``, or of ``mini-xs``, which takes two minutes and makes nothing good."""
    if name == "mini":
        return ReleaseRecipe(
            procedural=MINI_PROCEDURAL if not textures else replace(MINI_PROCEDURAL, textures=textures),
            filmed=MINI_FILMED,
            footage=footage,
            autoencoder=AutoencoderRecipe(steps=1200),
            teacher=MINI_TEACHER,
            student=MINI_STUDENT,
            engine=EngineConfig(device=device, bf16=True),
        )
    return ReleaseRecipe(
        preset=name,
        procedural=PrepareRecipe(width=128, height=80, frames=8, least_frames=4, textures=textures, held_out=0.35),
        scenes=3,
        autoencoder=AutoencoderRecipe(steps=10, batch=2, crop=48),
        teacher=TeacherRecipe(steps=12, clips=ClipDraw(frames=4, crop=(16, 16)), full_frames=8),
        student=XS_STUDENT,
        engine=EngineConfig(device=device, picture_every=2),
    )


def train_everything(recipe: ReleaseRecipe, folder: Path) -> tuple[VideoModel, VideoModel]:
    """Pairs, autoencoder, teacher, student under ``folder``; what is there already is not done again.

    Returns:
        Teacher and student; also written in half precision to ``folder/mini-teacher`` and ``folder/mini`` (or
        whatever the preset is called).

    Raises:
        UserError: before anything is made, if something is missing that the last step needs.
    """
    if recipe.student.distillation.anchor.perceptual:
        Weights().find(LITE1.weights)
    pairs = folder / "pairs"
    prepare_pairs([f"procedural:{recipe.scenes}"], recipe.procedural, pairs, recipe.workers)
    if recipe.footage:
        prepare_pairs(recipe.footage, recipe.filmed, pairs, recipe.workers)
    textures, engine = recipe.procedural.textures, recipe.engine
    model = train_autoencoder(recipe.preset, textures, recipe.autoencoder, folder / "autoencoder", engine)
    with joined(engine.device) as world:
        run = folder / "teacher"
        teacher = train_teacher(model, LatentCorpus(pairs, model), recipe.teacher, run, engine, world)
        corpus, name = LatentCorpus(pairs, teacher), str(run / "model")
        student = distill(teacher, corpus, recipe.student, folder / "student", engine, world, name)
    teacher.save(folder / f"{recipe.preset}-teacher")
    student.save(folder / recipe.preset)
    return teacher, student

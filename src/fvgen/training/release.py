"""The whole way to a released model in one resumable call: pairs, autoencoder, teacher, student, folders."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from fvgen.data.farm import prepare
from fvgen.data.latents import Corpus, LatentCorpus
from fvgen.data.recipe import ClipDraw, PrepareRecipe
from fvgen.models import VideoModel, preset
from fvgen.models.efficientnet import LITE1
from fvgen.models.weight_files import Weights
from fvgen.procedural.textures import TextureBank
from fvgen.training.autoencoder import train_autoencoder
from fvgen.training.export import remember_teacher, write_provenance
from fvgen.training.recipes import (
    MINI_STUDENT,
    MINI_TEACHER,
    XS_STUDENT,
    AutoencoderRecipe,
    EngineConfig,
    StudentRecipe,
    TeacherRecipe,
)
from fvgen.training.student import distill
from fvgen.training.teacher import train_teacher
from fvgen.training.world import World, joined

MINI_MADE = PrepareRecipe(width=256, height=160, frames=16, least_frames=6)
# Every stretch of footage gives a pair: photographs of a place are few, and no two stretches show quite the same holes.
MINI_FILMED = PrepareRecipe(
    width=256, height=160, frames=8, least_frames=3, clips=1000, attempts=1, overlap=1.0, longest_stride=1, held_out=0.0
)


@dataclass(frozen=True)
class ReleaseRecipe:
    """A model and how each of its parts is trained.

    Attributes:
        preset: of :func:`fvgen.models.preset`.
        made: the pairs of procedural scenes.
        scenes: how many of these.
        filmed: the pairs of footage.
        footage: see :func:`fvgen.data.footage.find_scenes`.
        autoencoder, teacher, student: recipes of the three trainings.
        engine: how the trainings are carried out.
        workers: processes that make pairs.
    """

    preset: str = "mini"
    made: PrepareRecipe = field(default_factory=PrepareRecipe)
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
            made=MINI_MADE if not textures else replace(MINI_MADE, textures=textures),
            filmed=MINI_FILMED,
            footage=footage,
            autoencoder=AutoencoderRecipe(steps=1200),
            teacher=MINI_TEACHER,
            student=MINI_STUDENT,
            engine=EngineConfig(device=device, bf16=True),
        )
    return ReleaseRecipe(
        preset=name,
        made=PrepareRecipe(width=128, height=80, frames=8, least_frames=4, textures=textures, held_out=0.35),
        scenes=3,
        autoencoder=AutoencoderRecipe(steps=10, batch=2, crop=48),
        teacher=TeacherRecipe(steps=12, clips=ClipDraw(frames=4, crop=(16, 16)), full_frames=8),
        student=XS_STUDENT,
        engine=EngineConfig(device=device, picture_every=2),
    )


def make_autoencoder(recipe: ReleaseRecipe, folder: Path) -> VideoModel:
    """Train the autoencoder of a fresh model; ``folder/model`` holds the model, its other parts untrained."""
    torch.manual_seed(recipe.autoencoder.seed)
    model = VideoModel.build(preset(recipe.preset))
    bank = TextureBank(list(recipe.made.textures), 0.8)
    train_autoencoder(model.autoencoder, bank, recipe.autoencoder, folder, recipe.engine)
    model.save(folder / "model", torch.float32)
    return model


def make_teacher(
    model: VideoModel, recipe: TeacherRecipe, engine: EngineConfig, corpus: Corpus, folder: Path, world: World
) -> VideoModel:
    """Train the teacher on a corpus; ``folder/model`` holds the result."""
    trained = train_teacher(model, corpus, recipe, folder, engine=engine, world=world)
    if world.rank == 0:
        trained.save(folder / "model", torch.float32)
    return trained


def make_student(
    teacher: VideoModel,
    recipe: StudentRecipe,
    engine: EngineConfig,
    corpus: Corpus,
    folder: Path,
    world: World,
    name: str = "",
) -> VideoModel:
    """Distil the student; ``folder/model`` holds the result.

    Args:
        teacher: whose guidance and rescale the real score takes where the recipe's scale is 1.
        recipe: how.
        engine: how the run is carried out.
        corpus: of training pairs.
        folder: of the run.
        world: the processes.
        name: of the teacher, by which the run remembers it.
    """
    options, sampling = recipe.distillation, teacher.config.sampling
    if options.guidance_scale is None:
        scale, rescale = sampling.guidance_scale, sampling.guidance_rescale
        guided = replace(options, guidance_scale=scale, guidance_rescale=rescale)
        recipe = replace(recipe, distillation=guided)
    if world.rank == 0:
        remember_teacher(folder, teacher, name)
    student = distill(teacher, corpus, recipe, folder, engine=engine, world=world)
    if world.rank == 0:
        student.save(folder / "model", torch.float32)
        write_provenance(folder, student, folder / "model")
    return student


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
    prepare([f"procedural:{recipe.scenes}"], recipe.made, pairs, recipe.workers)
    if recipe.footage:
        prepare(recipe.footage, recipe.filmed, pairs, recipe.workers)
    model = make_autoencoder(recipe, folder / "autoencoder")
    with joined(recipe.engine.device) as world:
        teacher = make_teacher(
            model, recipe.teacher, recipe.engine, LatentCorpus(pairs, model), folder / "teacher", world
        )
        name = str(folder / "teacher" / "model")
        corpus = LatentCorpus(pairs, teacher)
        student = make_student(teacher, recipe.student, recipe.engine, corpus, folder / "student", world, name)
    teacher.save(folder / f"{recipe.preset}-teacher")
    student.save(folder / recipe.preset)
    return teacher, student

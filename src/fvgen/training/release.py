"""The whole way to a released model in one resumable call: pairs, autoencoder, teacher, student, folders."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from fvgen.data.corpus import CorpusRecipe, make_corpus
from fvgen.data.latents import LatentCorpus
from fvgen.data.textures import TextureBank
from fvgen.distillation.methods import DistillationConfig
from fvgen.models import VideoModel, preset
from fvgen.training.autoencoder import AutoencoderRecipe, train_autoencoder
from fvgen.training.student import StudentRecipe, distill
from fvgen.training.teacher import TeacherRecipe, train_teacher


@dataclass(frozen=True)
class ReleaseRecipe:
    """A model and how each of its parts is trained.

    Attributes:
        preset: of :func:`fvgen.models.preset`.
        corpus: the training pairs.
        autoencoder, teacher, student: recipes of the three trainings.
        bf16: compute in bfloat16 where it matters little; twice as fast on CPUs that have it.
        workers: processes that make pairs.
    """

    preset: str = "mini"
    corpus: CorpusRecipe = field(default_factory=CorpusRecipe)
    autoencoder: AutoencoderRecipe = field(default_factory=AutoencoderRecipe)
    teacher: TeacherRecipe = field(default_factory=TeacherRecipe)
    student: StudentRecipe = field(default_factory=StudentRecipe)
    bf16: bool = False
    workers: int = 1


def release_recipe(name: str, posed: tuple[Path, ...] = (), textures: tuple[Path, ...] = ()) -> ReleaseRecipe:
    """The recipe of ``mini``, or of ``mini-xs``, which takes two minutes and makes nothing good."""
    if name == "mini":
        return ReleaseRecipe(
            corpus=CorpusRecipe(procedural=110, posed=posed, textures=textures),
            autoencoder=AutoencoderRecipe(steps=1200),
            teacher=TeacherRecipe(steps=2400, full_from=0.75),
            student=StudentRecipe(gan_steps=150, dmd_steps=150, critic_steps=2),
            bf16=True,
        )
    small = CorpusRecipe(procedural=3, posed=(), textures=textures, width=128, height=80, shortest=4, longest=8)
    return ReleaseRecipe(
        preset=name,
        corpus=small,
        autoencoder=AutoencoderRecipe(steps=10, batch=2, crop=48),
        teacher=TeacherRecipe(steps=12, frames=4, crop=(16, 16), full_frames=8),
        student=StudentRecipe(
            gan_steps=2, dmd_steps=2, critic_steps=1, frames=4, crop=(16, 16), distillation=DistillationConfig(steps=4)
        ),
    )


def make_autoencoder(recipe: ReleaseRecipe, folder: Path) -> VideoModel:
    """Train the autoencoder of a fresh model; ``folder/model`` holds the model, its other parts untrained."""
    torch.manual_seed(recipe.autoencoder.seed)
    model = VideoModel.build(preset(recipe.preset))
    bank = TextureBank(list(recipe.corpus.textures), 0.8)
    train_autoencoder(model.autoencoder, bank, recipe.autoencoder, folder, recipe.bf16)
    model.save(folder / "model", torch.float32)
    return model


def make_teacher(model: VideoModel, recipe: ReleaseRecipe, pairs: Path, folder: Path) -> VideoModel:
    """Train the teacher on the pairs of a folder; ``folder/model`` holds the result."""
    train_teacher(model, LatentCorpus(pairs, model), recipe.teacher, folder, recipe.bf16)
    model.save(folder / "model", torch.float32)
    return model


def make_student(teacher: VideoModel, recipe: ReleaseRecipe, pairs: Path, folder: Path) -> VideoModel:
    """Distil the student; ``folder/model`` holds the result."""
    student = distill(teacher, LatentCorpus(pairs, teacher), recipe.student, folder, recipe.bf16)
    student.save(folder / "model", torch.float32)
    return student


def train_everything(recipe: ReleaseRecipe, folder: Path) -> tuple[VideoModel, VideoModel]:
    """Pairs, autoencoder, teacher, student under ``folder``; what is there already is not done again.

    Returns:
        Teacher and student; also written in half precision to ``folder/mini-teacher`` and ``folder/mini`` (or
        whatever the preset is called).
    """
    pairs = folder / "pairs"
    make_corpus(recipe.corpus, pairs, recipe.workers)
    model = make_autoencoder(recipe, folder / "autoencoder")
    teacher = make_teacher(model, recipe, pairs, folder / "teacher")
    guided = replace(recipe.student.distillation, guidance_scale=teacher.config.sampling.guidance_scale)
    student_recipe = replace(recipe, student=replace(recipe.student, distillation=guided))
    student = make_student(teacher, student_recipe, pairs, folder / "student")
    teacher.save(folder / f"{recipe.preset}-teacher")
    student.save(folder / recipe.preset)
    return teacher, student

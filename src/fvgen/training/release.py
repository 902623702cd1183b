"""A whole model from nothing: pairs, autoencoder, teacher and student."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from fvgen.data.farm import prepare_pairs
from fvgen.data.latents import LatentCorpus
from fvgen.data.recipe import ClipDraw, PrepareRecipe
from fvgen.errors import UserError
from fvgen.files import whole_folder
from fvgen.models.efficientnet import LITE1
from fvgen.models.model import VideoModel
from fvgen.models.weight_files import Weights
from fvgen.training.autoencoder import train_autoencoder
from fvgen.training.checkpoints import fingerprint
from fvgen.training.distributed import joined
from fvgen.training.engine_config import EngineConfig
from fvgen.training.export import write_provenance
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


@dataclass(frozen=True)
class Release:
    """How the model of a preset is made.

    Attributes:
        scenes: how many procedural scenes pairs are made of.
        procedural: recipe of their pairs.
        filmed: recipe of the pairs of footage; ``None``: footage is not used.
        autoencoder, teacher, student: recipes of the three trainings.
        engine: how the trainings are carried out.
    """

    scenes: int
    procedural: PrepareRecipe
    filmed: PrepareRecipe | None
    autoencoder: AutoencoderRecipe
    teacher: TeacherRecipe
    student: StudentRecipe
    engine: EngineConfig


# Up to 300 stretches of the footage are tried, however they overlap: no two show quite the same holes. Of the footage
# that the packaged `mini` is of, door-12 is kept for measuring.
_FILMED = PrepareRecipe(
    width=256, height=160, frames=8, least_frames=3, clips=300, attempts=1, overlap=1.0, longest_stride=1, held_out=0.6
)
RELEASES = {
    "mini": Release(
        scenes=110,
        procedural=PrepareRecipe(width=256, height=160, frames=16, least_frames=6),
        filmed=_FILMED,
        autoencoder=AutoencoderRecipe(steps=1200),
        teacher=MINI_TEACHER,
        student=MINI_STUDENT,
        engine=EngineConfig(bf16=True),
    ),
    "mini-xs": Release(  # takes two minutes and makes nothing good
        scenes=3,
        procedural=PrepareRecipe(width=128, height=80, frames=8, least_frames=4, held_out=0.35),
        filmed=None,
        autoencoder=AutoencoderRecipe(steps=10, batch=2, crop=48),
        teacher=TeacherRecipe(steps=12, clips=ClipDraw(frames=4, crop=(16, 16)), full_frames=8, full_batch=2),
        student=replace(XS_STUDENT, batch=2),
        engine=EngineConfig(picture_every=2),
    ),
}


def train_everything(
    name: str,
    folder: Path,
    footage: Sequence[Path] = (),
    textures: tuple[Path, ...] = (),
    workers: int = 1,
    device: str = "auto",
) -> None:
    """Make pairs, autoencoder, teacher and student under ``folder``; what is there already is not done again.

    Under torchrun the first process makes pairs and autoencoder, and all of them train teacher and student.

    ``folder/NAME`` and ``folder/NAME-teacher`` are the results in half precision; the provenance of the one names the
    other.

    Args:
        name: of the preset, one of :data:`RELEASES`.
        folder: receives everything.
        footage: sources of pairs besides procedural scenes, see :func:`fvgen.data.footage.find_scenes`.
        textures: folders of photographs, for procedural scenes and for the autoencoder.
        workers: processes that make pairs.
        device: that trains.

    Raises:
        UserError: before anything is made, if something is missing that the last step needs.
    """
    release, pairs = RELEASES[name], folder / "pairs"
    made, engine = replace(release.procedural, textures=textures), replace(release.engine, device=device)
    if footage and release.filmed is None:
        raise UserError(f"`footage`: {name} is made of procedural scenes alone; leave it out")
    if release.student.distillation.anchor.perceptual:
        Weights().find(LITE1.weights)
    with joined(device, patience=timedelta(days=2)) as world:
        for batch in (release.teacher.batch, release.teacher.full_batch, release.student.batch):
            world.share(batch)
        if world.rank == 0:  # these two in one process; the others wait
            prepare_pairs([f"procedural:{release.scenes}"], made, pairs, workers)
            if footage and release.filmed:
                prepare_pairs(footage, release.filmed, pairs, workers)
            train_autoencoder(name, textures, release.autoencoder, folder / "autoencoder", engine)
        world.barrier()
        model, run = VideoModel.load(folder / "autoencoder" / "model"), folder / "teacher"
        teacher = train_teacher(model, LatentCorpus(pairs, model), release.teacher, run, engine, world)
        corpus, teacher_name = LatentCorpus(pairs, teacher), str(run / "model")
        student = distill(teacher, corpus, release.student, folder / "student", engine, world, teacher_name)
    if world.rank == 0:
        _write_results(name, folder, student)


def _write_results(name: str, folder: Path, student: VideoModel) -> None:
    teacher, result = VideoModel.load(folder / "teacher" / "model"), folder / f"{name}-teacher"
    with whole_folder(result) as model_folder:
        teacher.save(model_folder)
    of_result = {"teacher": result.name, "fingerprint": fingerprint(VideoModel.load(result).denoiser)}
    with whole_folder(folder / name) as model_folder:
        student.save(model_folder)
        write_provenance(folder / "student", student, model_folder, of_result)

"""From a distillation's run to a model folder that says where it comes from; and a whole model from nothing."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from fvgen import __version__
from fvgen.data.farm import prepare_pairs
from fvgen.data.latents import Corpus, LatentCorpus
from fvgen.data.recipe import ClipDraw, PrepareRecipe
from fvgen.errors import UserError
from fvgen.models import preset
from fvgen.models.efficientnet import LITE1
from fvgen.models.model import VideoModel
from fvgen.models.weight_files import Weights
from fvgen.procedural.textures import TextureBank
from fvgen.training.autoencoder import train_autoencoder
from fvgen.training.checkpoints import facts_of, fingerprint, whole_checkpoints
from fvgen.training.distributed import DistributedContext, joined
from fvgen.training.engine_config import EngineConfig
from fvgen.training.held_out import BEST, chosen_best
from fvgen.training.recipes import (
    MINI_STUDENT,
    MINI_TEACHER,
    XS_STUDENT,
    AutoencoderRecipe,
    StudentRecipe,
    TeacherRecipe,
    recipe_of,
)
from fvgen.training.student import distill, student_of
from fvgen.training.teacher import train_teacher


def remember_teacher(folder: Path, teacher: VideoModel, name: str) -> None:
    """Note in a run's folder which teacher it distils."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "teacher.json"
    noted = {"teacher": name, "fingerprint": fingerprint(teacher.denoiser)}
    if path.exists() and json.loads(path.read_text())["fingerprint"] != noted["fingerprint"]:
        raise UserError(f"{folder} is a run with another teacher: choose another output folder")
    path.write_text(json.dumps(noted, indent=1))


def write_provenance(folder: Path, student: VideoModel, output: Path) -> None:
    """Write ``provenance.json`` beside the weights of a run's student.

    It carries the time grid and guidance that it was distilled for, and which teacher, recipe, and how many updates
    made it, and what was changed meanwhile.
    """
    facts = facts_of(whole_checkpoints(folder)[-1])
    run = json.loads((folder / "run.json").read_text())
    export, steps = facts["recipe"]["held_out"]["export"], student.config.sampling.steps
    best = facts_of(whole_checkpoints(folder / BEST)[-1]) if chosen_best(folder, export) else None
    told = {
        "times": student.denoiser.schedule.trailing_timesteps(steps),
        "guidance_scale": student.config.sampling.guidance_scale,
        **json.loads((folder / "teacher.json").read_text()),
        "updates": {name: counts[0] for name, counts in facts["counts"].items()},
        "average": "newest" if best is None else {name: best[name] for name in ("by", "figure", "step")},
        "changes": run["changes"],
        "seconds": round(facts["seconds"], 1),
        "recipe": facts["recipe"],
        "version": __version__,
    }
    (output / "provenance.json").write_text(json.dumps(told, indent=1) + "\n")


def export_student(folder: Path, output: Path, teacher: str | None = None, adapter: bool = False) -> None:
    """Write the averaged student of a run in half precision: of its newest checkpoint, or the best that was measured.

    Args:
        folder: of a distillation.
        output: the model folder to write.
        teacher: model folder or name, where the one that the run remembers has moved.
        adapter: of a low-rank run only the low-rank parts, which need the teacher's folder beside them.

    Raises:
        UserError: if the folder is no distillation with a checkpoint, the teacher is not the run's, or there are no
            low-rank parts.
    """
    if not (folder / "teacher.json").is_file() or not whole_checkpoints(folder):
        raise UserError(f"{folder} is not a distillation's run with a checkpoint")
    noted = json.loads((folder / "teacher.json").read_text())
    recipe = recipe_of(StudentRecipe, facts_of(whole_checkpoints(folder)[-1])["recipe"])
    if adapter and not recipe.lora.rank:
        raise UserError(f"--adapter: {folder} trained all weights of its student (--lora.rank 0)")
    model = VideoModel.load(teacher or noted["teacher"])
    if fingerprint(model.denoiser) != noted["fingerprint"]:
        raise UserError(f"{teacher or noted['teacher']} is not the teacher of {folder}: name it with --teacher")
    student = student_of(folder, model, recipe, chosen_best(folder, recipe.held_out.export), merged=not adapter)
    if adapter:
        base = teacher or noted["teacher"]
        student.save_adapter(output, recipe.lora, base, noted["fingerprint"], torch.float16)
    else:
        student.save(output, torch.float16)
    write_provenance(folder, student, output)


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
    model: VideoModel,
    recipe: TeacherRecipe,
    engine: EngineConfig,
    corpus: Corpus,
    folder: Path,
    world: DistributedContext,
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
    world: DistributedContext,
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
    prepare_pairs([f"procedural:{recipe.scenes}"], recipe.made, pairs, recipe.workers)
    if recipe.footage:
        prepare_pairs(recipe.footage, recipe.filmed, pairs, recipe.workers)
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

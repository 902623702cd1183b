"""The student of a distillation's run as a model, and as a model folder that says where it comes from."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from fvgen import __version__
from fvgen.errors import UserError
from fvgen.files import write_json
from fvgen.models.lora import adapted, merge, trainable
from fvgen.models.model import VideoModel
from fvgen.training.checkpoints import fingerprint
from fvgen.training.held_out import BEST, chosen_best, student_config
from fvgen.training.recipes import StudentRecipe, recipe_of
from fvgen.training.run_folder import check_distilled, facts_of, whole_checkpoints
from fvgen.training.teacher import load_average


def student_of(
    folder: Path, teacher: VideoModel, recipe: StudentRecipe, best: bool = False, merged: bool = True
) -> VideoModel:
    """The averaged student of a run, as a model on the CPU.

    Args:
        folder: of the run.
        teacher: whose autoencoder and conditioner the student keeps, and in a low-rank run the base.
        recipe: of the run. The student is sampled in its number of steps, without guidance.
        best: the best average that was measured, not that of the newest checkpoint.
        merged: a low-rank student becomes a plain one; ``False``: it keeps its factors, on the teacher's weights.
    """
    config, source = student_config(teacher.config, recipe.distillation.steps), folder / BEST if best else folder
    if recipe.lora.rank:
        student = adapted(teacher.denoiser.cpu(), recipe.lora)
        load_average(source, "student", trainable(student))
        student = merge(student) if merged else student
    else:
        student = VideoModel.build(config).denoiser
        load_average(source, "student", student)
    student.requires_grad_(False)
    return VideoModel(config, teacher.autoencoder.cpu(), teacher.conditioner.cpu(), student).eval()


def remember_teacher(folder: Path, teacher: VideoModel, name: str) -> None:
    """Note in a run's folder which teacher it distils; without a name, the one noted before stays.

    Raises:
        UserError: the run is of another teacher.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "teacher.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    noted = {"teacher": name or known.get("teacher", ""), "fingerprint": fingerprint(teacher.denoiser)}
    if known and known["fingerprint"] != noted["fingerprint"]:
        raise UserError(f"{folder} is a run with another teacher: choose another output folder")
    write_json(path, noted)


def write_provenance(folder: Path, student: VideoModel, output: Path, teacher: Mapping[str, str] | None = None) -> None:
    """Write ``provenance.json`` beside the weights of a run's student.

    It carries the time grid and guidance that it was distilled for, and which teacher, recipe, and how many updates
    made it, and what was changed meanwhile. ``teacher`` is told in the place of the teacher that the run remembers.
    """
    facts = facts_of(whole_checkpoints(folder)[-1])
    run = json.loads((folder / "run.json").read_text())
    export, steps = facts["recipe"]["held_out"]["export"], student.config.sampling.steps
    best = facts_of(whole_checkpoints(folder / BEST)[-1]) if chosen_best(folder, export) else None
    told = {
        "times": student.denoiser.schedule.trailing_timesteps(steps),
        "guidance_scale": student.config.sampling.guidance_scale,
        **(teacher or json.loads((folder / "teacher.json").read_text())),
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
        adapter: write only the low-rank parts of a low-rank run, which need the teacher's folder beside them.

    Raises:
        UserError: if the folder is no distillation with a checkpoint, the teacher is not the run's, or there are no
            low-rank parts.
    """
    check_distilled(folder)
    noted = json.loads((folder / "teacher.json").read_text())
    recipe = recipe_of(StudentRecipe, facts_of(whole_checkpoints(folder)[-1])["recipe"])
    if adapter and not recipe.lora.rank:
        raise UserError(f"`adapter`: {folder} trained all weights of its student (`lora.rank` 0)")
    model = VideoModel.load(teacher or noted["teacher"])
    if fingerprint(model.denoiser) != noted["fingerprint"]:
        raise UserError(f"{teacher or noted['teacher']} is not the teacher of {folder}: name it with `teacher`")
    student = student_of(folder, model, recipe, chosen_best(folder, recipe.held_out.export), merged=not adapter)
    if adapter:
        base = teacher or noted["teacher"]
        student.save_adapter(output, recipe.lora, base, noted["fingerprint"], torch.float16)
    else:
        student.save(output, torch.float16)
    write_provenance(folder, student, output)

"""From a distillation's run to a model folder that says where it comes from."""

import json
from pathlib import Path

import torch

from fvgen import __version__
from fvgen.errors import UserError
from fvgen.models import adapter_files
from fvgen.models.model import VideoModel
from fvgen.training.checkpoints import facts_of, whole_checkpoints
from fvgen.training.student import student_of


def fingerprint(model: VideoModel) -> str:
    """Twelve hex digits of the denoiser's weights."""
    return adapter_files.fingerprint(sorted(model.denoiser.state_dict().items()))


def remember_teacher(folder: Path, teacher: VideoModel, name: str) -> None:
    """Note in a run's folder which teacher it distils."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "teacher.json"
    noted = {"teacher": name, "fingerprint": fingerprint(teacher)}
    if path.exists() and json.loads(path.read_text())["fingerprint"] != noted["fingerprint"]:
        raise UserError(f"{folder} is a run with another teacher: choose another output folder")
    path.write_text(json.dumps(noted, indent=1))


def write_student(folder: Path, student: VideoModel, output: Path, dtype: torch.dtype) -> None:
    """Save a run's student as a model folder with ``provenance.json`` beside its weights.

    It carries the time grid and guidance that it was distilled for, and which teacher, recipe, and how many updates
    made it.
    """
    student.save(output, dtype)
    facts = facts_of(whole_checkpoints(folder)[-1])
    steps = student.config.sampling.steps
    told = {
        "times": student.denoiser.schedule.trailing_timesteps(steps),
        "guidance_scale": student.config.sampling.guidance_scale,
        **json.loads((folder / "teacher.json").read_text()),
        "updates": {name: counts[0] for name, counts in facts["counts"].items()},
        "seconds": round(facts["seconds"], 1),
        "recipe": facts["config"]["recipe"],
        "version": __version__,
    }
    (output / "provenance.json").write_text(json.dumps(told, indent=1) + "\n")


def export_student(folder: Path, output: Path, teacher: str | None = None) -> None:
    """Write the averaged student of a run's newest checkpoint in half precision.

    Args:
        folder: of a distillation.
        output: the model folder to write.
        teacher: model folder or name, where the one that the run remembers has moved.

    Raises:
        UserError: if the folder is no distillation with a checkpoint, or the teacher is not the run's.
    """
    if not (folder / "teacher.json").is_file() or not whole_checkpoints(folder):
        raise UserError(f"{folder} is not a distillation's run with a checkpoint")
    noted = json.loads((folder / "teacher.json").read_text())
    model = VideoModel.load(teacher or noted["teacher"])
    if fingerprint(model) != noted["fingerprint"]:
        raise UserError(f"{teacher or noted['teacher']} is not the teacher of {folder}: name it with --teacher")
    recipe = facts_of(whole_checkpoints(folder)[-1])["config"]["recipe"]
    write_student(folder, student_of(folder, model, recipe["distillation"]["steps"]), output, torch.float16)

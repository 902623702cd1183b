"""Every method on mini-xs over several seeds, and the curves of them all.

    python scripts/mini_ablation.py --teacher TEACHER --data PAIRS --output FOLDER [--seeds 3] [--steps 400]

TEACHER is a model folder of mini-xs's size (``fvgen train all --preset mini-xs`` leaves one; train it longer first with
``fvgen train teacher``). FOLDER receives one run per method and seed, curves.svg (first seed), ablation.json and
ablation.md: the error of four-step samples on held-out clips, and of single predictions at the student's times. Runs
that are there are resumed; finished ones are not done again.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fvgen.data.latents import LatentCorpus
from fvgen.diffusion import few_step_sample
from fvgen.distillation.methods import RECIPES
from fvgen.models import VideoModel
from fvgen.progress import track
from fvgen.training.charts import curves
from fvgen.training.logs import read_log
from fvgen.training.recipes import XS_STUDENT, EngineConfig
from fvgen.training.release import make_student
from fvgen.training.teacher import batch_condition, held_out_loss
from fvgen.training.world import World


@torch.no_grad()
def measure(model: VideoModel, corpus: LatentCorpus, frames: int, steps: int) -> dict[str, float]:
    """Mean squared errors of latents on the held-out clips: four-step samples, and predictions at each time."""
    schedule = model.denoiser.schedule
    times, errors = schedule.trailing_timesteps(steps), []
    for k, batch in enumerate(corpus.held_batches(frames)):
        condition, generator = batch_condition(model, batch), torch.Generator().manual_seed(k)
        noise = torch.randn(batch.latents.shape, generator=generator)
        sample = few_step_sample(lambda x, t: model.denoiser.x0(x, t, condition), schedule, noise, times, generator)  # noqa: B023
        errors.append(float((sample - batch.latents).square().mean()))
    return {"sample": float(np.mean(errors)), **held_out_loss(model, corpus, tuple(times), frames, World())}


def main() -> None:
    """Run them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400, help="student updates, half of them of the first stage")
    given = parser.parse_args()
    engine = EngineConfig(device="cpu", bf16=True, log_every=5, picture_every=max(1, given.steps // 8))
    options = replace(XS_STUDENT.distillation, ode_pairs=64)
    half = given.steps // 2
    recipe = replace(XS_STUDENT, init_steps=half, match_steps=given.steps - half, critic_steps=2)
    recipe = replace(recipe, frames=8, lr=2e-5, distillation=options)
    results: dict[str, list[dict[str, float]]] = {}
    runs = [(method, seed) for seed in range(given.seeds) for method in given.methods]
    for method, seed in track(runs, "methods and seeds"):
        teacher, folder = VideoModel.load(given.teacher), given.output / f"{method}-{seed}"
        this = replace(recipe, method=method, seed=seed)
        student = make_student(teacher, this, engine, given.data, folder, World(), given.teacher)
        corpus = LatentCorpus(given.data, student)
        corpus.refresh()
        results.setdefault(method, []).append(measure(student, corpus, recipe.frames, recipe.distillation.steps))
        (given.output / "ablation.json").write_text(json.dumps(results, indent=1) + "\n")
    names = list(next(iter(results.values()))[0])
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for method, measured in results.items():
        cells = [np.array([m[name] for m in measured]) for name in names]
        shown = [f"{c.mean():.4f} ± {c.std(ddof=1) if len(c) > 1 else 0:.4f}" for c in cells]
        lines.append(f"| {method} | " + " | ".join(shown) + " |")
    (given.output / "ablation.md").write_text("\n".join(lines) + "\n")
    first = {method: read_log(given.output / f"{method}-0") for method in given.methods}
    (given.output / "curves.svg").write_text(curves(first))
    print("\n".join(lines))


if __name__ == "__main__":
    main()

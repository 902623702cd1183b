"""Every method on mini-xs over several seeds, and the curves of them all.

    python scripts/mini_ablation.py --data PAIRS --output FOLDER [--seeds 3] [--steps 160]

PAIRS is a folder of `fvgen prepare`. A teacher with mini-xs's network on mini's autoencoder is trained first, into
FOLDER/teacher. FOLDER then receives one run per method and seed, curves.svg (first seed), frames.png (one held-out
clip), ablation.json and ablation.md. Figures are means over the held-out clips: latent error of four-step samples;
PSNR of the decoded clips, everywhere and where the guide has no point; gradient energy over the truth's. Runs that are
there are resumed; finished ones are not done again.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fvgen.charts import curves
from fvgen.data.latents import LatentCorpus
from fvgen.data.recipe import ClipDraw
from fvgen.diffusion import ddim_sample, few_step_sample
from fvgen.distillation.config import RECIPES
from fvgen.evaluation.metrics import gradient_energy, psnr
from fvgen.models import Condition, VideoModel, preset
from fvgen.progress import track
from fvgen.training.engine_config import EngineConfig
from fvgen.training.logs import sheet
from fvgen.training.recipes import XS_STUDENT, TeacherRecipe, variant
from fvgen.training.run_folder import read_log
from fvgen.training.student import distill
from fvgen.training.teacher import batch_condition, train_teacher

Sampler = Callable[[VideoModel, Tensor, Condition, torch.Generator], Tensor]
STEPS = 4


def few_steps(model: VideoModel, noise: Tensor, condition: Condition, generator: torch.Generator) -> Tensor:
    """As a student is sampled."""
    schedule = model.denoiser.schedule
    times = schedule.trailing_timesteps(STEPS)
    return few_step_sample(lambda x, t: model.denoiser.x0(x, t, condition), schedule, noise, times, generator)


def fifty_steps(model: VideoModel, noise: Tensor, condition: Condition, generator: torch.Generator) -> Tensor:
    """As a teacher is sampled, without guidance."""
    return ddim_sample(
        lambda x, t: model.denoiser.velocity(x, t, condition),
        model.denoiser.schedule,
        noise,
        50,
        eta=1.0,
        generator=generator,
    )


@torch.no_grad()
def measure(
    model: VideoModel, corpus: LatentCorpus, frames: int, sampler: Sampler
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Figures of a model's samples of the held-out clips, and the first clip's pictures."""
    rows, shown = list[dict[str, float]](), dict[str, Tensor]()
    for k, batch in enumerate(corpus.held_batch(name, frames) for name in corpus.held):
        generator = torch.Generator().manual_seed(k)
        noise = torch.randn(batch.latents.shape, generator=generator)
        sample = sampler(model, noise, batch_condition(model, batch), generator)
        made, truth, guide = (
            model.autoencoder.decode(z.float())[0].clamp(-1, 1)
            for z in (sample, batch.latents, batch.concat[:, : sample.shape[1]])
        )
        covered = F.interpolate(batch.concat[0, -1][:, None], made.shape[-2:])[:, 0] > 0.5
        a, b = ((x.movedim(1, -1) + 1) / 2 for x in (made, truth))
        row = {"latent error": float((sample - batch.latents).square().mean()), "PSNR": psnr(a, b)}
        if not covered.all():
            row["PSNR in holes"] = psnr(a, b, ~covered)
        rows.append(row | {"sharpness": gradient_energy(a) / gradient_energy(b)})
        shown = shown or {"guide": guide, "truth": truth, "made": made}
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in rows[0]}, shown


def teacher_of(data: Path, folder: Path, steps: int) -> VideoModel:
    """mini-xs's network on mini's autoencoder, trained once."""
    if (folder / "model").exists():
        return VideoModel.load(str(folder / "model"))
    mini, shape = VideoModel.load("mini-teacher"), preset("mini-xs")
    shape = replace(shape, width=mini.config.width, height=mini.config.height, frames=mini.config.frames)
    shape = replace(shape, sampling=replace(shape.sampling, guidance_scale=1.0))
    torch.manual_seed(0)
    model = VideoModel.build(
        replace(shape, autoencoder=mini.config.autoencoder, guide_variance=mini.config.guide_variance)
    )
    model.autoencoder.load_state_dict(mini.autoencoder.state_dict())
    recipe = TeacherRecipe(steps=steps, lr=1e-3, full_from=1.0, terminal=0.2)
    engine = EngineConfig(device="cpu", bf16=True, log_every=20)
    return train_teacher(model, LatentCorpus(data, model), recipe, folder, engine)


def main() -> None:
    """Run them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", default=[*RECIPES, "fvgen+step"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=160, help="student updates, half of them of the first stage")
    parser.add_argument("--teacher-steps", type=int, default=2400)
    parser.add_argument("--critic-steps", type=int, default=3, help="updates of critic and fake score per student's")
    parser.add_argument("--head-lr", type=float, default=10.0, help="of the critic's head, times the fake score's")
    given = parser.parse_args()
    engine = EngineConfig(device="cpu", bf16=True, log_every=5)
    half = given.steps // 2
    options = replace(XS_STUDENT.distillation, ode_pairs=64, ode_steps=24)
    recipe = replace(XS_STUDENT, init_steps=half, match_steps=given.steps - half, distillation=options)
    recipe = replace(recipe, critic_steps=given.critic_steps, head_lr=given.head_lr)
    recipe = replace(recipe, clips=ClipDraw(frames=8, crop=(32, 32)), lr=1e-4, ema=0.98)
    teacher_folder = given.output / "teacher"
    teacher = teacher_of(given.data, teacher_folder, given.teacher_steps)
    corpus = LatentCorpus(given.data, teacher)
    corpus.refresh()
    results: dict[str, list[dict[str, float]]] = {}
    pictures: dict[str, Tensor] = {}
    for name, sampler in (("teacher, 50 steps", fifty_steps), ("teacher, 4 steps", few_steps)):
        figures, shown = measure(teacher, corpus, recipe.clips.frames, sampler)
        results[name] = [figures]
        pictures |= {"guide": shown["guide"], "truth": shown["truth"], name: shown["made"]}
    for method, seed in track([(m, s) for s in range(given.seeds) for m in given.methods], "methods and seeds"):
        folder, this = given.output / f"{method}-{seed}", variant(recipe, method, seed)
        fresh = VideoModel.load(str(teacher_folder / "model"))
        name = str(teacher_folder / "model")
        student = distill(fresh, corpus, this, folder, engine, name=name)
        figures, shown = measure(student, corpus, recipe.clips.frames, few_steps)
        results.setdefault(method, []).append(figures)
        pictures.setdefault(method, shown["made"])
        report(given.output, results, pictures, given.methods)
    print((given.output / "ablation.md").read_text())


def report(
    output: Path, results: dict[str, list[dict[str, float]]], pictures: dict[str, Tensor], methods: list[str]
) -> None:
    """Write what is known so far."""
    (output / "ablation.json").write_text(json.dumps(results, indent=1) + "\n")
    names = list(next(iter(results.values()))[0])
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for method, measured in results.items():
        cells = [np.array([m[name] for m in measured]) for name in names]
        digits = [4 if name == "latent error" else 2 for name in names]
        shown = [
            f"{c.mean():.{d}f}" + (f" ± {c.std(ddof=1):.{d}f}" if len(c) > 1 else "") for c, d in zip(cells, digits)
        ]
        lines.append(f"| {method} | " + " | ".join(shown) + " |")
    (output / "ablation.md").write_text("\n".join(lines) + "\n")
    logs = {method: read_log(output / f"{method}-0") for method in methods if (output / f"{method}-0").exists()}
    (output / "curves.svg").write_text(curves(logs))
    picture = ((sheet(pictures).clamp(-1, 1) + 1) * 127.5).round().byte().movedim(0, -1).numpy()
    Image.fromarray(picture).save(output / "frames.png")


if __name__ == "__main__":
    main()

"""Measure splats at true frames that nobody was shown: of the photographs alone, with generated views, and as we do it.

    python scripts/measure_splats.py SCENES --output FOLDER

SCENES holds folders with `transforms.json` and `pairs.json` (first and last frame, which are given, and the frames
between, which are only compared with). Views are generated from photograph to photograph with `--model`, and kept in
FOLDER/PAIR, so that another run does not make them again. Then Gaussians are fitted to

    photos         the two photographs alone,
    naive          all frames alike, a plain loss,
    naive-filled   the same, but beginning with Gaussians in the holes of the point cloud too,
    ours           `fvgen reconstruct`.

All begin with the same points and take as many iterations. FOLDER gets splats.json, splats.md and a contact sheet per
pair. Pairs that are in splats.json already, measured with the same settings, are not measured again.
"""

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from PIL import Image

from fvgen.evaluation.datasets import EvaluationScene, find_scenes
from fvgen.evaluation.protocols import Split, find_protocol
from fvgen.evaluation.report import contact_sheet
from fvgen.evaluation.task import Framing, Placing, Task
from fvgen.outputs import write_outputs
from fvgen.pipeline import NovelViewPipeline
from fvgen.reconstruction.capture import Capture, read_capture
from fvgen.reconstruction.held_out import HeldOut, render_all, score
from fvgen.reconstruction.optimise import Optimisation, Settings
from fvgen.reconstruction.render import find_renderer

VARIANTS = ("photos", "naive", "naive-filled", "ours")


@dataclass
class Arguments:
    scenes: tyro.conf.Positional[Path]
    """Folder of scene folders."""
    output: Path
    """Where views, figures and contact sheets go."""
    only: tuple[str, ...] = ()
    """Names of pairs, such as fern-0005; all if none."""
    variants: tuple[str, ...] = VARIANTS
    """Of photos, naive, naive-filled and ours."""
    model: str = "mini"
    views: Literal["model", "photos"] = "model"
    """Size of the views: the model's, or the photographs'."""
    truth: Literal["model", "photos"] = "model"
    """Size of the true frames that are compared with."""
    longest: int = Settings.longest
    """Pixels on the longer side of the frames that are fitted."""
    iterations: int = Settings.iterations
    gaussians: int = Settings.gaussians
    device: str = "cpu"


def task_of(args: Arguments, scene: EvaluationScene, split: Split) -> Task:
    return Task(split, scene, Framing((256, 160)) if args.truth == "model" else None, Placing())


def views_of(args: Arguments, task: Task) -> Capture:
    """The output of a generation from the first photograph to the last, made now or before."""
    folder = args.output / task.split.name
    if not folder.exists():
        pipeline = NovelViewPipeline.from_pretrained(args.model, device=args.device)
        size = pipeline.frame_size(task.photos, "model" if args.views == "model" else None)
        write_outputs(pipeline(task.scene, size=size), folder)
    return read_capture(folder)


def fit(args: Arguments, capture: Capture, variant: str, truth: HeldOut) -> tuple[dict[str, float], torch.Tensor]:
    settings = Settings(iterations=args.iterations, longest=args.longest, gaussians=args.gaussians)
    if variant == "photos":
        capture = capture[capture.photographs]
    if variant != "ours":
        settings = replace(settings.naive(), fill=variant == "naive-filled")
    device = torch.device(args.device)
    renderer = find_renderer("auto", device)
    start = time.process_time()
    optimisation = Optimisation(capture.shrunk(settings.longest), settings, renderer, device)
    while not optimisation.done:
        optimisation.step()
    seconds = time.process_time() - start
    rendered = render_all(optimisation.gaussians, truth.cameras, renderer)
    found = {name: sum(values) / len(values) for name, values in score(rendered, truth.images).items()}
    return {**found, "gaussians": len(optimisation.gaussians), "cpu_seconds": round(seconds, 1)}, rendered


def measure_pair(args: Arguments, task: Task, known: dict[str, Any]) -> dict[str, Any]:
    capture = views_of(args, task)
    cameras = [camera for _, camera in task.targets]
    truth = HeldOut(task.names, task.truth, type(cameras[0]).concatenate(cameras))
    pictures, rows = {"truth": task.truth}, dict(known)
    for variant in (v for v in args.variants if v not in known):
        rows[variant], pictures[variant] = fit(args, capture, variant, truth)
        print(task.split.name, variant, rows[variant], flush=True)
    shown = sorted({len(task.truth) // 4, len(task.truth) // 2, 3 * len(task.truth) // 4})
    if len(pictures) > 1:
        sheet = contact_sheet({name: (p[shown] * 255).round().byte() for name, p in pictures.items()})
        Image.fromarray(sheet).save(args.output / f"{task.split.name}.png")
    return rows


def table(results: dict[str, dict[str, Any]], variants: tuple[str, ...]) -> str:
    """PSNR / SSIM of each pair and their mean over pairs, in Markdown."""
    lines = ["| pair | " + " | ".join(variants) + " |", "|---" * (len(variants) + 1) + "|"]
    whole = {pair: rows for pair, rows in results.items() if all(v in rows for v in variants)}
    for pair, rows in whole.items():
        lines.append(
            f"| {pair} | " + " | ".join(f"{rows[v]['psnr']:.2f} / {rows[v]['ssim']:.3f}" for v in variants) + " |"
        )
    means = [[sum(rows[v][m] for rows in whole.values()) / len(whole) for m in ("psnr", "ssim")] for v in variants]
    lines.append("| mean | " + " | ".join(f"{p:.2f} / {s:.3f}" for p, s in means) + " |")
    return "\n".join(lines) + "\n"


def main(args: Arguments) -> None:
    args.output.mkdir(parents=True, exist_ok=True)
    file = args.output / "splats.json"
    settings = asdict(Settings(iterations=args.iterations, longest=args.longest, gaussians=args.gaussians)) | {
        "model": args.model,
        "views": args.views,
        "truth": args.truth,
    }
    settings["outlier"] = str(settings["outlier"])
    stored = json.loads(file.read_text()) if file.exists() else {}
    results = stored["pairs"] if stored.get("settings") == settings else {}
    folders = sorted(p for p in args.scenes.iterdir() if (p / "pairs.json").is_file())
    for scene in (scene for folder in folders for scene in find_scenes(folder)):
        for split in find_protocol("pairs").splits(scene):
            if not args.only or split.name in args.only:
                results[split.name] = measure_pair(args, task_of(args, scene, split), results.get(split.name, {}))
                file.write_text(json.dumps({"settings": settings, "pairs": results}, indent=1))
    (args.output / "splats.md").write_text(table(results, args.variants))
    print(table(results, args.variants))


if __name__ == "__main__":
    main(tyro.cli(Arguments))

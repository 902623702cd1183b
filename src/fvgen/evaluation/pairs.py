"""Two photos in, the true frames between them out: models against inpainting, in PSNR, SSIM and sharpness."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.cameras.paths import CameraPath
from fvgen.errors import UserError
from fvgen.evaluation.metrics import gradient_energy, psnr, ssim
from fvgen.pipeline import NovelViewPipeline, NovelViews, make_guide
from fvgen.rendering.guide import resample_photo
from fvgen.scene.build import build_scene
from fvgen.scene.photos import load_photos
from fvgen.scene.types import Photos, Scene

BLURS = (0.7, 1.0, 1.4)

Rows = dict[str, dict[str, float]]  # figures by method


@dataclass(frozen=True)
class PairTask:
    """One pair of photos and the frames between them.

    Attributes:
        name: scene and first frame.
        scene: built from the two photos with their given cameras.
        path: cameras of the true frames, at the size of the views.
        truth: ``[F, H, W, 3]`` float 0..1.
    """

    name: str
    scene: Scene
    path: CameraPath
    truth: Tensor


def load_pairs(folder: Path, size: tuple[int, int]) -> list[PairTask]:
    """The pairs of a scene folder with ``transforms.json`` and ``pairs.json`` (``first``, ``last``, ``between``).

    Args:
        folder: the scene.
        size: (width, height) of the views for landscape photos; swapped for portrait ones.

    Raises:
        UserError: if a file is missing.
    """
    listed = folder / "pairs.json"
    if not listed.is_file():
        raise UserError(f"{folder} has no pairs.json (a list of first, last and between frame numbers)")
    photos = load_photos([folder / "transforms.json"])
    if photos.cameras is None:
        raise UserError(f"{folder} has no cameras")
    tasks = []
    for pair in json.loads(listed.read_text()):
        ends, between = [pair["first"], pair["last"]], pair["between"]
        tasks.append(_task(f"{folder.name}-{pair['first']:04d}", photos, photos.cameras, ends, between, size))
    return tasks


def _task(
    name: str, photos: Photos, cameras: Cameras, ends: list[int], between: list[int], size: tuple[int, int]
) -> PairTask:
    image = photos.images[ends[0]]
    width, height = size if image.shape[1] >= image.shape[0] else size[::-1]
    path, boxes = cameras[between].covering(width, height)
    truth = torch.stack([resample_photo(photos.images[i], box, width, height) for i, box in zip(between, boxes)])
    chosen = Photos(
        names=[photos.names[i] for i in ends],
        images=[photos.images[i] for i in ends],
        focals=[photos.focals[i] for i in ends],
        cameras=cameras[ends],
    )
    return PairTask(name, build_scene(chosen, "given"), CameraPath(path, [None] * len(between)), truth)


def telea(pictures: Tensor, coverage: Tensor) -> Tensor:
    """Holes filled by OpenCV's inpainting of Telea (2004), radius 3."""
    import cv2

    filled = []
    for picture, known in zip(pictures, coverage):
        image = (picture * 255).round().byte().numpy()
        filled.append(cv2.inpaint(np.ascontiguousarray(image), (~known).byte().numpy(), 3, cv2.INPAINT_TELEA))
    return torch.from_numpy(np.stack(filled)).float() / 255


def blurred(pictures: Tensor, sigma: float) -> Tensor:
    """Gaussian blur."""
    from scipy.ndimage import gaussian_filter

    return torch.from_numpy(gaussian_filter(pictures.numpy(), (0, sigma, sigma, 0)))


def figures(predicted: Tensor, truth: Tensor, coverage: Tensor) -> dict[str, float]:
    """PSNR (all, covered, holes), SSIM and the ratio of gradient energies."""
    return {
        "psnr": psnr(predicted, truth),
        "psnr_covered": psnr(predicted, truth, coverage),
        "psnr_holes": psnr(predicted, truth, ~coverage),
        "ssim": ssim(predicted, truth),
        "gradient_ratio": gradient_energy(predicted) / gradient_energy(truth),
    }


@dataclass(frozen=True)
class Contestant:
    """A model as it is sampled in the comparison."""

    name: str
    pipeline: NovelViewPipeline
    steps: int | None = None
    guidance_scale: float | None = None


def evaluate_pair(task: PairTask, contestants: list[Contestant]) -> tuple[Rows, dict[str, Tensor]]:
    """Figures and pictures by method, the baselines included."""
    rendered = make_guide(task.scene, task.path)
    guide, coverage = _eight_bits(rendered.images), rendered.coverage
    everything = telea(rendered.completed * rendered.known[..., None], rendered.known)
    pictures = {"guide": guide, "guide + telea": telea(guide, coverage)}
    pictures |= {f"guide + telea, blur {s}": blurred(pictures["guide + telea"], s) for s in BLURS}
    pictures |= {"guessed points + telea": everything}
    pictures |= {f"guessed points + telea, blur {s}": blurred(everything, s) for s in BLURS}
    pictures |= {"completed guide": _eight_bits(rendered.completed)}
    seconds: dict[str, float] = {}
    for contestant in contestants:
        made: NovelViews = contestant.pipeline.along(
            task.scene, task.path, steps=contestant.steps, guidance_scale=contestant.guidance_scale
        )
        pictures[contestant.name], seconds[contestant.name] = _unit(made.frames), made.seconds["denoise"]
    rows = {name: figures(p, task.truth, coverage) for name, p in pictures.items()}
    for name, value in seconds.items():
        rows[name]["denoise_seconds"] = value
    rows["guide"]["coverage"] = float(coverage.float().mean())
    return rows, pictures | {"truth": task.truth}


def _eight_bits(pictures: Tensor) -> Tensor:
    """Pictures in 0..1 as the models' are: rounded to 256 levels."""
    return (pictures.clamp(0, 1) * 255).round() / 255


def _unit(frames: Tensor) -> Tensor:
    return frames.float() / 255


def summarise(results: dict[str, Rows]) -> Rows:
    """Mean over pairs, by method and figure; holes that do not exist in a pair are left out."""
    methods = list(next(iter(results.values())))
    summary: Rows = {}
    for method in methods:
        names = {n for rows in results.values() for n in rows[method]}
        values = {n: [rows[method][n] for rows in results.values() if n in rows[method]] for n in sorted(names)}
        summary[method] = {n: float(np.nanmean(v)) for n, v in values.items()}
    return summary


def table(summary: Rows) -> str:
    """The summary as a Markdown table."""
    columns = ["psnr", "psnr_covered", "psnr_holes", "ssim", "gradient_ratio", "denoise_seconds"]
    lines = ["| method | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for method, row in summary.items():
        cells = [f"{row[c]:.3f}" if c in row else "" for c in columns]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def contact_sheet(pictures: dict[str, Tensor], names: list[str], frames: int = 3) -> np.ndarray:
    """Some frames of some methods side by side, ``[H, W, 3]`` uint8; one method per column."""
    total = len(pictures["truth"])
    rows = sorted({round((k + 1) * (total - 1) / (frames + 1)) for k in range(frames)})
    columns = [torch.cat([pictures[name][r] for r in rows], 0) for name in names]
    return (torch.cat(columns, 1).clamp(0, 1) * 255).round().byte().numpy()

"""Measure guide pictures on real scenes: two photos in, the frames between them as truth.

    python scripts/measure_guide.py SCENES --output FOLDER

SCENES holds one folder per scene with `transforms.json` (nerfstudio layout) and `pairs.json` (first and last frame, and
the frames between). Figures per scene and pair are printed and written to FOLDER/guide.json; FOLDER gets one contact
sheet per pair: guide, holes filled, truth; and one with photo, inverse depth, confidence.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor

from fvgen.evaluation.metrics import gradient_energy, psnr, ssim
from fvgen.evaluation.systems import telea
from fvgen.rendering import Guide, LookupRenderer, render_guide, resample_photo
from fvgen.scene.depth import DepthMap, estimate_depths
from fvgen.scene.photos import load_photos
from fvgen.scene.points import fuse_points
from fvgen.scene.types import Photos

LONG, SHORT = 256, 160
COLUMNS = ("psnr", "ssim", "psnr_covered", "coverage", "psnr_filled", "hole_fill", "hole_telea", "gradient", "depth_s")


@dataclass
class Arguments:
    scenes: tyro.conf.Positional[Path]
    """Folder of scene folders."""
    output: Path
    """Where contact sheets and guide.json go."""
    only: tuple[str, ...] = ()
    """Names of scenes; all if none."""
    frames: int = 0
    """At most this many of the frames between, evenly spread; 0 for all."""
    long_side: int = 512
    """Longer side of the depth maps."""
    device: str = "cpu"


def measure(guide: Guide, truth: Tensor) -> tuple[dict[str, float], Tensor]:
    """Figures of one pair, means over its frames, and the filled pictures."""
    filled, seen = guide.completed.float() / 255, guide.images().float() / 255
    figures = {
        "psnr": psnr(seen, truth),
        "ssim": ssim(seen, truth),
        "psnr_covered": psnr(seen, truth, guide.coverage),
        "coverage": float(guide.coverage.float().mean()),
        "psnr_filled": psnr(filled, truth),
        "hole_fill": psnr(filled, truth, ~guide.coverage),
        "hole_telea": psnr(telea(seen, guide.coverage), truth, ~guide.coverage),
        "gradient": gradient_energy(filled) / gradient_energy(truth),
    }
    return figures, filled


def colored(values: Tensor) -> Tensor:
    """``[H, W]`` as uint8 colours from dark blue (far) over green to yellow (near), by rank-free stretching."""
    low, high = values.quantile(0.01), values.quantile(0.99)
    share = ((values - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)[..., None] * 4
    stops = torch.tensor([[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]]).float()
    index = share.floor().clamp(max=3).long()[..., 0]
    return torch.lerp(stops[index], stops[index + 1], share - index[..., None]).to(torch.uint8)


def save_sheets(folder: Path, name: str, guide: Guide, filled: Tensor, truth: Tensor, maps: list[DepthMap]) -> None:
    shown = sorted({0, len(truth) // 2, len(truth) - 1})
    seen = guide.images().float() / 255
    rows = [torch.cat([seen[i], filled[i], truth[i]], 1) for i in shown]
    Image.fromarray((torch.cat(rows) * 255).round().to(torch.uint8).numpy()).save(folder / f"{name}_guide.png")
    rows = []
    for own in maps:
        trust = (own.confidence * 255).to(torch.uint8)[..., None].expand(-1, -1, 3)
        rows.append(torch.cat([own.image, colored(1 / own.depth.clamp(min=1e-9)), trust], 1))
    Image.fromarray(torch.cat(rows).numpy()).save(folder / f"{name}_depth.png")


def measure_pair(args: Arguments, name: str, photos: Photos, pair: dict) -> dict[str, float]:
    assert photos.cameras is not None
    ends, between = [pair["first"], pair["last"]], pair["between"]
    if args.frames and len(between) > args.frames:
        between = [between[int((j + 0.5) * len(between) / args.frames)] for j in range(args.frames)]
    landscape = photos.images[ends[0]].shape[1] >= photos.images[ends[0]].shape[0]
    size = (LONG, SHORT) if landscape else (SHORT, LONG)
    images, cameras = [photos.images[i] for i in ends], photos.cameras[ends]
    begin = time.perf_counter()
    maps = estimate_depths(images, cameras, args.long_side, args.device)
    depth_seconds = time.perf_counter() - begin
    path, boxes = photos.cameras[between].covering(*size)
    shown: list[int | None] = [None] * len(path)
    guide = render_guide(path, shown, LookupRenderer(images, cameras, maps, fuse_points(maps), size))
    frame_seconds = (time.perf_counter() - begin - depth_seconds) / len(path)
    truth = torch.stack([resample_photo(photos.images[i], box, *size) for i, box in zip(between, boxes, strict=True)])
    figures, filled = measure(guide, truth)
    save_sheets(args.output, name, guide, filled, truth, maps)
    return figures | {"depth_s": depth_seconds, "frame_s": frame_seconds}


def mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {k: float(np.nanmean([r[k] for r in rows])) for k in rows[0]}


def main(args: Arguments) -> None:
    args.output.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, float]] = {}
    scenes = []
    print(f"{'':16s}" + "".join(f"{c:>14s}" for c in COLUMNS))
    for folder in sorted(args.scenes.iterdir()):
        if not (folder / "pairs.json").is_file() or (args.only and folder.name not in args.only):
            continue
        photos = load_photos([folder / "transforms.json"])
        rows = []
        for i, pair in enumerate(json.loads((folder / "pairs.json").read_text())):
            rows.append(measure_pair(args, f"{folder.name}_{i}", photos, pair))
            results[f"{folder.name}_{i}"] = rows[-1]
            show(f"{folder.name}_{i}", rows[-1])
        scenes.append(mean(rows))
        results[folder.name] = scenes[-1]
        show(folder.name, scenes[-1])
    if not scenes:
        raise SystemExit(f"no scene with pairs.json in {args.scenes}")
    results["mean"] = mean(scenes)
    show("mean of scenes", results["mean"])
    (args.output / "guide.json").write_text(json.dumps(results, indent=1))


def show(name: str, figures: dict[str, float]) -> None:
    print(f"{name:16s}" + "".join(f"{figures[c]:14.3f}" for c in COLUMNS), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Arguments))

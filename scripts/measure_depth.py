"""Measure estimated depth against exact depth on procedural scenes, and the guides that both give.

    python scripts/measure_depth.py --output FOLDER [--seeds 7000-7015] [--estimators estimated seen exact]

Of each scene the first and last frame of a clip are the photographs, the frames between are the truth. Regions of
the photographs: `both` sees what the other one sees too, `one` what it does not, `edge` lies within 8 pixels of a depth
edge. Printed and written to FOLDER/depth.json: the share of pixels whose inverse depth is right within 2 % and 10 %,
the mean relative error, the PSNR of the completed guide (and where not both photographs see the surface), and how often
pixels of a confidence are right within 2 %. FOLDER gets a sheet per scene: photo, depth, exact depth, confidence;
guide, truth, and the guide of the last estimator.
"""

import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from fvgen.cameras import Cameras
from fvgen.data.pairs import exact_depths, make_pair
from fvgen.models.depth import DepthNetwork
from fvgen.procedural import procedural_scene
from fvgen.scene.depth import DepthMap, depths_and_signs, estimate_depths
from fvgen.scene.sweep import inside, sample, transfer
from measure_guide import colored

FRAMES, WIDTH, HEIGHT, SCALE = 8, 256, 160, 2
SAME = 0.03  # relative difference of depth of what is one surface
BINS = 10


@dataclass
class Arguments:
    output: Path
    """Where sheets and depth.json go."""
    seeds: str = "7000-7015"
    """First and last seed."""
    estimators: tuple[str, ...] = ("estimated", "seen", "exact")
    """estimated; seen: exact where both photographs see a surface, off by a tenth elsewhere; exact everywhere."""
    workers: int = 1
    """Processes."""
    sheets: bool = True
    """Write the pictures."""
    network: Path | None = None
    """Weights of the depth network; the packaged ones by default."""
    fit: bool = False
    """Instead of measuring, fit the regression that confidence is told by (use seeds that nothing else uses)."""


def seen_by_both(depth: Tensor, cameras: Cameras) -> Tensor:
    """``[2, H, W]`` True where the other photograph sees the surface, by exact depths ``[2, H, W]``."""
    found = []
    for k in range(2):
        pixels, z = transfer(cameras[k], cameras[1 - k], 1 / depth[k])
        there = sample(1 / depth[1 - k][None], pixels[None])[0, 0]
        found.append(inside(pixels, z, cameras[1 - k]) & ((there * depth[k] * z - 1).abs() < SAME))
    return torch.stack(found)


def near_edges(depth: Tensor, reach: int = 8) -> Tensor:
    """``[2, H, W]`` True within ``reach`` pixels of a jump of depth by more than a twentieth."""
    inverse = (1 / depth)[:, None]
    high, low = F.max_pool2d(inverse, 3, 1, 1), -F.max_pool2d(-inverse, 3, 1, 1)
    jump = ((high / low) > 1.1).float()
    return F.max_pool2d(jump, 2 * reach + 1, 1, reach)[:, 0] > 0


def shown_by_both(path: Cameras, depth: Tensor, photos: Cameras, exact: Tensor) -> Tensor:
    """``[T, H, W]`` True where both photographs see what a frame of the path sees, by its exact depth ``[T, H, W]``."""
    frames = []
    for t in range(len(path)):
        seen = torch.ones_like(depth[t], dtype=torch.bool)
        for k in range(2):
            pixels, z = transfer(path[t], photos[k], 1 / depth[t])
            there = sample(1 / exact[k][None], pixels[None])[0, 0]
            seen &= inside(pixels, z, photos[k]) & ((there * depth[t] * z - 1).abs() < SAME)
        frames.append(seen)
    return torch.stack(frames)


def db(error: Tensor) -> float:
    return float(-10 * torch.log10(error.double().mean().clamp(min=1e-10)))


def measure(seed: int, args: Arguments) -> dict:
    """All figures of one scene."""
    torch.set_num_threads(1)
    scene = procedural_scene(seed, FRAMES, WIDTH, HEIGHT)
    times, ends = torch.linspace(0, 1, FRAMES), [0, FRAMES - 1]
    truth, path_depth = scene.film(scene.cameras, times)
    large = scene.cameras[ends].resized(WIDTH * SCALE, HEIGHT * SCALE)
    pictures, exact_depth = scene.film(large, times[ends])
    images, exact = [torch.from_numpy(p) for p in pictures], torch.from_numpy(exact_depth)
    both, edge = seen_by_both(exact, large), near_edges(exact)
    regions = {"all": torch.ones_like(both), "both": both, "one": ~both, "edge": edge}
    between = slice(1, FRAMES - 1)
    shared = shown_by_both(scene.cameras[between], torch.from_numpy(path_depth)[between], large, exact)
    true = torch.from_numpy(truth)[between].float() / 255
    rows, maps_of = {}, {}
    for name in args.estimators:
        start = time.process_time()
        if name == "estimated":
            network = DepthNetwork.load(args.network) if args.network else None
            maps = estimate_depths(images, large, WIDTH * SCALE, network=network)
        else:
            maps = exact_depths(images, exact, large, seed)
            if name == "exact":
                maps = [replace(m, depth=d, confidence=torch.full_like(d, 0.9)) for m, d in zip(maps, exact)]
        seconds = time.process_time() - start
        found = torch.stack([m.depth for m in maps])
        error = (exact / found - 1).abs()
        row: dict[str, Any] = {"seconds": seconds}
        for region, where in regions.items():
            part = error[where]
            row |= {
                f"2%_{region}": float((part < 0.02).float().mean()),
                f"10%_{region}": float((part < 0.1).float().mean()),
                f"error_{region}": float(part.clamp(max=1).mean()),
            }
        pair = make_pair(truth, scene.cameras, maps, (0, FRAMES - 1))
        made = torch.from_numpy(pair.guide)[between].float() / 255
        square = (made - true).square().mean(-1)
        covered = torch.from_numpy(pair.coverage)[between]
        row |= {"psnr": db(square), "psnr_one": db(square[~shared]), "psnr_covered": db(square[covered])}
        row["coverage"] = float(covered.float().mean())
        trust = torch.stack([m.confidence for m in maps])
        which = (trust * BINS).long().clamp(max=BINS - 1)
        right = error < 0.02
        row["bins"] = [[int((which == b).sum()), int(right[which == b].sum())] for b in range(BINS)]
        rows[name], maps_of[name] = row, (maps, made)
    if args.sheets:
        save(args.output / f"{seed}.png", maps_of, exact, true)
    return {"seed": seed, "kind": scene.kind, "one": float((~both).float().mean()), "rows": rows}


def signs(seed: int, args: Arguments) -> tuple[Tensor, Tensor]:
    """``[N, 6]`` signs of some pixels of a scene, and whether they are right within 2 %."""
    torch.set_num_threads(1)
    scene = procedural_scene(seed, FRAMES, WIDTH, HEIGHT)
    large = scene.cameras[[0, FRAMES - 1]].resized(WIDTH * SCALE, HEIGHT * SCALE)
    pictures, exact = scene.film(large, torch.tensor([0.0, 1.0]))
    network = DepthNetwork.load(args.network) if args.network else None
    images = [torch.from_numpy(p) for p in pictures]
    parts = depths_and_signs(images, large, WIDTH * SCALE, "cpu", None, network)
    told, right = [], []
    for (_, inverse, own), true in zip(parts, torch.from_numpy(exact)):
        some = torch.randperm(inverse.numel(), generator=torch.Generator().manual_seed(seed))[:8000]
        told.append(own.flatten(0, 1)[some])
        right.append(((true * inverse - 1).abs() < 0.02).flatten()[some])
    return torch.cat(told).double(), torch.cat(right).double()


def fit(args: Arguments, seeds: range) -> None:
    """Print the weights of a logistic regression, and how reliable it is on what it was fitted to."""
    with ProcessPoolExecutor(args.workers) as pool:
        told, right = (torch.cat(part) for part in zip(*pool.map(signs, seeds, [args] * len(seeds))))
    weights = torch.zeros(told.shape[1], dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.binary_cross_entropy_with_logits(told @ weights, right)
        value.backward()
        return value

    optimizer.step(loss)
    print("weights", [round(w, 3) for w in weights.tolist()])
    which = (torch.sigmoid(told @ weights.detach()) * BINS).long().clamp(max=BINS - 1)
    print("right by confidence", [round(float(right[which == b].mean()), 3) for b in range(BINS)])


def save(path: Path, maps_of: dict[str, tuple[list[DepthMap], Tensor]], exact: Tensor, true: Tensor) -> None:
    maps, made = maps_of[next(iter(maps_of))]
    rows = []
    for k, own in enumerate(maps):
        inverse = torch.cat([1 / own.depth, 1 / exact[k]], 1)
        trust = (own.confidence * 255).to(torch.uint8)[..., None].expand(-1, -1, 3)
        rows.append(torch.cat([own.image, colored(inverse), trust], 1))
    middle = len(made) // 2
    shown = torch.cat([made[middle], true[middle], maps_of[list(maps_of)[-1]][1][middle]], 1)
    shown = F.interpolate(shown.movedim(-1, 0)[None], scale_factor=2)[0].movedim(0, -1)
    shown = (shown * 255).round().to(torch.uint8)
    pad = rows[0].shape[1] - shown.shape[1]
    rows.append(torch.cat([shown, torch.zeros(len(shown), pad, 3, dtype=torch.uint8)], 1))
    Image.fromarray(torch.cat(rows).numpy()).save(path)


def main(args: Arguments) -> None:
    args.output.mkdir(parents=True, exist_ok=True)
    first, _, last = args.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    if args.fit:
        fit(args, seeds)
        return
    columns = ("psnr", "psnr_one", "psnr_covered", "coverage", "2%_all", "10%_all", "2%_both", "2%_one", "10%_one",
               "error_both", "error_one", "error_edge", "seconds")  # fmt: skip
    print(f"{'':28s}" + "".join(f"{c:>13s}" for c in columns), flush=True)
    scenes = []
    with ProcessPoolExecutor(args.workers) as pool:
        for scene in pool.map(measure, seeds, [args] * len(seeds)):
            scenes.append(scene)
            for name, row in scene["rows"].items():
                show(f"{scene['seed']} {scene['kind'][:10]} {name}", row, columns)
    for kind in sorted({scene["kind"] for scene in scenes}):
        own = [scene["rows"] for scene in scenes if scene["kind"] == kind]
        for name in args.estimators:
            show(
                f"{kind} ({len(own)}) {name}",
                {c: float(np.nanmean([r[name][c] for r in own])) for c in columns},
                columns,
            )
    means: dict[str, dict[str, Any]] = {}
    for name in args.estimators:
        rows = [s["rows"][name] for s in scenes]
        means[name] = {c: float(np.nanmean([r[c] for r in rows])) for c in rows[0] if c != "bins"}
        counts = np.sum([r["bins"] for r in rows], 0)
        means[name]["reliability"] = [float(r / n) if n else None for n, r in counts]
        means[name]["pixels"] = [float(n / counts[:, 0].sum()) for n, _ in counts]
        show(f"mean {name}", means[name], columns)
        print("  right within 2 % by confidence:", means[name]["reliability"])
    (args.output / "depth.json").write_text(json.dumps({"scenes": scenes, "means": means}, indent=1))


def show(name: str, row: dict, columns: tuple[str, ...]) -> None:
    print(f"{name:28s}" + "".join(f"{row[c]:13.3f}" for c in columns), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Arguments))

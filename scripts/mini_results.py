"""What mini makes of procedural scenes of every kind that it never saw, hard ones chosen.

    python scripts/mini_results.py --output FILE.jpg [--model mini] [--seed 900000] [--of 4] [--rows hall street:900002]

A row per kind: the nearer photo, the measured points, the completed guide, the model's view, the truth; the frame is
the least covered one of a clip. Of so many clips of a kind the least covered one is shown; KIND:SEED is one clip. By
default every kind, and two clips of polished surfaces. Prints PSNR of guide and view, and the share of the frame that
was measured.
"""

import argparse
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fvgen.data.pairs import Pair, procedural_pair
from fvgen.errors import UserError
from fvgen.evaluation.metrics import psnr
from fvgen.models import VideoModel
from fvgen.models.speed import Speed
from fvgen.models.windows import Windows, WindowSampler
from fvgen.procedural.places import KINDS
from fvgen.procedural.textures import TextureBank
from fvgen.progress import track

FRAMES, WIDTH, HEIGHT = 8, 256, 160
GAP = 4  # pixels between pictures
POLISHED = ("hall:900009", "tabletop:900012")


def hardest(kind: str, seed: int, count: int, bank: TextureBank) -> Pair:
    """The least covered of ``count`` clips of a kind; clips whose photos show too little in common do not count."""
    found: list[Pair] = []
    for attempt in range(3 * count):
        try:
            found.append(procedural_pair(seed + attempt, FRAMES, WIDTH, HEIGHT, bank, kind=kind))
        except UserError:
            continue
        if len(found) == count:
            break
    return min(found, key=lambda pair: float(pair.coverage.mean()))


def views(model: VideoModel, pair: Pair) -> torch.Tensor:
    """``[T, H, W, 3]`` in 0..1."""
    sampling = model.config.sampling
    sampler = WindowSampler(model, Speed(), torch.device("cpu"), sampling.steps, sampling.guidance_scale)
    pictures, coverage = (torch.from_numpy(value)[None] for value in (pair.guide, pair.coverage))
    everything = torch.ones(1, len(pair.guide), dtype=torch.bool)
    noise = [torch.Generator().manual_seed(0)]
    windows = Windows(pictures.float() / 255, coverage, everything, noise)
    with torch.inference_mode():
        return sampler.run([windows], 1, lambda name: nullcontext())[0]


def row(shown: str, model: VideoModel, seed: int, count: int, bank: TextureBank) -> np.ndarray:
    """``[H, 5 W, 3]`` uint8."""
    kind, _, one = shown.partition(":")
    pair = hardest(kind, int(one or seed), 1 if one else count, bank)
    made = (views(model, pair) * 255).round().byte()
    shares = pair.coverage.mean((1, 2))
    worst = int(shares.argmin())
    nearer = pair.frames[0 if worst < FRAMES / 2 else -1]
    measured = pair.guide[worst] * pair.coverage[worst][..., None]
    truth = torch.from_numpy(pair.frames[worst])[None].float() / 255
    scores = [psnr(torch.as_tensor(p)[None].float() / 255, truth) for p in (pair.guide[worst], made[worst])]
    print(f"{shown:16} guide {scores[0]:.2f} dB, view {scores[1]:.2f} dB, measured {shares[worst]:.0%}", flush=True)
    gap = np.full((HEIGHT, GAP, 3), 255, np.uint8)
    pictures = [nearer, measured, pair.guide[worst], made[worst].numpy(), pair.frames[worst]]
    return np.concatenate([part for picture in pictures for part in (picture, gap)][:-1], 1)


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--seed", type=int, default=900_000)
    parser.add_argument("--of", type=int, default=4)
    parser.add_argument("--rows", nargs="*", default=[*KINDS, *POLISHED])
    parser.add_argument("--textures", type=Path, nargs="*", default=[])
    given = parser.parse_args()
    torch.set_num_threads(1)
    bank, model = TextureBank(given.textures, 0.6), VideoModel.load(given.model)
    rows = [row(shown, model, given.seed, given.of, bank) for shown in track(given.rows, "rows")]
    gap = np.full((GAP, rows[0].shape[1], 3), 255, np.uint8)
    sheet = np.concatenate([part for picture in rows for part in (picture, gap)][:-1])
    Image.fromarray(sheet).save(given.output, quality=82, optimize=True)


if __name__ == "__main__":
    main()

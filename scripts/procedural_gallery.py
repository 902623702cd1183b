"""Scenes of every kind, truth over guide, in one picture: docs/images/procedural.jpg.

    python scripts/procedural_gallery.py --output docs/images/procedural.jpg [--seed 0] [--textures FOLDER...]

Each scene shows the middle one of three frames and, under it, the guide that the other two give.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fvgen.data.pairs import procedural_pair
from fvgen.errors import UserError
from fvgen.procedural.places import KINDS
from fvgen.procedural.textures import TextureBank
from fvgen.progress import track

COLUMNS = 4
MORE = ("room", "tabletop")  # kinds that are shown twice
WIDTH, HEIGHT = 256, 160


def tile(kind: str, seed: int, bank: TextureBank) -> np.ndarray:
    """``[2 H, W, 3]``: the middle frame and its guide, of the first seed from ``seed`` on whose photos overlap."""
    for attempt in range(10):
        try:
            pair = procedural_pair(seed + attempt, 3, WIDTH, HEIGHT, bank, kind=kind)
        except UserError:
            continue
        return np.concatenate([pair.frames[1], pair.guide[1]])
    raise SystemExit(f"no pair of a {kind} from seed {seed} on")


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--textures", type=Path, nargs="*", default=[])
    given = parser.parse_args()
    torch.set_num_threads(1)
    bank = TextureBank(given.textures, 0.6)
    shown = [(kind, given.seed) for kind in KINDS] + [(kind, given.seed + 100) for kind in MORE]
    tiles = [tile(kind, seed, bank) for kind, seed in track(shown, "gallery")]
    rows = [np.concatenate(tiles[k : k + COLUMNS], 1) for k in range(0, len(tiles), COLUMNS)]
    Image.fromarray(np.concatenate(rows)).save(given.output, quality=84, optimize=True)


if __name__ == "__main__":
    main()

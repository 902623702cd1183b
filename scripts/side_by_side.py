"""A moving picture of a result for a page: the guide (what the photos tell) beside the views, as an animated WebP.

    python scripts/side_by_side.py OUT --output views.webp

OUT is what `fvgen generate` wrote.
"""

from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from fvgen.scene.formats.video import read_video


def main(out: tyro.conf.Positional[Path], output: Path, width: int = 400, fps: float = 8.0, quality: int = 40) -> None:
    """Write the picture, which begins again at its end."""
    sides = [read_video(out / name)[0].numpy() for name in ("guide.mp4", "views.mp4")]
    frames = []
    for pair in zip(*sides, strict=True):
        joined = Image.fromarray(np.concatenate(pair, 1))
        frames.append(
            joined.resize((2 * width, round(width * pair[0].shape[0] / pair[0].shape[1])), Image.Resampling.LANCZOS)
        )
    each, more = round(1000 / fps), frames[1:]
    frames[0].save(output, save_all=True, append_images=more, duration=each, loop=0, quality=quality, method=6)


if __name__ == "__main__":
    tyro.cli(main)

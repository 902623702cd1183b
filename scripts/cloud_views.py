"""Clouds of real photographs from beside and from above: what depth is worth when nobody stands where the camera did.

    python scripts/cloud_views.py OUT [OUT ...] --output clouds.jpg

OUT is what `fvgen generate` wrote. A row each: the middle photo, then the measured points from where it was taken,
from 50 degrees to the right, and from 50 degrees above, over white.
"""

import math
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor

from fvgen.cameras.cameras import Cameras
from fvgen.cameras.paths import middle_photo
from fvgen.cameras.poses import rotation_exp, turned_about
from fvgen.rendering import render_points
from fvgen.scene.store import read_scene

TURN = math.radians(50)
BACK = 1.35  # times as far away, so that the turned cloud stays in the picture
GAP = 6  # pixels between pictures


def row(out: Path, height: int) -> np.ndarray:
    """``[height, W, 3]`` uint8."""
    scene = read_scene(out)
    view, points = middle_photo(scene.cameras), scene.points
    seen = points.measured
    where, colors = points.positions[seen], points.colors[seen].float() / 255
    pose, photo = scene.cameras.world_from_camera[view], scene.photos.images[view]
    pivot = pose[:3, 3] + float(((where - pose[:3, 3]) @ pose[:3, 2]).median()) * pose[:3, 2]
    turns = rotation_exp(torch.stack([torch.zeros(3).double(), -TURN * pose[:3, 1], -TURN * pose[:3, 0]]))
    poses = turned_about(pose, pivot, turns)
    poses[1:, :3, 3] = pivot + BACK * (poses[1:, :3, 3] - pivot)
    width = round(height * photo.shape[1] / photo.shape[0])
    camera = scene.cameras[view].resized(width, height)
    beside = Cameras(poses, camera.intrinsics.repeat(3, 1, 1), camera.sizes.repeat(3, 1))
    shown = render_points(where, colors, beside)
    over_white = shown.image + (1 - shown.alpha)[..., None]
    photo_small = torch.from_numpy(np.asarray(Image.fromarray(photo.numpy()).resize((width, height))).copy()) / 255
    return joined([photo_small, *over_white])


def joined(pictures: list[Tensor]) -> np.ndarray:
    gap = torch.ones(pictures[0].shape[0], GAP, 3)
    parts = [part for picture in pictures for part in (picture, gap)][:-1]
    return (torch.cat(parts, 1).clamp(0, 1) * 255).round().byte().numpy()


def main(outs: tyro.conf.Positional[tuple[Path, ...]], output: Path, height: int = 240) -> None:
    """Draw."""
    rows = [row(out, height) for out in outs]
    widest = max(r.shape[1] for r in rows)
    padded = [np.pad(r, ((0, GAP), (0, widest - r.shape[1]), (0, 0)), constant_values=255) for r in rows]
    Image.fromarray(np.concatenate(padded)[:-GAP]).save(output, quality=82, optimize=True)


if __name__ == "__main__":
    tyro.cli(main)

"""The photos that are measured on where none are named."""

from pathlib import Path

import torch

from fvgen.procedural import procedural_scene
from fvgen.scene.photos import load_photos
from fvgen.scene.types import Photos

_DEMO = Path(__file__).parents[4] / "examples" / "demo" / "photos"


def default_photos() -> tuple[Photos, str]:
    """Photos and what they are: the example of a checkout, or, where there is none, a scene made up on the spot."""
    if _DEMO.is_dir():
        return load_photos([_DEMO]), "the five pictures of examples/demo"
    return made_up_photos(5, 512, 320), "five pictures of a made-up scene, their cameras given"


def made_up_photos(count: int, width: int, height: int) -> Photos:
    """Pictures of a procedural scene, always the same one, with their cameras."""
    scene = procedural_scene(0, count, width, height)
    pictures = [torch.from_numpy(picture) for picture in scene.film(scene.cameras)[0]]
    return Photos([f"{i:02d}.png" for i in range(count)], pictures, [None] * count, scene.cameras)

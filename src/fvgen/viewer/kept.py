"""The photos with their estimated cameras in the workspace, so that paths stay in their world."""

from pathlib import Path

import torch

from fvgen.cameras import Cameras
from fvgen.outputs import output_folder, write_photos
from fvgen.scene.formats.transforms_json import read_transforms_json
from fvgen.scene.types import Scene
from fvgen.viewer.workspace import Workspace


def kept_scene(workspace: Workspace, scene: Scene) -> Path:
    """The ``transforms_photos.json`` of exactly these cameras, written now if it is not there."""
    for folder in workspace.scene_folders():
        listed = folder / "transforms_photos.json"
        if not folder.exists():
            with output_folder(folder) as fresh:
                write_photos(scene, fresh)
            return listed
        if listed.is_file() and _same(read_transforms_json(listed)[0], scene.cameras):
            return listed
    raise AssertionError("there is always a free folder")


def _same(a: Cameras, b: Cameras) -> bool:
    """Whether these are the same cameras of the same photos, up to the digits of a file."""
    if len(a) != len(b) or not torch.equal(a.sizes, b.sizes):
        return False
    moved = (a.world_from_camera - b.world_from_camera).abs().max()
    return bool(moved < 1e-9) and bool((a.intrinsics - b.intrinsics).abs().max() < 1e-6)

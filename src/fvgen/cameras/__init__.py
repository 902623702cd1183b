"""Cameras, camera paths and pose maths. Imports nothing else of fvgen."""

from fvgen.cameras.cameras import Cameras
from fvgen.cameras.paths import (
    CameraPath,
    follow,
    path_between,
    path_dolly,
    path_orbit,
    path_spiral,
    path_through,
)
from fvgen.cameras.viewcrafter_paths import ViewCrafterBetween, ViewCrafterTarget, ViewCrafterText

__all__ = [
    "CameraPath",
    "Cameras",
    "ViewCrafterBetween",
    "ViewCrafterTarget",
    "ViewCrafterText",
    "follow",
    "path_between",
    "path_dolly",
    "path_orbit",
    "path_spiral",
    "path_through",
]

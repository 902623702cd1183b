"""Cameras, camera paths and pose maths. Imports nothing else of fvgen."""

from fvgen.cameras.cameras import Cameras
from fvgen.cameras.paths import CameraPath, follow, path_dolly, path_orbit, path_spiral, path_through

__all__ = ["CameraPath", "Cameras", "follow", "path_dolly", "path_orbit", "path_spiral", "path_through"]

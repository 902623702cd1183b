"""Photos to poses, depth and coloured points; readers and writers of every outside format."""

from fvgen.scene.build import build_scene
from fvgen.scene.photos import load_photos
from fvgen.scene.types import Dropped, Photos, PointCloud, Scene

__all__ = ["Dropped", "Photos", "PointCloud", "Scene", "build_scene", "load_photos"]

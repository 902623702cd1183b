"""fvgen: a few photos of a place in, dense consistent novel views out, in four denoising steps."""

from typing import TYPE_CHECKING

from fvgen.lazy import exported

if TYPE_CHECKING:
    from fvgen.cameras import CameraPath, Cameras
    from fvgen.errors import UserError
    from fvgen.models.speed import Speed
    from fvgen.outputs import write_outputs
    from fvgen.pipeline import NovelViewPipeline, NovelViews, Settings
    from fvgen.scene import Photos, Scene, build_scene, load_photos

__version__ = "0.1.0"

__all__ = [
    "CameraPath",
    "Cameras",
    "NovelViewPipeline",
    "NovelViews",
    "Photos",
    "Scene",
    "Settings",
    "Speed",
    "UserError",
    "build_scene",
    "load_photos",
    "write_outputs",
]

__getattr__ = exported(
    __name__,
    {
        **dict.fromkeys(("CameraPath", "Cameras"), "fvgen.cameras"),
        **dict.fromkeys(("NovelViewPipeline", "NovelViews", "Settings"), "fvgen.pipeline"),
        **dict.fromkeys(("Photos", "Scene", "build_scene", "load_photos"), "fvgen.scene"),
        "Speed": "fvgen.models.speed",
        "UserError": "fvgen.errors",
        "write_outputs": "fvgen.outputs",
    },
)

"""3D Gaussians from views: what ``fvgen generate`` left behind in, a scene that most splat viewers open out."""

from typing import TYPE_CHECKING

from fvgen.lazy import exported

if TYPE_CHECKING:
    from fvgen.reconstruction.capture import Capture, read_capture
    from fvgen.reconstruction.exports import write_gltf, write_spz
    from fvgen.reconstruction.flight import plan_flight, render_scene
    from fvgen.reconstruction.gaussians import Gaussians, read_gaussians, write_gaussians
    from fvgen.reconstruction.held_out import render_all
    from fvgen.reconstruction.optimise import Settings
    from fvgen.reconstruction.render import find_renderer
    from fvgen.reconstruction.run import reconstruct

__all__ = [
    "Capture",
    "Gaussians",
    "Settings",
    "find_renderer",
    "plan_flight",
    "read_capture",
    "read_gaussians",
    "reconstruct",
    "render_all",
    "render_scene",
    "write_gaussians",
    "write_gltf",
    "write_spz",
]

__getattr__ = exported(
    __name__,
    {
        **dict.fromkeys(("Capture", "read_capture"), "fvgen.reconstruction.capture"),
        **dict.fromkeys(("Gaussians", "read_gaussians", "write_gaussians"), "fvgen.reconstruction.gaussians"),
        **dict.fromkeys(("write_gltf", "write_spz"), "fvgen.reconstruction.exports"),
        **dict.fromkeys(("plan_flight", "render_scene"), "fvgen.reconstruction.flight"),
        "Settings": "fvgen.reconstruction.optimise",
        "find_renderer": "fvgen.reconstruction.render",
        "reconstruct": "fvgen.reconstruction.run",
        "render_all": "fvgen.reconstruction.held_out",
    },
)

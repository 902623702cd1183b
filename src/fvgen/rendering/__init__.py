"""Coloured points and a camera path become guide pictures. Imports cameras only."""

from fvgen.rendering.guide import Guide, GuideKind, render_guide, resample_photo
from fvgen.rendering.holes import complete_picture, fill_holes
from fvgen.rendering.splat import Rendered, render_points

__all__ = [
    "Guide",
    "GuideKind",
    "Rendered",
    "complete_picture",
    "fill_holes",
    "render_guide",
    "render_points",
    "resample_photo",
]

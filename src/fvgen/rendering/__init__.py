"""Photographs, their depth and a camera path become guide pictures. Imports cameras only."""

from fvgen.rendering.guide import Guide, GuideKind, render_guide, render_points_guide, resample_photo
from fvgen.rendering.holes import complete_picture, fill_holes
from fvgen.rendering.lookup import LookupRenderer
from fvgen.rendering.splat import Rendered, render_points

__all__ = [
    "Guide",
    "GuideKind",
    "LookupRenderer",
    "Rendered",
    "complete_picture",
    "fill_holes",
    "render_guide",
    "render_points",
    "render_points_guide",
    "resample_photo",
]

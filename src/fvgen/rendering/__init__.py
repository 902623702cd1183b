"""Coloured points and a camera path become guide pictures. Imports cameras only."""

from fvgen.rendering.splat import Rendered, render_points

__all__ = ["Rendered", "render_points"]

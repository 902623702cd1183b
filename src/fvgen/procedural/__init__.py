"""Scenes from nothing: rooms and places of triangles with textures and light, a camera that moves, exact depth.

``mesh`` builds surfaces, ``textures`` and ``looks`` what covers them, ``things`` and ``places`` whole scenes, all in
NumPy and by the seed alone; ``raster``, ``light`` and ``shade`` make pictures on any device; ``camera`` films and
``scene`` puts them together.
"""

from fvgen.procedural.scene import SKY_DEPTH, ProceduralScene, procedural_scene

__all__ = ["SKY_DEPTH", "ProceduralScene", "procedural_scene"]

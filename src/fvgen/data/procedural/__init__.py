"""Scenes from nothing: rooms and places of triangles with textures and light, a camera that moves, exact depth.

``mesh`` builds surfaces, ``props`` things and ``rooms``, ``outdoors`` and ``places`` whole scenes of them, all in NumPy
and by the seed alone; ``raster``, ``light`` and ``shade`` make pictures on any device; ``scene`` puts them together.
"""

from fvgen.data.procedural.scene import SKY_DEPTH, ProceduralScene, procedural_scene

__all__ = ["SKY_DEPTH", "ProceduralScene", "procedural_scene"]

"""Cameras, camera paths and pose maths. Imports nothing else of fvgen."""

from fvgen.cameras.cameras import Cameras

__all__ = ["Cameras"]

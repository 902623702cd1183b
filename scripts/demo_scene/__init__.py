"""The furnished study shown in `examples/demo`: geometry, textures and cameras, all made by code."""

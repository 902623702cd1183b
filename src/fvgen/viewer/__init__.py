"""A page to see a scene, draw a camera path and generate along it, and a page to share a result."""

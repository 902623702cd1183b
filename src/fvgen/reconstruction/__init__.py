"""3D Gaussians from views: what ``fvgen generate`` left behind in, a scene that every splat viewer opens out."""

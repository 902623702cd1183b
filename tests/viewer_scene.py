"""A small scene for the viewer's tests: a textured wall with a step in it, seen by three cameras."""

import math

import torch

from fvgen.cameras import Cameras
from fvgen.cameras.poses import look_at
from fvgen.reconstruction.gaussians import SH0, Gaussians
from fvgen.rendering.splat import render_points
from fvgen.scene.depth import DepthMap
from fvgen.scene.types import Photos, PointCloud, Scene

SIZE = (64, 48)


def wall(count: int = 40_000) -> PointCloud:
    """Points of a wall at z = 3, nearer on its right half."""
    random = torch.Generator().manual_seed(0)
    xy = torch.rand(count, 2, generator=random) * torch.tensor([4.0, 3.0]) - torch.tensor([2.0, 1.5])
    z = torch.where(xy[:, 0] > 0.4, 2.4, 3.0)
    waves = torch.stack([torch.sin(5 * xy[:, 0]), torch.cos(7 * xy[:, 1]), torch.sin(3 * (xy[:, 0] + xy[:, 1]))], 1)
    colors = ((0.5 + 0.5 * waves) * 255).round().byte()
    positions = torch.cat([xy, z[:, None]], 1)
    return PointCloud(positions, colors, torch.zeros(count, dtype=torch.int64), torch.ones(count))


def gaussians(count: int = 3000) -> Gaussians:
    """The wall as Gaussians whose colours depend on the direction of view."""
    random, cloud = torch.Generator().manual_seed(1), wall(count)
    sh = 0.1 * torch.randn(count, 16, 3, generator=random)
    sh[:, 0] = (cloud.colors / 255 - 0.5) / SH0
    scales = torch.log(0.02 + 0.06 * torch.rand(count, 3, generator=random))
    turns, logits = torch.randn(count, 4, generator=random), 2 * torch.randn(count, generator=random)
    return Gaussians(cloud.positions, scales, turns, logits, sh)


def cameras() -> Cameras:
    """Three side by side, looking at the wall, of photos twice as large as the frames."""
    centers = torch.tensor([[-0.6, 0.0, 0.0], [0.0, -0.1, 0.1], [0.6, 0.0, 0.0]], dtype=torch.float64)
    poses = look_at(centers, torch.tensor([0.0, 0.0, 3.0]).double(), torch.tensor([0.0, -1.0, 0.0]).double())
    width, height = 2 * SIZE[0], 2 * SIZE[1]
    focal = height / 2 / math.tan(math.radians(25))
    matrix = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64)
    return Cameras(poses, matrix.repeat(3, 1, 1), torch.tensor([[width, height]]).repeat(3, 1))


def scene() -> Scene:
    """The wall, its photos (point renders) and their cameras."""
    cloud, photographers = wall(), cameras()
    shades = cloud.colors / 255
    renders = [render_points(cloud.positions, shades, photographers[i], radius=0.03) for i in range(3)]
    images = [(render.image[0] * 255).round().byte() for render in renders]
    maps = [render.depth[0] for render in renders]
    depths = [DepthMap(z, (z > 0).float(), photographers[i], images[i]) for i, z in enumerate(maps)]
    photos = Photos(["a.png", "b.png", "c.png"], images, [None] * 3, photographers)
    return Scene(photos, photographers, cloud, depths, "given")

"""The splatter against a plain twin: every pixel on its own, from the definition."""

import pytest
import torch
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.rendering import layers as layers_module
from fvgen.rendering import occlusion, render_points
from fvgen.rendering.occlusion import Cells, bound_layers, bound_nearest, visible
from fvgen.rendering.splat import project_points, render_surface

WIDTH, HEIGHT, FOCAL = 40, 30, 40.0


def _camera(center: tuple[float, float, float] = (0.0, 0.0, 0.0), width: int = WIDTH, height: int = HEIGHT) -> Cameras:
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, 3] = torch.tensor(center, dtype=torch.float64)
    matrix = torch.tensor([[FOCAL, 0, width / 2], [0, FOCAL, height / 2], [0, 0, 1]], dtype=torch.float64)
    return Cameras(pose[None], matrix[None], torch.tensor([[width, height]]))


def _seen(points: Tensor, camera: Cameras) -> tuple[Tensor, Tensor]:
    """Pixels ``[P, 2]`` and depth ``[P]``."""
    local = points - camera.centers[0].float()
    uv = local @ camera.intrinsics[0].float().T
    return uv[:, :2] / uv[:, 2:], local[:, 2]


def _by_hand(points: Tensor, colors: Tensor, camera: Cameras, radius: float, layers: int) -> tuple[Tensor, ...]:
    """Image, alpha and depth of the compositor, pixel by pixel."""
    width, height = camera.size
    image, alpha, depth = torch.zeros(height, width, 3), torch.zeros(height, width), torch.zeros(height, width)
    r = radius * min(width, height) / 2
    uv, z = _seen(points, camera)
    for y in range(height):
        for x in range(width):
            d2 = ((uv - torch.tensor([x + 0.5, y + 0.5])) ** 2).sum(1) / r**2
            hits = ((d2 < 1) & (z > 0)).nonzero()[:, 0]
            through = 1.0
            for k in hits[z[hits].argsort(stable=True)][:layers]:
                opacity = float(1 - d2[k])
                image[y, x] += through * opacity * colors[k]
                through *= 1 - opacity
            alpha[y, x] = 1 - through
            depth[y, x] = z[hits].min() if len(hits) else 0
    return image, alpha, depth


def _surface_by_hand(
    points: Tensor, colors: Tensor, weights: Tensor, camera: Cameras, radius: float, tolerance: float
) -> tuple[Tensor, ...]:
    width, height = camera.size
    image, weight, depth = torch.zeros(height, width, 3), torch.zeros(height, width), torch.zeros(height, width)
    uv, z = _seen(points, camera)
    for y in range(height):
        for x in range(width):
            d2 = ((uv - torch.tensor([x + 0.5, y + 0.5])) ** 2).sum(1) / radius**2
            hits = (d2 < 1) & (z > 0)
            if hits.any():
                hits &= z <= z[hits].min() * (1 + tolerance)
                share = (1 - d2[hits]) * weights[hits]
                weight[y, x] = share.sum()
                image[y, x] = (share[:, None] * colors[hits]).sum(0) / share.sum()
                depth[y, x] = (share * z[hits]).sum() / share.sum()
    return image, weight, depth


def _cloud(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points before, beside and behind the camera, deep enough on each other to be hidden."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(count, 3, generator=generator) * torch.tensor([2.4, 1.9, 2.0])
    points += torch.tensor([-1.2, -0.95, 0.6])
    points[: count // 15, 2] *= -1
    return points, torch.rand(count, 3, generator=generator)


def _ties() -> tuple[Tensor, Tensor]:
    """Four walls of points, half of which have the very depth of others that share their pixels."""
    points, colors = _cloud(800, 3)
    points[:, :2] /= points[:, 2:].abs()
    points[:, 2] = (points[:, 2] * 2).round().clamp(min=1)
    points[:, :2] *= points[:, 2:]
    return points, colors


def _on_borders() -> tuple[Tensor, Tensor]:
    """Points on the picture's edges and corners, on pixels' edges and centres, just inside, and just out of reach."""
    x = torch.tensor([-5.0, -4.0, -1.0, -1e-4, 0.0, 0.5, 1.0, 39.5, 39.9999, 40.0, 40.5, 44.0, 46.0])
    y = torch.tensor([-5.0, -2.0, -0.5, 0.0, 0.5, 1.0, 15.0, 29.5, 30.0, 30.5, 33.0, 36.0])
    at = torch.cartesian_prod(x, y)
    z = torch.linspace(1, 2, len(at))
    points = torch.stack([(at[:, 0] - WIDTH / 2) / FOCAL * z, (at[:, 1] - HEIGHT / 2) / FOCAL * z, z], 1)
    return points, torch.rand(len(at), 3, generator=torch.Generator().manual_seed(2))


CLOUDS = {
    "cloud": _cloud(700),
    "ties": _ties(),
    "borders": _on_borders(),
    "behind": (_cloud(50)[0] * torch.tensor([1.0, 1.0, -1.0]) - torch.tensor([0.0, 0.0, 1.0]), _cloud(50)[1]),
    "one": (torch.tensor([[0.1, 0.2, 1.5]]), torch.tensor([[0.2, 0.5, 0.9]])),
    "none": (torch.zeros(0, 3), torch.zeros(0, 3)),
    "crowd": (torch.tensor([[0.0, 0.0, 2.0]]).repeat(60, 1), _cloud(60)[1]),
}


@pytest.mark.parametrize("name", CLOUDS)
@pytest.mark.parametrize(("radius", "layers"), [(0.15, 1), (0.15, 3), (0.15, 10), (0.02, 1), (0.02, 4), (0.4, 2)])
def test_pictures_are_their_definition(name: str, radius: float, layers: int) -> None:
    points, colors = CLOUDS[name]
    camera = _camera((0.1, 0.0, 0.05)) if name == "cloud" else _camera()
    rendered = render_points(points, colors, camera, radius, layers)
    for got, true in zip(
        (rendered.image, rendered.alpha, rendered.depth), _by_hand(points, colors, camera, radius, layers), strict=True
    ):
        assert torch.allclose(got[0], true, atol=1e-5)


@pytest.mark.parametrize("name", CLOUDS)
@pytest.mark.parametrize(("radius", "tolerance"), [(1.0, 0.02), (1.0, 0.3), (2.3, 0.1), (0.4, 0.0)])
def test_surfaces_are_their_definition(name: str, radius: float, tolerance: float) -> None:
    points, colors = CLOUDS[name]
    weights = torch.linspace(0.2, 1, len(points))
    surface = render_surface(points, colors, weights, _camera(), radius, tolerance)
    image, weight, depth = _surface_by_hand(points, colors, weights, _camera(), radius, tolerance)
    assert torch.allclose(surface.weight, weight, atol=1e-5)
    certain = weight > 1e-3  # means of next to nothing are next to anything
    assert torch.allclose(surface.image[certain], image[certain], atol=2e-4)
    assert torch.allclose(surface.depth[certain], depth[certain], atol=2e-4)


@pytest.mark.parametrize("layers", [1, 10])
def test_bands_and_parts_that_bound_memory_change_nothing(layers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    points, colors = _cloud(900, 1)
    weights = torch.ones(len(points))
    whole = render_points(points, colors, _camera(), 0.2, layers)
    surface = render_surface(points, colors, weights, _camera(), 2.0)
    monkeypatch.setattr(layers_module, "_PAIRS_PER_PASS", 1000)
    monkeypatch.setattr(layers_module, "_CPU_PAIRS", 500)
    monkeypatch.setattr(occlusion, "_CACHED", 64)
    parts = render_points(points, colors, _camera(), 0.2, layers)
    for name in ("image", "alpha", "depth"):
        assert torch.equal(getattr(whole, name), getattr(parts, name))
    again = render_surface(points, colors, weights, _camera(), 2.0)
    for name in ("image", "weight", "depth"):
        assert torch.equal(getattr(surface, name), getattr(again, name))


def test_hidden_points_are_left_out_before_distances_are_computed() -> None:
    generator = torch.Generator().manual_seed(4)
    points = torch.rand(30_000, 3, generator=generator) * torch.tensor([3.0, 2.2, 4.0])
    points += torch.tensor([-1.5, -1.1, 1.0])
    seen = project_points(points, _camera(), 3.0)
    cells = Cells(WIDTH, HEIGHT, 3.0)
    cell, order = cells.of(seen.u, seen.v), seen.z.argsort().argsort().int()
    nearest = visible(cells, bound_nearest(cells, cell, order), cell, order)
    cell, place = torch.sort(cell.long() * len(cell) + order)
    cell, order = (cell // len(place)).int(), order[place]
    ten = visible(cells, bound_layers(cells, cell, order, 10), cell, order)
    assert nearest.float().mean() < 0.05
    assert ten.float().mean() < 0.15


def test_wrong_shapes_and_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes"):
        render_points(torch.zeros(2, 3), torch.zeros(1, 3), _camera())
    with pytest.raises(ValueError, match="positive"):
        render_points(torch.zeros(2, 3), torch.zeros(2, 3), _camera(), radius=0)

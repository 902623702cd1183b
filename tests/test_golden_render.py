"""The splatter against pictures from the real teacher's renderer."""

import pytest
import torch
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.rendering import render_points
from golden_numbers import GoldenSet


def _cameras(case: dict[str, Tensor]) -> Cameras:
    views, height, width = case["image"].shape[:3]
    intrinsics = torch.eye(3, dtype=torch.float64).repeat(views, 1, 1)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = case["focal"].reshape(views, -1)[:, 0]
    intrinsics[:, :2, 2] = case["pp"]
    return Cameras(case["c2w"], intrinsics, torch.tensor([[width, height]]).repeat(views, 1))


@pytest.mark.golden("render.io")
def test_pictures_equal_the_teachers(golden_set: GoldenSet) -> None:
    numbers, settings = golden_set.read("render.io"), golden_set.config["render"]
    for name in golden_set.cases(numbers):
        case = {k.removeprefix(f"{name}."): v for k, v in numbers.items() if k.startswith(f"{name}.")}
        rendered, smaller, larger = (
            render_points(
                case["points"].reshape(-1, 3),
                case["colors"].reshape(-1, 3),
                _cameras(case),
                radius=settings["radius_ndc"] * factor,
                points_per_pixel=settings["points_per_pixel"],
            )
            for factor in (1, 1 - 1e-4, 1 + 1e-4)
        )
        error = (rendered.image - case["image"]).abs().max()
        assert error < 1e-3, f"{name}: image differs by {error}"
        # On the rim of a point, where it weighs nothing, rounding decides whether a pixel sees it.
        rim = smaller.depth != larger.depth
        assert float(rim.float().mean()) < 0.01
        pixels = rim[0].numel()
        covered = (rendered.alpha > 0).flatten(1).sum(1) - case["coverage"].reshape(-1) * pixels
        assert bool((covered.abs() < rim.flatten(1).sum(1) + 0.01).all()), (
            f"{name}: coverage differs in {covered} pixels"
        )
        first = case["zbuf_first_view0"]
        hit, theirs = rendered.depth[0] > 0, first >= 0
        assert not ((hit != theirs) & ~rim[0]).any(), f"{name}: first hits"
        wrong = ((rendered.depth[0] - first).abs() > 1e-3 * first.abs().clamp_min(1)) & hit & theirs
        assert not (wrong & ~rim[0]).any(), f"{name}: nearest depth"

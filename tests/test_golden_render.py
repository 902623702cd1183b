"""The splatter against pictures from the real teacher's renderer (numbers outside the repository)."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.rendering import render_points


def _cases(folder: Path) -> list[tuple[str, dict[str, Tensor], dict]]:
    """Every case of every set in the folder: (name, tensors, renderer settings)."""
    cases = []
    for file in sorted(folder.glob("render_*.io.safetensors")):
        letter = file.name.removeprefix("render_").removesuffix(".io.safetensors")
        settings = json.loads((folder / f"config_{letter}.json").read_text())["render"]
        tensors = load_file(file)
        for case in sorted({key.split(".")[0] for key in tensors}):
            own = {k.removeprefix(f"{case}."): v for k, v in tensors.items() if k.startswith(f"{case}.")}
            cases.append((f"{letter}/{case}", own, settings))
    return cases


def _cameras(case: dict[str, Tensor]) -> Cameras:
    views, height, width = case["image"].shape[:3]
    intrinsics = torch.eye(3, dtype=torch.float64).repeat(views, 1, 1)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = case["focal"].reshape(views, -1)[:, 0]
    intrinsics[:, :2, 2] = case["pp"]
    return Cameras(case["c2w"], intrinsics, torch.tensor([[width, height]]).repeat(views, 1))


def test_pictures_equal_the_teachers(golden: Path) -> None:
    cases = _cases(golden)
    if not cases:
        pytest.skip(f"GOLDEN RENDERS ABSENT: no render_*.io.safetensors in {golden}")
    for name, case, settings in cases:
        rendered = render_points(
            case["points"].reshape(-1, 3),
            case["colors"].reshape(-1, 3),
            _cameras(case),
            radius=settings["radius_ndc"],
            points_per_pixel=settings["points_per_pixel"],
        )
        error = (rendered.image - case["image"]).abs().max()
        assert error < 1e-3, f"{name}: image differs by {error}"
        covered = (rendered.alpha > 0).float().mean((1, 2))
        assert torch.allclose(covered, case["coverage"].reshape(-1), atol=2e-4), f"{name}: coverage {covered}"
        first = case["zbuf_first_view0"]
        assert ((rendered.depth[0] > 0) == (first >= 0)).float().mean() > 0.9995, f"{name}: first hits"
        both = (rendered.depth[0] > 0) & (first >= 0)
        wrong = ((rendered.depth[0] - first).abs() > 1e-3) & both
        assert wrong.float().mean() < 5e-4, f"{name}: nearest depth"

"""Given cameras may stand anywhere and count in any unit: the same views and figures, files in the user's own world."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fvgen.cameras import Cameras
from fvgen.cameras.alignment import Similarity
from fvgen.cameras.poses import rotation_exp
from fvgen.cli.main import main
from fvgen.data.footage import find_scenes
from fvgen.data.prepare import Ledger, make_samples, read_clips
from fvgen.data.recipe import PrepareRecipe
from fvgen.procedural import procedural_scene
from fvgen.reconstruction import Gaussians, read_gaussians, write_gaussians
from fvgen.reconstruction.exports import brought_near, fits
from fvgen.reconstruction.render import splat_torch
from fvgen.scene.formats.colmap import read_colmap
from fvgen.scene.formats.ply import read_ply, write_ply
from fvgen.scene.formats.transforms_json import read_transforms_json, write_transforms_json

FRAMES = 7
QUARTERS = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)


def _world(scale: float, turn: tuple[float, float, float], shift: tuple[float, float, float]) -> Similarity:
    return Similarity(scale, rotation_exp(torch.tensor(turn)), torch.tensor(shift, dtype=torch.float64))


PLAIN = _world(1, (0, 0, 0), (0, 0, 0))
WORLDS = {
    "earth-centred": _world(1, (0.4, -1.1, 0.8), (4.1e6, 6.3e5, 4.8e6)),
    "small units": _world(2**-13, (0, 0, 0), (5e5 * 2**-13, 5.6e6 * 2**-13, 0)),
    "large units, turned": _world(1e4, (0.1, 2.0, 0.3), (-3e5, 7e5, 0)),
}


@pytest.fixture(scope="module")
def footage() -> tuple[np.ndarray, Cameras]:
    scene = procedural_scene(9, FRAMES, 128, 80)
    return np.concatenate([scene.film(scene.cameras[i])[0] for i in range(FRAMES)]), scene.cameras


def save(folder: Path, pictures: np.ndarray, cameras: Cameras, rows: list[int]) -> Path:
    (folder / "images").mkdir(parents=True)
    for k in rows:
        Image.fromarray(pictures[k]).save(folder / "images" / f"{k}.png")
    write_transforms_json(folder / "transforms.json", cameras[rows], [f"images/{k}.png" for k in rows])
    return folder


def made(folder: Path, footage: tuple[np.ndarray, Cameras], world: Similarity) -> dict[str, Any]:
    """What every command makes of footage in a world, its files among it."""
    pictures, cameras = footage[0], world.cameras(footage[1])
    photos = save(folder / "photos", pictures, cameras, [0, 3, 6])
    film = save(folder / "film", pictures, cameras, list(range(FRAMES)))
    path = folder / "path.json"
    write_transforms_json(path, cameras[[0, 1, 2, 4]], [f"{k}.png" for k in range(4)])
    usual = ["--size", "128x80", "--model", "none"]
    assert main(["generate", str(photos), "--frames", "7", "-o", str(folder / "out"), *usual]) == 0
    assert main(["generate", str(photos), "--path", str(path), "-o", str(folder / "own"), *usual]) == 0
    index = folder / "index.json"
    index.write_text(json.dumps({"one": {"scene": "film", "context": [0, 6], "target": [2, 3]}}))
    evaluate = ["evaluate", f"film={film}", "--index", str(index), "--size", "128x80", "--models", "none"]
    evaluate += ["--baselines", "guide"]
    assert main([*evaluate, "--metrics", "psnr", "-o", str(folder / "scores")]) == 0
    fit = ["reconstruct", str(folder / "out"), "-o", str(folder / "scene.ply"), "--iterations", "20", "--longest", "64"]
    assert main([*fit, "--gaussians", "30000", "--truth", str(film / "transforms.json"), "--device", "cpu"]) == 0
    recipe = PrepareRecipe(width=128, height=80, frames=6, clips=1, attempts=3, longest_stride=1)
    (task,) = find_scenes([film])
    ledger = Ledger()
    (sample,) = make_samples(read_clips(task, recipe, ledger), ledger, task, recipe)
    frames = {
        name: np.stack([np.asarray(Image.open(p)) for p in sorted((folder / name / "images").iterdir())]).astype(float)
        for name in ("out", "own")
    }
    results = json.loads((folder / "scores" / "results.json").read_text())
    return {
        "frames": frames,
        "psnr": results["splits"]["one"]["systems"]["none"]["mean"]["psnr"],
        "held_out": json.loads((folder / "scene.json").read_text())["held_out"]["psnr"],
        "pair": sample,
        "points": read_ply(folder / "out" / "points.ply")[0],
        "gaussians": read_gaussians(folder / "scene.ply").means,
        "cameras": read_transforms_json(folder / "out" / "transforms.json")[0],
        "own cameras": read_transforms_json(folder / "own" / "transforms.json")[0],
        "colmap": torch.stack([r.world_from_camera for r in read_colmap(folder / "out" / "sparse" / "0")]),
    }


@pytest.fixture(scope="module")
def plain(footage, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return made(tmp_path_factory.mktemp("plain"), footage, PLAIN)


@pytest.mark.parametrize("name", list(WORLDS))
def test_a_world_changes_nothing_but_the_numbers_of_its_files(name: str, plain, footage, tmp_path: Path) -> None:
    world = WORLDS[name]
    there = made(tmp_path, footage, world)
    for way in ("out", "own"):  # to a grey level; where depths are rounded otherwise, single pixels go over an edge
        off = np.abs(there["frames"][way] - plain["frames"][way])
        assert off.mean() < 0.05
        assert np.quantile(off, 0.98) <= 1
    assert there["psnr"] == pytest.approx(plain["psnr"], abs=0.05)
    assert there["held_out"] == pytest.approx(plain["held_out"], abs=0.3)  # of a fit that has only begun
    for figure in ("psnr", "coverage"):
        assert there["pair"].facts[figure] == pytest.approx(plain["pair"].facts[figure], rel=0.01)
    size = world.scale * float(plain["points"].std(0).max())
    for cameras in ("cameras", "own cameras"):
        back = world.inverse.cameras(there[cameras])
        assert (back.centers - plain[cameras].centers).abs().max() * world.scale < 1e-6 * size
    again = Cameras(there["colmap"], there["cameras"].intrinsics, there["cameras"].sizes)
    assert (again.centers - there["cameras"].centers).abs().max() < 1e-6 * size
    for kind, least in (("points", 0.02), ("gaussians", 0.1)):
        back, expected = world.inverse.points(there[kind].double()), plain[kind].double()
        assert abs(len(back) / len(expected) - 1) < 0.02
        assert (back.quantile(QUARTERS, 0) - expected.quantile(QUARTERS, 0)).abs().max() * world.scale < least * size


def test_files_hold_positions_to_a_millionth_of_the_scene(tmp_path: Path) -> None:
    positions = torch.rand(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sh, scales = torch.zeros(500, 1, 3), torch.full((500, 3), -5.0)
    gaussians = Gaussians(positions.float(), scales, torch.ones(500, 4), torch.zeros(500), sh)
    for world in (PLAIN, *WORLDS.values()):
        there = world.points(positions)
        write_ply(tmp_path / "p.ply", there, torch.zeros(500, 3, dtype=torch.uint8))
        assert (read_ply(tmp_path / "p.ply")[0] - there).abs().max() < 1e-6 * world.scale
        shifted = replace(world, rotation=PLAIN.rotation)
        write_gaussians(tmp_path / "g.ply", gaussians.carried(shifted))
        back = read_gaussians(tmp_path / "g.ply")
        assert (back.means - shifted.points(positions)).abs().max() < 1e-6 * world.scale
        torch.testing.assert_close(back.log_scales, scales + math.log(world.scale))
    with pytest.raises(ValueError, match="same axes"):
        gaussians.carried(WORLDS["earth-centred"])


def test_spz_says_what_it_cannot_hold() -> None:
    gaussians = Gaussians(
        torch.rand(50, 3), torch.full((50, 3), -4.0), torch.ones(50, 4), torch.zeros(50), torch.zeros(50, 1, 3)
    )
    assert fits(".spz", gaussians)
    for world in (WORLDS["small units"], WORLDS["earth-centred"]):
        there = gaussians.carried(replace(world, rotation=PLAIN.rotation))
        assert not fits(".spz", there)
        assert fits(".ply", there)
        near, cameras = brought_near(there, seen_there := replace(world, rotation=PLAIN.rotation).cameras(CAMERA))
        assert fits(".spz", near)
        assert (seen_there.centers - world.translation).norm() < 10 * world.scale
        picture = splat_torch(near, *seen_by(cameras)).image
        torch.testing.assert_close(picture, splat_torch(gaussians, *seen_by(CAMERA)).image, atol=2e-3, rtol=0)
    assert brought_near(gaussians, CAMERA) == (gaussians, CAMERA)


CAMERA = Cameras(
    torch.tensor([[[1.0, 0, 0, 0.5], [0, 1, 0, 0.5], [0, 0, 1, -2], [0, 0, 0, 1]]], dtype=torch.float64),
    torch.tensor([[[60.0, 0, 32], [0, 60, 24], [0, 0, 1]]], dtype=torch.float64),
    torch.tensor([[64, 48]]),
)


def seen_by(camera: Cameras) -> tuple[torch.Tensor, torch.Tensor, tuple[int, int]]:
    return camera.camera_from_world[0].float(), camera.intrinsics[0].float(), camera.size

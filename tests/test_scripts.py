"""The scripts that pages name, run as they name them, in small."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fvgen.cli.main import main
from fvgen.procedural import procedural_scene
from fvgen.scene.formats.transforms_json import write_transforms_json

SCRIPTS = Path(__file__).parent.parent / "scripts"


def script(name: str, *arguments: str | Path) -> str:
    """What a script prints; it must end well."""
    command = [sys.executable, str(SCRIPTS / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A folder with one scene of four frames whose cameras are known, and with the pair of its ends."""
    scene = procedural_scene(5, 4, 192, 120)
    folder = tmp_path_factory.mktemp("scenes") / "walk"
    (folder / "images").mkdir(parents=True)
    for k in range(4):
        Image.fromarray(scene.film(scene.cameras[k])[0][0]).save(folder / "images" / f"{k}.png")
    write_transforms_json(folder / "transforms.json", scene.cameras, [f"images/{k}.png" for k in range(4)])
    (folder / "pairs.json").write_text(json.dumps([{"first": 0, "last": 3, "between": [1, 2]}]))
    return folder


def test_a_result_is_drawn_beside_its_guide_and_its_cloud_from_the_side(scene, tmp_path):
    out, drawn = tmp_path / "out", tmp_path / "drawn"
    drawn.mkdir()
    assert main(["generate", str(scene), "--model", "none", "--frames", "5", "--size", "128x80", "-o", str(out)]) == 0
    script("side_by_side.py", out, "--output", drawn / "views.webp", "--width", "64")
    with Image.open(drawn / "views.webp") as moving:
        assert (moving.size, moving.n_frames) == ((128, 40), 5)
    script("cloud_views.py", out, out, "--output", drawn / "clouds.png", "--height", "120")
    rows = np.asarray(Image.open(drawn / "clouds.png")).astype(float)
    photo, front, side, above = (rows[:120, k * 198 : k * 198 + 192] for k in range(4))
    covered = front.min(-1) < 250
    assert covered.mean() > 0.3  # most of the photo was measured, and lies where it was taken from
    off, elsewhere = (np.median(np.abs(front - other)[covered]) for other in (photo, photo[:, ::-1]))
    assert off < 0.3 * elsewhere
    assert all(0.03 < (view.min(-1) < 250).mean() < 0.98 for view in (side, above))
    assert np.array_equal(rows[:120], rows[126:])


def test_guides_of_pairs_are_measured(scene, tmp_path):
    script("measure_guide.py", scene.parent, "--output", tmp_path, "--long-side", "192")
    found = json.loads((tmp_path / "guide.json").read_text())
    assert found["mean"]["psnr_filled"] > 20
    assert found["walk_0"] == found["walk"]


def test_views_of_unseen_scenes_are_drawn(tmp_path):
    path = tmp_path / "hard.png"
    told = script("mini_results.py", "--output", path, "--rows", "tabletop:900012")
    assert Image.open(path).size == (5 * 256 + 4 * 4, 160)
    guide, view = (float(told.split(word)[1].split(" dB")[0]) for word in ("guide ", "view "))
    assert torch.tensor([guide, view]).min() > 12
    assert abs(guide - view) < 1  # it changes the guide a little

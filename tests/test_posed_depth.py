"""A network's depth for photos whose cameras are given: in the library, in generate, prepare and evaluate.

The network is `recorded_dust3r`, which answers with the truth in a world of its own; everything else is fvgen.
"""

import functools
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.cameras.alignment import residual, similarity_between
from fvgen.cli.main import main
from fvgen.data.reader import PairShards
from fvgen.errors import UserError
from fvgen.procedural import procedural_scene
from fvgen.scene import sfm
from fvgen.scene.build import build_scene
from fvgen.scene.geometry import EstimateDisagrees, Unusable, depth_for, dust3r, estimate, network_for
from fvgen.scene.points import lift
from fvgen.scene.types import Photos
from fvgen.sfm.problem import Problem
from recorded_dust3r import install, installed, similarity, write_recorded
from scene_copies import write_index_file


@dataclass(frozen=True)
class Place:
    """A procedural scene on the disk, recorded for the stand-in, whose package is in ``package``."""

    folder: Path
    package: Path
    photos: Photos
    depths: Tensor

    def weights(self, **mistakes: float) -> str:
        return str(install(self.package, [self.folder], 4, **mistakes))


def recorded(root: Path, frames: int, width: int, height: int) -> Place:
    scene = procedural_scene(9, frames, width, height)
    pictures, depths = scene.film(scene.cameras)
    folder = write_recorded(root / "walk", pictures, scene.cameras, depths)
    names = [f"{k:04d}.png" for k in range(frames)]
    photos = Photos(names, list(torch.from_numpy(pictures)), [None] * frames, scene.cameras)
    return Place(folder, root / "package", photos, torch.from_numpy(depths))


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return recorded(tmp_path_factory.mktemp("recorded"), 8, 192, 120)


@pytest.fixture
def package(walk: Place) -> Iterator[Place]:
    """The scene, with the stand-in as the package that is installed."""
    walk.weights()
    with installed(walk.package):
        yield walk


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return recorded(tmp_path_factory.mktemp("two"), 2, 128, 80)


@pytest.fixture(scope="module")
def matches(two: Place) -> Problem:
    return sfm.observe(two.photos)


@pytest.fixture
def small(two: Place, matches: Problem, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Two photos of exactly the size that the network sees, so that nothing is resampled; they are matched once."""
    monkeypatch.setattr(dust3r, "LONG_SIDE", 128)
    monkeypatch.setattr(sfm, "observe", lambda *arguments: matches)
    two.weights()
    with installed(two.package):
        yield two


# --- the alignment, in closed form ---


def test_points_lie_on_the_true_surface(small: Place) -> None:
    scene = build_scene(small.photos, "given", weights=small.weights(), depth="dust3r")
    assert (scene.geometry, scene.depth) == ("given", "dust3r")
    assert torch.equal(scene.cameras.world_from_camera, small.photos.cameras.world_from_camera)
    assert torch.equal(scene.cameras.intrinsics, small.photos.cameras.intrinsics)
    assert len(scene.points) > 0.7 * small.depths.numel()
    for k in range(2):
        camera, own = scene.cameras[k], scene.points.photo == k
        points = scene.points.positions[own].double()
        local = points @ camera.camera_from_world[0, :3, :3].T + camera.camera_from_world[0, :3, 3]
        at = local @ camera.intrinsics[0].T
        pixels = at[:, :2] / at[:, 2:] - 0.5
        torch.testing.assert_close(pixels, pixels.round(), atol=1e-2, rtol=0)  # back on their own pixels
        column, row = pixels.round().long().unbind(1)
        torch.testing.assert_close(local[:, 2], small.depths[k][row, column].double(), atol=0, rtol=1e-4)
        assert torch.equal(scene.points.colors[own], small.photos.images[k][row, column])
    fit = scene.fit
    assert max(fit["rotation_degrees"], fit["pair_rotation_degrees"]) < 0.01
    assert fit["center_error"] < 1e-4
    assert fit["focal_ratio"] == pytest.approx(1, abs=1e-5)
    assert fit["scale"] > 0


def test_the_scale_is_that_of_the_estimators_world(small: Place) -> None:
    """Depth of the estimator's world, times the scale that is told, is the given world's."""
    weights = small.weights()
    alone = estimate("dust3r", replace(small.photos, cameras=None), weights=weights)
    posed = depth_for("dust3r", small.photos, weights=weights)
    torch.testing.assert_close(alone.depths[0].depth * posed.fit["scale"], posed.depths[0].depth)
    assert similarity(4, 0)[0] != pytest.approx(1, abs=0.1)  # or else nothing was tested
    torch.testing.assert_close(posed.depths[1].depth, small.depths[1], atol=0, rtol=1e-4)


@pytest.mark.parametrize("degrees", [2.0, 8.0])
def test_a_wrong_rotation_is_told(small: Place, degrees: float) -> None:
    """Half of it is in each of two cameras, and the baseline is off by as much."""
    fit = depth_for("dust3r", small.photos, weights=small.weights(turn_degrees=degrees)).fit
    assert fit["pair_rotation_degrees"] == pytest.approx(degrees, rel=1e-2)
    assert fit["rotation_degrees"] == pytest.approx(degrees / 2, rel=1e-2)
    assert 0 < fit["center_error"] <= torch.tensor(degrees / 2).deg2rad().sin() * 1.01


def test_a_wrong_focal_length_leaves_points_on_their_pixels(small: Place) -> None:
    found = depth_for("dust3r", small.photos, weights=small.weights(stretch=1.3))
    assert found.fit["focal_ratio"] == pytest.approx(1.3, rel=1e-4)
    torch.testing.assert_close(found.depths[0].cameras.intrinsics, small.photos.cameras[0].intrinsics)
    camera = small.photos.cameras[0]
    points = lift(found.depths[0]) @ camera.camera_from_world[0, :3, :3].T + camera.camera_from_world[0, :3, 3]
    at = points @ camera.intrinsics[0].T
    x = torch.arange(128, dtype=torch.float64).expand(80, 128) + 0.5
    torch.testing.assert_close(at[..., 0] / at[..., 2], x, atol=1e-6, rtol=0)


def of_walk(package: Place, frames: list[int]) -> Photos:
    photos = package.photos
    assert photos.cameras is not None
    names = [f"{k}.png" for k in range(len(frames))]
    return Photos(names, [photos.images[i] for i in frames], [None] * len(frames), photos.cameras[frames])


def test_cameras_follow_the_crop_of_the_depth_map(package: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dust3r, "LONG_SIDE", 136)
    photos = of_walk(package, [0, 7])
    picture = dust3r.fitted(photos.images[1])
    assert (picture.resized, picture.corner) == ((136, 85), (4, 2))
    found = depth_for("dust3r", photos, weights=package.weights())
    expected = photos.cameras[1].resized(136, 85).cropped(4, 2, 128, 80)
    assert found.depths[1].cameras.size == (128, 80)
    torch.testing.assert_close(found.depths[1].cameras.intrinsics, expected.intrinsics)


def test_what_contradicts_the_cameras_is_refused(small: Place) -> None:
    weights = small.weights()
    with pytest.raises(EstimateDisagrees, match=r"dust3r contradicts the given cameras: rotations 30\.0 degrees off"):
        depth_for("dust3r", small.photos, weights=small.weights(turn_degrees=30.0))
    cameras = small.photos.cameras

    def moved(centers: Tensor) -> Photos:
        poses = cameras.world_from_camera.clone()
        poses[:, :3, 3] = centers
        return replace(small.photos, cameras=Cameras(poses, cameras.intrinsics, cameras.sizes))

    with pytest.raises(EstimateDisagrees, match="all at one place, or in opposite order"):
        depth_for("dust3r", moved(cameras.centers[[0, 0]]), weights=weights)
    with pytest.raises(EstimateDisagrees, match="all at one place, or in opposite order"):
        depth_for("dust3r", moved(cameras.centers.flip(0)), weights=weights)
    baseline = cameras.centers[1] - cameras.centers[0]
    across = torch.linalg.cross(baseline, torch.tensor([0.3, 1.0, 0.2], dtype=torch.float64))
    aside = torch.stack([cameras.centers[0], cameras.centers[1] + across / across.norm() * baseline.norm()])
    with pytest.raises(EstimateDisagrees, match=r"centres by 0\.71 of their spread"):  # 45 degrees off
        depth_for("dust3r", moved(aside), weights=weights)
    with pytest.raises(UserError, match="stand at the same place"):
        build_scene(moved(cameras.centers[[0, 0]]), "given", weights=weights, depth="dust3r")
    twice = replace(small.photos, images=[small.photos.images[0]] * 2)
    with pytest.raises(UserError, match="dust3r needs two different photos"):
        depth_for("dust3r", twice, weights=weights)


def test_copies_of_a_photo_are_left_out(package: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dust3r, "LONG_SIDE", 128)
    photos = of_walk(package, [0, 0, 7])
    scene = build_scene(photos, "auto", weights=package.weights(), depth="dust3r")
    assert scene.photos.names == ["0.png", "2.png"]
    assert [one.name for one in scene.photos.dropped] == ["1.png"]
    assert torch.equal(scene.cameras.centers, photos.cameras.centers[[0, 2]])
    assert scene.fit["center_error"] < 1e-3


# --- options ---


@pytest.mark.parametrize(
    ("geometry", "depth", "weights", "message"),
    [
        ("auto", "midas", None, "depth 'midas' is unknown; use auto, sweep, dust3r, da3"),
        ("dust3r", "da3", None, "`geometry` dust3r with `depth` da3: one network at a time"),
        ("given", "sweep", "x", "`geometry_weights` are for `geometry` dust3r or da3, or `depth` dust3r or da3"),
        ("colmap", "auto", "x", "`geometry_weights` are for"),
    ],
)
def test_options_that_cannot_be_meant(geometry: str, depth: str, weights: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        network_for(geometry, depth, weights)


def test_cameras_of_a_network_may_have_swept_depth(small: Place) -> None:
    unposed = replace(small.photos, cameras=None)
    own = build_scene(unposed, "dust3r", weights=small.weights())
    swept = build_scene(unposed, "dust3r", weights=small.weights(), depth="sweep")
    assert (own.geometry, own.depth) == ("dust3r", "dust3r")
    assert (swept.geometry, swept.depth) == ("dust3r", "sweep")
    assert own.fit == swept.fit
    assert own.fit["tracks"] > 100
    assert own.fit["pixels"] == own.fit["pixels_before"] < 0.15  # they are the true ones: nothing to refine
    torch.testing.assert_close(swept.cameras.world_from_camera, own.cameras.world_from_camera)
    assert len(own.points) != len(swept.points)


def test_a_networks_wrong_cameras_are_refined_by_its_photos(small: Place) -> None:
    unposed = replace(small.photos, cameras=None)
    found = estimate("dust3r", unposed, weights=small.weights(turn_degrees=3.0))
    assert found.fit["pixels"] < found.fit["pixels_before"] / 2
    off = residual(found.cameras, small.photos.cameras, similarity_between(found.cameras, small.photos.cameras))
    assert off["pair_rotation_degrees"] < 1  # of photographs 128 pixels long


def test_the_network_is_read_once(small: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    read = dust3r.load_network

    @functools.wraps(read)
    def counted(path: Path) -> torch.nn.Module:
        reads.append(path)
        return read(path)

    monkeypatch.setattr(dust3r, "load_network", counted)
    weights = small.weights(turn_degrees=0.5)
    for _ in range(3):
        depth_for("dust3r", small.photos, weights=weights)
    assert len(reads) == 1
    os.utime(Path(weights) / "model.safetensors", (1, 1))
    depth_for("dust3r", small.photos, weights=weights)
    assert len(reads) == 2


# --- the commands ---

PAIRS = ["--size", "128x80", "--frames", "6", "--clips", "1", "--attempts", "2", "--longest-stride", "1"]


def without_package(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("mini_dust3r", "mini_dust3r.model"):
        monkeypatch.setitem(sys.modules, module, None)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("generate", ["--model", "none", "--depth", "dust3r"]),
        ("prepare", [*PAIRS, "--depth", "dust3r"]),
        ("prepare", [*PAIRS, "--geometry", "dust3r"]),
        ("evaluate", ["--models", "none", "--depth", "dust3r", "--protocol", "every-8th"]),
    ],
)
def test_a_missing_package_is_said_before_anything_is_made(
    walk: Place,
    command: str,
    options: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    without_package(monkeypatch)
    arguments = [command, str(walk.folder), "-o", str(tmp_path / "out"), *options]
    assert main([*arguments, "--geometry-weights", walk.weights()]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "dust3r needs the package mini-dust3r" in error
    assert not (tmp_path / "out").exists()


def test_missing_weights_are_said_before_anything_is_made(
    package: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options in (["--geometry-weights", str(tmp_path / "nowhere")], []):
        arguments = ["prepare", str(package.folder), "-o", str(tmp_path / "pairs"), *PAIRS, "--depth", "dust3r"]
        assert main([*arguments, *options]) == 2
        assert "weights of dust3r" in capsys.readouterr().err
        assert not (tmp_path / "pairs").exists()


def test_generate_scales_depth_to_given_cameras(package: Place, tmp_path: Path) -> None:
    transforms = json.loads((package.folder / "transforms.json").read_text())
    transforms["frames"] = [transforms["frames"][0], transforms["frames"][7]]
    two = package.folder / "two.json"
    two.write_text(json.dumps(transforms))
    arguments = ["generate", str(two), "-o", str(tmp_path / "out"), "--model", "none", "--frames", "4"]
    assert main([*arguments, "--depth", "dust3r", "--geometry-weights", package.weights()]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["geometry"], summary["depth"]) == ("given", "dust3r")
    assert summary["fit"]["pair_rotation_degrees"] < 0.01
    assert summary["fit"]["center_error"] < 1e-3
    two.unlink()


def only_record(pairs: Path) -> dict:
    (path,) = pairs.glob("*/walk.json")
    return json.loads(path.read_text())


def test_prepare_takes_depth_from_the_first_and_last_frame(package: Place, tmp_path: Path) -> None:
    """In processes of its own: package and weights are found there too."""
    arguments = ["prepare", str(package.folder), *PAIRS, "--workers", "2", "--depth", "dust3r"]
    assert main([*arguments, "-o", str(tmp_path / "pairs"), "--geometry-weights", package.weights()]) == 0
    (split,) = {path.parent.name for path in (tmp_path / "pairs").glob("*/walk.tar")}
    pair, facts = PairShards(tmp_path / "pairs", split).read(0)
    assert (facts["geometry"], facts["depth"], facts["pictures"]) == ("given", "dust3r", "images")
    assert facts["fit_center_error"] < 1e-3
    assert facts["fit_pair_rotation_degrees"] < 0.01
    assert "enlarged" not in facts
    assert facts["psnr"] > 20
    assert pair.photo.tolist() == [True, False, False, False, False, True]
    assert main([*arguments[:-1], "sweep", "-o", str(tmp_path / "swept")]) == 0
    swept = PairShards(tmp_path / "swept", split).read(0)[1]
    assert swept["depth"] == "sweep"
    assert not any(name.startswith("fit") for name in swept)
    assert facts["psnr"] > swept["psnr"] - 0.5  # exact depth, if from smaller pictures


def test_prepare_takes_one_frames_depth_with_the_ends(package: Place, tmp_path: Path) -> None:
    arguments = ["prepare", str(package.folder), *PAIRS, "--depth", "dust3r", "--cloud", "one", "--least-coverage", "0"]
    assert main([*arguments, "-o", str(tmp_path / "pairs"), "--geometry-weights", package.weights()]) == 0
    (split,) = {path.parent.name for path in (tmp_path / "pairs").glob("*/walk.tar")}
    pair, facts = PairShards(tmp_path / "pairs", split).read(0)
    assert pair.photo.sum() == 1
    assert facts["fit_center_error"] < 1e-3


def test_prepare_counts_clips_whose_estimate_disagrees(package: Place, tmp_path: Path) -> None:
    arguments = ["prepare", str(package.folder), "-o", str(tmp_path / "pairs"), *PAIRS, "--depth", "dust3r"]
    assert main([*arguments, "--geometry-weights", package.weights(turn_degrees=30.0)]) == 0
    found = only_record(tmp_path / "pairs")
    assert found["dropped"] == {"estimate disagrees": 2}
    assert "rotations 30.0 degrees off" in found["facts"]["notes"][0]


def test_damaged_weights_end_the_run(package: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not one drop for each scene: nothing of the scenes is wrong."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((Path(package.weights()) / "config.json").read_bytes())
    (broken / "model.safetensors").write_bytes(b"nothing")
    arguments = ["prepare", str(package.folder), "-o", str(tmp_path / "pairs"), *PAIRS, "--depth", "dust3r"]
    assert main([*arguments, "--geometry-weights", str(broken)]) == 2
    assert "is damaged" in capsys.readouterr().err
    assert not list((tmp_path / "pairs").glob("*/*.json"))
    with pytest.raises(Unusable, match="is damaged"):
        depth_for("dust3r", package.photos, weights=str(broken))


def test_procedural_pairs_take_the_sweep(package: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["prepare", "procedural:1", "-o", str(tmp_path / "pairs"), "--depth", "dust3r"]
    assert main([*arguments, "--geometry-weights", package.weights()]) == 2
    assert "--depth dust3r is for footage" in capsys.readouterr().err


def test_evaluate_records_how_depth_fits(package: Place, tmp_path: Path) -> None:
    index = write_index_file(tmp_path / "index.json", {"walk": {"context": [0, 7], "target": [3]}})
    arguments = ["evaluate", str(package.folder), "--index", str(index), "--models", "--baselines", "guide"]
    arguments += ["--metrics", "psnr", "--size", "128x80", "-o", str(tmp_path / "out")]
    scores = {}
    for depth in ("sweep", "dust3r"):  # into one folder: nothing of the first answers the second
        weights = ["--geometry-weights", package.weights()] if depth == "dust3r" else []
        assert main([*arguments, "--depth", depth, *weights]) == 0
        results = json.loads((tmp_path / "out" / "results.json").read_text())
        assert results["poses"]["depth"] == depth
        assert results["splits"]["walk"]["pictures"] == "images"
        fit = results["splits"]["walk"].get("alignment")
        scores[depth] = results["splits"]["walk"]["systems"]["guide"]["mean"]["psnr"]
    assert fit["depth_center_error"] < 1e-3
    assert scores["dust3r"] != scores["sweep"]
    arguments = [*arguments[:-1], str(tmp_path / "estimated"), "--poses", "estimated", "--geometry", "dust3r"]
    assert main([*arguments, "--geometry-weights", package.weights()]) == 0
    fit = json.loads((tmp_path / "estimated" / "results.json").read_text())["splits"]["walk"]["alignment"]
    assert fit["placed"] == 2
    assert fit["pair_rotation_degrees"] < 0.01
    assert fit["cameras_pixels"] == fit["cameras_pixels_before"] < 0.2

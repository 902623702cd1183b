"""Protocols against the published lists and closed forms; index files; the similarity that aligns cameras."""

import hashlib
import json
import math
from pathlib import Path

import pytest
import torch

from fvgen.cameras import Cameras
from fvgen.cameras.alignment import similarity_between
from fvgen.cameras.poses import rotation_exp
from fvgen.errors import UserError
from fvgen.evaluation.datasets import EvaluationScene
from fvgen.evaluation.protocols import (
    NAMES,
    Split,
    every_nth_split,
    farthest_points,
    find_protocol,
    index_hash,
    index_text,
    read_index,
    strided_targets,
    window_split,
)
from fvgen.evaluation.task import Framing
from fvgen.scene.formats.record import CameraRecord
from fvgen.scene.layouts import Found


def scene_of(centers: torch.Tensor, folder: Path = Path("scene")) -> EvaluationScene:
    frames = []
    for i, center in enumerate(centers):
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, 3] = center
        frames.append(Found(f"{i:04d}", folder / f"{i:04d}.png", CameraRecord("", None, pose)))
    return EvaluationScene("scene", "scenes", "nerfstudio", folder, frames)


def walk(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, generator=generator, dtype=torch.float64).cumsum(0)


def test_the_target_rule_gives_all_published_lists(shared: Path) -> None:
    """MVSplat360's own 140 lists follow from their contexts, with a number of frames that fits them."""
    lists = json.loads((shared / "reference" / "dl3dv_ctx_5v_tgt_56v.json").read_text())
    assert len(lists) == 140
    for scene, entry in lists.items():
        least = max(*entry["context"], *entry["target"]) + 1
        fitting = [n for n in range(least, least + 400) if strided_targets(n, entry["context"], 56) == entry["target"]]
        assert fitting, scene
        assert fitting == list(range(fitting[0], fitting[-1] + 1))


def test_published_lists_are_read_as_index_files(shared: Path) -> None:
    path = shared / "reference" / "dl3dv_ctx_5v_tgt_56v.json"
    names = list(json.loads(path.read_text()))
    splits, absent = read_index(path, dict.fromkeys(names[:3], 1000))
    assert [s.scene for s in splits] == names[:3]
    assert len(absent) == 137
    assert len(splits[0].target) == 56


def test_farthest_points_are_far_and_nested() -> None:
    line = torch.tensor([[0.0, 0, 0], [1, 0, 0], [5, 0, 0], [9, 0, 0], [10, 0, 0]], dtype=torch.float64)
    # The barycentre is 5: both ends are as far, the first is taken; then the other end; then the middle.
    assert farthest_points(line, 3) == [0, 4, 2]
    centers = walk(200)
    sets = [set(farthest_points(centers, n)) for n in (3, 5, 7)]
    assert sets[0] < sets[1] < sets[2]
    brute = farthest_points(centers, 7)
    for k in range(1, 7):
        distance = torch.cdist(centers, centers[brute[:k]]).min(1).values
        assert distance[brute[k]] == distance.max()


@pytest.mark.parametrize("name", ["mvsplat360-5x56", "mvsplat360-3x56", "mvsplat360-7x20_n150"])
def test_mvsplat360(name: str) -> None:
    protocol = find_protocol(name)
    (split,) = protocol.splits(scene_of(walk(301)))
    frames = 150 if name.endswith("_n150") else 301
    views, targets = map(int, name.split("-")[1].removesuffix("_n150").split("x"))
    assert len(split.context) == views
    assert len(split.target) == targets
    assert split.context == sorted(split.context)
    assert not set(split.context) & set(split.target)
    assert max(split.context + split.target) < frames
    assert (protocol.size, protocol.through) == ((448, 256), (480, 270))


def test_five_views_and_fourteen_frames_between() -> None:
    assert window_split(61, 5, 14) == ([0, 15, 30, 45, 60], [i for i in range(61) if i % 15])
    context, target = window_split(250, 5, 14)
    assert context == [0, 62, 124, 187, 249]
    assert len(target) == 56
    assert len(set(target) - set(context)) == 56
    for a, b in zip(context, context[1:]):
        assert len([t for t in target if a < t < b]) == 14  # with both ends, a window of 16
    two, between = window_split(250, 2, 14)
    assert (two, between) == (context[:2], target[:14])


def test_depthsplat_and_every_eighth() -> None:
    (split,) = find_protocol("depthsplat-2v").splits(scene_of(walk(60)))
    assert (split.context, split.target) == ([0, 49], list(range(50)))
    (split,) = find_protocol("depthsplat-2v-10").splits(scene_of(walk(60)))
    assert (split.context, split.target) == ([0, 9], [1, 3, 5, 7])
    context, target = every_nth_split(20, 8, None)
    assert target == [0, 8, 16]
    assert sorted(context + target) == list(range(20))
    few, same = every_nth_split(20, 8, 3)
    assert (few, same) == ([1, 10, 19], target)


def test_splits_that_lie_beside_a_scene(tmp_path: Path) -> None:
    (tmp_path / "train_test_split_3.json").write_text('{"train_ids": [5, 0, 9], "test_ids": [1, 2]}')
    (tmp_path / "pairs.json").write_text('[{"first": 0, "last": 3, "between": [1, 2]}]')
    scene = scene_of(walk(10), tmp_path)
    assert find_protocol("seva-3").splits(scene) == [Split("scene", "scene", [0, 5, 9], [1, 2])]
    assert find_protocol("pairs").splits(scene) == [Split("scene-0000", "scene", [0, 3], [1, 2])]
    with pytest.raises(UserError, match=r"train_test_split_6\.json: no such file"):
        find_protocol("seva-6").splits(scene)
    (tmp_path / "pairs.json").write_text('[{"first": 0, "last": 30, "between": [1, 2]}]')
    with pytest.raises(UserError, match="frame 30 is given, but the scene has frames 0 to 9"):
        find_protocol("pairs").splits(scene)


@pytest.mark.parametrize("name", NAMES)
def test_every_named_protocol_is_found(name: str) -> None:
    assert find_protocol(name).name == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mvsplat", "there is no such protocol; known are mvsplat360-5x56"),
        ("fvgen-1x14", "two views are needed at least"),
        ("every-0th", "two views are needed at least"),
    ],
)
def test_wrong_protocols(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_protocol(name)


@pytest.mark.parametrize(
    "name", ["mvsplat360-5x56", "depthsplat-2v", "fvgen-5x14", "every-8th-n50", "mvsplat360-5x30_n150"]
)
def test_scenes_too_short_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="this protocol needs"):
        find_protocol(name).splits(scene_of(walk(45)))


def test_an_index_is_written_read_and_hashed(tmp_path: Path) -> None:
    splits = [Split("b-0009", "b", [1, 5], [2, 3]), Split("a", "a", [0, 4], [1])]
    (tmp_path / "index.json").write_text(index_text(splits))
    content = (tmp_path / "index.json").read_bytes()
    assert json.loads(content)["a"] == {"context": [0, 4], "target": [1]}
    assert hashlib.sha256(content).hexdigest() == index_hash(splits) == index_hash(splits[::-1])
    again, absent = read_index(tmp_path / "index.json", {"a": 5, "b": 6})
    assert sorted(again, key=lambda s: s.name) == sorted(splits, key=lambda s: s.name)
    assert absent == []
    assert index_text(again) == index_text(splits)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "not an index"),
        ({"a": 3}, "a: expected context and target"),
        ({"a": {"context": [0, 1], "target": [7]}}, "frame 7 is asked for, but the scene has frames 0 to 4"),
        ({"a": {"context": [0], "target": [2]}}, "2 frames given are needed"),
        ({"a": {"context": [3, 1], "target": [2]}}, "ascending order"),
        ({"a": {"context": [0, True], "target": [2]}}, "frame True is given"),
        ({"x": {"context": [0, 1], "target": [2]}, "y": None}, "none of its 2 entries is a scene that is there"),
    ],
)
def test_wrong_index_files(tmp_path: Path, entries: object, message: str) -> None:
    path = tmp_path / "index.json"
    path.write_text(json.dumps(entries))
    with pytest.raises(UserError, match=message):
        read_index(path, {"a": 5})


def test_mvsplat360_cuts_images_8_without_resampling() -> None:
    """480x270 pictures lose 16 columns and 7 rows on each side; every pixel that is left is the file's own."""
    framing = Framing((448, 256), (480, 270))
    image = torch.randint(0, 256, (270, 480, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    k = torch.tensor([[[300.0, 0, 240], [0, 300, 135], [0, 0, 1]]], dtype=torch.float64)
    cameras, boxes = framing.cameras(Cameras(torch.eye(4)[None], k, torch.tensor([[480, 270]])))
    assert boxes == [(16, 7, 464, 263)]
    assert torch.equal((framing.picture(image, boxes[0]) * 255).round().byte(), image[7:263, 16:464])
    assert cameras.intrinsics[0, :2, 2].tolist() == [224, 128]
    assert cameras.size == (448, 256)
    larger, _ = framing.cameras(Cameras(torch.eye(4)[None], k, torch.tensor([[480, 270]])).resized(960, 540))
    torch.testing.assert_close(larger.intrinsics, cameras.intrinsics)
    assert framing.turned(False) == Framing((256, 448), (270, 480))


@pytest.mark.parametrize("count", [2, 3, 9])
def test_a_similarity_is_found_again(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    poses = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    poses[:, :3, :3] = rotation_exp(torch.randn(count, 3, generator=generator, dtype=torch.float64))
    poses[:, :3, 3] = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    cameras = Cameras(poses, torch.eye(3).repeat(count, 1, 1), torch.ones(count, 2))
    turn = rotation_exp(torch.tensor([[0.3, -1.0, 0.5]], dtype=torch.float64))[0]
    shift = torch.tensor([1.0, 2, 3], dtype=torch.float64)
    moved = poses.clone()
    moved[:, :3, :3] = turn @ poses[:, :3, :3]
    moved[:, :3, 3] = 2.5 * poses[:, :3, 3] @ turn.T + shift
    found = similarity_between(cameras, Cameras(moved, cameras.intrinsics, cameras.sizes))
    assert math.isclose(found.scale, 2.5, rel_tol=1e-9)
    torch.testing.assert_close(found.rotation, turn)
    torch.testing.assert_close(found.translation, shift)
    torch.testing.assert_close(found.cameras(cameras).world_from_camera, moved)
    with pytest.raises(ValueError, match="one place"):
        similarity_between(cameras[[0, 0]], cameras[[0, 1]])

"""Footage in the layouts of data sets, written faithfully from one posed scene of our own, and read back."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fvgen.cameras import Cameras
from fvgen.data.footage import TimesGoBackwards, find_scenes, open_footage
from fvgen.errors import UserError
from fvgen.scene.formats.transforms_json import write_transforms_json
from fvgen.scene.formats.video import write_video
from fvgen.scene.layouts import Stored

SIZE = (96, 64)


@pytest.fixture(scope="module")
def scene():
    """Six small pictures and their cameras: on an arc, slightly turned, principal points off the middle."""
    generator = torch.Generator().manual_seed(0)
    poses = torch.eye(4, dtype=torch.float64).repeat(6, 1, 1)
    for k in range(6):
        angle = torch.tensor(0.1 * k, dtype=torch.float64)
        poses[k, 0, 0], poses[k, 0, 2], poses[k, 2, 0], poses[k, 2, 2] = (
            angle.cos(),
            angle.sin(),
            -angle.sin(),
            angle.cos(),
        )
        poses[k, :3, 3] = torch.tensor([0.3 * k, 0.05 * k, -0.02 * k])
    intrinsics = torch.tensor([[80.0, 0, 50], [0, 82.0, 30], [0, 0, 1]], dtype=torch.float64).repeat(6, 1, 1)
    cameras = Cameras(poses, intrinsics, torch.tensor([SIZE] * 6))
    images = torch.randint(0, 256, (6, *SIZE[::-1], 3), generator=generator, dtype=torch.uint8)
    return images, cameras


def save(images, folder: Path, names) -> None:
    folder.mkdir(parents=True)
    for image, name in zip(images, names):
        Image.fromarray(image.numpy()).save(folder / name)


def rows_of(cameras) -> torch.Tensor:
    """``[N, 18]`` as RealEstate10K and pixelSplat write cameras."""
    k, (w, h) = cameras.intrinsics, SIZE
    shares = torch.stack([k[:, 0, 0] / w, k[:, 1, 1] / h, k[:, 0, 2] / w, k[:, 1, 2] / h], 1)
    return torch.cat([shares, torch.zeros(len(k), 2), cameras.camera_from_world[:, :3].flatten(1)], 1)


def write_dl3dv(scene, root: Path) -> None:
    """A folder of the 10K: cameras at four times the size of the pictures, which are in images_4."""
    folder, names = root / "1K" / "0abc", [f"frame_{k + 1:05d}.png" for k in range(6)]
    save(scene[0], folder / "images_4", names)
    large = scene[1].resized(4 * SIZE[0], 4 * SIZE[1])
    write_transforms_json(folder / "transforms.json", large, [f"images/{name}" for name in names])


def write_benchmark(scene, root: Path) -> None:
    write_dl3dv(scene, root)
    (root / "0abc").mkdir()
    shutil.move(root / "1K" / "0abc", root / "0abc" / "nerfstudio")
    (root / "1K").rmdir()


def write_re10k(scene, root: Path) -> None:
    times = [33367 * (k + 1) for k in range(6)]
    save(scene[0], root / "frames" / "00a1", [f"{t}.png" for t in times])
    lines = ["https://www.youtube.com/watch?v=none"]
    lines += [" ".join([str(t), *(f"{v:.12g}" for v in row.tolist())]) for t, row in zip(times, rows_of(scene[1]))]
    (root / "train").mkdir()
    (root / "train" / "00a1.txt").write_text("\n".join(lines) + "\n")


def write_chunk(scene, root: Path) -> None:
    import io

    pictures = []
    for image in scene[0]:
        with io.BytesIO() as buffer:
            Image.fromarray(image.numpy()).save(buffer, "PNG")
            pictures.append(torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8))
    stored = {"key": "5aca", "url": "", "timestamps": torch.arange(6), "cameras": rows_of(scene[1]).float()}
    torch.save([{**stored, "images": pictures}], root / "000000.torch")


def write_co3d(scene, root: Path, isotropic: bool = False) -> None:
    names = [f"frame{k + 1:06d}.png" for k in range(6)]
    save(scene[0], root / "apple" / "110_13051_23361" / "images", names)
    flip, (w, h) = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64)), SIZE
    half = (min(w, h) / 2,) * 2 if isotropic else (w / 2, h / 2)
    frames = []
    for k, name in enumerate(names):
        world, matrix = scene[1].camera_from_world[k], scene[1].intrinsics[k]
        view = {
            "R": (flip @ world[:3, :3]).T.tolist(),
            "T": (flip @ world[:3, 3]).tolist(),
            "focal_length": [float(matrix[0, 0]) / half[0], float(matrix[1, 1]) / half[1]],
            "principal_point": [(w / 2 - float(matrix[0, 2])) / half[0], (h / 2 - float(matrix[1, 2])) / half[1]],
        }
        view["intrinsics_format"] = "ndc_isotropic" if isotropic else "ndc_norm_image_bounds"
        path = f"apple/110_13051_23361/images/{name}"
        frame = {"sequence_name": "110_13051_23361", "frame_number": k, "image": {"path": path, "size": [h, w]}}
        frames.append({**frame, "viewpoint": view})
    with gzip.open(root / "apple" / "frame_annotations.jgz", "wt") as file:
        json.dump(frames, file)


def write_nerfstudio(scene, root: Path) -> None:
    save(scene[0], root / "room" / "images", [f"{k}.png" for k in range(6)])
    write_transforms_json(root / "room" / "transforms.json", scene[1], [f"images/{k}.png" for k in range(6)])


def write_isotropic_co3d(scene, root: Path) -> None:
    write_co3d(scene, root, isotropic=True)


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (write_dl3dv, "0abc"),
        (write_benchmark, "0abc"),
        (write_re10k, "00a1"),
        (write_chunk, "5aca"),
        (write_co3d, "apple-110_13051_23361"),
        (write_isotropic_co3d, "apple-110_13051_23361"),
        (write_nerfstudio, "room"),
    ],
)
def test_layouts_give_the_pictures_and_cameras_they_were_written_from(scene, tmp_path, write, name):
    write(scene, tmp_path)
    (task,) = find_scenes([tmp_path])
    assert task.name == name
    footage = open_footage(task)
    assert footage.count == 6
    torch.testing.assert_close(footage.centers, scene[1].centers, atol=1e-5, rtol=0)
    shots = footage.read([1, 4])
    for shot, k in zip(shots, (1, 4)):
        assert torch.equal(shot.image, scene[0][k])
        torch.testing.assert_close(shot.camera.world_from_camera[0], scene[1].world_from_camera[k], atol=1e-5, rtol=0)
        torch.testing.assert_close(shot.camera.intrinsics[0], scene[1].intrinsics[k], atol=1e-3, rtol=0)


def test_the_smallest_pictures_that_are_large_enough_are_read(scene, tmp_path):
    write_dl3dv(scene, tmp_path)
    folder = tmp_path / "1K" / "0abc"
    (folder / "images_2").mkdir()
    for path in (folder / "images_4").iterdir():
        Image.open(path).resize((SIZE[0] * 2, SIZE[1] * 2)).save(folder / "images_2" / path.name)
    (task,) = find_scenes([tmp_path])
    for wanted, pictures, width in (
        (Stored(SIZE), "images_4", 96),
        (Stored((110, 64)), "images_2", 192),
        (Stored((500, 300)), "images_2", 192),
        (Stored((500, 300), "images_4"), "images_4", 96),
    ):
        footage = open_footage(task, wanted)
        assert footage.pictures == pictures
        (shot,) = footage.read([2])
        assert shot.image.shape[1] == shot.camera.size[0] == width
    with pytest.raises(UserError, match="there is no folder images of pictures"):
        open_footage(task, Stored((96, 64), "images"))


def test_videos_and_folders_have_no_cameras(scene, tmp_path):
    smooth = torch.from_numpy(np.tile(np.linspace(40, 200, 12).astype(np.uint8)[:, None, None, None], (1, 64, 96, 3)))
    write_video(tmp_path / "walk.mp4", smooth, 10.0)
    save(scene[0], tmp_path / "stills", [f"{k}.png" for k in range(6)])
    still, walk = find_scenes([tmp_path / "stills", tmp_path / "walk.mp4"])
    assert [t.layout for t in (still, walk)] == ["frames", "video"]
    footage = open_footage(walk)
    assert footage.centers is None
    assert footage.times == pytest.approx([k / 10 for k in range(12)])
    shown = [float(shot.image.float().mean()) for shot in footage.read([2, 7, 11])]
    assert shown == pytest.approx([float(smooth[k].float().mean()) for k in (2, 7, 11)], abs=2)
    assert torch.equal(open_footage(still).read([5])[0].image, scene[0][5])


def test_the_same_name_twice_is_told_apart(scene, tmp_path):
    for folder in ("a", "b"):
        write_nerfstudio(scene, tmp_path / folder)
    names = [task.name for task in find_scenes([tmp_path])]
    assert len(set(names)) == 2
    assert all(name.startswith("room") for name in names)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], "is not after the one before it"),
        (lambda lines: [*lines[:3], lines[3] + " 7"], "19 numbers where a camera has 18"),
        (lambda lines: [*lines[:3], lines[3].replace("0.", "nan.", 1)], "not a time and 18 numbers"),
        (lambda lines: [*lines, "999 " + " ".join(["1"] * 18)], "is not after"),
    ],
)
def test_wrong_camera_files_are_named(scene, tmp_path, damage, message):
    write_re10k(scene, tmp_path)
    path = tmp_path / "train" / "00a1.txt"
    path.write_text("\n".join(damage(path.read_text().splitlines())) + "\n")
    (task,) = find_scenes([path])
    with pytest.raises(UserError, match=message) as caught:
        open_footage(task)
    assert isinstance(caught.value, TimesGoBackwards) == ("after" in message)


def test_damaged_files_are_scenes_that_fail_when_opened(scene, tmp_path):
    (tmp_path / "a.torch").write_bytes(b"no chunk")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "cup").mkdir()
    (tmp_path / "cup" / "frame_annotations.jgz").write_bytes(b"\x1f\x8bno")
    tasks = find_scenes([tmp_path])
    assert len(tasks) == 3
    for task in tasks:
        with pytest.raises(UserError):
            open_footage(task)


def test_linked_folders_are_walked_and_circles_end(scene, tmp_path):
    write_nerfstudio(scene, tmp_path / "disk")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "room").symlink_to(tmp_path / "disk" / "room")
    (tmp_path / "here" / "again").symlink_to(tmp_path / "here")
    assert [task.name for task in find_scenes([tmp_path / "here"])] == ["room"]
    with pytest.raises(UserError, match="URLs"):
        find_scenes(["https://example.org/videos"])


def test_nothing_found_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no footage found; looked for transforms.json"):
        find_scenes([tmp_path])
    with pytest.raises(UserError, match="no such file"):
        find_scenes([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="procedural:N"):
        find_scenes(["procedural:some"])
    assert [task.name for task in find_scenes(["procedural:2"])] == ["procedural-000000", "procedural-000001"]

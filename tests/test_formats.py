"""Readers and writers of outside formats: conventions against independent computations, round trips, bad files."""

import io
import json
import math
import os
import shutil
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fvgen.cameras import Cameras
from fvgen.data.footage import SceneTask, open_footage
from fvgen.errors import UserError
from fvgen.scene.formats.colmap import (
    quaternion_from_rotation,
    read_colmap,
    rotation_from_quaternion,
    write_colmap,
)
from fvgen.scene.formats.hdr import compressed, hlg_scene, pq_light, pq_signal, tone_mapped
from fvgen.scene.formats.images import read_photo, write_png
from fvgen.scene.formats.lens import Lens, undistort
from fvgen.scene.formats.ply import read_ply, write_ply
from fvgen.scene.formats.record import image_inside
from fvgen.scene.formats.transforms_json import read_camera_path, read_transforms_json, write_transforms_json
from fvgen.scene.formats.video import frame_times, frames_at, hdr_note, read_video, sharp_frames, write_video
from fvgen.scene.photos import load_photos


def random_rotation(generator: torch.Generator) -> torch.Tensor:
    q, r = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    q = q * torch.sign(torch.diagonal(r))
    return q * torch.linalg.det(q)


def random_cameras(count: int, shared_intrinsics: bool = True) -> Cameras:
    generator = torch.Generator().manual_seed(count)
    pose = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    for i in range(count):
        pose[i, :3, :3] = random_rotation(generator)
    pose[:, :3, 3] = 3 * torch.randn(count, 3, generator=generator, dtype=torch.float64)
    k = torch.tensor([[501.25, 0, 322.1], [0, 499.7, 239.3], [0, 0, 1]], dtype=torch.float64).repeat(count, 1, 1)
    if not shared_intrinsics:
        k[:, 0, 0] += torch.arange(count)
    return Cameras(pose, k, torch.tensor([[640, 480]]).repeat(count, 1))


def same(a: Cameras, b: Cameras, tolerance: float = 0.0) -> None:
    torch.testing.assert_close(a.world_from_camera, b.world_from_camera, rtol=0, atol=tolerance)
    torch.testing.assert_close(a.intrinsics, b.intrinsics, rtol=0, atol=0)
    assert torch.equal(a.sizes, b.sizes)


# transforms.json


@pytest.mark.parametrize("shared_intrinsics", [True, False])
def test_transforms_json_round_trip_is_exact(tmp_path: Path, shared_intrinsics: bool) -> None:
    cameras = random_cameras(5, shared_intrinsics)
    extra = [{"source": "photo" if i % 2 else "generated"} for i in range(5)]
    path = tmp_path / "transforms.json"
    write_transforms_json(path, cameras, [f"images/{i:05d}.png" for i in range(5)], extra, {"ply_file_path": "p.ply"})
    read, records = read_transforms_json(path)
    same(read, cameras)
    assert [r["source"] for r in records] == [e["source"] for e in extra]
    assert [r["file_path"] for r in records] == [f"images/{i:05d}.png" for i in range(5)]
    top = json.loads(path.read_text())
    assert top["ply_file_path"] == "p.ply"
    assert ("fl_x" in top) == shared_intrinsics


def test_transforms_json_axes_are_opengl(tmp_path: Path) -> None:
    """An OpenGL camera at z = 4 with no rotation looks along -z, with y up: a point up and right is up and right."""
    frame = {"transform_matrix": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 4], [0, 0, 0, 1]], "file_path": "a.png"}
    top = {"fl_x": 100.0, "fl_y": 200.0, "cx": 50.0, "cy": 40.0, "w": 100, "h": 80, "frames": [frame]}
    (tmp_path / "t.json").write_text(json.dumps(top))
    cameras, _ = read_transforms_json(tmp_path / "t.json")
    point = torch.tensor([0.5, 1.0, 0.0, 1.0], dtype=torch.float64)
    seen = cameras.intrinsics[0] @ (cameras.camera_from_world[0] @ point)[:3]
    assert float(seen[2]) == 4.0
    torch.testing.assert_close(seen[:2] / seen[2], torch.tensor([50 + 12.5, 40 - 50.0], dtype=torch.float64))


def test_transforms_json_intrinsics_defaults_and_overrides(tmp_path: Path) -> None:
    eye = np.eye(4).tolist()
    top = {
        "camera_angle_x": math.pi / 2,
        "w": 200,
        "h": 100,
        "frames": [
            {"file_path": "a", "transform_matrix": eye},
            {"file_path": "b", "transform_matrix": eye[:3], "fl_x": 77, "cx": 90.5, "cy": 51, "w": 180, "h": 102},
        ],
    }
    (tmp_path / "t.json").write_text(json.dumps(top))
    cameras, _ = read_transforms_json(tmp_path / "t.json")
    torch.testing.assert_close(
        cameras.intrinsics,
        torch.tensor(
            [[[100, 0, 100], [0, 100, 50], [0, 0, 1]], [[77, 0, 90.5], [0, 77, 51], [0, 0, 1]]], dtype=torch.float64
        ),
    )
    assert cameras.sizes.tolist() == [[200, 100], [180, 102]]


def test_transforms_json_asks_the_image_for_a_missing_size(tmp_path: Path) -> None:
    Image.new("RGB", (120, 90)).save(tmp_path / "a.png")
    top = {"camera_angle_x": 1.0, "frames": [{"file_path": "./a", "transform_matrix": np.eye(4).tolist()}]}
    (tmp_path / "t.json").write_text(json.dumps(top))
    cameras, _ = read_transforms_json(tmp_path / "t.json")
    assert cameras.sizes.tolist() == [[120, 90]]
    assert float(cameras.intrinsics[0, 0, 0]) == pytest.approx(60 / math.tan(0.5))


def test_coarsely_written_rotations_become_exact_rotations(tmp_path: Path) -> None:
    cameras = random_cameras(3)
    rounded = Cameras(cameras.world_from_camera.clone(), cameras.intrinsics, cameras.sizes)
    rounded.world_from_camera[:, :3, :3] = (rounded.world_from_camera[:, :3, :3] * 1e4).round() / 1e4
    write_transforms_json(tmp_path / "t.json", rounded, ["a", "b", "c"])
    read, _ = read_transforms_json(tmp_path / "t.json")
    product = read.world_from_camera @ read.camera_from_world
    torch.testing.assert_close(product, torch.eye(4, dtype=torch.float64).expand(3, 4, 4), rtol=0, atol=1e-12)
    torch.testing.assert_close(read.world_from_camera, rounded.world_from_camera, rtol=0, atol=2e-4)


def good_frame(**changes: object) -> dict:
    base = {"file_path": "a.png", "transform_matrix": np.eye(4).tolist(), "fl_x": 50, "w": 100, "h": 80}
    return {k: v for k, v in {**base, **changes}.items() if v is not ...}


def scaled(factor: float) -> list:
    m = np.eye(4)
    m[:3, :3] *= factor
    return m.tolist()


BAD_FRAMES = {
    "nan": (good_frame(transform_matrix=(np.eye(4) * np.nan).tolist()), "NaN"),
    "infinite": (good_frame(transform_matrix=[[1, 0, 0, math.inf], *np.eye(4).tolist()[1:]]), "NaN or infinite"),
    "scale": (good_frame(transform_matrix=scaled(1.01)), "not a rotation"),
    "mirror": (good_frame(transform_matrix=np.diag([1.0, 1, -1, 1]).tolist()), "not a rotation"),
    "bottom": (good_frame(transform_matrix=[*np.eye(4).tolist()[:3], [0, 0, 1, 1]]), "not a rotation"),
    "shape": (good_frame(transform_matrix=[[1, 0], [0, 1]]), "4 rows of 4"),
    "words": (good_frame(transform_matrix="identity"), "4 rows of 4"),
    "ragged": (good_frame(transform_matrix=[[1, 0, 0, 0], [1]]), "4 rows of 4"),
    "absent": (good_frame(transform_matrix=...), "4 rows of 4"),
    "focal zero": (good_frame(fl_x=0), "fl_x must be positive"),
    "focal text": (good_frame(fl_x="50"), "fl_x must be a finite number, got '50' .a text"),
    "focal nan": (good_frame(fl_x=math.nan), "fl_x must be a finite number"),
    "focal huge": (good_frame(fl_x=10**400), "fl_x must be a finite number"),
    "no focal": (good_frame(fl_x=...), "no focal length"),
    "degrees": (good_frame(fl_x=..., camera_angle_x=60.0), "radians"),
    "half a centre": (good_frame(cx=3), "come together"),
    "model": (good_frame(camera_model="EQUIRECTANGULAR"), "EQUIRECTANGULAR"),
    "models": (good_frame(camera_model=["OPENCV"]), "camera_model .'OPENCV'. is not supported"),
    "path": (good_frame(file_path=7), "file_path"),
    "list": ([1], "expected an object"),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_bad_frames_are_named(tmp_path: Path, name: str) -> None:
    frame, message = BAD_FRAMES[name]
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"frames": [good_frame(), frame]}))
    with pytest.raises(UserError, match=message) as caught:
        read_transforms_json(path)
    assert f"{path}, frame 1" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not valid JSON"),
        (b"", "not valid JSON"),
        (b"\xff\xfe\x00", "not a JSON file"),
        (b"[" * 100_000, "not a JSON file"),
        (b"[]", "expected a JSON object"),
        (b"{}", "no frames"),
        (b'{"frames": []}', "no frames"),
        (b'{"frames": {"a": 1}}', "no frames"),
    ],
)
def test_bad_json_files(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.json").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_transforms_json(tmp_path / "t.json")


def test_camera_path_fills_in_defaults(tmp_path: Path) -> None:
    eye = np.eye(4).tolist()
    path = tmp_path / "path.json"
    path.write_text(
        json.dumps(
            {"frames": [{"transform_matrix": eye}, {"transform_matrix": eye, "w": 640, "h": 320, "file_path": "x"}]}
        )
    )
    default = torch.tensor([[300.0, 0, 155], [0, 310, 82], [0, 0, 1]], dtype=torch.float64)
    cameras = read_camera_path(path, (320, 160), default)
    assert cameras.sizes.tolist() == [[320, 160], [640, 320]]
    torch.testing.assert_close(cameras.intrinsics[0], default)
    torch.testing.assert_close(
        cameras.intrinsics[1], torch.tensor([[600.0, 0, 310], [0, 620, 164], [0, 0, 1]], dtype=torch.float64)
    )
    with pytest.raises(UserError, match="no image size"):
        read_camera_path(path)
    with pytest.raises(UserError, match="no focal length"):
        read_camera_path(path, (320, 160))


def test_camera_path_needs_two_frames_and_follows_the_file_exactly(tmp_path: Path) -> None:
    cameras = random_cameras(7, shared_intrinsics=False)
    write_transforms_json(tmp_path / "p.json", cameras, ["nowhere.png"] * 7)
    same(read_camera_path(tmp_path / "p.json", (64, 64)), cameras)
    write_transforms_json(tmp_path / "one.json", cameras[0], ["nowhere.png"])
    with pytest.raises(UserError, match="at least two"):
        read_camera_path(tmp_path / "one.json")


def test_a_path_drawn_in_nerfstudios_viewer_is_followed(tmp_path: Path) -> None:
    """Its matrices are 16 numbers in a row, OpenGL axes, its field of view is vertical, in degrees."""
    cameras = random_cameras(3)
    flip = torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64))
    top = {
        "camera_type": "perspective",
        "render_height": 480,
        "render_width": 640,
        "fps": 24,
        "camera_path": [
            {"camera_to_world": (pose @ flip).flatten().tolist(), "fov": 60.0, "aspect": 4 / 3}
            for pose in cameras.world_from_camera
        ],
    }
    file = tmp_path / "camera_path.json"

    def read(**changes: object) -> Cameras:
        file.write_text(json.dumps({**top, **changes}))
        return read_camera_path(file, default_size=(320, 240))

    got = read()
    torch.testing.assert_close(got.world_from_camera, cameras.world_from_camera, rtol=0, atol=1e-12)
    focal = 240 / math.tan(math.radians(30))
    want = torch.tensor([[focal, 0, 320], [0, focal, 240], [0, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(got.intrinsics[2], want)
    assert got.size == (640, 480)
    del top["render_height"], top["render_width"]
    assert read().size == (320, 240)
    first, *rest = top["camera_path"]
    bare = {"camera_to_world": first["camera_to_world"]}
    got = read(camera_path=[bare, *rest], default_fov=90)
    assert got.intrinsics[:2, 1, 1].tolist() == pytest.approx([120, 120 / math.tan(math.radians(30))])
    for changes, message in (
        ({"camera_path": [bare, *rest]}, "camera 0: no fov, though other cameras have one"),
        ({"render_width": 640}, "render_width and render_height come together"),
        ({"render_width": "640", "render_height": 480}, "render_width must be a finite number, got '640'"),
        ({"camera_type": "equirectangular"}, "only perspective"),
        ({"camera_path": top["camera_path"][:1]}, "at least two"),
        ({"camera_path": [1, 2]}, "list of cameras"),
        ({"camera_path": [{**top["camera_path"][0], "fov": 190}] * 2}, "camera 0: fov is in degrees"),
        ({"camera_path": [{"camera_to_world": [1, 2], "fov": 50}] * 2}, "camera 0: its matrix"),
    ):
        with pytest.raises(UserError, match=message):
            read(**changes)


# Lenses

LENSES = {
    "barrel": Lens(radial=(-0.18, 0.03, 0.0), tangential=(0.001, -0.002)),
    "pincushion": Lens(radial=(0.12, 0.02)),
    "rational": Lens(radial=(0.4, 0.05, 0.01, 0.5, 0.02, 0.003), tangential=(-0.001, 0.0005)),
    "fisheye": Lens(radial=(0.02, -0.01, 0.004, -0.001), fisheye=True),
}


@pytest.mark.parametrize("name", LENSES)
def test_lenses_bend_as_opencv_does(name: str) -> None:
    cv2 = pytest.importorskip("cv2")
    lens = LENSES[name]
    points = torch.rand(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1.6 - 0.8
    if lens.fisheye:
        want = cv2.fisheye.distortPoints(points.numpy()[None], np.eye(3), np.array(lens.radial))[0]
    else:
        k = (*lens.radial, *(0.0,) * (6 - len(lens.radial)))
        coefficients = np.array([k[0], k[1], *lens.tangential, *k[2:]])
        rays = np.concatenate([points.numpy(), np.ones((500, 1))], 1)
        want = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), np.eye(3), coefficients)[0][:, 0]
    np.testing.assert_allclose(lens.distort(points).numpy(), want, atol=1e-9)


@pytest.mark.parametrize("name", LENSES)
def test_undistorted_pixels_come_from_where_the_lens_put_them(name: str) -> None:
    """On an image that shows its own coordinates, each pixel must show where the distorted ray fell."""
    lens, width, height = LENSES[name], 250, 160
    k = torch.tensor([[180.0, 0, 128], [0, 184, 77], [0, 0, 1]], dtype=torch.float64)
    u = torch.arange(width).repeat(height, 1)
    v = torch.arange(height)[:, None].repeat(1, width)
    image, pinhole = undistort(torch.stack([u, v, torch.zeros_like(u)], -1).to(torch.uint8), k, lens)
    where = torch.stack([u, v], -1) + 0.5
    focal = torch.stack([pinhole[0, 0], pinhole[1, 1]])
    bent = lens.distort((where - pinhole[:2, 2]) / focal) * torch.stack([k[0, 0], k[1, 1]]) + k[:2, 2]
    inside = ((bent > 2) & (bent < torch.tensor([width, height]) - 2)).all(-1)
    assert float((image[..., :2] + 0.5 - bent)[inside].abs().max()) < 0.51
    assert bool(((bent > -0.01) & (bent < torch.tensor([width, height]) + 0.01)).all()), "blank pixels"
    zoom = float(pinhole[0, 0] / k[0, 0])
    assert zoom == pytest.approx(float(pinhole[1, 1] / k[1, 1]))
    assert (zoom > 1.01) == (name == "pincushion")
    torch.testing.assert_close(pinhole[:2, 2], k[:2, 2])


def test_a_lens_that_folds_is_refused() -> None:
    k = torch.tensor([[50.0, 0, 50], [0, 50, 50], [0, 0, 1]], dtype=torch.float64)
    with pytest.raises(ValueError, match="fold"):
        undistort(torch.zeros(100, 100, 3, dtype=torch.uint8), k, Lens(radial=(-400.0,)))


# COLMAP


def points_by_pycolmap(folder: Path) -> tuple[list[list[float]], list[list[int]]]:
    """Positions and colours as COLMAP itself reads them, in a process of its own."""
    code = """
import json, sys, pycolmap
points = [p for _, p in sorted(pycolmap.Reconstruction(sys.argv[1]).points3D.items())]
print(json.dumps([[p.xyz.tolist() for p in points], [p.color.tolist() for p in points]]))
"""
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    positions, colors = json.loads(done.stdout.splitlines()[-1])
    return positions, colors


def test_colmap_round_trip(tmp_path: Path) -> None:
    cameras = random_cameras(4, shared_intrinsics=False)
    positions = torch.randn(11, 3)
    colors = torch.randint(0, 256, (11, 3), dtype=torch.uint8)
    write_colmap(tmp_path, cameras, ["a.png", "b c.png", "ü.png", "d.png"], positions, colors)
    records = read_colmap(tmp_path)
    assert [r.file_path for r in records] == ["a.png", "b c.png", "ü.png", "d.png"]
    for i, record in enumerate(records):
        torch.testing.assert_close(record.world_from_camera, cameras.world_from_camera[i], rtol=0, atol=1e-12)
        assert torch.equal(record.intrinsics(), cameras.intrinsics[i])
        assert record.size == (640, 480)
        assert record.lens.is_pinhole
    read_positions, read_colors = points_by_pycolmap(tmp_path)
    assert read_positions == positions.double().tolist()
    assert read_colors == colors.tolist()


def test_quaternions_at_every_angle() -> None:
    generator = torch.Generator().manual_seed(0)
    rotations = [random_rotation(generator) for _ in range(50)]
    rotations += [torch.diag(torch.tensor(d, dtype=torch.float64)) for d in ([1.0, -1, -1], [-1, 1, -1], [-1, -1, 1])]
    for rotation in rotations:
        torch.testing.assert_close(
            rotation_from_quaternion(quaternion_from_rotation(rotation)), rotation, rtol=0, atol=1e-12
        )


def run_pycolmap(code: str, *arguments: str) -> str:
    """In a process of its own: it does not live well with other image libraries."""
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_pycolmap_reads_what_we_write(tmp_path: Path) -> None:
    cameras = random_cameras(3, shared_intrinsics=False)
    positions = (cameras.world_from_camera[0] @ torch.tensor([0.3, -0.2, 2.0, 1], dtype=torch.float64))[:3]
    write_colmap(tmp_path, cameras, ["a.png", "b.png", "c.png"], positions[None], torch.tensor([[1, 2, 3]]).byte())
    code = """
import json, sys, pycolmap
r = pycolmap.Reconstruction(sys.argv[1])
images = sorted(r.images.values(), key=lambda i: i.name)
points = list(r.points3D.values())
print(json.dumps({
    "names": [i.name for i in images],
    "poses": [i.cam_from_world().matrix().tolist() for i in images],
    "params": [r.cameras[i.camera_id].params.tolist() for i in images],
    "models": [r.cameras[i.camera_id].model.name for i in images],
    "sizes": [[r.cameras[i.camera_id].width, r.cameras[i.camera_id].height] for i in images],
    "pixel": images[0].project_point(points[0].xyz).tolist(),
    "registered": r.num_reg_images(), "colors": [p.color.tolist() for p in points]}))
"""
    seen = json.loads(run_pycolmap(code, str(tmp_path)))
    assert seen["names"] == ["a.png", "b.png", "c.png"]
    assert seen["registered"] == 3
    assert seen["models"] == ["PINHOLE"] * 3
    assert seen["sizes"] == [[640, 480]] * 3
    assert seen["colors"] == [[1, 2, 3]]
    np.testing.assert_allclose(seen["poses"], cameras.camera_from_world[:, :3].numpy(), atol=1e-12)
    k = cameras.intrinsics
    np.testing.assert_allclose(seen["params"], k[:, [0, 1, 0, 1], [0, 1, 2, 2]].numpy(), atol=0)
    np.testing.assert_allclose(
        seen["pixel"], [k[0, 0, 0] * 0.15 + k[0, 0, 2], -k[0, 1, 1] * 0.1 + k[0, 1, 2]], atol=1e-9
    )


@pytest.mark.parametrize("kind", ["binary", "text"])
def test_we_read_what_pycolmap_writes(tmp_path: Path, kind: str) -> None:
    """Every camera model that we undo, with rigs and frames files and 2D points present."""
    code = """
import json, sys, numpy as np, pycolmap
models = ["SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV",
          "OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "SIMPLE_FISHEYE", "FISHEYE"]
r = pycolmap.Reconstruction()
rng = np.random.default_rng(0)
out = []
ray = np.array([0.21, -0.13, 1.0])
for n, name in enumerate(models, 1):
    if not hasattr(pycolmap.CameraModelId, name):
        continue
    camera = pycolmap.Camera(camera_id=n, model=name, width=640, height=480, params=[0.0] * 20)
    focals = 1 if name.startswith(("SIMPLE", "RADIAL")) else 2
    count = len(camera.params_info.split(","))
    camera.params = [500.0 + n, 510.0][:focals] + [322.0, 239.0] + list(rng.uniform(-.01, .01, count - focals - 2))
    r.add_camera_with_trivial_rig(camera)
    pose = pycolmap.Rigid3d(pycolmap.Rotation3d(rng.normal(size=3) * .7), rng.normal(size=3))
    points = [pycolmap.Point2D(xy) for xy in rng.uniform(0, 400, (n % 4, 2))]
    image = pycolmap.Image(image_id=n, name=f"dir/{name} {n}.jpg", camera_id=n, points2D=points)
    r.add_image_with_trivial_frame(image, pose)
    pixel = camera.img_from_cam(ray[None])[0]
    out.append({"name": image.name, "pose": pose.inverse().matrix().tolist(), "pixel": np.asarray(pixel).tolist()})
r.add_point3D(np.array([1.0, 2, 3]), pycolmap.Track(), np.array([9, 8, 7], np.uint8))
getattr(r, "write_" + sys.argv[2])(sys.argv[1])
print(json.dumps(out))
"""
    written = json.loads(run_pycolmap(code, str(tmp_path), kind))
    assert len(written) >= 9
    assert (tmp_path / ("rigs.bin" if kind == "binary" else "rigs.txt")).exists()
    records = {record.file_path: record for record in read_colmap(tmp_path)}
    assert set(records) == {image["name"] for image in written}
    ray = torch.tensor([0.21, -0.13], dtype=torch.float64)
    for image in written:
        record = records[image["name"]]
        np.testing.assert_allclose(record.world_from_camera[:3].numpy(), image["pose"], atol=1e-12)
        k = record.intrinsics()
        pixel = record.lens.distort(ray) * torch.stack([k[0, 0], k[1, 1]]) + k[:2, 2]
        np.testing.assert_allclose(pixel.numpy(), image["pixel"], atol=1e-9, err_msg=image["name"])


def test_damaged_colmap_models_are_named(tmp_path: Path) -> None:
    write_colmap(tmp_path, random_cameras(2), ["a", "b"], torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.uint8))
    images = (tmp_path / "images.bin").read_bytes()
    (tmp_path / "images.bin").write_bytes(images[:-5])
    with pytest.raises(UserError, match="damaged"):
        read_colmap(tmp_path)
    (tmp_path / "images.bin").write_bytes(struct.pack("<Q", 2**60))
    with pytest.raises(UserError, match="damaged"):
        read_colmap(tmp_path)
    (tmp_path / "images.bin").write_bytes(struct.pack("<Q", 0))
    with pytest.raises(UserError, match="no image has a pose"):
        read_colmap(tmp_path)
    nan = struct.pack("<QI7dI", 1, 1, 1, 0, 0, 0, math.nan, 0, 0, 1) + b"a\0" + struct.pack("<Q", 0)
    (tmp_path / "images.bin").write_bytes(nan)
    with pytest.raises(UserError, match=r"\(a\).*not a usable number"):
        read_colmap(tmp_path)
    (tmp_path / "images.bin").unlink()
    with pytest.raises(UserError, match=r"needs images\.bin"):
        read_colmap(tmp_path)
    (tmp_path / "cameras.bin").write_bytes(struct.pack("<QIiQQ5d", 1, 1, 7, 640, 480, 1, 1, 1, 1, 1))
    (tmp_path / "images.txt").write_text("1 1 0 0 0 0 0 0 1 a.png\n\n")
    with pytest.raises(UserError, match="FOV is not supported"):
        read_colmap(tmp_path)


@pytest.mark.parametrize("kind", ["binary", "text"])
@pytest.mark.parametrize(
    ("name", "number", "parameters", "message"),
    [
        ("EUCM", 16, 6, "EUCM is not supported; run colmap image_undistorter"),
        ("EQUIRECTANGULAR", 17, 2, "a panorama"),
        ("OMNI_2030", 30, 3, "(OMNI_2030|30) is not supported; run colmap image_undistorter"),
    ],
)
def test_camera_models_that_cannot_be_undone_are_named(
    tmp_path: Path, kind: str, name: str, number: int, parameters: int, message: str
) -> None:
    """Known or not, they are no damage."""
    if kind == "binary":
        head = struct.pack("<QIiQQ", 1, 1, number, 640, 480)
        (tmp_path / "cameras.bin").write_bytes(head + struct.pack(f"<{parameters}d", *[1.0] * parameters))
    else:
        (tmp_path / "cameras.txt").write_text(f"1 {name} 640 480{' 1.0' * parameters}\n")
    (tmp_path / "images.txt").write_text("1 1 0 0 0 0 0 0 1 a.png\n\n")
    with pytest.raises(UserError, match=message):
        read_colmap(tmp_path)


@pytest.mark.parametrize("kind", ["binary", "text"])
def test_names_in_a_model_are_those_of_the_disk(tmp_path: Path, kind: str) -> None:
    """Linux names are bytes; where no file has them, the line says that they are not UTF-8."""
    name = b"ch\xe2teau.png"
    (tmp_path / "images").mkdir()
    model = tmp_path / "sparse"
    model.mkdir()
    (model / "cameras.txt").write_text("1 PINHOLE 640 480 1 1 1 1\n")
    if kind == "binary":
        pose = struct.pack("<QI7dI", 1, 1, 1, 0, 0, 0, 0, 0, 0, 1)
        (model / "images.bin").write_bytes(pose + name + b"\0" + struct.pack("<Q", 0))
    else:
        (model / "images.txt").write_bytes(b"1 1 0 0 0 0 0 0 1 " + name + b"\n\n")
    (record,) = read_colmap(model)
    assert record.file_path is not None
    with pytest.raises(UserError, match=r"ch\?teau.png; its name is not written in UTF-8"):
        image_inside(tmp_path / "images", record.file_path, record.where)
    path = os.fsencode(tmp_path / "images") + b"/" + name
    try:
        Path(os.fsdecode(path)).touch()
    except OSError:
        pytest.skip("THIS DISK HAS UTF-8 NAMES ONLY")
    assert image_inside(tmp_path / "images", record.file_path, record.where).is_file()


# PLY, PNG


def test_ply_round_trip_is_exact(tmp_path: Path) -> None:
    positions, colors = torch.randn(1000, 3), torch.randint(0, 256, (1000, 3), dtype=torch.uint8)
    write_ply(tmp_path / "p.ply", positions, colors)
    read_positions, read_colors = read_ply(tmp_path / "p.ply")
    assert torch.equal(read_positions, positions)
    assert torch.equal(read_colors, colors)
    write_ply(tmp_path / "empty.ply", positions[:0], colors[:0])
    assert read_ply(tmp_path / "empty.ply")[0].shape == (0, 3)


def test_ply_bytes(tmp_path: Path) -> None:
    """The file as the format's description has it, not as our reader likes it."""
    write_ply(tmp_path / "p.ply", torch.tensor([[1.0, 2, 3]]), torch.tensor([[4, 5, 6]], dtype=torch.uint8))
    names = "xyz"
    header = "ply\nformat binary_little_endian 1.0\nelement vertex 1\n"
    header += "".join(f"property float {n}\n" for n in names)
    header += "".join(f"property uchar {n}\n" for n in ("red", "green", "blue")) + "end_header\n"
    assert (tmp_path / "p.ply").read_bytes() == header.encode() + struct.pack("<3f3B", 1, 2, 3, 4, 5, 6)


def test_ply_reader_skips_other_properties_and_names_bad_files(tmp_path: Path) -> None:
    header = "ply\nformat binary_little_endian 1.0\ncomment hello\nelement vertex 2\nproperty double x\n"
    header += "property float nx\nproperty double y\nproperty double z\nelement face 0\n"
    header += "property list uchar int vertex_indices\nend_header\n"
    body = struct.pack("<dfdddfdd", 1, 9, 2, 3, 4, 9, 5, 6)
    path = tmp_path / "p.ply"
    path.write_bytes(header.encode() + body)
    positions, colors = read_ply(path)
    assert positions.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert colors.tolist() == [[255] * 3] * 2
    path.write_bytes(header.encode() + body[:-1])
    with pytest.raises(UserError, match="cut off"):
        read_ply(path)
    path.write_bytes(b"hello")
    with pytest.raises(UserError, match="not a PLY file"):
        read_ply(path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    with pytest.raises(UserError, match="a git-LFS pointer, not the file: git lfs pull"):
        read_ply(path)
    path.write_bytes(b"\n<!DOCTYPE html><html></html>")
    with pytest.raises(UserError, match="a web page, not the file"):
        read_ply(path)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER, "a git-LFS pointer, not the file: git lfs pull"),
        (b"\r\n <html><body>log in", "a web page, not the file"),
    ],
)
def test_what_stands_in_a_files_place_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    from fvgen.models.depth import DepthNetwork
    from fvgen.models.model import VideoModel, find_model
    from fvgen.models.viewcrafter.checkpoint import read_checkpoint
    from fvgen.scene.formats.re10k import read_chunk
    from fvgen.scene.geometry.weights import read_folder

    for name in ("a.jpg", "a.ckpt", "a.safetensors", "a.torch"):
        (tmp_path / name).write_bytes(content)
    model = tmp_path / "model"
    shutil.copytree(find_model("mini"), model)
    for weights in model.rglob("*.safetensors"):
        weights.write_bytes(content)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(content)
    for read in (
        lambda: read_photo(tmp_path / "a.jpg"),
        lambda: read_checkpoint(tmp_path / "a.ckpt"),
        lambda: read_chunk(tmp_path / "a.torch"),
        lambda: DepthNetwork.load(tmp_path / "a.safetensors"),
        lambda: VideoModel.load(model),
        lambda: read_folder(tmp_path, "da3"),
    ):
        with pytest.raises(UserError, match=message):
            read()


def test_ply_points_of_other_programs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "fvgen")
    path = tmp_path / "p.ply"
    head = "ply\r\nformat ascii 1.0\r\nelement vertex 3\r\n"
    head += "".join(f"property float {name}\r\n" for name in ("x", "y", "z", "red", "green", "blue"))
    path.write_bytes((head + "end_header\r\n1 2 3 1 0 0.2\r\nnan 0 0 0 0 0\r\n-nan(ind) 0 0 0 0 0\r\n").encode())
    positions, colors = read_ply(path)
    assert (positions.tolist(), colors.tolist()) == ([[1, 2, 3]], [[255, 0, 51]])
    assert "p.ply: 2 of 3 points left out" in caplog.text


@pytest.mark.parametrize(
    ("number", "most"), [("int", 255), ("uint", 255), ("short", 255), ("ushort", 65535), ("float", 1)]
)
def test_ply_colours_of_every_number(tmp_path: Path, number: str, most: int) -> None:
    head = "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
    head += "".join(f"property {number} {name}\n" for name in ("red", "green", "blue"))
    (tmp_path / "p.ply").write_text(f"{head}end_header\n1 2 3 {most} 0 {most}\n")
    assert read_ply(tmp_path / "p.ply")[1].tolist() == [[255, 0, 255]]


def test_png_round_trip(tmp_path: Path) -> None:
    image = torch.randint(0, 256, (20, 30, 3), dtype=torch.uint8)
    write_png(tmp_path / "a.png", image)
    assert np.array_equal(np.array(Image.open(tmp_path / "a.png")), image.numpy())
    mask = torch.rand(20, 30) > 0.5
    write_png(tmp_path / "m.png", mask)
    read = Image.open(tmp_path / "m.png")
    assert read.mode == "L"
    assert np.array_equal(np.array(read), mask.numpy() * np.uint8(255))
    with pytest.raises(ValueError, match="uint8"):
        write_png(tmp_path / "b.png", torch.rand(4, 4, 3))


# Video


def moving_pattern(count: int, height: int, width: int) -> torch.Tensor:
    """Smooth, colourful, and different in each frame."""
    t = torch.arange(count)[:, None, None] * 0.3
    v, u = torch.arange(height)[None, :, None] / 9, torch.arange(width)[None, None] / 11
    channels = [
        torch.sin(u + t) + torch.cos(v),
        torch.cos(u - v + t) + 0 * v,
        torch.sin(v * 0.7 - t) + 0.3 * torch.sin(u),
    ]
    return (torch.stack(torch.broadcast_tensors(*channels), -1) * 55 + 128).to(torch.uint8)


def decibels(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * torch.log10(((a.float() - b.float()) / 255).square().mean()))


@pytest.mark.parametrize(("height", "width"), [(96, 128), (97, 131), (720, 96)])
def test_video_round_trip(tmp_path: Path, height: int, width: int) -> None:
    import av

    frames = moving_pattern(12, height, width)
    path = tmp_path / "v.mp4"
    write_video(path, frames, fps=24)
    read, rate = read_video(path)
    assert rate == 24
    assert read.shape == (12, height + height % 2, width + width % 2, 3)
    inside = read[:, :height, :width]
    assert decibels(inside, frames) > 39
    assert float((inside.float() - frames.float()).mean((0, 1, 2)).abs().max()) < 0.5, "no colour shift"
    if width % 2:
        assert decibels(read[:, :height, width], frames[:, :, -1]) > 30, "the column added is the last one again"
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, int(context.colorspace)) == ("h264", "yuv420p", 1)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "plays before it is loaded"


def test_video_frames_may_come_one_by_one(tmp_path: Path) -> None:
    frames = moving_pattern(5, 64, 80)
    write_video(tmp_path / "a.mp4", frames, 29.97)
    write_video(tmp_path / "b.mp4", (frame for frame in frames), 29.97)
    assert torch.equal(read_video(tmp_path / "a.mp4")[0], read_video(tmp_path / "b.mp4")[0])
    assert read_video(tmp_path / "a.mp4")[1] == pytest.approx(29.97, abs=1e-4)
    with pytest.raises(ValueError, match="at least one"):
        write_video(tmp_path / "c.mp4", frames[:0], 24)


def numbered(count: int) -> torch.Tensor:
    """Frames that carry their number as eight black or white fields, each on texture."""
    frames = moving_pattern(count, 64, 128) // 4 + 64
    for i in range(count):
        for bit in range(8):
            frames[i, 40:60, bit * 16 : bit * 16 + 16] = 255 * (i >> bit & 1)
    return frames


def number_of(image: torch.Tensor) -> int:
    return sum(int(image[50, bit * 16 + 8].float().mean() > 128) << bit for bit in range(8))


def film(
    path: Path, count: int, options: dict[str, str], codec: str = "libx264", times: list[int] | None = None
) -> None:
    """Numbered frames as any program films them; ``times`` in milliseconds instead of 30 a second."""
    import av

    with av.open(f"file:{path}", "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt, stream.options = 128, 64, "yuv420p", options
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, picture in enumerate(numbered(count)):
            frame = av.VideoFrame.from_ndarray(picture.numpy(), format="rgb24")
            if times:
                frame.pts, frame.time_base = times[i], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def copied(source: Path, target: Path, first: int, shown: int | None = None) -> None:
    """The packets from number ``first`` on, not coded anew; an edit list hides what comes before frame ``shown``."""
    import av

    with av.open(str(source)) as container, av.open(str(target), "w") as copy:
        stream = container.streams.video[0]
        own = copy.add_stream_from_template(stream)
        start = round((shown or 0) / 30 / stream.time_base)
        for packet in [packet for packet in container.demux(stream) if packet.dts is not None][first:]:
            packet.pts, packet.dts, packet.stream = packet.pts - start, packet.dts - start, own
            copy.mux(packet)


def assert_numbered_from(path: Path, first: int, count: int) -> None:
    """All ways of reading agree on which frames there are."""
    assert len(frame_times(path)) == count
    assert [number_of(image) for image in frames_at(path, range(2, 8))] == list(range(first + 2, first + 8))
    assert [number_of(image) for image in read_video(path)[0]] == list(range(first, first + count))
    chosen = sharp_frames(path, 5)
    assert [first + number for number, _ in chosen] == [number_of(image) for _, image in chosen]
    assert len(chosen) == 5


def test_trimmed_videos_begin_at_the_trim(tmp_path: Path) -> None:
    """What an edit list hides is no frame, but the copy was not cut off."""
    film(tmp_path / "a.mp4", 120, {"g": "40", "bf": "2"})
    copied(tmp_path / "a.mp4", tmp_path / "b.mp4", 40, 59)
    assert_numbered_from(tmp_path / "b.mp4", 59, 61)
    write_video(tmp_path / "c.mp4", numbered(60), 30)
    whole = (tmp_path / "c.mp4").read_bytes()
    (tmp_path / "c.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    for read in (frame_times, read_video):
        with pytest.raises(UserError, match="cut off, only .* of 60 frames"):
            read(tmp_path / "c.mp4")


@pytest.mark.parametrize("name", ["b.mp4", "b.mkv", "b.ts"])
def test_videos_that_begin_between_key_frames(tmp_path: Path, name: str) -> None:
    film(tmp_path / "a.mp4", 60, {"g": "24", "bf": "2", "sc_threshold": "0"})
    copied(tmp_path / "a.mp4", tmp_path / name, 30)
    assert_numbered_from(tmp_path / name, 48, 12)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.ts", "libx264"), ("a.mkv", "libx264"), ("a.avi", "libx264"), ("a.mpg", "mpeg2video"), ("a.avi", "mpeg4")],
)
def test_frames_keep_their_numbers_in_every_container(tmp_path: Path, name: str, codec: str) -> None:
    """AVI stores times of decoding and MPEG few; seeking goes by times of decoding."""
    film(tmp_path / name, 60, {"g": "12", "bf": "2"}, codec)
    assert_numbered_from(tmp_path / name, 0, 60)


def test_frame_rates_may_vary(tmp_path: Path) -> None:
    """Slow at first, then fast: windows of search stay apart, so that no frame is chosen twice."""
    times = [500 * i for i in range(20)] + [10_000 + 10 * i for i in range(40)]
    film(tmp_path / "a.mkv", 60, {"g": "12", "bf": "0"}, times=times)
    assert frame_times(tmp_path / "a.mkv") == pytest.approx([t / 1000 for t in times])
    chosen = [number for number, _ in sharp_frames(tmp_path / "a.mkv", 12)]
    assert chosen == sorted(set(chosen))
    assert len(chosen) == 12


def test_other_containers_tell_what_is_missing(tmp_path: Path) -> None:
    for name in ("a.mkv", "a.avi"):
        film(tmp_path / name, 60, {"g": "12"}, "mpeg4")
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UserError, match=r"cut off, only .* of (2\.0 seconds|60 frames)"):
            sharp_frames(tmp_path / name, 3)


def test_names_with_colons_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("rec-12:30:05.mp4", "run-1:2.mp4", "https:a.mp4", "%03d.mp4"):
        write_video(name, numbered(4), 10)
        assert len(read_video(name)[0]) == len(frame_times(Path(name))) == len(sharp_frames(name, 4)) == 4


def test_sound_and_other_streams_do_not_matter(tmp_path: Path) -> None:
    """A longer sound track, as recorders leave it, is not a film that was cut off."""
    import av

    film(tmp_path / "a.mp4", 30, {"g": "10"})
    for name in ("b.mp4", "b.mkv", "b.flv"):
        with av.open(str(tmp_path / "a.mp4")) as source, av.open(str(tmp_path / name), "w") as copy:
            pictures = source.streams.video[0]
            own, sound = copy.add_stream_from_template(pictures), copy.add_stream("aac", rate=44100)
            for packet in source.demux(pictures):
                if packet.dts is not None:
                    packet.stream = own
                    copy.mux(packet)
            for i in range(60):
                frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
                frame.sample_rate, frame.pts = 44100, 1024 * i
                copy.mux(sound.encode(frame))
            copy.mux(sound.encode(None))
        assert_numbered_from(tmp_path / name, 0, 30)


def test_the_cover_of_a_film_is_not_the_film(tmp_path: Path) -> None:
    import av

    film(tmp_path / "a.mp4", 12, {})
    cover = io.BytesIO()
    Image.new("RGB", (640, 640)).save(cover, "PNG")
    with av.open(str(tmp_path / "a.mp4")) as film_, av.open(str(tmp_path / "b.mp4"), "w") as copy:
        first = copy.add_stream("png", rate=1)
        first.width, first.height, first.pix_fmt = 640, 640, "rgb24"
        first.disposition = av.stream.Disposition.attached_pic
        source = film_.streams.video[0]
        second = copy.add_stream_from_template(source)
        packet = av.Packet(cover.getvalue())
        packet.stream, packet.pts, packet.dts, packet.is_keyframe = first, 0, 0, True
        copy.mux(packet)
        for packet in film_.demux(source):
            if packet.dts is not None:
                packet.stream = second
                copy.mux(packet)
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert len(container.streams.video) == 2
    assert_numbered_from(tmp_path / "b.mp4", 0, 12)


# High dynamic range


def test_transfer_functions_have_their_published_values() -> None:
    """BT.2408 table 1: white of paper, 203 cd/m2, is 58% PQ and 75% HLG; BT.2100: PQ 1 is 10,000, HLG 0.5 is 1/12."""
    assert pq_light(np.array([0.0, 1.0])) == pytest.approx([0, 10_000])
    assert pq_signal(np.array(203.0)) == pytest.approx(0.5807, abs=1e-4)
    assert pq_signal(np.array(1000.0)) == pytest.approx(0.7518, abs=1e-4)
    signal = np.linspace(0, 1, 101)
    assert pq_signal(pq_light(signal)) == pytest.approx(signal, abs=1e-6)
    assert hlg_scene(np.array([0, 0.5, 1])) == pytest.approx([0, 1 / 12, 1], abs=1e-6)
    assert 1000 * hlg_scene(np.array(0.75)) ** 1.2 == pytest.approx(203, abs=1)


def test_tone_curve_keeps_the_dark_and_ends_at_white() -> None:
    light = np.linspace(0, 1000, 2001)
    made = compressed(light)
    assert made[light < 85] == pytest.approx(light[light < 85], rel=1e-9)
    assert made[-1] == pytest.approx(203)
    assert compressed(np.array(4000.0)) == pytest.approx(203)
    assert (np.diff(made) > 0).all()
    assert 140 < compressed(np.array(203.0)) < 180, "paper keeps room for what is brighter"


def test_hdr_colours_become_srgb_ones() -> None:
    """Dark light is the same light in sRGB; a colour of BT.709 has its own BT.2020 numbers."""

    def srgb(linear: np.ndarray) -> np.ndarray:
        return 255 * (1.055 * np.asarray(linear) ** (1 / 2.4) - 0.055)

    grey = np.full((1, 1, 3), round(65535 * float(pq_signal(np.array(60.0)))), np.uint16)
    assert tone_mapped(grey, "PQ")[0, 0] == pytest.approx(srgb(60 / 203), abs=1)
    scene = (60 / 1000) ** (1 / 1.2)  # the scene's light that an HLG display shows as 60 cd/m2
    signal = np.sqrt(3 * scene) if scene <= 1 / 12 else 0.17883277 * np.log(12 * scene - 0.28466892) + 0.55991073
    grey = np.full((1, 1, 3), round(65535 * signal), np.uint16)
    assert tone_mapped(grey, "HLG")[0, 0] == pytest.approx(srgb(60 / 203), abs=1)
    wide = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])  # BT.2087
    linear = np.array([0.3, 0.1, 0.05])
    codes = np.round(65535 * pq_signal(203 * wide @ linear)).astype(np.uint16)[None, None]
    assert tone_mapped(codes, "PQ")[0, 0] == pytest.approx(srgb(linear), abs=1.5)
    assert (tone_mapped(np.full((1, 1, 3), 65535, np.uint16), "PQ") == 255).all()
    assert (tone_mapped(np.zeros((1, 1, 3), np.uint16), "HLG") == 0).all()


@pytest.mark.parametrize(("transfer", "number"), [("PQ", 16), ("HLG", 18)])
def test_hdr_videos_are_tone_mapped(tmp_path: Path, transfer: str, number: int) -> None:
    """10 bits, BT.2020, limited range, as phones film: grey of known light comes out as that light."""
    import av

    lights = [5.0, 40.0, 90.0, 203.0, 1000.0]
    path = tmp_path / "v.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 5 * 32, 64, "yuv420p10le"
        context = stream.codec_context
        context.color_range, context.colorspace, context.color_primaries, context.color_trc = 1, 9, 9, number
        signal = pq_signal(np.array(lights))
        if transfer == "HLG":
            scene = (np.array(lights) / 1000) ** (1 / 1.2)
            signal = np.interp(scene, hlg_scene(np.linspace(0, 1, 20001)), np.linspace(0, 1, 20001))
        for i in range(3):
            frame = av.VideoFrame(5 * 32, 64, "yuv420p10le")
            luma = np.repeat(np.roll(np.round(64 + 876 * signal), i - 1).astype("<u2"), 32)[None].repeat(64, 0)
            for plane, values in zip(frame.planes, (luma, np.full((32, 80), 512), np.full((32, 80), 512))):
                rows = np.zeros((values.shape[0], plane.line_size // 2), "<u2")
                rows[:, : values.shape[1]] = values
                plane.update(rows.tobytes())
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert hdr_note(path) == f"filmed in HDR ({transfer}), tone-mapped to the colours of sRGB"
    assert load_photos(path).notes == [f"v.mkv: {hdr_note(path)}"]
    assert open_footage(SceneTask("v", "video", path)).notes == (hdr_note(path),)
    want = compressed(np.array(lights)) / 203
    for image in (read_video(path)[0][1], sharp_frames(path, 3)[1][1], frames_at(path, [1])[0]):
        got = image[32, 16::32].float()
        assert float((got.amax(1) - got.amin(1)).max()) <= 2, "grey"
        np.testing.assert_allclose(got.mean(1).numpy(), 255 * (1.055 * want ** (1 / 2.4) - 0.055), atol=2)
    write_video(tmp_path / "sdr.mp4", numbered(3), 10)
    assert hdr_note(tmp_path / "sdr.mp4") == ""
    assert open_footage(SceneTask("v", "video", tmp_path / "sdr.mp4")).notes == ()


@pytest.mark.parametrize("key_frames", [250, 12])
def test_sharp_frames_are_even_and_know_their_number(tmp_path: Path, key_frames: int) -> None:
    """With B-frames, with one key frame (no seeking) and with many (seeking)."""
    film(tmp_path / "v.mp4", 200, {"crf": "10", "g": str(key_frames), "bf": "3"})
    chosen = sharp_frames(tmp_path / "v.mp4", 6)
    assert [number for number, _ in chosen] == [number_of(image) for _, image in chosen]
    for (number, _), even in zip(chosen, [0, 39.8, 79.6, 119.4, 159.2, 199], strict=True):
        assert abs(number - even) <= 0.3 * 39.8 + 1


def test_sharp_frames_avoid_blur(tmp_path: Path) -> None:
    """All frames but every fifth are blurred as a moving hand blurs them."""
    texture = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    sharp = Image.fromarray(texture).resize((160, 120), Image.Resampling.NEAREST)
    soft = sharp.resize((20, 15)).resize((160, 120))
    frames = torch.stack([torch.from_numpy(np.array(sharp if i % 5 == 2 else soft)) for i in range(60)])
    write_video(tmp_path / "v.mp4", frames, 30)
    chosen = [number for number, _ in sharp_frames(tmp_path / "v.mp4", 4)]
    assert len(chosen) == 4
    assert all(number % 5 == 2 for number in chosen)


def turn_in_header(path: Path, matrix: tuple[float, ...]) -> None:
    """Give an MP4 the display matrix (a, b, c, d) with which a phone marks a turned film."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 20 + 16  # version and flags, five times and ids, layer to reserved
    a, b, c, d = (round(x * 65536) for x in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


@pytest.mark.parametrize(("matrix", "turns"), [((0, 1, -1, 0), 1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 3)])
def test_turned_videos_come_upright(tmp_path: Path, matrix: tuple[float, ...], turns: int) -> None:
    """(x, y) goes to (a x + c y, b x + d y): the first matrix is a quarter turn clockwise."""
    frames = moving_pattern(3, 64, 96)
    write_video(tmp_path / "v.mp4", frames, 10)
    plain = read_video(tmp_path / "v.mp4")[0]
    turn_in_header(tmp_path / "v.mp4", matrix)
    assert torch.equal(read_video(tmp_path / "v.mp4")[0], plain.rot90(-turns, (1, 2)))
    assert torch.equal(sharp_frames(tmp_path / "v.mp4", 3)[2][1], plain[2].rot90(-turns, (0, 1)))


def test_bad_videos(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    with pytest.raises(UserError, match="no such file"):
        read_video(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="cannot be decoded"):
        sharp_frames(path, 8)
    path.write_text("this is no film" * 100)
    with pytest.raises(UserError, match="cannot be decoded"):
        sharp_frames(path, 8)
    write_video(path, moving_pattern(1, 64, 64), 24)
    with pytest.raises(UserError, match="fewer than two frames"):
        sharp_frames(path, 8)
    write_video(path, moving_pattern(30, 64, 64), 24)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    for read in (read_video, lambda path: sharp_frames(path, 8)):
        with pytest.raises(UserError, match="cut off, only .* of 30 frames|cannot be decoded"):
            read(path)
    path.write_bytes(whole.replace(b"moov", b"m00v"))
    with pytest.raises(UserError, match="cannot be decoded"):
        sharp_frames(path, 8)

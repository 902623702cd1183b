"""The teacher's camera paths against numbers from the teacher's own code."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.cameras.viewcrafter import (
    path_between,
    path_target,
    path_text,
    text_values,
    to_camera_frame,
    to_object_frame,
)

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


@dataclass(frozen=True)
class Golden:
    """One set of numbers: the configuration, the tensors, and the cameras they start from."""

    config: dict
    numbers: dict[str, Tensor]
    cameras: Cameras

    @property
    def anchor(self) -> Cameras:
        return self.object_frame[0][self.config["anchor"]]

    @property
    def object_frame(self) -> tuple[Cameras, Tensor]:
        radius, elevation = float(self.numbers["radius"]), float(self.config["elevation"])
        return to_object_frame(self.cameras, self.numbers["points"], self.config["anchor"], radius, elevation)


@pytest.fixture(scope="module")
def camera(golden: Path) -> Golden:
    file = sorted(golden.glob("camera_*.io.safetensors"))[0]
    letter = file.name.split(".")[0].removeprefix("camera_")
    config = json.loads((golden / f"config_{letter}.json").read_text())["camera"]
    numbers = load_file(file)
    poses = numbers["c2ws"]
    n = len(poses)
    intrinsics = torch.eye(3, dtype=torch.float64).repeat(n, 1, 1)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = numbers["focals"].reshape(n)
    intrinsics[:, :2, 2] = numbers["pp"].reshape(n, 2).double()
    sizes = torch.tensor([[config["width"], config["height"]]]).repeat(n, 1)
    return Golden(config, numbers, Cameras(poses, intrinsics, sizes))


def pytorch3d(cameras: Cameras) -> dict[str, Tensor]:
    """Row-vector rotation and translation into axes left, up, forward; focal length and principal point in pixels."""
    flip = torch.diag(torch.tensor([-1.0, -1, 1, 1], dtype=torch.float64))
    view_from_world = flip @ cameras.camera_from_world
    return {
        "R": view_from_world[:, :3, :3].transpose(1, 2),
        "T": view_from_world[:, :3, 3],
        "focal": torch.stack([cameras.intrinsics[:, 0, 0], cameras.intrinsics[:, 1, 1]], dim=1),
        "pp": cameras.intrinsics[:, :2, 2],
    }


def ndc(cameras: Cameras, points: Tensor) -> Tensor:
    """Points ``[P, 3]`` in every view ``[F, P, 3]``: normalised x (left), y (up) of the short side, and depth."""
    world = points.reshape(-1, 3).double()
    view = world @ cameras.camera_from_world[:, :3, :3].transpose(1, 2) + cameras.camera_from_world[:, None, :3, 3]
    pixels = view @ cameras.intrinsics.transpose(1, 2)
    width, height = cameras.size
    half = torch.tensor([width, height], dtype=torch.float64) / 2
    xy = (half - pixels[..., :2] / pixels[..., 2:]) * 2 / min(width, height)
    return torch.cat([xy, view[..., 2:]], dim=-1)


def check(cameras: Cameras, points: Tensor, camera: Golden, prefix: str) -> None:
    assert len(cameras) == int(camera.numbers[f"{prefix}.num_views"])
    for key, value in pytorch3d(cameras).items():
        torch.testing.assert_close(value, camera.numbers[f"{prefix}.{key}"].double(), **TOLERANCE)
    ours, theirs = ndc(cameras, points), camera.numbers[f"{prefix}.pts0_ndc_xy_viewz"].double()
    torch.testing.assert_close(ours[..., 2], theirs[..., 2], **TOLERANCE)
    # x and y are quotients: the 1e-5 of the camera is magnified where a point is close to the camera's plane
    magnified = (ours[..., :2].abs() + 1).amax(-1) * (1 + 1 / theirs[..., 2].abs())
    assert float(((ours - theirs)[..., :2].abs().amax(-1) / magnified).max()) < 1e-5


def test_camera_frame(camera: Golden) -> None:
    cameras, points = to_camera_frame(camera.cameras, camera.numbers["points"], 0)
    torch.testing.assert_close(cameras.world_from_camera, camera.numbers["to_kth0.poses"].double(), **TOLERANCE)
    torch.testing.assert_close(points, camera.numbers["to_kth0.points"].double(), **TOLERANCE)


def test_object_frame(camera: Golden) -> None:
    cameras, points = camera.object_frame
    prefix = f"to_obj{camera.config['anchor']}"
    torch.testing.assert_close(cameras.world_from_camera, camera.numbers[f"{prefix}.poses"].double(), **TOLERANCE)
    torch.testing.assert_close(points, camera.numbers[f"{prefix}.points"].double(), **TOLERANCE)


def test_direct(camera: Golden) -> None:
    check(camera.cameras, camera.numbers["points"][0], camera, "direct")


def test_target(camera: Golden) -> None:
    path = path_target(camera.anchor, camera.config["frames"], **camera.config["target"])
    check(path, camera.numbers["points"][0], camera, "specified")


def test_text(camera: Golden) -> None:
    text, frames = camera.config["text"], camera.config["frames"]
    for key in ("phis", "thetas", "rs"):
        values = torch.from_numpy(text_values(text[key], frames))
        torch.testing.assert_close(values, camera.numbers[f"txt.{key}"].double(), **TOLERANCE)
    path = path_text(camera.anchor, frames, text["phis"], text["thetas"], text["rs"])
    check(path, camera.numbers["points"][0], camera, "txt")


def test_between(camera: Golden) -> None:
    path = path_between(camera.cameras, camera.config["frames"], double_last_step=True, early_intrinsics=True)
    poses = camera.numbers["interp.poses"].double()
    torch.testing.assert_close(path.world_from_camera, poses, **TOLERANCE)
    check(path, camera.numbers["points"][0], camera, "interp")

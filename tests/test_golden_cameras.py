"""The teacher's camera paths against numbers from the teacher's own code."""

import re
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.cameras.viewcrafter import (
    path_between,
    path_target,
    path_text,
    text_values,
)
from golden_numbers import GoldenSet
from viewcrafter_frames import to_camera_frame, to_object_frame

pytestmark = pytest.mark.golden("camera.io")


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
        radius, elevation = float(self.numbers["radius"]), float(self.numbers["elevation"])
        return to_object_frame(self.cameras, self.numbers["points"], self.config["anchor"], radius, elevation)

    @property
    def tolerance(self) -> float:
        """1e-5 of the largest coordinate: the original computes in single precision."""
        largest = max(float(self.numbers[name].abs().max()) for name in ("points", "c2ws", "radius"))
        return 1e-5 * max(1.0, largest)

    def close(self, ours: Tensor, key: str, column: int | None = None) -> None:
        theirs = self.numbers[key].double() if column is None else self.numbers[key][..., column].double()
        torch.testing.assert_close(ours, theirs, atol=self.tolerance, rtol=1e-5, msg=lambda m: f"{key}: {m}")


@pytest.fixture
def camera(golden_set: GoldenSet) -> Golden:
    return Golden(golden_set.config["camera"], golden_set.read("camera.io"), golden_set.cameras())


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


def check(cameras: Cameras, camera: Golden, prefix: str) -> None:
    assert len(cameras) == int(camera.numbers[f"{prefix}.num_views"])
    for key, value in pytorch3d(cameras).items():
        camera.close(value, f"{prefix}.{key}")
    ours, theirs = ndc(cameras, camera.numbers["points"][0]), camera.numbers[f"{prefix}.pts0_ndc_xy_viewz"].double()
    camera.close(ours[..., 2], f"{prefix}.pts0_ndc_xy_viewz", column=2)
    # x and y are quotients: the camera's error is magnified where a point is close to the camera's plane
    magnified = (ours[..., :2].abs() + 1).amax(-1) * (1 + 1 / theirs[..., 2].abs())
    assert float(((ours - theirs)[..., :2].abs().amax(-1) / magnified).max()) < camera.tolerance


def test_camera_frame(camera: Golden) -> None:
    views = [
        int(key[len("to_kth") : -len(".poses")]) for key in camera.numbers if re.fullmatch(r"to_kth.*\.poses", key)
    ]
    assert views
    for view in views:
        cameras, points = to_camera_frame(camera.cameras, camera.numbers["points"], view)
        camera.close(cameras.world_from_camera, f"to_kth{view}.poses")
        camera.close(points, f"to_kth{view}.points")


def test_object_frame(camera: Golden) -> None:
    cameras, points = camera.object_frame
    prefix = f"to_obj{camera.config['anchor']}"
    camera.close(cameras.world_from_camera, f"{prefix}.poses")
    camera.close(points, f"{prefix}.points")


def test_direct(camera: Golden) -> None:
    check(camera.cameras, camera, "direct")


def test_target(camera: Golden) -> None:
    frames = int(camera.numbers["specified.num_views"])
    check(path_target(camera.anchor, frames, **camera.config["target"]), camera, "specified")


def test_text(camera: Golden) -> None:
    text, frames = camera.config["text"], int(camera.numbers["txt.num_views"])
    for key in ("phis", "thetas", "rs"):
        camera.close(torch.from_numpy(text_values(text[key], frames)), f"txt.{key}")
    check(path_text(camera.anchor, frames, text["phis"], text["thetas"], text["rs"]), camera, "txt")


def test_between(camera: Golden) -> None:
    if "interp.poses" not in camera.numbers:
        pytest.skip("GOLDEN NUMBERS ABSENT: this set has no interp.* (one camera alone has no path between)")
    windows = len(camera.cameras) - 1
    frames = (len(camera.numbers["interp.poses"]) - 1) // windows + 1
    path = path_between(camera.cameras, frames, double_last_step=True, early_intrinsics=True)
    camera.close(path.world_from_camera, "interp.poses")
    check(path, camera, "interp")

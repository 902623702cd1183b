"""An output's cameras, frames and points as nerfstudio's own loader reads them (`ns-train splatfacto --data OUT`)."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from fvgen.cameras import Cameras
from fvgen.scene.formats.images import write_png
from fvgen.scene.formats.ply import write_ply
from fvgen.scene.formats.transforms_json import write_transforms_json


def write_output(folder: Path, focals: list[float]) -> Cameras:
    """What of an output nerfstudio looks at, written by what writes outputs."""
    count, (width, height) = len(focals), (96, 64)
    poses = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    poses[:, 0, 3] = torch.linspace(-1, 1, count, dtype=torch.float64)
    poses[:, :3, :3] = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    matrices = torch.stack([torch.tensor([[f, 0, 50.0], [0, f, 30.0], [0, 0, 1.0]]) for f in focals])
    cameras = Cameras(poses, matrices, torch.tensor([[width, height]]).repeat(count, 1))
    (folder / "images").mkdir(parents=True)
    names = [f"images/{i:05d}.png" for i in range(count)]
    for i, name in enumerate(names):
        write_png(folder / name, torch.full((height, width, 3), i, dtype=torch.uint8))
    extras = [{"source": "photo", "photo": "a.jpg"}, *({"source": "generated"} for _ in names[1:])]
    write_transforms_json(folder / "transforms.json", cameras, names, extras, {"ply_file_path": "points.ply"})
    write_ply(folder / "points.ply", torch.rand(20, 3), torch.zeros(20, 3).byte())
    return cameras


@pytest.mark.parametrize("focals", [[80.0] * 6, [80.0, 81, 82, 83, 84, 85]])
def test_nerfstudio_reads_an_output_as_it_is(tmp_path: Path, focals: list[float]) -> None:
    pytest.importorskip("nerfstudio", reason="NERFSTUDIO ABSENT (docs/reconstruction.md says how it is installed)")
    module = importlib.import_module("nerfstudio.data.dataparsers.nerfstudio_dataparser")
    expected = write_output(tmp_path / "out", focals)
    config = module.NerfstudioDataParserConfig(
        data=tmp_path / "out",
        orientation_method="none",
        center_method="none",
        auto_scale_poses=False,
        eval_mode="all",
        load_3D_points=False,
    )
    read = config.setup().get_dataparser_outputs("train")
    assert [p.name for p in read.image_filenames] == [f"{i:05d}.png" for i in range(6)]
    opengl = torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64))
    poses = (expected.world_from_camera @ opengl)[:, :3]
    np.testing.assert_allclose(read.cameras.camera_to_worlds.numpy(), poses.numpy(), atol=1e-6)
    np.testing.assert_allclose(read.cameras.fx.squeeze().numpy(), focals)
    assert read.cameras.width.unique().tolist() == [96]
    assert read.cameras.cx.unique().tolist() == [50]
    assert not bool(read.cameras.distortion_params.any())

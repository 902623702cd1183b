"""Gaussians from views: the splatter against closed forms and finite differences; files, fitting, errors."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fvgen.errors import UserError
from fvgen.reconstruction.gaussians import Gaussians
from fvgen.reconstruction.ply import read_gaussians, write_gaussians


def random_gaussians(count: int, coefficients: int = 1, seed: int = 0, dtype: torch.dtype = torch.float32) -> Gaussians:
    """Gaussians in front of a camera at the origin that looks along z."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    means = normal(count, 3) * torch.tensor([0.6, 0.4, 0.5]) + torch.tensor([0.0, 0.0, 3.0])
    log_scales = normal(count, 3) * 0.4 - 2.3
    sh = normal(count, coefficients, 3) * 0.5
    sh[:, 1:] *= 0.3
    parts = (means, log_scales, normal(count, 4), normal(count), sh)
    return Gaussians(*(part.to(dtype) for part in parts))


@pytest.mark.parametrize("coefficients", [1, 4, 9, 16])
def test_ply_gives_back_what_was_written(tmp_path: Path, coefficients: int) -> None:
    gaussians = random_gaussians(57, coefficients)
    write_gaussians(tmp_path / "scene.ply", gaussians)
    back = read_gaussians(tmp_path / "scene.ply")
    assert back.degree == gaussians.degree
    for name, value in gaussians.parameters().items():
        expected = torch.nn.functional.normalize(value, dim=1) if name == "quaternions" else value
        torch.testing.assert_close(back.parameters()[name], expected)


def test_ply_has_the_layout_of_the_original_program(tmp_path: Path) -> None:
    gaussians = random_gaussians(3, 4)
    write_gaussians(tmp_path / "scene.ply", gaussians)
    head, _, body = (tmp_path / "scene.ply").read_bytes().partition(b"end_header\n")
    names = [line.split()[2] for line in head.decode().splitlines() if line.startswith("property float ")]
    rest = [f"f_rest_{i}" for i in range(9)]
    assert names == (
        [*"xyz", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *rest, "opacity"]
        + ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    )
    row = dict(zip(names, np.frombuffer(body, "<f4").reshape(3, -1)[1]))
    assert row["f_rest_4"] == pytest.approx(float(gaussians.sh[1, 2, 1]))  # second of green's three
    assert row["opacity"] == pytest.approx(float(gaussians.opacity_logits[1]))
    assert (row["nx"], row["scale_2"]) == (0, pytest.approx(float(gaussians.log_scales[1, 2])))


def test_files_that_are_no_gaussians_are_refused_in_one_line(tmp_path: Path) -> None:
    from fvgen.scene.formats.ply import write_ply

    path = tmp_path / "scene.ply"
    with pytest.raises(UserError, match="no such file"):
        read_gaussians(path)
    path.write_bytes(b"not a ply at all")
    with pytest.raises(UserError, match="not a PLY"):
        read_gaussians(path)
    write_ply(path, torch.zeros(4, 3), torch.zeros(4, 3).byte())
    with pytest.raises(UserError, match="a point cloud, not 3D Gaussians"):
        read_gaussians(path)
    write_gaussians(path, random_gaussians(9))
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    with pytest.raises(UserError, match="cut off"):
        read_gaussians(path)
    path.write_bytes(whole.replace(b"binary_little_endian", b"binary_big_endian"))
    with pytest.raises(UserError, match="little-endian"):
        read_gaussians(path)
    write_gaussians(path, Gaussians(*(v * float("nan") for v in random_gaussians(2).parameters().values())))
    with pytest.raises(UserError, match="not finite"):
        read_gaussians(path)

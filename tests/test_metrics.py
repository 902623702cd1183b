"""Metrics of pictures against closed forms and the reference implementations."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fvgen.errors import UserError
from fvgen.evaluation.metrics import FRAME_METRICS, SET_METRICS, FrameMetrics, available, gradient_energy, psnr, ssim
from fvgen.evaluation.metrics.networks import Lpips, Trunk, alexnet_trunk, blurred, vgg16_trunk
from fvgen.evaluation.metrics.pixels import gradient_ratio, psnr_of_frames, ssim_skimage11, ssim_torchmetrics

Pair = tuple[Tensor, Tensor]


@pytest.fixture
def random_pair() -> Pair:
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(2, 40, 56, 3, generator=generator, dtype=torch.float64)
    return a, (a + 0.2 * torch.rand(a.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)


@pytest.fixture
def real_pair(shared: Path) -> Pair:
    """Two photos of a real scene, ``[1, 120, 160, 3]``."""
    from PIL import Image

    photos = sorted(p for p in (shared / "data").rglob("*") if p.suffix.lower() in {".jpg", ".png"})[:2]
    if len(photos) < 2:
        pytest.skip(f"REAL DATA ABSENT: no photos in {shared / 'data'}")
    arrays = [np.asarray(Image.open(p).convert("RGB").resize((160, 120))) for p in photos]
    a, b = (torch.from_numpy(v.copy())[None].double() / 255 for v in arrays)
    return a, b


@pytest.fixture(params=["random_pair", "real_pair"])
def pair(request: pytest.FixtureRequest) -> Pair:
    return request.getfixturevalue(request.param)


def test_psnr_of_a_known_error():
    truth = torch.zeros(2, 8, 8, 3)
    assert psnr(truth + 0.1, truth) == pytest.approx(20.0, abs=1e-4)
    mask = torch.zeros(2, 8, 8, dtype=torch.bool)
    mask[:, :4] = True
    half = truth.clone()
    half[:, :4] += 0.01
    assert psnr(half, truth, mask) == pytest.approx(40.0, abs=1e-3)


def test_psnr_of_equal_pictures_is_a_number():
    assert psnr_of_frames(torch.ones(1, 8, 8, 3), torch.ones(1, 8, 8, 3)).tolist() == [100.0]


def test_psnr_is_that_of_scikit_image(pair: Pair):
    metrics = pytest.importorskip("skimage.metrics")
    expected = [metrics.peak_signal_noise_ratio(t.numpy(), p.numpy(), data_range=1.0) for p, t in zip(*pair)]
    assert psnr_of_frames(*pair).tolist() == pytest.approx(expected, abs=1e-6)


def test_ssim_is_that_of_scikit_image(pair: Pair):
    metrics = pytest.importorskip("skimage.metrics")
    how = {"win_size": 11, "gaussian_weights": True, "channel_axis": -1, "data_range": 1.0}
    expected = [metrics.structural_similarity(p.numpy(), t.numpy(), **how) for p, t in zip(*pair)]
    assert ssim_skimage11(*pair).tolist() == pytest.approx(expected, abs=1e-6)
    assert ssim(*pair) == pytest.approx(np.mean(expected), abs=1e-6)


def test_ssim_is_that_of_torchmetrics(pair: Pair):
    functional = pytest.importorskip("torchmetrics.functional.image")
    images = [v.movedim(-1, 1) for v in pair]
    expected = functional.structural_similarity_index_measure(*images, data_range=1.0, reduction="none")
    assert ssim_torchmetrics(*pair).tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_ssim_of_torchmetrics_counts_the_mirrored_border(pair: Pair):
    """The same number by scipy's filters: population moments, and pictures mirrored about their border pixels."""
    from scipy.ndimage import gaussian_filter

    def blur(v: np.ndarray) -> np.ndarray:
        return gaussian_filter(v, 1.5, radius=5, mode="mirror", axes=(0, 1))

    expected = []
    for x, y in zip(*(v.numpy() for v in pair)):
        mx, my = blur(x), blur(y)
        above = (2 * mx * my + 1e-4) * (2 * (blur(x * y) - mx * my) + 9e-4)
        below = (mx**2 + my**2 + 1e-4) * (blur(x * x) - mx**2 + blur(y * y) - my**2 + 9e-4)
        expected.append((above / below).mean())
    assert ssim_torchmetrics(*pair).tolist() == pytest.approx(expected, abs=1e-6)


def test_blur_lowers_gradient_energy():
    picture = torch.rand(1, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.avg_pool2d(picture.movedim(-1, 1), 3, 1, 1).movedim(1, -1)
    assert gradient_energy(smooth) < 0.5 * gradient_energy(picture)
    assert float(gradient_ratio(smooth, picture)) == pytest.approx(gradient_energy(smooth) / gradient_energy(picture))
    assert gradient_ratio(smooth, torch.ones_like(smooth)).isnan().all()


def test_values_come_by_picture_and_from_eight_bits(random_pair: Pair):
    names = ["psnr", "ssim_skimage11", "ssim_torchmetrics", "gradient_ratio"]
    eight = [(v * 255).round().byte() for v in random_pair]
    metrics = FrameMetrics(names)
    scores = metrics(*eight)
    assert list(scores) == names
    assert all(v.shape == (2,) and v.dtype == torch.float64 for v in scores.values())
    assert scores["psnr"][0] != scores["psnr"][1]
    second = metrics(*(v[1:].float() / 255 for v in eight))
    assert all(torch.equal(second[n], scores[n][1:]) for n in names)
    assert metrics(eight[0][:0], eight[1][:0])["psnr"].shape == (0,)


@pytest.mark.parametrize(
    ("predicted", "words"),
    [
        (torch.zeros(1, 16, 17, 3), "17x16 were given to be compared with 1 pictures of 16x16"),
        (torch.zeros(2, 16, 16, 3), "2 pictures"),
        (torch.zeros(1, 3, 16, 16), "not \\[frames, height, width, 3\\]"),
        (torch.zeros(1, 16, 16, 3, dtype=torch.int32), "torch.int32; metrics take uint8"),
        (torch.full((1, 16, 16, 3), 255.0), "from 255 to 255"),
        (torch.full((1, 16, 16, 3), torch.nan), "must lie in 0..1"),
    ],
)
def test_pictures_that_cannot_be_compared_are_refused(predicted: Tensor, words: str):
    with pytest.raises(UserError, match=words):
        FrameMetrics(["psnr"])(predicted, torch.zeros(1, 16, 16, 3))


def test_an_unknown_metric_is_refused():
    with pytest.raises(UserError, match="no metric 'lpips' here; these exist: psnr, .*lpips_vgg_norm"):
        FrameMetrics(["psnr", "lpips"])
    with pytest.raises(UserError, match="no metric 'fvd'"):
        available(["fvd"])


ALEXNET_WIDTHS, VGG16_WIDTHS = (64, 192, 384, 256, 256), (64, 128, 256, 512, 512)


@pytest.mark.parametrize(
    ("trunk", "shift_tolerant", "widths"),
    [(alexnet_trunk, False, ALEXNET_WIDTHS), (alexnet_trunk, True, ALEXNET_WIDTHS), (vgg16_trunk, True, VGG16_WIDTHS)],
)
def test_lpips_of_random_weights_is_a_distance(
    random_pair: Pair, trunk: Callable[[bool], Trunk], shift_tolerant: bool, widths: tuple[int, ...]
):
    torch.manual_seed(0)
    metric = Lpips(trunk(shift_tolerant), [torch.rand(1, c, 1, 1) for c in widths])
    a, b = (v.repeat(1, 2, 2, 1).float() for v in random_pair)
    with torch.no_grad():
        assert metric(a, a).tolist() == [0, 0]
        assert (metric(a, b) > 0).all()
        assert torch.allclose(metric(a, b), metric(b, a))
        assert not torch.allclose(metric(a, b), metric(a, b, scaled=False), rtol=0.01)


def test_blurring_is_a_filter_of_scipy():
    from scipy.ndimage import correlate1d

    image = torch.rand(2, 3, 12, 15, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wider = np.pad(image.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode="reflect")
    for axis in (2, 3):
        wider = correlate1d(wider, [0.25, 0.5, 0.25], axis)
    found = blurred(torch.nn.Identity())(image)
    assert found.shape == (2, 3, 7, 9)
    assert found.numpy() == pytest.approx(wider[:, :, 1:-1:2, 1:-1:2], abs=1e-12)


@pytest.mark.parametrize(
    ("trunk", "widths", "sizes"),
    [
        (alexnet_trunk, ALEXNET_WIDTHS, [(30, 47), (15, 24), (8, 12), (8, 12), (8, 12)]),
        (vgg16_trunk, VGG16_WIDTHS, [(64, 97), (33, 49), (17, 25), (9, 13), (5, 7)]),
    ],
)
def test_shift_tolerant_trunks_halve_step_by_step(
    trunk: Callable[[bool], Trunk], widths: tuple[int, ...], sizes: list[tuple[int, int]]
):
    with torch.no_grad():
        outputs = trunk(True)(torch.rand(1, 3, 64, 97))
    assert [tuple(v.shape[1:]) for v in outputs] == [(c, *size) for c, size in zip(widths, sizes)]


def test_every_metric_that_can_run_finds_equal_pictures_equal(real_pair: Pair):
    names = [n for n, reason in available(list(FRAME_METRICS)).items() if not reason]
    best = {"psnr": 100.0} | {n: {"higher": 1.0, "one": 1.0, "lower": 0.0}[FRAME_METRICS[n].better] for n in names[1:]}
    found = FrameMetrics(names)(real_pair[1], real_pair[1])
    assert {n: float(v) for n, v in found.items()} == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("name", ["efficientnet_lite0_distance", "stlpips_alex", "stlpips_vgg"])
def test_distance_of_features_grows_with_noise(real_pair: Pair, name: str):
    if reason := available([name])[name]:
        pytest.skip(f"WEIGHTS ABSENT: {reason}")
    truth = real_pair[1]
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    metrics = FrameMetrics([name])
    values = [float(metrics((truth + s * noise).clamp(0, 1), truth)[name]) for s in (0.02, 0.05, 0.1, 0.2)]
    assert values == sorted(values)
    assert values[0] > 1e-3
    assert values[-1] < 4


def test_the_documented_example_runs(capsys: pytest.CaptureFixture[str]):
    page = (Path(__file__).parent.parent / "docs" / "evaluation.md").read_text("utf-8")
    example = page.split("## Metrics")[1].split("```python\n")[1].split("```")[0]
    exec(compile(example, "docs/evaluation.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "tensor([2" in printed  # about 26 dB
    assert "'images': 3" in printed


def test_every_metric_is_documented():
    page = (Path(__file__).parent.parent / "docs" / "evaluation.md").read_text("utf-8")
    assert [n for n in (*FRAME_METRICS, *SET_METRICS) if f"| `{n}` |" not in page] == []

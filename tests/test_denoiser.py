"""The denoiser's start from its guide, against the closed form of a Gaussian clip."""

from dataclasses import replace

import pytest
import torch

from fvgen.models import Condition, VideoModel, preset
from fvgen.models.conditioner import ImageConditioner
from fvgen.models.denoiser import GuideVariance
from fvgen.models.model import SamplingConfig
from fvgen.models.resampler import ResamplerConfig
from fvgen.models.sampling import sample_latents


@pytest.fixture(scope="module")
def denoiser():
    return VideoModel.build(preset("mini-xs")).denoiser


def gaussian_clips(denoiser, count: int):
    """Guides with coverage, and clips that differ from them by just the assumed variance."""
    generator = torch.Generator().manual_seed(0)
    guide = torch.randn(count, 12, 2, 12, 12, generator=generator)
    coverage = torch.rand(count, 1, 2, 12, 12, generator=generator) * 2 - 1
    variance = denoiser.guide_variance.at(guide, (coverage + 1) / 2)
    clips = guide + variance.sqrt() * torch.randn(guide.shape, generator=generator)
    tokens = torch.zeros(count, 1, 1)
    return clips, Condition(torch.cat([guide, coverage], 1), tokens, tokens), generator


@pytest.mark.parametrize("time", [999, 749, 499, 249, 20])
def test_prior_is_the_posterior_of_a_gaussian_clip(denoiser, time):
    """What is left of the velocity has the promised spread, and nothing of ``x_t`` in it."""
    clips, condition, generator = gaussian_clips(denoiser, 40)
    t = torch.full((40,), time)
    noise = torch.randn(clips.shape, generator=generator)
    x_t = denoiser.schedule.add_noise(clips, noise, t)
    mean, deviation = denoiser.prior(x_t, t, condition)
    left = (denoiser.schedule.velocity(clips, noise, t) - mean) / deviation
    assert left.std() == pytest.approx(1, abs=0.01)
    assert left.mean().abs() < 0.01
    a, _, c = denoiser.schedule.coefficients(t, x_t)
    residual = x_t - a * c * condition.concat[:, :12]
    assert (left * residual).mean().abs() < 0.01


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_vary_about_the_guide_as_much_as_the_temperature_says(denoiser, temperature):
    """An untrained network adds nothing: what is sampled is the guide plus Gaussian errors."""
    _, condition, generator = gaussian_clips(denoiser, 6)
    model = VideoModel.build(preset("mini-xs"))
    sampling = SamplingConfig(steps=100, temperature=temperature)
    model.config = replace(model.config, sampling=sampling)
    tokens = torch.zeros(6, 8, 64)
    condition = replace(condition, context=tokens, null_context=None)
    guide = condition.concat[:, :12]
    made = sample_latents(model, condition, torch.randn(guide.shape, generator=generator), 100, 1.0)
    deviation = model.denoiser.guide_variance.at(guide, (condition.concat[:, 12:] + 1) / 2).sqrt()
    assert float(((made - guide) / deviation).std()) == pytest.approx(temperature, rel=0.1)


def test_guides_are_wrong_where_they_are_busy_or_guessed():
    flat, busy = torch.zeros(1, 4, 1, 8, 8), torch.zeros(1, 4, 1, 8, 8)
    busy[..., ::2] = 1
    known, unknown = torch.ones(1, 1, 1, 8, 8), torch.zeros(1, 1, 1, 8, 8)
    variance = GuideVariance(0.1, 1.0, 0.2, 2.0)
    assert torch.allclose(variance.at(flat, known), torch.tensor(0.1))
    assert torch.allclose(variance.at(flat, unknown), torch.tensor(0.2))
    assert (variance.at(busy, known) > 0.2).all()
    assert torch.allclose(variance.at(busy, unknown), 2 * variance.at(busy, known))


def test_without_a_variance_the_network_is_the_velocity():
    model = VideoModel.build(preset("mini-xs"))
    model.denoiser.guide_variance = None
    x_t, t = torch.randn(1, 12, 2, 8, 8), torch.tensor([500])
    condition = Condition(torch.randn(1, 13, 2, 8, 8), torch.randn(1, 8, 64), torch.zeros(1, 8, 64))
    inputs = torch.cat([x_t, condition.concat], 1)
    expected = model.denoiser.unet(inputs, t, condition.context, None)
    assert torch.equal(model.denoiser.velocity(x_t, t, condition), expected)


def test_decoding_around_the_guide_keeps_what_the_model_leaves_alone():
    """The autoencoder's error stays out of the picture; without a guide variance frames are decoded as they are."""
    torch.manual_seed(0)
    model = VideoModel.build(preset("mini-xs"))
    guide = torch.rand(1, 2, 3, 32, 32) * 2 - 1
    concat = model.concat_condition(guide, torch.ones(1, 2, 32, 32, dtype=torch.bool))
    with torch.no_grad():
        every, some = torch.arange(2), torch.tensor([1])
        assert torch.allclose(model.decode(concat[:, :12], concat, guide, every), guide[0], atol=1e-5)
        changed = concat[:, :12] + 0.1
        difference = model.autoencoder.decode(changed) - model.autoencoder.decode(concat[:, :12])
        assert torch.allclose(model.decode(changed, concat, guide, every), (guide + difference)[0], atol=1e-5)
        assert torch.allclose(model.decode(changed, concat, guide, some), (guide + difference)[0, 1:], atol=1e-5)
        model.config = replace(model.config, guide_variance=None)
        assert torch.equal(model.decode(changed, concat, guide, every), model.autoencoder.decode(changed)[0])


def test_a_training_looks_at_what_users_are_shown():
    """Where the guide was measured, at its latents but for the share of the change that is taken."""
    torch.manual_seed(0)
    model = VideoModel.build(preset("mini-xs"))
    coverage = torch.zeros(1, 2, 32, 64, dtype=torch.bool)
    coverage[..., :32] = True
    condition = model.condition(torch.rand(1, 2, 3, 32, 64) * 2 - 1, coverage, torch.zeros(1, 3, 32, 64))
    guide = condition.concat[:, :12]
    changed = guide + 0.1
    assert torch.equal(model.shown_latents(changed, condition), changed)
    model.config = replace(model.config, sampling=replace(model.config.sampling, told_share=0.25))
    shown = model.shown_latents(changed, condition) - guide
    torch.testing.assert_close(shown[..., :8], torch.full_like(shown[..., :8], 0.025))
    torch.testing.assert_close(shown[..., 8:], torch.full_like(shown[..., 8:], 0.1))


def test_without_a_tower_tokens_are_the_same_for_every_image_and_learn():
    conditioner = ImageConditioner(None, ResamplerConfig(num_queries=3, output_dim=8), 2)
    context, null = conditioner(torch.rand(2, 3, 0, 0))
    assert context.shape == null.shape == (2, 5, 8)
    assert torch.equal(context[0], context[1])
    assert torch.equal(context[:, 2:], null[:, 2:])
    assert not torch.equal(context[:, :2], null[:, :2])
    context.square().sum().backward()
    assert conditioner.image_tokens.grad is not None
    assert {name for name, _ in conditioner.named_parameters()} == {"prompt", "empty_prompt", "image_tokens"}

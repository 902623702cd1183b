"""Our networks against numbers recorded from the real teacher's code."""

import re

import pytest
import torch
from torch import nn

from fvgen.models.autoencoder import FrameAutoencoder
from fvgen.models.conditioner import ImageConditioner
from fvgen.models.resampler import Resampler, ResamplerConfig
from fvgen.models.unet import VideoUNet
from fvgen.models.viewcrafter.config import autoencoder_config, clip_configs, resampler_config, unet_config
from fvgen.models.viewcrafter.keys import place
from fvgen.models.viewcrafter.text import EMPTY_PROMPT, PROMPT, embed_text
from golden_numbers import TEXT_TOKENS, TOKENS_PER_FRAME, sees_own_tokens


def placed(weights, prefix, component, levels=4):
    """Weights under our names, strictly those of one component."""
    found = {}
    for key, value in weights.items():
        where = place(prefix + key, levels)
        if where.component == component:
            found.update(zip(where.names, where.split(value)))
    return found


def build_unet(golden_set, per_frame):
    with torch.device("meta"):
        unet = VideoUNet(unet_config(golden_set.config["unet_config"]["params"], per_frame)).eval()
    weights = placed(golden_set.read("unet.weights"), "model.diffusion_model.", "unet")
    unet.load_state_dict(weights, strict=True, assign=True)
    return unet


_INNER = {
    "time_embed": "time_embed",
    "fps_embedding": "fs_embed",
    "init_attn": "init_temporal",
    "input_blocks.0": "conv_in",
}


def stage_parts(*stages):
    """What the original holds in one list: the residual block, the transformers and the resampling that there are."""
    parts = [part for stage in stages for part in (stage.res, stage.spatial, stage.temporal, stage.resample)]
    return [part for part in parts if part is not None]


def inner_module(unet: nn.Module, name: str) -> nn.Module:
    """Our module for a ``mid`` name of the golden numbers."""
    if name in _INNER:
        return unet.get_submodule(_INNER[name])
    side, index, part, rest = re.fullmatch(
        r"(?:(input|output)_blocks\.(\d+)|middle_block)(?:\.(\d+))?(?:\.(.+))?", name
    ).groups()
    if side is None:
        whole, stages = unet.middle, (unet.middle.first, unet.middle.second)
    else:
        whole = unet.encoder[int(index) - 1] if side == "input" else unet.decoder[int(index)]
        stages = (whole,)
    if part is None:
        return whole
    module = stage_parts(*stages)[int(part)]
    # The temporal convolutions end our residual block; their output is its own.
    inside = (rest or "").removeprefix("temopral_conv").replace("transformer_blocks.0", "block")
    return module.get_submodule(inside)


def folded(tensor, frames):
    """Frames in the batch, whether they were there already or on an axis of their own."""
    return tensor.transpose(1, 2).flatten(0, 1) if tensor.ndim == 5 and tensor.shape[2] == frames else tensor


@pytest.mark.golden("unet.io", "unet.weights")
def test_unet_equals_the_teachers_block_by_block(golden_set):
    io = golden_set.read("unet.io")
    for case in golden_set.cases(io):
        x, context = io[f"{case}.x"], io[f"{case}.context"]
        # The original branches on this length; our configuration says it outright.
        unet = build_unet(golden_set, sees_own_tokens(context, x.shape[2]))
        seen: dict[str, torch.Tensor] = {}
        names = [k.removeprefix(f"{case}.mid.") for k in io if k.startswith(f"{case}.mid.")]
        for name in names:
            module = inner_module(unet, name)
            module.register_forward_hook(lambda m, a, out, name=name, seen=seen: seen.update({name: out}))
        with torch.no_grad():
            y = unet(x, io[f"{case}.timesteps"].long(), context, io.get(f"{case}.fs"))
        off = []
        for name in names:
            theirs, ours = (folded(t, x.shape[2]) for t in (io[f"{case}.mid.{name}"], seen[name]))
            error = (theirs - ours).abs().max().item()
            if error > 2e-5 * max(1, theirs.abs().max().item()):
                off.append(f"{name}: {error:.1e}")
        assert not off, f"{case}: blocks that differ: {off}"
        torch.testing.assert_close(y, io[f"{case}.y"], atol=2e-5, rtol=0)


@pytest.mark.golden("unet.io", "unet.weights")
def test_early_exit_features_equal_the_full_pass(golden_set):
    io = golden_set.read("unet.io")
    case = golden_set.cases(io)[0]
    x, context = io[f"{case}.x"], io[f"{case}.context"]
    unet = build_unet(golden_set, sees_own_tokens(context, x.shape[2]))
    arguments = (x, io[f"{case}.timesteps"].long(), context, io.get(f"{case}.fs"))
    with torch.no_grad():
        features = unet(*arguments, features_only=True)
        _, both = unet(*arguments, return_features=True)
    assert torch.equal(features, both)


@pytest.mark.golden("unet.io", "unet.weights")
def test_frames_see_their_own_image_tokens_in_shorter_clips_too(golden_set):
    io, unet = golden_set.read("unet.io"), build_unet(golden_set, per_frame=True)
    case = golden_set.cases(io)[0]
    side, frames = 2 ** (len(unet.config.channel_mult) - 1), 3
    x, text = torch.randn(1, unet.config.in_channels, frames, side, side), io[f"{case}.context"][:1, :TEXT_TOKENS]
    longer = torch.cat([text, torch.randn(1, TOKENS_PER_FRAME * 16, text.shape[-1])], dim=1)
    needed = TEXT_TOKENS + TOKENS_PER_FRAME * frames
    with torch.no_grad():
        whole = unet(x, torch.tensor([500]), longer)
        cut = unet(x, torch.tensor([500]), longer[:, :needed])
    assert torch.equal(whole, cut)
    with pytest.raises(ValueError, match="image tokens"):
        unet(x, torch.tensor([500]), longer[:, : needed - 1])


@pytest.mark.golden("vae.io", "vae.weights")
def test_vae_equals_the_teachers(golden_set):
    io = golden_set.read("vae.io")
    config = autoencoder_config(golden_set.config["first_stage_config"]["params"], golden_set.config["scale_factor"])
    autoencoder = FrameAutoencoder(config).eval()
    weights = placed(golden_set.read("vae.weights"), "first_stage_model.", "vae", len(config.channels))
    autoencoder.vae.load_state_dict(weights, strict=True)
    for case in golden_set.cases(io):
        x, noise = io[f"{case}.x"], io[f"{case}.noise"].transpose(0, 1)[None]
        with torch.no_grad():
            posterior = autoencoder.vae.encode(x).latent_dist
            mode, sampled = autoencoder.encode(x[None]), autoencoder.encode(x[None], noise)
            decoded = autoencoder.decode(io[f"{case}.z_latent_scaled"].transpose(0, 1)[None])[0]
        ours = {
            "moments": posterior.parameters,
            "mean": posterior.mean,
            "logvar": posterior.logvar,
            "std": posterior.std,
            "z_sample": posterior.mean + posterior.std * io[f"{case}.noise"],
        }
        for name, value in ours.items():
            torch.testing.assert_close(value, io[f"{case}.{name}"], atol=5e-5, rtol=0)
        mean = io[f"{case}.mean"] * golden_set.config["scale_factor"]
        torch.testing.assert_close(mode[0].transpose(0, 1), mean, atol=5e-5, rtol=0)
        torch.testing.assert_close(sampled[0].transpose(0, 1), io[f"{case}.z_latent_scaled"], atol=5e-5, rtol=0)
        torch.testing.assert_close(decoded, io[f"{case}.decoded"], atol=5e-5, rtol=0)


@pytest.mark.golden("resampler.io", "resampler.weights")
def test_resampler_equals_the_teachers(golden_set):
    io = golden_set.read("resampler.io")
    resampler = Resampler(resampler_config(golden_set.config["image_proj_stage_config"]["params"]))
    weights = placed(golden_set.read("resampler.weights"), "image_proj_model.", "conditioner")
    resampler.load_state_dict({k.removeprefix("resampler."): v for k, v in weights.items()}, strict=True)
    with torch.no_grad():
        for case in golden_set.cases(io):
            torch.testing.assert_close(resampler(io[f"{case}.x"]), io[f"{case}.y"], atol=2e-5, rtol=0)


@pytest.mark.golden("clip.io", "clip_image.weights")
def test_clip_image_tower_and_its_preprocessing_equal_the_teachers(golden_set):
    io = golden_set.read("clip.io")
    vision, _ = clip_configs(golden_set.config["clip"])
    conditioner = ImageConditioner(vision, ResamplerConfig(embedding_dim=vision.hidden_size), TEXT_TOKENS).eval()
    weights = placed(golden_set.read("clip_image.weights"), "embedder.", "conditioner")
    conditioner.tower.load_state_dict({k.removeprefix("tower."): v for k, v in weights.items()}, strict=True)
    for case in golden_set.cases(io, "img"):
        pixels = conditioner.preprocess(io[f"{case}.u8"].float() / 127.5 - 1)
        for key in (k for k in io if k.startswith(f"{case}.preprocessed_stride")):
            stride = int(key.rsplit("stride", 1)[1])
            torch.testing.assert_close(pixels[..., ::stride, ::stride], io[key], atol=2e-5, rtol=0)
        with torch.no_grad():
            tokens = conditioner.tower(pixel_values=pixels, output_hidden_states=True).hidden_states[-1]
        torch.testing.assert_close(tokens, io[f"{case}.tokens_out"], atol=2e-5, rtol=0)


@pytest.mark.golden("clip.io", "clip_text.weights")
def test_clip_text_tower_equals_the_teachers(golden_set):
    io = golden_set.read("clip.io")
    _, text = clip_configs(golden_set.config["clip"])
    weights = placed(golden_set.read("clip_text.weights"), "cond_stage_model.", "text_encoder")
    embedded = embed_text(text, weights, io["text.tokens"].long())
    torch.testing.assert_close(embedded, io["text.out"], atol=2e-5, rtol=0)


@pytest.mark.golden("clip.io")
def test_the_fixed_prompt_has_the_tokenizers_ids(golden_set):
    ids = golden_set.read("clip.io")["prompt_token_ids"]
    for theirs, ours in zip(ids.tolist(), (PROMPT, EMPTY_PROMPT), strict=True):
        assert theirs == [*ours, *[0] * (TEXT_TOKENS - len(ours))]

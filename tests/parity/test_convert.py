"""Checkpoints in ViewCrafter's layout: every key, both ways, and the recorded video from a converted one."""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from fvgen.cli.main import main
from fvgen.models import VideoModel, preset
from fvgen.models.presets import PRESETS
from fvgen.models.sampling import sample_latents
from fvgen.models.viewcrafter import Choice, from_viewcrafter, to_viewcrafter
from fvgen.models.viewcrafter.config import clip_configs, model_config
from fvgen.models.viewcrafter.keys import BUFFERS, SCHEDULE, UNUSED, place
from fvgen.models.viewcrafter.text import build_text_tower
from fvgen.pipeline import NovelViewPipeline
from golden_numbers import TEXT_TOKENS, sees_own_tokens

REPOSITORY = Path(__file__).resolve().parent.parent.parent
# The whole small network with the weights that the recorded video was made with.
PARTS = ("unet", "vae", "resampler", "clip_text", "clip_image")
whole = pytest.mark.golden("schedule", "e2e.io", *(f"{part}.weights" for part in PARTS))
MANIFEST_PREFIXES = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "image_proj_model": "image_proj_model.",
    "cond_stage_model": "cond_stage_model.",
    "embedder": "embedder.",
    "ddpm_buffers": "",
}


@pytest.fixture(scope="session")
def manifest() -> dict:
    """Key and shape of every tensor of the published models (``FVGEN_MANIFEST``)."""
    default = REPOSITORY.parent / "shared" / "reference" / "viewcrafter_manifest.json"
    file = Path(os.environ.get("FVGEN_MANIFEST", default))
    if not file.is_file():
        pytest.skip(f"MANIFEST ABSENT: {file} (set FVGEN_MANIFEST)")
    return json.loads(file.read_text())


def modules(config, text):
    """Our networks by component, without weights."""
    return {**VideoModel.build(config, "meta").components(), "text_encoder": build_text_tower(text)}


def test_every_key_of_the_published_models_is_mapped_in_its_shape(manifest):
    config, (_, text) = preset("viewcrafter-25"), clip_configs(None)
    ours = {name: module.state_dict() for name, module in modules(config, text).items()}
    counted = dict.fromkeys(manifest["_meta"]["parameters"], 0)
    keys, reached = 0, {name: set() for name in ours}
    for part, prefix in MANIFEST_PREFIXES.items():
        for key, shape in manifest[part].items():
            where, keys = place(prefix + key), keys + 1
            if where.component in ours:
                tensor = where.join([ours[where.component][name] for name in where.names])
                assert list(tensor.shape) == shape, key
                reached[where.component].update(where.names)
                counted[part] += tensor.numel()
            elif where.component == UNUSED:
                counted[part] += torch.empty(shape, device="meta").numel()
            else:
                assert where.component == SCHEDULE
                assert key in BUFFERS
    assert keys == manifest["_meta"]["n_total_keys"]
    assert counted == manifest["_meta"]["parameters"]
    cached = {"conditioner": {"prompt", "empty_prompt"}}
    for name, state in ours.items():
        assert reached[name] == set(state) - cached.get(name, set())
    unet = sum(p.numel() for p in modules(config, text)["unet"].parameters())
    assert unet == manifest["_meta"]["parameters"]["unet"]


@pytest.mark.parametrize(
    ("name", "size", "frames", "scale", "per_frame"),
    [
        ("viewcrafter-25", (1024, 576), 25, 0.3, False),
        ("viewcrafter-25-sparse", (1024, 576), 25, 0.3, False),
        ("viewcrafter-16", (1024, 576), 16, 0.3, True),
        ("viewcrafter-25-512", (512, 320), 25, 0.7, False),
        ("viewcrafter-512-16", (512, 320), 16, 0.3, False),
    ],
)
def test_presets(name, size, frames, scale, per_frame):
    config = PRESETS[name]
    assert (config.width, config.height) == size
    assert config.frames == frames
    assert config.schedule.base_scale == scale
    assert config.unet.per_frame_image_tokens == per_frame
    assert (config.guide, config.coverage_channel, config.guide_variance) == ("points", False, None)


def test_the_yaml_gives_the_preset():
    """What ViewCrafter's YAML says of the 512 model gives exactly that preset."""
    unet = {
        **{"in_channels": 8, "out_channels": 4, "model_channels": 320, "attention_resolutions": [4, 2, 1]},
        **{"num_res_blocks": 2, "channel_mult": [1, 2, 4, 4], "dropout": 0.1, "num_head_channels": 64},
        **{"transformer_depth": 1, "context_dim": 1024, "use_linear": True, "temporal_conv": True},
        **{"temporal_attention": True, "temporal_selfatt_only": True, "use_relative_position": False},
        **{"addition_attention": True, "image_cross_attention": True, "default_fs": 10, "fs_condition": True},
    }
    shape = {"double_z": True, "z_channels": 4, "in_channels": 3, "out_ch": 3, "ch": 128, "num_res_blocks": 2}
    vae = {"embed_dim": 4, "ddconfig": {**shape, "ch_mult": [1, 2, 4, 4], "attn_resolutions": []}}
    resampler = {"dim": 1024, "depth": 4, "dim_head": 64, "heads": 12, "num_queries": 16}
    resampler = {**resampler, "embedding_dim": 1280, "output_dim": 1024, "ff_mult": 4, "video_length": 16}
    params = {
        **{"rescale_betas_zero_snr": True, "parameterization": "v", "linear_start": 0.00085, "linear_end": 0.012},
        **{"timesteps": 1000, "image_size": [40, 64], "scale_factor": 0.18215, "use_dynamic_rescale": True},
        **{"base_scale": 0.7, "unet_config": {"params": unet}, "first_stage_config": {"params": vae}},
        "image_proj_stage_config": {"params": resampler},
    }
    config, text = model_config(params, preset("viewcrafter-25"))
    assert config == preset("viewcrafter-25-512")
    assert text == clip_configs(None)[1]


@pytest.fixture(scope="session")
def tiny(golden_set, tmp_path_factory):
    """The golden weights as a checkpoint, converted by the command line: (checkpoint, folder, state)."""
    folder = tmp_path_factory.mktemp("viewcrafter")
    state, io = golden_set.state_dict(), golden_set.read("e2e.io")
    torch.save({"state_dict": state, "epoch": 7}, folder / "model.ckpt")
    frames, *size = io["c_concat"].shape[2:]
    yaml = golden_set.write_yaml(folder / "tiny.yaml", image_size=size)
    text = golden_set.write_text(folder / "text.safetensors")
    context = torch.cat([io["text_emb"], io["img_tokens"].expand(len(io["text_emb"]), -1, -1)], dim=1)
    tokens = "per-frame" if sees_own_tokens(context, frames) else "global"
    arguments = ["--config", str(yaml), "--text", str(text), "--frames", str(frames), "--image-tokens", tokens]
    assert main(["convert", str(folder / "model.ckpt"), "-o", str(folder / "tiny"), *arguments]) == 0
    return folder / "model.ckpt", folder / "tiny", state


@whole
def test_a_converted_checkpoint_generates_the_recorded_video(golden_set, tiny):
    io, run = golden_set.read("e2e.io"), golden_set.config["e2e"]
    pipeline = NovelViewPipeline.from_pretrained(tiny[1], device="cpu", dtype="float32")
    model = pipeline.model
    sampling = replace(model.config.sampling, eta=run["eta"], guidance_rescale=run["rescale"])
    model.config = replace(model.config, sampling=sampling)
    clip, recorded = io["videos_u8"].float() / 127.5 - 1, io["video_out"]
    clips, samples = recorded.shape[:2]
    assert (model.config.width, model.config.height) == (clip.shape[-1], clip.shape[-2])
    posterior = io["randn.vae_per_frame"].unflatten(0, (clips, -1)).transpose(1, 2)
    starts = io["randn.x_T"].reshape(samples, clips, *io["c_concat"].shape[1:])
    fresh = io["randn.steps"].reshape(samples, run["steps"], *starts.shape[1:])
    scale = 1.0 if run["cfg"] is None else run["cfg"]
    with torch.no_grad():
        made = model.condition(clip, torch.ones(0), clip[:, 0], posterior)
        branches = {"text_emb": made.context, "null_text_emb": made.null_context}
        for name, context in branches.items():
            assert torch.equal(context[0, :TEXT_TOKENS], io[name][0])
            # A model has one prompt; the recorded clips may each have their own.
            text = io[name].expand(clips, -1, -1)
            branches[name] = torch.cat([text, context[:, TEXT_TOKENS:]], dim=1)
        condition = replace(made, context=branches["text_emb"], null_context=branches["null_text_emb"])
        for start, noise, theirs in zip(starts, fresh, recorded.unbind(1), strict=True):
            latents = sample_latents(model, condition, start, run["steps"], scale, step_noise=list(noise))
            video = model.autoencoder.decode(latents)
            torch.testing.assert_close(video.transpose(1, 2), theirs, atol=1e-3, rtol=0)
    torch.testing.assert_close(made.concat, io["c_concat"], atol=5e-5, rtol=0)
    for ours, theirs in ((made.context, io["img_tokens"]), (made.null_context, io["uc_img_tokens"])):
        torch.testing.assert_close(ours[:, TEXT_TOKENS:], theirs.expand(clips, -1, -1), atol=5e-5, rtol=0)


def restored(file):
    return torch.load(file, weights_only=True)


def assert_same_bytes(ours, theirs):
    assert list(ours) == list(theirs)
    for key, value in theirs.items():
        assert ours[key].dtype == value.dtype, key
        assert ours[key].shape == value.shape, key
        same = ours[key].reshape(-1).view(torch.uint8), value.reshape(-1).view(torch.uint8)
        assert torch.equal(*same), key


def wrapped(state, form):
    """A checkpoint in one of the forms that are about."""
    if form == "state_dict":
        return {"state_dict": state, "global_step": 60000}
    if form == "module":
        return {"module": {f"_forward_module.{k}": v for k, v in state.items()}}
    old = {k.replace("fps_embedding", "framestride_embed"): v for k, v in state.items()}
    return {"state_dict": old} if form == "old names" else old


@whole
@pytest.mark.parametrize("form", ["state_dict", "module", "old names", "plain"])
def test_back_conversion_restores_keys_and_bytes(golden_set, tiny, tmp_path, form):
    state = {k: v.half() if form == "module" and k not in BUFFERS else v for k, v in tiny[2].items()}
    content = wrapped(state, form)
    torch.save(content, tmp_path / "in.ckpt")
    yaml, text = golden_set.write_yaml(tmp_path / "c.yaml"), golden_set.write_text(tmp_path / "t.safetensors")
    report = from_viewcrafter(tmp_path / "in.ckpt", tmp_path / "out", Choice(config=yaml, text=text))
    assert any(f"{len(state)} tensors" in line for line in report)
    to_viewcrafter(tmp_path / "out", tmp_path / "back.ckpt")
    back = restored(tmp_path / "back.ckpt")
    inner = content.get("state_dict", content.get("module", content))
    assert_same_bytes(back.get("state_dict", back.get("module", back)), inner)
    assert set(back) == {"state_dict"} if "state_dict" in content else set(back) == set(content)


@whole
def test_buffers_are_recomputed_not_stored_unless_they_differ(golden_set, tiny, tmp_path):
    with safe_open(tiny[1] / "unused.safetensors", "pt") as file:
        assert not set(file.keys()) & set(BUFFERS)
    state = dict(tiny[2])
    state["betas"] = state["betas"] * 1.5
    torch.save(state, tmp_path / "in.ckpt")
    yaml, text = golden_set.write_yaml(tmp_path / "c.yaml"), golden_set.write_text(tmp_path / "t.safetensors")
    from_viewcrafter(tmp_path / "in.ckpt", tmp_path / "out", Choice(config=yaml, text=text))
    to_viewcrafter(tmp_path / "out", tmp_path / "back.ckpt")
    assert_same_bytes(restored(tmp_path / "back.ckpt"), state)


@whole
def test_the_checkpoints_base_scale_comes_first(golden_set, tiny, tmp_path):
    scale = round(tiny[2]["scale_arr"][-1].item(), 6)
    yaml = golden_set.write_yaml(tmp_path / "c.yaml", base_scale=scale / 2)
    text = golden_set.write_text(tmp_path / "t.safetensors")
    report = from_viewcrafter(tiny[0], tmp_path / "out", Choice(config=yaml, text=text))
    assert any(line.startswith("base scale") for line in report)
    index = json.loads((tmp_path / "out" / "model_index.json").read_text())
    assert index["schedule"]["base_scale"] == scale


class Attack:
    def __reduce__(self):
        return os.system, ("touch hacked",)


def _break(name, state, file):
    if name == "truncated":
        torch.save(state, file)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif name == "another model":
        torch.save({"state_dict": {"blocks.0.weight": torch.zeros(3)}}, file)
    elif name == "a key missing":
        torch.save({k: v for k, v in state.items() if k != "model.diffusion_model.out.2.weight"}, file)
    elif name == "another size":
        changed = {k: torch.zeros(1, *v.shape) if k.endswith("out.2.bias") else v for k, v in state.items()}
        torch.save(changed, file)
    elif name == "malicious":
        torch.save({"state_dict": {**state, "x": Attack()}}, file)
    elif name == "malicious, old format":
        file.write_bytes(pickle.dumps({"state_dict": Attack()}, protocol=2))
    elif name == "text":
        file.write_text("not a checkpoint\n" * 100)
    elif name == "empty":
        file.write_bytes(b"")
    elif name == "a list":
        torch.save([1, 2, 3], file)


BROKEN = {
    "truncated": "cut off",
    "another model": "another model",
    "a key missing": "lacks 1 tensors of the unet",
    "another size": "of a model of another size",
    "malicious": "could run code",
    "malicious, old format": "could run code",
    "text": "damaged or not a PyTorch checkpoint",
    "empty": "damaged or not a PyTorch checkpoint",
    "a list": "holds a list",
    "absent": "no such file or folder",
}


@whole
@pytest.mark.parametrize("name", BROKEN)
def test_a_bad_checkpoint_ends_in_one_line_and_leaves_nothing(golden_set, tiny, tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    _break(name, tiny[2], tmp_path / "bad.ckpt")
    golden_set.write_yaml(tmp_path / "c.yaml")
    before = sorted(tmp_path.iterdir())
    capsys.readouterr()
    assert main(["convert", "bad.ckpt", "--config", "c.yaml", "-o", "out"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert BROKEN[name] in lines[0]
    assert sorted(tmp_path.iterdir()) == before


@whole
def test_a_bad_configuration_ends_in_one_line(golden_set, tiny, tmp_path, capsys):
    cases = {
        "unet_config": {"nothing": 1},
        "lacks model_channels": {
            "model": {"params": {"unet_config": {"params": {"in_channels": 8, "out_channels": 4}}}}
        },
        "cannot be read": "a: [",
    }
    common = {"use_linear": True, "temporal_conv": True, "use_relative_position": False}
    fixed = {**common, "image_cross_attention": True, "fs_condition": True}
    cases["lacks model_channels"]["model"]["params"]["unet_config"]["params"].update(fixed)
    for expected, content in cases.items():
        (tmp_path / "c.yaml").write_text(content if isinstance(content, str) else json.dumps(content))
        assert main(["convert", str(tiny[0]), "--config", str(tmp_path / "c.yaml"), "-o", str(tmp_path / "o")]) == 2
        assert expected in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_only_converted_folders_go_back(tmp_path, capsys):
    (tmp_path / "model").mkdir()
    assert main(["convert", str(tmp_path / "model"), "--to", "viewcrafter", "-o", str(tmp_path / "x.ckpt")]) == 2
    assert "was not converted" in capsys.readouterr().err
    assert not (tmp_path / "x.ckpt").exists()


MEASURED = """
import sys
from pathlib import Path
import torch, transformers, diffusers
from fvgen.models.viewcrafter import Choice, from_viewcrafter, to_viewcrafter
from fvgen.models.viewcrafter.text import build_text_tower, TextConfig
from fvgen.models import VideoModel, preset
VideoModel.build(preset("viewcrafter-25"), "meta")  # what the libraries themselves take comes before
build_text_tower(TextConfig())
# Not getrusage: its peak is inherited from the process that started this one.
peak = lambda: int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
source, yaml, out = map(Path, sys.argv[1:4])
before = peak()
if sys.argv[4] == "from":
    from_viewcrafter(source, out, Choice(config=yaml))
else:
    to_viewcrafter(source, out)
print(peak() - before)
"""


def enlarged(golden_set, size):
    """Random weights of the golden configuration, its UNet so wide that they fill ``size`` bytes, as a checkpoint."""
    params = golden_set.params()
    unet = params["unet_config"]["params"]
    for times in range(1, 9):
        params["unet_config"] = {"params": {**unet, "model_channels": times * unet["model_channels"]}}
        config, text = model_config(params, preset("viewcrafter-25"))
        ours = {name: module.state_dict() for name, module in modules(config, text).items()}
        if sum(4 * value.numel() for state in ours.values() for value in state.values()) > size:
            break
    state = {}
    for key, value in golden_set.state_dict().items():
        where = place(key, len(config.autoencoder.channels))
        if where.component in ours:
            shapes = [ours[where.component][name].shape for name in where.names]
            value = where.join([torch.rand(shape) for shape in shapes])
        state[key] = value
    return state, params


@whole
@pytest.mark.timeout(900)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_stays_below_the_size_of_the_file_and_a_fifth(golden_set, tmp_path):
    state, params = enlarged(golden_set, 120e6)
    torch.save({"state_dict": state}, tmp_path / "large.ckpt")
    (tmp_path / "large.yaml").write_text(json.dumps({"model": {"params": params}}))
    size = (tmp_path / "large.ckpt").stat().st_size
    del state
    assert size > 100e6
    paths = {"from": ("large.ckpt", "model"), "to": ("model", "back.ckpt")}
    peaks = {}
    for direction, (source, target) in paths.items():
        arguments = [str(tmp_path / name) for name in (source, "large.yaml", target)]
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, *arguments, direction], capture_output=True, text=True, check=True
        )
        peaks[direction] = int(done.stdout.split()[-1]) / size
    print(f"peak memory as a share of the file: {peaks}")
    assert 0 < max(peaks.values()) < 1.2, peaks
    for file in ("large.ckpt", "back.ckpt"):
        (tmp_path / file).unlink()
    for file in (tmp_path / "model").rglob("*.safetensors"):
        file.unlink()


@pytest.mark.slow
@whole
def test_fvgen_generate_takes_a_converted_model(tiny, tmp_path):
    """The command line, at the model's own size and with its black holes."""
    folder, demo = tiny[1], REPOSITORY / "examples" / "demo" / "transforms_photos.json"
    window = json.loads((folder / "model_index.json").read_text())["frames"]
    frames = 3 * (window - 1) + 1
    arguments = ["generate", str(demo), "-o", str(tmp_path / "out"), "--model", str(folder), "--steps", "1"]
    assert main([*arguments, "--frames", str(frames), "--device", "cpu"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["steps"] == 1
    assert summary["guidance_scale"] == 7.5
    assert len(list((tmp_path / "out" / "images").glob("*.png"))) == frames

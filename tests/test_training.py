"""The whole training, at the smallest size; what it is made of."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fvgen.cli.main import main
from fvgen.data.latents import ClipBatch, LatentCorpus
from fvgen.data.pairs import procedural_pair
from fvgen.data.recipe import ClipDraw
from fvgen.distillation.config import RECIPES
from fvgen.errors import UserError
from fvgen.hub import find_model
from fvgen.models import VideoModel, preset
from fvgen.models.autoencoder import AutoencoderConfig, FrameAutoencoder, start_from_principal_components
from fvgen.models.denoiser import Condition
from fvgen.models.sampling import sample_latents
from fvgen.procedural.textures import KINDS, procedural_texture
from fvgen.training import release
from fvgen.training.checkpoints import fingerprint
from fvgen.training.distributed import DistributedContext
from fvgen.training.engine_config import EngineConfig
from fvgen.training.recipes import MINI_STUDENT, XS_STUDENT, TeacherRecipe
from fvgen.training.run_folder import read_log
from fvgen.training.student import distill
from fvgen.training.teacher import train_teacher, velocity_loss
from two_processes import free_port


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_textures_are_pictures_and_depend_on_the_seed_only(kind):
    one, again, other = (kind(np.random.default_rng(seed), 64) for seed in (1, 1, 2))
    assert one.shape == (64, 64, 3)
    assert one.dtype == np.uint8
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_texture_detail_falls_off_with_frequency_as_in_photographs():
    spectra = []
    for seed in range(24):
        grey = procedural_texture(np.random.default_rng(seed), 128).mean(-1)
        spectra.append(np.abs(np.fft.rfft2(grey - grey.mean())[0, 1:64]) ** 2)
    power = np.mean(spectra, 0)
    slope = np.polyfit(np.log(np.arange(2, 40)), np.log(power[1:39]), 1)[0]
    assert -4 < slope < -0.5


def test_pairs_show_the_photographs_at_their_frames():
    pair = procedural_pair(9, 4, 64, 48)
    assert pair.photo.tolist() == [True, False, False, True]
    assert np.array_equal(pair.guide[0], pair.frames[0])
    assert pair.coverage[1:3].mean() > 0.5
    assert pair.guide[~pair.coverage].any()  # completed
    assert pair.cameras.size == (64, 48)
    again = procedural_pair(9, 4, 64, 48)
    assert np.array_equal(again.guide, pair.guide)


def test_autoencoder_starts_as_the_principal_components():
    rng = np.random.default_rng(0)
    pictures = np.stack([procedural_texture(rng, 64) for _ in range(24)])
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    model = FrameAutoencoder(AutoencoderConfig(channels=(96,)))
    with torch.no_grad():
        before = (model.decode(model.encode(images[None])) - images[None]).square().mean()
        start_from_principal_components(model, images)
        after = (model.decode(model.encode(images[None])) - images[None]).square().mean()
        patches = model.fold(images).movedim(1, -1).flatten(0, 2).double()
    centred = patches - patches.mean(0)
    best = torch.linalg.eigvalsh(centred.T @ centred / len(patches))[:-12].sum() / 48  # what 12 components cannot hold
    assert after < 0.2 * before
    assert after < 1.3 * best


def test_fresh_network_predicts_the_guide():
    torch.manual_seed(0)
    model = VideoModel.build(preset("mini"))
    guide = torch.randn(1, 12, 3, 16, 16)
    concat = torch.cat([guide, torch.ones(1, 1, 3, 16, 16)], 1)
    condition = Condition(concat, torch.randn(1, 20, 64), torch.randn(1, 20, 64))
    with torch.no_grad():
        x0 = model.denoiser.x0(torch.randn(1, 12, 3, 16, 16), torch.tensor([999]), condition)
    torch.testing.assert_close(x0, guide)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of the smallest preset, trained from nothing by the command line."""
    run = tmp_path_factory.mktemp("training") / "run"
    main(["train", "all", "--preset", "mini-xs", "--output", str(run)])
    return run


def test_everything_trains_and_loads(trained):
    for name, few in (("mini-xs-teacher", False), ("mini-xs", True)):
        model = VideoModel.load(trained / name)
        assert model.config.sampling.few_step is few
    told = json.loads((trained / "mini-xs" / "provenance.json").read_text())
    assert told["teacher"] == "mini-xs-teacher"
    assert told["fingerprint"] == fingerprint(VideoModel.load(trained / "mini-xs-teacher").denoiser)
    assert told["recipe"]["init_steps"] == XS_STUDENT.init_steps
    logs = [json.loads(line) for line in (trained / "student" / "log.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in logs] == [1, 1, 2, 2]
    assert all(np.isfinite(v) for line in logs for v in line.values())


def test_footage_is_refused_where_nothing_is_made_of_it(tmp_path, capsys):
    run, walk = tmp_path / "run", tmp_path / "walk.mp4"
    walk.touch()
    assert main(["train", "all", "--preset", "mini-xs", "--footage", str(walk), "--output", str(run)]) == 2
    assert "--footage: mini-xs is made of procedural scenes alone" in capsys.readouterr().err
    assert not run.exists()


def test_training_again_does_nothing_twice(trained):
    before = (trained / "teacher" / "log.jsonl").read_text()
    main(["train", "all", "--preset", "mini-xs", "--output", str(trained)])
    assert (trained / "teacher" / "log.jsonl").read_text() == before


@pytest.mark.timeout(900)
def test_torchrun_trains_everything_as_one_process_does(trained, tmp_path):
    """From the same pairs and autoencoder; what came out is written, and said, by one of the processes."""
    run = tmp_path / "run"
    for made in ("pairs", "autoencoder"):
        shutil.copytree(trained / made, run / made)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]
    command = [*torchrun, "-m", "fvgen", "train", "all", "--preset", "mini-xs", "--output", str(run)]
    told = subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE)
    assert told.stdout.decode() == f"models in {run / 'mini-xs'} and {run / 'mini-xs-teacher'}\n"
    for name in ("mini-xs-teacher", "mini-xs"):
        one, two = (VideoModel.load(folder / name).denoiser.state_dict() for folder in (trained, run))
        assert max((one[key].float() - two[key].float()).abs().max() for key in one) < 2e-3  # of half precision
    assert read_log(run / "student")[-1]["updates_student"] == 4


def test_a_batch_that_processes_cannot_share_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    @contextmanager
    def three(*_, **__):
        yield DistributedContext(size=3)

    monkeypatch.setattr(release, "joined", three)
    with pytest.raises(UserError, match="a batch of 2 cannot be shared out to 3 processes"):
        release.train_everything("mini-xs", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_is_exported_drawn_and_shown(trained, tmp_path):
    run = trained / "student"
    assert main(["export", str(run), "--output", str(tmp_path / "out")]) == 0
    told = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert told["times"] == [999, 749, 499, 249]
    assert told["guidance_scale"] == 1.0
    assert told["updates"] == {"student": 4, "fake_score": 2, "head": 4}
    assert told["recipe"]["method"] == "fvgen"
    one, two = VideoModel.load(tmp_path / "out"), VideoModel.load(trained / "mini-xs")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))
    assert main(["export", str(run), "--output", str(tmp_path / "x"), "--teacher", "mini-teacher"]) == 2
    assert main(["export", str(trained / "teacher"), "--output", str(tmp_path / "x")]) == 2
    assert main(["plot", str(run), "--output", str(tmp_path / "curves.svg")]) == 0
    assert "loss student" in (tmp_path / "curves.svg").read_text()
    assert len(list((run / "pictures").rglob("*.png"))) == 3


@pytest.mark.parametrize("method", [name for name in RECIPES if name != "fvgen"])
def test_every_method_runs_on_videos(trained, tmp_path, method):
    teacher = VideoModel.load(trained / "mini-xs-teacher")
    options = replace(XS_STUDENT.distillation, ode_pairs=2, ode_steps=4, guidance_scale=2.0)
    recipe = replace(XS_STUDENT, method=method, init_steps=1, match_steps=1, distillation=options)
    student = distill(teacher, LatentCorpus(trained / "pairs", teacher), recipe, tmp_path)
    assert any(not torch.equal(a, b) for a, b in zip(student.denoiser.parameters(), teacher.denoiser.parameters()))
    assert [line["step"] for line in read_log(tmp_path)] == list(range(1 if method == "gan_init" else 2))


def test_the_packaged_student_is_of_the_packaged_teacher_by_the_recipe_of_its_preset():
    told = json.loads((find_model("mini") / "provenance.json").read_text())
    assert told["fingerprint"] == fingerprint(VideoModel.load("mini-teacher").denoiser)
    assert told["recipe"] == json.loads(json.dumps(asdict(MINI_STUDENT)))
    assert told["updates"]["student"] == MINI_STUDENT.init_steps + MINI_STUDENT.match_steps + MINI_STUDENT.polish_steps


def test_trajectories_end_where_the_teacher_is_sampled_to(trained, tmp_path):
    teacher = VideoModel.load(trained / "mini-xs-teacher")
    teacher.config = replace(teacher.config, sampling=replace(teacher.config.sampling, temperature=0.5))
    options = replace(XS_STUDENT.distillation, ode_pairs=2, ode_steps=4, guidance_scale=2.0)
    recipe = replace(XS_STUDENT, method="regression", init_steps=1, match_steps=0, distillation=options)
    distill(teacher, LatentCorpus(trained / "pairs", teacher), recipe, tmp_path)
    stored = load_file(tmp_path / "trajectories" / "000000.safetensors")
    condition = Condition(*(stored[name].float() for name in ("concat", "context", "null_context")))
    noise, ends = stored["states"][0].float(), stored["x0"].float()
    with torch.no_grad():
        again = sample_latents(teacher, condition, noise, 4, 2.0)
        error = (again - ends).square().mean()
        teacher.config = replace(teacher.config, sampling=replace(teacher.config.sampling, temperature=1.0))
        assert error < 1e-3 * (sample_latents(teacher, condition, noise, 4, 2.0) - ends).square().mean()


def test_activations_computed_again_change_nothing(trained, tmp_path):
    norms = []
    for recompute in (False, True):
        teacher = VideoModel.load(trained / "mini-xs-teacher")
        folder, engine = tmp_path / str(recompute), EngineConfig(device="cpu", recompute=recompute)
        recipe = replace(XS_STUDENT, init_steps=1, match_steps=1)
        distill(teacher, LatentCorpus(trained / "pairs", teacher), recipe, folder, engine=engine)
        norms.append([line["norm_student"] for line in read_log(folder)])
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


def test_a_frozen_image_tower_stays_as_it_was(trained, tmp_path):
    start = VideoModel.load(trained / "mini-xs-teacher")
    before = {name: value.clone() for name, value in start.state_dict().items()}
    corpus = LatentCorpus(trained / "pairs", start)
    recipe = TeacherRecipe(steps=3, clips=ClipDraw(frames=4, crop=(16, 16)), full_from=1.0, lr=1e-3, vision="frozen")
    after = train_teacher(start, corpus, recipe, tmp_path / "run").state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.split(".")[0] for name in changed} == {"denoiser", "conditioner"}
    assert all(name.startswith("conditioner.resampler.") for name in changed if name.startswith("conditioner"))


def test_a_tower_that_is_not_there_cannot_be_frozen(trained, tmp_path):
    start = VideoModel.load(trained / "mini-xs-teacher")
    start.conditioner.tower = None
    with pytest.raises(UserError, match="no image tower"):
        train_teacher(start, LatentCorpus(trained / "pairs", start), TeacherRecipe(vision="frozen"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("distill mini --data . --output run", "no training pairs there"),
        ("distill mini --data procedural:one --output run", "write procedural or procedural:SEED"),
        ("distill mini --data . --output run --learning-rate 1", "there is no option --learning-rate"),
        ("distill mini --data . --output run --ode-steps 50", "50 trajectory steps do not pass through"),
        ("distill toy --output run --methods fvgen other", "--methods other: choose from fvgen, gan_init"),
        ("export nowhere --output run", "nowhere is not a distillation's run"),
        ("plot nowhere", "nowhere is not a training run"),
    ],
)
def test_mistakes_of_a_distillation_end_in_one_line(tmp_path, monkeypatch, capsys, arguments, line):
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split()) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_memory_that_the_docs_promise_for_the_paper():
    """Three networks, two pairs of moments, an average, one's gradients, sharded; the rest whole on each GPU."""
    model = VideoModel.build(preset("viewcrafter-512-16"), device="meta")
    unet = sum(p.numel() for p in model.denoiser.parameters()) * 4e-9
    whole = sum(p.numel() for part in (model.conditioner, model.autoencoder) for p in part.parameters()) * 4e-9
    text = (pathlib.Path(__file__).parent.parent / "docs" / "distillation.md").read_text("utf-8")
    assert f"| **in all, before activations** | **{9 * unet + whole:.1f}** | **{9 * unet / 8 + whole:.1f}** |" in text


def test_saved_model_gives_the_same_output(trained, tmp_path):
    model = VideoModel.load(trained / "mini-xs")
    model.save(tmp_path / "copy", torch.float32)
    again = VideoModel.load(tmp_path / "copy")
    concat, context = torch.randn(1, 25 - 12, 3, 16, 16), torch.randn(1, 8, 64)
    x, t = torch.randn(1, 12, 3, 16, 16), torch.tensor([499])
    with torch.no_grad():
        one = model.denoiser.x0(x, t, Condition(concat, context, context))
        two = again.denoiser.x0(x, t, Condition(concat, context, context))
    assert torch.equal(one, two)


def test_velocity_loss_counts_errors_against_what_the_guide_leaves_open():
    model = VideoModel.build(preset("mini-xs"))
    batch = ClipBatch(torch.randn(2, 12, 2, 8, 8), torch.randn(2, 13, 2, 8, 8), torch.zeros(2, 3, 64, 64))
    condition = Condition(batch.concat, torch.randn(2, 8, 64), torch.zeros(2, 8, 64))
    t, noise = torch.tensor([999, 300]), torch.randn(2, 12, 2, 8, 8)
    x_t = model.denoiser.schedule.add_noise(batch.latents, noise, t)
    wrong = model.denoiser.velocity(x_t, t, condition) - model.denoiser.schedule.velocity(batch.latents, noise, t)
    _, deviation = model.denoiser.prior(x_t, t, condition)
    expected = (wrong.square() / deviation).mean(dim=(1, 2, 3, 4))
    assert torch.allclose(velocity_loss(model, batch, condition, t, noise), expected)
    model.denoiser.guide_variance = None
    plain = model.denoiser.velocity(x_t, t, condition) - model.denoiser.schedule.velocity(batch.latents, noise, t)
    assert torch.allclose(velocity_loss(model, batch, condition, t, noise), plain.square().mean(dim=(1, 2, 3, 4)))

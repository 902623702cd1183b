"""Schedules, guidance, DDIM and training target against numbers recorded from the real teacher's code."""

import math
from dataclasses import replace

import pytest
import torch
from test_networks import build_unet

from fvgen.diffusion import NoiseSchedule, ScheduleConfig, ddim_sample, ddim_steps, guide, guide_twice
from fvgen.diffusion.schedule import alphas_cumprod, betas
from fvgen.models.denoiser import Condition, VideoDenoiser
from fvgen.models.viewcrafter.keys import schedule_buffers
from golden_numbers import TEXT_TOKENS, sees_own_tokens


def schedule_of(golden_set, prefix):
    return ScheduleConfig(base_scale=golden_set.base_scale(prefix))


def ddim_schedule(golden_set):
    return schedule_of(golden_set, golden_set.config["ddim"]["schedule"])


def recorded_runs(golden_set, io):
    """The sampler's runs that the file holds."""
    runs = [run for run in golden_set.config["ddim"]["runs"] if f"{run['name']}.x_prev" in io]
    assert {run["name"] for run in runs} == set(golden_set.cases(io, "run"))
    return runs


def unet_for(golden_set, x, context):
    """The network in the token branch that the original takes for these clips and tokens."""
    return build_unet(golden_set, sees_own_tokens(context, x.shape[2]))


def has_part(io, prefix):
    """Skips where the set has none of the numbers that begin so."""
    if not any(key.startswith(prefix) for key in io):
        pytest.skip(f"GOLDEN NUMBERS ABSENT: this set has no {prefix}*")


@pytest.mark.golden("schedule")
def test_schedule_buffers_bit_for_bit(golden_set):
    io = golden_set.read("schedule")
    prefixes = sorted(key.removesuffix("betas") for key in io if key.endswith(".betas"))
    assert prefixes
    for prefix in prefixes:
        config = schedule_of(golden_set, prefix)
        for name, value in schedule_buffers(config).items():
            assert torch.equal(value, io[prefix + name]), prefix + name
        schedule = NoiseSchedule(config)
        assert torch.equal(schedule.alphas_cumprod, io[f"{prefix}alphas_cumprod"])
        assert schedule.alphas_cumprod[-1] == 0
        torch.testing.assert_close(schedule.scale, io[f"{prefix}scale_arr"][:1000], atol=1e-6, rtol=0)


@pytest.mark.golden("schedule")
def test_betas_in_double_precision(golden_set):
    io, config = golden_set.read("schedule"), ScheduleConfig()
    has_part(io, "f64.")
    ours = {
        "betas_before_zsnr": betas(replace(config, zero_terminal_snr=False)),
        "betas_after_zsnr": betas(config),
        "alphas_cumprod_after_zsnr": alphas_cumprod(config),
    }
    for name, value in ours.items():
        torch.testing.assert_close(value, io[f"f64.{name}"], atol=1e-14, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.golden("schedule")
def test_every_recorded_table_of_ddim(golden_set):
    io = golden_set.read("schedule")
    tables = {key.rsplit(".", 1)[0] for key in io if key.endswith(".timesteps")}
    assert tables
    for table in sorted(tables):
        prefix, count, eta = table.rsplit(".", 2)
        steps = ddim_steps(NoiseSchedule(schedule_of(golden_set, f"{prefix}.")), int(count[1:]), float(eta[3:]))[::-1]
        assert [s.t for s in steps] == io[f"{table}.timesteps"].tolist(), table
        ours = {
            "alphas": [s.alpha for s in steps],
            "alphas_prev": [s.alpha_prev for s in steps],
            "sqrt_one_minus_alphas": [math.sqrt(1 - s.alpha) for s in steps],
            "sigmas": [s.sigma for s in steps],
            "scale_arr": [s.scale for s in steps],
            "scale_arr_prev": [s.scale_prev for s in steps],
        }
        for name, values in ours.items():
            theirs = io[f"{table}.{name}"].double()
            torch.testing.assert_close(torch.tensor(values).double(), theirs, atol=1e-6, rtol=0, msg=f"{table}.{name}")


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_no_number_of_steps_gives_a_number_that_is_none(eta):
    schedule = NoiseSchedule(ScheduleConfig(base_scale=0.7))
    for count in [*range(1, 101), *range(101, 1001, 37), 1000]:
        values = [v for s in ddim_steps(schedule, count, eta) for v in (s.sigma, s.direction)]
        assert len(values) == 2 * count
        assert all(map(math.isfinite, values)), count


def guided(unet, io, run):
    """The velocity that a recorded run sampled with."""

    def branch(x, t, tokens):
        return unet(torch.cat([x, io["c_concat"]], dim=1), t, io[tokens], io.get("fs"))

    def velocity(x, t):
        conditional = branch(x, t, "c_crossattn")
        if run.get("cfg") is None:
            return conditional
        unconditional = branch(x, t, "uc_crossattn")
        if run.get("cfg_img") is None:
            return guide(conditional, unconditional, run["cfg"], run["rescale"])
        textless = branch(x, t, "uc_img_nonetext_crossattn")
        return guide_twice(conditional, textless, unconditional, run["cfg"], run["cfg_img"], run["rescale"])

    return velocity


def replayed(schedule, io, run):
    """The velocity of each recorded prediction, which is of latents at the scale of the time that the step lands on."""
    steps = iter(enumerate(steps_of(schedule, io, run)))

    def velocity(x, t):
        number, step = next(steps)
        return schedule.velocity_from_x0(x, io[f"{run['name']}.pred_x0_rescaled"][number] / step.scale_prev, t)

    return velocity


def steps_of(schedule, io, run):
    return ddim_steps(schedule, len(io[f"{run['name']}.timesteps"]), run["eta"], two_conditions(run))


def two_conditions(run):
    """The original's sampler for two conditions forgets the last change of scale."""
    return run.get("cfg_img") is not None


def assert_samples_as_recorded(schedule, io, run, velocity, atol):
    name, seen = run["name"], []
    final = ddim_sample(
        velocity,
        schedule,
        io["x_T"],
        len(io[f"{name}.timesteps"]),
        run["eta"],
        step_noise=list(io[f"{name}.step_noise"]),
        callback=lambda step, t, x: seen.append((t, x)),
        keep_last_scale=two_conditions(run),
    )
    assert [t for t, _ in seen] == io[f"{name}.timesteps"].tolist(), name
    assert len(seen) == len(io[f"{name}.x_prev"])
    for step, (_, x) in enumerate(seen):
        theirs = io[f"{name}.x_prev"][step]
        torch.testing.assert_close(x, theirs, atol=atol, rtol=0, msg=lambda m, s=step: f"{name} {s}: {m}")
    torch.testing.assert_close(final, io[f"{name}.final"], atol=atol, rtol=0)


@pytest.mark.golden("ddim.io", "schedule", "unet.weights")
def test_every_recorded_ddim_run_step_by_step(golden_set):
    io, schedule = golden_set.read("ddim.io"), NoiseSchedule(ddim_schedule(golden_set))
    unet = unet_for(golden_set, io["x_T"], io["c_crossattn"])
    for run in recorded_runs(golden_set, io):
        with torch.no_grad():
            assert_samples_as_recorded(schedule, io, run, guided(unet, io, run), 5e-4)


@pytest.mark.golden("ddim.io", "schedule")
def test_the_sampler_on_every_recorded_prediction(golden_set):
    """DDIM without the network: its predictions are taken from the record."""
    io, schedule = golden_set.read("ddim.io"), NoiseSchedule(ddim_schedule(golden_set))
    for run in recorded_runs(golden_set, io):
        assert_samples_as_recorded(schedule, io, run, replayed(schedule, io, run), 5e-5)


@pytest.mark.golden("ddim.io", "schedule", "unet.weights")
def test_one_guided_prediction(golden_set):
    io = golden_set.read("ddim.io")
    has_part(io, "wrap.")
    x, t = io["x_T"], io["wrap.t"].long().expand(len(io["x_T"]))
    denoiser = VideoDenoiser(unet_for(golden_set, x, io["c_crossattn"]), ddim_schedule(golden_set))
    condition = Condition(io["c_concat"], io["c_crossattn"], io["uc_crossattn"], io.get("fs"))
    with torch.no_grad():
        v = denoiser.velocity(x, t, condition)
        v_uncond = denoiser.velocity(x, t, denoiser.drop(condition))
    torch.testing.assert_close(v, io["wrap.v"], atol=2e-5, rtol=0)
    torch.testing.assert_close(v_uncond, io["wrap.v_uncond"], atol=2e-5, rtol=0)


@pytest.mark.golden("ddim.io", "schedule")
def test_what_a_velocity_says(golden_set):
    io, schedule = golden_set.read("ddim.io"), NoiseSchedule(ddim_schedule(golden_set))
    has_part(io, "wrap.")
    x, v, t = io["x_T"], io["wrap.v"], io["wrap.t"].long().expand(len(io["x_T"]))
    # The original's x0 is still scaled; ours never is.
    scaled = schedule.x0_from_velocity(x, v, t) * schedule.scale[t].view(-1, 1, 1, 1, 1)
    torch.testing.assert_close(scaled, io["wrap.x0_from_v"], atol=1e-5, rtol=0)
    torch.testing.assert_close(schedule.noise_from_velocity(x, v, t), io["wrap.eps_from_v"], atol=1e-5, rtol=0)


def fitted(function, theirs):
    """The number at which a function linear in it comes closest to the record, which it must then equal."""
    start, slope = function(0.0).double(), (function(1.0) - function(0.0)).double()
    number = float((slope * (theirs.double() - start)).sum() / slope.square().sum())
    torch.testing.assert_close(function(number), theirs, atol=2e-5, rtol=0)
    return number


@pytest.mark.golden("ddim.io")
def test_guidance(golden_set):
    """No table says at which scale and rescale it was recorded: they are found, and then every value must agree."""
    io, run = golden_set.read("ddim.io"), golden_set.config["ddim"].get("wrap", {})
    has_part(io, "wrap.v_cfg")
    v, v_uncond = io["wrap.v"], io["wrap.v_uncond"]
    scale = fitted(lambda scale: guide(v, v_uncond, scale), io["wrap.v_cfg"])
    assert scale == pytest.approx(run.get("cfg", scale), abs=1e-4)
    for key in (k for k in io if k.startswith("wrap.v_cfg_rescaled_")):
        phi = fitted(lambda phi: guide(v, v_uncond, scale, phi), io[key])
        assert phi == pytest.approx(run.get("rescale", phi), abs=1e-3)
        assert 0 < phi <= 1.001


@pytest.mark.golden("ddim.io", "schedule", "unet.weights")
def test_dropping_the_text_leaves_the_image(golden_set):
    io = golden_set.read("ddim.io")
    denoiser = VideoDenoiser(unet_for(golden_set, io["x_T"], io["c_crossattn"]), ScheduleConfig())
    condition = Condition(io["c_concat"], io["c_crossattn"], io["uc_crossattn"], io.get("fs"))
    context = denoiser.drop_text(condition).context
    assert torch.equal(context[:, :TEXT_TOKENS], io["uc_crossattn"][:, :TEXT_TOKENS])
    assert torch.equal(context[:, TEXT_TOKENS:], io["c_crossattn"][:, TEXT_TOKENS:])


@pytest.mark.golden("ddim.io", "schedule")
def test_training_target_and_loss(golden_set):
    io, schedule = golden_set.read("ddim.io"), NoiseSchedule(ddim_schedule(golden_set))
    has_part(io, "train.")
    t = io["train.t"].long()
    scaled = io["train.z"] * schedule.scale[t].view(-1, 1, 1, 1, 1)
    torch.testing.assert_close(scaled, io["train.z_scaled"], atol=5e-6, rtol=0)
    x_t = schedule.add_noise(io["train.z"], io["train.noise"], t)
    torch.testing.assert_close(x_t, io["train.x_noisy"], atol=5e-6, rtol=0)
    v = schedule.velocity(io["train.z"], io["train.noise"], t)
    torch.testing.assert_close(v, io["train.v_target"], atol=5e-6, rtol=0)
    loss = torch.nn.functional.mse_loss(io["train.model_out"], v)
    torch.testing.assert_close(loss, io["train.loss"].squeeze(), atol=1e-6, rtol=0)


@pytest.mark.golden("ddim.io", "unet.weights")
def test_the_network_in_training(golden_set):
    io = golden_set.read("ddim.io")
    has_part(io, "train.")
    x_t, context = io["train.x_noisy"], io["train.c_crossattn"]
    unet = unet_for(golden_set, x_t, context)
    fs = io.get("train.fs", torch.full((len(x_t),), 10))  # the original's frame stride, where none is recorded
    with torch.no_grad():
        out = unet(torch.cat([x_t, io["train.c_concat"]], dim=1), io["train.t"].long(), context, fs)
    torch.testing.assert_close(out, io["train.model_out"], atol=5e-5, rtol=0)

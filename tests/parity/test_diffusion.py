"""Schedules, guidance, DDIM and training target against numbers recorded from the real teacher's code."""

import math

import pytest
import torch
from test_networks import build_unet

from fvgen.diffusion import NoiseSchedule, ScheduleConfig, ddim_sample, ddim_steps, guide, guide_twice
from fvgen.models.denoiser import Condition, VideoDenoiser
from fvgen.models.viewcrafter.buffers import schedule_buffers


def schedule_of(golden_set, prefix):
    scale = round(golden_set.read("schedule")[f"{prefix}scale_arr"][-1].item(), 6)
    return ScheduleConfig(base_scale=scale)


def prefixes(io):
    return sorted(key.removesuffix("betas") for key in io if key.endswith(".betas"))


@pytest.fixture(scope="module")
def unet(golden_set):
    return build_unet(golden_set, per_frame=False)


def test_schedule_buffers_bit_for_bit(golden_set):
    io = golden_set.read("schedule")
    for prefix in prefixes(io):
        config = schedule_of(golden_set, prefix)
        for name, value in schedule_buffers(config).items():
            assert torch.equal(value, io[prefix + name]), prefix + name
        schedule = NoiseSchedule(config)
        assert torch.equal(schedule.alphas_cumprod, io[f"{prefix}alphas_cumprod"])
        assert schedule.alphas_cumprod[-1] == 0
        torch.testing.assert_close(schedule.scale, io[f"{prefix}scale_arr"][:1000], atol=1e-6, rtol=0)


def test_every_recorded_table_of_ddim(golden_set):
    io = golden_set.read("schedule")
    tables = {key.rsplit(".", 1)[0] for key in io if key.endswith(".timesteps")}
    assert tables
    for table in sorted(tables):
        prefix, count, eta = table.split(".")
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
        return unet(torch.cat([x, io["c_concat"]], dim=1), t, io[tokens], io["fs"])

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


def test_every_recorded_ddim_run_step_by_step(golden_set, unet):
    io = golden_set.read("ddim.io")
    schedule = NoiseSchedule(schedule_of(golden_set, golden_set.config["ddim"]["schedule"]))
    for run in golden_set.config["ddim"]["runs"]:
        name, seen = run["name"], []
        with torch.no_grad():
            final = ddim_sample(
                guided(unet, io, run),
                schedule,
                io["x_T"],
                run["steps"],
                run["eta"],
                step_noise=list(io[f"{name}.step_noise"]),
                callback=lambda step, t, x, seen=seen: seen.append((t, x)),
                # The original's sampler for two conditions forgets the last change of scale.
                keep_last_scale=run.get("cfg_img") is not None,
            )
        assert [t for t, _ in seen] == io[f"{name}.timesteps"].tolist(), name
        for step, (_, x) in enumerate(seen):
            theirs = io[f"{name}.x_prev"][step]
            torch.testing.assert_close(x, theirs, atol=5e-4, rtol=0, msg=lambda m, s=step, n=name: f"{n} {s}: {m}")
        torch.testing.assert_close(final, io[f"{name}.final"], atol=5e-4, rtol=0)


def test_one_guided_prediction(golden_set, unet):
    io = golden_set.read("ddim.io")
    config = schedule_of(golden_set, golden_set.config["ddim"]["schedule"])
    denoiser = VideoDenoiser(unet, config)
    t, x = io["wrap.t"].long(), io["x_T"]
    condition = Condition(io["c_concat"], io["c_crossattn"], io["uc_crossattn"], io["fs"])
    with torch.no_grad():
        v = denoiser.velocity(x, t, condition)
        v_uncond = denoiser.velocity(x, t, denoiser.drop(condition))
    torch.testing.assert_close(v, io["wrap.v"], atol=2e-5, rtol=0)
    torch.testing.assert_close(v_uncond, io["wrap.v_uncond"], atol=2e-5, rtol=0)
    schedule = denoiser.schedule
    # The original's x0 is still scaled; ours never is.
    scaled = schedule.x0_from_velocity(x, v, t) * schedule.scale[t].view(-1, 1, 1, 1, 1)
    torch.testing.assert_close(scaled, io["wrap.x0_from_v"], atol=5e-5, rtol=0)
    torch.testing.assert_close(schedule.noise_from_velocity(x, v, t), io["wrap.eps_from_v"], atol=5e-5, rtol=0)
    scale = next(run["cfg"] for run in golden_set.config["ddim"]["runs"] if run.get("cfg"))
    torch.testing.assert_close(guide(v, v_uncond, scale), io["wrap.v_cfg"], atol=5e-4, rtol=0)
    for key in (k for k in io if k.startswith("wrap.v_cfg_rescaled_")):
        phi = float(key.rsplit("_", 1)[1])
        torch.testing.assert_close(guide(v, v_uncond, scale, phi), io[key], atol=5e-4, rtol=0)


def test_dropping_the_text_leaves_the_image(golden_set, unet):
    io = golden_set.read("ddim.io")
    denoiser = VideoDenoiser(unet, ScheduleConfig())
    condition = Condition(io["c_concat"], io["c_crossattn"], io["uc_crossattn"], io["fs"])
    context = denoiser.drop_text(condition).context
    assert torch.equal(context[:, :77], io["uc_crossattn"][:, :77])
    assert torch.equal(context[:, 77:], io["c_crossattn"][:, 77:])


def test_training_loss(golden_set, unet):
    io = golden_set.read("ddim.io")
    schedule = NoiseSchedule(schedule_of(golden_set, golden_set.config["ddim"]["schedule"]))
    t = io["train.t"].long()
    x_t = schedule.add_noise(io["train.z"], io["train.noise"], t)
    torch.testing.assert_close(x_t, io["train.x_noisy"], atol=1e-6, rtol=0)
    v = schedule.velocity(io["train.z"], io["train.noise"], t)
    torch.testing.assert_close(v, io["train.v_target"], atol=1e-6, rtol=0)
    inputs = torch.cat([x_t, io["train.c_concat"]], dim=1)
    with torch.no_grad():
        out = unet(inputs, t, io["train.c_crossattn"], io.get("train.fs"))
    torch.testing.assert_close(out, io["train.model_out"], atol=5e-5, rtol=0)
    loss = torch.nn.functional.mse_loss(out, v)
    torch.testing.assert_close(loss, io["train.loss"].squeeze(), atol=1e-5, rtol=0)

"""Methods of the distillation: who learns in which turn, from what, and how often; what is refused."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from fvgen.diffusion.random import BatchRandom
from fvgen.distillation.config import RECIPES, AnchorConfig, DistillationConfig
from fvgen.distillation.critic import CriticHead, CriticRecord, calibration_error
from fvgen.distillation.methods import (
    Clips,
    Dmd2,
    Fake,
    GanInit,
    OdeRegression,
    Phases,
    Polish,
    Roles,
    SoftDmd,
    TrajectoryPoints,
    stages,
)
from fvgen.errors import UserError
from fvgen.models import Condition, VideoModel, preset
from fvgen.models.efficientnet import LITE1, EfficientNetLite
from fvgen.training.distributed import DistributedContext
from fvgen.training.engine import Trainer, falling
from fvgen.training.engine_config import EngineConfig
from fvgen.training.perceptual import PerceptualLoss, gradient_energy, texture_difference
from fvgen.training.recipes import StudentRecipe
from fvgen.training.toy import Mixture, ToyDenoiser, toy_task
from fvgen.training.trajectories import trajectories

NAMES = ("teacher", "student", "fake_score", "head")


@pytest.fixture(scope="module")
def setting():
    torch.manual_seed(0)
    model = VideoModel.build(preset("mini-xs"))
    for parameter in model.denoiser.parameters():  # zero-initialised layers would hide wrong routing
        torch.nn.init.normal_(parameter, std=0.05)
    teacher = model.denoiser.eval().requires_grad_(False)
    roles = Roles(teacher, copy.deepcopy(teacher), copy.deepcopy(teacher), CriticHead(32, 8))
    for parameter in roles.fake_score.parameters():  # equal scores would match already
        torch.nn.init.normal_(parameter, std=0.05)
    context = torch.randn(1, 8, 64)
    condition = Condition(torch.randn(1, 13, 3, 8, 8), context, torch.zeros_like(context))
    return roles, Clips(torch.randn(1, 12, 3, 8, 8), condition)


def learners(roles, trains, loss_of):
    """The networks that a loss gives gradients to when only ``trains`` may learn, as the trainer has it."""
    for name in NAMES:
        getattr(roles, name).requires_grad_(name in trains).zero_grad(set_to_none=True)
    loss_of().backward()
    grads = {name: [p.grad for p in getattr(roles, name).parameters()] for name in NAMES}
    return {name for name in NAMES if any(g is not None and g.any() for g in grads[name])}


@pytest.fixture(scope="module")
def look():
    torch.manual_seed(1)
    autoencoder = VideoModel.build(preset("mini-xs")).autoencoder.requires_grad_(False)
    return PerceptualLoss(autoencoder, EfficientNetLite(LITE1).eval().requires_grad_(False))


def test_a_look_is_a_distance_and_a_difference_of_texture_per_clip(look):
    truth = torch.randn(2, 12, 3, 16, 16)
    x0 = torch.stack([truth[0], truth[1] * 2])
    distance, texture = look(x0, truth)
    assert distance[0] == texture[0] == 0 < min(distance[1], texture[1])
    alone = torch.stack([torch.stack(look(x0[1:, :, [k]], truth[1:, :, [k]]))[:, 0] for k in range(3)])
    torch.testing.assert_close(torch.stack([distance[1], texture[1]]), alone.mean(0))  # frame by frame
    assert PerceptualLoss(look.autoencoder, None)(x0, truth)[0].tolist() == [0, 0]


def test_texture_is_the_logarithm_of_gradient_energy():
    x = torch.arange(48) * torch.pi / 6  # a period is a cell
    stripes = (0.5 + 0.2 * torch.sin(x)).expand(1, 3, 48, 48)
    moved = (0.5 + 0.2 * torch.sin(x + 1.5)).expand(1, 3, 48, 48)
    torch.testing.assert_close(gradient_energy(0.5 * stripes), 0.25 * gradient_energy(stripes))
    strong = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    assert float(texture_difference(strong, 0.5 * strong)) == pytest.approx(np.log(4), rel=0.01)
    assert float(texture_difference(strong, strong.flip(-1).roll(6, -1))) < 0.3  # blind to where edges are
    assert float(texture_difference(stripes, moved)) < 0.1 < 1 < float(texture_difference(stripes, strong))


@pytest.mark.parametrize("method", [GanInit, SoftDmd, Dmd2])
def test_an_anchor_is_added_to_what_the_method_asks(setting, look, method):
    roles, batch = setting
    seen, anchor = replace(roles, perceptual=look), AnchorConfig(truth=2.0, perceptual=3.0, texture=0.5, frames=2)
    own = method(seen, DistillationConfig()).student_turn(batch, BatchRandom(0))
    anchored = method(seen, DistillationConfig(anchor=anchor))
    both = anchored.student_turn(batch, BatchRandom(0))
    parts = [both.figures[f"anchor_{name}"].mean() for name in ("truth", "perceptual", "texture")]
    assert min(parts) > 0
    torch.testing.assert_close(both.loss, own.loss + 2 * parts[0] + 3 * parts[1] + 0.5 * parts[2])
    assert learners(seen, {"student"}, lambda: anchored.student_turn(batch, BatchRandom(0)).loss) == {"student"}
    with pytest.raises(ValueError, match="look"):
        method(roles, DistillationConfig(anchor=anchor)).student_turn(batch, BatchRandom(0))


def test_polish_is_the_anchors_alone(setting, look):
    roles, batch = setting
    seen, anchor = replace(roles, perceptual=look), AnchorConfig(truth=2.0, texture=1.0)
    polish = Polish(seen, DistillationConfig(anchor=anchor))
    outcome = polish.student_turn(batch, BatchRandom(0))
    expected = 2 * outcome.figures["anchor_truth"].mean() + outcome.figures["anchor_texture"].mean()
    torch.testing.assert_close(outcome.loss.detach(), expected)
    assert polish.critics == ()
    assert learners(seen, {"student"}, lambda: polish.student_turn(batch, BatchRandom(0)).loss) == {"student"}
    with pytest.raises(UserError, match="anchor"):
        Polish(seen, DistillationConfig())


def test_the_rate_falls_while_polishing():
    rates = [falling(update, 10, 20, 1.0) for update in (0, 10, 20, 30, 40)]
    assert rates == pytest.approx([1, 1, 0.525, 0.05, 0.05])
    assert falling(5, 10, 0, 2.0) == 2.0


def test_an_anchor_looks_at_some_frames(setting, look):
    roles, batch = setting
    anchor = AnchorConfig(texture=1.0, frames=1)
    phases = Phases(replace(roles, perceptual=look), DistillationConfig(anchor=anchor))
    real = torch.randn(1, 12, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    x0 = real.clone()
    x0[:, :, 1] *= 2
    errors = [float(phases.anchor(real, Fake(x0, torch.zeros(1).long()), None, BatchRandom(s)).loss) for s in range(12)]
    assert len(set(errors)) == 2
    assert min(errors) == 0
    assert BatchRandom(5).several(9, 3) == [0, 1, 2]


def test_the_published_network_looks():
    model = VideoModel.build(preset("mini-xs"))
    look = PerceptualLoss.wanted(model.autoencoder, AnchorConfig(perceptual=1.0), torch.device("cpu"))
    assert look is not None
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4
    noisy = (pictures + 0.1 * torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    assert look.network is not None
    assert (look.network.distance(pictures, noisy) > 0.1).all()  # untrained networks hardly see that
    assert PerceptualLoss.wanted(model.autoencoder, AnchorConfig(truth=1.0), torch.device("cpu")) is None


@pytest.mark.parametrize("inputs", ["noised_real", "simulated"])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        (GanInit, {}),
        (GanInit, {"adversarial": "hinge"}),
        (GanInit, {"adversarial": "relativistic", "r1_weight": 0.1}),
        (SoftDmd, {"guidance_scale": 2.0}),
        (SoftDmd, {"critic": "frozen"}),
        (SoftDmd, {"divergence": "reverse_kl"}),
        (SoftDmd, {"divergence": "jeffreys", "unnormalised": True}),
        (Dmd2, {"critic_features": "fake_score", "divergence": "reverse_kl"}),
        (Dmd2, {"critic_features": "fake_score"}),
    ],
)
def test_each_turn_teaches_its_roles_and_no_others(setting, method, options, inputs):
    roles, batch = setting
    made = method(roles, DistillationConfig(inputs=inputs, **options))
    draws = BatchRandom(1)
    assert learners(roles, {"student"}, lambda: made.student_turn(batch, draws).loss) == {"student"}
    assert learners(roles, made.critics, lambda: made.critics_turn(batch, draws).loss) == set(made.critics)


def test_regression_teaches_the_student(setting):
    roles, batch = setting
    config = DistillationConfig(ode_steps=4, guidance_scale=2.0)
    found = trajectories(roles.teacher, torch.randn(batch.x0.shape), batch.condition, config)
    points = TrajectoryPoints(found.states[2], torch.tensor([499]), found.x0, batch.condition)
    made = OdeRegression(roles, config)
    assert made.critics == ()
    assert learners(roles, {"student"}, lambda: made.student_turn(points, BatchRandom(0)).loss) == {"student"}


def test_early_exit_gives_the_features_of_the_whole_pass(setting):
    roles, batch = setting
    t = torch.tensor([500])
    with torch.no_grad():
        early = roles.teacher.features(batch.x0, t, batch.condition)
        x0, features = roles.teacher.x0_and_features(batch.x0, t, batch.condition)
        assert torch.equal(early, features)
        assert torch.equal(x0, roles.teacher.x0(batch.x0, t, batch.condition))


def test_the_decoder_does_not_run_for_features(setting):
    roles, batch = setting
    ran = []
    handles = [stage.register_forward_hook(lambda *_: ran.append(1)) for stage in roles.teacher.unet.decoder]
    with torch.no_grad():
        roles.teacher.features(batch.x0, torch.tensor([500]), batch.condition)
    for handle in handles:
        handle.remove()
    assert ran == []


def test_a_batch_of_one_has_a_weight_of_its_own(setting):
    """A weight normalised over the batch would be 1 whatever the critic says."""
    roles, batch = setting
    phases = Phases(roles, DistillationConfig())
    seen = []
    for bias in (-3.0, 0.0, 3.0):
        with torch.no_grad():
            roles.head.layers.layers[-1].bias.fill_(bias)
            outcome = phases.distribution_matching(
                Fake(batch.x0, torch.zeros(1).long()), batch.condition, BatchRandom(0)
            )
        seen.append(float(outcome.figures["weight"][0]))
    assert seen[0] > 0.8 > seen[1] > 0.2 > seen[2]


def test_a_head_may_know_the_students_step():
    features, steps = torch.randn(2, 32, 3, 4, 4), torch.tensor([0, 3])
    for told in (0, 4):
        torch.manual_seed(0)
        head = CriticHead(32, 8, told)
        before = head(features, steps)
        for parameter in head.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        assert head(features, steps).shape == (2,)
        assert torch.equal(head(features, steps), head(features, steps.flip(0))) == (told == 0)
        assert before.isfinite().all()


def test_the_head_computes_in_float32_under_autocast():
    """In bfloat16 some of these gradients are garbage."""
    torch.manual_seed(0)
    head, features, steps = CriticHead(32, 64), 5 * torch.randn(2, 32, 2, 8, 8), torch.zeros(2).long()
    gradients = []
    for bf16 in (False, True):
        head.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            head(features, steps).square().sum().backward()
        gradients.append([p.grad.clone() for p in head.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients))


def test_simulated_inputs_are_the_students_own_samples(setting):
    roles, (x0, condition) = setting
    real, simulated = (Phases(roles, DistillationConfig(inputs=kind)) for kind in ("noised_real", "simulated"))
    seen = set()
    for seed in range(12):
        x_t, step = simulated.simulated(x0, condition, BatchRandom(seed))
        again, _ = simulated.simulated(torch.zeros_like(x0), condition, BatchRandom(seed))
        assert torch.equal(x_t, again)  # nothing of the real clip is in it
        seen.add(int(step))
    assert seen == {0, 1, 2, 3}
    assert not torch.equal(*(phases.fake(x0, condition, BatchRandom(3)).x0 for phases in (real, simulated)))


def test_draws_do_not_depend_on_the_number_of_processes():
    whole, like = torch.zeros(6, 3), torch.zeros(2, 3)
    alone, shared = BatchRandom(5), [BatchRandom(5, first) for first in (0, 2, 4)]
    assert torch.equal(alone.noise(whole), torch.cat([d.noise(like) for d in shared]))
    assert torch.equal(alone.integers(0, 99, whole), torch.cat([d.integers(0, 99, like) for d in shared]))
    assert len({alone.one(1000), *(d.one(1000) for d in shared)}) == 1
    assert alone.several(3, 9) == shared[1].several(3, 9)


def test_draws_are_unit_noise_and_uniform_times():
    draws, like = BatchRandom((3, 4)), torch.zeros(200, 7, 31)
    noise, again = draws.noise(like), draws.noise(like)
    for values in (noise, again):
        assert abs(float(values.mean())) < 0.02
        assert float(values.square().mean()) == pytest.approx(1, abs=0.02)
        assert float(values.pow(4).mean()) == pytest.approx(3, abs=0.15)
    assert abs(float((noise * again).mean())) < 0.02  # each call has numbers of its own
    assert abs(float((noise[1:] * noise[:-1]).mean())) < 0.02  # and each row
    times = draws.integers(20, 981, torch.zeros(4000))
    assert (int(times.min()), int(times.max())) == pytest.approx((20, 980), abs=3)
    assert float(times.float().mean()) == pytest.approx(500, abs=15)


def test_trajectories_pass_through_the_students_times():
    """With the exact denoiser of one point, every state is that point noised to the student's time."""
    point = torch.tensor([[0.5, -1.0]])

    class Exact(ToyDenoiser):
        def velocity(self, x_t, t, condition=None):
            return self.schedule.velocity_from_x0(x_t, point.expand_as(x_t), t)

    noise = torch.randn(3, 2)
    found = trajectories(Exact(), noise, None, DistillationConfig())
    assert found.states.shape == (4, 3, 2)
    torch.testing.assert_close(found.states[0], noise)
    torch.testing.assert_close(found.x0, point.expand(3, 2), atol=0.05, rtol=0)
    schedule = Exact().schedule
    for state, time in zip(found.states[1:], (749, 499, 249)):
        t = torch.full((3,), time)
        torch.testing.assert_close(state, schedule.add_noise(point.expand(3, 2), noise, t), atol=1e-4, rtol=1e-4)


def test_what_cannot_work_is_refused(setting):
    roles, _ = setting
    for kind in ("hinge", "relativistic"):
        GanInit(roles, DistillationConfig(adversarial=kind))
        with pytest.raises(UserError, match="density ratio"):
            SoftDmd(roles, DistillationConfig(adversarial=kind))
        SoftDmd(roles, DistillationConfig(adversarial=kind, divergence="reverse_kl"))
    for wrong in ({"least_time": 990}, {"ode_steps": 50}, {"steps": 0}, {"r1_sigma": 0.0}):
        with pytest.raises(UserError):
            DistillationConfig(**wrong)


def test_recipes_have_the_same_number_of_student_updates():
    config = DistillationConfig()
    assert {sum(s.steps for s in stages(name, 3, 4, config)) for name in RECIPES if name != "gan_init"} == {7}
    assert [(s.method, s.steps) for s in stages("gan_init", 3, 4, config)] == [(GanInit, 3)]
    assert [s.method for s in stages("fvgen", 3, 4, config)] == [GanInit, SoftDmd]
    assert stages("reverse_kl", 3, 4, config)[1].config == replace(config, divergence="reverse_kl")
    assert stages("dmd2", 3, 4, config)[0].config.critic_features == "fake_score"
    assert [s.method for s in stages("fvgen", 3, 4, config, polish=2)] == [GanInit, SoftDmd, Polish]
    assert [s.method for s in stages("causvid", 3, 4, config)] == [OdeRegression, SoftDmd]


def snapshot(task):
    return {name: [p.detach().clone() for p in role.module.parameters()] for name, role in task.roles.items()}


def test_five_critic_updates_for_each_of_the_student(tmp_path):
    """Over 100 student updates: counts, who moved in which stage, and an average that follows the student's count."""
    torch.manual_seed(0)
    recipe = StudentRecipe(init_steps=50, match_steps=50, batch=4, lr=1e-3)
    engine, world = EngineConfig(device="cpu", save_every=1e9), DistributedContext()
    task = toy_task(ToyDenoiser(), Mixture(), recipe, tmp_path, world)
    trainer, moved = Trainer(task, tmp_path, engine, world), []

    before = snapshot(task)
    teacher = [p.clone() for p in task.nets.teacher.parameters()]

    def after(step):
        nonlocal before
        if step in (49, 99):
            now = snapshot(task)
            moved.append({n for n in now if any(not torch.equal(a, b) for a, b in zip(before[n], now[n]))})
            before = now
        return {}

    task.after = after
    trainer.run()
    assert {name: c.updates for name, c in trainer.roles.items()} == {"student": 100, "fake_score": 250, "head": 500}
    assert moved == [{"student", "head"}, {"student", "head", "fake_score"}]
    assert all(torch.equal(a, b) for a, b in zip(teacher, task.nets.teacher.parameters()))


def test_calibration_error():
    probability = torch.tensor([0.1] * 100 + [0.9] * 100)
    right = torch.tensor(([1] * 10 + [0] * 90) + ([1] * 90 + [0] * 10))
    assert calibration_error(probability, right) == pytest.approx(0.0, abs=1e-6)
    assert calibration_error(probability, 1 - right) == pytest.approx(0.8, abs=1e-6)


def test_the_critics_record_is_kept_per_noise_level():
    record = CriticRecord(levels=2, keep=100)
    assert record.figures() == {}
    record.add(torch.tensor([10, 20]), torch.tensor([5.0, 5.0]), torch.tensor([-5.0, -5.0]))
    record.add(torch.tensor([900]), torch.tensor([-1.0]), torch.tensor([-1.0]))
    found = record.figures()
    assert found["accuracy_0"] == 1.0
    assert found["accuracy_500"] == 0.5
    assert found["calibration_0"] < 0.01 < found["calibration_500"]
    assert np.isfinite(list(found.values())).all()

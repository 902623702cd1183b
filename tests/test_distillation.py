"""Divergence weights and losses against closed forms; each phase touches only its role."""

import copy

import pytest
import torch

from fvgen.distillation.critic import CriticHead
from fvgen.distillation.divergences import weight
from fvgen.distillation.losses import critic_loss, distribution_matching_loss, generator_loss
from fvgen.distillation.methods import DistillationConfig, FewStepDistillation, Roles
from fvgen.models import Condition, VideoModel, preset

F_OF = {
    "reverse_kl": lambda r: -r.log(),
    "softened_reverse_kl": lambda r: (r + 1) * (0.5 + 0.5 / r).log(),
    "jensen_shannon": lambda r: r * r.log() - (r + 1) * ((r + 1) / 2).log(),
}


@pytest.mark.parametrize("name", F_OF)
def test_weight_is_r_squared_times_the_second_derivative(name):
    logit = torch.linspace(-4, 4, 33, dtype=torch.float64)
    r = logit.exp().requires_grad_()
    first = torch.autograd.grad(F_OF[name](r).sum(), r, create_graph=True)[0]
    second = torch.autograd.grad(first.sum(), r)[0]
    torch.testing.assert_close(weight(name, logit).double(), r.detach() ** 2 * second, atol=1e-5, rtol=1e-5)


def test_softened_weight_falls_where_the_critic_says_real():
    low, high = weight("softened_reverse_kl", torch.tensor([-3.0, 3.0]))
    assert low > 0.9
    assert high < 0.1


def gaussian_log(x, mean):
    return -0.5 * (x - mean) ** 2


@pytest.mark.parametrize("name", F_OF)
def test_surrogate_gradient_equals_that_of_the_divergence_between_gaussians(name):
    """q = N(m, 1) against p = N(0, 1): d/dm D_f by quadrature equals E[h(r) (s_q - s_p)]."""
    x = torch.linspace(-12, 12, 40001, dtype=torch.float64)
    m = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    q = gaussian_log(x, m).exp() / (2 * torch.pi) ** 0.5
    log_r = gaussian_log(x, torch.tensor(0.0)) - gaussian_log(x, m)
    divergence = torch.trapezoid(q * F_OF[name](log_r.exp()), x)
    exact = torch.autograd.grad(divergence, m)[0]
    score_difference = -(x - m) + x  # s_q - s_p, constant m
    estimate = torch.trapezoid(q * weight(name, log_r.detach()).double() * score_difference, x)
    torch.testing.assert_close(estimate.detach(), exact, atol=1e-4, rtol=1e-4)


def test_surrogate_injects_the_weighted_normalised_difference():
    x0 = torch.randn(3, 2, 4, requires_grad=True)
    real, fake, h = torch.randn(3, 2, 4), torch.randn(3, 2, 4), torch.tensor([0.1, 0.5, 1.0])
    distribution_matching_loss(x0=x0, real_x0=real, fake_x0=fake, weight=h).backward()
    normaliser = (x0.detach() - real).abs().mean(dim=(1, 2), keepdim=True)
    expected = h[:, None, None] * (fake - real) / normaliser / x0.numel()
    torch.testing.assert_close(x0.grad, expected, atol=1e-7, rtol=1e-5)


def test_critic_recovers_the_log_ratio_of_gaussians():
    """Logistic regression between N(1, 1) and N(0, 1): the logit must become x - 1/2, positive for real."""
    generator = torch.Generator().manual_seed(0)
    real, fake = torch.randn(40000, generator=generator) + 1, torch.randn(40000, generator=generator)
    slope = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.LBFGS([slope], max_iter=50)

    def closure():
        optimizer.zero_grad()
        loss = critic_loss(real_logit=slope[0] * real + slope[1], fake_logit=slope[0] * fake + slope[1])
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(slope.detach(), torch.tensor([1.0, -0.5]), atol=0.03, rtol=0)


def test_generator_wants_the_critic_to_say_real():
    logit = torch.zeros(1, requires_grad=True)
    generator_loss(fake_logit=logit).backward()
    assert logit.grad < 0


@pytest.fixture(scope="module")
def setting():
    torch.manual_seed(0)
    model = VideoModel.build(preset("mini-xs"))
    for parameter in model.denoiser.parameters():  # zero-initialised layers would hide wrong routing
        torch.nn.init.normal_(parameter, std=0.05)
    teacher = model.denoiser.eval().requires_grad_(False)
    student, fake = copy.deepcopy(teacher).requires_grad_(True), copy.deepcopy(teacher).requires_grad_(True)
    roles = Roles(teacher, student, fake, CriticHead(32, 8))
    x0 = torch.randn(1, 12, 3, 8, 8)
    context = torch.randn(1, 8, 64)
    return roles, x0, Condition(torch.randn(1, 13, 3, 8, 8), context, torch.zeros_like(context))


def touched(roles):
    modules = {"teacher": roles.teacher, "student": roles.student, "fake": roles.fake_score, "head": roles.head}
    return {name for name, m in modules.items() if any(p.grad is not None and p.grad.any() for p in m.parameters())}


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        ("critic", {"head"}),
        ("fake_denoising", {"fake"}),
        ("adversarial", {"student", "head"}),
        ("distribution_matching", {"student"}),
    ],
)
def test_each_phase_reaches_its_role(setting, phase, expected):
    roles, x0, condition = setting
    for module in (roles.teacher, roles.student, roles.fake_score, roles.head):
        module.zero_grad(set_to_none=True)
    method = FewStepDistillation(roles, DistillationConfig(guidance_scale=2.0))
    generator = torch.Generator().manual_seed(1)
    fake = method.student_x0(x0, condition, generator)
    arguments = (x0, fake) if phase == "critic" else (fake,)
    getattr(method, phase)(*arguments, condition, generator).backward()
    assert touched(roles) == expected
    assert method.times.tolist() == [999, 749, 499, 249]


def test_simulated_inputs_are_the_students_own_samples(setting):
    roles, x0, condition = setting
    real = FewStepDistillation(roles, DistillationConfig())
    simulated = FewStepDistillation(roles, DistillationConfig(inputs="simulated"))
    seen = set()
    for seed in range(12):
        one, other = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed)
        x_t, t = simulated._simulated(x0, condition, one)
        again, _ = simulated._simulated(torch.zeros_like(x0), condition, other)
        assert torch.equal(x_t, again)  # nothing of the real clip is in it
        seen.add(int(t))
    assert seen == {999, 749, 499, 249}
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    assert not torch.equal(*(m.student_x0(x0, condition, g) for m, g in zip((real, simulated), generators)))
    with pytest.raises(ValueError, match="inputs"):
        FewStepDistillation(roles, DistillationConfig(inputs="dreamt"))

"""Each phase of the distillation touches only its role."""

import copy

import pytest
import torch

from fvgen.distillation.critic import CriticHead
from fvgen.distillation.methods import DistillationConfig, FewStepDistillation, Roles
from fvgen.models import Condition, VideoModel, preset


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

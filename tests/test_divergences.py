"""Every divergence and loss of the distillation against its closed form."""

import math

import numpy as np
import pytest
import torch

from fvgen.distillation.losses import (
    DIVERGENCES,
    approximate_r1,
    critic_loss,
    denoising_loss,
    distribution_matching_gradient,
    generator_loss,
    needs_ratio,
    regression_loss,
    surrogate,
    weight,
)

F_OF = {
    "reverse_kl": lambda r: -r.log(),
    "softened_reverse_kl": lambda r: (r + 1) * (0.5 + 0.5 / r).log(),
    "jensen_shannon": lambda r: r * r.log() - (r + 1) * ((r + 1) / 2).log(),
    "forward_kl": lambda r: r * r.log(),
    "squared_hellinger": lambda r: 1 - r.sqrt(),
    "jeffreys": lambda r: (r - 1) * r.log(),
}
LINE = torch.linspace(-25, 25, 10001, dtype=torch.float64)


def log_gaussian(x, mean, deviation):
    return -0.5 * ((x - mean) / deviation) ** 2 - math.log(deviation) - 0.5 * math.log(2 * math.pi)


def divergence(f, p, q):
    """``E_q[f(p/q)]`` of two Gaussians ``(mean, deviation)`` by quadrature."""
    log_p, log_q = log_gaussian(LINE, *p), log_gaussian(LINE, *q)
    value = log_q.exp() * f((log_p - log_q).clamp(-80, 80).exp())
    return float(torch.trapezoid(torch.where(log_q > -300, value, 0.0), LINE))


def test_every_divergence_is_tested():
    assert set(F_OF) == set(DIVERGENCES)
    with pytest.raises(ValueError, match="softened_reverse_kl"):
        weight("sofened", torch.zeros(1))


@pytest.mark.parametrize("name", F_OF)
def test_weight_is_r_squared_times_the_second_derivative(name):
    logit = torch.linspace(-8, 8, 65, dtype=torch.float64)
    r = logit.exp().requires_grad_()
    first = torch.autograd.grad(F_OF[name](r).sum(), r, create_graph=True)[0]
    second = torch.autograd.grad(first.sum(), r)[0]
    h = weight(name, logit, largest_ratio=math.inf)
    assert h.dtype == torch.float32
    torch.testing.assert_close(h.double(), r.detach() ** 2 * second, atol=1e-6, rtol=1e-5)
    assert needs_ratio(name) is not bool((h == 1).all())


@pytest.mark.parametrize("name", F_OF)
def test_weights_stay_finite_whatever_the_critic_says(name):
    h = weight(name, torch.tensor([-1e4, -90.0, 0.0, 90.0, 1e4]).bfloat16())
    assert torch.isfinite(h).all()
    assert (h >= 0).all()
    assert h.max() <= 21


# Noised to one level: p_t and q_t of a teacher N(0.4, 0.8) and a student x = mean + deviation z.
ALPHA, SIGMA = 0.8, 0.6
TEACHER = (0.4, 0.8)


def noised(distribution):
    return ALPHA * distribution[0], math.hypot(ALPHA * distribution[1], SIGMA)


def denoised(x_t, distribution):
    """The exact ``E[x0 | x_t]`` for Gaussian data."""
    mean, deviation = noised(distribution)
    return distribution[0] + ALPHA * distribution[1] ** 2 / deviation**2 * (x_t - mean)


def injected(h_of, student):
    """Expected gradient with respect to the student's mean and deviation, by Gauss-Hermite over its z and the noise."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    z, noise = (torch.from_numpy(g.ravel()) for g in np.meshgrid(nodes, nodes, indexing="ij"))
    share = torch.from_numpy(np.outer(weights, weights).ravel() / (2 * math.pi))
    x0 = student[0] + student[1] * z
    x_t = ALPHA * x0 + SIGMA * noise
    logit = log_gaussian(x_t, *noised(TEACHER)) - log_gaussian(x_t, *noised(student))
    gradient = distribution_matching_gradient(
        x0=x0[:, None],
        real_x0=denoised(x_t, TEACHER)[:, None],
        fake_x0=denoised(x_t, student)[:, None],
        weight=h_of(logit),
        normalise=False,
    )[:, 0].double()
    scale = ALPHA**2 / SIGMA**2
    return float((share * gradient).sum() * scale), float((share * gradient * z).sum() * scale)


@pytest.mark.parametrize("student", [(1.1, 0.6), (-0.5, 1.0), (0.4, 0.5)])
@pytest.mark.parametrize("name", F_OF)
def test_gradient_is_that_of_the_divergence_between_noised_gaussians(name, student):
    """Normaliser off, times ``a_t^2 / s_t^2``, it is the finite difference of ``D_f`` in both parameters."""
    step = 1e-4
    for axis, got in enumerate(injected(lambda l: weight(name, l, math.inf), student)):
        ends = []
        for sign in (1, -1):
            moved = tuple(v + sign * step * (k == axis) for k, v in enumerate(student))
            ends.append(divergence(F_OF[name], noised(TEACHER), noised(moved)))
        assert got == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=2e-3, abs=2e-5)


def test_paper_divergence_is_half_of_the_softened_reverse_kl():
    """Equation 6: ``KL((p + q) / 2 || p)``."""
    p, q = (0.0, 1.0), (1.3, 0.8)
    log_p = log_gaussian(LINE, *p)
    mixture = 0.5 * (log_p.exp() + log_gaussian(LINE, *q).exp())
    printed = float(torch.trapezoid(mixture * ((mixture + 1e-300).log() - log_p), LINE))
    assert divergence(F_OF["softened_reverse_kl"], p, q) == pytest.approx(2 * printed, rel=1e-6)


def test_the_weight_printed_in_equation_8_is_wrong():
    """``1/r`` is not the gradient of the softened reverse KL; it grows without bound where the student is bad."""
    student = (1.1, 0.6)
    right = injected(lambda l: weight("softened_reverse_kl", l), student)
    printed = injected(lambda l: torch.exp(-l), student)
    assert abs(printed[0] / right[0] - 1) > 0.5
    assert float(weight("softened_reverse_kl", torch.tensor(-20.0))) == pytest.approx(1.0)
    assert math.exp(20.0) > 1e8  # what the printed weight would be there
    step, chi_square = 1e-4, lambda r: 0.5 / r
    ends = [divergence(chi_square, noised(TEACHER), noised((student[0] + s, student[1]))) for s in (step, -step)]
    assert printed[0] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=2e-3)  # it is chi^2(q || p)'s


@pytest.mark.parametrize("name", F_OF)
def test_no_gradient_where_the_student_is_the_teacher(name):
    assert injected(lambda l: weight(name, l), TEACHER) == pytest.approx((0.0, 0.0), abs=1e-6)


def test_polarity():
    """Positive logits mean real: there the softened weight falls and Jensen-Shannon's rises; flipped they swap."""
    logit = torch.tensor([-3.0, 3.0])
    soft, js = weight("softened_reverse_kl", logit), weight("jensen_shannon", logit)
    assert soft[0] > 0.9
    assert soft[1] < 0.1
    torch.testing.assert_close(weight("softened_reverse_kl", -logit), js)
    real, fake = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    critic_loss(real_logit=real, fake_logit=fake).backward()
    assert real.grad < 0 < fake.grad
    generator_loss(fake_logit=(fake := torch.zeros(1, requires_grad=True))).backward()
    assert fake.grad < 0


def test_non_saturating_gradient_at_the_optimal_critic_is_the_softened_reverse_kls():
    p, q = (0.0, 1.0), (1.2, 0.7)
    x = LINE[(LINE > -6) & (LINE < 6)].clone().requires_grad_()
    logit = log_gaussian(x, *p) - log_gaussian(x, *q)
    density = log_gaussian(x.detach(), *q).exp()
    per_sample = torch.autograd.grad((torch.nn.functional.softplus(-logit) * density).sum(), x)[0]
    adversarial = float(torch.trapezoid(per_sample, x.detach()))  # d/d mean of E_q[-log D], critic held
    step = 1e-4
    ends = [divergence(F_OF["softened_reverse_kl"], p, (q[0] + s, q[1])) for s in (step, -step)]
    assert adversarial == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4)


def fitted(kind, apart):
    """Slope and intercept of a linear critic between N(0, 1), real, and N(d, 1), fake: the truth is -d and d^2 / 2.

    Samples are the midpoints of equal shares of each distribution, so there is no sampling error to speak of.
    """
    levels = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    real = torch.distributions.Normal(0.0, 1.0).icdf(levels)
    fake = real + apart
    line = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([line], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        logits = {"real_logit": line[0] * real + line[1], "fake_logit": line[0] * fake + line[1]}
        loss = critic_loss(**logits, kind=kind)
        loss.backward()
        return loss

    optimizer.step(closure)
    return line.detach().numpy()


def test_only_the_cross_entropy_critic_is_calibrated():
    for apart in (0.3, 1.0, 3.0):
        assert fitted("bce", apart) == pytest.approx([-apart, apart**2 / 2], rel=0.01)
    assert fitted("hinge", 0.3)[0] < -0.5
    assert fitted("hinge", 3.0)[0] > -2.5
    assert abs(fitted("relativistic", 1.0)[1] - 0.5) > 0.4  # the factor between the densities is lost


def test_surrogate_injects_the_weighted_normalised_difference():
    x0 = torch.randn(3, 2, 4, requires_grad=True)
    real, fake, h = torch.randn(3, 2, 4), torch.randn(3, 2, 4), torch.tensor([0.1, 0.5, 1.0])
    gradient = distribution_matching_gradient(x0=x0.detach(), real_x0=real, fake_x0=fake, weight=h)
    surrogate(x0=x0, gradient=gradient).backward()
    normaliser = (x0.detach() - real).abs().mean(dim=(1, 2), keepdim=True)
    expected = h[:, None, None] * (fake - real) / normaliser / x0.numel()
    torch.testing.assert_close(x0.grad, expected, atol=1e-7, rtol=1e-5)


def test_normaliser_is_of_each_sample_and_never_zero():
    x0, real, fake = (torch.randn(4, 2, 3) for _ in range(3))
    h = torch.rand(4)
    whole = distribution_matching_gradient(x0=x0, real_x0=real, fake_x0=fake, weight=h)
    rows = [slice(2, 4), slice(0, 2)]
    parts = [distribution_matching_gradient(x0=x0[r], real_x0=real[r], fake_x0=fake[r], weight=h[r]) for r in rows]
    torch.testing.assert_close(whole[[2, 3, 0, 1]], torch.cat(parts))
    same = distribution_matching_gradient(x0=x0, real_x0=x0, fake_x0=x0, weight=h)
    assert not same.any()


def test_r1_estimates_the_squared_gradient_and_needs_both_logits_of_one_clip():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200000, 2, generator=generator)
    noise = torch.randn(x.shape, generator=generator)

    def critic(x):  # gradient (3, -4)
        return 3 * x[:, 0] - 4 * x[:, 1]

    estimate = approximate_r1(logit=critic(x), moved_logit=critic(x + 0.01 * noise), sigma=0.01)
    assert float(estimate) == pytest.approx(25.0, rel=0.02)
    assert float(approximate_r1(logit=critic(x), moved_logit=critic(x), sigma=0.01)) == 0.0
    clean, at_a_time = x, 0.8 * x + 0.6 * noise
    wrong = approximate_r1(logit=critic(at_a_time), moved_logit=critic(clean + 0.01 * noise), sigma=0.01)
    assert float(wrong) > 1000 * float(estimate)  # it would measure the noise, not the critic


def test_regression_and_denoising_are_mean_squared_errors():
    a, b = torch.randn(2, 3).bfloat16(), torch.randn(2, 3)
    expected = (a.float() - b).square().mean()
    torch.testing.assert_close(regression_loss(x0=a, target=b), expected)
    torch.testing.assert_close(denoising_loss(predicted=a, target=b), expected)

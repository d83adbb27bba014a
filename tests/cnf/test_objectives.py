"""The objectives against closed forms, quadrature and independent solvers."""

import math

import pytest
import torch

from sciflow import cnf
from sciflow.cnf.flow_matching import assignment
from sciflow.cnf.march import knots, march
from sciflow.cnf.reverse_kl import checked_energy
from sciflow.integrators import integrate


class Linear(torch.nn.Module):
    """The field A x, whose flow is the matrix exponential."""

    def __init__(self, a):
        super().__init__()
        self.a, self.dim = torch.nn.Parameter(a), len(a)

    def forward(self, t, x):
        return x @ self.a.T


@pytest.fixture
def a():
    return torch.tensor([[0.3, -0.8], [0.5, -0.6]])


@pytest.fixture
def flow(generator):
    field = cnf.VelocityMLP(2, 16, 2, generator=generator)
    torch.nn.init.normal_(field.last.weight, std=0.4, generator=generator)
    return cnf.ContinuousFlow(field, rtol=1e-9, atol=1e-9)


def test_knots_end_at_the_ends_and_move_between(generator):
    plain, moved = knots(6), knots(6, generator)
    for times in (plain, moved):
        assert times[0] == 0 and times[-1] == 1 and times == sorted(times)
    assert plain != moved


@pytest.mark.parametrize("backwards", [False, True])
def test_march_of_a_linear_field_in_closed_form(a, generator, backwards):
    x = torch.randn(200, 2, generator=generator)
    times = knots(24)[:: -1 if backwards else 1]
    way = march(Linear(a), x, times, "tsit5", generator=generator, kinetic=True, jacobian=True)
    sign = -1 if backwards else 1
    torch.testing.assert_close(way.y, x @ torch.linalg.matrix_exp(sign * a).T)
    torch.testing.assert_close(way.change, torch.full((200,), sign * float(a.trace())))
    # The probe's |e^T A|^2 has the mean |A|_F^2 and at two dimensions the spread of e_1 e_2 alone.
    rows = a.square().sum() + 2 * torch.tensor([1.0, -1.0]) * (a[0] * a[1]).sum()
    spread = float((rows[0] - rows[1]).abs() / 2) / math.sqrt(200)
    assert abs(float(way.jacobian - a.square().sum())) < 5 * spread
    grid = torch.linspace(0, 1, 401)
    path = integrate(lambda t, y: y @ a.T, x, grid if not backwards else -grid, rtol=1e-9).y
    speed = (path @ a.T).square().sum(-1).mean(1)
    torch.testing.assert_close(way.kinetic, torch.trapezoid(speed, grid), rtol=1e-4, atol=0)


def test_error_of_a_march_falls_at_the_order_of_its_estimate(flow, generator):
    x = torch.randn(100, 2, generator=generator)
    coarse, fine = (float(march(flow.field, x, knots(n)[::-1]).error.detach()) for n in (8, 16))
    # bosh3 estimates by its order 2: h^6 per squared local error, of which there are 1/h.
    assert 16 < coarse / fine < 64


def test_maximum_likelihood_is_that_of_the_flow(flow, generator):
    x = torch.randn(50, 2, generator=generator)
    objective = cnf.MaximumLikelihood(flow, n_steps=40, method="tsit5", error_penalty=1.0)
    objective.generator = generator
    loss = objective(x)
    truth = -flow.log_prob(x).mean()
    torch.testing.assert_close(loss.value, truth, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        objective.coarse_log_prob(flow, x), flow.log_prob(x), atol=1e-6, rtol=0
    )
    own = torch.autograd.grad(loss.value, flow.field.layers[1].weight)[0]
    exact = torch.autograd.grad(truth, flow.field.layers[1].weight)[0]
    torch.testing.assert_close(own, exact, rtol=1e-4, atol=1e-7)


def test_regularisers_enter_with_their_weights(flow, generator):
    x = torch.randn(20, 2, generator=generator)
    objective = cnf.MaximumLikelihood(flow, 6, error_penalty=2.0, kinetic=0.3, jacobian=0.1)
    loss = objective(x)
    m = loss.metrics
    expected = m["nll"] + 2 * m["error"] + 0.3 * m["kinetic"] + 0.1 * m["jacobian"]
    torch.testing.assert_close(loss.value.detach(), expected)


def test_flow_matching_of_the_true_velocity_is_the_irreducible_error(generator):
    """Independent pairs of N(0, 1) and N(0, s^2): the velocity and its variance are known."""
    s, n = 2.0, 200_000

    class Optimal(torch.nn.Module):
        dim = 1

        def __init__(self):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.ones(()))

        def forward(self, t, x):
            t = t[:, None]
            return self.gain * x * (s**2 * t - (1 - t)) / (s**2 * t**2 + (1 - t) ** 2)

    model = cnf.ContinuousFlow(Optimal())
    objective = cnf.FlowMatching(model)
    objective.generator = generator
    z, x = (torch.randn(n, 1, generator=generator) for _ in range(2))
    loss = objective((z, s * x)).value
    u = (torch.arange(20_000) + 0.5) / 20_000
    times = torch.cat([u, 1 - (1 - u) ** 3])
    rest = s**2 / (s**2 * times**2 + (1 - times) ** 2)
    # The loss is a mean of scaled squares of normal numbers: standard deviation below 2 E/sqrt n.
    expected = float(rest.mean())
    error = math.sqrt(float(2 * rest.square().mean()) + float(rest.var())) / math.sqrt(n)
    assert abs(float(loss.detach()) - expected) < 5 * error
    other = objective((z, s * x)).value
    (slope,) = torch.autograd.grad(other, model.field.gain)
    assert abs(float(slope)) < 10 * error * 2  # stationary at the true velocity


def test_angles_take_the_short_way(generator):
    field = cnf.VelocityMLP(1, 8, 1, periodic=(0,))
    model = cnf.ContinuousFlow(field, periods={0: 2 * math.pi})
    objective = cnf.FlowMatching(model)
    objective.generator = generator
    z, x = torch.full((10, 1), -3.0), torch.full((10, 1), 3.0)
    expected = (2 * math.pi - 6) ** 2  # the field is zero at first
    assert float(objective((z, x)).value.detach()) == pytest.approx(expected)


def test_assignment_is_optimal_and_pairs_keep_their_data(generator):
    from scipy.optimize import linear_sum_assignment

    flow = cnf.ContinuousFlow(cnf.VelocityMLP(2))
    z, y = (torch.randn(60, 2, generator=generator) for _ in range(2))
    rows = assignment(flow, z, y)
    cost = torch.cdist(y, z).square()
    _, best = linear_sum_assignment(cost.cpu().numpy())
    assert sorted(rows.tolist()) == list(range(60))
    assert rows.cpu().tolist() == best.tolist()
    x = torch.randn(100, 2, generator=generator)
    pairs = cnf.CoupledPairs(flow, x, n_pairs=256, pool=64)
    drawn_z, drawn_x = pairs.sample(500, generator)
    assert (drawn_x[:, None] == x).all(2).any(1).all()
    coupled = (pairs.z - pairs.x).square().sum(1).mean()
    assert float(coupled) < 0.5  # 4 without a coupling, and 0 of unlimited draws
    assert abs(float(drawn_z.square().mean()) - 1) < 0.3


def test_reverse_kl_in_closed_form(a, generator):
    """Samples N(0, S), S = e^A e^A^T, in the energy |x|^2 / 2 at kT: KL - log Z is known."""
    n, kT = 20_000, 0.7
    flow = cnf.ContinuousFlow(Linear(a), scale=1.5)
    energy = lambda x: 0.5 * x.square().sum(1)
    objective = cnf.ReverseKL(flow, energy, kT, n_steps=20, method="tsit5")
    z = flow.base.sample(n, generator)
    bound = float(objective(z).metrics["free_energy_bound"])
    s = 1.5**2 * torch.linalg.matrix_exp(a) @ torch.linalg.matrix_exp(a).T
    expected = float(s.trace()) / (2 * kT) - 0.5 * float(s.logdet()) - 1 - math.log(2 * math.pi)
    values = 0.5 * flow.to_data(z).detach().square().sum(1) / kT + flow.base.log_prob(z)
    assert abs(bound - expected) < 5 * float(values.std()) / math.sqrt(n)
    assert bound > -math.log(2 * math.pi * kT)  # the free energy over kT, at which it would end


def test_ceiling_softens_the_energy(flow, generator):
    wall = lambda x: 1e8 * x.square().sum(1)
    z = flow.base.sample(50, generator)
    values = [
        float(cnf.ReverseKL(flow, wall, ceiling=c)(z).metrics["free_energy_bound"])
        for c in (None, 50.0)
    ]
    assert values[0] > 1e6 and values[1] < 100


def test_mixture_is_the_weighted_sum(flow, generator):
    parts = {
        "samples": cnf.MaximumLikelihood(flow, 4),
        "energy": cnf.ReverseKL(flow, lambda x: x.square().sum(1), n_steps=4),
    }
    batch = {
        "samples": torch.randn(8, 2, generator=generator),
        "energy": flow.base.sample(8, generator),
    }
    mixture = cnf.Mixture(parts, {"samples": 0.25, "energy": 0.75})
    loss = mixture(batch)
    expected = 0.25 * parts["samples"](batch["samples"]).value
    expected = expected + 0.75 * parts["energy"](batch["energy"]).value
    torch.testing.assert_close(loss.value, expected)
    assert "samples/nll" in loss.metrics and "energy/free_energy_bound" in loss.metrics


def test_bad_objectives_are_named(flow, unchecked):
    x = torch.zeros(4, 2)
    with pytest.raises(ValueError, match=r"energy must return shape \(4,\).* got \(4, 2\)"):
        checked_energy(lambda x: x, x)
    with pytest.raises(TypeError, match="energy must return a tensor; got float"):
        checked_energy(lambda x: 1.0, x)
    with pytest.raises(ValueError, match="energy is NaN for 4 of 4 samples"):
        checked_energy(lambda x: x[:, 0] * math.nan, x)
    with pytest.raises(ValueError, match="kT must be positive"):
        cnf.ReverseKL(flow, lambda x: x.sum(1), kT=0.0)
    with pytest.raises(ValueError, match="method must estimate its error"):
        march(flow.field, x, knots(4), "rk4")
    with pytest.raises(ValueError, match="need a generator"):
        march(flow.field, x, knots(4), trace="hutchinson")
    parts = {"samples": cnf.MaximumLikelihood(flow)}
    with pytest.raises(ValueError, match="weights must have the names"):
        cnf.Mixture(parts, {"energy": 1.0})
    with pytest.raises(ValueError, match="the same model"):
        other = cnf.MaximumLikelihood(cnf.ContinuousFlow(cnf.VelocityMLP(2)))
        cnf.Mixture(parts | {"other": other}, {"samples": 1.0, "other": 1.0})

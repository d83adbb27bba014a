"""The log-density that travels with the samples."""

import math

import pytest
import torch

import sciflow
from sciflow.integrators import exact_divergence, hutchinson_divergence
from sciflow.integrators.divergence import rademacher

UNIT = torch.tensor([0.0, 1.0], dtype=torch.float64)


def network(dim):
    net = torch.nn.Sequential(
        torch.nn.Linear(dim + 1, 16), torch.nn.Tanh(), torch.nn.Linear(16, dim)
    ).requires_grad_(False)
    return lambda t, x: net(torch.cat([x, t.expand(len(x), 1)], 1))


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_exact_trace_against_the_jacobian(dim):
    field, x, t = network(dim), torch.randn(6, dim), torch.tensor(0.3)
    value, trace = exact_divergence(field, t, x)
    assert torch.equal(value, field(t, x))
    for i in range(6):
        jacobian = torch.autograd.functional.jacobian(lambda z: field(t, z[None])[0], x[i])
        torch.testing.assert_close(trace[i], jacobian.trace(), rtol=0, atol=1e-8)


def test_exact_trace_of_a_gradient_field():
    """The divergence of grad U is the Laplacian, by a second derivative."""

    def field(t, x):
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            (g,) = torch.autograd.grad((x**4).sum() + x.prod(1).sum(), x, create_graph=True)
        return g

    x = torch.randn(5, 3)
    torch.testing.assert_close(exact_divergence(field, UNIT[0], x)[1], (12 * x**2).sum(1))


def test_fields_that_are_constant_have_no_divergence():
    x, probe = torch.randn(4, 3), torch.ones(4, 3)
    a = torch.tensor(2.0, requires_grad=True)
    for field in (lambda t, x: torch.ones_like(x), lambda t, x: a.expand_as(x)):
        assert torch.equal(exact_divergence(field, UNIT[0], x)[1], torch.zeros(4))
        assert torch.equal(hutchinson_divergence(field, UNIT[0], x, probe)[1], torch.zeros(4))


def test_own_rule_is_used():
    class Linear:
        def __call__(self, t, x):
            raise AssertionError("its own rule gives the value as well")

        def value_and_divergence(self, t, x):
            return -2 * x, torch.full((len(x),), -2.0 * x.shape[1])

    y = sciflow.integrate(
        sciflow.WithLogDensity(Linear()), (torch.ones(3, 2), torch.zeros(3)), UNIT
    ).y
    torch.testing.assert_close(y[1][-1], torch.full((3,), 4.0))


@pytest.mark.parametrize("batch", ["joint", "each"])
@pytest.mark.parametrize("grad", ["direct", "checkpoint"])
def test_linear_field_closed_form(batch, grad):
    """x' = A x from a standard normal: log p(x, 1) is that of N(0, exp(A) exp(A)^T)."""
    if batch == "each" and grad == "checkpoint":
        pytest.skip("each goes with direct")
    a = torch.randn(3, 3) * 0.5
    x0 = torch.randn(50, 3)
    normal = torch.distributions.MultivariateNormal(torch.zeros(3), torch.eye(3))
    solution = sciflow.integrate(
        sciflow.WithLogDensity(lambda t, x: x @ a.T), (x0, normal.log_prob(x0)), UNIT,
        rtol=1e-9, atol=1e-9, batch=batch, grad=grad,
    )  # fmt: skip
    x, logp = (leaf[-1] for leaf in solution.y)
    flow = torch.linalg.matrix_exp(a)
    end = torch.distributions.MultivariateNormal(torch.zeros(3), flow @ flow.T)
    torch.testing.assert_close(x, x0 @ flow.T, rtol=0, atol=1e-7)
    torch.testing.assert_close(logp, end.log_prob(x), rtol=0, atol=1e-6)


def test_density_integrates_to_one():
    """Push a grid through a nonlinear flow; the density there sums to one by quadrature."""
    field = sciflow.WithLogDensity(lambda t, x: torch.sin(x + t))
    grid = torch.linspace(-12, 12, 4001)[:, None]
    zeros = torch.zeros(len(grid))
    with torch.no_grad():
        back, gain = sciflow.integrate(field, (grid, zeros), UNIT.flip(0), rtol=1e-8, atol=1e-8).y
    log_density = torch.distributions.Normal(0.0, 1.0).log_prob(back[-1][:, 0]) - gain[-1]
    total = torch.trapezoid(log_density.exp(), grid[:, 0])
    assert float(total) == pytest.approx(1.0, abs=1e-6)


def test_hutchinson_is_unbiased():
    field, n = network(4), 4000
    x = torch.randn(1, 4).expand(n, 4)
    _, exact = exact_divergence(field, UNIT[1], x[:1])
    probe = rademacher(x, torch.Generator().manual_seed(0))
    assert set(probe.unique().tolist()) == {-1.0, 1.0}
    value, estimate = hutchinson_divergence(field, UNIT[1], x, probe)
    torch.testing.assert_close(value, field(UNIT[1], x))
    error = float(estimate.mean() - exact)
    assert abs(error) < 3 * float(estimate.std()) / math.sqrt(n)


def test_hutchinson_solve_is_unbiased_and_seeded():
    field, n = network(4), 4000
    state = (torch.randn(1, 4).expand(n, 4).clone(), torch.zeros(n))
    exact = sciflow.integrate(sciflow.WithLogDensity(field), state, UNIT).y[1][-1]
    noisy = sciflow.WithLogDensity(field, trace="hutchinson")
    logp = sciflow.integrate(noisy, state, UNIT, seed=1).y[1][-1]
    assert abs(float(logp.mean() - exact[0])) < 3 * float(logp.std()) / math.sqrt(n)
    assert torch.equal(sciflow.integrate(noisy, state, UNIT, seed=1).y[1][-1], logp)
    assert not torch.equal(sciflow.integrate(noisy, state, UNIT, seed=2).y[1][-1], logp)
    generator = torch.Generator().manual_seed(1)
    assert torch.equal(sciflow.integrate(noisy, state, UNIT, generator=generator).y[1][-1], logp)
    with pytest.raises(ValueError, match="give seed or generator"):
        sciflow.integrate(noisy, state, UNIT)


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_reversible(trace):
    field = sciflow.WithLogDensity(network(3), trace=trace)
    state = (torch.randn(20, 3), torch.randn(20))
    options = dict(rtol=1e-9, atol=1e-9, seed=7 if trace == "hutchinson" else None)
    there = sciflow.integrate(field, state, UNIT, **options).y
    back = sciflow.integrate(field, tuple(y[-1] for y in there), UNIT.flip(0), **options).y
    for got, expected in zip(back, state, strict=True):
        torch.testing.assert_close(got[-1], expected, rtol=0, atol=1e-7)


def test_gradient_of_the_likelihood_against_central_differences():
    x = torch.randn(5, 2)

    def loss(a):
        field = sciflow.WithLogDensity(lambda t, x: torch.tanh(a * x + t) * x.flip(1))
        y, logp = sciflow.integrate(field, (x, torch.zeros(5)), UNIT, rtol=1e-10, atol=1e-10).y
        return logp[-1].sum() + y[-1].square().sum()

    a = torch.tensor(0.7, requires_grad=True)
    (got,) = torch.autograd.grad(loss(a), a)
    with torch.no_grad():
        expected = (loss(torch.tensor(0.7 + 1e-4)) - loss(torch.tensor(0.7 - 1e-4))) / 2e-4
    assert float(got) == pytest.approx(float(expected), rel=1e-6)


def test_no_graph_is_kept_without_gradients():
    with torch.no_grad():
        y = sciflow.integrate(
            sciflow.WithLogDensity(network(2)), (torch.randn(3, 2), torch.zeros(3)), UNIT
        ).y
    assert not y[0].requires_grad and not y[1].requires_grad


def test_bad_arguments(unchecked):
    with pytest.raises(ValueError, match="trace must be 'exact' or 'hutchinson'; got 'best'"):
        sciflow.WithLogDensity(network(2), trace="best")
    field = sciflow.WithLogDensity(network(2))
    with pytest.raises(TypeError, match=r"y0 of a WithLogDensity must be \(x, logp\)"):
        sciflow.integrate(field, torch.randn(3, 2), UNIT)
    for x, logp in ((torch.randn(3), torch.zeros(3)), (torch.randn(3, 2), torch.zeros(3, 1))):
        with pytest.raises(ValueError, match=r"x \(batch, dim\) and logp \(batch,\)"):
            sciflow.integrate(field, (x, logp), UNIT)

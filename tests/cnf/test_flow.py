"""The flow as a density: inverse, normalisation, one pass against two, files, bad input."""

import copy
import math

import pytest
import torch
from torch.distributions import AffineTransform, MultivariateNormal, TransformedDistribution

from sciflow import cnf
from sciflow.integrators import exact_divergence, hutchinson_divergence
from sciflow.integrators.divergence import rademacher

TIGHT = {"rtol": 1e-8, "atol": 1e-8}


def velocity(dim, generator, gain=0.5, **options):
    field = cnf.VelocityMLP(dim, 16, 2, generator=generator, **options)
    torch.nn.init.normal_(field.last.weight, std=gain, generator=generator)
    return field


@pytest.fixture(params=["plain", "residual", "conditional", "periodic", "hutchinson"])
def case(request, generator, dtype, device):
    """A flow of each kind, data for it, and its context."""
    kind = request.param
    options = {
        "residual": {"residual": True, "plane_waves": 5},
        "conditional": {"n_context": 2},
        "periodic": {"periodic": (1,)},
    }
    field = velocity(3, generator, **options.get(kind, {}))
    flow = cnf.ContinuousFlow(
        field,
        trace="hutchinson" if kind == "hutchinson" else "exact",
        periods={1: 5.0} if kind == "periodic" else None,
        shift=[1.0, -1.0, 0.5],
        scale=[2.0, 1.0, 0.5],
        **TIGHT,
    )
    context = torch.randn(40, 2, generator=generator) if kind == "conditional" else None
    return flow.to(device, dtype), context


def test_inverse(case, generator):
    flow, context = case
    x = flow.sample(40, context, generator)
    with torch.no_grad():
        again = flow.to_data(flow.to_latent(x, context), context)
    assert float((x - again).abs().max()) < 1e-6


def test_one_pass_against_two(case, generator):
    flow, context = case
    with torch.no_grad():
        if flow.trace == "hutchinson":  # the same probe on both ways
            flow = cnf.ContinuousFlow(flow.field, scale=flow.scale, shift=flow.shift, **TIGHT)
        x, log_p = flow.sample_with_log_prob(40, context, generator)
        assert float((flow.log_prob(x, context) - log_p).abs().max()) < 1e-6


def test_trace_of_the_field_against_the_jacobian(case, generator):
    flow, context = case
    x = torch.randn(7, 3, generator=generator)
    rest = () if context is None else (context[:7],)
    for t in (torch.tensor(0.3), torch.rand(7, generator=generator)):
        value, divergence = flow.field.value_and_divergence(t, x, *rest)
        torch.testing.assert_close(value, flow.field(t, x, *rest), rtol=0, atol=1e-12)
        plain = lambda t, x: flow.field(t, x, *rest)
        torch.testing.assert_close(divergence, exact_divergence(plain, t, x)[1], rtol=0, atol=1e-8)


def test_gradient_of_the_closed_form_divergence(generator):
    """The written-out backward pass against autograd through the plain network."""
    field, x = velocity(2, generator), torch.randn(9, 2, generator=generator)
    t = torch.tensor(0.6)
    gradients = []
    for rule in (field.value_and_divergence, lambda t, x: exact_divergence(field.forward, t, x)):
        points = x.clone().requires_grad_()
        value, divergence = rule(t, points)
        loss = (value.square().sum(1) * divergence).sum()
        gradients.append(torch.autograd.grad(loss, [points, *field.parameters()]))
    for own, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(own, plain, rtol=1e-9, atol=1e-12)


def test_hutchinson_mean_of_many_probes(generator):
    field, x = velocity(4, generator), torch.randn(3, 4, generator=generator)
    t, n = torch.tensor(0.5), 10_000
    with torch.no_grad():
        exact = field.value_and_divergence(t, x)[1]
        many = x.repeat(n, 1)
        estimate = hutchinson_divergence(field, t, many, rademacher(many, generator))[1]
    estimate = estimate.reshape(n, 3)
    error = estimate.std(0) / math.sqrt(n)
    assert bool(((estimate.mean(0) - exact).abs() < 3 * error).all())


def test_density_integrates_to_one(generator):
    flow = cnf.ContinuousFlow(velocity(2, generator, gain=0.25), shift=1.0, scale=2.0)
    grid = torch.linspace(-14, 16, 151)
    x = torch.cartesian_prod(grid, grid)
    with torch.no_grad():
        total = flow.log_prob(x).exp().sum() * (grid[1] - grid[0]) ** 2
    assert abs(float(total) - 1) < 0.005


def test_density_on_a_torus_integrates_to_one_and_is_periodic(generator):
    field = velocity(2, generator, periodic=(0, 1))
    flow = cnf.ContinuousFlow(field, periods={0: 2.0, 1: 360.0}, shift=[0.0, 180.0])
    a, b = torch.linspace(-1, 1, 61)[:-1], torch.linspace(0, 360, 61)[:-1]
    x = torch.cartesian_prod(a, b)
    with torch.no_grad():
        log_p = flow.log_prob(x)
        there = flow.log_prob(x + torch.tensor([4.0, -360.0]))
    torch.testing.assert_close(there, log_p, rtol=0, atol=1e-6)
    assert abs(float(log_p.exp().sum()) * (2 / 60) * 6 - 1) < 0.005
    assert bool(flow.support.check(flow.sample(100)).all())


def test_conditional_flow_follows_its_context(generator):
    field = velocity(2, generator, n_context=1)
    flow = cnf.ContinuousFlow(field)
    z = torch.zeros(1, 2)
    with torch.no_grad():
        a, b = (flow.to_data(z, torch.tensor([c])) for c in (0.0, 1.0))
    assert float((a - b).abs().max()) > 1e-3
    with pytest.raises(ValueError, match=r"context must be \(B, 1\); got none"):
        flow.log_prob(z)


def test_a_distribution_of_torch(generator):
    flow = cnf.ContinuousFlow(velocity(2, generator), n_steps=8, method="rk4")
    assert isinstance(flow, torch.distributions.Distribution)
    assert flow.event_shape == (2,) and flow.batch_shape == ()
    assert flow.sample().shape == (2,) and flow.rsample((3, 4)).requires_grad
    moved = TransformedDistribution(flow, [AffineTransform(3.0, 2.0, event_dim=1)])
    x = torch.randn(5, 2, generator=generator)
    torch.testing.assert_close(
        moved.log_prob(x), flow.log_prob((x - 3) / 2) - 2 * math.log(2), rtol=0, atol=1e-9
    )
    assert flow.log_prob(x.reshape(5, 1, 2)).shape == (5, 1)


def test_any_base_of_torch(generator):
    base = MultivariateNormal(torch.ones(2), torch.tensor([[2.0, 0.5], [0.5, 1.0]]))
    flow = cnf.ContinuousFlow(cnf.VelocityMLP(2), base)  # a new field does not move
    before = torch.random.get_rng_state()
    x = flow.sample(2000, generator=generator)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.testing.assert_close(flow.log_prob(x), base.log_prob(x))
    assert float((x.mean(0) - 1).abs().max()) < 5 * math.sqrt(2 / 2000)


def test_samples_are_reproducible_and_go_on(generator):
    flow = cnf.ContinuousFlow(velocity(2, generator))
    twin = copy.deepcopy(flow)
    first = flow.sample(3)
    assert torch.equal(first, twin.sample(3))
    assert not torch.equal(first, flow.sample(3))


def test_log_likelihood_knows_its_errors(generator):
    field, x = velocity(3, generator), torch.randn(12, 3, generator=generator)
    truth = cnf.ContinuousFlow(field, rtol=1e-9, atol=1e-9).log_prob(x).detach()
    exact = cnf.ContinuousFlow(field, rtol=1e-4, atol=1e-4).log_likelihood(x)
    assert bool((exact.trace_error == 0).all())
    off = (exact.value - truth).abs()
    assert float(off.max()) < float(exact.solver_error.max()) < 0.1
    rough = cnf.ContinuousFlow(field, trace="hutchinson", method="rk4", n_steps=20)
    noisy = rough.log_likelihood(x, probes=24, generator=generator)
    score = (noisy.value - truth) / noisy.trace_error
    assert float(score.square().mean()) < 5  # 12 scores of variance 1.1: 5 is beyond 6 sigma
    assert math.isfinite(noisy.mean) and noisy.error > 0


def test_save_and_load(case, tmp_path, generator):
    flow, context = case
    flow.save(tmp_path / "flow.safetensors")
    again = cnf.load(tmp_path / "flow.safetensors").to(flow.shift)
    x = torch.randn(40, 3, generator=generator)
    with torch.no_grad():
        a, b = (f.to_latent(x, context) for f in (flow, again))
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert (again.trace, again.periods, again.rtol) == (flow.trace, flow.periods, flow.rtol)


def test_gradients_reach_the_parameters(generator):
    flow = cnf.ContinuousFlow(velocity(2, generator), method="rk4", n_steps=10)
    x = torch.randn(6, 2, generator=generator)
    flow.log_prob(x).sum().backward()
    weight = flow.field.layers[1].weight
    own = float(weight.grad[0, 0])
    with torch.no_grad():
        values = []
        for step in (1e-5, -1e-5):
            weight[0, 0] += step
            values.append(float(flow.log_prob(x).sum()))
            weight[0, 0] -= step
    assert own == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f.log_prob(torch.tensor([[0.0, math.nan]])), "x: nan at row 0, column 1"),
        (lambda f: f.log_prob(torch.zeros(4, 3)), r"x must have shape \(..., 2\); got \(4, 3\)"),
        (lambda f: f.to_data(torch.zeros(4, 1)), r"z must have shape"),
        (lambda f: f.log_prob(torch.zeros(4, 2), torch.zeros(3, 1)), "context must have shape"),
        (lambda f: cnf.ContinuousFlow(f.field, trace="none"), "trace must be 'exact'"),
        (lambda f: cnf.ContinuousFlow(f.field, dim=3), "must agree on one size"),
        (lambda f: cnf.ContinuousFlow(f.field, scale=0.0), "scale must be positive"),
        (lambda f: cnf.ContinuousFlow(f.field, scale=[1.0, 1.0, 1.0]), "scale must be a number"),
        (lambda f: cnf.ContinuousFlow(f.field, periods={2: 1.0}), "periodic must be indices"),
        (lambda f: cnf.ContinuousFlow(f.field, periods={0: -1.0}), "periods must be positive"),
        (lambda f: cnf.ContinuousFlow(f.field, n_steps=0), "n_steps must be at least 1"),
        (
            lambda f: cnf.ContinuousFlow(f.field, torch.distributions.Normal(0.0, 1.0)),
            "base must have event shape",
        ),
    ],
)
def test_bad_input_is_named(call, message, unchecked):
    with pytest.raises(ValueError, match=message):
        call(cnf.ContinuousFlow(cnf.VelocityMLP(2)))


def test_a_solver_that_steps_past_the_end(generator):
    flow = cnf.ContinuousFlow(velocity(2, generator), **TIGHT)
    x = torch.randn(5, 2, generator=generator)
    other = flow.with_solver("torchdiffeq:dopri5", 1e-8, 1e-8)
    with torch.no_grad():
        torch.testing.assert_close(other.to_data(flow.to_latent(x)), x, rtol=0, atol=1e-5)

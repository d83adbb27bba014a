"""Action matching from samplers, against densities whose flow and action are known."""

import logging
import math

import pytest
import torch

from sciflow import DataError, am
from sciflow.am.objective import ActionMatching
from sciflow.am.sampled import AsDrawn, SampledDensity, fit_sampler
from sciflow.am.scale import Scale
from sciflow.am.times import Times
from sciflow.systems import HydrogenSuperposition, OscillatorSuperposition

logger = logging.getLogger(__name__)
SHORT = {"device": "cpu", "progress": False, "lr": 5e-3, "batch_size": 256, "ema": 0.99}


def normal(n, dim, generator):
    return torch.randn(n, dim, generator=generator, dtype=torch.float64)


def widening(t, generator):
    """N(2 t e_1, (1 + t)^2): velocity e_1 2 + (x - 2 t e_1) / (1 + t), action 2 + d/2."""
    x = normal(len(t), 2, generator) * (1 + t)[:, None]
    return x + 2 * torch.stack([t, torch.zeros_like(t)], 1)


def test_deterministic_flow_and_certificate():
    model = fit_sampler(widening, 0.0, 1.0, steps=300, width=32, **SHORT)
    wrong = right = 0.0
    for t in (0.1, 0.5, 0.9):
        x = widening(torch.full((2000,), t), torch.Generator().manual_seed(3))
        center = torch.tensor([2 * t, 0.0])
        exact = torch.tensor([2.0, 0.0]) + (x - center) / (1 + t)
        wrong += float((model.velocity(t, x) - exact).square().sum())
        right += float(exact.square().sum())
    assert (wrong / right) ** 0.5 < 0.08
    action = model.action()
    assert action.rollout == pytest.approx(3.0, rel=0.05)
    # loss plus kinetic energy of the truth: half the mean squared error of the velocity, >= 0
    error = 0.5 * wrong / 6000
    assert action.certificate(3.0) == pytest.approx(error, abs=0.15)


def heat(t, generator):
    """Brownian motion of sigma = 0.8 from N(0, 1): no drift at all."""
    return normal(len(t), 2, generator) * (1 + 0.64 * t).sqrt()[:, None]


def test_entropic_flow_of_diffusion_has_no_drift():
    model = fit_sampler(heat, 0.0, 1.0, "entropic", sigma=0.8, steps=150, width=32, **SHORT)
    x = heat(torch.full((2000,), 0.5), torch.Generator().manual_seed(5))
    # without noise the velocity would be 0.64 x / (2 (1 + 0.32)), of mean square 0.155
    assert float(model.velocity(0.5, x).square().mean()) < 0.01
    x0 = heat(torch.zeros(8000), torch.Generator().manual_seed(6))
    moved = model.trajectories(x0, torch.tensor([0.0, 1.0]), n_steps=20).x[-1]
    assert float(moved.var(0).mean()) == pytest.approx(1.64, rel=0.06)


def growing(t, generator):
    """A Gaussian that stays where it is; its mass is exp(t)."""
    return normal(len(t), 1, generator)


def test_unbalanced_flow_of_a_growing_mass():
    model = fit_sampler(
        growing,
        0.0,
        1.0,
        "unbalanced",
        growth_penalty=2.0,
        mass=torch.exp,
        steps=250,
        width=32,
        **SHORT,
    )
    x = growing(torch.zeros(2000), torch.Generator().manual_seed(7))
    moved = model.trajectories(x, torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(
        moved.mass, torch.exp(torch.tensor([0.0, 0.5, 1.0])), rtol=0.02, atol=0
    )
    assert float(model.growth(0.5, x).mean()) == pytest.approx(1.0, abs=0.04)
    assert float(model.velocity(0.5, x).square().mean()) < 0.01


def exploding(t, generator):
    """Spread t: at t = 0 it is a point, and its velocity x / t is infinite."""
    return normal(len(t), 2, generator) * t[:, None]


def test_weight_removes_a_singular_end():
    model = fit_sampler(exploding, 0.0, 1.0, weight=lambda t: t**2, steps=400, width=32, **SHORT)
    x = exploding(torch.full((2000,), 0.7), torch.Generator().manual_seed(8))
    error = (model.velocity(0.7, x) - x / 0.7).square().sum() / (x / 0.7).square().sum()
    assert float(error.sqrt()) < 0.1


def test_weighted_loss_is_that_of_the_weighted_integral(generator):
    """Against quadrature: for the exact potential minus the integral of w E|v|^2 / 2."""

    class Exact(am.ActionPotential):
        def forward(self, t, x):
            # the potential of `exploding`: |x|^2 / 2 t
            return x.square().sum(1) / (2 * t.clamp(min=1e-6))

        def derivatives(self, t, x, create_graph):
            t, x = (z.detach().requires_grad_() for z in (t, x))
            s = self(t, x)
            s_t, v = torch.autograd.grad(s.sum(), (t, x), create_graph=create_graph)
            return s, s_t, v

    scale = Scale((0.0, 0.0), 1.0, 0.0, 1.0)
    source = SampledDensity(exploding, scale, None, Times())
    objective = ActionMatching(Exact(scale), am.Lagrangian(), AsDrawn(), "dual", lambda t: t**2)
    losses = torch.stack(
        [objective(source.sample(2000, generator)).value.detach() for _ in range(30)]
    )
    error = float(losses.std() / 30**0.5)
    # E|x / t|^2 / 2 = 1, times the integral of t^2
    assert abs(float(losses.mean()) + 1 / 3) < 5 * error < 0.05


def test_velocity_of_the_oscillator_is_its_current():
    """A short version of examples/hydrogen.py."""
    system = OscillatorSuperposition()
    model = fit_sampler(system.sample, 0.6, math.pi - 0.6, steps=500, width=48, **SHORT)
    wrong = right = 0.0
    for t in (0.9, 1.4, 2.0, 2.4):
        x = system.sample(torch.full((2000,), t), torch.Generator().manual_seed(9))
        v = system.velocity(t, x)
        wrong += float((model.velocity(t, x) - v).square().sum())
        right += float(v.square().sum())
    logger.info("oscillator, short: relative error of the velocity %.3f", (wrong / right) ** 0.5)
    assert (wrong / right) ** 0.5 < 0.15


def test_same_seed_same_model():
    options = {"steps": 5, "width": 8, "depth": 1, "batch_size": 16, "seed": 3} | SHORT
    first, second = (fit_sampler(widening, 0.0, 1.0, **options) for _ in range(2))
    x = torch.randn(5, 2)
    assert torch.equal(first.velocity(0.3, x), second.velocity(0.3, x))
    other = fit_sampler(widening, 0.0, 1.0, **(options | {"seed": 4}))
    assert not torch.equal(first.velocity(0.3, x), other.velocity(0.3, x))


def test_units_of_time_and_length():
    """A sampler in other units gives the same flow in these units."""
    options = {"steps": 30, "width": 8, "depth": 1, "batch_size": 64} | SHORT
    plain = fit_sampler(widening, 0.0, 1.0, **options)
    other = fit_sampler(lambda t, g: 10 * widening((t - 5) / 4, g), 5.0, 9.0, **options)
    x = torch.randn(5, 2)
    torch.testing.assert_close(
        other.velocity(7.0, 10 * x), plain.velocity(0.5, x) * 10 / 4, rtol=1e-4, atol=1e-4
    )


def test_refusals(unchecked):
    options = {"steps": 2, "width": 4, "depth": 1, "batch_size": 8} | SHORT
    with pytest.raises(ValueError, match="start must lie before end"):
        fit_sampler(widening, 1.0, 1.0, **options)
    with pytest.raises(ValueError, match="kind must be"):
        fit_sampler(widening, 0.0, 1.0, "stochastic", **options)
    with pytest.raises(ValueError, match="conserves mass"):
        fit_sampler(widening, 0.0, 1.0, mass=torch.exp, **options)
    with pytest.raises(ValueError, match="coupling belongs to snapshots"):
        fit_sampler(widening, 0.0, 1.0, coupling="independent", **options)
    with pytest.raises(DataError, match="shape"):
        fit_sampler(lambda t, g: t, 0.0, 1.0, **options)
    with pytest.raises(DataError, match="not finite"):
        fit_sampler(lambda t, g: widening(t, g) / 0, 0.0, 1.0, **options)
    with pytest.raises(DataError, match="same point"):
        fit_sampler(lambda t, g: torch.ones(len(t), 2), 0.0, 1.0, **options)
    with pytest.raises(DataError, match="mass must give"):
        fit_sampler(growing, 0.0, 1.0, "unbalanced", mass=lambda t: -torch.ones_like(t), **options)


def test_hydrogen_is_in_the_table_of_systems():
    """The sampler and the fit agree on shapes; the long run is in the slow tests."""
    system = HydrogenSuperposition()
    options = {"steps": 3, "width": 8, "depth": 1, "batch_size": 32} | SHORT
    model = fit_sampler(system.sample, 0.0, 14_000.0, **options)
    assert model.scale.dim == 3 and 50 < model.scale.length < 120

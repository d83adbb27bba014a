"""Closed forms of transport against their equations, by finite differences and quadrature."""

import math

import pytest
import torch

from sciflow.systems import GaussianBridge, GaussianTransport, HarmonicTransport, PointMasses

MEAN = torch.tensor([1.0, 0.5], dtype=torch.float64)
COV = torch.tensor([[2.0, 0.4], [0.4, 0.5]], dtype=torch.float64)
EYE, ZERO = torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)


def bridge(sigma=0.7):
    return GaussianBridge(ZERO, EYE, MEAN, COV, sigma)


def test_bridge_ends_where_it_should():
    for t, mean, cov in ((0.0, ZERO, EYE), (1.0, MEAN, COV)):
        torch.testing.assert_close(bridge().mean(t), mean)
        torch.testing.assert_close(bridge().cov(t), cov)


def test_bridge_obeys_its_equations():
    """Moments move as the drift and noise ask; the drift is free (of least action) and curl-free.

    The drift b of a Schroedinger bridge solves b_t + (b . grad) b + sigma^2/2 laplace b = 0, and
    the Laplacian of an affine field is zero.
    """
    truth, t, step = bridge(), 0.37, 1e-5
    pull = truth._pull(t)
    torch.testing.assert_close(pull, pull.T)
    slope = (truth.cov(t + step) - truth.cov(t - step)) / (2 * step)
    flow = pull @ truth.cov(t) + truth.cov(t) @ pull.T + truth.sigma**2 * EYE
    torch.testing.assert_close(slope, flow, atol=1e-8, rtol=1e-8)
    x = torch.randn(5, 2, dtype=torch.float64)
    b_t = (truth.velocity(t + step, x) - truth.velocity(t - step, x)) / (2 * step)
    torch.testing.assert_close(b_t, -(truth.velocity(t, x) @ pull.T), atol=1e-7, rtol=1e-7)


def test_bridge_with_little_noise_is_optimal_transport():
    truth = GaussianTransport(ZERO, EYE, MEAN, COV)
    quiet = bridge(1e-4)
    x = torch.randn(5, 2, dtype=torch.float64)
    torch.testing.assert_close(
        quiet.velocity(0.4, x), truth.velocity(0.4, x), atol=1e-6, rtol=1e-6
    )
    assert quiet.kinetic_action() == pytest.approx(truth.kinetic_action, rel=1e-5)


def test_bridge_action_exceeds_that_of_its_ends_by_entropy():
    """Golden ratio: N(0,1) to N(0,1) with unit noise has covariance (sqrt 5 - 1) / 2."""
    one = torch.ones(1, 1, dtype=torch.float64)
    truth = GaussianBridge(one[0] * 0, one, one[0] * 0, one, 1.0)
    assert float(truth.cross) == pytest.approx((5**0.5 - 1) / 2)
    # KL of the bridge to Brownian motion from N(0, 1): of the pair's Gaussian, in closed form
    c = float(truth.cross)
    joint = torch.tensor([[1.0, c], [c, 1.0]], dtype=torch.float64)
    free = torch.tensor([[1.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    kl = 0.5 * (float((torch.linalg.inv(free) @ joint).trace()) - 2
                + math.log(float(free.det() / joint.det())))  # fmt: skip
    assert truth.kinetic_action() == pytest.approx(kl, rel=1e-9)


def harmonic():
    return HarmonicTransport(GaussianTransport(ZERO, EYE, MEAN, COV), 1.2)


def test_harmonic_paths_obey_newton():
    truth, t, step = harmonic(), 0.37, 1e-4
    x0 = torch.randn(5, 2, dtype=torch.float64)
    a, b, c = (truth.path(s, x0) for s in (t - step, t, t + step))
    torch.testing.assert_close((a - 2 * b + c) / step**2, -(1.2**2) * b, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(truth.velocity(t, b), (c - a) / (2 * step), atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(truth.path(1.0, x0), truth.ends.map(x0))


def test_harmonic_action_is_that_of_its_paths():
    truth = harmonic()
    x0 = torch.randn(200_000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    times = (torch.arange(50, dtype=torch.float64) + 0.5) / 50
    total = torch.zeros(len(x0), dtype=torch.float64)
    for t in times.tolist():
        x = truth.path(t, x0)
        total += (0.5 * truth.velocity(t, x).square().sum(1) - truth.energy(x)) / 50
    error = float(total.std()) / len(x0) ** 0.5
    assert abs(float(total.mean()) - truth.action()) < 5 * error + 1e-3


def test_point_masses_action_is_that_of_their_motion():
    truth, n = PointMasses(1.0, 2.0, 1.5, 1.3), 2000
    total = 0.0
    for i in range(n):
        t, h = (i + 0.5) / n, 0.5 / n
        speed = (truth.position(t + h) - truth.position(t - h)) / (2 * h)
        rate = (truth.mass(t + h) - truth.mass(t - h)) / (2 * h)
        m = truth.mass(t)
        total += (0.5 * m * speed**2 + rate**2 / (2 * 1.3 * m)) / n
    assert total == pytest.approx(truth.action, rel=1e-5)
    assert truth.position(1.0) == pytest.approx(1.5)


def test_refusals():
    with pytest.raises(ValueError, match="sigma"):
        bridge(0.0)
    with pytest.raises(ValueError, match="frequency"):
        HarmonicTransport(harmonic().ends, 4.0)
    with pytest.raises(ValueError, match="mass0"):
        PointMasses(-1.0, 1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="beyond"):
        PointMasses(1.0, 1.0, 4.0, 1.0).position(0.5)

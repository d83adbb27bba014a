"""Gaussian transport against scipy, symmetric closed forms and finite differences."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from sciflow.systems import GaussianTransport


@pytest.fixture
def transport(generator, device):
    roots = torch.randn(2, 3, 3, generator=generator, device=device)
    cov0, cov1 = roots @ roots.mT + 0.3 * torch.eye(3)
    return GaussianTransport(
        torch.tensor([0.2, -1.0, 0.5]), cov0, torch.tensor([1.5, 0.3, -0.7]), cov1
    )


def test_map_and_distance_agree_with_scipy(transport):
    cov0, cov1 = transport.cov0.cpu().numpy(), transport.cov1.cpu().numpy()
    root = sqrtm(cov0)
    cross = sqrtm(root @ cov1 @ root)
    stretch = np.linalg.inv(root) @ cross @ np.linalg.inv(root)
    x = torch.eye(3)
    m0, m1 = transport.mean0.cpu().numpy(), transport.mean1.cpu().numpy()
    expected = m1 + (x.cpu().numpy() - m0) @ stretch.real.T
    assert np.allclose(transport.map(x).cpu().numpy(), expected, atol=1e-10)
    squared = np.sum((m1 - m0) ** 2) + np.trace(cov0 + cov1 - 2 * cross.real)
    assert transport.action == pytest.approx(squared, rel=1e-10)
    assert transport.kinetic_action == pytest.approx(squared / 2, rel=1e-10)


def test_one_dimension_is_elementary():
    one = GaussianTransport(
        torch.tensor([1.0]), torch.tensor([[4.0]]), torch.tensor([-2.0]), torch.tensor([[0.25]])
    )
    assert one.action == pytest.approx(9 + 1.5**2)
    x = torch.tensor([[3.0], [1.0]])
    assert torch.allclose(one.map(x), torch.tensor([[-1.5], [-2.0]]))
    assert float(one.cov(0.5)) == pytest.approx(1.25**2)
    # A point one deviation out goes straight from 3 to -1.5, hence at the speed -4.5.
    assert torch.allclose(one.velocity(0.5, torch.tensor([[0.75]])), torch.tensor([[-4.5]]))


def test_commuting_covariances_transport_each_axis_alone():
    values0, values1 = torch.tensor([1.0, 4.0]), torch.tensor([9.0, 1.0])
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
    pair = [turn @ values.diag() @ turn.T for values in (values0, values1)]
    both = GaussianTransport(torch.zeros(2), pair[0], torch.zeros(2), pair[1])
    assert both.action == pytest.approx((3 - 1) ** 2 + (1 - 2) ** 2)
    assert torch.allclose(
        both.map(turn.T.contiguous()), (turn @ torch.tensor([3.0, 0.5]).diag()).T
    )


def test_equal_gaussians_do_not_move(transport):
    still = GaussianTransport(transport.mean0, transport.cov0, transport.mean0, transport.cov0)
    x = torch.eye(3)
    assert still.action == pytest.approx(0, abs=1e-9)
    assert torch.allclose(still.velocity(0.3, x), torch.zeros(3, 3), atol=1e-9)


def test_velocity_carries_the_marginals(transport):
    """Continuity equation of a Gaussian: dm/dt = v(m), dC/dt = G C + C G^T with G = grad v."""
    t, h = 0.37, 1e-5
    gradient = torch.autograd.functional.jacobian(
        lambda x: transport.velocity(t, x[None])[0], transport.mean(t)
    )
    slope = (transport.cov(t + h) - transport.cov(t - h)) / (2 * h)
    flow = gradient @ transport.cov(t)
    assert torch.allclose(slope, flow + flow.T, atol=1e-7)
    drift = (transport.mean(t + h) - transport.mean(t - h)) / (2 * h)
    assert torch.allclose(drift, transport.velocity(t, transport.mean(t)[None])[0], atol=1e-9)
    assert torch.allclose(transport.cov(0.0), transport.cov0)
    assert torch.allclose(transport.cov(1.0), transport.cov1)


def test_paths_are_straight_and_end_at_the_map(transport, generator):
    x0 = transport.sample(0.0, 20, generator)
    v0 = transport.velocity(0.0, x0)
    assert torch.allclose(x0 + v0, transport.map(x0))
    time = torch.linspace(0, 1, 20)
    there = x0 + time[:, None] * v0
    assert torch.allclose(transport.velocity(time, there), v0)


def test_potential_solves_hamilton_jacobi_and_its_gradient_is_the_velocity(transport, generator):
    x = transport.sample(0.4, 6, generator).requires_grad_()
    t = torch.full((6,), 0.4, requires_grad=True)
    s = transport.potential(t, x)
    slope, gradient = torch.autograd.grad(s.sum(), (t, x))
    assert torch.allclose(gradient, transport.velocity(0.4, x))
    assert torch.allclose(slope, -gradient.square().sum(1) / 2)
    assert float(transport.potential(0.0, transport.mean0[None])) == pytest.approx(0, abs=1e-12)


def test_dual_value_and_kinetic_energy_equal_the_action(transport, generator):
    start = transport.sample(0.0, 100_000, generator)
    end = transport.sample(1.0, 100_000, generator)
    s0, s1 = transport.potential(0.0, start), transport.potential(1.0, end)
    error = ((s0.var() + s1.var()) / 100_000) ** 0.5
    assert abs(float(s1.mean() - s0.mean()) - transport.kinetic_action) < 4 * float(error)
    middle = transport.sample(0.6, 100_000, generator)
    energy = transport.velocity(0.6, middle).square().sum(1)
    error = float(energy.std()) / 100_000**0.5
    assert abs(float(energy.mean()) - transport.action) < 4 * error


def test_samples_have_the_marginal(transport, generator):
    x = transport.sample(0.5, 50_000, generator)
    assert torch.allclose(x.mean(0), transport.mean(0.5), atol=0.05)
    assert torch.allclose(x.T.cov(), transport.cov(0.5), rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cov0", torch.tensor([[1.0, 0.5], [0.2, 1.0]])),
        ("cov1", torch.tensor([[1.0, 2.0], [2.0, 1.0]])),
        ("cov1", torch.zeros(2, 2)),
        ("mean1", torch.tensor([0.0, float("nan")])),
    ],
)
def test_a_bad_argument_is_named(name, value):
    good = {
        "mean0": torch.zeros(2),
        "cov0": torch.eye(2),
        "mean1": torch.ones(2),
        "cov1": torch.eye(2),
    }
    with pytest.raises(ValueError, match=name):
        GaussianTransport(**{**good, name: value.to(good["mean0"])})
    with pytest.raises(ValueError, match="n must"):
        GaussianTransport(**good).sample(0.5, 0, torch.Generator())

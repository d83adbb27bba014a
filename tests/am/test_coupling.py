"""Couplings against an independent solver, and the batches drawn from them."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from sciflow import SciflowError, Snapshots
from sciflow.am import entropic
from sciflow.am.coupling import couple, exact_coupling, independent_coupling
from sciflow.am.lagrangians import Lagrangian
from sciflow.am.path import ConditionalPath, travelling_dirac
from sciflow.am.source import CoupledSnapshots
from sciflow.systems import GaussianBridge, PointMasses


def cost(x, y, pairs) -> float:
    squared = (x[pairs.left] - y[pairs.right]).square().sum(1)
    return float((squared * pairs.chance).sum())


def test_exact_coupling_is_the_optimal_assignment(generator):
    x, y = torch.randn(60, 3, generator=generator), torch.randn(60, 3, generator=generator) + 1
    pairs = exact_coupling(x, y)
    matrix = torch.cdist(x, y).square().numpy()
    rows, columns = linear_sum_assignment(matrix)
    assert cost(x, y, pairs) == pytest.approx(matrix[rows, columns].mean(), rel=1e-10)


def test_unequal_sizes_keep_both_marginals(generator):
    x, y = torch.randn(30, 2, generator=generator), torch.randn(47, 2, generator=generator)
    pairs = exact_coupling(x, y)
    assert len(pairs.chance) <= 30 + 47 - 1
    for index, n in ((pairs.left, 30), (pairs.right, 47)):
        marginal = torch.zeros(n).index_add_(0, index, pairs.chance)
        torch.testing.assert_close(marginal, torch.full((n,), 1 / n))


def test_pools_keep_both_marginals_and_cost_more(generator):
    x, y = torch.randn(300, 2, generator=generator), torch.randn(210, 2, generator=generator)
    exact, pooled = exact_coupling(x, y), exact_coupling(x, y, pool=100, generator=generator)
    independent = float(torch.cdist(x, y).square().mean())
    assert cost(x, y, exact) <= cost(x, y, pooled) < 0.3 * independent
    assert float(torch.zeros(300).index_add_(0, pooled.left, pooled.chance).std()) < 1e-12
    with pytest.raises(ValueError, match="generator"):
        exact_coupling(x, y, pool=100)


def test_batches_hold_partners_at_times_in_their_interval(generator):
    parts = [torch.randn(n, 2, generator=generator) + 3 * k for k, n in enumerate((20, 30, 25))]
    snapshots = Snapshots(parts, [0.0, 0.25, 1.0])
    source = CoupledSnapshots(snapshots)
    batch = source.sample(4000, generator)
    assert bool(((batch.t >= batch.t_left) & (batch.t <= batch.t_right)).all())
    # Time is uniform over the whole span: a quarter of the batch is in the first interval, up to
    # the discrepancy of the sequence, which is far below a random draw's.
    assert abs(float((batch.t < 0.25).double().mean()) - 0.25) < 2e-3
    for k in range(2):
        here = batch.t_left == snapshots.times[k]
        pairs = exact_coupling(parts[k], parts[k + 1])
        left = torch.cdist(batch.left[here], parts[k]).argmin(1)
        right = torch.cdist(batch.right[here], parts[k + 1]).argmin(1)
        drawn = torch.zeros(len(parts[k]), len(parts[k + 1]))
        drawn.index_put_((left, right), torch.ones(len(left)), accumulate=True)
        plan = torch.zeros_like(drawn)
        plan[pairs.left, pairs.right] = pairs.chance
        assert float(drawn[plan == 0].sum()) == 0
        n = len(left)
        error = (plan * (1 - plan) * n).sqrt()
        assert float(((drawn - n * plan).abs() - 5 * error).max()) <= 1.0


def test_low_discrepancy_times(generator):
    source = CoupledSnapshots(Snapshots([torch.zeros(2, 1), torch.ones(2, 1)], [0.0, 1.0]))
    t = source.sample(512, generator).t.sort().values
    largest_gap = float(t.diff().max())
    assert largest_gap < 4 / 512  # 512 random times have a gap of about log(512) / 512


def test_geodesic_moves_from_left_to_right(generator):
    snapshots = Snapshots([torch.randn(20, 2), torch.randn(20, 2) + 4], [0.0, 1.0])
    batch = CoupledSnapshots(snapshots).sample(50, generator)
    ends = [batch._replace(t=batch.t_left), batch._replace(t=batch.t_right)]
    torch.testing.assert_close(ConditionalPath(Lagrangian())(ends[0]).x, batch.left)
    torch.testing.assert_close(ConditionalPath(Lagrangian())(ends[1]).x, batch.right)
    step = 1e-6
    later = ConditionalPath(Lagrangian())(batch._replace(t=batch.t + step)).x
    here = ConditionalPath(Lagrangian())(batch)
    np.testing.assert_allclose((later - here.x) / step, here.velocity, atol=1e-7)


def test_entropic_pairs_follow_the_schroedinger_plan(generator):
    """Against the closed form for Gaussians: covariance of start and end."""
    n, sigma = 1000, 0.8
    x, y = torch.randn(n, 2, generator=generator), torch.randn(n, 2, generator=generator) * 0.7
    pairs = couple(x, y, Lagrangian(sigma=sigma), 1.0, generator=generator)
    a, b = x[pairs.left] - x.mean(0), y[pairs.right] - y.mean(0)
    ends = (x.T.cov(correction=0), y.T.cov(correction=0))
    truth = GaussianBridge(torch.zeros(2), ends[0], torch.zeros(2), ends[1], sigma)
    cross = (a * pairs.chance[:, None]).T @ b
    # an empirical measure is Gaussian up to the noise of its n points
    torch.testing.assert_close(cross, truth.cross, atol=5 * 0.5 / n**0.5, rtol=0)
    for index, points in ((pairs.left, n), (pairs.right, n)):
        marginal = torch.zeros(points).index_add_(0, index, pairs.chance) * points
        assert float(marginal.mean()) == pytest.approx(1.0)
        assert float(marginal.std()) < 3 * 32**-0.5


def test_unbalanced_pairs_keep_both_masses(generator):
    x = torch.cat([torch.randn(40, 2) * 0.1, torch.randn(40, 2) * 0.1 + 9])
    y = torch.cat([torch.randn(30, 2) * 0.1, torch.randn(50, 2) * 0.1 + torch.tensor([0.0, 9.0])])
    pairs = couple(x, y, Lagrangian(growth_penalty=1.0), 1.0, (2.0, 3.0), generator=generator)
    assert float(pairs.chance.sum()) == pytest.approx(1.0)
    assert float((pairs.chance * pairs.start).sum()) == pytest.approx(2.0)
    assert float((pairs.chance * pairs.end).sum()) == pytest.approx(3.0)
    # what has no partner within pi vanishes or is born where it is, with the mass of its points
    dies, born = pairs.right < 0, pairs.left < 0
    assert sorted(pairs.left[dies].tolist()) == list(range(40, 80))
    assert sorted(pairs.right[born].tolist()) == list(range(30, 80))
    assert float((pairs.chance * pairs.start)[dies].sum()) == pytest.approx(1.0)
    assert float(pairs.end[dies].abs().max()) == float(pairs.start[born].abs().max()) == 0.0


def test_a_plan_that_misses_its_marginals_is_refused(monkeypatch, generator):
    monkeypatch.setattr(entropic, "_ROUNDS", 1)
    monkeypatch.setattr(entropic, "_ROUND", 1)
    x, y = torch.randn(50, 2, generator=generator), torch.randn(60, 2, generator=generator) + 5
    with pytest.raises(SciflowError, match="larger sigma"):
        entropic.entropic_plan(0.5 * torch.cdist(x, y).square(), (1.0, 1.0), 1e-3, False)


def test_travelling_dirac_is_the_straight_line_on_the_cone():
    truth = PointMasses(1.0, 3.0, 1.2, 2.0)
    u = torch.linspace(0.0, 1.0, 9)
    one = torch.ones(9)
    fraction, fraction_u, mass, mass_u = travelling_dirac(u, one, 3 * one, 1.2 * one, 2.0)
    torch.testing.assert_close(mass, torch.tensor([truth.mass(float(t)) for t in u]))
    position = torch.tensor([truth.position(float(t)) for t in u])
    torch.testing.assert_close(1.2 * fraction, position)
    # its action, by quadrature of what it does, is the closed one
    nodes, weights = np.polynomial.legendre.leggauss(40)
    t, w = torch.tensor((nodes + 1) / 2), torch.tensor(weights / 2)
    one = torch.ones(40)
    _, speed, mass, rate = travelling_dirac(t, one, 3 * one, 1.2 * one, 2.0)
    energy = 0.5 * mass * (1.2 * speed).square() + rate.square() / (2 * 2.0 * mass)
    assert float((w * energy).sum()) == pytest.approx(truth.action, rel=1e-9)


def test_mirrored_bridge_has_the_right_spread(generator):
    lagrangian = Lagrangian(sigma=0.5)
    points = Snapshots([torch.zeros(2, 1), torch.ones(2, 1)], [0.0, 1.0])
    batch = CoupledSnapshots(points, lagrangian=lagrangian).sample(20000, generator)
    batch = batch._replace(t=torch.full_like(batch.t, 0.3))
    point = ConditionalPath(lagrangian)(batch)
    assert len(point.x) == 40000
    assert float(point.x.mean()) == pytest.approx(0.3, abs=1e-12)
    assert float(point.x.var()) == pytest.approx(0.25 * 0.3 * 0.7, rel=5 * (2 / 20000) ** 0.5)
    torch.testing.assert_close(point.velocity, (1 - point.x) / 0.7)


def test_independent_coupling_uses_every_point_evenly(generator):
    pairs = independent_coupling(30, 50, generator)
    for index, n in ((pairs.left, 30), (pairs.right, 50)):
        counts = torch.bincount(index, minlength=n)
        assert int(counts.max() - counts.min()) <= 1

"""Couplings against an independent solver, and the batches drawn from them."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from sciflow import Snapshots
from sciflow.am.coupling import CoupledSnapshots, exact_coupling
from sciflow.am.path import Geodesic


def cost(x, y, pairs) -> float:
    squared = (x[pairs.left] - y[pairs.right]).square().sum(1)
    return float((squared * pairs.mass).sum())


def test_exact_coupling_is_the_optimal_assignment(generator):
    x, y = torch.randn(60, 3, generator=generator), torch.randn(60, 3, generator=generator) + 1
    pairs = exact_coupling(x, y)
    matrix = torch.cdist(x, y).square().numpy()
    rows, columns = linear_sum_assignment(matrix)
    assert cost(x, y, pairs) == pytest.approx(matrix[rows, columns].mean(), rel=1e-10)


def test_unequal_sizes_keep_both_marginals(generator):
    x, y = torch.randn(30, 2, generator=generator), torch.randn(47, 2, generator=generator)
    pairs = exact_coupling(x, y)
    assert len(pairs.mass) <= 30 + 47 - 1
    for index, n in ((pairs.left, 30), (pairs.right, 47)):
        marginal = torch.zeros(n).index_add_(0, index, pairs.mass)
        torch.testing.assert_close(marginal, torch.full((n,), 1 / n))


def test_pools_keep_both_marginals_and_cost_more(generator):
    x, y = torch.randn(300, 2, generator=generator), torch.randn(210, 2, generator=generator)
    exact, pooled = exact_coupling(x, y), exact_coupling(x, y, pool=100, generator=generator)
    independent = float(torch.cdist(x, y).square().mean())
    assert cost(x, y, exact) <= cost(x, y, pooled) < 0.3 * independent
    assert float(torch.zeros(300).index_add_(0, pooled.left, pooled.mass).std()) < 1e-12
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
        plan[pairs.left, pairs.right] = pairs.mass
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
    torch.testing.assert_close(Geodesic()(ends[0]).x, batch.left)
    torch.testing.assert_close(Geodesic()(ends[1]).x, batch.right)
    step = 1e-6
    later = Geodesic()(batch._replace(t=batch.t + step)).x
    here = Geodesic()(batch)
    np.testing.assert_allclose((later - here.x) / step, here.velocity, atol=1e-7)

"""Errors of chains against known correlation, and distances of histograms."""

import math

import numpy as np
import pytest
import torch

from sciflow.metrics import chain_mean, histogram_distance, r_hat


def autoregressive(draws, chains, keep, generator):
    """Chains of unit variance whose neighbours correlate by ``keep``, started in equilibrium."""
    x = torch.randn(chains, generator=generator)
    rows = []
    for _ in range(draws):
        rows.append(x)
        x = keep * x + math.sqrt(1 - keep**2) * torch.randn(chains, generator=generator)
    return torch.stack(rows)


def test_error_of_correlated_draws(generator):
    """Var of the mean of n draws of correlation keep^k: (1 + keep) / (1 - keep) / n, about."""
    keep, draws, chains = 0.8, 400, 500
    values = 3 + autoregressive(draws, chains, keep, generator)
    mean = chain_mean(values)
    lags = torch.arange(1, draws)
    factor = 1 + 2 * float(((1 - lags / draws) * keep**lags).sum())
    assert mean.error == pytest.approx(math.sqrt(factor / (draws * chains)), rel=0.15)
    assert abs(mean.value - 3) < 5 * mean.error
    assert chain_mean(values.cpu().numpy()) == mean


def test_r_hat_tells_mixed_from_stuck(generator):
    mixed = torch.randn(400, 20, generator=generator)
    assert r_hat(mixed) == pytest.approx(1, abs=0.01)
    assert r_hat(mixed + torch.arange(20) / 5) > 1.2  # every chain in a place of its own
    drift = mixed + torch.linspace(-1, 1, 400)[:, None]
    assert r_hat(drift) > 1.1  # all move alike: only the halves show it


def test_r_hat_by_hand():
    values = np.array([[0.0, 2.0], [1.0, 3.0], [2.0, 0.0], [3.0, 5.0]])
    halves = np.array([[0.0, 1.0], [2.0, 3.0], [2.0, 3.0], [0.0, 5.0]])
    within = halves.var(1, ddof=1).mean()
    between = halves.mean(1).var(ddof=1)
    assert r_hat(values) == pytest.approx(math.sqrt(1 / 2 + between / within))


def test_histogram_distance_by_hand():
    edges = torch.tensor([0.0, 1.0, 2.0])
    x = torch.tensor([0.5, 0.5, 1.5, 3.0])
    y = torch.tensor([0.5, 1.5, 1.5, -3.0])
    # Masses below, in the bins and above: (0, 1/2, 1/4, 1/4) and (1/4, 1/4, 1/2, 0).
    assert histogram_distance(x, y, edges) == pytest.approx(0.5)
    assert histogram_distance(x, x.flip(0), edges) == 0
    weights = torch.tensor([0.0, 2.0, 4.0, 2.0])
    assert histogram_distance(x, y, edges, weights) == pytest.approx(0.25)
    assert histogram_distance(x, y, edges, weights, weights) == pytest.approx(0.5)


def test_weights_repair_a_histogram(generator):
    """Samples of N(0, 1.5^2), weighted to N(0, 1), against the bins of the normal law."""
    edges = torch.linspace(-4, 4, 31)
    wide = 1.5 * torch.randn(100_000, generator=generator)
    weights = torch.exp(-0.5 * wide**2 + 0.5 * (wide / 1.5) ** 2)
    masses = torch.special.ndtr(edges).diff()
    centres = (edges[1:] + edges[:-1]) / 2
    assert histogram_distance(wide, centres, edges, None, masses) > 0.15
    assert histogram_distance(wide, centres, edges, weights, masses) < 0.01


def test_refused(unchecked):
    with pytest.raises(ValueError, match=r"values has shape \(5,\)"):
        chain_mean(torch.zeros(5))
    with pytest.raises(ValueError, match=r"at least \(4, 2\)"):
        r_hat(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="not finite"):
        chain_mean(torch.full((3, 2), math.nan))
    with pytest.raises(ValueError, match="do not vary"):
        r_hat(torch.ones(8, 2))
    edges = torch.tensor([0.0, 1.0])
    with pytest.raises(ValueError, match="edges must be"):
        histogram_distance(torch.zeros(3), torch.zeros(3), edges.flip(0))
    with pytest.raises(ValueError, match="y must be"):
        histogram_distance(torch.zeros(3), torch.full((3,), math.nan), edges)
    with pytest.raises(ValueError, match="x_weights must be"):
        histogram_distance(torch.zeros(3), torch.zeros(3), edges, torch.tensor([1.0, -1.0, 1.0]))

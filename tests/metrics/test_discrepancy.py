"""Discrepancies against closed forms and sums written out pair by pair."""

import math

import numpy as np
import pytest
import torch

from sciflow.metrics import covariance_trace_ratio, discrepancy, energy_distance, mmd


def pairs(f, x, y, a, b, within):
    """Weighted mean of f over pairs of points, by two loops; within: of different points."""
    total = below = 0.0
    for i in range(len(x)):
        for j in range(len(y)):
            if not (within and i == j):
                weight = float(a[i] * b[j])
                total += weight * f(math.dist(x[i].tolist(), y[j].tolist()))
                below += weight
    return total / below


def by_loops(f, x, y, a=None, b=None):
    a = torch.ones(len(x)) if a is None else a
    b = torch.ones(len(y)) if b is None else b
    cross = pairs(f, x, y, a, b, False)
    return 2 * cross - pairs(f, x, x, a, a, True) - pairs(f, y, y, b, b, True)


def clouds(generator, n=17, m=23, d=3):
    return torch.randn(n, d, generator=generator), 0.5 + torch.randn(m, d, generator=generator)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("block", [discrepancy._CACHED, 50, 1])
def test_by_loops_whatever_the_block(weighted, block, generator, monkeypatch):
    monkeypatch.setattr(discrepancy, "_CACHED", block)
    x, y = clouds(generator)
    a = torch.rand(17, generator=generator) if weighted else None
    b = torch.rand(23, generator=generator) if weighted else None
    expected = by_loops(lambda r: r, x, y, a, b)
    assert energy_distance(x, y, a, b) == pytest.approx(expected, rel=1e-9)
    scales = (0.5, 2)
    kernel = lambda r: sum(math.exp(-(r**2) / (2 * h**2)) for h in scales) / 2
    assert mmd(x, y, scales, a, b) == pytest.approx(-by_loops(kernel, x, y, a, b), rel=1e-9)


def test_bounded_memory(generator, monkeypatch):
    """No block of distances is larger than the bound, and all pairs are seen once."""
    blocks = []

    def spy(x, y):
        blocks.append(len(x) * len(y))
        return squared_distances(x, y)

    squared_distances = discrepancy._squared_distances
    monkeypatch.setattr(discrepancy, "_squared_distances", spy)
    monkeypatch.setattr(discrepancy, "_CACHED", 10_000)
    x = torch.randn(1500, 2, generator=generator)
    energy_distance(x, torch.randn(800, 2, generator=generator))
    assert max(blocks) <= 10_000
    assert 1500 * 800 + (1500**2 + 800**2) / 2 <= sum(blocks)
    assert sum(blocks) <= 1500 * 800 + (1500**2 + 800**2) / 2 + 20_000


def quantiles(n):
    """(n, 1) points that stand for a standard normal, far closer to it than n random ones."""
    return (math.sqrt(2) * torch.special.erfinv(2 * (torch.arange(n) + 0.5) / n - 1))[:, None]


def folded(mean, deviation):
    """E|z| of a normal z."""
    ratio = mean / deviation
    return deviation * math.sqrt(2 / math.pi) * math.exp(-(ratio**2) / 2) + mean * math.erf(
        ratio / math.sqrt(2)
    )


def test_energy_distance_of_gaussians():
    """In one dimension every term is the mean of a folded normal."""
    m, s, r = 1.2, 1.0, 2.0
    expected = 2 * folded(m, math.hypot(s, r)) - folded(0, math.sqrt(2) * s)
    expected -= folded(0, math.sqrt(2) * r)
    x, y = s * quantiles(2000), m + r * quantiles(1900)
    assert energy_distance(x, y) == pytest.approx(expected, rel=0.005)


def test_energy_distance_on_a_line_is_that_of_scipy(generator):
    """scipy takes the pairs of a point with itself too: put them back, square its root."""
    from scipy.stats import energy_distance as of_scipy

    x, y = clouds(generator, 40, 30, 1)
    u, v = x[:, 0].cpu().numpy(), y[:, 0].cpu().numpy()
    within = [np.abs(z[:, None] - z).sum() / len(z) ** 2 / (len(z) - 1) for z in (u, v)]
    expected = of_scipy(u, v) ** 2 - sum(within)
    assert energy_distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_mmd_of_gaussians():
    """E k(x - y) of a normal difference N(m, v) is (1 + v/h^2)^(-1/2) exp(-m^2 / 2(h^2 + v))."""
    m, s, r, h = 1.0, 1.0, 1.5, 0.8

    def mean(shift, v):
        return math.exp(-(shift**2) / (2 * (h**2 + v))) / math.sqrt(1 + v / h**2)

    expected = mean(0, 2 * s**2) + mean(0, 2 * r**2) - 2 * mean(m, s**2 + r**2)
    x, y = s * quantiles(2000), m + r * quantiles(1900)
    assert mmd(x, y, [h]) == pytest.approx(expected, rel=0.005)


@pytest.mark.parametrize("distance", [energy_distance, mmd])
def test_unbiased(distance, generator):
    """Small samples of one law score zero in the mean, some of them below; unlike with a bias."""
    values = []
    for _ in range(225):
        x, y = torch.randn(2, 8, 2, generator=generator).unbind()
        values.append(distance(x, y, [1.0]) if distance is mmd else distance(x, y))
    values = torch.tensor(values)
    error = values.std() / 15
    assert abs(values.mean()) < 3 * error
    assert (values < 0).float().mean() > 0.3
    # The pairs left out would have added E|x - x'| / 4, that is 0.44: far more than the error.
    assert error < 0.03


@pytest.mark.parametrize("distance", [energy_distance, mmd])
def test_invariances(distance, generator):
    x, y = clouds(generator)
    value = distance(x, y)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator)).Q
    assert distance(x @ turn + 1e3, y @ turn + 1e3) == pytest.approx(value, rel=1e-6)
    assert distance(y, x) == pytest.approx(value, rel=1e-9)
    assert distance(x.flip(0), y.flip(0)) == pytest.approx(value, rel=1e-9)
    # The median distance grows with the points, so MMD has no unit.
    power = 0 if distance is mmd else 1
    assert distance(7 * x, 7 * y) == pytest.approx(7**power * value, rel=1e-9)
    assert distance(x, y, a=torch.full((17,), 5)) == pytest.approx(value, rel=1e-9)
    a = torch.ones(17)
    a[3:] = 0
    assert distance(x, y, a=a, **fixed(distance)) == pytest.approx(
        distance(x[:3], y, **fixed(distance)), rel=1e-9
    )


def fixed(distance):
    return {"bandwidths": [1.0]} if distance is mmd else {}


def test_median_heuristic(generator):
    x, y = clouds(generator)
    both = torch.cat([x, y])
    distances = sorted(
        math.dist(both[i].tolist(), both[j].tolist()) for i in range(40) for j in range(i)
    )
    median = distances[(len(distances) - 1) // 2]
    assert mmd(x, y) == pytest.approx(mmd(x, y, [median]), rel=1e-9)
    # Above 1,000 points only some are looked at; the value hardly moves.
    x, y = clouds(generator, 2500, 3100)
    assert 0.9 < discrepancy._median_distance(x, y) / torch.pdist(x).median().item() < 1.2


def test_bandwidths(generator):
    x, y = clouds(generator)
    for bad in ([], [0.0], [1.0, -1.0], [math.nan], [math.inf]):
        with pytest.raises(ValueError, match="expected positive finite numbers"):
            mmd(x, y, bad)
    with pytest.raises(ValueError, match="median distance .* is zero"):
        mmd(torch.ones(3, 1), torch.ones(4, 1))


def test_covariance_trace_ratio(generator):
    x, y = clouds(generator)
    expected = np.trace(np.cov(x.cpu().numpy().T)) / np.trace(np.cov(y.cpu().numpy().T))
    assert covariance_trace_ratio(x, y) == pytest.approx(expected, rel=1e-9)
    assert covariance_trace_ratio(0.5 * x + 3, x) == pytest.approx(0.25, rel=1e-9)
    weights = np.random.default_rng(0).uniform(size=17)
    spread = np.cov(x.cpu().numpy().T, aweights=weights)
    expected = np.trace(spread) / np.trace(np.cov(y.cpu().numpy().T))
    assert covariance_trace_ratio(x, y, weights) == pytest.approx(expected, rel=1e-9)
    with pytest.raises(ValueError, match="y has no spread"):
        covariance_trace_ratio(x, torch.ones(5, 3))


@pytest.mark.parametrize("metric", [energy_distance, mmd, covariance_trace_ratio])
def test_arguments_are_named(metric):
    x, bad = torch.randn(3, 2), torch.randn(3, 2)
    bad[2, 1] = math.inf
    one = torch.tensor([0.0, 1.0, 0.0])
    for arguments, options, message in [
        ((bad, x), {}, r"x has 1 values that are not finite; the first is x\[2, 1\] = inf"),
        ((x, bad), {}, r"y\[2, 1\] = inf"),
        ((x[:1], x), {}, "x has 1 points; expected at least 2"),
        ((x, x[:, :1]), {}, "y has 1 dimensions where x has 2"),
        ((x, x), {"a": torch.ones(2)}, r"a has shape \(2,\)"),
        ((x, x), {"b": one}, "b has one positive weight only"),
    ]:
        with pytest.raises(ValueError, match=message):
            metric(*arguments, **options)

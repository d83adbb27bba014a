"""The Wiener process is a function of its seed, and a Wiener process."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

import sciflow
from sciflow.integrators import Brownian, BrownianWithArea


def close(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_same_seed_same_path_on_any_grid():
    times = [0.0, 0.1, 0.30000000000000004, 0.5, 0.77, 1.0]
    whole = Brownian(3, (4, 2))(0.0, 1.0)
    one_by_one = Brownian(3, (4, 2))
    parts = [one_by_one(a, b) for a, b in zip(times[:-1], times[1:], strict=True)]
    close(sum(parts), whole)
    # asked for again, in another order, by a fresh object: the same
    again = Brownian(3, (4, 2))
    for a, b, part in reversed(list(zip(times[:-1], times[1:], parts, strict=True))):
        close(again(a, b), part)


@pytest.mark.parametrize("start", [0.0, -1.0, -0.5, 1000.25])
def test_halving_refines_the_path(start):
    coarse = None
    for level in range(6):
        w, n = Brownian(11, (3,)), 2**level
        fine = torch.stack([w(start + i / n, start + (i + 1) / n) for i in range(n)])
        if coarse is not None:
            close(fine.reshape(n // 2, 2, 3).sum(1), coarse)
        coarse = fine


def test_additive_and_odd():
    w = Brownian(5, (2, 3))
    for a, b, c in ((0.0, 0.3, 1.0), (-2.5, -1.0, 0.7), (-1e-3, 0.0, 1e-3), (100.0, 101.5, 117.0)):
        close(w(a, b) + w(b, c), w(a, c))
        close(w(b, a), -w(a, b))
    close(w(0.4, 0.4), torch.zeros(2, 3))


def test_independent_of_the_resolution_and_of_company():
    """The path at dyadic times does not depend on the resolution."""
    close(Brownian(1, (3,))(0.25, 0.75), Brownian(1, (3,), resolution=2.0**-20)(0.25, 0.75))


def test_increments_are_normal_with_the_variance_of_their_length():
    n = 20_000
    w = Brownian(17, (n,))
    edges = [-0.7, -0.25, 0.0, 0.1, 0.6, 1.0, 3.0]
    z = []
    for a, b in zip(edges[:-1], edges[1:], strict=True):
        increment = w(a, b).numpy() / np.sqrt(b - a)
        assert abs(increment.mean()) < 4 / np.sqrt(n)
        assert abs(increment.var() - 1) < 4 * np.sqrt(2 / n)
        assert stats.kstest(increment, "norm").pvalue > 1e-3
        z.append(increment)
    correlation = np.corrcoef(z) - np.eye(len(z))
    assert np.abs(correlation).max() < 4.5 / np.sqrt(n)  # disjoint intervals are independent


def test_covariance_is_the_shorter_time():
    n = 20_000
    w = Brownian(2, (n,))
    times = [0.2, 0.5, 1.3, 2.0]
    paths = np.stack([w(0.0, t).numpy() for t in times])
    covariance = paths @ paths.T / n
    expected = np.minimum.outer(times, times)
    spread = np.sqrt((np.multiply.outer(times, times) + expected**2) / n)
    assert (np.abs(covariance - expected) < 4.5 * spread).all()


def test_cells_along_one_path_are_independent():
    """Many neighbouring cells of one path: normal, uncorrelated at any lag, also in squares."""
    n = 4096
    w = Brownian(23, (8,))
    cells = torch.stack([w(i / 64, (i + 1) / 64) for i in range(n)]).T.numpy() * 8
    assert stats.kstest(cells.ravel(), "norm").pvalue > 1e-3
    for series in (cells, cells**2 - 1):
        for lag in (1, 2, 3, 4, 8, 16, 64):
            correlation = (series[:, lag:] * series[:, :-lag]).mean() / (series**2).mean()
            assert abs(correlation) < 4.5 / np.sqrt(8 * (n - lag))


def test_seeds_are_independent():
    n = 20_000
    paths = np.stack([Brownian(seed, (n,))(0.0, 1.0) for seed in (0, 1, 2, -1, 2**40, 2**63)])
    correlation = np.corrcoef(paths) - np.eye(len(paths))
    assert np.abs(correlation).max() < 4.5 / np.sqrt(n)


def test_float32():
    w, w64 = Brownian(3, (1000,), dtype=torch.float32), Brownian(3, (1000,), dtype=torch.float64)
    parts = sum(w(i / 128, (i + 1) / 128) for i in range(128))
    assert parts.dtype == torch.float32
    torch.testing.assert_close(parts, w(0.0, 1.0), rtol=0, atol=5e-6)
    assert w64(0.0, 1.0).dtype == torch.float64


def test_memory_does_not_grow_with_the_number_of_steps():
    kept = []
    for n in (16, 256, 4096):
        w = Brownian(0, (2,))
        for i in range(n):
            w(i / 16, (i + 1) / 16)
        kept.append(len(w._halves))
    assert max(kept) <= 2 * min(kept)


def test_an_increment_belongs_to_the_caller():
    w = Brownian(0, (3,))
    first = w(0.0, 0.5)
    kept = first.clone()
    first.zero_()
    close(w(0.0, 0.5), kept)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"resolution must be a power of two; got 0\.3"):
        Brownian(0, (1,), resolution=0.3)
    for t in (float("nan"), float("inf"), 2.0**60):
        with pytest.raises(ValueError, match="must be finite and below 2"):
            Brownian(0, (1,))(0.0, t)


def test_sde_path_is_the_same_for_any_output_grid():
    field = sciflow.SDE(lambda t, y: -y + torch.cos(t), lambda t, y: 0.3 + 0.1 * y)
    y0 = torch.randn(5, 2)

    def solve(times, dt=1 / 64):
        t = torch.tensor(times)
        return sciflow.integrate(field, y0, t, method="euler_maruyama", dt=dt, seed=9).y

    end = solve([0.0, 1.0])[-1]
    assert torch.equal(solve([0.0, 0.25, 0.5, 0.984375, 1.0])[-1], end)  # outputs on the grid
    assert torch.equal(solve([0.0, 0.5, 2.0])[1], solve([0.0, 0.5])[1])  # whatever comes after
    # an output off the grid adds a step, no noise
    noise = sciflow.SDE(lambda t, y: 0 * y, 1.0)
    for method in ("euler_maruyama", "heun_strat"):
        ends = [
            sciflow.integrate(noise, y0, torch.tensor(t), method=method, dt=dt, seed=4).y[-1]
            for t, dt in (([0.0, 1.0], 0.1), ([0.0, 0.123, 0.77, 1.0], 0.03), ([0.0, 1.0], 1.0))
        ]
        close(ends[1], ends[0])
        close(ends[2], ends[0])
        close(ends[0] - y0, Brownian(4, (5, 2))(0.0, 1.0))


def test_sde_backwards_undoes_the_same_noise():
    noise = sciflow.SDE(lambda t, y: 0 * y, 1.0)
    y0, t = torch.randn(5, 2), torch.tensor([0.0, 0.33, 1.0])
    there = sciflow.integrate(noise, y0, t, method="heun_strat", dt=0.1, seed=4).y[-1]
    back = sciflow.integrate(noise, there, t.flip(0), method="heun_strat", dt=0.1, seed=4).y
    close(back[-1], y0)


def test_sde_leaves_have_their_own_noise_and_zero_means_none():
    field = sciflow.SDE(
        lambda t, y: {"x": 0 * y["x"], "logw": 1 + 0 * y["logw"], "v": 0 * y["v"]},
        {"v": 1.0, "x": 1.0, "logw": 0},
    )
    y0 = {"x": torch.zeros(5000, 1), "logw": torch.zeros(5000), "v": torch.zeros(5000, 1)}
    t = torch.tensor([0.0, 1.0])
    end = sciflow.integrate(field, y0, t, method="euler_maruyama", dt=0.25, seed=1).y
    close(end["logw"][-1], torch.ones(5000))
    pair = torch.cat([end["x"][-1], end["v"][-1]], 1)
    assert abs(float(torch.corrcoef(pair.T)[0, 1])) < 4 / 5000**0.5


def test_generator_seeds_the_path(generator):
    noise = sciflow.SDE(lambda t, y: -y, 1.0)
    y0, t = torch.zeros(4, 1), torch.tensor([0.0, 1.0])
    state = generator.get_state()

    def solve():
        return sciflow.integrate(
            noise, y0, t, method="euler_maruyama", dt=0.25, generator=generator
        ).y[-1]

    a, b = solve(), solve()
    assert not torch.equal(a, b)
    generator.set_state(state)
    assert torch.equal(solve(), a)


# ------------------------------------------------------------------------- space-time Levy area


def mean_of(path, a, b):
    """Increment of W over [a, b], and the mean of W(s) - W(a)."""
    increment, area = path.increment_and_area(a, b)
    return increment, 0.5 * increment + area


@pytest.mark.parametrize("times", [[0.0, 0.25, 0.5, 1.0], [-0.7, 0.1, 0.33, 2.0, 2.5]])
def test_areas_add_up_to_the_integral_of_the_path(times):
    path = BrownianWithArea(3, (5,))
    w = integral = torch.zeros(5)
    for a, b in zip(times[:-1], times[1:], strict=True):
        increment, mean = mean_of(path, a, b)
        integral = integral + (b - a) * (w + mean)
        w = w + increment
    increment, mean = mean_of(BrownianWithArea(3, (5,)), times[0], times[-1])
    close(w, increment)
    close(integral, (times[-1] - times[0]) * mean)
    close(BrownianWithArea(3, (5,))(times[0], times[-1]), w)
    # walked the other way: W(s) - W(b), its mean over the same interval
    back, mean_back = mean_of(path, times[-1], times[0])
    close(back, -w)
    close(mean_back, mean - w)


def test_law_of_increment_and_area():
    n = 20_000
    path = BrownianWithArea(7, (n,))
    columns = []
    for a, b in ((0.0, 0.25), (0.25, 0.5), (0.5, 0.9), (-0.3, -0.1)):
        for x, variance in zip(path.increment_and_area(a, b), (b - a, (b - a) / 12), strict=True):
            z = x.numpy() / np.sqrt(variance)
            assert abs(z.var() - 1) < 4 * np.sqrt(2 / n)
            assert stats.kstest(z, "norm").pvalue > 1e-3
            columns.append(z)
    correlation = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(correlation).max() < 4.5 / np.sqrt(n)


# ------------------------------------------------------------------------------- kinds of noise

UNIT = torch.tensor([0.0, 1.0], dtype=torch.float64)


@pytest.mark.parametrize("method", ["euler_maruyama", "heun_strat", "reversible_heun", "sra1"])
def test_scalar_noise_is_one_process_per_sample(method):
    field = sciflow.SDE(lambda t, y: (0 * y[0], 0 * y[1]), (1.0, 2.0), noise="scalar")
    y0 = (torch.zeros(500, 3), torch.zeros(500))
    x, z = sciflow.integrate(field, y0, UNIT, method=method, dt=0.25, seed=2).y
    close(x[-1], x[-1][:, :1].expand(-1, 3))
    close(2 * x[-1][:, 0], z[-1])
    assert abs(float(x[-1][:, 0].var()) - 1) < 4 * (2 / 500) ** 0.5


@pytest.mark.parametrize("method", ["euler_maruyama", "heun_strat", "reversible_heun", "sra1"])
def test_matrix_noise_has_the_covariance_of_its_matrix(method):
    """Additive: y(1) = y0 + B W(1); two states driven by three processes."""
    b = torch.tensor([[1.0, 0.5, 0.0], [-0.3, 0.2, 0.8]])
    for diffusion in (b, lambda t, y: b.expand(len(y), 2, 3)):
        field = sciflow.SDE(lambda t, y: 0 * y, diffusion, noise="matrix")
        y0 = torch.zeros(20_000, 2)
        y = sciflow.integrate(field, y0, UNIT, method=method, dt=0.5, seed=2).y[-1]
        torch.testing.assert_close(torch.cov(y.T), b @ b.T, rtol=0, atol=0.05)
    w = (BrownianWithArea if method == "sra1" else Brownian)(2, (20_000, 3))(0.0, 1.0)
    close(y, w @ b.T)


def test_matrix_noise_of_rotation():
    """dy = J y o dW keeps |y| in the sense of Stratonovich, and |y|^2 grows as exp(t) in Ito's."""
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    field = sciflow.SDE(lambda t, y: 0 * y, lambda t, y: (y @ turn.T)[..., None], noise="matrix")
    y0 = torch.tensor([[1.0, 0.0]]).expand(500, 2)

    def end(method):
        return sciflow.integrate(field, y0, UNIT, method=method, dt=2.0**-9, seed=1).y[-1]

    w = Brownian(1, (500, 1))(0.0, 1.0)
    exact = torch.cat([torch.cos(w), torch.sin(w)], 1)
    for method in ("heun_strat", "reversible_heun"):
        assert (end(method) - exact).abs().mean() < 4e-3
    ito = end("euler_maruyama")
    assert (ito - math.exp(0.5) * exact).abs().mean() < 0.1


def test_reversible_heun_can_be_undone():
    """y and z of a step backwards are those before it: the map is its own inverse."""
    from sciflow.integrators.sde import Piece, reversible_heun

    def f(t, y):
        return [torch.sin(y[0]) + t]

    def g(t, y):
        return [0.3 * torch.cos(y[0])]

    y = [torch.randn(4, 2)]
    carry, states = None, [y]
    steps = [torch.randn(4, 2) * 0.1 for _ in range(20)]
    for i, dw in enumerate(steps):
        piece = Piece([dw], [], False)
        y, carry = reversible_heun(f, g, 0.01 * i, 0.01, y, piece, carry)
        states.append(y)
    for i in reversed(range(len(steps))):
        piece = Piece([-steps[i]], [], False)
        y, carry = reversible_heun(f, g, 0.01 * (i + 1), -0.01, y, piece, carry)
        close(y[0], states[i][0])

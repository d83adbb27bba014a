"""Events and callbacks against closed forms."""

import math

import pytest
import torch

import sciflow
from sciflow.integrators import Event, Status

G = 9.81


def fall(t, y):
    """y = (height, speed)."""
    return torch.stack([y[:, 1], torch.full_like(y[:, 1], -G)], 1)


def height(t, y):
    return y[:, 0]


@pytest.mark.parametrize("method", ["bosh3", "dopri5", "tsit5", "dopri8", "rodas4"])
def test_balls_meet_the_ground(method):
    """Each at its own time, sqrt(2 h / g); the others fly on; one never arrives."""
    h = torch.tensor([1.0, 2.0, 5.0, 1000.0])
    y0 = torch.stack([h, torch.zeros(4)], 1)
    t = torch.tensor([0.0, 0.3, 0.8, 2.0])
    solution = sciflow.integrate(fall, y0, t, method=method, event=height)
    expected = torch.sqrt(2 * h / G)[:3]
    order = solution.events.sample.argsort()
    assert solution.events.sample[order].tolist() == [0, 1, 2]
    torch.testing.assert_close(solution.events.t[order], expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(solution.events.y[order][:, 1], -G * expected, rtol=0, atol=1e-8)
    assert solution.stats.status.tolist() == [Status.EVENT] * 3 + [Status.OK]
    assert solution.stats.ok
    torch.testing.assert_close(solution.stats.last_t[:3], expected, rtol=0, atol=1e-9)
    # until its event a sample falls, then it stays
    flown = torch.minimum(t[:, None], torch.sqrt(2 * h / G))
    torch.testing.assert_close(solution.y[..., 0], h - G / 2 * flown**2, rtol=0, atol=1e-8)


@pytest.mark.parametrize("method", ["bosh3", "dopri5", "rodas4"])
def test_balls_with_times_of_their_own(method):
    """Every ball has its own start, steps and outputs; one is thrown so that it never lands."""
    h, start = torch.tensor([1.0, 2.0, 5.0, 1000.0]), torch.tensor([0.0, 0.5, -1.0, 2.0])
    y0 = torch.stack([h, torch.zeros(4)], 1)
    flight = torch.tensor([0.0, 0.3, 0.8, 2.0])[:, None].expand(-1, 4)
    solution = sciflow.integrate(
        fall, y0, start + flight, method=method, batch="each", event=height
    )
    expected = torch.sqrt(2 * h / G)
    order = solution.events.sample.argsort()
    assert solution.events.sample[order].tolist() == [0, 1, 2]
    landed = (start + expected)[:3]
    torch.testing.assert_close(solution.events.t[order], landed, rtol=0, atol=1e-9)
    torch.testing.assert_close(solution.stats.last_t[:3], landed, rtol=0, atol=1e-9)
    assert solution.stats.status.tolist() == [Status.EVENT] * 3 + [Status.OK] and solution.stats.ok
    flown = torch.minimum(flight, expected)
    torch.testing.assert_close(solution.y[..., 0], h - G / 2 * flown**2, rtol=0, atol=1e-8)


def test_events_of_a_sample_do_not_depend_on_its_company():
    rate = torch.tensor([[1.0], [1.0], [50.0]])

    def spin(t, y):
        return rate[: len(y)] * torch.stack([y[:, 1], -y[:, 0]], 1)

    y0, t = torch.tensor([[0.3, 1.0], [-0.2, 1.0], [0.1, 1.0]]), torch.tensor([0.0, 7.0])
    watch = Event(height, terminal=False)
    alone, together = (
        sciflow.integrate(spin, y0[:n], t, batch="each", event=watch).events for n in (2, 3)
    )
    for i, n in ((0, 2), (1, 3)):  # x = x0 cos t + sin t
        exact = torch.arctan(-y0[i, 0]) + math.pi * torch.arange(1 - i, n + 1 - i)
        torch.testing.assert_close(alone.t[alone.sample == i], exact, rtol=0, atol=1e-4)
        torch.testing.assert_close(
            together.t[together.sample == i], alone.t[alone.sample == i], rtol=0, atol=1e-12
        )


@pytest.mark.parametrize("batch", ["joint", "each"])
def test_gradient_of_an_event_time(batch):
    """t = sqrt(2 h / g): dt/dh = 1 / sqrt(2 g h), dt/dg = -t / 2g; impact speed -sqrt(2 g h)."""
    g = torch.tensor(G, requires_grad=True)
    y0 = torch.tensor([[3.0, 0.0], [7.0, 0.0]], requires_grad=True)
    solution = sciflow.integrate(
        lambda t, y: torch.stack([y[:, 1], -g.expand(len(y))], 1), y0,
        torch.tensor([0.0, 4.0]), event=height, rtol=1e-9, atol=1e-9, batch=batch,
    )  # fmt: skip
    order = solution.events.sample.argsort()
    to_y, to_g = torch.autograd.grad(solution.events.t.sum(), [y0, g], retain_graph=True)
    h = torch.tensor([3.0, 7.0])
    torch.testing.assert_close(to_y[:, 0], 1 / torch.sqrt(2 * G * h), rtol=1e-6, atol=0)
    assert float(to_g) == pytest.approx(float((-torch.sqrt(2 * h / G) / (2 * G)).sum()), rel=1e-6)
    (to_y,) = torch.autograd.grad(solution.events.y[order][:, 1].sum(), y0)
    torch.testing.assert_close(to_y[:, 0], -torch.sqrt(G / (2 * h)), rtol=1e-6, atol=0)


def turn(t, y):
    return torch.stack([y[:, 1], -y[:, 0]], 1)


@pytest.mark.parametrize("direction", [0, 1, -1])
def test_recorded_passages(direction):
    """x = sin(t + phase) passes through zero at multiples of pi; samples go on."""
    phase = torch.tensor([0.0, 1.0])
    y0 = torch.stack([torch.sin(phase), torch.cos(phase)], 1)
    watch = Event(height, terminal=False, direction=direction)
    solution = sciflow.integrate(
        turn, y0, torch.tensor([0.0, 10.0]), event=watch, rtol=1e-8, atol=1e-8
    )
    for sample in (0, 1):
        got = solution.events.t[solution.events.sample == sample]
        n = torch.arange(1, 5)
        times = n * math.pi - phase[sample]
        n, times = n[times < 10], times[times < 10]
        rising = n % 2 == 0
        keep = {0: rising | True, 1: rising, -1: ~rising}[direction]
        torch.testing.assert_close(got, times[keep].double(), rtol=0, atol=1e-6)
    exact = torch.stack([torch.sin(10 + phase), torch.cos(10 + phase)], 1)
    torch.testing.assert_close(solution.y[-1], exact, rtol=0, atol=1e-6)
    assert solution.stats.status.tolist() == [0, 0]


def test_backwards_in_time_and_nothing_happens():
    y0 = torch.tensor([[0.0, 1.0]])
    solution = sciflow.integrate(turn, y0, torch.tensor([0.0, -4.0]), event=lambda t, y: t + 1.25)
    assert float(solution.events.t) == pytest.approx(-1.25, abs=1e-12)
    assert float(solution.y[-1][0, 0]) == pytest.approx(math.sin(-1.25), abs=1e-4)
    quiet = sciflow.integrate(turn, y0, torch.tensor([0.0, 1.0]), event=lambda t, y: y[:, 0] + 9)
    assert len(quiet.events.t) == 0 and quiet.events.y is None


def test_single_state_and_dict():
    solution = sciflow.integrate(
        lambda t, y: {"x": torch.ones(2)}, {"x": torch.zeros(2)}, torch.tensor([0.0, 3.0]),
        event=lambda t, y: y["x"].sum() - 1.0,
    )  # fmt: skip
    assert float(solution.events.t) == pytest.approx(0.5, abs=1e-9)
    torch.testing.assert_close(solution.y["x"][-1], torch.full((2,), 0.5))


# ------------------------------------------------------------------------------------ on_step


@pytest.mark.parametrize("method", ["dopri5", "rk4", "rodas4"])
def test_a_bounce(method):
    """The speed is turned where a step ends below the ground: energy stays."""
    y0, t = torch.tensor([[1.0, 0.0]]), torch.linspace(0.0, 3.0, 31)
    ends = []

    def bounce(t, y):
        ends.append(float(t))
        below = (y[:, 0] < 0) & (y[:, 1] < 0)
        return torch.where(below[:, None], y * torch.tensor([1.0, -1.0]), y)

    dt = 0.01 if method == "rk4" else None
    solution = sciflow.integrate(
        fall, y0, t, method=method, dt=dt, on_step=bounce, rtol=1e-8, atol=1e-8
    )
    energy = 0.5 * solution.y[..., 1] ** 2 + G * solution.y[..., 0]
    torch.testing.assert_close(energy, torch.full_like(energy, G), rtol=1e-6, atol=0)
    assert len(ends) == solution.stats.steps and ends[-1] == 3.0
    assert bool((solution.y[..., 1].diff(dim=0) > 0).any())


def test_evaluations_after_a_jump_are_counted():
    count = 0

    def field(t, y):
        nonlocal count
        count += 1
        return -y

    for more in ({}, {"method": "rk4", "dt": 0.1}, {"method": "dopri5", "dt": 0.1}):
        count = 0
        stats = sciflow.integrate(
            field, torch.ones(2, 1), torch.tensor([0.0, 1.0]), on_step=lambda t, y: 0.9 * y, **more
        ).stats
        # the slope after the last jump is counted, and never asked for
        assert stats.nfe - count == (0 if "rk4" in more.values() else 1)


def test_birth_and_death_samples_the_weighted_law():
    """Resampling by exp(-(x - 1)^2 dt / 2) at each step tilts Brownian motion as Feynman and Kac
    say; the tilted law is normal, its moments by Riccati's equation."""
    n, dt = 20_000, 2.0**-6
    generator = torch.Generator().manual_seed(0)

    def resample(t, x):
        weight = torch.exp(-0.5 * dt * (x[:, 0] - 1) ** 2)
        # systematic resampling: one random number for all
        edges = weight.cumsum(0) / weight.sum()
        comb = (torch.arange(n) + torch.rand((), generator=generator, dtype=x.dtype)) / n
        return x[torch.searchsorted(edges, comb).clamp(max=n - 1)]

    field = sciflow.SDE(lambda t, x: 0 * x, 1.0)
    x = sciflow.integrate(
        field, torch.zeros(n, 1), torch.tensor([0.0, 2.0]), method="euler_maruyama", dt=dt,
        seed=1, on_step=resample,
    ).y[-1]  # fmt: skip
    # v' = 1 - v^2, m' = v (1 - m)
    variance, mean = math.tanh(2.0), 1 - 1 / math.cosh(2.0)
    assert float(x.mean()) == pytest.approx(mean, abs=0.05)
    assert float(x.var()) == pytest.approx(variance, abs=0.05)


def test_thermostat_by_on_step():
    """Momenta drawn anew after each leapfrog step (Andersen): var(q) = kT/k up to O(h^2)."""
    generator = torch.Generator().manual_seed(0)
    field = sciflow.Hamiltonian(lambda q: 0.5 * q.square().sum(1))

    def refresh(t, state):
        q, p = state
        new = torch.randn(p.shape, generator=generator, dtype=p.dtype)
        hit = torch.rand(len(p), 1, generator=generator, dtype=p.dtype) < 0.3
        return q, torch.where(hit, new, p)

    zero = torch.zeros(5000, 1)
    solution = sciflow.integrate(
        field, (zero, zero), torch.linspace(0.0, 60.0, 31), method="leapfrog", dt=0.2,
        on_step=refresh,
    )  # fmt: skip
    assert float(solution.y[0][6:].var()) == pytest.approx(1 / (1 - 0.01), rel=0.02)
    # one force to start with, one per step, and one after each change
    assert solution.stats.nfe == 1 + 2 * solution.stats.steps

"""Accuracy, per-sample steps and failures of the adaptive solves."""

import math

import pytest
import torch
from scipy.integrate import solve_ivp
from torchdiffeq import odeint

import sciflow
from sciflow import IntegrationError
from sciflow.integrators import TABLEAUS, Status

UNIT = torch.tensor([0.0, 1.0], dtype=torch.float64)
ADAPTIVE = sorted(name for name in TABLEAUS if TABLEAUS[name].adaptive)


class Net(torch.nn.Module):
    """A 3x64 tanh network of (y, t), times a gain: the field of most measurements."""

    def __init__(self, dim=2, gain=4.0):
        super().__init__()
        self.gain = gain
        sizes = [dim + 1, 64, 64, 64, dim]
        layers = []
        for a, b in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [torch.nn.Linear(a, b), torch.nn.Tanh()]
        self.layers = torch.nn.Sequential(*layers[:-1])

    def forward(self, t, y):
        t = t.expand(len(y)) if t.ndim == 0 else t
        return self.gain * self.layers(torch.cat([y, t[:, None]], 1))


def reference(field, y0, t, tolerance=1e-12):
    with torch.no_grad():
        return odeint(field, y0, t, method="dopri8", rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dim", [2, 32])
def test_end_error_of_an_easy_field(dim):
    net = Net(dim).requires_grad_(False)
    y0 = torch.randn(128, dim)
    exact = reference(net, y0, UNIT)[-1]
    ours = sciflow.integrate(net, y0, UNIT, rtol=1e-5, atol=1e-5)
    peer = odeint(net, y0, UNIT, method="dopri5", rtol=1e-5, atol=1e-5)[-1]
    error = float((ours.y[-1] - exact).norm() / exact.norm())
    assert error <= 1e-6 and ours.stats.nfe <= 20
    assert error < float((peer - exact).norm() / exact.norm())


def test_float32_end_point_rounding():
    net, y0 = Net().requires_grad_(False), torch.randn(512, 2)
    exact = reference(net, y0, UNIT)[-1]
    y = sciflow.integrate(net.float(), y0.float(), UNIT.float(), rtol=1e-7, atol=1e-7).y[-1]
    assert y.dtype == torch.float32
    # the rounding of weights and of every evaluation is in this as well
    assert float((y.double() - exact).norm() / exact.norm()) <= 3e-7


@pytest.mark.parametrize("batch", ["joint", "each"])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_tolerance_controls_the_error(method, batch):
    """Lotka-Volterra against scipy; the error falls with the tolerance, within a factor of it."""

    def field(t, y):
        x, z = y[:, 0], y[:, 1]
        return torch.stack([x * (1.5 - z), z * (x - 3.0)], 1)

    y0 = torch.tensor([[1.0, 1.0], [2.0, 3.0], [5.0, 0.5]])
    t = torch.linspace(0.0, 5.0, 11)
    exact = torch.stack(
        [
            torch.from_numpy(
                solve_ivp(
                    lambda s, y: [y[0] * (1.5 - y[1]), y[1] * (y[0] - 3.0)], (0, 5), row.tolist(),
                    method="DOP853", t_eval=t.tolist(), rtol=1e-13, atol=1e-13,
                ).y.T
            )
            for row in y0
        ],
        1,
    )  # fmt: skip
    for tolerance in (1e-4, 1e-6) if TABLEAUS[method].order > 4 else (1e-4,):
        y = sciflow.integrate(
            field, y0, t, method=method, rtol=tolerance, atol=tolerance, batch=batch
        ).y
        assert (y - exact).abs().max() < 300 * tolerance


def test_error_estimate_tells_the_size_of_the_error():
    y0 = torch.ones(3, 1)
    solution = sciflow.integrate(lambda t, y: -y, y0, UNIT, rtol=1e-5, atol=1e-5)
    true = float((solution.y[-1] - math.exp(-1)).abs().max())
    assert true < solution.stats.error < 1e-3


def test_float32_keeps_time_in_float64():
    """1e5 steps of 1e-3 far from zero: in float32 the time would stand still."""
    seen = []

    def field(t, y):
        seen.append(t)
        return torch.ones_like(y)

    y0 = torch.zeros(1, 1, dtype=torch.float32)
    t = torch.tensor([2.0**24, 2.0**24 + 1])
    y = sciflow.integrate(field, y0, t, method="rk4", dt=1e-3).y[-1]
    assert float(y) == pytest.approx(1.0, abs=3e-5)  # a thousand roundings
    assert seen[0].dtype == torch.float32 and seen[0].shape == ()
    times = [2.0**24, 2.0**24 + 1]
    assert min(map(float, seen)) >= times[0] and max(map(float, seen)) <= times[1]


@pytest.mark.parametrize("name", ["dopri5", "rk4", "dopri8", "bosh3"])
def test_delegation_to_torchdiffeq(name):
    net, y0 = Net().requires_grad_(False), torch.randn(7, 2)
    t = torch.tensor([0.0, 0.4, 1.0])
    dt = 0.05 if name == "rk4" else None
    options = {} if dt is None else {"options": {"step_size": dt}}
    expected = odeint(net, y0, t, method=name, rtol=1e-6, atol=1e-6, **options)
    solution = sciflow.integrate(
        net, y0, t, method=f"torchdiffeq:{name}", rtol=1e-6, atol=1e-6, dt=dt
    )
    torch.testing.assert_close(solution.y, expected, rtol=0, atol=0)
    assert solution.stats.nfe > 0 and solution.stats.ok
    pair = sciflow.integrate(
        lambda t, y: {"a": -y["b"], "b": y["a"]}, {"a": y0, "b": y0}, t,
        method=f"torchdiffeq:{name}", rtol=1e-6, atol=1e-6, dt=dt,
    ).y  # fmt: skip
    angle = t[:, None, None]
    torch.testing.assert_close(
        pair["a"], y0 * (torch.cos(angle) - torch.sin(angle)), rtol=0, atol=1e-3
    )


def test_delegated_failure_is_reported():
    y0 = torch.tensor([[1.0]])
    t = torch.tensor([0.0, 2.0])
    with pytest.raises(IntegrationError, match="underflow") as caught:
        sciflow.integrate(lambda t, y: y**2, y0, t, method="torchdiffeq:dopri5")
    solution = caught.value.solution
    assert torch.equal(solution.y[0], y0) and bool(solution.y[1].isnan().all())


# ----------------------------------------------------------------------------- a step for each


def oscillators(t, y):
    """y = (x, v, omega): samples of very different stiffness; times per sample welcome."""
    x, v, omega = y.unbind(1)
    return torch.stack([v, -(omega**2) * x, torch.zeros_like(x)], 1)


def test_each_does_not_depend_on_the_company():
    one = torch.tensor([[1.0, 0.0, 2.0]])
    easy = torch.cat([torch.randn(511, 2), torch.rand(511, 1)], 1)
    stiff = torch.tensor([[1.0, 0.0, 40.0]])
    t = torch.tensor([0.0, 0.5, 1.0])
    alone = sciflow.integrate(oscillators, one, t, batch="each")
    for company in (easy, stiff, torch.cat([stiff, easy])):
        together = sciflow.integrate(oscillators, torch.cat([one, company]), t, batch="each")
        torch.testing.assert_close(together.y[:, :1], alone.y, rtol=0, atol=1e-12)
        assert int(together.stats.nfe[0]) == int(alone.stats.nfe[0])
    assert int(together.stats.nfe[1]) > 5 * int(together.stats.nfe[0])
    # so it is what the joint solve of one sample gives
    joint = sciflow.integrate(oscillators, one, t)
    torch.testing.assert_close(joint.y, alone.y, rtol=0, atol=1e-12)
    assert joint.stats.nfe == int(alone.stats.nfe[0])


def test_joint_depends_on_it():
    """The reason for batch="each": a stiff neighbour makes everyone's steps small."""
    both = torch.tensor([[1.0, 0.0, 2.0], [1.0, 0.0, 40.0]])
    joint = sciflow.integrate(oscillators, both, UNIT).stats.nfe
    assert joint > 5 * int(sciflow.integrate(oscillators, both, UNIT, batch="each").stats.nfe[0])


@pytest.mark.parametrize("method", ADAPTIVE)
def test_times_per_sample(method):
    y0 = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    t = torch.tensor(
        [
            [0.0, 0.5, 2.0, -1.0],
            [0.1, 1.0, 1.5, -1.5],
            [0.2, 3.0, 1.4, -4.0],
            [0.4, 9.0, 0.0, -5.0],
        ]
    )
    tolerance = 1e-9 if TABLEAUS[method].order > 4 else 1e-6
    solution = sciflow.integrate(
        lambda s, y: torch.cos(s)[:, None] * y, y0, t, method=method, batch="each",
        rtol=tolerance, atol=tolerance,
    )  # fmt: skip
    exact = y0[:, 0] * torch.exp(torch.sin(t) - torch.sin(t[0]))
    torch.testing.assert_close(solution.y[..., 0], exact, rtol=0, atol=1e3 * tolerance)
    torch.testing.assert_close(solution.stats.last_t, t[-1])
    assert solution.stats.nfe.shape == (4,)


def test_each_gradients_against_central_differences():
    """Parameters, the initial state and the times of every sample."""
    y0 = torch.tensor([[0.4, -0.7], [0.1, 0.9]])
    t = torch.tensor([[0.0, 0.2], [0.3, 0.7], [1.0, 1.1]])

    def loss(a, y0, t):
        y = sciflow.integrate(
            lambda s, y: torch.sin(a * y * (1 + s[:, None])) - 0.5 * y.flip(1), y0, t,
            batch="each", rtol=1e-9, atol=1e-9, method="tsit5",
        ).y  # fmt: skip
        return (y[1] ** 2).sum() + y[2].prod()

    inputs = [torch.tensor(1.3, requires_grad=True), y0.requires_grad_(), t.requires_grad_()]
    got = torch.autograd.grad(loss(*inputs), inputs)
    with torch.no_grad():
        for which, index in ((0, ()), (1, (0, 1)), (2, (0, 0)), (2, (1, 1)), (2, (2, 0))):
            shifted = []
            for sign in (1, -1):
                moved = [x.detach().clone() for x in inputs]
                moved[which][index] += sign * 1e-4
                shifted.append(float(loss(*moved)))
            expected = (shifted[0] - shifted[1]) / 2e-4
            assert float(got[which][index]) == pytest.approx(expected, rel=1e-5, abs=1e-6)


# ----------------------------------------------------------------------------------- failures

POLE_Y0 = [[1.0], [-1.0], [0.1], [0.0]]


def pole(t, y):
    """y' = y**2 blows up at t = 1 / y0."""
    return y**2


@pytest.mark.parametrize("batch", ["joint", "each"])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_a_sample_that_blows_up(method, batch):
    y0, t = torch.tensor(POLE_Y0), torch.tensor([0.0, 0.5, 2.0, 3.0])
    solution = sciflow.integrate(
        pole, y0, t, method=method, batch=batch, throw=False, rtol=1e-4, atol=1e-6
    )
    exact = y0 / (1 - y0 * t[:, None, None])
    status = solution.stats.status
    assert status[0] in (Status.DT_UNDERFLOW, Status.NON_FINITE)
    assert status[1:].tolist() == [0, 0, 0] and not solution.stats.ok
    torch.testing.assert_close(solution.y[:, 1:], exact[:, 1:], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(solution.y[:2, 0], exact[:2, 0], rtol=2e-3, atol=0)
    assert bool(solution.y[2:, 0].isnan().all())
    assert float(solution.stats.last_t[0]) == pytest.approx(1.0, abs=1e-3)
    assert bool(solution.stats.last_y[0].isfinite().all()) and solution.stats.last_y[0] > 100
    torch.testing.assert_close(solution.stats.last_t[1:], torch.full((3,), 3.0))
    torch.testing.assert_close(solution.stats.last_y[1:], solution.y[-1, 1:])
    assert int(torch.as_tensor(solution.stats.nfe).max()) < 20_000


def test_failure_raises_with_the_solution():
    with pytest.raises(IntegrationError, match="1 of 4 samples") as caught:
        sciflow.integrate(pole, torch.tensor(POLE_Y0), torch.tensor([0.0, 2.0]))
    assert isinstance(caught.value.solution, sciflow.integrators.Solution)
    assert caught.value.solution.stats.status.bool().tolist() == [True, False, False, False]


def nan_from(when):
    def field(t, y):
        time = t if t.ndim else t.expand(len(y))
        bad = (time > when) & (torch.arange(len(y)) == 1)
        return torch.where(bad[:, None], math.nan, -y)

    return field


@pytest.mark.parametrize("batch", ["joint", "each", "fixed", "checkpoint"])
@pytest.mark.parametrize("when", [-1.0, 0.3])
def test_a_sample_that_becomes_nan(batch, when):
    y0, t = torch.ones(3, 2), torch.tensor([0.0, 0.25, 1.0, 2.0])
    ways = {"joint": {}, "each": {"batch": "each"}, "fixed": {"method": "rk4", "dt": 0.05}}
    ways["checkpoint"] = {"grad": "checkpoint"}
    solution = sciflow.integrate(nan_from(when), y0, t, throw=False, **ways[batch])
    exact = torch.exp(-t)[:, None]
    assert solution.stats.status.tolist() == [0, Status.NON_FINITE, 0]
    for good in (0, 2):
        torch.testing.assert_close(solution.y[:, good], exact.expand(-1, 2), rtol=1e-4, atol=1e-5)
    first_lost = 1 if when < 0 else 2
    torch.testing.assert_close(
        solution.y[:first_lost, 1], exact[:first_lost].expand(-1, 2), rtol=1e-4, atol=1e-5
    )
    assert bool(solution.y[first_lost:, 1].isnan().all())
    assert bool(solution.stats.last_y.isfinite().all())
    assert (
        (0 if when < 0 else 0.25) - 1e-9 <= float(solution.stats.last_t[1]) <= max(when, 0) + 1e-9
    )
    assert int(torch.as_tensor(solution.stats.nfe).max()) < 2000
    if batch == "joint":
        inside = solution(torch.tensor([0.2, 1.5, 2.0]))
        assert bool(inside[1:, 1].isnan().all()) and bool(inside[:, ::2].isfinite().all())
        assert bool(inside[0, 1].isnan().any()) == (when < 0)
    with pytest.raises(IntegrationError, match="not finite"):
        sciflow.integrate(nan_from(when), y0, t, **ways[batch])


@pytest.mark.parametrize("batch", ["joint", "each"])
def test_nan_at_once_costs_few_evaluations(batch):
    stats = sciflow.integrate(
        nan_from(-1.0), torch.ones(3, 2), UNIT, throw=False, batch=batch
    ).stats
    assert int(torch.as_tensor(stats.nfe).max()) < 60


def test_nan_outside_the_error_norm_is_seen():
    """logp is not in the error norm, but it must not turn into NaN in silence."""

    def field(t, x):
        return torch.where(t > 0.5, (x - x.detach()) * math.inf, -x)

    class OwnRule:
        def __call__(self, t, x):
            return -x

        def value_and_divergence(self, t, x):
            return -x, torch.where(t > 0.5, math.nan, -2.0).expand(len(x))

    state = (torch.ones(3, 2), torch.zeros(3))
    t = torch.tensor([0.0, 0.25, 1.0])
    solution = sciflow.integrate(sciflow.WithLogDensity(OwnRule()), state, t, throw=False)
    assert solution.stats.status.tolist() == [Status.NON_FINITE] * 3
    assert float(solution.stats.last_t[0]) == 0.25
    assert bool(solution.stats.last_y[1].isfinite().all())


@pytest.mark.parametrize("batch", ["joint", "each"])
def test_max_steps(batch):
    y0 = torch.tensor([[1.0, 0.0, 100.0], [1.0, 0.0, 1.0]])
    solution = sciflow.integrate(
        oscillators, y0, torch.tensor([0.0, 0.01, 5.0]), batch=batch, max_steps=20, throw=False
    )
    expected = [Status.MAX_STEPS] * 2 if batch == "joint" else [Status.MAX_STEPS, Status.OK]
    assert solution.stats.status.tolist() == expected
    assert int(torch.as_tensor(solution.stats.nfe).max()) <= 1 + 6 * 20
    assert 0.01 < float(solution.stats.last_t[0]) < 5.0
    assert bool(solution.y[2, 0].isnan().all()) and bool(solution.y[1].isfinite().all())
    # the last good state lies on the orbit
    x, v, omega = solution.stats.last_y[0].tolist()
    assert x == pytest.approx(math.cos(100 * float(solution.stats.last_t[0])), abs=1e-2)
    with pytest.raises(IntegrationError, match="max_steps was reached"):
        sciflow.integrate(oscillators, y0, UNIT * 5, batch=batch, max_steps=20)


def test_a_single_state_that_fails():
    """A state without a batch axis has one status."""
    solution = sciflow.integrate(lambda t, y: y**2, torch.ones(3), UNIT * 2, throw=False)
    assert solution.stats.status.shape == () and int(solution.stats.status) != 0
    assert bool(solution.y[-1].isnan().all()) and bool(solution.y[0].isfinite().all())


@pytest.mark.parametrize("way", ["joint", "each", "checkpoint"])
def test_gradients_of_the_good_samples_survive_a_failed_one(way):
    a = torch.tensor(1.0, requires_grad=True)
    y0, t = torch.tensor(POLE_Y0), torch.tensor([0.0, 2.0])
    ways = {"joint": {}, "each": {"batch": "each"}, "checkpoint": {"grad": "checkpoint"}}
    y = sciflow.integrate(lambda s, y: a * y**2, y0, t, throw=False, rtol=1e-6, **ways[way]).y
    good = y[-1, 1:]
    (got,) = torch.autograd.grad(good.sum(), a)
    # y = y0 / (1 - a y0 t): dy/da = t y**2
    assert float(got) == pytest.approx(float((2 * good**2).sum().detach()), rel=1e-3)


def test_sde_that_leaves_the_reals():
    field = sciflow.SDE(lambda t, y: torch.where(y > 5, math.inf, 0.0), 0.1)
    y0 = torch.tensor([[0.0], [10.0]])
    solution = sciflow.integrate(
        field, y0, UNIT, method="euler_maruyama", dt=0.1, seed=0, throw=False
    )
    assert solution.stats.status.tolist() == [Status.OK, Status.NON_FINITE]
    assert torch.equal(solution.stats.last_y[1], y0[1])

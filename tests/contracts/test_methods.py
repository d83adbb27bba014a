"""What every method promises. A method joins by its name in ``TABLEAUS`` or ``SDE_METHODS``."""

import itertools
import math
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import pytest
import torch

import sciflow
from sciflow.integrators import SDE_METHODS, TABLEAUS, Brownian, BrownianWithArea
from sciflow.integrators.tableaus import Rosenbrock, Tableau

METHODS = sorted(TABLEAUS)
STIFF = sorted(name for name in TABLEAUS if isinstance(TABLEAUS[name], Rosenbrock))
EXPLICIT = sorted(set(METHODS) - set(STIFF))
ADAPTIVE = sorted(name for name in TABLEAUS if TABLEAUS[name].adaptive)


def smooth(t, y):
    """A smooth field that depends on time; ``closed_form`` solves it."""
    return -3 * (y - torch.cos(t)) - torch.sin(t)


def closed_form(t, y0):
    return torch.cos(t) + (y0 - 1) * torch.exp(-3 * t)


Y0 = [[0.5], [1.5]]
SPAN = torch.tensor([0.0, 2.0], dtype=torch.float64)


def slope_of(errors):
    """Observed order over successive halvings of the step."""
    steps = np.arange(len(errors)) * math.log(0.5)
    return np.polyfit(steps, np.log(errors), 1)[0]


def limit_of_slopes(errors):
    """Observed order as the step goes to zero: the last two halvings, extrapolated."""
    slopes = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    return 2 * slopes[-1] - slopes[-2]


def tight(method):
    """A tolerance that a method of low order can afford."""
    return 1e-9 if TABLEAUS[method].order > 4 else 1e-6


# ------------------------------------------------------------------------------ coefficients


@cache
def trees(n):
    """Rooted trees of ``n`` nodes, each the sorted tuple of its branches."""
    if n == 1:
        return ((),)
    found = set()
    for sizes in partitions(n - 1, n - 1):
        for branches in itertools.product(*(trees(size) for size in sizes)):
            found.add(tuple(sorted(branches)))
    return tuple(sorted(found))


def partitions(n, largest):
    if n == 0:
        yield ()
    for first in range(min(n, largest), 0, -1):
        for rest in partitions(n - first, first):
            yield (first, *rest)


def nodes(tree):
    return 1 + sum(map(nodes, tree))


def density(tree):
    return nodes(tree) * math.prod(map(density, tree))


def weight(tree, a):
    """Elementary weights of the stages (Hairer, Norsett and Wanner, section II.2)."""
    product = np.ones(len(a))
    for branch in tree:
        product = product * (a @ weight(branch, a))
    return product


def order_conditions(order):
    """The rooted trees of up to ``order`` nodes: (order, weight of the stages, value)."""
    return [
        (n, partial(weight, tree), 1 / density(tree))
        for n in range(1, order + 1)
        for tree in trees(n)
    ]


def test_number_of_conditions():
    assert [len(trees(n)) for n in range(1, 9)] == [1, 1, 2, 4, 9, 20, 48, 115]


def arrays(tableau):
    a = np.zeros((tableau.stages, tableau.stages))
    for i, row in enumerate(tableau.a):
        a[i + 1, : len(row)] = row
    return a, np.array(tableau.b), np.array(tableau.c)


@pytest.mark.parametrize("method", EXPLICIT)
def test_order_conditions(method):
    tableau = TABLEAUS[method]
    a, b, c = arrays(tableau)
    np.testing.assert_allclose(a.sum(1), c, atol=1e-13)
    for _, weigh, value in order_conditions(tableau.order):
        assert b @ weigh(a) == pytest.approx(value, abs=1e-13)
    if tableau.fsal:
        np.testing.assert_allclose(a[-1], b, atol=1e-15)
        assert c[-1] == 1.0 and b[-1] == 0.0


@pytest.mark.parametrize("method", sorted(set(ADAPTIVE) - set(STIFF)))
def test_embedded_method_is_one_order_lower(method):
    tableau = TABLEAUS[method]
    a, b, c = arrays(tableau)
    embedded = b - np.array(tableau.error)
    lower = [embedded @ w(a) - v for n, w, v in order_conditions(tableau.order - 1)]
    np.testing.assert_allclose(lower, 0, atol=1e-12)
    same = [embedded @ w(a) - v for n, w, v in order_conditions(tableau.order)]
    assert np.abs(same).max() > 1e-5  # else it would estimate nothing


@pytest.mark.parametrize("method", EXPLICIT)
def test_interpolant_weights(method):
    """The interpolant starts at y0, ends at y1, and fulfils the conditions of its order inside."""
    tableau = TABLEAUS[method]
    if tableau.dense is None:
        pytest.skip("interpolates by Hermite's polynomial, tested by its order")
    a, b, c = arrays(tableau)
    np.testing.assert_allclose(tableau.dense_weights(0.0), 0.0)
    np.testing.assert_allclose(tableau.dense_weights(1.0), b, atol=1e-11)
    for u in (0.1, 0.5, 0.8):
        weights = np.array(tableau.dense_weights(u))
        for n, w, v in order_conditions(4):
            assert weights @ w(a) == pytest.approx(v * u**n, abs=1e-11)


# ------------------------------------------------------------------------------- convergence


def riccati(t, y):
    """A nonlinear field that leaves an error above rounding even at order eight."""
    return -torch.cos(t) * y**2


@pytest.mark.parametrize("method", METHODS)
def test_observed_order(method):
    order = TABLEAUS[method].order
    y0, t = torch.tensor(Y0), torch.linspace(0.0, 4.0, 9)
    field, exact, first = smooth, closed_form(t[:, None, None], y0), {1: 6, 2: 5, 3: 5}
    if order > 5:
        y0, t = torch.tensor([[0.5], [1.0]]), t[::8]
        field, exact, first = riccati, y0 / (1 + y0 * torch.sin(t[:, None, None])), {8: 2}
    errors = []
    for k in range(first.get(order, 4), first.get(order, 4) + 5):
        y = sciflow.integrate(field, y0, t, method=method, dt=4.0 / 2**k).y
        errors.append(float((y - exact).abs().max()))
    assert errors[-1] > 1e-12  # above rounding
    assert limit_of_slopes(errors) == pytest.approx(order, abs=0.2)


def test_a_new_method_is_one_entry(guide_code, monkeypatch):
    """The line of docs/extending.md, as it stands there."""
    names = {"Tableau": Tableau}
    for name, tableau in eval(f"{{{guide_code('A Runge-Kutta method')}}}", names).items():
        monkeypatch.setitem(TABLEAUS, name, tableau)
        test_order_conditions(name)
        test_observed_order(name)
        test_states_of_any_structure(name)
        test_gradients_against_central_differences(name)


@pytest.mark.parametrize("method", METHODS)
def test_interpolant_order(method):
    """Dense output of constant steps converges at min(order, interpolant) or better."""
    tableau = TABLEAUS[method]
    nominal = min(tableau.order, 3 if tableau.dense is None or method in STIFF else 4)
    y0, inside = torch.tensor(Y0), torch.linspace(0.05, 1.95, 20)
    exact = closed_form(inside[:, None, None], y0)
    errors = []
    for k in (4, 5, 6, 7):
        solution = sciflow.integrate(smooth, y0, SPAN, method=method, dt=2.0 / 2**k, dense=True)
        errors.append(float((solution(inside) - exact).abs().max()))
    assert slope_of(errors) >= nominal - 0.3


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backwards", [False, True])
def test_dense_output_meets_the_outputs(method, backwards):
    y0, t = torch.tensor(Y0), torch.tensor([0.0, 0.3, 1.1, 2.0])
    t = t.flip(0) if backwards else t
    dt = None if TABLEAUS[method].adaptive else 0.1
    solution = sciflow.integrate(smooth, y0, t, method=method, dt=dt, dense=True)
    torch.testing.assert_close(solution(t), solution.y, rtol=0, atol=1e-13)
    torch.testing.assert_close(
        solution(0.3), solution.y[2 if backwards else 1], rtol=0, atol=1e-13
    )
    assert torch.equal(solution(t[-1]), solution.y[-1])
    with pytest.raises(ValueError, match="t must lie within"):
        solution(2.1)


@pytest.mark.parametrize("method", ADAPTIVE)
def test_adaptive_interpolant_is_as_good_as_the_tolerance(method):
    y0, inside = torch.tensor(Y0), torch.linspace(0.0, 2.0, 101)
    tolerances = dict(rtol=10 * tight(method), atol=10 * tight(method))
    solution = sciflow.integrate(smooth, y0, SPAN, method=method, **tolerances)
    exact = closed_form(inside[:, None, None], y0)
    assert (solution(inside) - exact).abs().max() < 1e3 * tight(method)
    at_outputs = sciflow.integrate(smooth, y0, inside, method=method, **tolerances)
    torch.testing.assert_close(at_outputs.y, solution(inside), rtol=0, atol=1e-13)
    assert at_outputs.stats.nfe == solution.stats.nfe  # outputs cost no evaluations


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "span", [(0.0, 0.7), (-1.0, 1e-3), (0.1, 0.3), (0.9, -0.1), (-1 / 3, 0.1)]
)
def test_no_evaluation_beyond_the_span(method, span):
    """A field that is undefined beyond the final time, even by the last bit, is never asked."""
    seen = []

    def field(t, y):
        seen.append(float(t))
        return -y

    t = torch.tensor(span)
    for dt in [0.07, *([None] if TABLEAUS[method].adaptive else [])]:
        solution = sciflow.integrate(field, torch.ones(2, 1), t, method=method, dt=dt)
        assert min(span) <= min(seen) and max(seen) <= max(span)
        assert torch.equal(solution.t, t)
    if TABLEAUS[method].adaptive:

        def per_sample(t, y):
            seen.extend(t.tolist())
            return -y * t[:, None]

        sciflow.integrate(per_sample, torch.ones(2, 1), t, method=method, batch="each")
        assert min(span) <= min(seen) and max(seen) <= max(span)


@pytest.mark.parametrize("method", METHODS)
def test_a_field_with_a_singular_end(method):
    """y' = log(1 - t), integrable, and minus infinity at t = 1: stop short by one bit."""
    end = math.nextafter(1.0, 0.0)

    def field(t, y):
        if float(t) > end:
            raise AssertionError(f"evaluated at {float(t)}")
        return torch.log(1 - t) + torch.zeros_like(y)

    dt = None if TABLEAUS[method].adaptive else 1e-3
    t = torch.tensor([0.0, end])
    y = sciflow.integrate(field, torch.zeros(1, 1), t, method=method, dt=dt).y[-1]
    tolerance = {1: 0.05, 2: 0.05}.get(TABLEAUS[method].order, 0.02) if dt else 1e-4
    assert float(y) == pytest.approx(-1.0, abs=tolerance)  # the integral of log is -1


@pytest.mark.parametrize("method", METHODS)
def test_backward_is_the_inverse(method):
    y = torch.tensor(Y0)
    dt = None if TABLEAUS[method].adaptive else 2.0**-8
    for t in (SPAN, SPAN.flip(0)):
        y = sciflow.integrate(
            lambda s, y: -torch.cos(s) * y**2,
            y,
            t,
            method=method,
            dt=dt,
            rtol=tight(method),
            atol=tight(method),
        ).y[-1]
    tolerance = {1: 5e-2, 2: 1e-4, 3: 1e-4}.get(TABLEAUS[method].order, 100 * tight(method))
    torch.testing.assert_close(y, torch.tensor(Y0), rtol=0, atol=tolerance)


@pytest.mark.parametrize("method", METHODS)
def test_steps_divide_the_span(method):
    """dt is shortened, never stretched, so that steps land on every output."""
    t = torch.tensor([0.0, 0.25, 1.0])
    solution = sciflow.integrate(smooth, torch.tensor(Y0), t, method=method, dt=0.1)
    assert solution.stats.steps == 3 + 8
    solution = sciflow.integrate(smooth, torch.tensor(Y0), t, method=method, dt=0.25)
    assert solution.stats.steps == 1 + 3


@pytest.mark.parametrize("method", METHODS)
def test_evaluations_are_counted(method):
    count = 0

    def field(t, y):
        nonlocal count
        count += 1
        return smooth(t, y)

    for dt in [0.1, *([None] if TABLEAUS[method].adaptive else [])]:
        count = 0
        stats = sciflow.integrate(field, torch.tensor(Y0), SPAN, method=method, dt=dt).stats
        assert stats.nfe == count


# ------------------------------------------------------------------------------------- state


class Pair(NamedTuple):
    q: torch.Tensor
    p: torch.Tensor


@pytest.mark.parametrize("method", METHODS)
def test_states_of_any_structure(method):
    """A rotation, written with tuples, named tuples, dicts and complex numbers."""
    q, p = torch.randn(3, 2), torch.randn(3, 2)
    t = torch.tensor([0.0, 0.5, 1.0])
    dt = None if TABLEAUS[method].adaptive else 0.05

    def solve(field, y0):
        return sciflow.integrate(
            field, y0, t, method=method, dt=dt, rtol=tight(method), atol=tight(method)
        ).y

    whole = solve(lambda t, y: torch.cat([y[:, 2:], -y[:, :2]], 1), torch.cat([q, p], 1))
    q1, p1 = whole[..., :2], whole[..., 2:]
    named = solve(lambda t, y: Pair(y.p, -y.q), Pair(q, p))
    assert isinstance(named, Pair)
    # The field may give its entries in another order: names decide, not places.
    by_key = solve(lambda t, y: {"p": -y["q"], "q": y["p"]}, {"q": q, "p": p})
    nested = solve(lambda t, y: [(y[0][1], -y[0][0])], [(q, p)])
    spin = solve(lambda t, y: -1j * y, torch.complex(q, p))
    for got in ((named.q, named.p), (by_key["q"], by_key["p"]), nested[0], (spin.real, spin.imag)):
        torch.testing.assert_close(got[0], q1, rtol=0, atol=10 * tight(method))
        torch.testing.assert_close(got[1], p1, rtol=0, atol=10 * tight(method))


@pytest.mark.parametrize("method", METHODS)
def test_empty_batch_and_plain_vectors(method):
    dt = None if TABLEAUS[method].adaptive else 0.1
    for shape in ((0, 3), (3, 0), (4,), ()):
        y0 = torch.ones(shape)
        y = sciflow.integrate(lambda t, y: -y, y0, SPAN, method=method, dt=dt).y
        assert y.shape == (2, *shape)
        if y0.numel():
            assert float((y[-1] - math.exp(-2)).abs().max()) < 0.02


# --------------------------------------------------------------------------------- gradients


def gradients(method, grad, dt, adaptive_tolerance=1e-10):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    y0 = torch.randn(4, 2, requires_grad=True)
    t = torch.tensor([0.0, 0.5, 1.0], requires_grad=True)

    def field(s, y):
        return net(torch.cat([y, s.expand(len(y), 1)], 1)) - y

    y = sciflow.integrate(
        field, y0, t, method=method, dt=dt, grad=grad,
        rtol=adaptive_tolerance, atol=adaptive_tolerance,
    ).y  # fmt: skip
    loss = (y[-1] ** 2).sum() + torch.sin(y[1]).sum()
    return y, torch.autograd.grad(loss, [y0, t, *net.parameters()])


@pytest.mark.parametrize("method", METHODS)
def test_checkpoint_equals_direct(method):
    # What is differentiated within a step is replayed again and again: few steps will do.
    size, tolerance = (0.25, 1e-2) if method in STIFF else (0.05, 1e-6)
    for dt in [size, *([None] if TABLEAUS[method].adaptive else [])]:
        direct, expected = gradients(method, "direct", dt, tolerance)
        replayed, got = gradients(method, "checkpoint", dt, tolerance)
        torch.testing.assert_close(replayed, direct, rtol=1e-12, atol=1e-12)
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def scalar_problem(method, dt, tolerance=1e-10):
    """loss(x0, rate, t0, t1, t2) of one solve with an inner output."""

    def loss(x):
        y0 = x[:2].reshape(1, 2)
        return_time = sciflow.integrate(
            lambda s, y: torch.sin(x[2] * y * (1 + s)) - 0.5 * y.flip(1),
            y0, x[3:6], method=method, dt=dt, rtol=tolerance, atol=tolerance,
        ).y  # fmt: skip
        return (return_time[1] ** 2).sum() + return_time[2].prod()

    return loss, torch.tensor([0.4, -0.7, 1.3, 0.1, 0.55, 1.0])


@pytest.mark.parametrize("method", METHODS)
def test_gradients_against_central_differences(method):
    """With respect to y0, a parameter, and the first, an inner and the last time."""
    # 0.07 does not divide the spans: a small change of a time keeps the number of steps.
    for dt in [0.07, *([None] if TABLEAUS[method].order == 5 else [])]:
        loss, x = scalar_problem(method, dt)
        x.requires_grad_()
        (got,) = torch.autograd.grad(loss(x), x)
        h = 1e-3 if dt is None else 1e-5
        with torch.no_grad():
            for i, unit in enumerate(torch.eye(len(x))):
                near, far = (loss(x + k * h * unit) - loss(x - k * h * unit) for k in (1, 2))
                expected = (8 * near - far) / (12 * h)  # of fourth order
                assert float(got[i]) == pytest.approx(float(expected), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_time_gradient_of_an_output_is_the_field(method):
    """dy(t1)/dt1 = f(t1, y1), also where an output coincides with the end of a step."""
    y0 = torch.tensor(Y0)
    size = 0.02 if TABLEAUS[method].order < 5 and method not in STIFF else 0.1
    for dt in [size, *([None] if TABLEAUS[method].adaptive else [])]:
        t = torch.tensor([0.0, 1.0, 2.0], requires_grad=True)
        y = sciflow.integrate(
            smooth, y0, t, method=method, dt=dt, rtol=tight(method), atol=tight(method)
        ).y
        tolerance = {1: 0.1, 2: 5e-3}.get(TABLEAUS[method].order, 1e-4)
        for row in (1, 2):
            (got,) = torch.autograd.grad(y[row].sum(), t, retain_graph=True)
            expected = float(smooth(t[row], y[row]).sum().detach())
            assert float(got[row]) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("method", METHODS)
def test_second_derivatives(method):
    """y' = a y: d2 y(1) / da2 = y0 exp(a)."""
    a = torch.tensor(0.3, requires_grad=True)
    dt = None if TABLEAUS[method].adaptive else 1 / 256
    y = sciflow.integrate(
        lambda t, y: a * y, torch.ones(1, 1), torch.tensor([0.0, 1.0]), method=method, dt=dt,
        rtol=tight(method), atol=tight(method),
    ).y[-1]  # fmt: skip
    (first,) = torch.autograd.grad(y.sum(), a, create_graph=True)
    (second,) = torch.autograd.grad(first, a)
    tolerance = {1: 1e-2, 2: 1e-4, 3: 1e-3}.get(TABLEAUS[method].order, 100 * tight(method))
    for value in (y, first, second):
        assert float(value) == pytest.approx(math.exp(0.3), abs=tolerance)


# ---------------------------------------------------------------------------------------- SDE

STRONG = {"euler_maruyama": 0.5, "heun_strat": 1.0, "reversible_heun": 1.0}
ANY_NOISE = sorted(STRONG)


def amplitude(method, a=1.0):
    """A diffusion that the method allows."""
    if SDE_METHODS[method].additive:
        return lambda t, y: a * torch.cos(t)
    return lambda t, y: a * torch.cos(y)


MU, SIGMA = 0.3, 0.8


def gbm_errors(method, seed, n=1000, halvings=range(3, 8)):
    """Mean absolute end error on geometric Brownian motion, along one path per sample."""
    t = torch.tensor([0.0, 1.0])
    field = sciflow.SDE(lambda t, y: MU * y, lambda t, y: SIGMA * y)
    w = Brownian(seed, (n, 1))(0.0, 1.0)
    ito = method == "euler_maruyama"
    exact = torch.exp((MU - (0.5 * SIGMA**2 if ito else 0.0)) + SIGMA * w)
    errors = []
    for k in halvings:
        y = sciflow.integrate(field, torch.ones(n, 1), t, method=method, dt=2.0**-k, seed=seed).y[
            -1
        ]
        errors.append((y - exact).abs().mean().item())
    return errors


@pytest.mark.parametrize("method", ANY_NOISE)
def test_strong_order(method):
    orders = np.array([slope_of(gbm_errors(method, seed)) for seed in range(3)])
    standard_error = orders.std(ddof=1) / math.sqrt(len(orders))
    assert abs(orders.mean() - STRONG[method]) < 0.1 + 3 * standard_error


@pytest.mark.parametrize("method", sorted(SDE_METHODS))
def test_strong_order_of_additive_noise(method):
    """An Ornstein-Uhlenbeck process against its stochastic integral along the same path.

    ``y(1) = y0 exp(-a) + s W(1) - a s int exp(-a (1 - s)) W(s) ds``, the integral over fine cells
    from the mean of W in each.
    """
    rate, noise, n, m = 2.0, 3.0, 400, 2**11
    field, y0 = sciflow.SDE(lambda t, y: -rate * y, noise), torch.ones(n, 1)
    path = (BrownianWithArea if SDE_METHODS[method].area else Brownian)(0, (n, 1))
    w, integral = torch.zeros(n, 1), torch.zeros(n, 1)
    for i in range(m):
        mean = 0.0
        if SDE_METHODS[method].area:
            increment, area = path.increment_and_area(i / m, (i + 1) / m)
            mean = 0.5 * increment + area
        else:
            increment = path(i / m, (i + 1) / m)
            mean = 0.5 * increment
        integral += (w + mean) / m * math.exp(-rate * (1 - (i + 0.5) / m))
        w += increment
    exact = y0 * math.exp(-rate) + noise * (w - rate * integral)
    errors = []
    for k in (3, 4, 5, 6, 7):
        t = torch.tensor([0.0, 1.0])
        y = sciflow.integrate(field, y0, t, method=method, dt=2.0**-k, seed=0).y[-1]
        errors.append(float((y - exact).abs().mean()))
    if method == "sra1":
        # the terms that make it 3/2 vanish for a linear drift: see the next test
        assert slope_of(errors[1:]) > 1.8 and errors[-1] < 1e-3
    else:
        assert slope_of(errors[1:]) == pytest.approx(1.0, abs=0.2)


def test_strong_order_of_sra1():
    """A nonlinear drift; that the limit is the right one was shown by the test before."""
    field = sciflow.SDE(lambda t, y: 4 * torch.sin(2 * y), lambda t, y: 1 + 0.5 * torch.cos(t))
    y0, t = torch.ones(200, 1), torch.tensor([0.0, 1.0])

    def solve(k):
        return sciflow.integrate(field, y0, t, method="sra1", dt=2.0**-k, seed=0).y[-1]

    fine = solve(12)
    errors = [float((solve(k) - fine).abs().mean()) for k in (6, 7, 8, 9)]
    assert slope_of(errors) == pytest.approx(1.5, abs=0.2)


@pytest.mark.parametrize("method", sorted(SDE_METHODS))
def test_weak_ornstein_uhlenbeck(method):
    """Mean and variance, with the closed-form bias of Euler's rule taken into account."""
    rate, noise, n, k = 1.5, 0.7, 20_000, 7
    y = sciflow.integrate(
        sciflow.SDE(lambda t, y: -rate * y, noise), torch.full((n, 1), 2.0),
        torch.tensor([0.0, 1.0]), method=method, dt=2.0**-k, seed=5,
    ).y[-1]  # fmt: skip
    mean, variance = 2 * math.exp(-rate), noise**2 * (1 - math.exp(-2 * rate)) / (2 * rate)
    bias = 2 * rate * 2.0**-k  # relative weak error of a first-order method
    assert abs(float(y.mean()) - mean) < 4 * math.sqrt(variance / n) + bias * mean
    assert abs(float(y.var()) - variance) < 4 * variance * math.sqrt(2 / n) + bias * variance


@pytest.mark.parametrize("method", sorted(SDE_METHODS))
def test_sde_checkpoint_equals_direct(method):
    a = torch.tensor(0.4, requires_grad=True)
    y0 = torch.ones(5, 2, requires_grad=True)
    field = sciflow.SDE(lambda t, y: -a * y, amplitude(method, a))
    results = []
    for grad in ("direct", "checkpoint"):
        t = torch.tensor([0.0, 0.4, 1.0])
        y = sciflow.integrate(field, y0, t, method=method, dt=0.05, seed=3, grad=grad).y
        results.append([y, *torch.autograd.grad(y.square().sum(), [a, y0])])
    for x, z in zip(*results, strict=True):
        torch.testing.assert_close(x, z, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", sorted(SDE_METHODS))
def test_sde_gradient_against_central_differences(method):
    def loss(a):
        field = sciflow.SDE(lambda t, y: -a * y, amplitude(method, a))
        t = torch.tensor([0.0, 1.0])
        return (
            sciflow.integrate(field, torch.ones(5, 2), t, method=method, dt=0.05, seed=3)
            .y[-1]
            .sum()
        )

    a = torch.tensor(0.4, requires_grad=True)
    (got,) = torch.autograd.grad(loss(a), a)
    with torch.no_grad():
        expected = (loss(a + 1e-5) - loss(a - 1e-5)) / 2e-5
    assert float(got) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("method", ["euler_maruyama", "heun_strat"])
def test_sde_without_noise_is_the_ode(method):
    ode = {"euler_maruyama": "euler", "heun_strat": "heun"}[method]
    y0, t = torch.tensor(Y0), torch.tensor([0.0, 0.5, 2.0])
    for span, diffusion in itertools.product((t, t.flip(0)), (0, 0.0, lambda t, y: 0 * y)):
        stochastic = sciflow.integrate(
            sciflow.SDE(smooth, diffusion), y0, span, method=method, dt=1 / 16, seed=0
        )
        plain = sciflow.integrate(smooth, y0, span, method=ode, dt=1 / 16)
        torch.testing.assert_close(stochastic.y, plain.y, rtol=0, atol=1e-13)
        assert stochastic.stats.nfe == plain.stats.nfe

"""The stiff method on the classical problems, against scipy's Radau IIA."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import sciflow
from sciflow import IntegrationError


def robertson(t, y):
    """Chemical kinetics with rates of 0.04, 1e4 and 3e7."""
    a, b, c = y.unbind(-1)
    slow, mid, fast = 0.04 * a, 1e4 * b * c, 3e7 * b**2
    return torch.stack([mid - slow, slow - mid - fast, fast], -1)


def van_der_pol(t, y):
    """y = (x, v, mu)."""
    x, v, mu = y.unbind(-1)
    return torch.stack([v, mu * (1 - x**2) * v - x, 0 * mu], -1)


def radau(field, y0, t):
    """Row by row, with a Jacobian by differences."""
    rows = []
    for row in y0:
        solution = solve_ivp(
            lambda s, y: field(s, torch.from_numpy(y)).numpy(), (float(t[0]), float(t[-1])),
            row.numpy(), method="Radau", t_eval=t.numpy(), rtol=1e-9, atol=1e-12,
        )  # fmt: skip
        rows.append(torch.from_numpy(solution.y.T))
    return torch.stack(rows, 1)


@pytest.mark.parametrize("batch", ["joint", "each"])
def test_robertson(batch):
    y0 = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.0, 0.5]])
    t = torch.tensor([0.0, 0.4, 40.0, 4e3])
    exact = radau(robertson, y0, t)
    with torch.no_grad():
        solution = sciflow.integrate(
            robertson, y0, t, method="rodas4", rtol=1e-5, atol=1e-10, batch=batch
        )
    torch.testing.assert_close(solution.y, exact, rtol=2e-4, atol=1e-8)
    torch.testing.assert_close(solution.y.sum(-1), torch.ones(4, 2), rtol=0, atol=1e-10)
    assert int(torch.as_tensor(solution.stats.steps).max()) < 100


def test_van_der_pol_of_different_stiffness():
    """Every sample its own relaxation oscillation, mu = 1 to 1000."""
    y0 = torch.tensor([[2.0, 0.0, 1.0], [2.0, 0.0, 30.0], [2.0, 0.0, 1000.0]])
    t = torch.tensor([0.0, 1.0, 4.0])
    exact = radau(van_der_pol, y0, t)

    def solve(y0):
        with torch.no_grad():
            return sciflow.integrate(
                van_der_pol, y0, t, method="rodas4", rtol=1e-5, atol=1e-7, batch="each"
            )

    solution, alone = solve(y0), solve(y0[:1])
    torch.testing.assert_close(solution.y, exact, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(solution.y[:, :1], alone.y, rtol=0, atol=1e-12)
    assert int(solution.stats.nfe[0]) == int(alone.stats.nfe[0])


def test_steps_do_not_feel_the_stiffness():
    """A slow solution with an attracting fast direction (Prothero and Robinson)."""
    costs = []
    for rate in (1e2, 1e5, 1e8):

        def field(t, y, rate=rate):
            return -rate * (y - torch.cos(t)) - torch.sin(t)

        with torch.no_grad():
            solution = sciflow.integrate(
                field, torch.ones(2, 1), torch.tensor([0.0, 5.0]), method="rodas4",
                rtol=1e-6, atol=1e-6,
            )  # fmt: skip
        assert float((solution.y[-1] - math.cos(5)).abs().max()) < 1e-5
        costs.append(solution.stats.steps)
    assert costs[2] <= costs[0] and costs[2] < 60


def test_l_stable():
    """One enormous step kills a fast mode."""
    y = sciflow.integrate(
        lambda t, y: -1e12 * y, torch.ones(2, 3), torch.tensor([0.0, 1.0]), method="rodas4", dt=1.0
    ).y[-1]
    assert y.abs().max() < 1e-10


def test_gradient_through_a_stiff_solve():
    """y' = -k (y - 1) has y(t) = 1 + (y0 - 1) exp(-k t), also for a k that makes it stiff."""
    k = torch.tensor([0.5, 300.0], requires_grad=True)
    y0 = torch.tensor([[2.0, 3.0]], requires_grad=True)
    y = sciflow.integrate(
        lambda t, y: -k * (y - 1), y0, torch.tensor([0.0, 1.0]), method="rodas4",
        rtol=1e-7, atol=1e-9,
    ).y[-1]  # fmt: skip
    to_k, to_y = torch.autograd.grad(y.sum(), [k, y0])
    torch.testing.assert_close(to_k, torch.tensor([-math.exp(-0.5), 0.0]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(to_y, torch.tensor([[math.exp(-0.5), 0.0]]), rtol=1e-5, atol=1e-6)


def test_no_graph_where_nobody_asked_for_one():
    y = sciflow.integrate(
        robertson, torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([0.0, 1.0]), method="rodas4"
    ).y
    assert not y.requires_grad


# --------------------------------------------------------------------------------- delegation


@pytest.mark.parametrize("name", ["RK45", "DOP853", "Radau", "BDF", "LSODA"])
def test_delegation_to_scipy(name):
    y0, t = torch.tensor([[1.0, 0.0, 2.0], [0.3, 1.0, 5.0]]), torch.tensor([0.0, 0.7, 2.0])
    solution = sciflow.integrate(van_der_pol, y0, t, method=f"scipy:{name}", rtol=1e-6, atol=1e-8)
    expected = solve_ivp(
        lambda s, y: van_der_pol(s, torch.from_numpy(y).reshape(2, 3)).numpy().ravel(),
        (0.0, 2.0), y0.numpy().ravel(), method=name, t_eval=[0.0, 0.7, 2.0], rtol=1e-6, atol=1e-8,
    )  # fmt: skip
    np.testing.assert_allclose(solution.y.reshape(3, 6).numpy(), expected.y.T, rtol=0, atol=1e-12)
    assert solution.stats.nfe >= expected.nfev
    pair = sciflow.integrate(
        lambda t, y: {"a": 1j * y["a"], "b": -y["b"]},
        {"a": torch.ones(2, 1, dtype=torch.complex128), "b": torch.ones(2)},
        t, method="scipy:DOP853", rtol=1e-9, atol=1e-9,
    ).y  # fmt: skip
    torch.testing.assert_close(pair["a"][:, 0, 0], torch.exp(1j * t), rtol=0, atol=1e-7)
    torch.testing.assert_close(pair["b"][:, 0], torch.exp(-t), rtol=0, atol=1e-7)


def test_scipy_gives_no_gradients_and_says_so(unchecked):
    a = torch.tensor(1.0, requires_grad=True)
    t = torch.tensor([0.0, 1.0])
    for field, y0 in ((lambda t, y: -a * y, torch.ones(2, 1)), (lambda t, y: -y, a.reshape(1, 1))):
        with pytest.raises(ValueError, match="scipy gives no gradients"):
            sciflow.integrate(field, y0, t, method="scipy:RK45")
        with torch.no_grad():
            y = sciflow.integrate(field, y0, t, method="scipy:RK45").y[-1]
        assert float(y[0, 0]) == pytest.approx(math.exp(-1), rel=1e-3)
    with pytest.raises(ValueError, match="method of scipy must be one of .*'Radau'.*got 'best'"):
        sciflow.integrate(lambda t, y: -y, torch.ones(2, 1), t, method="scipy:best")
    with pytest.raises(IntegrationError, match="not reach|underflow"):
        sciflow.integrate(lambda t, y: y**2, torch.ones(1, 1), 2 * t, method="scipy:RK45")

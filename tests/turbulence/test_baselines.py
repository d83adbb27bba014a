"""Baselines against closed forms and solvers of their own."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from sciflow.turbulence import DecayRun
from sciflow.turbulence.baselines import (
    calibrated,
    fit_recurrent,
    k_epsilon,
    low_reynolds_k_epsilon,
    oracle,
    recurrent_forecast,
    relative_l2,
)


def run_of(C2, k0=1.5, eps0=1.0, nu=0.02, name=""):
    t = torch.linspace(0, 12, 80, dtype=torch.float64)
    k, eps = k_epsilon(k0, eps0, t, C2)
    return DecayRun(t=t, k=k, eps=eps, nu=nu, name=name)


def test_k_epsilon_solves_its_equations():
    t = torch.linspace(1.0, 9.0, 30, dtype=torch.float64)
    k, eps = k_epsilon(2.0, 0.7, t, 1.8)
    field = lambda _, y: [-y[1], -1.8 * y[1] ** 2 / y[0]]
    exact = solve_ivp(field, (1.0, 9.0), [2.0, 0.7], t_eval=t.numpy(), rtol=1e-10, atol=1e-12).y
    np.testing.assert_allclose(k, exact[0], rtol=1e-7)
    np.testing.assert_allclose(eps, exact[1], rtol=1e-7)
    with pytest.raises(ValueError, match="C2 must be above 1"):
        k_epsilon(1.0, 1.0, t, 1.0)


def test_low_reynolds_model():
    t = torch.linspace(0.0, 5.0, 20, dtype=torch.float64)
    # At large Reynolds numbers it is the plain model, at small ones C2 is less by .3.
    far = low_reynolds_k_epsilon(1.0, 1.0, 1e-5, t)
    torch.testing.assert_close(far[0], k_epsilon(1.0, 1.0, t)[0], rtol=1e-6, atol=0.0)
    near = low_reynolds_k_epsilon(1.0, 1.0, 1e3, t)
    torch.testing.assert_close(near[0], k_epsilon(1.0, 1.0, t, 0.7 * 1.92)[0], rtol=1e-4, atol=0.0)


def test_constants_are_found():
    assert oracle(run_of(1.7)) == pytest.approx(1.7, abs=1e-3)
    both = calibrated([run_of(1.6), run_of(1.8)])
    assert 1.6 < both < 1.8


def test_relative_error():
    t = torch.linspace(0.0, 1.0, 1001, dtype=torch.float64)
    # ||t - t^2|| / ||t||: sqrt(1/30) / sqrt(1/3)
    assert relative_l2(t, t**2, t) == pytest.approx(math.sqrt(0.1), rel=1e-5)


def test_recurrent_network_learns_a_power_law():
    runs = [run_of(C2, eps0=e) for C2 in (1.5,) for e in (0.5, 1.0, 2.0)]
    model = fit_recurrent(runs, steps=60, progress=False)
    target = run_of(1.5, eps0=1.3)
    k, eps = recurrent_forecast(model, target, target.t)
    plain = k_epsilon(1.5, 1.3, target.t)[1]
    assert relative_l2(target.t, eps, target.eps) < 0.5 * relative_l2(target.t, plain, target.eps)
    assert relative_l2(target.t, k, target.k) < 0.05

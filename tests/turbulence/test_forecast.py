"""Forecasts: symmetries, reach, gradients, and what they refuse."""

import math

import numpy as np
import pytest
import torch

from sciflow import DataError, turbulence
from sciflow.turbulence.baselines import k_epsilon
from sciflow.turbulence.features import of_spectrum
from sciflow.turbulence.forecaster import Calibration, Forecaster
from sciflow.turbulence.knowledge import knowledge
from sciflow.turbulence.model import DecayODE, tau_grid


@pytest.fixture(scope="module")
def forecaster():
    return turbulence.pretrained()


@pytest.fixture(scope="module")
def run():
    return turbulence.decays("test")[0]


ENCODERS = ("bare", "skewness", "spectrum", "both", "history")


@pytest.mark.parametrize("encoder", ENCODERS)
def test_scaling_of_length_and_velocity(forecaster, run, encoder):
    i, a, b = 14, 3.7, 0.21  # lengths by a, times by b
    t = run.t[i:]
    known = knowledge(run, i, encoder)
    one = forecaster.forecast(run.k[i], run.eps[i], run.nu, t, **known)
    other = dict(known) | {"box": run.box * a, "k_max": run.k_max / a}
    if "palinstrophy" in other:
        other["palinstrophy"] = other["palinstrophy"] / (a * b) ** 2
    if "spectrum" in other:
        kappa, E = other["spectrum"]
        other["spectrum"] = (kappa / a, E * a**3 / b**2)
    if "history" in other:
        s, k, eps = other["history"]
        other["history"] = (s * b, k * (a / b) ** 2, eps * a**2 / b**3)
    two = forecaster.forecast(
        run.k[i] * (a / b) ** 2, run.eps[i] * a**2 / b**3, run.nu * a**2 / b, t * b, **other
    )
    torch.testing.assert_close(two.k, one.k * (a / b) ** 2, rtol=1e-6, atol=0.0)
    torch.testing.assert_close(two.eps, one.eps * a**2 / b**3, rtol=1e-6, atol=0.0)
    torch.testing.assert_close(two.eps_high, one.eps_high * a**2 / b**3, rtol=1e-6, atol=0.0)


def test_time_shift_and_resampling(forecaster, run):
    known = knowledge(run, 0, "both")
    one = forecaster.forecast(run.k[0], run.eps[0], run.nu, run.t, **known)
    later = forecaster.forecast(run.k[0], run.eps[0], run.nu, run.t + 5.0, **known)
    torch.testing.assert_close(later.eps, one.eps, rtol=1e-9, atol=0.0)
    few = forecaster.forecast(run.k[0], run.eps[0], run.nu, run.t[::10], **known)
    torch.testing.assert_close(few.eps, one.eps[::10], rtol=1e-3, atol=0.0)
    torch.testing.assert_close(few.k, one.k[::10], rtol=1e-3, atol=0.0)


def test_energy_and_dissipation_agree(forecaster, run):
    t = torch.linspace(0.0, float(run.t[-1]), 2001, dtype=torch.float64)
    found = forecaster.forecast(run.k[0], run.eps[0], run.nu, t, **knowledge(run, 0, "both"))
    slope = torch.gradient(found.k, spacing=(t,), edge_order=2)[0]
    # Members are averaged one by one, so the means agree to second order in their spread.
    torch.testing.assert_close(-slope[5:], found.eps[5:], rtol=0.02, atol=0.0)
    assert (found.k_low < found.k)[1:].all() and (found.k < found.k_high)[1:].all()
    assert (found.k.diff() < 0).all()


def test_many_at_once_as_one_by_one(forecaster):
    runs = turbulence.decays("test")[:3]
    k, eps = (torch.stack([getattr(r, n)[0] for r in runs]) for n in ("k", "eps"))
    nu = torch.tensor([r.nu for r in runs], dtype=torch.float64)
    t = torch.linspace(0.0, 5.0, 9, dtype=torch.float64)
    both = forecaster.forecast(k, eps, nu, t, box=2 * math.pi)
    assert both.k.shape == (9, 3)
    for i in range(3):
        one = forecaster.forecast(k[i], eps[i], nu[i], t, box=2 * math.pi)
        torch.testing.assert_close(both.eps[:, i], one.eps, rtol=1e-3, atol=0.0)
    own = forecaster.forecast(k, eps, nu, torch.stack([t, t + 1, 2 * t], 1), box=2 * math.pi)
    torch.testing.assert_close(own.eps[:, 1], both.eps[:, 1], rtol=1e-6, atol=0.0)


def test_long_horizon(forecaster):
    # To tau = 12 the energy falls by 160,000; what is left is a power law of a known range.
    for reynolds in (30.0, 1e3, 1e5):
        k0, eps0 = 1.0, 1.0
        t = torch.cat([torch.zeros(1), torch.logspace(-1, 4.2, 60)]).double()
        found = forecaster.forecast(k0, eps0, 1 / reynolds, t)
        for x in (found.k, found.eps, found.k_high, found.eps_low):
            assert torch.isfinite(x).all()
        assert float((found.k[0] / found.k[-1]).log()) > 8
        assert 1.3 < float(found.C2[-1]) < 2.1
    with pytest.raises(DataError, match="beyond the fall"):
        forecaster.forecast(1.0, 1.0, 1e-3, [0.0, 1e9])


def test_gradients_reach_the_start(forecaster):
    t = torch.linspace(0.0, 3.0, 5, dtype=torch.float64)

    def last(k0, eps0, nu):
        found = forecaster.forecast(k0, eps0, nu, t)
        return found.eps[-1].log()

    start = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (1.5, 1.2, 0.02)]
    grads = torch.autograd.grad(last(*start), start)
    for i, grad in enumerate(grads):
        h = 1e-5 * float(start[i])
        ends = []
        for sign in (1, -1):
            moved = [x.detach().clone() for x in start]
            moved[i] += sign * h
            ends.append(float(last(*moved)))
        assert float(grad) == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-4, abs=1e-6)


def test_what_is_given_decides(forecaster, run):
    t = run.t[:5]
    known = knowledge(run, 0, "both")
    known.pop("encoder")
    assert forecaster.forecast(run.k[0], run.eps[0], run.nu, t, **known).encoder == "both"
    assert forecaster.forecast(run.k[0], run.eps[0], run.nu, t).encoder == "bare"
    chosen = forecaster.forecast(run.k[0], run.eps[0], run.nu, t, encoder="spectrum", **known)
    assert chosen.encoder == "spectrum"
    assert float(chosen.eps[-1]) != float(forecaster.forecast(
        run.k[0], run.eps[0], run.nu, t, **known).eps[-1])  # fmt: skip
    assert float(chosen.Re_lambda[0]) == pytest.approx(float(run.Re_lambda[0]))


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"k0": -1.0}, ValueError, "k0 must be positive"),
        ({"eps0": math.nan}, ValueError, "eps0 must be positive"),
        ({"nu": [0.1, 0.2], "k0": [1.0, 1.0, 1.0]}, ValueError, "must agree in number"),
        ({"t": [0.0, 0.0, 1.0]}, ValueError, "t must be finite and increase"),
        ({"t": np.zeros((3, 2))}, ValueError, r"t must be \(T,\) or \(T, 1\)"),
        ({"skewness": 0.5}, ValueError, "skewness and palinstrophy belong together"),
        ({"skewness": 50.0, "palinstrophy": 1.0}, ValueError, "skewness must be a number"),
        ({"skewness": 0.5, "palinstrophy": -1.0}, ValueError, "palinstrophy must be positive"),
        ({"encoder": "skewness"}, ValueError, "needs what was not given; there is bare"),
        ({"encoder": "magic"}, ValueError, "encoder must be one of"),
        ({"box": -2.0}, ValueError, "box must be positive"),
        ({"k_max": [1.0, 2.0]}, ValueError, "k_max must be positive, one number"),
        (
            {"spectrum": (np.arange(1.0, 9.0), np.ones(7))},
            ValueError,
            "spectrum must be .kappa, E.",
        ),
        ({"spectrum": (np.arange(1.0, 9.0), -np.ones(8))}, ValueError, "E must be finite"),
        ({"spectrum": (np.arange(0.0, 8.0), np.ones(8))}, ValueError, "kappa must be positive"),
        ({"spectrum": (np.arange(1.0, 9.0), np.ones(8))}, DataError, "differs from k0 by 600%"),
        ({"history": ([0.0, 1.0], [2.0, 1.5], [1.0, 0.8])}, ValueError, "must end at the start"),
        ({"history": ([0.0, 0.01], [1.01, 1.0], [1.0, 1.0])}, ValueError, "must span a fall"),
    ],
)
def test_refused(unchecked, forecaster, change, error, match):
    usual = {"k0": 1.0, "eps0": 1.0, "nu": 0.01, "t": [0.0, 1.0]}
    with pytest.raises(error, match=match):
        forecaster.forecast(**usual | change)


def test_quantiles_of_a_spectrum():
    # Of E ~ kappa^4 exp(-2 kappa^2) the median of the energy has a known place.
    from scipy.stats import gamma

    kappa = torch.linspace(0.01, 6.0, 4000, dtype=torch.float64)
    E = kappa**4 * torch.exp(-2 * kappa**2)
    one = torch.ones(1, dtype=torch.float64)
    found = of_spectrum(one, one, one, kappa, E[None])[0]
    # s = 2 kappa^2 is a gamma variable of shape 5/2; of the dissipation 7/2.
    energy = np.sqrt(gamma.ppf([0.02, 0.5, 0.93], 2.5) / 2)
    np.testing.assert_allclose(np.exp(1.5 * found[[0, 4, 7]] + 1.5), energy, rtol=2e-3)
    loss = np.sqrt(gamma.ppf([0.05, 0.95], 3.5) / 2)
    np.testing.assert_allclose(np.exp(found[[8, 14]] - 1.5), loss, rtol=2e-3)


def test_without_learned_parts_it_is_a_k_epsilon_model():
    model = DecayODE(members=2, memory=0, width=8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for p in (*model.rates.weights, *model.rates.biases):
            p.zero_()
    unit = dict.fromkeys(ENCODERS, (1.0, 1.0))
    calibration = Calibration(unit, (0.0, 10.0), unit)
    plain = Forecaster(model, calibration)
    t = torch.linspace(0.0, 20.0, 30, dtype=torch.float64)
    found = plain.forecast(1.0, 1.0, 1e-9, t)
    C2 = 1.6 + 0.4 / (1 + math.exp(-0.3))
    k, eps = k_epsilon(1.0, 1.0, t, C2)
    torch.testing.assert_close(found.eps, eps, rtol=5e-3, atol=0.0)
    torch.testing.assert_close(found.k, k, rtol=5e-3, atol=0.0)


def test_files(forecaster, run, tmp_path):
    again = turbulence.load(forecaster.save(tmp_path / "f.safetensors"))
    args = (run.k[0], run.eps[0], run.nu, run.t)
    one, two = (f.forecast(*args) for f in (forecaster, again))
    assert torch.equal(one.eps, two.eps) and torch.equal(one.eps_low, two.eps_low)


def test_grid_reaches_the_end():
    tau = tau_grid(4.0)
    assert float(tau[0]) == 0 and float(tau[-1]) >= 4.0 and (tau.diff() > 0).all()

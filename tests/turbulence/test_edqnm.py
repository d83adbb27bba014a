"""The closure against quadrature of its own integrals, known exponents and conservation."""

import math

import numpy as np
import pytest
import torch

from sciflow.turbulence import Closure, PeakedSpectrum, closure
from sciflow.turbulence.edqnm import DAMPING, _Shells
from sciflow.turbulence.edqnm_triads import triads


def energy(k):
    return k**4 * np.exp(-2 * k**2) + 0.3 * k**2 * np.exp(-2 * k)


def quadrature_of_transfer(k, nu, damping, cut=20.0):
    """T(k) of the quasi-normal closure, over p and the cosine between k and p."""
    line = np.geomspace(1e-4, cut, 40_001)
    f = line**2 * energy(line)
    strain = np.concatenate([[0], np.cumsum((f[1:] + f[:-1]) / 2 * np.diff(line))])

    def rate(x):
        return damping * np.sqrt(np.interp(x, line, strain)) + nu * x**2

    z, weight = np.polynomial.legendre.leggauss(64)
    x, part = np.polynomial.legendre.leggauss(12)
    edges, total = np.geomspace(1e-3, cut, 80), 0.0
    for a, b in zip(edges[:-1], edges[1:], strict=True):
        for p, w in zip((a + b) / 2 + (b - a) / 2 * x, (b - a) / 2 * part, strict=True):
            q = np.sqrt(k * k + p * p - 2 * k * p * z)
            cos_k = (p**2 + q**2 - k**2) / (2 * p * q)
            cos_p = (k**2 + q**2 - p**2) / (2 * k * q)
            kernel = (cos_k * cos_p + z**3) / q * energy(q) / (rate(k) + rate(p) + rate(q))
            exchange = k**2 * energy(p) - p**2 * energy(k)
            total += w * (kernel * k * p / q * weight).sum() * exchange
    return total


def test_transfer_against_quadrature():
    case = Closure(
        spectrum=lambda k: torch.from_numpy(energy(k.numpy())),
        nu=0.01, box=2 * math.pi / 0.01, k_max=20.0, gaussian=False,
    )  # fmt: skip
    shells = _Shells([case], 0.4)
    u = shells.start
    c = shells.exchange(u, torch.zeros(1, dtype=torch.float64))
    found = (shells.transfer(u, c) / shells.width)[:, 0]
    size = float(found.abs().max())
    for i in (12, 27, 30, 33, 36):
        wanted = quadrature_of_transfer(float(shells.kappa[i, 0]), 0.01, 0.4)
        assert float(found[i]) == pytest.approx(wanted, rel=0.06, abs=0.02 * size)


def test_exchange_conserves_energy():
    cases = [
        Closure(spectrum=PeakedSpectrum(peak=p), nu=1e-3, k_max=m, gaussian=g)
        for p, m, g in ((3.0, 100.0, True), (10.0, 60.0, False))
    ]
    shells = _Shells(cases, DAMPING)
    c = shells.exchange(shells.start, torch.full((2,), 0.3, dtype=torch.float64))
    T = shells.transfer(shells.start, c)
    assert (T.sum(0).abs() < 1e-13 * T.abs().sum(0)).all()


def test_triads_scale():
    # W of three shells further up is r^6 times as large.
    few, more = triads(12), triads(16)
    ratio = 2**0.25
    table = {
        (int(i), int(j), int(l)): float(w)
        for i, j, l, w in zip(more.i, more.j, more.l, more.weight, strict=True)
    }
    for i, j, l, w in zip(few.i, few.j, few.l, few.weight, strict=True):
        key = (int(i) + 3, int(j) + 3, int(l) + 3)
        assert table[key] == pytest.approx(float(w) * ratio**18, rel=1e-12)


@pytest.mark.parametrize(("slope", "C2"), [(2.0, 11 / 6), (4.0, 1.72)])
def test_exponents_of_free_decay(slope, C2):
    # Saffman's 6/5 for kappa^2; for kappa^4 the closure's own 1.38 (Lesieur, chapter 7).
    levels = torch.arange(0.0, 4.01, 0.1, dtype=torch.float64)
    spectrum = PeakedSpectrum(peak=60.0, slope=slope)
    run = closure([Closure(spectrum=spectrum, nu=3e-5, k_max=6000.0)], levels)[0]
    assert run.balance < 0.01
    found = float(run.C2[30:38].mean())
    assert found == pytest.approx(C2, abs=0.03)
    assert 0.45 < float(run.skewness[30]) < 0.56
    compensated = run.spectrum[30] * run.kappa ** (5 / 3) * run.eps[30] ** (-2 / 3)
    assert 1.3 < float(compensated.max()) < 1.9  # the Kolmogorov constant


def test_viscosity_alone():
    # Where nothing is exchanged every shell is exp(-2 nu kappa^2 t).
    spectrum = PeakedSpectrum(peak=3.0, k=1e-8)
    levels = torch.linspace(0, 1.0, 11, dtype=torch.float64)
    run = closure([Closure(spectrum=spectrum, nu=1.0, k_max=20.0)], levels)[0]
    wanted = run.spectrum[0] * torch.exp(-2 * run.kappa**2 * run.t[:, None])
    torch.testing.assert_close(
        run.spectrum, wanted, rtol=0.0, atol=2e-3 * float(run.spectrum[0].max())
    )


def test_cases_do_not_depend_on_their_batch():
    cases = [
        Closure(spectrum=PeakedSpectrum(peak=p), nu=0.01, k_max=m)
        for p, m in ((4.0, 40.0), (6.0, 90.0))
    ]
    levels = torch.linspace(0, 1.0, 11, dtype=torch.float64)
    both = closure(cases, levels)
    alone = closure(cases[:1], levels)[0]
    torch.testing.assert_close(both[0].eps, alone.eps, rtol=1e-4, atol=0.0)
    assert both[1].spectrum.shape == (11, cases[1].n_shells)


def test_refused(unchecked):
    with pytest.raises(ValueError, match="at least one decay"):
        closure([])
    with pytest.raises(ValueError, match="has no energy below"):
        closure([Closure(spectrum=lambda k: 0 * k, nu=0.1)])
    with pytest.raises(ValueError, match="fall must be one of gauss, exp, power"):
        PeakedSpectrum(peak=3.0, fall="flat")
    with pytest.raises(ValueError, match="peak must be positive"):
        PeakedSpectrum(peak=-3.0)

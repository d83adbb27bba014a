"""Chains: normal modes in closed form, partition functions by independent routes."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from sciflow.systems import FPUTBeta, HarmonicChain, Phi4


@pytest.mark.parametrize(
    ("n", "exact"),
    [(8, -13.6044042426), (16, -27.9894263905), (32, -57.0638123444), (64, -115.5369386153)],
)
def test_fixed_chain(n, exact):
    chain = HarmonicChain(n)
    k = torch.arange(1, n + 1)
    assert torch.allclose(chain.frequencies, 2 * torch.sin(k * math.pi / (2 * n + 2)), atol=1e-12)
    assert chain.free_energy(1.0) == pytest.approx(exact, abs=1e-9)
    shapes = math.sqrt(2 / (n + 1)) * torch.sin(k[:, None] * k * math.pi / (n + 1))
    assert torch.allclose((chain.modes * shapes).sum(1).abs(), torch.ones(n), atol=1e-9)


@pytest.mark.parametrize(
    ("beta", "log_z"), [(0.5, 79.24452212), (2.0, 34.88310257), (5.0, 5.56179915)]
)
def test_temperatures(beta, log_z):
    assert -beta * HarmonicChain(32).free_energy(1 / beta) == pytest.approx(log_z, abs=1e-7)


def test_periodic_and_free_chains():
    n = 9
    wave = 2 * torch.sin(torch.arange(n) * math.pi / n).abs()
    ring = HarmonicChain(n, boundary="periodic")
    # The square root of a rounding error is what a zero frequency comes to.
    assert torch.allclose(ring.frequencies, wave.sort().values, atol=1e-6)
    free = HarmonicChain(n, boundary="free").frequencies
    exact = 2 * torch.sin(torch.arange(n) * math.pi / (2 * n))
    assert torch.allclose(free, exact, atol=1e-6)
    pinned = HarmonicChain(n, boundary="periodic", pinning=0.7).frequencies
    assert torch.allclose(pinned, (wave.square() + 0.7).sort().values.sqrt(), atol=1e-12)


@pytest.mark.parametrize("boundary", ["fixed", "free", "periodic"])
def test_unequal_chain(boundary, generator):
    n = 4
    n_bonds = {"fixed": 5, "free": 3, "periodic": 4}[boundary]
    springs = tuple(torch.linspace(0.5, 2.0, n_bonds).tolist())
    chain = HarmonicChain(n, (1.0, 3.0, 0.5, 2.0), springs, boundary, 0.3)
    q = torch.randn(6, n, generator=generator)
    hessian = torch.autograd.functional.hessian(lambda x: chain.potential(x[None])[0], q[0])
    assert torch.allclose(hessian, chain.hessian, atol=1e-12)
    assert torch.allclose(chain.force(q), -q @ chain.hessian, atol=1e-12)
    normal = (q * chain.masses.sqrt()) @ chain.modes.T
    assert torch.allclose(chain.potential(q), (chain.frequencies * normal).square().sum(1) / 2)
    assert torch.allclose(chain.modes @ chain.modes.T, torch.eye(n), atol=1e-12)
    # F of independent oscillators is kT sum ln(omega / (2 pi kT)).
    kT = 1.7
    oscillators = kT * (chain.frequencies / (2 * math.pi * kT)).log().sum().item()
    assert chain.free_energy(kT) == pytest.approx(oscillators, rel=1e-12)
    count = 40_000
    x = chain.sample(count, kT, generator)
    cov = kT * torch.linalg.inv(chain.hessian)
    spread = (cov.diag()[:, None] * cov.diag() + cov.square()).sqrt() / math.sqrt(count)
    assert ((x.T @ x / count - cov).abs() < 4.5 * spread).all()
    assert (x.mean(0).abs() < 4.5 * (cov.diag() / count).sqrt()).all()
    p = chain.sample_momenta(count, kT, generator)
    ratio = p.square().mean(0) / (kT * chain.masses)
    assert ((ratio - 1).abs() < 4.5 * math.sqrt(2 / count)).all()


def characteristic(chain, kT):
    """-kT ln of the density that n + 1 independent bonds sum to zero, by Fourier transform."""
    b = np.linspace(-12, 12, 4001)
    weight = np.exp(-(chain.spring * b**2 / 2 + chain.beta * b**4 / 4) / kT) * (b[1] - b[0])
    wave = np.linspace(-30, 30, 3001)
    transform = np.array([np.sum(weight * np.cos(k * b)) for k in wave])
    integral = np.sum(transform ** (chain.n + 1)) * (wave[1] - wave[0]) / (2 * np.pi)
    return -kT * math.log(integral)


@pytest.mark.parametrize(
    ("chain", "kT"),
    [(FPUTBeta(), 1.0), (FPUTBeta(5, 2.0, 0.3), 3.0), (FPUTBeta(1, 1.0, 4.0), 0.5)],
)
def test_fput_against_the_sum_of_independent_bonds(chain, kT):
    exact = characteristic(chain, kT)
    assert chain.configurational_free_energy(kT) == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize("boundary", ["fixed", "free", "periodic"])
@pytest.mark.parametrize("kT", [0.3, 1.0, 4.0])
def test_harmonic_limits(boundary, kT):
    masses = tuple(torch.linspace(1.0, 2.0, 7).tolist())
    exact = HarmonicChain(7, masses, 1.5, boundary, 0.8).free_energy(kT)
    phi4 = Phi4(7, 1.5, 0.8, 0.0, masses, boundary)
    assert phi4.free_energy(kT) == pytest.approx(exact, abs=1e-9)
    assert FPUTBeta(7, 1.5, 0.0, masses).free_energy(kT) == pytest.approx(
        HarmonicChain(7, masses, 1.5).free_energy(kT), abs=1e-9
    )


@pytest.mark.parametrize("boundary", ["fixed", "free", "periodic"])
@pytest.mark.parametrize("quadratic", [1.0, -2.0])
def test_phi4_against_brute_force(boundary, quadratic):
    """Three sites on a product grid, in the potential's own words."""
    chain, kT = Phi4(3, 0.7, quadratic, 1.0, boundary=boundary), 0.8
    axis = torch.linspace(-5, 5, 101)
    energy = chain.potential(torch.cartesian_prod(axis, axis, axis))
    exact = -kT * (torch.logsumexp(-energy / kT, 0).item() + 3 * math.log(0.1))
    assert chain.configurational_free_energy(kT) == pytest.approx(exact, abs=1e-10)


def test_weakly_coupled_sites_are_independent():
    chain = Phi4(6, 1e-9, -2.0, 1.0, boundary="free")
    one = quad(lambda x: math.exp(x * x - x**4 / 4), -8, 8, epsabs=1e-13)[0]
    assert chain.configurational_free_energy(1.0) == pytest.approx(-6 * math.log(one), abs=1e-7)


@pytest.mark.parametrize("system", [FPUTBeta(6), Phi4(6), Phi4(6, boundary="periodic")])
def test_forces_and_symmetries(system, generator):
    q = torch.randn(3, 6, generator=generator)
    step = 1e-6 * torch.eye(6)
    for i in range(3):
        slope = system.potential(q[i] + step) - system.potential(q[i] - step)
        assert torch.allclose(system.force(q)[i], -slope / 2e-6, atol=1e-7)
    assert torch.allclose(system.potential(-q.flip(1)), system.potential(q))
    assert system.potential(torch.zeros(1, 6)).item() == 0


def test_mean_energy_of_a_pure_quartic():
    """<V> = d(F / kT) / d(1 / kT), and it is kT / 4 for each quartic site."""
    chain, h = Phi4(4, 1e-12, 0.0, 1.0, boundary="free"), 1e-4
    reduced = [(1 + s) * chain.configurational_free_energy(1 / (1 + s)) for s in (h, -h)]
    assert (reduced[0] - reduced[1]) / (2 * h) == pytest.approx(1.0, abs=1e-5)


def test_refused(unchecked):
    with pytest.raises(ValueError, match="mass has 2 entries; expected a number or 3 entries"):
        HarmonicChain(3, (1.0, 2.0))
    with pytest.raises(ValueError, match="spring has 3 entries; expected a number or 4"):
        HarmonicChain(3, spring=(1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="spring must be positive"):
        HarmonicChain(3, spring=-1.0)
    with pytest.raises(ValueError, match="boundary must be one of fixed, free, periodic"):
        HarmonicChain(3, boundary="open")
    with pytest.raises(ValueError, match="n must be at least 3 where boundary='periodic'; got 2"):
        Phi4(2, boundary="periodic")
    with pytest.raises(ValueError, match="quadratic is -1.0 and quartic 0"):
        Phi4(3, quadratic=-1.0, quartic=0.0)
    loose = HarmonicChain(3, boundary="free")
    for act in (
        lambda: loose.free_energy(1.0),
        lambda: loose.sample(1, 1.0, torch.Generator()),
    ):
        with pytest.raises(ValueError, match="has a mode of frequency zero"):
            act()
    with pytest.raises(ValueError, match="kT must be positive"):
        FPUTBeta(3).free_energy(0.0)
    with pytest.raises(ValueError, match=r"q has shape \(2, 4\); expected \(B, 3\)"):
        FPUTBeta(3).potential(torch.zeros(2, 4))

"""Hybrid Monte Carlo chains and the exact four-particle cluster, each against other truths."""

import math

import pytest
import torch

from sciflow.metrics import chain_mean, r_hat
from sciflow.systems import (
    DoubleWell,
    DoubleWellParticles,
    MeanFree,
    hmc_chains,
    planar_cluster,
)


def test_chains_of_a_double_well(generator):
    """Both populations and the energy, against quadrature; the chains start far out."""
    well, kT = DoubleWell(barrier=0.7, tilt=0.5), 0.8
    start = 3 * torch.randn(300, well.n_dim, generator=generator)
    chains = hmc_chains(well, start, 40, generator, kT, 0.25, 6, thin=4, warmup=60)
    assert chains.x.shape == (40, 300, well.n_dim)
    assert 0.8 < chains.acceptance < 1
    grid = torch.linspace(-4, 4, 4001)
    q = torch.zeros(len(grid), well.n_dim)
    q[:, 0] = grid
    weight = torch.exp(-well.potential(q) / kT)
    right = chain_mean((chains.x[..., 0] > 0).double())
    assert abs(right.value - float(weight[grid > 0].sum() / weight.sum())) < 5 * right.error
    assert right.error < 0.03


def test_a_bad_start_is_forgiven(generator):
    """At twenty widths a full step is never accepted; the small steps of the warm-up are."""
    system = DoubleWellParticles()
    start = 2.5 * torch.randn(20, 8, generator=generator)
    assert system.potential(start).max() > 500
    chains = hmc_chains(system, start, 2, generator, step=0.1, n_leapfrog=5, warmup=160)
    assert system.potential(chains.x[-1]).max() < 0


def test_cluster_does_not_depend_on_the_grid():
    coarse, fine = (planar_cluster(DoubleWellParticles(), 1.5, h) for h in (0.3, 0.25))
    assert coarse.free_energy == pytest.approx(fine.free_energy, abs=1e-4)
    assert coarse.mean_energy == pytest.approx(fine.mean_energy, abs=1e-3)
    for cluster in (coarse, fine):
        h = cluster.r[1] - cluster.r[0]
        assert float(cluster.density.sum() * h) == pytest.approx(1)


def test_harmonic_pairs_in_closed_form():
    """With offset 0 and a tiny quartic term the pairs are springs: sum d^2 = N |z|^2."""
    spring, kT = 0.4, 0.7
    system = DoubleWellParticles(b=spring, c=1e-9, offset=0.0)
    cluster = planar_cluster(system, kT, 0.25)
    # V = spring N |z|^2 in (N - 1) d = 6 coordinates.
    exact = -kT * 3 * math.log(math.pi * kT / (4 * spring))
    # x_1 - x_2 is normal in the plane, of variance kT / (N spring) each: a Rayleigh law.
    variance = 2 * kT / (8 * spring)
    # Springs let pairs meet: the trapezoidal sum over r misses h^2 / 12 of the slope at 0.
    missing = math.log(1 - 0.25**2 / (12 * variance))
    assert cluster.free_energy == pytest.approx(exact - kT * missing, abs=1e-4)
    assert cluster.mean_energy == pytest.approx(3 * kT, rel=0.02)
    rayleigh = cluster.r / variance * torch.exp(-cluster.r.square() / (2 * variance))
    assert torch.allclose(cluster.density, rayleigh, rtol=0.02)


def test_weak_cluster_against_importance_sampling(generator):
    """The same integral over the mean-free subspace by plain sampling, at high temperature."""
    system, kT = DoubleWellParticles(), 8.0
    free = MeanFree(system)
    exact = planar_cluster(system, kT, 0.3)
    spread, n = 2.1, 200_000
    z = spread * torch.randn(n, 6, generator=generator)
    log_p = -0.5 * (z / spread).square().sum(1) - 6 * math.log(spread * math.sqrt(2 * math.pi))
    energy = free.potential(z)
    w = torch.exp(-energy / kT - log_p)
    error = kT * float(w.std() / w.mean()) / math.sqrt(n)
    assert error < 0.1
    assert abs(-kT * math.log(float(w.mean())) - exact.free_energy) < 5 * error
    mean = float((w * energy).sum() / w.sum())
    spread_of_mean = float((w * (energy - mean)).square().sum().sqrt() / w.sum())
    assert abs(mean - exact.mean_energy) < 5 * spread_of_mean


@pytest.mark.slow
def test_long_chains_against_the_exact_cluster(generator):
    """DW4 at kT = 1, the truth that flows are scored against."""
    system = DoubleWellParticles()
    exact = planar_cluster(system)
    start = 1.8 * torch.randn(500, 8, generator=generator)
    chains = hmc_chains(system, start, 40, generator, step=0.1, n_leapfrog=8, thin=20, warmup=400)
    x = chains.x.flatten(0, 1)
    energy = system.potential(x).view(40, 500)
    mean = chain_mean(energy)
    assert abs(mean.value - exact.mean_energy) < 5 * mean.error
    assert r_hat(energy) < 1.05
    near = system.distances(x).view(40, 500, 6).lt(4.0).double().mean(2)
    short = chain_mean(near)
    h = float(exact.r[1] - exact.r[0])
    cumulative = (exact.density * h).cumsum(0) - exact.density * h / 2
    k = int((exact.r < 4.0).sum()) - 1
    part = (4.0 - float(exact.r[k])) / h
    below = float(cumulative[k] + part * (cumulative[k + 1] - cumulative[k]))
    assert abs(short.value - below) < 5 * short.error + 1e-3


def test_refused(generator, unchecked):
    system = DoubleWellParticles()
    with pytest.raises(ValueError, match="x0 has shape"):
        hmc_chains(system, torch.zeros(3, 7), 1, generator)
    with pytest.raises(ValueError, match="n_draws is 0"):
        hmc_chains(system, torch.zeros(3, 8), 0, generator)
    with pytest.raises(ValueError, match="step must be positive"):
        hmc_chains(system, torch.zeros(3, 8), 1, generator, step=0.0)
    with pytest.raises(ValueError, match="expected 4 particles in 2 dimensions; got 3 in 2"):
        planar_cluster(DoubleWellParticles(3))
    with pytest.raises(ValueError, match="spacing must be positive"):
        planar_cluster(system, spacing=-1.0)

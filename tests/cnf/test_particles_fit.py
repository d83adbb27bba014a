"""Fits of particle flows: small runs that must improve, and DW4 where there is time."""

import logging
import math

import pytest
import torch
from scipy.integrate import quad

from sciflow import cnf
from sciflow.cnf.particles_fit import ParticleOptions, particle_flow, scale_of, tune
from sciflow.metrics import histogram_distance
from sciflow.systems import DoubleWellParticles, hmc_chains, planar_cluster

SMALL = {
    "channels": 4,
    "width": 16,
    "depth": 1,
    "n_radial": 12,
    "n_steps": 5,
    "progress": False,
    "device": "cpu",
}
PAIR = DoubleWellParticles(2, 1)


def pair_free_energy():
    """Two particles on a line: the coordinate is their distance over sqrt(2), of either sign."""

    def weight(z):
        return math.exp(-float(PAIR.potential(torch.tensor([[z, -z]]) / math.sqrt(2))))

    return -math.log(2 * quad(weight, 0, 7, limit=200, points=[2, 4])[0])


@pytest.fixture(scope="module")
def clusters():
    generator = torch.Generator().manual_seed(0)
    start = 1.8 * torch.randn(60, 8, generator=generator, dtype=torch.float64)
    system = DoubleWellParticles()
    drawn = hmc_chains(system, start, 5, generator, step=0.08, n_leapfrog=8, thin=5, warmup=60)
    return drawn.x.flatten(0, 1)


def test_flow_matching_raises_the_likelihood(clusters):
    x = clusters.float()
    options = {**SMALL, "matching_batch": 64, "tuning_steps": 0}
    first, last = (
        cnf.fit_particles(x, 4, matching_steps=steps, **options).log_prob(x[:100]).mean()
        for steps in (1, 250)
    )
    assert float(last) > float(first) + 0.5


def test_same_seed_same_flow(clusters):
    options = {**SMALL, "matching_steps": 3, "tuning_steps": 2, "tuning_batch": 8}
    options |= {"n_evaluate": 16, "evaluations": 1}
    system = DoubleWellParticles()
    one, two, three = (
        cnf.fit_particles(clusters.float(), 4, system.potential, seed=seed, **options)
        for seed in (0, 0, 1)
    )
    same = [torch.equal(p, q) for p, q in zip(one.parameters(), two.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(next(one.parameters()), next(three.parameters()))
    assert one.history.series("eval/ess")[1]


def test_scale_of_samples(generator):
    base = cnf.MeanFreeGaussian(4, 3, 1.7)
    x = base.sample(4000, generator) + 3.0
    assert scale_of(x, 4) == pytest.approx(1.7, rel=0.02)


def test_means_do_not_matter(clusters):
    options = {**SMALL, "matching_steps": 2, "tuning_steps": 0}
    far = clusters + 5.0 * torch.arange(len(clusters))[:, None]
    one, two = (cnf.fit_particles(x, 4, **options) for x in (clusters, far))
    x = clusters[:5]
    assert torch.allclose(one.log_prob(x), two.log_prob(x), atol=1e-4)


@pytest.mark.slow
def test_the_energy_alone():
    """Two particles on a line: both wells are within reach of the base."""
    settings = ParticleOptions(
        **{**SMALL, "tuning_steps": 300, "tuning_lr": 5e-3, "matching_steps": 0}
    )
    flow = tune(particle_flow(2, 1, 2.8, settings), None, PAIR.potential, 1.0, settings)
    bg = cnf.BoltzmannGenerator(flow.double(), PAIR.potential)
    generator = torch.Generator("cpu").manual_seed(0)
    drawn = bg.sample(5000, generator)
    estimate = drawn.free_energy(generator)
    exact = pair_free_energy()
    logging.info("ess %.3f, free energy %.4f, exact %.4f", drawn.ess, estimate.value, exact)
    assert drawn.ess > 0.8
    assert abs(estimate.value - exact) < 5 * estimate.error


@pytest.mark.slow
def test_dw4():
    """Effective sample size, free energy and energies of DW4 after a short fit."""
    system, exact = DoubleWellParticles(), planar_cluster(DoubleWellParticles())

    def chains(seed):
        generator = torch.Generator("cpu").manual_seed(seed)
        start = 1.8 * torch.randn(400, 8, generator=generator, dtype=torch.float64)
        drawn = hmc_chains(
            system, start, 40, generator, step=0.1, n_leapfrog=8, thin=20, warmup=300
        )
        return system.remove_mean(drawn.x.flatten(0, 1).cpu())

    flow = cnf.fit_particles(
        chains(1).float(),
        4,
        system.potential,
        matching_steps=2500,
        tuning_steps=200,
        progress=False,
        device="cpu",
    )
    tight = flow.double().with_solver("dopri5", 1e-6, 1e-6)
    bg = cnf.BoltzmannGenerator(tight, system.potential)
    generator = torch.Generator("cpu").manual_seed(5)
    drawn = bg.sample(10_000, generator)
    one = drawn.free_energy(generator)
    two = bg.bridge(4000, chains(2)[::5][-4000:], generator)
    stable = flow.history.series("eval/ess")[1]
    edges = torch.linspace(-26, -12, 36)
    energies = system.potential(drawn.x), system.potential(chains(2))
    off = histogram_distance(*energies, edges, drawn.weights)
    logging.info("ess %.3f (%s), tv %.4f", drawn.ess, stable, off)
    logging.info("free energy %s, %s, exact %.4f", one, two, exact.free_energy)
    assert drawn.ess > 0.3
    assert min(stable[len(stable) // 2 :]) > 0.3
    for estimate in (one, two):
        assert abs(estimate.value - exact.free_energy) < 5 * estimate.error
    assert off < 0.04  # of 16 000 draws; the benchmark has more

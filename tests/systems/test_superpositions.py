"""Superpositions: samplers and velocities against wave functions, quadrature and continuity."""

import math

import numpy as np
import pytest
import torch
from scipy.special import assoc_laguerre, eval_hermite, sph_harm_y

from sciflow.systems import HydrogenSuperposition, OscillatorSuperposition


def hydrogen_psi(t, x, bohr):
    """The wave function from special functions, apart from sciflow's formulas."""
    r, total = np.linalg.norm(x, axis=1), 0.0
    theta, phi = np.arccos(x[:, 2] / r), np.arctan2(x[:, 1], x[:, 0])
    for n, ell, m in ((3, 2, -1), (2, 1, 0)):
        norm = math.sqrt(
            (2 / (n * bohr)) ** 3 * math.factorial(n - ell - 1) / (2 * n * math.factorial(n + ell))
        )
        u = 2 * r / (n * bohr)
        radial = norm * np.exp(-u / 2) * u**ell * assoc_laguerre(u, n - ell - 1, 2 * ell + 1)
        energy = -1 / (2 * bohr**2 * n**2)
        total = total + radial * sph_harm_y(ell, m, theta, phi) * np.exp(-1j * energy * t)
    return total / math.sqrt(2)


def oscillator_psi(t, x):
    gauss = np.exp(-(x[:, 0] ** 2) / 2) / math.pi**0.25
    first = math.sqrt(0.5) * eval_hermite(1, x[:, 0]) * gauss
    return (gauss * np.exp(-0.5j * t) + first * np.exp(-1.5j * t)) / math.sqrt(2)


CASES = {
    "hydrogen": (HydrogenSuperposition(bohr=2.5), lambda t, x: hydrogen_psi(t, x, 2.5), 9.0),
    "oscillator": (OscillatorSuperposition(), oscillator_psi, 1.0),
}


@pytest.mark.parametrize("name", CASES)
def test_density_and_velocity_of_the_wave_function(name, generator):
    system, psi, size = CASES[name]
    x = size * torch.randn(50, system.dim, generator=generator, dtype=torch.float64)
    for share in (0.13, 0.61):
        t = share * system.period
        value = psi(t, x.numpy())
        np.testing.assert_allclose(system.density(t, x), np.abs(value) ** 2, rtol=1e-10)
        step = 1e-5
        for i in range(system.dim):
            shift = torch.zeros(system.dim).index_fill_(0, torch.tensor([i]), step)
            slope = (psi(t, (x + shift).numpy()) - psi(t, (x - shift).numpy())) / (2 * step)
            expected = (slope / value).imag
            np.testing.assert_allclose(system.velocity(t, x)[:, i], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_samples_have_the_density(name, generator):
    """Means of smooth functions against integrals over the density."""
    system, _, _ = CASES[name]
    t = 0.3 * system.period
    x = system.sample(torch.full((100_000,), t), generator)
    if name == "oscillator":
        grid = torch.linspace(-8, 8, 20_001, dtype=torch.float64)[:, None]
        weight, moments = (
            system.density(t, grid) * (grid[1] - grid[0]),
            [x, x**2, torch.cos(2 * x)],
        )
        truth = [grid, grid**2, torch.cos(2 * grid)]
    else:
        axis = torch.linspace(-80, 80, 161, dtype=torch.float64)
        grid = torch.cartesian_prod(axis, axis, axis) + 0.137
        weight = system.density(t, grid)
        truth, moments = ([z, z**2, torch.cos(z / 8)] for z in (grid, x))
    assert float(weight.sum()) == pytest.approx(1.0, abs=1e-4)
    for found, exact in zip(moments, truth, strict=True):
        mean = (weight[:, None] * exact).sum(0) / weight.sum()
        error = found.std(0) / len(x) ** 0.5
        assert float(((found.mean(0) - mean) / error).abs().max()) < 5


def test_hydrogen_turns_and_repeats(generator):
    system = HydrogenSuperposition()
    x = system.sample(torch.zeros(1000), generator.manual_seed(4))
    again = system.sample(torch.full((1000,), system.period), generator.manual_seed(4))
    torch.testing.assert_close(again, x.to(again), atol=1e-8, rtol=1e-8)
    quarter = system.sample(torch.full((1000,), system.period / 4), generator.manual_seed(4))
    torch.testing.assert_close(quarter, torch.stack([x[:, 1], -x[:, 0], x[:, 2]], 1))
    rotated = torch.full((1000,), system.period / 4)
    torch.testing.assert_close(system.density(rotated, quarter), system.density(0.0, x))


def test_trajectories_of_the_oscillator_keep_their_share(generator):
    """dx/dt at constant share is the velocity of the current."""
    system = OscillatorSuperposition()
    share = torch.rand(100, generator=generator, dtype=torch.float64)
    t, step = 1.1, 1e-5
    x = system.quantile(t, share)
    torch.testing.assert_close(system.cdf(t, x), share, atol=1e-11, rtol=0)
    slope = (system.quantile(t + step, share) - system.quantile(t - step, share)) / (2 * step)
    torch.testing.assert_close(system.velocity(t, x), slope, atol=1e-6, rtol=1e-6)


def test_refusal(unchecked):
    with pytest.raises(ValueError, match="bohr"):
        HydrogenSuperposition(bohr=0.0)

"""Free-energy surfaces and differences on densities known in closed form."""

import math

import pytest
import torch

from sciflow.metrics import between, blocks, free_energy_difference, free_energy_surface
from sciflow.units import GAS_CONSTANT


def test_harmonic_surface(generator):
    """-ln p of a Gaussian is x^2/2; the errors are those of binomial counts."""
    n = 200_000
    x = torch.randn(n, generator=generator)
    runs = torch.arange(n) // 1000
    surface = free_energy_surface(x, 20, [(-2.0, 2.0)], runs=runs, generator=generator)
    (center,) = surface.centers
    (edges,) = surface.edges
    mass = torch.special.ndtr(edges).diff()
    exact = -mass.log() + mass.max().log()
    # The bootstrap resamples the share of each bin, so that its error is sqrt((1-p)/np).
    share = mass / mass.sum()
    expected = ((1 - share) / (n * 0.9545 * share)).sqrt()
    torch.testing.assert_close(surface.error, expected, rtol=0.4, atol=0)
    assert ((surface.value - exact).abs() < 5 * expected + 5 * expected.min()).all()
    assert float(surface.value.min()) == 0 and float(center[0]) == pytest.approx(-1.9)


def test_periodic_surface_and_weights(generator):
    """Uniform angles weighted by a von Mises density, in an interval moved by two turns."""
    n = 100_000
    angle = 2 * math.pi * torch.rand(n, generator=generator)
    weights = torch.exp(1.5 * torch.cos(angle - 3.0))
    surface = free_energy_surface(
        angle + 4 * math.pi, 24, periods=[2 * math.pi], weights=weights, unit="kJ/mol",
        temperature=300.0,
    )  # fmt: skip
    kT = GAS_CONSTANT * 0.3
    exact = -1.5 * torch.cos(surface.centers[0] - 3.0) * kT
    exact = exact - exact.min()
    torch.testing.assert_close(surface.value, exact, atol=0.12 * kT, rtol=0)
    assert torch.isnan(surface.error).all()
    kcal = free_energy_surface(
        angle, 24, periods=[2 * math.pi], weights=weights, unit="kcal/mol", temperature=300.0
    )
    torch.testing.assert_close(kcal.value * 4.184, surface.value)
    own = free_energy_surface(angle, 24, [(0.0, 2 * math.pi)], [2 * math.pi], weights)
    torch.testing.assert_close(own.value.roll(12) * kT, surface.value)


def test_plane_surface(generator):
    x = torch.randn(50_000, 2, generator=generator) * torch.tensor([1.0, 2.0])
    surface = free_energy_surface(x, 10, [(-2.0, 2.0), (-4.0, 4.0)])
    assert surface.value.shape == (10, 10)
    one = free_energy_surface(x[:, 0][x[:, 1].abs() < 4], 10, [(-2.0, 2.0)])
    marginal = -torch.exp(-surface.value).sum(1).log()
    torch.testing.assert_close(marginal - marginal.min(), one.value)
    empty = free_energy_surface(torch.tensor([0.0, 1.0]), 4)
    assert empty.value.tolist() == [0, math.inf, math.inf, 0]


def test_difference(generator):
    """Two states with p = 1/4, runs of identical frames: the error is that of the runs."""
    n_runs, size, p = 400, 50, 0.25
    state = torch.rand(n_runs, generator=generator) < p
    frames = state.repeat_interleave(size)
    runs = torch.arange(n_runs).repeat_interleave(size)
    result = free_energy_difference(~frames, frames, runs, generator)
    share = float(state.double().mean())
    assert result.value == pytest.approx(math.log((1 - share) / share))
    error = 1 / math.sqrt(n_runs * share * (1 - share))
    assert result.error == pytest.approx(error, rel=0.15)
    assert abs(result.value - math.log(3)) < 4 * error
    naive = free_energy_difference(~frames, frames, torch.arange(len(frames)), generator)
    assert naive.error == pytest.approx(error / math.sqrt(size), rel=0.15)
    kJ = free_energy_difference(~frames, frames, runs, generator, unit="kJ/mol", temperature=300.0)
    assert kJ.value == pytest.approx(result.value * GAS_CONSTANT * 0.3)
    weights = torch.where(frames, 3.0, 1.0)
    even = free_energy_difference(~frames, frames, runs, generator, weights)
    assert even.value == pytest.approx(result.value - math.log(3))


def test_arcs_and_blocks():
    angle = torch.tensor([-3.0, -1.0, 0.5, 3.0])
    assert between(angle, 2.5, -2.0).tolist() == [True, False, False, True]
    assert between(angle, -1.5, 1.0).tolist() == [False, True, True, False]
    runs = torch.tensor([4, 4, 4, 4, 7, 7])
    assert blocks(runs, 2).tolist() == [0, 0, 1, 1, 2, 3]


def test_alanine_dipeptide(data_dir, generator):
    """The populations of all frames, and of the runs that models are fitted to."""
    from sciflow.data import alanine_dipeptide
    from sciflow.systems import conformations

    every = conformations(alanine_dipeptide())
    for runs, phi_value, psi_value in ((range(100), 4.60, 1.57), (range(90), 4.78, 1.60)):
        frames = every.take(runs)
        phi, psi = frames.torsions("phi", "psi").unbind(1)
        right, alpha = between(phi, 0.0, 2.2), between(psi, -2.2, 1.0)
        first = free_energy_difference(~right, right, frames.run, generator)
        second = free_energy_difference(~alpha, alpha, frames.run, generator)
        assert first.value == pytest.approx(phi_value, abs=0.005)
        assert second.value == pytest.approx(psi_value, abs=0.005)
        assert 0.2 < first.error < 0.36 and 0.04 < second.error < 0.06


def test_bad_arguments(generator, unchecked):
    x = torch.arange(6.0)
    state = x < 3
    runs = torch.tensor([0, 0, 0, 1, 1, 1])
    for change, message in (
        ({"bins": 0}, "bins must be at least 1"),
        ({"ranges": [(1.0, 1.0)]}, "ascending"),
        ({"ranges": [(7.0, 8.0)]}, "inside"),
        ({"periods": [2.0], "ranges": [(0.0, 3.0)]}, "longer than the period"),
        ({"periods": [1.0, 2.0]}, "1 entries"),
        ({"unit": "eV"}, "unit must be"),
        ({"unit": "kJ/mol"}, "temperature"),
        ({"weights": -x}, "weights"),
        ({"runs": runs}, "generator is None"),
        ({"runs": runs[:3], "generator": generator}, "runs has shape"),
    ):
        with pytest.raises(ValueError, match=message):
            free_energy_surface(x, **change)
    with pytest.raises(ValueError, match="one or two"):
        free_energy_surface(torch.zeros(5, 3))
    with pytest.raises(ValueError, match="not overlap"):
        free_energy_difference(state, state, runs, generator)
    with pytest.raises(ValueError, match="in_second has no sample"):
        free_energy_difference(state, torch.zeros_like(state), runs, generator)
    with pytest.raises(ValueError, match="one run"):
        free_energy_difference(state, ~state, torch.zeros(6), generator)
    with pytest.raises(ValueError, match="truth values"):
        free_energy_difference(x, ~state, runs, generator)

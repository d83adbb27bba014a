"""Baselines against closed forms, and against the published figures of alanine dipeptide."""

import math

import pytest
import torch

from sciflow.data import alanine_dipeptide
from sciflow.nct.baselines import (
    TICA,
    GaussianDensity,
    PrincipalComponents,
    distances,
    information_table,
)
from sciflow.systems import conformations
from sciflow.systems.charts import EckartFrame
from sciflow.units import convert, kT


@pytest.fixture(scope="module")
def dipeptide(data_dir):
    return conformations(alanine_dipeptide())


def walks(n_runs, n_steps, rates, generator):
    """Ornstein-Uhlenbeck walks of unit variance, with correlation exp(-rate) per step."""
    decay = torch.exp(-rates)
    x = torch.randn(n_runs, len(rates), generator=generator)
    path = [x]
    for _ in range(n_steps - 1):
        x = decay * x + (1 - decay**2).sqrt() * torch.randn(x.shape, generator=generator)
        path.append(x)
    return torch.stack(path, 1)


def test_tica_of_independent_walks(generator):
    """Mixed linearly, the walks come back, with correlations exp(-rate lag)."""
    rates = torch.tensor([0.02, 0.1, 0.5, 2.0])
    x = walks(40, 2000, rates, generator)
    mixing = torch.randn(4, 4, generator=generator)
    run = torch.arange(40).repeat_interleave(2000)
    features = (x @ mixing).flatten(0, 1) + 3.0
    tica = TICA.fit(features, run, lag=3)
    # Standard error of a correlation over runs of length T: about sqrt(2 tau (1 - c^2) / N T).
    torch.testing.assert_close(tica.correlations, torch.exp(-3 * rates), atol=0.03, rtol=0)
    torch.testing.assert_close(tica.timescales[:2], 1 / rates[:2], rtol=0.1, atol=0)
    modes = tica.modes(features)
    torch.testing.assert_close(torch.cov(modes.T), torch.eye(4), atol=0.05, rtol=0)
    overlap = torch.corrcoef(torch.cat([modes, x.flatten(0, 1)], 1).T)[:4, 4:].abs()
    assert (overlap.diagonal()[:3] > 0.98).all()
    # A feature that follows from others changes nothing.
    extended = torch.cat([features, features[:, :1] - features[:, 1:2]], 1)
    torch.testing.assert_close(TICA.fit(extended, run, 3).correlations, tica.correlations)


def test_tica_never_pairs_frames_of_two_runs():
    """Two runs that alternate in sign: pairs across the seam would spoil the correlation."""
    run = torch.tensor([0, 0, 1, 1])
    x = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])
    assert float(TICA.fit(x, run, 1).correlations) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="no run has so many frames"):
        TICA.fit(x, run, 2)
    with pytest.raises(ValueError, match="lag must be at least 1"):
        TICA.fit(x, run, 0)


def test_principal_components_of_a_stiff_molecule(generator):
    """Noise of N(0, kT K^-1) about a structure: the frequencies are those of K and the masses."""
    n = 6
    x0 = torch.randn(n, 3, generator=generator)
    masses = torch.linspace(1.0, 16.0, n)
    frame = EckartFrame(x0)
    # Small displacements in the aligned chart, with a random stiffness.
    a = torch.randn(frame.n_dim, frame.n_dim, generator=generator)
    stiffness = 1e4 * (a @ a.T / frame.n_dim + 0.3 * torch.eye(frame.n_dim))
    factor = torch.linalg.cholesky(torch.linalg.inv(stiffness))
    y = torch.randn(40_000, frame.n_dim, generator=generator) @ factor.T
    found = PrincipalComponents.fit(frame.inverse(y)[0], masses, kT=1.0)
    weighted = frame.basis * masses.sqrt().repeat_interleave(3)[:, None]
    exact = torch.linalg.eigvalsh(weighted @ torch.linalg.inv(stiffness) @ weighted.T)
    torch.testing.assert_close(found.frequencies, exact.flip(0)[:-6].rsqrt(), rtol=0.03, atol=0)
    modes = found.modes(frame.inverse(y)[0])
    torch.testing.assert_close(torch.cov(modes.T), torch.eye(frame.n_dim), atol=1e-8, rtol=0)


def test_gaussian_density_is_normalised_in_any_chart(generator):
    """The same density of the same frames, stated through a chart and directly."""
    x0 = torch.randn(4, 3, generator=generator)
    frame = EckartFrame(x0)
    x, _ = frame.inverse(0.05 * torch.randn(500, 6, generator=generator))
    density = GaussianDensity.fit(frame, x)
    y, _ = frame(x)
    normal = torch.distributions.MultivariateNormal(density.mean, density.covariance)
    torch.testing.assert_close(density.log_prob(x), normal.log_prob(y))
    with pytest.raises(ValueError, match="singular"):
        GaussianDensity.fit(frame, x[:5])


def test_information_table(generator):
    """I of jointly Gaussian numbers is -ln(1 - r^2)/2, also where one is wound to an angle."""
    n, r = 4000, 0.8
    z = torch.randn(n, 3, generator=generator)
    partner = r * z[:, 0] + math.sqrt(1 - r * r) * z[:, 2]
    modes = torch.stack([z[:, 0], z[:, 1]], 1)
    angles = torch.stack([0.3 * partner, torch.randn(n, generator=generator)], 1)
    table = information_table(modes, angles, ["a", "b"], generator, size=1500, repeats=4)
    exact = torch.tensor([[-0.5 * math.log(1 - r * r), 0.0], [0.0, 0.0]])
    assert ((table.value - exact).abs() < 5 * table.error + 0.03).all()
    with pytest.raises(ValueError, match="angles has shape"):
        information_table(modes, angles, ["a"], generator)
    with pytest.raises(ValueError, match="size must be at most"):
        information_table(modes, angles, ["a", "b"], generator, size=5000)


def test_reference_figures_of_alanine_dipeptide(dipeptide, generator):
    """Gaussians, components and their information as measured by others on these frames."""
    train, held = dipeptide.split(range(90, 100))
    shift = 24 * math.log(10)  # densities per angstrom, not per nm
    cartesian = GaussianDensity.fit(dipeptide.aligned_frame(), train.positions)
    assert float(-cartesian.log_prob(held.positions).mean()) + shift == pytest.approx(
        -20.298, abs=1e-3
    )
    chart = train.internal_coordinates({"psi": -2.27, "phi": 2.4})
    internal = GaussianDensity.fit(chart, train.positions)
    assert float(-internal.log_prob(held.positions).mean()) + shift == pytest.approx(
        -26.93, abs=0.005
    )
    angles = dipeptide.torsions("phi", "psi")
    pca = PrincipalComponents.fit(dipeptide.positions, dipeptide.masses, kT(300.0))
    cm1 = convert(pca.frequencies, "rad/ps", "cm^-1")
    expected = torch.tensor([17.8, 20.5, 27.4, 69.0])
    torch.testing.assert_close(cm1[:4], expected, rtol=0.01, atol=0)
    found = information_table(pca.modes(dipeptide.positions), angles, ["phi", "psi"], generator)
    published = torch.tensor([[0.404, 0.940], [0.602, 0.498]])
    torch.testing.assert_close(found.value[:2], published, atol=0.07, rtol=0)
    features = distances(dipeptide.positions)
    tica = TICA.fit(features, dipeptide.run, lag=10)
    # 10.43, 7.01 and 3.03 ps by deeptime, whose pairs are not counted in both directions.
    reference = torch.tensor([10.43, 7.01, 3.03])
    torch.testing.assert_close(tica.timescales[:3], reference, rtol=0.04, atol=0)
    found = information_table(tica.modes(features), angles, ["phi", "psi"], generator)
    published = torch.tensor([[0.171, 0.711], [0.366, 0.155]])
    torch.testing.assert_close(found.value[:2], published, atol=0.09, rtol=0)

"""Fits against systems whose frequencies and free energies are known."""

import logging
import math

import pytest
import torch

from sciflow import DataError, nct
from sciflow.nct.build import Architecture, Modes, build_layers, hessian_modes, sample_modes
from sciflow.nct.energy import best_gaussian
from sciflow.systems import DoubleWell, FPUTBeta, HarmonicChain, Phi4, Ring
from sciflow.systems.charts import BondChart, PolarChart

logger = logging.getLogger(__name__)
QUIET = {"progress": False, "device": "cpu", "linear_steps": 2, "linear_draws": 512}


def gap(model, system, kT=1.0, n=20_000, **options):
    """Bound minus truth and error of the reweighted value, in units of kT."""
    estimate = model.free_energy(n, **options)
    exact = system.free_energy(kT)
    logger.info("%s: gap %.2g, %s", type(system).__name__, (estimate.bound - exact) / kT, estimate)
    assert estimate.bound / kT > exact / kT - 1e-6
    assert abs(estimate.value - exact) < 5 * estimate.error + 1e-6 * kT
    return (estimate.bound - exact) / kT, estimate


# --- harmonic systems: everything is known ----------------------------------------------------

UNEQUAL = tuple(torch.linspace(0.5, 3.0, 8).tolist())


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("chain", "kT"),
    [
        (HarmonicChain(8), 0.5),
        (HarmonicChain(8, UNEQUAL), 2.0),
        (HarmonicChain(8, UNEQUAL, tuple(torch.linspace(2.0, 0.4, 9).tolist())), 5.0),
        # a ring has pairs of equal frequencies
        (HarmonicChain(6, boundary="periodic", pinning=0.5), 1.0),
    ],
    ids=["kT=0.5", "masses", "springs", "pairs"],
)
def test_harmonic_chains(chain, kT, strict):
    model = nct.fit_energy(
        chain.potential, chain.n, chain.mass, kT, strict=strict, steps=0, **QUIET
    )
    assert gap(model, chain, kT)[0] < 1e-6
    torch.testing.assert_close(model.frequencies + 0, chain.frequencies, atol=1e-6, rtol=1e-6)
    q, p = model.sample(20_000, seed=3)
    for values, variance in (
        (p, kT * chain.masses),
        (q, kT * torch.linalg.inv(chain.hessian).diag()),
    ):
        spread = values.square().mean(0) / variance - 1
        assert float(spread.abs().max()) < 5 * math.sqrt(2 / 20_000)


def test_linear_fit_without_the_hessian():
    """L-BFGS on whitened draws finds the modes from unit vectors."""
    chain = HarmonicChain(6, UNEQUAL[:6])
    periods, start = [math.inf] * 6, Modes(torch.ones(6), torch.eye(6), torch.ones(6))
    linear = Architecture(couplings=0, splines=False)
    layers, latent = build_layers(periods, start, 1.0, linear, False, torch.Generator())
    model = nct.CanonicalTransformation(layers, latent, chain.masses, strict=True)
    settings = nct.FitOptions(**QUIET | {"linear_steps": 10})
    found = best_gaussian(model, start, chain.potential, settings)
    torch.testing.assert_close(found.omega.sort().values, chain.frequencies, rtol=1e-3, atol=0)
    torch.testing.assert_close(found.center, torch.zeros(6), atol=1e-3, rtol=0)


def test_networks_keep_what_is_exact():
    chain = HarmonicChain(6)
    model = nct.fit_energy(chain.potential, 6, strict=True, steps=20, width=16, **QUIET)
    assert gap(model, chain)[0] < 1e-3
    assert float((model.frequencies / chain.frequencies - 1).abs().max()) < 5e-3
    overlap = (nct.mode_shapes(model) * chain.modes).sum(1).abs()
    assert float(overlap.min()) > 0.99
    assert len(model.history.step) > 0


def test_minimum_and_modes_of_a_hessian():
    chain = HarmonicChain(5, (1.0, 2.0, 3.0, 2.0, 1.0))
    line = torch.arange(5)
    metric = lambda x: torch.diag(1 / chain.masses)[None]
    shift = torch.linspace(-1, 1, 5)
    energy = lambda q: chain.potential(q - shift)
    minimum, modes = hessian_modes(energy, torch.zeros(5), metric, line)
    torch.testing.assert_close(minimum, shift, atol=1e-7, rtol=0)
    torch.testing.assert_close(modes.omega, chain.frequencies)
    # and from samples of the same chain
    x = chain.sample(200_000, 2.0, torch.Generator().manual_seed(0))
    sampled = sample_modes(x, torch.diag(1 / chain.masses), 2.0)
    torch.testing.assert_close(sampled.omega, chain.frequencies, rtol=0.01, atol=0)


# --- anharmonic systems: free energies are known ----------------------------------------------


@pytest.mark.parametrize("strict", [False, True])
def test_ring(strict):
    ring = Ring()
    options = {"steps": 120, "width": 16, "lr": 2e-2, "couplings": 0, **QUIET}
    model = nct.fit_energy(ring.potential, 2, chart=PolarChart(), strict=strict, **options)
    found, estimate = gap(model, ring)
    # An oscillator and a rotor cannot do better than 0.0398 in phase space.
    assert (0.035 if strict else 0) < found < (0.4 if strict else 1e-2)
    assert estimate.ess > (0.2 if strict else 0.98)
    assert float(model.frequencies[0]) == 0  # the rotor
    q = model.sample(5000).q
    both = torch.stack([q.norm(dim=1), model.modes(q)[:, 1]])
    assert abs(float(torch.corrcoef(both)[0, 1])) > 0.99
    if not strict:  # the two gaps are different things
        assert model.free_energy(2000, strict=True).bound - ring.free_energy(1.0) > 0.1


def test_phi4_is_better_than_any_gaussian():
    chain = Phi4(6)
    linear = nct.fit_energy(chain.potential, 6, steps=0, **QUIET)
    model = nct.fit_energy(chain.potential, 6, steps=80, couplings=0, lr=2e-2, **QUIET)
    best = gap(linear, chain)[0]
    assert 0.01 < best < 0.05
    assert gap(model, chain)[0] < 0.1 * best


def test_fput_in_bonds():
    chain = FPUTBeta(6)
    options = {"chart": BondChart(6), "steps": 80, "couplings": 0, "lr": 2e-2, **QUIET}
    model = nct.fit_energy(chain.potential, 6, **options)
    linear = nct.fit_energy(chain.potential, 6, **options | {"steps": 0})
    assert gap(model, chain)[0] < 0.3 * gap(linear, chain)[0]


def test_tempering_finds_both_wells():
    wells = DoubleWell(barrier=6.0, tilt=0.3, n_bath=1)
    options = {"width": 16, "steps": 200, "lr": 2e-2, "start": torch.tensor([1.0, 0.0]), **QUIET}
    model = nct.fit_energy(wells.potential, 2, temper=10.0, couplings=0, **options)
    estimate = model.free_energy(20_000)
    exact = wells.free_energy(1.0)
    assert abs(estimate.value - exact) < 0.05
    assert estimate.bound - exact < 0.2
    q = model.sample(20_000).q
    assert 0.05 < float((q[:, 0] > 0).double().mean()) < 0.5  # the higher well


# --- samples ----------------------------------------------------------------------------------


def test_samples_of_a_chain(generator):
    chain, kT = HarmonicChain(5, UNEQUAL[:5]), 2.0
    q = chain.sample(20_000, kT, generator)
    model = nct.fit_samples(q, chain.masses, kT, steps=30, width=16, lr=1e-3, **QUIET)
    test = chain.sample(20_000, kT, generator)
    exact = -(chain.potential(test) - chain.configurational_free_energy(kT)) / kT
    with torch.no_grad():
        loss = exact - model.log_prob(test)
    # Kullback-Leibler divergence from the truth, on samples that the fit did not see
    assert float(loss.mean()) < 5e-3
    torch.testing.assert_close(model.frequencies + 0, chain.frequencies, rtol=0.03, atol=0)
    assert model.history.series("eval/nll")[1]


def test_strict_samples_have_the_frequencies_of_the_latent_system(generator):
    chain = HarmonicChain(4)
    q = chain.sample(20_000, 1.0, generator)
    model = nct.fit_samples(q, steps=200, couplings=0, splines=False, strict=True, **QUIET)
    torch.testing.assert_close(model.frequencies + 0, chain.frequencies, rtol=0.05, atol=0)
    assert gap(model, chain, potential=chain.potential)[0] < 0.02


def test_the_order_of_samples_does_not_matter(generator):
    chain = HarmonicChain(5, UNEQUAL[:5])
    q = chain.sample(2000, 1.0, generator)
    order = torch.randperm(len(q), generator=generator)
    groups = torch.arange(4).repeat_interleave(500)
    for steps, labels in ((0, None), (20, groups)):
        options = {"steps": steps, "width": 16, **QUIET}
        first = nct.fit_samples(q, chain.masses, groups=labels, **options)
        permuted = None if labels is None else labels[order]
        again = nct.fit_samples(q[order], chain.masses, groups=permuted, **options)
        spread = first.modes(q).std(0)
        difference = (again.modes(q) - first.modes(q)) / spread
        assert float(difference.detach().abs().max()) < 1e-6


def test_samples_on_a_circle(generator):
    """A polar chart whose angle has wells, opened at its cut."""
    n = 30_000
    theta = torch.where(torch.rand(n, generator=generator) < 0.3, 1.5, -0.5)
    theta = theta + 0.4 * torch.randn(n, generator=generator)
    r = 2 + 0.2 * torch.randn(n, generator=generator)
    q = torch.stack([r * theta.cos(), r * theta.sin()], 1)
    model = nct.fit_samples(q, chart=PolarChart(), steps=60, width=16, lr=5e-3, **QUIET)
    assert len(model.latent.rotors) == 0
    angle = PolarChart()(model.sample(n).q)[0][:, 1]
    # The wells are as deep: shares of the samples within their statistical error and bins.
    upper = [float(((x > 0.5) & (x < 2.5)).double().mean()) for x in (angle, theta)]
    assert upper[0] == pytest.approx(upper[1], abs=0.02)


def test_whole_trajectories_are_set_aside(generator):
    from sciflow.nct.options import FitOptions
    from sciflow.nct.samples import _held_out

    labels = torch.arange(10).repeat_interleave(7)
    held = _held_out(labels, 70, FitOptions(validation=0.2))
    assert held.sum() == 14
    assert not set(labels[held].tolist()) & set(labels[~held].tolist())
    single = _held_out(None, 50, FitOptions())
    assert single.tolist() == [False] * 45 + [True] * 5


# --- refusals ---------------------------------------------------------------------------------


def test_refused(unchecked):
    chain = HarmonicChain(3)
    fit = lambda potential, n=3, *rest, **o: nct.fit_energy(potential, n, *rest, **(QUIET | o))
    with pytest.raises(ValueError, match=r"mass has shape \(2,\); expected one number or \(3,\)"):
        fit(chain.potential, 3, (1.0, 2.0))
    with pytest.raises(ValueError, match="mass must be positive"):
        fit(chain.potential, 3, -1.0)
    with pytest.raises(ValueError, match="kT must be positive"):
        fit(chain.potential, 3, 1.0, 0.0)
    with pytest.raises(ValueError, match=r"potential must map \(1, 3\) to \(1,\).*got \(1, 3\)"):
        fit(lambda q: q)
    with pytest.raises(ValueError, match="potential is nan at q"):
        fit(lambda q: q.sum(1) * math.nan)
    with pytest.raises(ValueError, match="chart has 2 coordinates; expected n_dim = 3"):
        fit(chain.potential, 3, chart=PolarChart())
    with pytest.raises(ValueError, match="start must be 3 finite numbers"):
        fit(chain.potential, 3, start=torch.zeros(2))
    with pytest.raises(ValueError, match="temper must be at least 1"):
        fit(chain.potential, 3, temper=0.5)
    with pytest.raises(ValueError, match="they need strict=True"):
        fit(chain.potential, 3, shears=1)
    with pytest.raises(ValueError, match="this system has a rotor"):
        fit(Ring().potential, 2, chart=PolarChart(), shears=1, strict=True, steps=1)
    with pytest.raises(ValueError, match="coupling must be one of spline, affine"):
        fit(chain.potential, 3, coupling="cubic")
    with pytest.raises(ValueError, match="q has 1 samples of 3 coordinates"):
        nct.fit_samples(torch.zeros(1, 3))
    with pytest.raises(DataError, match="row 4, column 1"):
        nct.fit_samples(
            torch.zeros(9, 3).index_put((torch.tensor(4), torch.tensor(1)), torch.tensor(math.nan))
        )
    with pytest.raises(ValueError, match="groups has shape"):
        nct.fit_samples(torch.randn(9, 3), groups=[1, 2])
    with pytest.raises(ValueError, match="do not vary in some direction"):
        nct.fit_samples(torch.randn(50, 1).expand(50, 3))
    with pytest.raises(ValueError, match="or a chart for such samples"):
        nct.fit_samples(torch.randn(50, 4, 3))

"""Exported potentials in OpenMM: forces, drift, subsets, boxes, bias, flow moves."""

import logging
import math

import numpy as np
import pytest
import torch

pytest.importorskip("openmm")

import openmm as mm

from sciflow import nct
from sciflow.bridges.bias import ModeBias
from sciflow.bridges.export import export
from sciflow.bridges.forcefield import ForceField
from sciflow.bridges.openmm_force import model_force
from sciflow.bridges.openmm_moves import FlowMonteCarlo
from sciflow.errors import DataError
from sciflow.systems import Molecule
from sciflow.systems.charts import InternalCoordinates
from sciflow.systems.charts.frame import align
from sciflow.systems.charts.zmatrix import build_zmatrix
from sciflow.units import kT

THERMAL = kT(300.0)
BONDS = ((0, 1), (1, 2), (2, 3))
# A double well along x, springs across [kJ/mol, nm]: its basins differ by the slope.
WELL = {"a": 20.0, "b": 0.1, "c": 20.0, "k": 4000.0}
EXPRESSION = "a*((x/b)^2-1)^2 + c*x + 0.5*k*(y^2+z^2)"


def well(q):
    x = q[:, 0]
    across = q[:, 1:].square().sum(1)
    return WELL["a"] * ((x / WELL["b"]) ** 2 - 1) ** 2 + WELL["c"] * x + WELL["k"] * across / 2


def right_share():
    """Exact share of the canonical density with x > 0, by quadrature."""
    x = np.linspace(-0.3, 0.3, 20001)
    density = np.exp(-(WELL["a"] * ((x / WELL["b"]) ** 2 - 1) ** 2 + WELL["c"] * x) / THERMAL)
    return density[x > 0].sum() / density.sum()


def particles(n, force=None, expression=None):
    system = mm.System()
    for _ in range(n):
        system.addParticle(12.0)
    if expression is not None:
        own = mm.CustomExternalForce(expression)
        for name, value in WELL.items():
            own.addGlobalParameter(name, value)
        for i in range(n):
            own.addParticle(i, [])
        system.addForce(own)
    if force is not None:
        system.addForce(force)
    return system


def context_of(system, integrator, positions):
    platform = mm.Platform.getPlatformByName("Reference")
    context = mm.Context(system, integrator, platform)
    context.setPositions(positions)
    return context


def energy_and_forces(context):
    state = context.getState(getEnergy=True, getForces=True)
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value


@pytest.fixture(scope="module")
def folder(tmp_path_factory, cluster):
    return export(cluster(), tmp_path_factory.mktemp("cluster"), ["energy"], compile=False)


@pytest.fixture
def x():
    return np.random.default_rng(0).random((4, 3)) * 0.3 + 0.2


def test_force_and_serialization(folder, x, cluster):
    force = model_force(folder, particles(4))
    system = particles(4, mm.XmlSerializer.deserialize(mm.XmlSerializer.serialize(force)))
    energy, forces = energy_and_forces(context_of(system, mm.VerletIntegrator(0.001), x))
    q = torch.from_numpy(x).reshape(1, -1).double().requires_grad_()
    expected = -THERMAL * cluster().log_prob(q)
    (gradient,) = torch.autograd.grad(expected.sum(), q)
    assert energy == pytest.approx(float(expected), rel=1e-10)
    np.testing.assert_allclose(forces, -gradient.reshape(4, 3).numpy(), rtol=1e-8, atol=1e-8)


def test_subset_of_the_particles(folder, x):
    system = particles(7)
    chosen = [5, 0, 3, 1]
    system.addForce(model_force(folder, system, chosen))
    everything = np.random.default_rng(1).random((7, 3))
    everything[chosen] = x
    energy, forces = energy_and_forces(context_of(system, mm.VerletIntegrator(0.001), everything))
    alone = particles(4, model_force(folder, particles(4)))
    own_energy, own = energy_and_forces(context_of(alone, mm.VerletIntegrator(0.001), x))
    assert energy == pytest.approx(own_energy)
    np.testing.assert_allclose(forces[chosen], own)
    assert (np.delete(forces, chosen, axis=0) == 0).all()


def test_what_does_not_fit(folder, tmp_path, cluster):
    with pytest.raises(ValueError, match="the model has 4 atoms; 5 were given"):
        model_force(folder, particles(5))
    with pytest.raises(ValueError, match="different particles of 0 to 4"):
        model_force(folder, particles(5), [0, 1, 1, 2])
    with pytest.raises(ValueError, match="must be joined by bonds"):
        model_force(folder, particles(4), periodic=True)
    model = cluster(1)
    model.units = "reduced"
    plain = export(model, tmp_path, ["energy"], compile=False)
    with pytest.raises(ValueError, match="exported with units 'reduced', and units 'md'"):
        model_force(plain, particles(1))
    context = context_of(particles(4), mm.VerletIntegrator(0.001), np.zeros((4, 3)))
    with pytest.raises(DataError, match="no map 'sample'"):
        FlowMonteCarlo(folder, context, 300.0)


def drift(system, positions, step, n=1000):
    """Drift of the total energy [kT/ps/atom] and its range [kT/atom] in a run at 300 K."""
    integrator = mm.VerletIntegrator(step)
    context = context_of(system, integrator, positions)
    context.setVelocitiesToTemperature(300.0, 7)
    energies = []
    for _ in range(n // 20):
        integrator.step(20)
        state = context.getState(getEnergy=True)
        energies.append(state.getPotentialEnergy()._value + state.getKineticEnergy()._value)
    energies = np.array(energies) / THERMAL / len(positions)
    t = np.arange(len(energies)) * 20 * step
    return np.polyfit(t, energies, 1)[0], np.ptp(energies)


def rest_of(model):
    """Where all modes of a model are at rest."""
    Q = model.latent.coordinates(torch.zeros(1, model.n_dim, dtype=torch.float64))
    with torch.no_grad():
        return model.coordinates_inverse(Q)[0].reshape(-1, 3).numpy()


def test_drift_is_that_of_openmm(tmp_path, cluster):
    """A harmonic model beside the same springs as a force of OpenMM itself."""
    model = cluster(mixed=False)
    folder = export(model, tmp_path, ["energy"], compile=False)
    rest = rest_of(model)
    own = mm.CustomExternalForce("0.5*2000*((x-x0)^2+(y-y0)^2+(z-z0)^2)")
    for name in ("x0", "y0", "z0"):
        own.addPerParticleParameter(name)
    for i in range(4):
        own.addParticle(i, rest[i])
    slope, width = drift(particles(4, model_force(folder, particles(4))), rest, 0.002)
    own_slope, own_width = drift(particles(4, own), rest, 0.002)
    logging.info("drift [kT/ps/atom]: model %.6g, OpenMM %.6g", slope, own_slope)
    logging.info("range of the energy [kT/atom]: model %.6g, OpenMM %.6g", width, own_width)
    assert width == pytest.approx(own_width, rel=1e-3)
    assert slope == pytest.approx(own_slope, rel=1e-2, abs=1e-6)


def test_energy_of_a_run_is_kept_to_second_order(folder, cluster):
    """Not harmonic: half the step makes a quarter of the range, where forces fit the energy."""
    rest = rest_of(cluster())
    system = particles(4, model_force(folder, particles(4)))
    widths = [drift(system, rest, step, n)[1] for step, n in ((0.002, 600), (0.001, 1200))]
    logging.info("range of the energy [kT/atom]: %.3g at 2 fs, %.3g at 1 fs", *widths)
    assert widths[0] < 0.1 and 2.5 < widths[0] / widths[1] < 6.0


@pytest.fixture(scope="module")
def double_well(tmp_path_factory):
    """A model of the double well: crude, as a flow in the middle of its training is."""
    return nct.fit_energy(
        well,
        3,
        12.0,
        THERMAL,
        start=torch.tensor([-0.1, 0.0, 0.0], dtype=torch.float64),
        steps=150,
        temper=10.0,
        couplings=0,
        bins=6,
        progress=False,
        device="cpu",
    )


def test_flow_moves_sample_both_basins(double_well, tmp_path):
    """One walker, stuck in its basin by the dynamics alone, in the exact ratio by the moves."""
    folder = export(double_well, tmp_path, ["sample", "log_prob"], units="md", compile=False)
    system = particles(1, expression=EXPRESSION)
    integrator = mm.LangevinMiddleIntegrator(300.0, 5.0, 0.002)
    integrator.setRandomNumberSeed(5)
    context = context_of(system, integrator, [[-0.1, 0.0, 0.0]])
    moves = FlowMonteCarlo(folder, context, 300.0, seed=2)
    right = []
    for _ in range(1200):
        integrator.step(5)
        moves.step()
        right.append(context.getState(getPositions=True).getPositions()[0].x > 0)
    right = np.array(right, dtype=float)
    exact = right_share()
    # Standard error from 24 blocks, which are longer than the memory of the walker.
    error = right.reshape(24, -1).mean(1).std(ddof=1) / math.sqrt(24)
    logging.info(
        "share of the right basin %.4f +- %.4f, exact %.4f; accepted %.2f",
        right.mean(), error, exact, moves.acceptance,
    )  # fmt: skip
    assert 0.05 < moves.acceptance < 0.99
    assert 0.1 < exact < 0.45 and error < 0.06
    assert abs(right.mean() - exact) < 3 * error


def test_moves_that_do_not_fit(double_well, tmp_path):
    folder = export(double_well, tmp_path, ["sample", "log_prob"], units="md", compile=False)
    system = particles(2)
    system.addConstraint(0, 1, 0.1)
    context = context_of(system, mm.VerletIntegrator(0.001), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="the model has 3 coordinates; 2 particles have 6"):
        FlowMonteCarlo(folder, context, 300.0)
    with pytest.raises(ValueError, match=r"the particles \[0\] have constraints"):
        FlowMonteCarlo(folder, context, 300.0, [0])


@pytest.mark.slow
def test_bias_recovers_the_free_energy(tmp_path):
    """A bias on the mode along x lowers the barrier; weights take it back. It runs compiled."""

    def hill(Q):
        return -16.0 * torch.exp(-(Q[:, 0] / 0.18).square())

    # The mode is x in mass-weighted units, sqrt(12) x, for the linear map alone.
    linear = nct.fit_energy(
        lambda q: 0.5 * 500 * q[:, :1].square().sum(1) + well(q * torch.tensor([0.0, 1, 1])),
        3, 12.0, THERMAL, steps=0, linear_steps=0, splines=False, couplings=0, progress=False,
        device="cpu",
    )  # fmt: skip
    bias = ModeBias(linear, hill)
    folder = export(bias, tmp_path, ["energy"], units="md")
    system = particles(1, expression=EXPRESSION)
    system.addForce(model_force(folder, system))
    integrator = mm.LangevinMiddleIntegrator(300.0, 5.0, 0.004)
    integrator.setRandomNumberSeed(3)
    context = context_of(system, integrator, [[-0.1, 0.0, 0.0]])
    x = []
    for _ in range(8000):
        integrator.step(20)
        p = context.getState(getPositions=True).getPositions()[0]
        x.append([p.x, p.y, p.z])
    x = torch.tensor(x, dtype=torch.float64)
    with torch.no_grad():
        weight = torch.exp(bias(x) / THERMAL).numpy()
    right = (x[:, 0] > 0).numpy()
    # Free energies of 20 halves of blocks give the error.
    blocks = [(w * r, w) for w, r in zip(np.split(weight, 20), np.split(right, 20), strict=True)]
    tops, bottoms = (np.array([np.sum(b[i]) for b in blocks]) for i in (0, 1))
    share = tops.sum() / bottoms.sum()
    residual = (tops - share * bottoms) / bottoms.mean()
    error = residual.std(ddof=1) / math.sqrt(20)
    exact = right_share()
    delta = -THERMAL * math.log(share / (1 - share))
    truth = -THERMAL * math.log(exact / (1 - exact))
    sigma = THERMAL * error / (share * (1 - share))
    logging.info("free-energy difference %.3f +- %.3f kJ/mol, exact %.3f", delta, sigma, truth)
    crossings = int(np.abs(np.diff(right.astype(int))).sum())
    assert crossings > 100
    assert sigma < 0.6 and abs(delta - truth) < 3 * sigma


@pytest.fixture(scope="module")
def molecule(tmp_path_factory):
    """Four bonded atoms whose density is told in internal coordinates, which know no place."""
    generator = torch.Generator().manual_seed(0)
    frame = torch.tensor([[0.0, 0, 0], [0.15, 0, 0], [0.2, 0.14, 0], [0.35, 0.15, 0.08]])
    q = frame + 0.01 * torch.randn(300, 4, 3, generator=generator, dtype=torch.float64)
    chart = InternalCoordinates.from_samples(q, build_zmatrix(4, BONDS))
    model = nct.fit_samples(
        q, torch.full((4,), 12.0), THERMAL, chart=chart, units="md", steps=0, splines=False,
        couplings=0, progress=False, device="cpu", space="modes",
    )  # fmt: skip
    model.molecule = Molecule(
        ("C1", "C2", "C3", "C4"), (0,) * 4, ("MOL1",) * 4, ("C",) * 4, (12.0,) * 4, BONDS
    )
    maps = ["energy", "sample", "log_prob"]
    return export(model, tmp_path_factory.mktemp("molecule"), maps, compile=False), q


def test_periodic_box(molecule):
    """A molecule cut by a triclinic box has the energy and the forces of the whole one."""
    folder, q = molecule
    x = q[0].numpy()
    box = np.array([[1.0, 0.0, 0.0], [0.3, 1.1, 0.0], [-0.2, 0.4, 0.9]])
    turns = np.array([[0, 0, 0], [1, 0, -1], [0, 2, 0], [-1, 0, 1]])
    found = []
    for periodic, positions in ((False, x), (True, x + turns @ box)):
        system = particles(4)
        system.setDefaultPeriodicBoxVectors(*box)
        force = model_force(folder, system, periodic=periodic)
        assert force.usesPeriodicBoundaryConditions() == periodic
        system.addForce(force)
        context = context_of(system, mm.VerletIntegrator(0.001), positions)
        found.append(energy_and_forces(context))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-9)
    np.testing.assert_allclose(found[1][1], found[0][1], rtol=1e-6, atol=1e-6)


def test_other_elements(molecule):
    with pytest.raises(ValueError, match="atom 2 is N; the model has C there"):
        ForceField(molecule[0]).check_atoms(4, ["C", "C", "N", "C"])


def test_moves_of_a_molecule_in_its_own_potential(molecule):
    """Density and energy agree: every proposal is accepted, where the molecule is and lies."""
    folder, q = molecule
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    turn = turn * torch.linalg.det(turn).sign()
    x = (q[0] @ turn + 3.0).numpy()
    system = particles(4, model_force(folder, particles(4)))
    context = context_of(system, mm.VerletIntegrator(0.001), x)
    moves = FlowMonteCarlo(folder, context, 300.0)
    assert moves.step(20) == 20 and moves.acceptance == 1.0
    moved = context.getState(getPositions=True).getPositions(asNumpy=True)._value
    assert np.abs(moved - x).max() > 1e-3
    np.testing.assert_allclose(moved.mean(0), x.mean(0), atol=1e-9)
    # The orientation, told by alignment to a fixed structure, stays.
    frame, equal = moves._frame(), torch.ones(4, dtype=torch.float64)
    rotations = []
    for y in (torch.from_numpy(x), torch.from_numpy(moved)):
        y = (y - y.mean(0))[None]
        rotations.append(torch.linalg.lstsq(align(y, frame, equal)[0], y[0]).solution)
    torch.testing.assert_close(rotations[0], rotations[1], atol=1e-6, rtol=0)

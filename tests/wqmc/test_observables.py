"""Dipole moments, forces and densities against quadrature and closed forms."""

import logging

import pytest
import torch

from sciflow import wqmc
from sciflow.wqmc import FermiNet, Molecule
from sciflow.wqmc.observables import density, dipole, nuclear_forces, observables, zero_variance
from sciflow.wqmc.start import quadrature

logger = logging.getLogger(__name__)

ION = Molecule("H2", [[0, 0, -0.7], [0, 0, 0.9]], charge=1)


@pytest.fixture(scope="module")
def ion():
    """One electron at two protons; its start, which is no eigenstate."""
    with torch.device("cpu"):
        return FermiNet(ION, determinants=1, width=4, depth=1).double().requires_grad_(False)


def on_grid(psi):
    """Points (P, 1, 3), weights psi^2 dV that sum to 1, and the score there."""
    points, volume = (torch.from_numpy(a) for a in quadrature(psi.molecule, 60, 16))
    near = points.norm(dim=1) < 30  # beyond, psi is zero in floating-point numbers
    x, volume = points[near, None].requires_grad_(), volume[near]
    log = psi.log_psi(x)
    (score,) = torch.autograd.grad(2 * log.sum(), x)
    weight = (2 * log.detach()).exp() * volume
    return x.detach(), weight / weight.sum(), score


def test_the_estimator_of_forces_has_the_mean_of_the_bare_one(ion):
    x, weight, score = on_grid(ion)
    force, _ = zero_variance(ION, x, score)
    d = x - ION.coordinates()
    bare = d / d.norm(dim=-1, keepdim=True) ** 3 + nuclear_forces(ION)
    got, truth = (torch.einsum("p,pak->ak", weight, f) for f in (force, bare))
    assert (got - truth).abs().max() < 2e-3 and truth[:, 2].abs().min() > 0.01
    spread = torch.einsum("p,pak->ak", weight, (force - got).square())
    assert float(spread.max()) < 0.2  # that of the bare force grows without bound


def test_nuclear_forces_are_the_derivative_of_the_repulsion():
    water = Molecule("H2O", [[0, 1.4, 1.1], [0, -1.4, 1.1], [0.1, 0, 0]])
    found, h = nuclear_forces(water), 1e-5
    for a in range(3):
        for k in range(3):
            shift = torch.zeros(3, 3).index_put(
                (torch.tensor(a), torch.tensor(k)), torch.tensor(h)
            )
            up, down = (
                Molecule(water.symbols, water.coordinates() + s).repulsion()
                for s in (shift, -shift)
            )
            assert float(found[a, k]) == pytest.approx(-(up - down) / (2 * h), abs=1e-6)


def test_dipole_and_density_of_walkers(ion):
    x, weight, _ = on_grid(ion)
    truth = weight @ dipole(ION, x)
    found = observables(ion, walkers=400, batches=8, burn_in=100)
    assert ((found.dipole.value - truth).abs() < 5 * found.dipole.error + 1e-3).all()
    # Cells of a half space and a slab in it, against the same quadrature.
    edges = ([-30.0, 0.0, 30.0], [-30.0, 30.0], [-30.0, -1.0, 0.5, 30.0])
    cells = density(ion, edges, walkers=400, batches=8, burn_in=100)
    side, height = x[:, 0, 0] > 0, torch.bucketize(x[:, 0, 2], torch.tensor([-1.0, 0.5]))
    for i in range(2):
        for k in range(3):
            share = float(weight[(side == bool(i)) & (height == k)].sum())
            volume = 30 * 60 * (29.0, 1.5, 29.5)[k]
            error = 5 * float(cells.error[i, 0, k]) * volume + 2e-3
            assert abs(float(cells.value[i, 0, k]) * volume - share) < error
    with pytest.raises(ValueError, match="edges has 2 sequences"):
        density(ion, edges[:2])
    with pytest.raises(ValueError, match="along y must be at least two ascending"):
        density(ion, (edges[0], [1.0, 0.0], edges[2]))


def test_forces_of_a_fitted_ion_are_the_slope_of_its_energy():
    """H2+ at 1.6 bohr: dE/dR by finite differences of exact diagonalisation is the truth."""
    pytest.importorskip("pyscf")
    from pyscf import gto, scf

    def exact(r):
        mole = gto.M(atom=f"H 0 0 0; H 0 0 {r}", unit="Bohr", basis="cc-pvqz", charge=1, spin=1,
                     verbose=0)  # fmt: skip
        return scf.UHF(mole).kernel()  # of one electron, exact but for the basis

    h = 0.01
    slope = (exact(1.6 + h) - exact(1.6 - h)) / (2 * h)
    molecule = Molecule("H2", [[0, 0, 0], [0, 0, 1.6]], charge=1)
    result = wqmc.fit(
        molecule, steps=60, batch_size=128, moves=5, width=8, depth=1, determinants=2,
        burn_in=100, evaluation_walkers=64, evaluation_batches=2, progress=False, device="cpu",
    )  # fmt: skip
    found = result.observables(walkers=500, batches=10)
    along = found.forces.value[:, 2]
    error = found.forces.error[:, 2]
    assert float(error.max()) < 0.01
    assert abs(float(along[1]) + slope) < 5 * float(error[1]) + 2e-3
    assert abs(float(along[0]) - slope) < 5 * float(error[0]) + 2e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "bond", "basis", "steps"), [("H2", 1.8, "cc-pvqz", 400), ("LiH", 3.5, "cc-pvtz", 800)]
)
def test_forces_of_several_electrons_are_the_slope_of_the_energy(name, bond, basis, steps):
    """dE/dR by finite differences of coupled cluster, which is exact in the basis for H2."""
    pytest.importorskip("pyscf")
    from pyscf import cc, gto, scf

    first, second = ("H", "H") if name == "H2" else ("Li", "H")

    def reference(r):
        atoms = f"{first} 0 0 0; {second} 0 0 {r}"
        mole = gto.M(atom=atoms, unit="Bohr", basis=basis, verbose=0)
        return cc.CCSD(scf.RHF(mole).run(conv_tol=1e-11)).run(conv_tol=1e-9).e_tot

    slope = (reference(bond + 0.02) - reference(bond - 0.02)) / 0.04
    molecule = Molecule(name, [[0, 0, 0], [0, 0, bond]])
    result = wqmc.fit(molecule, steps=steps, evaluation_batches=4, progress=False, device="cpu")
    forces = result.observables(batches=64).forces
    logger.info(
        "%s at %.2f bohr: forces %+.4f(%.4f) and %+.4f(%.4f), slope of the energy %+.4f",
        name,
        bond,
        *(float(v[i, 2]) for i in range(2) for v in (forces.value, forces.error)),
        slope,
    )
    for force, error, exact in zip(
        forces.value[:, 2].tolist(), forces.error[:, 2].tolist(), (slope, -slope), strict=True
    ):
        assert abs(force - exact) < 4 * error + 3e-3
    assert (forces.value[:, :2].abs() < 5 * forces.error[:, :2]).all()

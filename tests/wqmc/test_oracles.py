"""Local energies whose value is known exactly."""

import pytest
import torch

from sciflow.nn.laplacian import spread
from sciflow.wqmc import ANSAETZE, Molecule
from sciflow.wqmc.physics import (
    Coulomb,
    electron_repulsion,
    local_energy,
    local_energy_gradient,
)


def distance(x):
    return torch.sqrt(x.square().sum(-1))


@pytest.mark.parametrize("z, symbol", [(1, "H"), (2, "He"), (10, "Ne")])
def test_hydrogen_like_atom(z, symbol):
    """psi = exp(-Z r): E_loc = -Z^2 / 2 everywhere, and its gradient is zero."""
    atom = Molecule(symbol, [[0.1, -0.2, 0.3]], charge=z - 1)
    centre = atom.coordinates()

    def log_psi(x):
        return spread(-z * distance(x - centre).unsqueeze(-1)).sum((-2, -1))

    local, force = local_energy_gradient(log_psi, Coulomb(atom), torch.randn(64, 1, 3))
    assert (local.energy + z**2 / 2).abs().max() < 1e-9
    assert force.abs().max() < 1e-9 * z**3 * 10


@pytest.mark.parametrize("ansatz", ANSAETZE)
def test_every_ansatz_holds_the_hydrogen_atom_exactly(ansatz):
    """Without the network the start of one electron is exp(-r)."""
    psi = ANSAETZE[ansatz](Molecule("H"), determinants=1, width=4, depth=1).double()
    with torch.no_grad():
        psi.heads.zero_()
    local, force = local_energy_gradient(
        psi.log_psi, Coulomb(Molecule("H")), torch.randn(64, 1, 3)
    )
    assert (local.energy + 0.5).abs().max() < 1e-9
    assert force.abs().max() < 1e-8


def test_hookes_atom():
    """Two electrons in the trap k r^2 / 2 with k = omega^2 = 1/4 (Taut, PRA 48, 3561 (1993)).

    psi = (1 + r12 / 2) exp(-(r1^2 + r2^2) / 4), E = 3 omega + 1/2 = 2.
    """

    def log_psi(x):
        trap = spread(x.square().sum(-1, keepdim=True)).sum((-2, -1)) / 4
        x = spread(x)
        return torch.log(1 + distance(x[:, 0] - x[:, 1]) / 2) - trap

    def potential(x):
        return electron_repulsion(x) + x.square().sum((1, 2)) / 8

    local, force = local_energy_gradient(log_psi, potential, torch.randn(64, 2, 3))
    assert (local.energy - 2).abs().max() < 1e-9
    assert force.abs().max() < 1e-8


def test_helium_stays_finite_where_electrons_meet():
    """With both cusps the divergences of kinetic and potential energy cancel."""

    def log_psi(x):
        y = spread(x)
        nuclear = -2 * spread(distance(x).unsqueeze(-1)).sum((-2, -1))
        return nuclear + distance(y[:, 0] - y[:, 1]) / 2

    x = torch.tensor([[[0.5, 0.1, 0.2], [0.5, 0.1, 0.2]]])
    near, nearer = (
        local_energy(log_psi, Coulomb(Molecule("He")), x + torch.tensor([[[h], [0.0]]])).energy
        for h in (1e-3, 1e-4)
    )
    assert float((near - nearer).abs()) < 0.01 and float(nearer.abs()) < 10

import logging
import math

import pytest
import torch

from sciflow.wqmc import FermiNet, Molecule, evaluate
from sciflow.wqmc.elements import GEOMETRIES, shells
from sciflow.wqmc.start import basis, start


def test_names_formulas_and_units():
    lih = Molecule("LiH")
    assert (lih.n_electrons, lih.n_up, lih.n_down, lih.charges) == (4, 2, 2, (3, 1))
    assert lih.repulsion() == pytest.approx(3 / 3.015)
    water = Molecule("H2O", [[0, 0.757, 0.587], [0, -0.757, 0.587], [0, 0, 0]], unit="angstrom")
    assert water.symbols == ("H", "H", "O") and water.n_electrons == 10
    bond = math.dist(water.positions[0], water.positions[2])
    assert bond == pytest.approx(math.hypot(0.757, 0.587) / 0.529177210903)
    assert Molecule("N").spin == 3 and Molecule("Be").spin == 0
    for name in GEOMETRIES:
        assert Molecule(name).n_electrons > 0


def test_ions_and_spins():
    assert Molecule("Li", [[0, 0, 0]], charge=1).spin == 0  # as helium
    assert Molecule("H", [[0, 0, 0]], charge=-1).n_down == 1
    triplet = Molecule("He", [[0, 0, 0]], spin=2)
    assert (triplet.n_up, triplet.n_down) == (2, 0)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(symbols="Xx"), "no molecule 'Xx'; known are H2"),
        (dict(symbols=["Qq"], positions=[[0, 0, 0]]), "unknown element 'Qq'; known are H to Ar"),
        (dict(symbols="h2", positions=[[0, 0, 0]]), "'h2' is no chemical formula"),
        (dict(symbols="H2", positions=[[0, 0, 0]]), r"positions has shape \(1, 3\); expected \(2"),
        (dict(symbols="H2", positions=[[0, 0, 0], [0, 0, math.nan]]), "not finite"),
        (dict(symbols="H2", positions=[[0, 0, 0], [0, 0, 0.01]]), "nuclei 0 .* and 1 .* apart"),
        (dict(symbols="He", charge=2), "charge = 2 leaves 0 electrons"),
        (dict(symbols="He", charge=0.5), "charge must be a whole number"),
        (dict(symbols="He", spin=1), "spin = 1 .* does not fit 2 electrons.*an even number"),
        (dict(symbols="He", spin=4), "spin = 4 .* at most 2"),
        (dict(symbols="H", positions=[[0, 0, 0]], unit="nm"), "unit must be 'bohr' or 'angstrom'"),
    ],
)
def test_bad_input_is_named(arguments, message, unchecked):
    with pytest.raises(ValueError, match=message):
        Molecule(**arguments)


def test_xyz(tmp_path, caplog):
    path = tmp_path / "h2.xyz"
    path.write_text("2\nhydrogen\nH 0 0 0\nh 0 0 0.7408\n")
    assert math.dist(*Molecule.from_xyz(path).positions) == pytest.approx(1.4, abs=1e-3)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        Molecule.from_xyz(path, unit="bohr")
    assert "were the positions given in angstrom?" in caplog.text
    for text, message in (
        ("two\n", "line 1: expected the number of atoms, got 'two'"),
        ("2\n\nH 0 0 0\n", "line 4: expected symbol x y z, got 'the end of the file'"),
        ("1\n\nH 0 zero 0\n", "line 3: expected symbol x y z, got 'H 0 zero 0'"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            Molecule.from_xyz(path)


def test_pyscf():
    gto = pytest.importorskip("pyscf.gto")
    mole = gto.M(atom="Li 0 0 0; H 0 0 1.5955", basis="sto-3g", charge=1, spin=1, verbose=0)
    molecule = Molecule.from_pyscf(mole)
    assert (molecule.symbols, molecule.charge, molecule.spin) == (("Li", "H"), 1, 1)
    assert molecule.repulsion() == pytest.approx(mole.energy_nuc(), abs=1e-8)
    with pytest.raises(ValueError, match="pseudopotentials"):
        Molecule.from_pyscf(gto.M(atom="Na", basis="lanl2dz", ecp="lanl2dz", spin=1, verbose=0))


def test_slaters_rules():
    """The exponents of Slater's paper: He 1.70, C 5.70 and 1.625, Na 3s 2.20 / 3."""
    assert [s.exponent for s in shells(2)][0] == pytest.approx(1.70)
    carbon = {(s.n, s.l): s.exponent for s in shells(6)}
    assert carbon[1, 0] == pytest.approx(5.70)
    assert carbon[2, 0] == carbon[2, 1] == pytest.approx(1.625)
    sodium = {(s.n, s.l): s.exponent for s in shells(11)}
    assert sodium[3, 0] == pytest.approx(2.20 / 3)


def test_the_start_bonds_hydrogen():
    """The lowest orbital of H2 is the sum of both atoms with equal weight, the next not."""
    first = start(Molecule("H2"), 1).coefficients[0, :, 0, 0]
    s = first[[0, 4]]
    assert s[0] == pytest.approx(float(s[1])) and float(s.abs().min()) > 0.1
    with pytest.raises(ValueError, match="needs 5 orbitals of one spin; the shells of H have 4"):
        start(Molecule("H", [[0, 0, 0]], charge=-4, spin=5), 1)
    assert torch.isfinite(start(Molecule("N2"), 4).coefficients).all()


def test_the_start_of_beryllium_is_near_hartree_fock():
    """The Hartree-Fock limit is -14.573 hartree; with 2p filled for 2s the start is at -14.25."""
    psi = FermiNet(Molecule("Be"), determinants=1, width=4, depth=1)
    with torch.no_grad():
        psi.heads.zero_()
    found = evaluate(psi, walkers=256, batches=6, burn_in=150)
    assert -14.67 - 5 * found.error < found.energy < -14.42 + 5 * found.error


@pytest.mark.parametrize(("name", "first", "pairs"), [("Be", 0, 2), ("B", 1, 2), ("C", 2, 1)])
def test_determinants_of_the_start_have_one_parity(name, first, pairs):
    """Pairs are excited, 2s2 to 2p2: an even number of s orbitals becomes p."""
    molecule = Molecule(name)
    p = torch.tensor([f.axis >= 0 for f in basis(molecule)])
    in_p = start(molecule, 3).coefficients[:, p].abs().amax((0, 1)) > 1e-6  # (K, N)
    excited = in_p.sum(1) - in_p[0].sum()
    assert in_p[0].sum() == first
    assert (excited[1:] == 2).sum() == pairs
    assert (excited % 2 == 0).all()

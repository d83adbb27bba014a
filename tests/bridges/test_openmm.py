"""A short simulation of alanine dipeptide, continued, and read back."""

import mdtraj as md
import numpy as np
import pytest

pytest.importorskip("openmm")

from sciflow.bridges.openmm import SimulationOptions, simulate
from sciflow.errors import DataError
from sciflow.systems import conformations

SHORT = {"time": 0.001, "interval": 0.1, "equilibration": 0.1}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("md") / "whole.dcd"
    return simulate(path, options=SimulationOptions(**SHORT, progress=False))


def test_trajectory(whole):
    run = md.load(str(whole), top=str(whole.with_suffix(".pdb")))
    assert (run.n_frames, run.n_atoms) == (10, 22)
    heavy = conformations(run, "element != H")
    assert list(heavy.molecule.torsions()) == ["phi", "psi", "omega1", "omega2"]
    bonds = [(a.index, b.index) for a, b in run.topology.bonds]
    lengths = md.compute_distances(run, bonds)
    assert 0.09 < lengths.min() and lengths.max() < 0.17
    # Bonds to hydrogen are constrained, the others are not; DCD is in single precision.
    light = [
        i
        for i, pair in enumerate(bonds)
        if any(run.topology.atom(k).element.symbol == "H" for k in pair)
    ]
    spread = lengths.std(0)
    assert spread[light].max() < 2e-6 and np.delete(spread, light).min() > 1e-4


def test_resume_is_the_same_trajectory(whole, tmp_path):
    path = tmp_path / "part.dcd"
    half = SHORT | {"time": 0.0005}
    simulate(path, options=SimulationOptions(**half, progress=False))
    simulate(path, options=SimulationOptions(**SHORT, progress=False, resume=True))
    first, second = (md.load(str(p), top=str(whole.with_suffix(".pdb"))) for p in (whole, path))
    np.testing.assert_array_equal(first.xyz, second.xyz)


def test_seeds_differ(whole, tmp_path):
    other = simulate(
        tmp_path / "b.dcd", options=SimulationOptions(**SHORT, progress=False, seed=1)
    )
    first, second = (md.load(str(p), top=str(whole.with_suffix(".pdb"))) for p in (whole, other))
    assert np.abs(first.xyz - second.xyz).max() > 1e-3


def test_bad_arguments(whole, tmp_path):
    with pytest.raises(DataError, match="exists"):
        simulate(whole)
    with pytest.raises(ValueError, match="must end in .dcd"):
        simulate(tmp_path / "a.xtc")
    with pytest.raises(DataError, match="nothing to resume"):
        simulate(tmp_path / "a.dcd", options=SimulationOptions(resume=True))
    with pytest.raises(ValueError, match="temperature must be positive"):
        SimulationOptions(temperature=-1.0)
    with pytest.raises(ValueError, match="make 0 frames"):
        SimulationOptions(time=1e-6, interval=1.0)

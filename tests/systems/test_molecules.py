"""Molecules of mdtraj: selection, boxes, runs, torsions, and velocities that must be refused."""

import math
from dataclasses import replace

import mdtraj as md
import numpy as np
import pytest
import torch

from sciflow.data import alanine_dipeptide
from sciflow.systems import check_velocities, conformations, equipartition, to_trajectory
from sciflow.systems.trajectories import make_whole
from sciflow.units import GAS_CONSTANT


@pytest.fixture(scope="module")
def files(data_dir):
    folder = data_dir / "ala2" / "msmbuilder-tutorial"
    return [folder / "XTC" / f"RUN{i:02d}" / "frame0.xtc" for i in range(3)], folder / "native.pdb"


@pytest.fixture(scope="module")
def runs(files):
    xtc, pdb = files
    return [md.load(str(file), top=str(pdb)) for file in xtc]


def test_selection_masses_and_torsions(runs):
    heavy = conformations(runs[0], "element != H")
    assert heavy.positions.shape == (501, 10, 3) and heavy.positions.dtype == torch.float64
    assert heavy.molecule.labels[4] == "ALA2-CA"
    assert float(heavy.masses[4]) == pytest.approx(12.011, abs=1e-3)
    by_number = conformations(runs[0], [1, 4, 5, 6, 8, 10, 14, 15, 16, 18])
    torch.testing.assert_close(by_number.positions, heavy.positions)
    by_name = conformations(runs[0], ["ACE1-C", "ALA2-N", "CA", "ALA2-C"])
    exact = torch.from_numpy(md.compute_phi(runs[0])[1]).double()
    torch.testing.assert_close(by_name.torsions("phi"), exact, atol=1e-5, rtol=0)
    psi = torch.from_numpy(md.compute_psi(runs[0])[1]).double()
    torch.testing.assert_close(heavy.torsions("psi"), psi, atol=1e-5, rtol=0)
    own = heavy.torsions(("ALA2-N", "CA", "ALA2-C", "NME3-N"))
    torch.testing.assert_close(own, heavy.torsions("psi"))
    assert list(heavy.molecule.torsions()) == ["phi", "psi", "omega1", "omega2"]
    whole = conformations(runs[0])
    assert whole.internal_coordinates().n_dim == 60
    assert (
        conformations(runs[0], by_name.molecule.labels, masses=[1.0, 2.0, 3.0, 4.0]).masses[3] == 4
    )


def test_runs_and_chunks(runs, files):
    xtc, pdb = files
    together = conformations(runs, "element != H")
    assert together.runs == (0, 1, 2) and len(together) == 1503
    chunks = md.iterload(str(xtc[0]), top=str(pdb), chunk=77)
    streamed = conformations(chunks, "element != H")
    torch.testing.assert_close(streamed.positions, together.take([0]).positions)
    assert streamed.runs == (0,)
    train, held = together.split([1])
    assert train.runs == (0, 2) and held.runs == (1,) and len(held) == 501
    drawn = together.split(0.3, seed=1)[1]
    assert len(drawn.runs) == 1
    first, last = streamed.split(0.2)
    torch.testing.assert_close(last.positions, streamed.positions[len(first) :])
    assert len(last) == 100


def test_named_data_agree_with_trajectory_files(runs):
    ours = conformations(alanine_dipeptide([0, 1, 2]))
    theirs = conformations(runs, "element != H")
    torch.testing.assert_close(ours.positions, theirs.positions, atol=1e-6, rtol=0)
    assert ours.molecule.labels == theirs.molecule.labels
    assert sorted(map(sorted, ours.molecule.bonds)) == sorted(map(sorted, theirs.molecule.bonds))


def test_box_broken_molecule(runs):
    """Atoms scattered over the images of a skewed box, and a molecule wrapped into it."""
    run = runs[0][:50]
    whole = conformations(run, "element != H").internal_coordinates()
    expected = whole(conformations(run, "element != H").positions)[0]
    random = np.random.default_rng(0)
    shifts = random.integers(-2, 3, (run.n_frames, run.n_atoms, 3)).astype(float)
    box = run.unitcell_vectors.astype(float)
    broken = md.Trajectory(
        run.xyz + np.einsum("fai,fij->faj", shifts, box),
        run.topology,
        unitcell_lengths=run.unitcell_lengths,
        unitcell_angles=run.unitcell_angles,
    )
    mended = conformations(broken, "element != H")
    # Single precision of positions of several nm is some 1e-6 nm.
    torch.testing.assert_close(whole(mended.positions)[0], expected, atol=3e-5, rtol=0)
    x = torch.from_numpy(run.xyz.astype(float))
    vectors = torch.from_numpy(box)
    bonds = [(a.index, b.index) for a, b in run.topology.bonds]
    scattered = x + torch.from_numpy(np.einsum("fai,fij->faj", shifts, box))
    again = make_whole(scattered, vectors, bonds)
    torch.testing.assert_close(torch.cdist(again, again), torch.cdist(x, x), atol=1e-9, rtol=0)
    with pytest.raises(ValueError, match="box without volume"):
        make_whole(x, torch.zeros_like(vectors), bonds)


def test_back_to_mdtraj(runs, tmp_path):
    heavy = conformations(runs[0][:5], "element != H")
    out = to_trajectory(heavy.positions, heavy.molecule)
    out.save_pdb(str(tmp_path / "out.pdb"))
    again = conformations(md.load(str(tmp_path / "out.pdb")))
    torch.testing.assert_close(again.positions, heavy.positions, atol=1e-4, rtol=0)
    assert again.molecule.labels == heavy.molecule.labels
    np.testing.assert_allclose(md.compute_phi(out)[1], md.compute_phi(runs[0][:5])[1], atol=1e-5)


def test_bad_input(runs, unchecked):
    run = runs[0]
    with pytest.raises(ValueError, match="no atoms called 'CG'"):
        conformations(run, ["CA", "CG"])
    with pytest.raises(ValueError, match="no selection of mdtraj"):
        conformations(run, "nonsense of atoms")
    with pytest.raises(ValueError, match="chooses 0 atoms"):
        conformations(run, "element == Fe")
    with pytest.raises(ValueError, match="no atom 99; the topology has 22"):
        conformations(run, [0, 99])
    with pytest.raises(ValueError, match="masses has 3 entries for 10 atoms"):
        conformations(run, "element != H", masses=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="expected a positive mass"):
        conformations(run, [1, 4, 5], masses=[1.0, 0.0, 3.0])
    with pytest.raises(ValueError, match="has 1 frame"):
        conformations(run[:1])
    with pytest.raises(ValueError, match="another topology"):
        conformations([run, run.atom_slice([0, 1, 2])])
    with pytest.raises(TypeError, match="expected a mdtraj.Trajectory"):
        conformations([np.zeros((3, 3))])
    with pytest.raises(ValueError, match="no trajectories"):
        conformations([])
    broken = run[:3]
    broken.xyz[1, 8] = np.nan
    with pytest.raises(ValueError, match="ALA2-CA in frame 1"):
        conformations(broken, "element != H")
    heavy = conformations(run, "element != H")
    with pytest.raises(ValueError, match="no torsion 'chi'"):
        heavy.torsions("chi")
    with pytest.raises(ValueError, match="2 atoms called 'O'"):
        heavy.torsions(("O", "CA", "CB", "ALA2-C"))
    with pytest.raises(ValueError, match="do not join the atoms"):
        conformations(run, ["CA", "ALA2-C", "ALA2-O", "ACE1-CH3"]).internal_coordinates()
    with pytest.raises(ValueError, match="runs"):
        heavy.split([4])
    with pytest.raises(ValueError, match="between 0 and 1"):
        heavy.split(1.5)


def velocities_of(heavy, temperature, n=4000, seed=1):
    generator = torch.Generator().manual_seed(seed)
    kT = GAS_CONSTANT * temperature / 1000
    noise = torch.randn(n, len(heavy.molecule), 3, generator=generator)
    return noise * (kT / heavy.masses)[:, None].sqrt()


def test_velocities(runs, unchecked):
    heavy = conformations(runs, "element != H")
    x = heavy.positions[:1000].repeat(4, 1, 1)
    v = velocities_of(heavy, 300.0)
    check_velocities(v, x, heavy.molecule, 300.0)
    ratio, error = equipartition(v, heavy.masses, 300.0)
    assert ((ratio - 1).abs() < 5 * error + 0.02).all()
    # 4000 frames of three components: standard deviation sqrt(2/3n) of the mean of chi^2 / 3.
    torch.testing.assert_close(error.mean(), torch.tensor(math.sqrt(2 / 12000)), rtol=0.35, atol=0)
    masses = heavy.masses[:, None]
    resting = v - (masses * v).sum(1, keepdim=True) / masses.sum()
    lower, _ = equipartition(resting, heavy.masses, 300.0)
    torch.testing.assert_close(lower, 1 - heavy.masses / heavy.masses.sum(), atol=0.06, rtol=0)
    with pytest.raises(ValueError, match="centre of mass was removed"):
        check_velocities(resting, x, heavy.molecule, 300.0)
    with pytest.raises(ValueError, match="expected 1. The temperature is another"):
        check_velocities(v, x, heavy.molecule, 350.0)
    # A constraint on the bond C-O takes the relative velocity along it away.
    a, b = 1, 2
    along = torch.nn.functional.normalize(x[:, a] - x[:, b], dim=1)
    rate = ((v[:, a] - v[:, b]) * along).sum(1, keepdim=True) * along
    reduced = 1 / (1 / heavy.masses[a] + 1 / heavy.masses[b])
    rigid = v.clone()
    rigid[:, a] -= reduced / heavy.masses[a] * rate
    rigid[:, b] += reduced / heavy.masses[b] * rate
    with pytest.raises(ValueError, match=r"do not stretch 1 bonds \(C-O"):
        check_velocities(rigid, x, heavy.molecule, 300.0)
    unbonded = replace(heavy.molecule, bonds=())
    with pytest.raises(ValueError, match="break equipartition for 2 of 10"):
        check_velocities(rigid, x, unbonded, 300.0)
    with pytest.raises(ValueError, match="expected that of the positions"):
        check_velocities(v[:10], x, heavy.molecule, 300.0)
    with pytest.raises(ValueError, match="not finite"):
        check_velocities(v / 0, x, heavy.molecule, 300.0)

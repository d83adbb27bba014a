"""Fits to trajectories: invariance, files, structures along a mode, alanine dipeptide."""

import logging
import math
import time
from dataclasses import replace

import mdtraj as md
import numpy as np
import pytest
import torch

from sciflow import nct
from sciflow.data import alanine_dipeptide
from sciflow.nct.baselines import information_table
from sciflow.nct.evaluate import Arc, score
from sciflow.nct.natural import BULK
from sciflow.systems import conformations
from sciflow.units import kT

KT = kT(300.0)
SHORT = {"steps": 30, "batch_size": 128, "width": 16, "progress": False, "dtype": "float64"}

log = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def runs(data_dir):
    return alanine_dipeptide(range(4))


@pytest.fixture(scope="module")
def model(runs):
    return nct.fit_samples(runs, kT=KT, **SHORT)


def test_a_fit_to_trajectories(model, runs):
    assert model.n_dim == 24 and model.frequencies.shape == (24,)
    assert float(model.frequencies.cm1[0]) > 5  # no rigid modes
    assert (model.frequencies.diff() >= 0).all()
    frames = conformations(runs)
    modes = model.modes(runs[0])
    torch.testing.assert_close(modes, model.modes(frames.take([0]).positions))
    angles = frames.torsions("phi", "psi")
    table = information_table(
        model.modes(frames.positions), angles, ["phi", "psi"], torch.Generator().manual_seed(0)
    )
    assert float(table.value[:2].max(0).values.min()) > 0.6


def test_natural_frequencies_are_rayleigh_quotients(model, runs):
    """omega_k^2 = kT E[grad Q_k M^-1 grad Q_k] / Var Q_k over the bulk, by differentiation."""
    frames = conformations(runs)
    spread = math.sqrt(KT) / model.frequencies
    inside = (model.modes(frames.positions).abs() < BULK * spread).all(1)
    x = frames.positions[inside].requires_grad_()
    Q, _ = model.coordinates(x)
    for k in (0, 1, 12, 23):
        (gradient,) = torch.autograd.grad(Q[:, k].sum(), x, retain_graph=True)
        kinetic = (gradient.square() / frames.masses[:, None]).sum((1, 2)).mean()
        omega = (KT * kinetic).sqrt() / spread[k]
        assert float(omega / model.frequencies[k]) == pytest.approx(1, abs=0.05)


def transformed(frames, seed=3):
    """The frames turned and shifted each by its own amount, and in another order."""
    generator = torch.Generator().manual_seed(seed)
    n = len(frames)
    q, _ = torch.linalg.qr(torch.randn(n, 3, 3, generator=generator))
    q = q * torch.linalg.det(q)[:, None, None]
    moved = frames.positions @ q.mT + torch.randn(n, 1, 3, generator=generator)
    order = torch.randperm(n, generator=generator)
    return replace(frames, positions=moved[order], run=frames.run[order]), order


def test_modes_of_moved_and_permuted_frames(model, runs):
    frames = conformations(runs)
    other, order = transformed(frames)
    # The model sees the same molecule, and a fit to the others is the same model.
    modes = model.modes(frames.positions)
    torch.testing.assert_close(model.modes(other.positions), modes[order], atol=1e-8, rtol=0)
    first, again = (nct.fit_samples(x, kT=KT, **(SHORT | {"steps": 10})) for x in (frames, other))
    torch.testing.assert_close(again.frequencies, first.frequencies, atol=0, rtol=1e-6)
    modes = first.modes(frames.positions)
    difference = (again.modes(frames.positions) - modes) / modes.std(0)
    assert float(difference.abs().max()) < 1e-4


def test_modes_of_box_broken_molecule(model, data_dir):
    folder = data_dir / "ala2" / "msmbuilder-tutorial"
    run = md.load(str(folder / "XTC" / "RUN02" / "frame0.xtc"), top=str(folder / "native.pdb"))
    random = np.random.default_rng(0)
    shifts = random.integers(-1, 2, (run.n_frames, run.n_atoms, 3)).astype(float)
    broken = md.Trajectory(
        run.xyz + np.einsum("fai,fij->faj", shifts, run.unitcell_vectors),
        run.topology,
        unitcell_lengths=run.unitcell_lengths,
        unitcell_angles=run.unitcell_angles,
    )
    expected = model.modes(run)
    # mdtraj holds single precision: positions of 5 nm are rounded by 2e-7 nm.
    difference = (model.modes(broken) - expected) / expected.std(0)
    assert float(difference.abs().max()) < 1e-3
    box = torch.from_numpy(run.unitcell_vectors.astype(float))
    from sciflow.systems.trajectories import make_whole, select

    x = torch.from_numpy(run.xyz.astype(float))
    moved = x + torch.einsum("fai,fij->faj", torch.from_numpy(shifts), box)
    bonds = [(a.index, b.index) for a, b in run.topology.bonds]
    whole = make_whole(moved, box, bonds)[:, select(run.topology, "element != H")]
    exact = (model.modes(whole) - expected) / expected.std(0)
    assert float(exact.abs().max()) < 1e-8


def test_files_and_structures_along_a_mode(model, runs, tmp_path):
    again = nct.load(model.save(tmp_path / "model.safetensors"))
    assert again.molecule == model.molecule
    torch.testing.assert_close(again.modes(runs[1]), model.modes(runs[1]))
    path = nct.mode_trajectory(model, 1, n=9, width=2.0)
    assert (path.n_frames, path.n_atoms) == (9, 10)
    Q = model.modes(path)
    steps = torch.linspace(-2, 2, 9) * math.sqrt(KT) / float(model.frequencies[1])
    torch.testing.assert_close(Q[:, 1] - Q[4, 1], steps, atol=2e-3 * float(steps[-1]), rtol=0)
    start = nct.mode_trajectory(model, 0, n=3, q=runs[0][:1])
    middle = conformations(start).positions
    rest = model.modes(middle)[:, 1:] - model.modes(runs[0][:1])[:, 1:]
    assert float((rest / model.modes(runs[0]).std(0)[1:]).abs().max()) < 1e-3
    drawn = nct.sample_trajectory(model, 50, seed=1)
    assert drawn.n_frames == 50 and np.isfinite(drawn.xyz).all()


def test_selection_cuts_and_chunks(data_dir):
    folder = data_dir / "ala2" / "msmbuilder-tutorial"
    file, top = str(folder / "XTC" / "RUN00" / "frame0.xtc"), str(folder / "native.pdb")
    options = SHORT | {"steps": 3}
    atoms = ["ACE1-C", "ALA2-N", "CA", "ALA2-C", "NME3-N"]
    model = nct.fit_samples(
        md.iterload(file, top=top, chunk=100), kT=KT, atoms=atoms, cuts={"psi": -2.27}, **options
    )
    assert model.n_dim == 9 and len(model.molecule) == 5
    whole = nct.fit_samples(
        md.load(file, top=top), kT=KT, atoms=atoms, cuts={"psi": -2.27}, **options
    )
    torch.testing.assert_close(whole.frequencies, model.frequencies)


def test_bad_arguments(runs, model, unchecked):
    with pytest.raises(ValueError, match="kT .* is needed for a molecule"):
        nct.fit_samples(runs)
    with pytest.raises(ValueError, match="masses has 3 entries for 10 atoms"):
        nct.fit_samples(runs, [1.0, 2.0, 3.0], KT)
    with pytest.raises(ValueError, match="expected one for each atom"):
        nct.fit_samples(runs, 12.0, KT)
    with pytest.raises(ValueError, match="no atoms called 'CG'"):
        nct.fit_samples(runs, kT=KT, atoms=["CA", "CG"])
    with pytest.raises(ValueError, match="has 1 frame"):
        nct.fit_samples(runs[0][:1], kT=KT)
    with pytest.raises(ValueError, match="atoms and cuts are for trajectories"):
        nct.fit_samples(torch.zeros(100, 2), atoms="all")
    with pytest.raises(ValueError, match="no atoms called 'ALA2-N'"):
        model.modes(runs[0].atom_slice([0, 1, 2]))
    with pytest.raises(ValueError, match="mode must be between"):
        nct.mode_trajectory(model, 24)


@pytest.mark.slow
@pytest.mark.parametrize("torsion_first", [True, False])
def test_alanine_dipeptide(data_dir, torsion_first):
    """Runs 0-89 fitted, 90-99 held out: likelihood, information, free energies, no rigid modes."""
    frames = conformations(alanine_dipeptide())
    train, held_out = frames.split(range(90, 100))
    start = time.process_time()
    model = nct.fit_samples(train, kT=KT, torsion_first=torsion_first, progress=False)
    seconds = time.process_time() - start
    scores = score(
        model, train, held_out, {"phi": Arc("phi", 0.0, 2.2), "alpha": Arc("psi", -2.2, 1.0)}
    )
    log.info("%.0f s of CPU time\n%s", seconds, scores.table())
    assert scores.likelihoods["model"].value <= -27.9
    information = scores.information["model"].value
    by_psi, by_phi = int(information[:, 1].argmax()), int(information[:, 0].argmax())
    assert sorted([by_psi, by_phi]) == [0, 1]
    assert float(information[by_psi, 1]) >= 1.5 and float(information[by_phi, 0]) >= 0.8
    assert max(float(information[by_psi, 0]), float(information[by_phi, 1])) <= 0.3
    for state in ("phi", "alpha"):
        data, found = (scores.differences[state][name] for name in ("train", "model"))
        # Couplings of torsions that see stiff coordinates too put less into the rare state.
        assert abs(found.value - data.value) <= data.error * (1 if torsion_first else 2)
    assert float(model.frequencies.cm1[0]) > 5

"""Trajectory files in chunks, and the verb that fits them."""

import mdtraj as md
import pytest
import torch

from sciflow.bridges.mdtraj import read_trajectories
from sciflow.cli import main
from sciflow.data import alanine_dipeptide
from sciflow.errors import DataError
from sciflow.systems import conformations


@pytest.fixture(scope="module")
def files(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trajectories")
    runs = alanine_dipeptide([0, 1, 2])
    for i, run in enumerate(runs[:2]):
        run.save_dcd(str(folder / f"{i}.dcd"))
    runs[2].save_pdb(str(folder / "2.pdb"))
    runs[0][:1].save_pdb(str(folder / "top.pdb"))
    return [folder / "0.dcd", folder / "1.dcd", folder / "2.pdb"], folder / "top.pdb"


def test_reading(files):
    paths, top = files
    frames = read_trajectories(paths, top, chunk=100)
    expected = conformations(alanine_dipeptide([0, 1, 2]))
    torch.testing.assert_close(frames.positions, expected.positions, atol=1e-4, rtol=0)
    torch.testing.assert_close(frames.run, expected.run)
    thin = read_trajectories(paths[:1], top, stride=10)
    torch.testing.assert_close(thin.positions, frames.positions[:501:10])


def test_bad_files(files, tmp_path):
    paths, top = files
    with pytest.raises(DataError, match="no such file"):
        read_trajectories([tmp_path / "no.dcd"], top)
    with pytest.raises(DataError, match="no topology of its own"):
        read_trajectories(paths[:1])
    (tmp_path / "bad.dcd").write_bytes(b"not a trajectory")
    with pytest.raises(DataError, match="not a trajectory that mdtraj reads"):
        read_trajectories([tmp_path / "bad.dcd"], top)
    with pytest.raises(DataError, match="no trajectory files"):
        read_trajectories([], top)


def test_verb(files, tmp_path, capsys):
    paths, top = files
    model = tmp_path / "model.safetensors"
    words = ["nct", "molecule", *map(str, paths), "--model", str(model), "--topology", str(top)]
    assert main([*words, "--steps", "3", "--width", "8", "--no-progress"]) == 0
    assert "frequencies [cm^-1]" in capsys.readouterr().out
    assert model.is_file() and md.load(str(tmp_path / "model-mode-1.pdb")).n_frames == 21
    assert (
        main(["nct", "molecule", str(paths[0]), "--model", "a.txt", "--topology", str(top)]) == 2
    )
    assert "model must end in .safetensors" in capsys.readouterr().err

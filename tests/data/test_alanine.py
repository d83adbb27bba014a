"""The reader of the mdshare layout and of the runs of alanine dipeptide."""

import numpy as np
import pytest

from sciflow.data import alanine_dipeptide, read_mdshare
from sciflow.errors import DataError


def test_runs(data_dir):
    runs = alanine_dipeptide()
    assert len(runs) == 100 and all(run.xyz.shape == (501, 10, 3) for run in runs)
    with pytest.raises(DataError, match="runs 0 to 99"):
        alanine_dipeptide([100])


def test_mdshare_layout(data_dir, tmp_path):
    runs = alanine_dipeptide([3, 4, 5])
    file = tmp_path / "positions.npz"
    np.savez(file, *(run.xyz.reshape(501, 30) for run in runs))
    again = read_mdshare(file)
    assert len(again) == 3
    np.testing.assert_array_equal(again[1].xyz, runs[1].xyz)
    assert again[0].topology == runs[0].topology


def test_bad_mdshare_files(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_mdshare(tmp_path / "none.npz")
    np.savez(tmp_path / "a.npz", phi=np.zeros(3))
    with pytest.raises(DataError, match=r"expected arr_0"):
        read_mdshare(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", np.zeros((5, 2)))
    with pytest.raises(DataError, match=r"arr_0 has shape \(5, 2\)"):
        read_mdshare(tmp_path / "b.npz")

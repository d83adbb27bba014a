"""Files of fitted cells: whole or not there at all, and never the input."""

import csv
import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from sciflow import DataError, SciflowError, wlf
from sciflow.bridges import files
from sciflow.bridges.cell_table import as_json, csv_header, describe, write_whole
from sciflow.data import read_cells

SHORT = {"steps": 5, "width": 8, "depth": 1, "batch_size": 32, "progress": False, "device": "cpu"}


@pytest.fixture
def cells(tmp_path):
    r = np.random.default_rng(1)
    time = np.repeat([0.0, 1.0, 3.0], 9)
    np.savez(tmp_path / "in.npz", pcs=r.normal(size=(27, 3)) + time[:, None], day=time)
    return read_cells(tmp_path / "in.npz")


@pytest.fixture
def model(cells):
    return wlf.fit(cells.snapshots(), **SHORT)


def test_csv_loses_no_digit(cells, model, tmp_path):
    out, model_file = files.write_fit(cells, model, tmp_path / "out.csv", {})
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == csv_header(cells.features)
    table = describe(model, cells.names, cells.features, cells.time, cells.x)
    for i, feature in enumerate(cells.features):
        assert [float(row[feature]) for row in rows] == cells.x[:, i].tolist()
        velocity = [float(row[f"velocity_{feature}"]) for row in rows]
        assert velocity == table.velocity[:, i].tolist()
    assert [row["cell"] for row in rows] == cells.names
    again = read_cells(out, rep="PC")
    np.testing.assert_array_equal(again.x, cells.x)
    assert wlf.load(model_file).action() == model.action()


def test_many_cells_pass_in_chunks(cells, model, monkeypatch):
    whole = describe(model, cells.names, cells.features, cells.time, cells.x)
    monkeypatch.setattr("sciflow.bridges.cell_table._CHUNK", 4)
    parts = describe(model, cells.names, cells.features, cells.time, cells.x)
    np.testing.assert_allclose(parts.velocity, whole.velocity, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(parts.potential, whole.potential, rtol=1e-5, atol=1e-6)
    with pytest.raises(DataError, match="have 2 features.*fitted on 3"):
        describe(model, cells.names, cells.features[:2], cells.time, cells.x[:, :2])


def test_the_input_is_refused_by_any_name(cells, tmp_path):
    before = cells.path.read_bytes()
    (tmp_path / "link.npz").symlink_to(cells.path)
    os.link(cells.path, tmp_path / "hard.npz")
    (tmp_path / "sub").mkdir()
    for name in ("in.npz", "link.npz", "hard.npz", "sub/../in.npz"):
        with pytest.raises(DataError, match="is the input"):
            files.reserve(cells, tmp_path / name)
    assert cells.path.read_bytes() == before


def test_paths_that_cannot_be_written(cells, tmp_path, monkeypatch):
    for name, words in {
        "out.txt": "cannot write '.txt'",
        "out": "cannot write ''",
        "in.npz/out.csv": "cannot write .*out.csv",
    }.items():
        with pytest.raises(DataError, match=words):
            files.reserve(cells, tmp_path / name)
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "model.safetensors").mkdir()
    for name in ("folder.csv", "model.csv"):
        with pytest.raises(DataError, match="is a folder"):
            files.reserve(cells, tmp_path / name)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"No space left.*MB needed"):
        files.reserve(cells, tmp_path / "out.csv")
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["folder.csv", "in.npz", "model.safetensors"]


def test_a_failed_write_keeps_what_was_there(tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("of yesterday")

    def half(temporary: Path) -> None:
        temporary.write_text("half a fi")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(SciflowError, match=r"out\.csv.*No space left"):
        write_whole(path, half)
    assert path.read_text() == "of yesterday"
    assert [file.name for file in tmp_path.iterdir()] == ["out.csv"]


def test_settings_of_any_kind_become_json():
    """A seed from numpy or a path must not fail after the training, when they are written."""
    config = {"seed": np.int64(3), "lr": np.float32(0.5), "out": Path("runs"), "clip": None}
    assert json.loads(as_json(config)) == {"seed": 3, "lr": 0.5, "out": "runs", "clip": None}


def test_columns_of_one_name():
    with pytest.raises(DataError, match="potential"):
        csv_header(["x1", "potential"])


def test_prediction_reads_the_file_as_the_fit_did(tmp_path):
    r = np.random.default_rng(2)
    time = np.repeat([0.0, 2.0], 8)
    arrays = {"pcs": r.normal(size=(16, 5)), "other": r.normal(size=(16, 5)), "t": time}
    np.savez(tmp_path / "in.npz", **arrays)
    cells = read_cells(tmp_path / "in.npz", rep="other", n_dims=2)
    model = wlf.fit(cells.snapshots(), **SHORT)
    _, model_file = files.write_fit(cells, model, tmp_path / "fit.npz", {})
    out = files.predict_file(model_file, cells.path, tmp_path / "out.npz", 0.0, [1.0], 20)
    x0 = torch.tensor(arrays["other"][:8, :2])
    moved = model.trajectories(x0, torch.tensor([0.0, 1.0]), 20).x[-1].numpy()
    with np.load(out) as found:
        np.testing.assert_allclose(found["x"], moved, rtol=1e-6)
        assert found["names"].tolist() == [str(i) for i in range(8)]
        assert (found["t"] == 1.0).all()
    # Told otherwise, it does otherwise.
    files.predict_file(model_file, cells.path, out, 0.0, [1.0], 20, rep="pcs")
    with np.load(out) as found:
        assert np.abs(found["x"] - moved).max() > 0.1


def test_features_of_another_name_are_refused(tmp_path):
    lines = [f"{i % 2},{i / 7},{-i / 5}" for i in range(12)]
    (tmp_path / "a.csv").write_text("\n".join(["t,alpha,beta", *lines]))
    (tmp_path / "b.csv").write_text("\n".join(["t,beta,alpha", *lines]))
    cells = read_cells(tmp_path / "a.csv")
    model = wlf.fit(cells.snapshots(), **SHORT)
    _, model_file = files.write_fit(cells, model, tmp_path / "fit.csv", {})
    with pytest.raises(DataError, match=r"beta, alpha.*fitted on alpha, beta"):
        files.predict_file(model_file, tmp_path / "b.csv", tmp_path / "o.csv", 0.0, [1.0])
    assert not (tmp_path / "o.csv").exists()
    with pytest.raises(DataError, match="no file"):
        files.predict_file(tmp_path / "no", cells.path, tmp_path / "o.csv", 0.0, [1.0])

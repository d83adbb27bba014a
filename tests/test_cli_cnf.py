"""The verbs of ``sciflow cnf`` as a user meets them: files that read back, errors of one line."""

import math

import numpy as np
import pytest
import torch

from sciflow import cnf
from sciflow.cli import main
from sciflow.data import read_samples

SHORT = ("--matching-steps=30", "--likelihood-steps=2", "--width=8", "--depth=1", "--device=cpu",
         "--n-steps=2", "--no-progress")  # fmt: skip


def table(n=60):
    return np.random.default_rng(0).normal(size=(n, 2)) @ np.array([[1.0, 0.4], [0.0, 0.5]]) + 3


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "in.csv"
    np.savetxt(path, table(), delimiter=",", header="height,width", comments="")
    return path


@pytest.fixture
def model(tmp_path, csv, capsys):
    path = tmp_path / "model.safetensors"
    assert main(["cnf", "fit", str(csv), str(path), *SHORT]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("mean log-density of held-out rows: ") and out[1] == str(path)
    return path


def refused(capsys, *words):
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    return [line for line in err.splitlines() if "error: " in line][0]


def test_sample_and_density_agree_in_every_kind_of_file(model, tmp_path, capsys):
    for suffix in ("csv", "npz"):
        drawn, rated = tmp_path / f"drawn.{suffix}", tmp_path / f"rated.{suffix}"
        assert main(["cnf", "sample", str(model), str(drawn), "--n=20", "--seed=3"]) == 0
        assert main(["cnf", "density", str(model), str(drawn), str(rated)]) == 0
        assert "mean log-density: " in capsys.readouterr().out
        if suffix == "csv":
            own, again = read_samples(drawn, ["log_prob"]).x, read_samples(rated)
            assert again.names == ["height", "width", "log_prob", "log_prob_error"]
            again = again.x
        else:
            own, again = np.load(drawn)["log_prob"][:, None], np.load(rated)
            again = np.stack([again["log_prob"], again["log_prob_error"]], 1)
        assert np.allclose(own[:, 0], again[:, -2], atol=1e-3)
        assert (again[:, -1] < 1e-2).all()
    array = tmp_path / "drawn.npy"
    assert main(["cnf", "sample", str(model), str(array), "--n=20", "--seed=3"]) == 0
    assert np.allclose(np.load(array), read_samples(tmp_path / "drawn.csv").x[:, :2])


def test_density_is_that_of_the_model(model, csv, tmp_path, capsys):
    out = tmp_path / "out.npy"
    assert main(["cnf", "density", str(model), str(csv), str(out)]) == 0
    flow = cnf.load(model).double().with_solver("dopri5", 1e-8, 1e-8)
    with torch.no_grad():
        expected = flow.log_prob(torch.from_numpy(table()))
    assert np.allclose(np.load(out)[:, 0], expected.numpy(), atol=1e-4)


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_fit_of_arrays_with_a_period(suffix, tmp_path, capsys):
    source, out = tmp_path / f"in.{suffix}", tmp_path / "new" / "model.safetensors"
    x = np.random.default_rng(0).uniform(0, 360, size=(50, 2))
    np.save(source, x) if suffix == "npy" else np.savez(source, angles=x)
    words = [str(source), str(out), *SHORT, "--periods", "0", "360", "1", "360"]
    assert main(["cnf", "fit", *words]) == 0
    flow = cnf.load(out)
    assert flow.periods == {0: 360.0, 1: 360.0}
    grid = (torch.arange(36.0) + 0.5) * 10
    with torch.no_grad():
        total = flow.log_prob(torch.cartesian_prod(grid, grid)).exp().sum() * 100
    assert math.isclose(float(total), 1.0, abs_tol=0.01)


def test_errors_of_one_line(model, csv, tmp_path, capsys):
    fit, out = ("cnf", "fit"), tmp_path / "out.csv"
    assert "OUT must end in .safetensors" in refused(capsys, *fit, csv, out)
    bad = tmp_path / "bad.csv"
    bad.write_text("a,b\n1,2\nnan,3\n")
    message = refused(capsys, *fit, bad, tmp_path / "m.safetensors")
    assert "nan in row 1 (from 0), column 'a'" in message
    bad.write_text("a,b\n1,2\n1\n")
    assert "line 3 has 1 values" in refused(capsys, *fit, bad, tmp_path / "m.safetensors")
    bad.write_text("a,b\n1,x\n")
    message = refused(capsys, *fit, bad, tmp_path / "m.safetensors")
    assert "line 2, column 'b': 'x' is not a number" in message
    bad.write_text("a,b\n1,2\n")
    message = refused(capsys, *fit, bad, tmp_path / "m.safetensors")
    assert "x has 1 samples: a density needs at least 2" in message
    message = refused(capsys, *fit, tmp_path / "none.csv", tmp_path / "m.safetensors")
    assert "no such file" in message
    three = tmp_path / "three.npy"
    np.save(three, np.zeros((4, 3)))
    message = refused(capsys, "cnf", "density", model, three, out)
    assert "has 3 columns, the flow 2: height, width" in message
    assert "is the input" in refused(capsys, "cnf", "density", model, csv, csv)
    assert "cannot write files of type '.txt'" in refused(
        capsys, "cnf", "sample", model, tmp_path / "out.txt"
    )
    assert "--n must be at least 1" in refused(capsys, "cnf", "sample", model, out, "--n=0")


def test_readers_name_what_they_lack(tmp_path):
    path = tmp_path / "two.npz"
    np.savez(path, a=np.zeros((3, 2)), b=np.ones((3, 2)))
    with pytest.raises(ValueError, match="say which array by key; it has a, b"):
        read_samples(path)
    assert read_samples(path, key="b").x.sum() == 6
    with pytest.raises(ValueError, match="no key 'c'"):
        read_samples(path, key="c")
    plain = tmp_path / "plain.csv"
    plain.write_text("1;2\n3;4\n")
    assert read_samples(plain).names == ["x1", "x2"]
    assert read_samples(plain, ["x2"]).x.tolist() == [[2.0], [4.0]]
    with pytest.raises(ValueError, match="columns have names in csv files only"):
        read_samples(path, ["a"])
    broken = tmp_path / "broken.npy"
    broken.write_bytes(b"\x93NUMPY broken")
    with pytest.raises(ValueError, match="not a readable numpy file"):
        read_samples(broken)

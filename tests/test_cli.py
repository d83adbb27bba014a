"""The command line as a user meets it: outputs that read back, errors of one line, Ctrl-C."""

import csv
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sciflow import __version__, am, wlf
from sciflow.cli import main
from sciflow.cli.verbs import VERBS
from sciflow.data import read_cells
from sciflow.report import Entry, Report, Section

SHORT = ("--steps=6", "--width=8", "--depth=1", "--batch-size=32", "--no-progress", "--device=cpu")
TIMES = np.repeat([0.0, 1.0, 2.5], (10, 12, 11))


def features(dim=3):
    return np.random.default_rng(0).normal(size=(len(TIMES), dim)) + TIMES[:, None]


def write_csv(path, x=None, time=TIMES, **columns):
    x = features() if x is None else x
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["cell", "day", *[f"x{i + 1}" for i in range(x.shape[1])], *columns])
        for i, row in enumerate(x.tolist()):
            writer.writerow([f"c{i}", time[i], *row, *[values[i] for values in columns.values()]])
    return path


def write_npz(path, **arrays):
    np.savez(path, **({"pcs": features(), "t": TIMES} | arrays))
    return path


def write_h5ad(path, time=TIMES, **parts):
    anndata = pytest.importorskip("anndata")
    pandas = pytest.importorskip("pandas")
    obs = pandas.DataFrame({"day": time, "batch": "a"}, index=[f"c{i}" for i in range(len(time))])
    varm = {"PCs": np.random.default_rng(1).normal(size=(5, 3))}
    parts = {"obsm": {"X_pca": features()}, "varm": varm} | parts
    anndata.AnnData(X=np.ones((len(time), 5)), obs=obs, **parts).write_h5ad(path)
    return path


def asked(model, x, time):
    """What the model says of each cell, asked for time point by time point."""
    x, velocity, potential = torch.tensor(x, dtype=torch.float64), np.empty(x.shape), time.copy()
    for t in np.unique(time):
        velocity[time == t] = model.velocity(float(t), x[time == t]).numpy()
        potential[time == t] = model.potential(float(t), x[time == t]).numpy()
    return velocity, potential


def refused(capsys, *words):
    """The command ends with status 2 and one line of error, which is given back."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("sciflow: error: ")]
    assert len(lines) == 1 and err.splitlines()[-1] == lines[0], err
    assert out == "" and "Traceback" not in err
    return lines[0]


# --- what a fit writes ---------------------------------------------------------------------


def test_fit_csv(tmp_path, capsys):
    source, out = write_csv(tmp_path / "in.csv"), tmp_path / "new" / "out.csv"
    before = source.read_bytes()
    assert main(["wlf", "fit", str(source), str(out), "--n-dims", "2", *SHORT]) == 0
    assert capsys.readouterr().out.split() == [str(out), str(out.with_suffix(".safetensors"))]
    model = wlf.load(out.with_suffix(".safetensors"))
    velocity, potential = asked(model, features()[:, :2], TIMES)
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["cell"] for row in rows] == [f"c{i}" for i in range(len(TIMES))]
    found = {name: np.array([float(row[name]) for row in rows]) for name in list(rows[0])[1:]}
    np.testing.assert_array_equal(found["time"], TIMES)
    np.testing.assert_array_equal(found["x2"], features()[:, 1])
    np.testing.assert_allclose(found["velocity_x1"], velocity[:, 0], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found["velocity_x2"], velocity[:, 1], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found["potential"], potential, rtol=1e-6, atol=1e-6)
    assert not found["growth"].any()
    assert (tmp_path / "new" / "out-run" / "checkpoint.pt").is_file()
    assert source.read_bytes() == before


def test_fit_is_the_recipe(tmp_path):
    """The same options give the weights that the Python call gives, in both doors."""
    source = write_npz(tmp_path / "in.npz")
    options = {"steps": 6, "width": 8, "depth": 1, "batch_size": 32, "device": "cpu", "seed": 5}
    snapshots = read_cells(source).snapshots()
    more = ("--seed=5", "--hold-out=1", *SHORT)
    for name, fit in {"wlf": wlf.fit, "am": am.fit}.items():
        out = tmp_path / f"{name}.npz"
        assert main([name, "fit", str(source), str(out), *more]) == 0
        model = fit(snapshots, hold_out=[1], progress=False, **options)
        velocity, potential = asked(model, features(), TIMES)
        with np.load(out) as found:
            np.testing.assert_allclose(found["velocity"], velocity, rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(found["potential"], potential, rtol=1e-6, atol=1e-6)
            np.testing.assert_array_equal(found["x"], features())
            np.testing.assert_array_equal(found["t"], TIMES)
            assert found["growth"].shape == TIMES.shape and found["names"][3] == "3"


def test_fit_h5ad_and_predict(tmp_path):
    anndata = pytest.importorskip("anndata")
    source, out = write_h5ad(tmp_path / "in.h5ad"), tmp_path / "out.h5ad"
    assert main(["wlf", "fit", str(source), str(out), "--time-key", "day", *SHORT]) == 0
    model_file = out.with_suffix(".safetensors")
    model, read = wlf.load(model_file), anndata.read_h5ad(out)
    velocity, potential = asked(model, features(), TIMES)
    np.testing.assert_allclose(read.obsm["velocity_pca"], velocity, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(read.obs["sciflow_potential"], potential, rtol=1e-6, atol=1e-6)
    genes = velocity @ read.varm["PCs"].T
    np.testing.assert_allclose(read.layers["velocity"], genes, rtol=1e-5, atol=1e-5)
    assert read.obs["batch"].tolist() == ["a"] * len(TIMES) and (read.X == 1).all()
    config = json.loads(read.uns["sciflow"]["config"])
    assert config["door"] == "wlf" and config["steps"] == 6 and config["lagrangian"] == "ot"

    later = tmp_path / "later.h5ad"
    files = [str(model_file), str(source), str(later)]
    assert main(["wlf", "predict", *files, "--from", "2.5", "--to", "1", "-0.5"]) == 0
    moved = anndata.read_h5ad(later)
    x0 = torch.tensor(features()[TIMES == 2.5])
    path = model.trajectories(x0, torch.tensor([2.5, 1.0, -0.5])).x[1:].reshape(-1, 3)
    np.testing.assert_allclose(moved.obsm["X_pca"], path, rtol=1e-6, atol=1e-6)
    assert moved.obs["day"].tolist() == [1.0] * 11 + [-0.5] * 11


def test_any_kind_of_file_becomes_any_other(tmp_path):
    anndata = pytest.importorskip("anndata")
    source = write_csv(tmp_path / "in.csv")
    assert main(["wlf", "fit", str(source), str(tmp_path / "a.h5ad"), *SHORT]) == 0
    made = anndata.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(made.obsm["X_features"], features())
    assert made.obs_names.tolist() == [f"c{i}" for i in range(len(TIMES))]
    velocity, _ = asked(wlf.load(tmp_path / "a.safetensors"), features(), TIMES)
    np.testing.assert_allclose(made.obsm["velocity_features"], velocity, rtol=1e-6, atol=1e-6)
    assert made.obs["day"].tolist() == TIMES.tolist()

    source = write_h5ad(tmp_path / "in.h5ad")
    assert main(["wlf", "fit", str(source), str(tmp_path / "b.npz"), *SHORT]) == 0
    with np.load(tmp_path / "b.npz") as found:
        np.testing.assert_array_equal(found["x"], features())
        assert found["features"].tolist() == ["PC1", "PC2", "PC3"] and found["names"][2] == "c2"


def test_labels_and_masses(tmp_path, capsys):
    labels = np.array(["Day 0-1", "Day 2-3", "Day 4-6"])[np.searchsorted([0.0, 1.0, 2.5], TIMES)]
    source = write_csv(tmp_path / "in.csv", time=labels, weight=np.where(TIMES == 0, 1.0, 2.0))
    out = tmp_path / "out.npz"
    assert "times=" in refused(capsys, "wlf", "fit", source, out, *SHORT)
    times = ["--times", "Day 0-1", "0.5", "Day 2-3", "2.5", "Day 4-6", "5"]
    assert main(["wlf", "fit", str(source), str(out), *times, "--mass-key=weight", *SHORT]) == 0
    with np.load(out) as found:
        assert np.unique(found["t"]).tolist() == [0.5, 2.5, 5.0]
        assert found["x"].shape == (len(TIMES), 3)
    write_csv(source, time=np.char.add("Day ", TIMES.astype(str)))
    assert main(["am", "fit", str(source), str(out), *SHORT]) == 0
    assert "read the time labels 'Day 0.0' as 0" in capsys.readouterr().err


# --- what is refused -----------------------------------------------------------------------


def _bad_files():
    nan, inf = features(), features()
    nan[4, 1], inf[20, 2] = np.nan, -np.inf
    odd = TIMES.astype(object)
    odd[7] = "soon"
    weight = np.ones(len(TIMES))
    weight[5] = -1.0

    def categories(path):
        pandas = pytest.importorskip("pandas")
        empty = pandas.Categorical([f"{t:g}" for t in TIMES], categories=["0", "1", "2.5", "9"])
        return write_h5ad(path, time=empty)

    def ragged(path):
        write_csv(path)
        lines = path.read_text().splitlines()
        lines[9] = lines[9].rpartition(",")[0]
        path.write_text("\n".join(lines))
        return path

    def cut_off(path):
        write_npz(path)
        path.write_bytes(path.read_bytes()[:-120])
        return path

    return {
        "nan": (lambda p: write_csv(p / "a.csv", nan), (), ("nan", "'c4'", "'x2'")),
        "infinite": (lambda p: write_npz(p / "a.npz", pcs=inf), (), ("-inf", "row 20", "'PC3'")),
        "one time": (
            lambda p: write_npz(p / "a.npz", t=np.full(len(TIMES), 3.0)),
            (),
            ("'t' (3)", "at least two times"),
        ),
        "empty time point": (lambda p: categories(p / "a.h5ad"), (), ("obs['day']", "'9'")),
        "unequal rows": (lambda p: write_npz(p / "a.npz", t=TIMES[:-2]), (), ("33", "31", "'t'")),
        "unequal dimensions": (lambda p: ragged(p / "a.csv"), (), ("line 10", "4", "5")),
        "times of words": (lambda p: write_csv(p / "a.csv", time=odd), (), ("'soon'", "'c7'")),
        "missing key": (
            lambda p: write_npz(p / "a.npz"),
            ("--time-key=hour",),
            ("no key 'hour'", "pcs, t"),
        ),
        "missing column": (
            lambda p: write_h5ad(p / "a.h5ad"),
            ("--time-key=hour",),
            ("'hour'", "day, batch"),
        ),
        "truncated": (lambda p: cut_off(p / "a.npz"), (), ("a.npz", "cut off")),
        "no representation": (
            lambda p: write_h5ad(p / "a.h5ad", obsm={"X_umap": features()}, varm={}),
            (),
            ("'X_pca'", "X_umap"),
        ),
        "negative mass": (
            lambda p: write_csv(p / "a.csv", weight=weight),
            ("--mass-key=weight",),
            ("'weight'", "-1.0", "'c5'"),
        ),
        "too few dimensions": (lambda p: write_csv(p / "a.csv"), ("--n-dims=7",), ("7", "3")),
        "no dimensions": (lambda p: write_csv(p / "a.csv"), ("--n-dims=0",), ("n_dims is 0",)),
        "no file": (lambda p: p / "a.csv", (), ("a.csv", "no such file")),
        "unknown kind": (lambda p: p / "a.xlsx", (), (".xlsx", ".h5ad")),
        "hold-out": (lambda p: write_csv(p / "a.csv"), ("--hold-out=3",), ("3",)),
        "hold-out of words": (lambda p: write_csv(p / "a.csv"), ("--hold-out=b",), ("'b'",)),
        "Lagrangian": (lambda p: write_csv(p / "a.csv"), ("--lagrangian=x",), ("'ot'", "'x'")),
        "rate": (lambda p: write_csv(p / "a.csv"), ("--lr=-1",), ("lr", "-1.0")),
        "device": (lambda p: write_csv(p / "a.csv"), ("--device=gpu",), ("device", "'gpu'")),
        "unknown option": (
            lambda p: write_csv(p / "a.csv"),
            ("--stepz", "3"),
            ("options: --stepz, 3; Perhaps you meant: --steps", "wlf fit --help"),
        ),
        "option of words": (lambda p: write_csv(p / "a.csv"), ("--steps=x",), ("--steps", "'x'")),
        "choice": (
            lambda p: write_csv(p / "a.csv"),
            ("--estimator=x",),
            ("'x'", "'pathwise', 'dual'"),
        ),
    }


@pytest.mark.parametrize("case", _bad_files())
def test_bad_input(case, tmp_path, capsys):
    make, options, parts = _bad_files()[case]
    source = make(tmp_path)
    line = refused(capsys, "wlf", "fit", source, tmp_path / "out.npz", *SHORT, *options)
    for part in parts:
        assert part in line, line
    assert not (tmp_path / "out.npz").exists()


def test_out_is_checked_before_the_training(tmp_path, capsys, monkeypatch):
    source = write_npz(tmp_path / "in.npz")
    before = source.read_bytes()

    def fit(*_, **__):
        raise AssertionError("the training started")

    monkeypatch.setattr("sciflow.wlf.fit", fit)
    for out, part in {
        "in.npz": "is the input",
        "in.npz/out.csv": "cannot write",
        "out.txt": "cannot write '.txt'",
        ".": "cannot write",
    }.items():
        assert part in refused(capsys, "wlf", "fit", source, tmp_path / out, *SHORT)
    assert source.read_bytes() == before and list(tmp_path.iterdir()) == [source]


def test_the_device_is_checked_before_anything_is_read_or_written(tmp_path, capsys):
    source, other = tmp_path / "no.csv", tmp_path / "new"
    for words in (
        ("am", "fit", source, other / "out.csv"),
        ("wlf", "fit", source, other / "out.csv"),
        ("wlf", "evaluate", write_csv(tmp_path / "in.csv"), "--out", other),
    ):
        assert "device must be" in refused(capsys, *words, *SHORT[:-1], "--device=gpu")
    assert not other.exists()


def test_commands_that_are_none(capsys):
    assert "'fi'; known are fit, predict, evaluate" in refused(capsys, "wlf", "fi")
    assert "'flow'; known are demo, nct, turbulence, cnf, am, wlf" in refused(
        capsys, "flow", "fit"
    )
    assert "OUT" in refused(capsys, "wlf", "fit", "in.csv")


def test_debug_shows_the_traceback(tmp_path, capsys, monkeypatch):
    words = ["wlf", "fit", str(tmp_path / "no.csv"), str(tmp_path / "out.csv")]
    assert main([*words, "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("SCIFLOW_DEBUG", "1")
    assert main(words) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_bug_is_not_dressed_up_as_an_error(tmp_path, monkeypatch):
    def fit(*_, **__):
        raise TypeError("ours")

    monkeypatch.setattr("sciflow.wlf.fit", fit)
    with pytest.raises(TypeError, match="ours"):
        main(["wlf", "fit", str(write_csv(tmp_path / "a.csv")), str(tmp_path / "b.csv"), *SHORT])


# --- Ctrl-C --------------------------------------------------------------------------------


def interrupt_at(monkeypatch, call):
    """Ctrl-C arrives while the given batch is drawn."""
    sample, calls = am.source.CoupledSnapshots.sample, []

    def interrupted(self, n, generator):
        calls.append(n)
        if len(calls) == call:
            signal.raise_signal(signal.SIGINT)
        return sample(self, n, generator)

    monkeypatch.setattr(am.source.CoupledSnapshots, "sample", interrupted)
    return calls


@pytest.fixture
def sigint():
    """Python's own handler, which a shell that started us in the background has taken away."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_and_resume(tmp_path, capsys, monkeypatch, sigint):
    source = write_npz(tmp_path / "in.npz")
    words = ["wlf", "fit", str(source), str(tmp_path / "out.npz"), *SHORT]
    with monkeypatch.context() as patch:
        interrupt_at(patch, 4)
        assert main(words) == 130
    checkpoint = tmp_path / "out-run" / "checkpoint.pt"
    said = capsys.readouterr().err.splitlines()[-1]
    assert checkpoint.is_file() and str(checkpoint) in said and "--resume" in said
    assert not (tmp_path / "out.npz").exists() and not list(tmp_path.glob("*.safetensors"))
    assert main([*words, "--resume"]) == 0
    other = [word.replace("out.npz", "whole.npz") for word in words]
    assert main(other) == 0
    with np.load(tmp_path / "out.npz") as a, np.load(tmp_path / "whole.npz") as b:
        np.testing.assert_array_equal(a["velocity"], b["velocity"])


def test_ctrl_c_before_the_training(tmp_path, capsys, monkeypatch, sigint):
    def fit(*_, **__):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("sciflow.wlf.fit", fit)
    words = ["wlf", "fit", str(write_csv(tmp_path / "in.csv")), str(tmp_path / "out.csv"), *SHORT]
    assert main(words) == 130
    assert "nothing was written" in capsys.readouterr().err


def test_ctrl_c_ends_all_fits_of_an_evaluation(tmp_path, capsys, monkeypatch, sigint):
    calls, folder = interrupt_at(monkeypatch, 2), tmp_path / "scores"
    words = ["wlf", "evaluate", str(write_npz(tmp_path / "in.npz")), "--out", str(folder), *SHORT]
    assert main(words) == 130
    assert len(calls) == 2 and not list(folder.iterdir())
    assert "interrupted" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# --- the other verbs -----------------------------------------------------------------------


def test_evaluate(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = write_csv(tmp_path / "in.csv")
    assert main(["wlf", "evaluate", str(source), "--hold-out", "1", "--seeds", "2", *SHORT]) == 0
    out = capsys.readouterr().out
    assert "exact-OT midpoint" in out and "seeds: 0, 1" in out
    scores = tmp_path / "runs" / "evaluate-in" / "scores.json"
    assert str(scores.relative_to(tmp_path)) in out
    found = json.loads(scores.read_text())
    options = {"steps": 6, "width": 8, "depth": 1, "batch_size": 32, "device": "cpu"}
    snapshots = read_cells(source).snapshots()
    direct = wlf.evaluate(snapshots, [1], seeds=(0, 1), progress=False, **options)
    ours = [row for row in found["rows"] if row["method"] == direct.ours and row["time"] == 1.0]
    assert ours[0]["w1"] == pytest.approx(direct.row(direct.ours, 1.0).w1, rel=1e-6)
    assert "0" in refused(capsys, "wlf", "evaluate", source, "--hold-out=0", *SHORT)
    assert "--seeds" in refused(capsys, "wlf", "evaluate", source, "--seeds=0", *SHORT)
    assert "'each'" in refused(capsys, "wlf", "fit", source, "out.csv", "--hold-out=each")


def test_predict_refuses(tmp_path, capsys):
    source, out = write_csv(tmp_path / "in.csv"), tmp_path / "out.csv"
    assert main(["wlf", "fit", str(source), str(out), *SHORT]) == 0
    predict, to = ["wlf", "predict", tmp_path / "out.safetensors"], tmp_path / "to.csv"
    line = refused(capsys, *predict, source, to, "--from", "7", "--to", "8")
    assert "no cells at time 7; the times are 0, 1, 2.5" in line
    line = refused(capsys, *predict, source, to, "--from", "0", "--to", "nan")
    assert "times must be" in line
    line = refused(capsys, *predict, source, to, "--from", "0", "--to", "1", "--genes", "SOX2")
    assert "genes are read from .h5ad" in line
    assert "is the input" in refused(capsys, *predict, source, source, "--from=0", "--to=1")
    narrow = write_csv(tmp_path / "narrow.csv", features(2))
    assert "n_dims is 3" in refused(capsys, *predict, narrow, to, "--from=0", "--to=1")
    line = refused(capsys, "wlf", "predict", source, source, to, "--from=0", "--to=1")
    assert "in.csv" in line and "safetensors" in line
    assert not to.exists()
    assert main([str(w) for w in (*predict, source, to, "--from", "0", "--to", "9")]) == 0
    assert "beyond that it extrapolates" in capsys.readouterr().err


def test_data(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("SCIFLOW_DATA", str(tmp_path))
    monkeypatch.setenv("SCIFLOW_CACHE", str(tmp_path / "cache"))
    assert main(["data", "list"]) == 0
    assert "embryoid-body-subset" in capsys.readouterr().out
    assert "is not on this machine" in refused(capsys, "data", "path", "embryoid-body")
    assert "did you mean 'embryoid-body'" in refused(capsys, "data", "fetch", "embryoid-bod")
    assert "data list" in refused(capsys, "data", "fetch")


def test_report(capsys, tmp_path):
    entry = Entry("action", 2.01, 2.0, "closed form", 0.1)
    Report("Gaussians", (Section("Transport", entries=(entry,)),)).save_json(tmp_path / "a")
    assert main(["report", str(tmp_path)]) == 0
    page = (tmp_path / "index.html").read_text()
    assert capsys.readouterr().out.strip() == str(tmp_path / "index.html")
    assert "Gaussians" in page and "closed form" in page
    assert "no folder" in refused(capsys, "report", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "metrics.json" in refused(capsys, "report", tmp_path / "empty")


def test_demo_writes_where_it_is_told(capsys, tmp_path, monkeypatch):
    asked_for = []
    fake = SimpleNamespace(run=lambda out: asked_for.append(out) or out / "index.html")
    monkeypatch.setitem(sys.modules, "sciflow.demo", fake)
    assert main(["demo", "--out", str(tmp_path / "page")]) == 0
    assert asked_for == [tmp_path / "page"]
    assert capsys.readouterr().out.strip() == str(tmp_path / "page" / "index.html")


# --- help ----------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help(verb, capsys):
    assert main([*verb.split(), "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: sciflow {verb} ")
    for option in dataclasses.fields(VERBS[verb].load()):
        hidden = verb == "wlf evaluate" and option.name in ("seed", "log", "resume")
        flag = {"start": "from"}.get(option.name, option.name).replace("_", "-")
        positional = {"path_in", "path_out", "model", "names", "name", "folder", "paths"}
        if option.name not in positional and option.name.upper() not in out.split("\n\n")[0]:
            assert bool(re.search(f" --{flag}[ ,]", out)) is not hidden, flag


def test_help_shows_words_units_and_defaults(capsys):
    main(["wlf", "fit", "--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for part in (
        "Updates of the networks. (default: 2000)",
        "Learning rate of the potential (Adam)",
        "in your unit of time",
        "{least-action,closed-form,learned}",
        "What the flow minimises: ot",
        "in units of the spread of the data. (default: 0.01)",
    ):
        assert part in text


def test_overview(capsys):
    for words in ([], ["--help"], ["-h"]):
        assert main(words) == 0
        out = capsys.readouterr().out
        assert all(f"sciflow {verb} " in out for verb in VERBS)
    assert main(["data", "--help"]) == 0
    out = capsys.readouterr().out
    assert "sciflow data path" in out and "sciflow am fit" not in out


# --- as a program --------------------------------------------------------------------------


def program(*words, **environment):
    command = [sys.executable, "-m", "sciflow.cli", *map(str, words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def test_program(tmp_path):
    done = program("--version")
    assert (done.returncode, done.stdout) == (0, f"sciflow {__version__}\n")
    done = program("wlf", "fit", tmp_path / "no.csv", tmp_path / "out.csv")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"sciflow: error: {tmp_path / 'no.csv'}: no such file\n"


def test_nothing_heavy_is_loaded_before_it_is_used():
    code = (
        "import sys, sciflow.cli; sciflow.cli.main([]);"
        "doors = ('sciflow.wlf', 'sciflow.data', 'torch');"
        "print('loaded:', [m for m in doors if m in sys.modules]);"
        "import sciflow.bridges.anndata, sciflow.bridges.files;"
        "heavy = ('anndata', 'pandas', 'h5py', 'ot', 'matplotlib', 'mdtraj');"
        "print('loaded:', [m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "loaded: []", done.stdout + done.stderr
    assert done.stdout.count("loaded: []") == 2, done.stdout

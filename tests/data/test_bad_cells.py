"""Bad files: each is refused with the file and the cell, column, key or time named."""

import re

import numpy as np
import pytest

from sciflow.data import Cells, read_cells
from sciflow.data.times import parse_times
from sciflow.errors import DataError

N = 6
TIME = np.array([2.0, 0.0, 0.0, 3.0, 2.0, 0.0])


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(N, 3))


def refuses(path, *parts, **options):
    """The file is refused, its name and every part stand in the message, and it is unchanged."""
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(DataError) as error:
        read_cells(path, **options)
    message = str(error.value)
    for part in (path.name, *parts):
        assert part in message, message
    assert before == (path.read_bytes() if path.is_file() else None)


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path


def csv(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def h5ad(path, x, uns=None, obsm=None, **obs):
    anndata = pytest.importorskip("anndata")
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(obs, index=[f"cell-{i}" for i in range(len(x))])
    obsm = {"X_pca": x} if obsm is None else obsm
    adata = anndata.AnnData(X=np.zeros((len(x), 2)), obs=frame, obsm=obsm, uns=uns or {})
    adata.write_h5ad(path)
    return path


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_value_not_finite(tmp_path, x, bad):
    x[4, 1] = bad
    place = ("1 values", str(bad), "row 4")
    refuses(npz(tmp_path / "a.npz", pcs=x, t=TIME), *place, "'4'", "'PC2'")
    refuses(h5ad(tmp_path / "a.h5ad", x, day=TIME), *place, "'cell-4'", "'PC2'")
    lines = [f"c{i},{t},{a},{b}" for i, (t, a, b, _) in enumerate(np.c_[TIME, x].tolist())]
    refuses(csv(tmp_path / "a.csv", "cell,day,x1,x2", *lines), *place, "'c4'", "'x2'")
    # A feature that is not asked for does no harm.
    assert read_cells(tmp_path / "a.npz", n_dims=1).x.shape == (N, 1)


def test_one_time_point(tmp_path, x):
    refuses(npz(tmp_path / "a.npz", X=x, t=np.full(N, 7)), "same 't' (7)", "at least two")


def test_time_point_without_cells(tmp_path, x):
    pandas = pytest.importorskip("pandas")
    days = pandas.Categorical(["0", "1", "0", "1", "0", "1"], categories=["0", "1", "7", "9"])
    file = h5ad(tmp_path / "a.h5ad", x, day=days)
    refuses(file, "no cells at '7', '9'", "remove_unused_categories")


def test_cell_without_time(tmp_path, x):
    pandas = pytest.importorskip("pandas")
    none = np.where(np.arange(N) == 3, np.nan, TIME)
    refuses(npz(tmp_path / "a.npz", X=x, t=none), "'t'", "1 of 6 cells have no finite time", "'3'")
    refuses(h5ad(tmp_path / "a.h5ad", x, day=none), "1 of 6", "'cell-3'")
    labels = pandas.Categorical([None if np.isnan(t) else str(t) for t in none])
    refuses(h5ad(tmp_path / "b.h5ad", x, day=labels), "1 of 6", "'cell-3'")
    integers = pandas.array([0, 1, 2, None, 1, 0], dtype="Int64")
    refuses(h5ad(tmp_path / "c.h5ad", x, day=integers), "1 of 6", "'cell-3'")
    refuses(csv(tmp_path / "a.csv", "day,x1", "0,1", ",2", "1,3"), "1 of 3", "'1'")
    refuses(csv(tmp_path / "b.csv", "day,x1", "0,1", "nan,2", "1,3"), "'nan'", "cell '1'")
    refuses(npz(tmp_path / "b.npz", X=x, t=np.where(np.arange(N) == 5, np.inf, TIME)), "'5'")


def test_unequal_rows(tmp_path, x):
    refuses(npz(tmp_path / "a.npz", X=x, t=TIME[:5]), "'X' has 6 rows", "'t' has 5")


def test_shapes(tmp_path, x):
    refuses(npz(tmp_path / "a.npz", X=x[:, 0], t=TIME), "'X'", "shape (6,)")
    refuses(npz(tmp_path / "b.npz", X=x[:, :0], t=TIME), "'X'", "shape (6, 0)")
    refuses(npz(tmp_path / "c.npz", X=x, t=np.stack([TIME, TIME], 1)), "'t'", "shape (6, 2)")


def test_features_that_are_not_numbers(tmp_path, x):
    refuses(npz(tmp_path / "a.npz", X=x.astype(str), t=TIME), "'X' holds <U", "real numbers")
    refuses(npz(tmp_path / "b.npz", X=x + 1j, t=TIME), "'X' holds complex128")
    refuses(npz(tmp_path / "c.npz", X=x.astype(object), t=TIME), "'X' cannot be read")
    file = csv(tmp_path / "a.csv", "day,x1,x2", "0,1,2", "1,oops,3", "1,2,3")
    refuses(file, "1 values of column 'x1'", "'oops'", "cell '1'")
    refuses(csv(tmp_path / "b.csv", "day,x1", "0,1", "1,"), "column 'x1'", "''", "row 1")
    refuses(csv(tmp_path / "c.csv", "day,x1,x2", "0,1,a", "1,2,b"), "no numbers", "x2")
    refuses(csv(tmp_path / "d.csv", "day,kind", "0,a", "1,b"), "no numbers", "kind")
    refuses(csv(tmp_path / "e.csv", "day", "0", "1"), "no numbers", "none left")


def test_times_that_are_not_numbers(tmp_path, x):
    days = ["0", "1", "early", "1", "0", "1"]
    refuses(h5ad(tmp_path / "a.h5ad", x, day=days), "'day'", "'early'", "'cell-2'")
    refuses(npz(tmp_path / "a.npz", X=x, t=np.array(days)), "'t'", "'early'", "'2'", "'0'")
    refuses(csv(tmp_path / "a.csv", "day,x1", "0,1", "late,2"), "'late'", "cell '1'")
    refuses(npz(tmp_path / "b.npz", X=x, t=TIME > 0), "'True'")


def test_windows_of_time_are_not_guessed(tmp_path, x):
    """Both the labels and a mapping to copy are in the message."""
    windows = ["Day 06-09", "Day 00-03"] * 3
    refuses(
        h5ad(tmp_path / "a.h5ad", x, sample_labels=windows),
        "'Day 06-09' of cell 'cell-0'",
        "times={'Day 00-03': 1.5, 'Day 06-09': 7.5}",
    )


def parsed(labels, times=None):
    return parse_times(np.array(labels, dtype=object), "f", lambda row: f"#{row}", times)


def test_labels_of_two_forms_are_not_mixed():
    with pytest.raises(DataError, match="'12h', '2d' are not all of one form"):
        parsed(["12h", "2d", "12h"])
    with pytest.raises(DataError, match="'0', 'd2' are not all of one form"):
        parsed(["0", "d2"])


def test_many_labels_are_cut_short():
    with pytest.raises(DataError, match=r"'p 0-1', .*'p 19-20' and 10 more") as error:
        parsed([f"p {i}-{i + 1}" for i in range(30)])
    assert "p 25" not in str(error.value).partition("and 10 more")[0]


def test_given_times_must_cover_the_labels():
    with pytest.raises(DataError, match="no entry for 'b', the time of #1; the labels are 'a'"):
        parsed(["a", "b"], {"a": 1.0})
    with pytest.raises(DataError, match=re.escape("times['b'] is nan")):
        parsed(["a", "b"], {"a": 1.0, "b": float("nan")})


def test_missing_keys_list_those_that_exist(tmp_path, x):
    file = npz(tmp_path / "a.npz", pcs=x, label=TIME)
    refuses(file, "no key is called as a time is", "time_key", "keys are label")
    refuses(file, "no key 'week'", "pcs, label", time_key="week")
    refuses(file, "no key 'X_pca'", "pcs, label", rep="X_pca", time_key="label")
    refuses(file, "no key 'w'", "pcs, label", mass_key="w", time_key="label")
    refuses(npz(tmp_path / "b.npz", data=x, t=TIME), "no key of features", "X_pca", "data, t")
    file = csv(tmp_path / "a.csv", "a,x1", "0,1", "1,2")
    refuses(file, "no column is called as a time is", "a, x1")
    refuses(file, "no column 'b'", "a, x1", time_key="b")
    refuses(file, "no column 'w'", "a, x1", time_key="a", mass_key="w")
    refuses(file, "no columns called PC1, PC2", "x1", time_key="a", rep="PC")
    file = h5ad(tmp_path / "a.h5ad", x, batch=TIME)
    refuses(file, "no column of obs is called as a time is", "batch")
    refuses(file, "no column of obs 'day'", "batch", time_key="day")
    refuses(file, "no 'w' in obs (batch) or uns (empty)", time_key="batch", mass_key="w")


def test_two_keys_that_could_be_it(tmp_path, x):
    refuses(npz(tmp_path / "a.npz", X=x, t=TIME, day=TIME), "t, day", "time_key")
    refuses(npz(tmp_path / "b.npz", X=x, X_pca=x, t=TIME), "X_pca, X", "rep")
    refuses(csv(tmp_path / "a.csv", "day,time,x1", "0,1,2", "1,2,3"), "day, time", "time_key")
    refuses(csv(tmp_path / "b.csv", "day,PC1,x1", "0,1,2", "1,2,3"), "x and pc", "rep")
    refuses(h5ad(tmp_path / "a.h5ad", x, day=TIME, time=TIME), "day, time", "time_key")


def test_h5ad_without_representation(tmp_path, x):
    file = h5ad(tmp_path / "a.h5ad", x, obsm={"X_phate": x, "X_umap": x}, day=TIME)
    refuses(file, "no representation in obsm 'X_pca'", "X_phate", "X_umap")
    refuses(h5ad(tmp_path / "b.h5ad", x, obsm={}, day=TIME), "'X_pca'", "none")


def test_damaged_npz(tmp_path, x):
    whole = npz(tmp_path / "whole.npz", X=x, t=TIME).read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.npz").write_bytes(whole[:size])
        refuses(tmp_path / "cut.npz", "not a readable npz archive, or cut off")
    (tmp_path / "text.npz").write_text("samples,x1\n0,1\n")
    refuses(tmp_path / "text.npz", "not a readable npz archive")
    altered = bytearray(whole)
    start = whole.index(x.tobytes())
    altered[start : start + 8] = b"\xff" * 8
    (tmp_path / "altered.npz").write_bytes(altered)
    refuses(tmp_path / "altered.npz", "key 'X' cannot be read")
    with (tmp_path / "array.npz").open("wb") as file:
        np.save(file, x)
    refuses(tmp_path / "array.npz", "one array")


def test_damaged_h5ad(tmp_path, x):
    h5py = pytest.importorskip("h5py")
    whole = h5ad(tmp_path / "whole.h5ad", x, day=TIME).read_bytes()
    for size in (0, 100, len(whole) // 2):
        (tmp_path / "cut.h5ad").write_bytes(whole[:size])
        refuses(tmp_path / "cut.h5ad", "not a readable h5ad file")
    with h5py.File(tmp_path / "other.h5ad", "w") as file:
        file["x"] = x
    refuses(tmp_path / "other.h5ad", "no group 'obs'", "x")


def test_damaged_csv(tmp_path):
    file = csv(tmp_path / "a.csv", "day,x1,x2", "0,1,2", "1,3")
    refuses(file, "line 3 has 2 values where the header has 3")
    refuses(csv(tmp_path / "b.csv", "day,x1", "0,1,2"), "line 2 has 3 values")
    refuses(csv(tmp_path / "c.csv", "0,1.5", "1,2.5"), "only numbers", "header")
    refuses(csv(tmp_path / "d.csv", "day,x1,x1", "0,1,2", "1,2,3"), "called 'x1'")
    refuses(csv(tmp_path / "e.csv", "day,x1"), "no rows")
    (tmp_path / "f.csv").write_bytes(b"")
    refuses(tmp_path / "f.csv", "no rows")
    (tmp_path / "g.csv").write_bytes(b"day,x1\n\xff\xfe,1\n")
    refuses(tmp_path / "g.csv", "not a readable table")
    refuses(csv(tmp_path / "h.csv", "day;x1", "0;0,8", "1;0,9"), "no numbers", "x1")


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_masses_that_are_not_positive(tmp_path, x, bad):
    weight = np.where(np.arange(N) == 4, bad, 1.0)
    file = npz(tmp_path / "a.npz", X=x, t=TIME, w=weight, m=np.array([1.0, bad, 2.0]))
    refuses(file, "'w'", "not positive and finite", str(bad), "'4'", mass_key="w")
    refuses(file, "mass at time 2", str(bad), mass_key="m")
    file = h5ad(tmp_path / "a.h5ad", x, {"m": {"0": 1.0, "2": 2.0, "3": bad}}, t=TIME, w=weight)
    refuses(file, "'w'", "not positive and finite", "'cell-4'", mass_key="w")
    refuses(file, "mass at time 3", str(bad), mass_key="m")


def test_masses_that_do_not_fit(tmp_path, x):
    file = npz(tmp_path / "a.npz", X=x, t=TIME, w=np.ones(4), s=np.array(list("abcdef")))
    refuses(file, "'w' has shape (4,)", "(6,)", "(3,)", mass_key="w")
    refuses(file, "'s' holds <U1", mass_key="s")
    uns = {"m": {"0": 1.0, "2": 2.0}, "w": np.ones(3)}
    file = h5ad(tmp_path / "a.h5ad", x, uns, t=TIME, w=np.ones(N), kind=list("aabbcc"))
    refuses(file, "masses at [0.0, 2.0]", "[0.0, 2.0, 3.0]", mass_key="m")
    refuses(file, "'w' is in obs and in uns", mass_key="w")
    refuses(file, "not positive and finite", "nan", "'cell-0'", mass_key="kind")
    file = csv(tmp_path / "a.csv", "t,w,x1", "0,a,1", "1,b,2")
    refuses(file, "no numbers in column 'w'", mass_key="w")
    file = csv(tmp_path / "b.csv", "t,w,x1", "0,1,1", "1,b,2")
    refuses(file, "column 'w'", "'b'", "cell '1'", mass_key="w")


@pytest.mark.parametrize("n_dims", [0, -1, 4])
def test_n_dims_out_of_range(tmp_path, x, n_dims):
    file = npz(tmp_path / "a.npz", pcs=x, t=TIME)
    refuses(file, f"n_dims is {n_dims}", "'pcs' has 3 features", n_dims=n_dims)
    with pytest.raises(DataError, match=f"n_dims is {n_dims}, but 'pcs' has 3"):
        read_cells(file).first_dims(n_dims)


def test_files_that_are_not_there_or_not_ours(tmp_path):
    refuses(tmp_path / "none.npz", "no such file")
    refuses(tmp_path / "cells.loom", "'.loom'", ".h5ad, .npz, .csv")
    refuses(tmp_path / "cells", "'without extension'")
    (tmp_path / "folder.csv").mkdir()
    refuses(tmp_path / "folder.csv", "no such file")


def test_anndata_not_installed(tmp_path, x, monkeypatch):
    import sciflow.data.h5ad
    from sciflow.errors import MissingPackageError, require

    (tmp_path / "a.h5ad").write_bytes(b"")

    def without(module, extra=None):
        return require("no_such_package", extra)

    monkeypatch.setattr(sciflow.data.h5ad, "require", without)
    with pytest.raises(MissingPackageError, match=r"pip install \"sciflow\[cell\]\""):
        read_cells(tmp_path / "a.h5ad")


def test_cells_made_by_hand_are_checked(tmp_path, x):
    good = {
        "x": x,
        "time": TIME,
        "names": list("abcdef"),
        "features": ["u", "v", "w"],
        "path": tmp_path / "a",
        "time_key": "t",
        "rep": "r",
    }
    assert Cells(**good).sizes.tolist() == [3, 2, 1]
    for changes, message in [
        ({"features": ["u"]}, r"\(6, 3\); expected \(cells, 1\)"),
        ({"time": TIME[:4]}, "'r' has 6 rows, 't' has 4"),
        ({"names": ["a"]}, "1 cell names"),
        ({"time": np.full(N, np.nan)}, "no finite time at cell 'a'"),
        ({"masses": np.ones(2)}, r"shape \(2,\); expected \(3,\)"),
        ({"masses": np.array([1.0, 0.0, 1.0])}, "mass at time 2 is 0"),
    ]:
        with pytest.raises(DataError, match=message):
            Cells(**{**good, **changes})

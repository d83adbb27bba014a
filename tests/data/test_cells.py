"""Cells from good files of every kind, and the times that their labels mean."""

import logging
import subprocess
import sys

import numpy as np
import pytest
import torch

from sciflow.data import Cells, read_cells
from sciflow.data.times import parse_times

TIME = np.array([2.0, 0.0, 0.0, 3.5, 2.0, 0.0])


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(6, 3))


def write_csv(path, header, *columns):
    rows = zip(*columns, strict=True)
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def write_h5ad(path, obs, obsm, uns=None, n_genes=4):
    anndata = pytest.importorskip("anndata")
    pandas = pytest.importorskip("pandas")
    n = len(next(iter(obs.values())))
    frame = pandas.DataFrame(obs, index=[f"cell-{i}" for i in range(n)])
    counts = np.zeros((n, n_genes), dtype=np.float32)
    anndata.AnnData(X=counts, obs=frame, obsm=obsm, uns=uns or {}).write_h5ad(path)
    return path


def test_embryoid_bodies_with_no_options(data_dir):
    """The file as it came: 2,750 cells, 550 at each of 5 times."""
    path = data_dir / "singlecell" / "eb_subset_100pc.npz"
    if not path.is_file():
        pytest.skip("the subset of embryoid-body cells is not here")
    cells = read_cells(path)
    assert cells.x.shape == (2750, 100) and cells.x.dtype == np.float64
    assert cells.time_points.tolist() == [0, 1, 2, 3, 4]
    assert cells.sizes.tolist() == [550] * 5
    assert (cells.rep, cells.time_key, cells.masses) == ("X", "t", None)
    with np.load(path) as raw:
        assert (cells.x == raw["X"]).all() and (cells.time == raw["t"]).all()
    # The components are those of all cells and not centred: the first has its mean near 52.
    assert cells.x[:, 0].mean() == pytest.approx(52, abs=1)


@pytest.mark.parametrize(
    ("name", "sizes", "n_dims"),
    [
        ("emt.csv", [577, 885, 788, 883], 10),
        ("simulation_gene_data.csv", [400, 442, 530, 690, 969], 2),
        ("gaussian_10d.csv", [500, 1400], 10),
    ],
)
def test_deepruot_tables_with_no_options(data_dir, name, sizes, n_dims):
    path = data_dir / "singlecell" / "deepruot" / name
    if not path.is_file():
        pytest.skip(f"{name} is not here")
    cells = read_cells(path)
    assert cells.sizes.tolist() == sizes
    assert cells.features == [f"x{i + 1}" for i in range(n_dims)]
    assert cells.time_points.tolist() == list(range(len(sizes)))


def test_npz_of_trajectorynet(tmp_path, x):
    file = tmp_path / "eb_velocity.npz"
    np.savez(file, pcs=x, pcs_delta=x, phate=x[:, :2], sample_labels=TIME.astype(int))
    cells = read_cells(file)
    assert (cells.x == x).all() and cells.features == ["PC1", "PC2", "PC3"]
    assert cells.time.tolist() == [2, 0, 0, 3, 2, 0]
    assert cells.names == ["0", "1", "2", "3", "4", "5"]
    cells = read_cells(file, rep="phate")
    assert (cells.x == x[:, :2]).all() and cells.features == ["phate1", "phate2"]


def test_npz_names_column_of_times_and_float32(tmp_path, x):
    names = np.array(list("abcdef"))
    np.savez(tmp_path / "a.npz", X_pca=x.astype("f4"), Day=TIME[:, None], obs_names=names)
    cells = read_cells(tmp_path / "a.npz")
    assert cells.x.dtype == np.float64 and (cells.x == x.astype("f4")).all()
    assert (cells.time == TIME).all() and cells.time_key == "Day"
    assert cells.names == list("abcdef")


def test_csv_of_deepruot(tmp_path, x):
    file = write_csv(tmp_path / "a.csv", "samples,x1,x2,x3", TIME, *x.T.tolist())
    cells = read_cells(str(file))
    assert (cells.x == x).all() and (cells.time == TIME).all()
    assert (cells.time_key, cells.features) == ("samples", ["x1", "x2", "x3"])
    assert cells.path == file


def test_csv_of_pandas_with_names_text_and_other_columns(tmp_path, x, caplog):
    names, kinds = list("abcdef"), ["T", "B", "T", "B", "T", "B"]
    columns = (names, kinds, x[:, 2], x[:, 0], TIME, x[:, 1])
    file = write_csv(tmp_path / "a.csv", ",cell_type,PC10,PC1,day,PC2", *columns)
    with caplog.at_level(logging.INFO, logger="sciflow"):
        cells = read_cells(file)
    # In order of the number, not of the file: the first n_dims are the leading components.
    assert cells.features == ["PC1", "PC2", "PC10"]
    assert (cells.x == x).all() and cells.names == names
    assert "cell_type" in caplog.text


def test_csv_of_any_numbers_with_semicolons(tmp_path, x):
    lines = [f"{a};{b};G{i};{t}" for i, (a, b, t) in enumerate(zip(x[:, 0], x[:, 1], TIME))]  # noqa: B905
    (tmp_path / "a.csv").write_text("\ufeffSox2;Nanog;kind;time\r\n" + "\r\n".join(lines))
    cells = read_cells(tmp_path / "a.csv")
    assert cells.features == ["Sox2", "Nanog"] and (cells.x == x[:, :2]).all()
    only = read_cells(tmp_path / "a.csv", time_key="time", rep=None, n_dims=1)
    assert only.features == ["Sox2"]


def test_csv_rep_is_a_prefix(tmp_path, x):
    columns = (TIME, x[:, 0], x[:, 1], x[:, 2])
    file = write_csv(tmp_path / "a.csv", "time,x1,PC_1,PC_2", *columns)
    assert read_cells(file, rep="PC").features == ["PC_1", "PC_2"]
    assert read_cells(file, rep="x").features == ["x1"]


def test_h5ad(tmp_path, x):
    obsm = {"X_pca": x, "X_phate": x[:, :2]}
    file = write_h5ad(tmp_path / "a.h5ad", {"day": TIME, "kind": list("aabbcc")}, obsm)
    cells = read_cells(file)
    assert (cells.x == x).all() and (cells.time == TIME).all()
    assert cells.names == [f"cell-{i}" for i in range(6)]
    assert (cells.features, cells.rep) == (["PC1", "PC2", "PC3"], "X_pca")
    cells = read_cells(file, time_key="day", rep="X_phate", n_dims=1)
    assert (cells.x == x[:, :1]).all() and cells.features == ["PHATE1"]


def test_h5ad_frames_and_sparse_representations(tmp_path, x):
    pandas, scipy_sparse = pytest.importorskip("pandas"), pytest.importorskip("scipy.sparse")
    index = [f"cell-{i}" for i in range(6)]
    obsm = {
        "X_pca": pandas.DataFrame(x, columns=["u", "v", "w"], index=index),
        "X_sparse": scipy_sparse.csr_matrix(x),
    }
    file = write_h5ad(tmp_path / "a.h5ad", {"day": TIME}, obsm)
    assert read_cells(file).features == ["u", "v", "w"]
    assert (read_cells(file, rep="X_sparse").x == x).all()


def test_h5ad_leaves_the_expression_matrix_alone(tmp_path, x):
    """Even a file whose matrix and layers cannot be read gives its cells."""
    h5py = pytest.importorskip("h5py")
    file = write_h5ad(tmp_path / "a.h5ad", {"day": TIME}, {"X_pca": x})
    with h5py.File(file, "r+") as f:
        for key in ("X", "layers", "var"):
            del f[key]
    assert (read_cells(file).x == x).all()


@pytest.mark.filterwarnings("ignore:.*was written with")
def test_h5ad_of_before_anndata_07(tmp_path, x):
    """Tables were compound datasets then, with the names of cells in a field."""
    h5py = pytest.importorskip("h5py")
    pytest.importorskip("anndata")
    obs = np.array(
        [(f"cell-{i}".encode(), t) for i, t in enumerate(TIME)],
        dtype=[("index", "S8"), ("day", "f8")],
    )
    with h5py.File(tmp_path / "a.h5ad", "w") as f:
        f["X"] = np.zeros((6, 2), dtype="f4")
        f["obs"] = obs
        f["var"] = np.array([(b"g0",), (b"g1",)], dtype=[("index", "S8")])
        f["obsm"] = np.array([(row,) for row in x], dtype=[("X_pca", "f8", (3,))])
    cells = read_cells(tmp_path / "a.h5ad")
    assert (cells.x == x).all() and (cells.time == TIME).all()
    assert cells.names[0] == "cell-0"


@pytest.mark.parametrize(
    "day",
    [
        ["2", "0", "0", "3.5", "2", "0"],
        [2, 0, 0, 3.5, 2, 0],
        ["day 2", "day 0", "day 0", "day 3.5", "day 2", "day 0"],
    ],
)
@pytest.mark.parametrize("categorical", [False, True])
def test_h5ad_times_as_text_and_categories(tmp_path, x, day, categorical):
    pandas = pytest.importorskip("pandas")
    column = pandas.Categorical(day) if categorical else day
    file = write_h5ad(tmp_path / "a.h5ad", {"day": column}, {"X_pca": x})
    assert (read_cells(file).time == TIME).all()


@pytest.mark.parametrize("kind", ["Int64", "float32", "int8"])
def test_h5ad_times_of_other_number_types(tmp_path, x, kind):
    pandas = pytest.importorskip("pandas")
    column = pandas.array([2, 0, 0, 3, 2, 0], dtype=kind)
    file = write_h5ad(tmp_path / "a.h5ad", {"day": column}, {"X_pca": x})
    assert read_cells(file).time.tolist() == [2, 0, 0, 3, 2, 0]


def parsed(labels, times=None):
    return parse_times(np.array(labels, dtype=object), "f", lambda row: f"#{row}", times).tolist()


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["0", "3.5", " 7 ", "1e1"], [0, 3.5, 7, 10]),
        (["-1", "0"], [-1, 0]),
        (["Day 03", "Day 12"], [3, 12]),
        (["D2", "d7", "D2"], [2, 7, 2]),
        (["day-2", "day-12"], [2, 12]),
        (["day -2", "day 12"], [-2, 12]),
        (["E7.5", "E8.25"], [7.5, 8.25]),
        (["12h", "24h"], [12, 24]),
        ([b"3", b"4"], [3, 4]),
        ([1, 2.0, "2"], [1, 2, 2]),
    ],
)
def test_labels_with_one_number(labels, expected):
    assert parsed(labels) == expected


def test_reading_a_number_off_a_label_is_logged(caplog):
    with caplog.at_level(logging.WARNING, logger="sciflow"):
        parsed(["1", "2"])
        assert caplog.text == ""
        parsed(["Day 03", "Day 12"])
    assert "'Day 03' as 3, 'Day 12' as 12" in caplog.text


def test_times_of_windows_are_given(tmp_path, x):
    windows = ["Day 06-09", "Day 00-03", "Day 00-03", "Day 12-15", "Day 06-09", "Day 00-03"]
    file = write_h5ad(tmp_path / "a.h5ad", {"sample_labels": windows}, {"X_pca": x})
    times = {"Day 00-03": 1.5, "Day 06-09": 7.5, "Day 12-15": 13.5}
    cells = read_cells(file, times=times)
    assert cells.time.tolist() == [7.5, 1.5, 1.5, 13.5, 7.5, 1.5]
    assert parsed([0.0, 1, "1"], {"0": -5, "1": 5}) == [-5, 5, 5]


def test_masses_from_weights_of_cells(tmp_path, x, caplog):
    weight = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    expected = [2 + 3 + 6, 1 + 5, 4]  # at times 0, 2, 3.5
    np.savez(tmp_path / "a.npz", X=x, t=TIME, w=weight)
    with caplog.at_level(logging.WARNING, logger="sciflow"):
        assert read_cells(tmp_path / "a.npz", mass_key="w").masses.tolist() == expected
    assert "differs between cells of one time" in caplog.text
    assert read_cells(tmp_path / "a.npz").masses is None
    file = write_csv(tmp_path / "a.csv", "t,w,x1,x2,x3", TIME, weight, *x.T)
    cells = read_cells(file, mass_key="w")
    assert cells.masses.tolist() == expected and cells.features == ["x1", "x2", "x3"]
    file = write_h5ad(tmp_path / "a.h5ad", {"t": TIME, "w": weight}, {"X_pca": x})
    assert read_cells(file, mass_key="w").masses.tolist() == expected


def test_masses_at_the_times(tmp_path, x):
    np.savez(tmp_path / "a.npz", X=x, t=TIME, mass=np.array([1, 2, 8]))
    assert read_cells(tmp_path / "a.npz", mass_key="mass").masses.tolist() == [1, 2, 8]
    uns = {"by_order": np.array([1.0, 2.0, 8.0]), "by_time": {"3.5": 8.0, "0": 1.0, "2": 2.0}}
    file = write_h5ad(tmp_path / "a.h5ad", {"t": TIME}, {"X_pca": x}, uns)
    for key in uns:
        assert read_cells(file, mass_key=key).masses.tolist() == [1, 2, 8]


def test_masses_where_each_cell_has_its_own_time(tmp_path, x):
    """Weights follow their cells, not the order of the times."""
    file = write_csv(tmp_path / "a.csv", "t,w,x1", [3.0, 1.0, 2.0], [30.0, 10.0, 20.0], x[:3, 0])
    assert read_cells(file, mass_key="w").masses.tolist() == [10, 20, 30]


def test_first_dims(tmp_path, x):
    np.savez(tmp_path / "a.npz", X=x, t=TIME, mass=np.array([1, 2, 8]))
    cells = read_cells(tmp_path / "a.npz", mass_key="mass")
    first = cells.first_dims(2)
    assert (first.x == x[:, :2]).all() and first.features == ["X1", "X2"]
    assert (first.n_dims, cells.n_dims) == (2, 3)
    assert first.masses is cells.masses and first.names == cells.names
    assert (read_cells(tmp_path / "a.npz", n_dims=2).x == first.x).all()


def test_heavy_packages_wait_until_they_are_needed():
    code = "import sys, sciflow.data, sciflow.metrics; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    loaded = set(result.stdout.split())
    assert "sciflow.metrics.transport" in loaded, result.stderr
    assert loaded & {"ot", "anndata", "pooch", "pandas", "h5py", "matplotlib", "mdtraj"} == set()


def test_snapshots(tmp_path, x, caplog):
    np.savez(tmp_path / "a.npz", X=x, t=TIME, mass=np.array([1, 2, 8]))
    cells = read_cells(tmp_path / "a.npz", mass_key="mass")
    assert isinstance(cells, Cells)
    with caplog.at_level(logging.WARNING, logger="sciflow"):
        snapshots = cells.snapshots()
    assert caplog.text == ""  # the time points are in order already
    assert snapshots.times.tolist() == [0, 2, 3.5]
    assert [len(sample) for sample in snapshots.samples] == [3, 2, 1] == cells.sizes.tolist()
    for sample, rows in zip(snapshots.samples, ([1, 2, 5], [0, 4], [3]), strict=True):
        assert sample.dtype == torch.float64
        assert (sample.cpu().numpy() == x[rows]).all()
    assert snapshots.masses.tolist() == [1, 2, 8]
    assert cells.snapshots(masses="counts").masses.tolist() == [3, 2, 1]
    assert cells.snapshots(masses=None).masses is None
    with pytest.raises(ValueError, match="masses is 'sum'"):
        cells.snapshots(masses="sum")

"""The AnnData bridge: which keys it reads and writes, and what stands in them."""

import json

import numpy as np
import pytest
import torch

from sciflow import DataError, wlf
from sciflow.bridges import anndata as bridge
from sciflow.bridges.embedding import embed_velocity, project_velocity
from sciflow.bridges.files import write_fit
from sciflow.data import read_cells

SHORT = {"steps": 10, "width": 8, "depth": 1, "batch_size": 32, "progress": False, "device": "cpu"}


def expected(model, adata, rep="X_pca", n_dims=None):
    """Velocity and potential, asked for time point by time point."""
    x = torch.tensor(np.asarray(adata.obsm[rep][:, :n_dims]), dtype=torch.float64)
    time = adata.obs["day"].astype(float).to_numpy()
    velocity, potential = np.empty(x.shape), np.empty(len(x))
    for t in np.unique(time):
        at = time == t
        velocity[at] = model.velocity(float(t), x[at]).numpy()
        potential[at] = model.potential(float(t), x[at]).numpy()
    return velocity, potential


def test_fields_after_a_round_trip(adata, tmp_path):
    assert bridge.fit(adata, **SHORT) is None
    adata.write_h5ad(tmp_path / "fitted.h5ad")
    anndata = pytest.importorskip("anndata")
    read = anndata.read_h5ad(tmp_path / "fitted.h5ad")
    model = bridge.model(read)
    velocity, potential = expected(model, read)

    assert read.obsm["velocity_pca"].dtype == np.float32
    np.testing.assert_allclose(read.obsm["velocity_pca"], velocity, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(read.obs["sciflow_potential"], potential, rtol=1e-6, atol=1e-6)
    assert (read.obs["growth_rate"] == 0.0).all()

    genes = read.layers["velocity"]
    known = [0, 1, 2, 3, 4, 6]
    assert genes.dtype == np.float32 and genes.shape == read.shape
    np.testing.assert_allclose(
        genes[:, known], velocity @ read.varm["PCs"][known].T, rtol=1e-5, atol=1e-5
    )
    assert np.isnan(genes[:, 5]).all()

    entry = read.uns["sciflow"]
    config = json.loads(entry["config"])
    assert config["steps"] == 10 and config["lagrangian"] == "ot" and config["hold_out"] == []
    assert entry["time_key"] == "day" and entry["rep"] == "X_pca" and entry["n_dims"] == 4
    assert entry["history"]["step"].tolist()[-1] == 10
    assert np.isfinite(entry["history"]["loss"]).all()
    assert entry["metrics"]["action"] == model.action().rollout
    assert entry["version"]


def fill(adata):
    """Put something into every slot of an AnnData, of the kinds that other tools write."""
    sparse = pytest.importorskip("scipy.sparse")
    r = np.random.default_rng(5)
    n, genes = adata.shape
    adata.raw = adata.copy()
    adata.layers["counts"] = sparse.csr_matrix(r.poisson(1.0, size=(n, genes)))
    adata.obsp["connectivities"] = sparse.random(n, n, 0.1, "csr", random_state=0)
    adata.varp["correlation"] = np.eye(genes)
    adata.varm["scores"] = r.normal(size=(genes, 2))
    adata.var["highly_variable"] = r.random(genes) < 0.5
    adata.obs["leiden"] = adata.obs["day"].astype(str).astype("category")
    adata.uns["pca"] = {"variance": r.random(4), "params": {"zero_center": True, "use": "X"}}
    adata.uns["leiden_colors"] = np.array(["#1f77b4", "#ff7f0e", "#279e68"])
    return adata


def contents(path):
    """Every array of an h5ad file, by its place."""
    found = {}

    def visit(name, thing):
        if hasattr(thing, "shape"):
            found[name] = thing[()]

    with pytest.importorskip("h5py").File(path) as file:
        file.visititems(visit)
    return found


@pytest.mark.parametrize("how", ["memory", "file"])
def test_a_round_trip_keeps_every_key(adata, tmp_path, how):
    """What was in a file is there afterwards, value by value, and what a fit adds beside it."""
    before, after = tmp_path / "before.h5ad", tmp_path / "after.h5ad"
    fill(adata).write_h5ad(before)
    if how == "memory":
        read = pytest.importorskip("anndata").read_h5ad(before)
        bridge.fit(read, **SHORT)
        read.write_h5ad(after)
    else:
        cells = read_cells(before)
        write_fit(cells, wlf.fit(cells.snapshots(), **SHORT), after, {})
    old, new = contents(before), contents(after)
    assert len(old) > 25 and "raw/var/_index" in old
    for name, value in old.items():
        np.testing.assert_array_equal(new[name], value, err_msg=name)
    added = {name for name in new if name not in old and not name.startswith("uns/sciflow/")}
    assert added == {
        "obsm/velocity_pca", "layers/velocity", "obs/growth_rate", "obs/sciflow_potential"
    }  # fmt: skip
    again = tmp_path / "again.h5ad"
    pytest.importorskip("anndata").read_h5ad(after).write_h5ad(again)
    twice = contents(again)
    assert set(twice) == set(new)
    for name, value in new.items():
        np.testing.assert_array_equal(twice[name], value, err_msg=name)


def test_is_the_fit_of_the_door(adata):
    bridge.fit(adata, seed=3, hold_out=[1], **SHORT)
    time = adata.obs["day"].astype(float).to_numpy()
    x = adata.obsm["X_pca"].astype(np.float64)
    snapshots = bridge.read(adata).snapshots()
    assert [len(s) for s in snapshots.samples] == [12, 15, 13]
    np.testing.assert_array_equal(snapshots.samples[2].numpy(), x[time == 2.5])
    model = wlf.fit(snapshots, hold_out=[1], seed=3, **SHORT)
    velocity, _ = expected(model, adata)
    np.testing.assert_allclose(adata.obsm["velocity_pca"], velocity, rtol=1e-6, atol=1e-6)
    velocity_of_another_seed, _ = expected(wlf.fit(snapshots, seed=4, **SHORT), adata)
    assert np.abs(velocity - velocity_of_another_seed).max() > 1e-3


def test_copy_leaves_the_original_alone(adata):
    before = adata.copy()
    made = bridge.fit(adata, copy=True, key_added="flow", **SHORT)
    assert "velocity_pca" in made.obsm and "flow" in made.uns and "flow_potential" in made.obs
    assert set(adata.obsm) == set(before.obsm) and not adata.layers and not adata.uns
    assert list(adata.obs) == list(before.obs)
    assert bridge.model(made, "flow").scale.dim == 4


def test_first_dimensions(adata):
    bridge.fit(adata, n_dims=2, **SHORT)
    velocity, _ = expected(bridge.model(adata), adata, n_dims=2)
    assert adata.obsm["velocity_pca"].shape == (40, 2)
    genes = adata.layers["velocity"][:, :5]
    np.testing.assert_allclose(genes, velocity @ adata.varm["PCs"][:5, :2].T, atol=1e-5)


def test_genes_only_where_the_loadings_belong(adata, caplog, monkeypatch):
    bridge.fit(adata, use_rep="X_umap", **SHORT)
    assert adata.obsm["velocity_umap"].shape == (40, 2) and "velocity" not in adata.layers

    adata.layers["velocity"] = np.ones(adata.shape)
    del adata.uns["sciflow"]
    pcs = adata.varm["PCs"]
    adata.varm["PCs"] = pcs[:, :3]
    bridge.fit(adata, **SHORT)
    assert "velocity" not in adata.layers
    assert "(7, 3)" in caplog.text and "removing layers['velocity']" in caplog.text

    adata.varm["PCs"] = pcs
    monkeypatch.setattr("sciflow.bridges.genes.LAYER_LIMIT", 4 * adata.n_obs * adata.n_vars - 1)
    bridge.fit(adata, **SHORT)
    assert "velocity" not in adata.layers and "GB" in caplog.text
    monkeypatch.undo()
    bridge.fit(adata, **SHORT)
    assert "velocity" in adata.layers


def test_predict(adata):
    bridge.fit(adata, **SHORT)
    names, columns = list(adata.obs_names), list(adata.obs)
    later = bridge.predict(adata, 0.0, [1.0, 2.5])
    assert list(adata.obs_names) == names and list(adata.obs) == columns

    model, day = bridge.model(adata), adata.obs["day"].astype(float).to_numpy()
    x0 = torch.tensor(adata.obsm["X_pca"][day == 0.0], dtype=torch.float64)
    path = model.trajectories(x0, torch.tensor([0.0, 1.0, 2.5])).x
    assert later.n_obs == 24 and later.n_vars == 0 and later.obs_names.is_unique
    assert later.obs["day"].tolist() == [1.0] * 12 + [2.5] * 12
    assert later.obs["source_cell"].tolist() == 2 * list(adata.obs_names[day == 0.0])
    np.testing.assert_allclose(later.obsm["X_pca"], path[1:].reshape(24, 4), rtol=1e-6)
    velocity, _ = expected(model, later)
    np.testing.assert_allclose(later.obsm["velocity_pca"], velocity, rtol=1e-6, atol=1e-6)

    later.uns["sciflow"] = adata.uns["sciflow"]
    back = bridge.predict(later, 2.5, 0.0)
    np.testing.assert_allclose(back.obsm["X_pca"], x0, atol=2e-3)


def test_labels_need_their_times(adata):
    windows = {"0": "0-1", "1": "2-3", "2.5": "4-6"}
    adata.obs["day"] = adata.obs["day"].cat.rename_categories(windows)
    with pytest.raises(DataError, match="times="):
        bridge.fit(adata, **SHORT)
    bridge.fit(adata, times={"0-1": 0.5, "2-3": 2.5, "4-6": 5.0}, **SHORT)
    scale = bridge.model(adata).scale
    assert (scale.start, scale.duration) == (0.5, 4.5)
    assert bridge.predict(adata, 0.5, 5.0).n_obs == 12


def test_errors_name_the_key_or_cell(adata):
    with pytest.raises(DataError, match="'hour'.*day, batch"):
        bridge.fit(adata, time_key="hour", **SHORT)
    with pytest.raises(DataError, match="'X_phate'.*X_pca, X_umap"):
        bridge.fit(adata, use_rep="X_phate", **SHORT)
    with pytest.raises(DataError, match="n_dims is 5.*4"):
        bridge.fit(adata, n_dims=5, **SHORT)
    with pytest.raises(DataError, match="call fit first"):
        bridge.model(adata)
    adata.obsm["X_pca"][17, 2] = np.nan
    with pytest.raises(DataError, match="nan at cell 'cell-17' .*'PC3'"):
        bridge.fit(adata, **SHORT)
    assert "velocity_pca" not in adata.obsm
    bridge.fit(adata, n_dims=2, **SHORT)
    with pytest.raises(DataError, match="no cells at time 7; the times are 0, 1, 2.5"):
        bridge.predict(adata, 7.0, 8.0)
    for times in ([], [float("nan")]):
        with pytest.raises(ValueError, match="times must"):
            bridge.predict(adata, 0.0, times)


@pytest.fixture
def pca(adata):
    """The same cells, with components that are those of X."""
    x = np.asarray(adata.X, dtype=np.float64)
    mean = x[:, [0, 1, 2, 3, 4, 6]].mean(0)
    centred = x[:, [0, 1, 2, 3, 4, 6]] - mean
    loadings = np.linalg.svd(centred, full_matrices=False)[2][:4].T
    adata.varm["PCs"] = np.insert(loadings, 5, 0.0, axis=0)
    adata.obsm["X_pca"] = centred @ loadings
    return adata


def test_genes_of_moved_cells(pca):
    bridge.fit(pca, **SHORT)
    plain = bridge.predict(pca, 0.0, [1.0, 2.5])
    later = bridge.predict(pca, 0.0, [1.0, 2.5], genes=True)
    assert list(later.var_names) == [f"gene-{i}" for i in (0, 1, 2, 3, 4, 6)]
    np.testing.assert_array_equal(later.obsm["X_pca"], plain.obsm["X_pca"])
    assert list(later.obs) == list(plain.obs)
    mean = np.asarray(pca.X).mean(0)
    known = [0, 1, 2, 3, 4, 6]
    expected = mean[known] + later.obsm["X_pca"] @ pca.varm["PCs"][known].T
    np.testing.assert_allclose(later.X, expected, rtol=1e-5, atol=1e-5)
    some = bridge.genes(pca, later.obsm["X_pca"].reshape(2, 12, 4), ["gene-6", "gene-0"])
    assert some.shape == (2, 12, 2)
    np.testing.assert_allclose(some.reshape(24, 2), expected[:, [5, 0]], rtol=1e-5, atol=1e-5)


def test_genes_that_cannot_be_had(pca):
    bridge.fit(pca, **SHORT)
    with pytest.raises(DataError, match="gene-5.*no loadings"):
        bridge.predict(pca, 0.0, 1.0, genes=["gene-5"])
    with pytest.raises(DataError, match="no gene 'Sox2'"):
        bridge.predict(pca, 0.0, 1.0, genes=["Sox2"])
    pca.layers["other"] = np.asarray(pca.X) ** 2
    with pytest.raises(DataError, match="not those of layers\\['other'\\]"):
        bridge.predict(pca, 0.0, 1.0, genes=True, layer="other")
    bridge.fit(pca, use_rep="X_umap", **SHORT)
    with pytest.raises(DataError, match="'X_umap'.*linear in the genes"):
        bridge.predict(pca, 0.0, 1.0, genes=True)


def test_trajectories(adata):
    bridge.fit(adata, **SHORT)
    times = [2.0, 0.5, 1.0]
    assert bridge.trajectories(adata, times, start=1.0, n_cells=5) is None
    found = adata.uns["sciflow_trajectories"]
    day = adata.obs["day"].astype(float).to_numpy()
    assert found["t"].tolist() == times and found["x"].shape == (3, 5, 4)
    assert set(found["source"]) <= set(adata.obs_names[day == 1.0])
    x0 = torch.tensor(adata[found["source"]].obsm["X_pca"], dtype=torch.float64)
    np.testing.assert_allclose(found["x"][2], x0, atol=1e-12)
    path = bridge.model(adata).trajectories(x0, torch.tensor([1.0, 0.5])).x[-1]
    np.testing.assert_allclose(found["x"][1], path, atol=1e-4)
    made = bridge.trajectories(adata, [2.5], copy=True, key_added="sciflow")
    assert made.uns["sciflow_trajectories"]["x"].shape == (1, 12, 4)


def test_evaluate(adata, tmp_path):
    options = SHORT | {"seeds": (0, 1)}
    assert bridge.evaluate(adata, time_key="day", **options) is None
    adata.write_h5ad(tmp_path / "scored.h5ad")
    read = pytest.importorskip("anndata").read_h5ad(tmp_path / "scored.h5ad")
    table = read.uns["sciflow_evaluation"]
    direct = wlf.evaluate(bridge.read(adata).snapshots(), **options)
    assert table["method"].tolist() == [row.method for row in direct.rows]
    np.testing.assert_array_equal(table["w1"], [row.w1 for row in direct.rows])
    assert np.isnan(table["time"].to_numpy()[-1])


def test_growth_and_masses(adata, tmp_path):
    """Counts as masses: log-weights are in the moved cells, growth rates in the table."""
    bridge.fit(adata, lagrangian="uot", growth_penalty=0.5, masses="counts", **SHORT)
    model, later = bridge.model(adata), bridge.predict(adata, 0.0, [1.0, 2.5])
    assert model.growth_penalty == 0.5
    day = adata.obs["day"].astype(float).to_numpy()
    x = torch.tensor(adata.obsm["X_pca"][day == 1.0], dtype=torch.float64)
    np.testing.assert_allclose(
        adata.obs["growth_rate"][day == 1.0], model.growth(1.0, x), atol=1e-6
    )
    start = torch.tensor(adata.obsm["X_pca"][day == 0.0], dtype=torch.float64)
    moved = model.trajectories(start, torch.tensor([0.0, 1.0, 2.5]))
    np.testing.assert_allclose(later.obs["log_weight"], moved.log_weight[1:].ravel(), atol=1e-6)
    later.write_h5ad(tmp_path / "later.h5ad")


def test_backed_stays_on_disk(pca, tmp_path):
    anndata = pytest.importorskip("anndata")
    pca.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    bridge.fit(backed, **SHORT)
    assert backed.isbacked and "velocity_pca" in backed.obsm and "velocity" not in backed.layers
    bridge.fit(pca, **SHORT)
    np.testing.assert_array_equal(backed.obsm["velocity_pca"], pca.obsm["velocity_pca"])
    genes = bridge.predict(backed, 0.0, 1.0, genes=True).X
    np.testing.assert_allclose(genes, bridge.predict(pca, 0.0, 1.0, genes=True).X, rtol=1e-5)
    with pytest.raises(DataError, match="copy=True"):
        bridge.fit(backed, copy=True, **SHORT)


def test_velocity_on_an_embedding(adata):
    """Against the Jacobian of an embedding that is known."""
    rng = np.random.default_rng(1)
    x, v = rng.normal(size=(4000, 3)), rng.normal(size=(4000, 3))
    turn = np.stack([np.sin(x[:, 0]) + 0.3 * x[:, 1] ** 2, x[:, 2] * 0.5 + x[:, 1]], 1)
    exact = np.stack(
        [np.cos(x[:, 0]) * v[:, 0] + 0.6 * x[:, 1] * v[:, 1], 0.5 * v[:, 2] + v[:, 1]], 1
    )
    found = project_velocity(x, v, turn, n_neighbors=20)
    inside = np.linalg.norm(x, axis=1) < 2
    assert np.abs(found - exact)[inside].mean() < 0.05 * np.abs(exact).mean()
    linear = x @ rng.normal(size=(3, 2))
    np.testing.assert_allclose(
        project_velocity(x, v, linear), v @ np.linalg.lstsq(x, linear, rcond=None)[0], atol=0.05
    )
    with pytest.raises(ValueError, match="n_neighbors"):
        project_velocity(x[:10], v[:10], turn[:10])
    bridge.fit(adata, **SHORT)
    embed_velocity(adata, "umap", n_neighbors=20)
    assert adata.obsm["velocity_umap"].shape == (40, 2)
    # the embedding of the fixture is the first two components
    np.testing.assert_allclose(
        adata.obsm["velocity_umap"], adata.obsm["velocity_pca"][:, :2], atol=0.02, rtol=0.02
    )
    with pytest.raises(DataError, match="'X_tsne'.*X_umap"):
        embed_velocity(adata, "tsne")

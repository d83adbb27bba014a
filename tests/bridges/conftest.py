"""Cells of three times, in memory, with a PCA whose loadings are known."""

import numpy as np
import pytest

TIMES = (0.0, 1.0, 2.5)


@pytest.fixture
def adata():
    anndata = pytest.importorskip("anndata")
    pandas = pytest.importorskip("pandas")
    r = np.random.default_rng(0)
    time = r.permutation(np.repeat(TIMES, (12, 15, 13)))
    x = (r.normal(size=(40, 4)) + time[:, None]).astype(np.float32)
    loadings = r.normal(size=(7, 4))
    loadings[5] = 0.0  # as scanpy writes for a gene that the PCA has not seen
    made = anndata.AnnData(
        X=r.poisson(3.0, size=(40, 7)).astype(np.float32),
        obs=pandas.DataFrame(
            {"day": pandas.Categorical([f"{t:g}" for t in time]), "batch": "a"},
            index=[f"cell-{i}" for i in range(40)],
        ),
        obsm={"X_pca": x, "X_umap": x[:, :2].astype(np.float64)},
        varm={"PCs": loadings},
    )
    made.var_names = [f"gene-{i}" for i in range(7)]
    return made

"""Cells of three times with a PCA whose loadings are known; atoms whose energy is known."""

import math

import numpy as np
import pytest
import torch

from sciflow import nct
from sciflow.nct.latent import Latent
from sciflow.nct.layers import AffineCoupling, Linear
from sciflow.units import kT

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


def make_cluster(n_atoms=4, mixed=True, spring=2000.0):
    """Atoms on springs [kJ/mol/nm^2] around different places; with ``mixed`` not harmonic."""
    n = 3 * n_atoms
    generator = torch.Generator().manual_seed(3)
    linear = Linear(n)
    basis, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    center = torch.arange(n, dtype=torch.float64) % 7 / 10
    layers = [linear.double()]
    with torch.no_grad():
        linear.set_modes(center, basis)
    if mixed:
        coupling = AffineCoupling([math.inf] * n, list(range(0, n, 2)), width=4, depth=1).double()
        with torch.no_grad():
            for x in coupling.parameters():
                noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
                x.copy_(0.4 * noise)  # the global generator drew what was there
        layers.append(coupling)
    latent = Latent([math.inf] * n, kT(300.0)).double()
    with torch.no_grad():
        # E = omega^2 Q^2 / 2
        latent.log_omega.fill_(math.log(spring) / 2)
    mass = torch.full((n,), 12.0, dtype=torch.float64)
    return nct.CanonicalTransformation(layers, latent, mass, units="md").double()


@pytest.fixture(scope="session")
def cluster():
    """The function that makes a `CanonicalTransformation` of some atoms in MD units."""
    return make_cluster

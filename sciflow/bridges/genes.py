"""From velocities of principal components to velocities of genes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData

_log = logging.getLogger(__name__)

# A gene-level velocity of more bytes than this is not made.
LAYER_LIMIT = 2 * 1024**3


def layer_bytes(adata: AnnData, rep: str) -> int:
    """Size of ``layers["velocity"]`` where `gene_velocity` will give one, else 0."""
    size = 4 * adata.n_obs * adata.n_vars
    return 0 if _loadings(adata, rep) is None or size > LAYER_LIMIT else size


def gene_velocity(adata: AnnData, rep: str, velocity: np.ndarray) -> np.ndarray | None:
    """Velocity of genes through the loadings ``varm["PCs"]``.

    A principal component is a sum over genes with orthonormal loadings, so that the velocity of
    a gene is the sum over components of loading times velocity, in the units of the expression
    that the PCA was made of (scaled, where it was scaled).

    Args:
        adata: cells with ``obsm[rep]`` and perhaps loadings.
        rep: the representation in which cells move.
        velocity: (cells, d), of the first d components.

    Returns:
        (cells, genes) float32, NaN for genes without loadings; None, with a notice where there is
        something to say, unless ``rep`` is ``X_pca`` with loadings of its own width and the
        result has at most ``LAYER_LIMIT`` bytes.
    """
    loadings = _loadings(adata, rep)
    if loadings is None:
        if rep == "X_pca" and "PCs" in adata.varm:
            _log.warning(
                "no layers['velocity']: varm['PCs'] has shape %s and obsm['X_pca'] %s, so they "
                "are not of one PCA",
                adata.varm["PCs"].shape,
                adata.obsm[rep].shape,
            )
        return None
    size = 4 * adata.n_obs * adata.n_vars
    if size > LAYER_LIMIT:
        _log.warning(
            "no layers['velocity']: it would take %.1f GB; for some genes it is "
            "obsm['velocity_pca'] @ varm['PCs'][genes, :%d].T",
            size / 1e9,
            velocity.shape[1],
        )
        return None
    genes = velocity.astype(np.float32) @ loadings[:, : velocity.shape[1]].T.astype(np.float32)
    # scanpy writes zeros for genes that the PCA has not seen, of whose velocity it says nothing.
    genes[:, ~(np.nan_to_num(loadings) != 0).any(1)] = np.nan
    return genes


def _loadings(adata: AnnData, rep: str) -> np.ndarray | None:
    """(genes, components) loadings that belong to a representation, or None."""
    if rep != "X_pca" or "PCs" not in adata.varm:
        return None
    loadings = np.asarray(adata.varm["PCs"])
    same = loadings.ndim == 2 and loadings.shape[1] == adata.obsm[rep].shape[1]
    return loadings if same else None

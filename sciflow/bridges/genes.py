"""From principal components back to genes: velocities, and cells that were moved."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sciflow.errors import DataError

if TYPE_CHECKING:
    from anndata import AnnData

_log = logging.getLogger(__name__)

# A gene-level velocity of more bytes than this is not made.
LAYER_LIMIT = 2 * 1024**3
# Cells of a matrix on disk that are read at once.
_BLOCK = 4096


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
    if adata.isbacked:
        _log.warning("no layers['velocity']: adata is backed by a file, its layers are in memory")
        return None
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


def expression(
    adata: AnnData,
    x: np.ndarray,
    rep: str = "X_pca",
    genes: Sequence[str] | None = None,
    layer: str | None = None,
) -> np.ndarray:
    """Expression of genes in cells that are known by their principal components.

    ``mean + x loadings^T``: what the leading components hold of the expression, in the units of
    the matrix that the PCA was made of.

    Args:
        adata: cells with the loadings ``varm["PCs"]`` and the matrix of the PCA, from which the
            means of the genes are taken, block by block where it is backed by a file.
        x: (n, d) first d components of any cells.
        rep: the representation that ``x`` belongs to.
        genes: names of the genes; None for all with loadings.
        layer: the matrix that the PCA was made of; None for ``X``.

    Returns:
        (n, genes) float32.

    Raises:
        DataError: the representation is not linear in the genes, a gene is unknown or has no
            loadings, or the matrix is not that of the PCA.
    """
    loadings = _loadings(adata, rep)
    if loadings is None:
        raise DataError(
            f"genes cannot be had from {rep!r}: only principal components, obsm['X_pca'] with "
            "their loadings varm['PCs'], are linear in the genes; fit with use_rep='X_pca'"
        )
    known = (np.nan_to_num(loadings) != 0).any(1)
    if genes is None:
        genes = with_loadings(adata)
    rows = adata.var_names.get_indexer(list(genes))
    for gene, row in zip(genes, rows, strict=True):
        if row < 0:
            raise DataError(f"there is no gene {gene!r} in var_names")
        if not known[row]:
            raise DataError(f"gene {gene!r} has no loadings: the PCA has not seen it")
    mean = _means(adata, loadings, known, layer)
    decoded = mean[rows] + x @ loadings[rows, : x.shape[1]].T
    return decoded.astype(np.float32)


def with_loadings(adata: AnnData) -> list[str]:
    """Names of the genes that the PCA has seen."""
    loadings = np.nan_to_num(np.asarray(adata.varm["PCs"]))
    return list(adata.var_names[(loadings != 0).any(1)])


def _means(
    adata: AnnData, loadings: np.ndarray, known: np.ndarray, layer: str | None
) -> np.ndarray:
    """Means of the genes that the PCA subtracted, after a check that it was made of this matrix.

    Raises:
        DataError: the components of some cells are not those of the matrix.
    """
    if layer is not None and layer not in adata.layers:
        raise DataError(f"no layer {layer!r}; there are {', '.join(adata.layers) or 'none'}")
    matrix = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        raise DataError("adata.X is empty, so the means of the genes are not known: name a layer")
    mean = np.zeros(adata.n_vars)
    parameters = adata.uns.get("pca", {}).get("params", {})
    if bool(parameters.get("zero_center", True)):
        for start in range(0, adata.n_obs, _BLOCK):
            block = matrix[start : start + _BLOCK]
            mean += np.asarray(block.sum(0, dtype=np.float64)).ravel()
        mean /= adata.n_obs
    some = np.unique(np.linspace(0, adata.n_obs - 1, min(adata.n_obs, 256)).astype(int))
    block = matrix[some]
    block = np.asarray(block.toarray() if hasattr(block, "toarray") else block, dtype=np.float64)
    own = np.asarray(adata.obsm["X_pca"], dtype=np.float64)[some]
    again = (block - mean)[:, known] @ loadings[known]
    if not np.allclose(again, own, atol=0.02 * np.abs(own).max() + 1e-12):
        name = "X" if layer is None else f"layers[{layer!r}]"
        raise DataError(
            f"the components in obsm['X_pca'] are not those of {name} under varm['PCs']: name the "
            "layer that the PCA was made of"
        )
    return mean


def _loadings(adata: AnnData, rep: str) -> np.ndarray | None:
    """(genes, components) loadings that belong to a representation, or None."""
    if rep != "X_pca" or "PCs" not in adata.varm:
        return None
    loadings = np.asarray(adata.varm["PCs"])
    same = loadings.ndim == 2 and loadings.shape[1] == adata.obsm[rep].shape[1]
    return loadings if same else None

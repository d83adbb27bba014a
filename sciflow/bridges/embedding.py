"""Velocities on an embedding that is not linear: UMAP, t-SNE, PHATE and the like."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sciflow.errors import DataError

if TYPE_CHECKING:
    from anndata import AnnData

# Cells that are worked on at once: bounds the memory, changes no number.
_CHUNK = 4096
# Of the mean square of the neighbours' distances; keeps directions without spread from exploding.
_RIDGE = 1e-3


def project_velocity(
    x: np.ndarray, velocity: np.ndarray, embedding: np.ndarray, n_neighbors: int = 30
) -> np.ndarray:
    """Velocity of cells on an embedding, by local linear regression of the embedding on ``x``.

    Around each cell the embedding is taken as linear in the coordinates in which the cells move:
    its Jacobian is fitted to the nearest neighbours by ridge regression, and the velocity is
    multiplied by it. The result is in units of the embedding per unit of time; where the embedding
    tears neighbours apart it means nothing, as the embedding does.

    Args:
        x: (cells, d) coordinates.
        velocity: (cells, d).
        embedding: (cells, e).
        n_neighbors: neighbours in the regression.

    Raises:
        ValueError: shapes disagree, or there are not more cells than neighbours.
    """
    from scipy.spatial import cKDTree

    if x.shape != velocity.shape or len(embedding) != len(x):
        raise ValueError(
            f"x, velocity and embedding must have one row per cell; got {x.shape}, "
            f"{velocity.shape} and {embedding.shape}"
        )
    if not 1 <= n_neighbors < len(x):
        raise ValueError(
            f"n_neighbors must be from 1 to {len(x) - 1}, since there are {len(x)} cells; got "
            f"{n_neighbors}"
        )
    tree, dim = cKDTree(x), x.shape[1]
    projected = np.empty(embedding.shape, dtype=np.float64)
    for start in range(0, len(x), _CHUNK):
        rows = slice(start, start + _CHUNK)
        index = tree.query(x[rows], k=n_neighbors + 1)[1]
        step, shown = x[index] - x[rows, None], embedding[index] - embedding[rows, None]
        gram = np.einsum("nki,nkj->nij", step, step)
        scale = np.trace(gram, axis1=1, axis2=2) / dim
        gram += (_RIDGE * scale + 1e-12)[:, None, None] * np.eye(dim)
        jacobian = np.linalg.solve(gram, np.einsum("nki,nke->nie", step, shown))
        projected[rows] = np.einsum("ni,nie->ne", velocity[rows], jacobian)
    return projected


def embed_velocity(
    adata: AnnData, basis: str, *, key_added: str = "sciflow", n_neighbors: int = 30
) -> None:
    """Write the velocity on an embedding, where scVelo and `sciflow.plots.stream` look for it.

    Args:
        adata: what ``bridges.anndata.fit`` annotated.
        basis: entry of ``obsm``, with or without its ``X_``: ``umap``.
        key_added: entry of ``uns`` of the fit.
        n_neighbors: see `project_velocity`.

    Sets the following fields:
        ``adata.obsm["velocity_umap"]``: named after ``basis``; in units of the embedding per unit
            of time.

    Raises:
        DataError: nothing was fitted, or there is no such embedding.
    """
    entry = adata.uns.get(key_added, {})
    if "rep" not in entry:
        raise DataError(f"no fit in uns[{key_added!r}]: call fit first")
    key = basis if basis.startswith("X_") else f"X_{basis}"
    if key not in adata.obsm:
        raise DataError(f"no {key!r} in obsm; it has {', '.join(adata.obsm)}")
    rep, dim = str(entry["rep"]), int(entry["n_dims"])
    x = np.asarray(adata.obsm[rep], dtype=np.float64)[:, :dim]
    velocity = np.asarray(adata.obsm[f"velocity_{rep.removeprefix('X_')}"], dtype=np.float64)
    shown = np.asarray(adata.obsm[key], dtype=np.float64)
    adata.obsm[f"velocity_{key.removeprefix('X_')}"] = project_velocity(
        x, velocity, shown, n_neighbors
    )

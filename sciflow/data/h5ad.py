"""Cells from AnnData files: time from ``obs``, features from ``obsm``, masses from either.

Only ``obs``, one entry of ``obsm`` and, where asked for, one of ``uns`` are read. The expression
matrix, layers and graphs stay on disk, whatever their size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sciflow.data.raw import RawCells, feature_names, lookup, matrix
from sciflow.data.times import pick_time_key
from sciflow.errors import DataError, require


def read_h5ad(path: Path, time_key: str | None, rep: str | None, mass_key: str | None) -> RawCells:
    """Cells of an ``.h5ad`` file.

    Args:
        path: the file.
        time_key: column of ``obs``; None for the one column that is called as a time is.
        rep: entry of ``obsm``; None for ``"X_pca"``.
        mass_key: column of ``obs`` (weight of each cell) or entry of ``uns`` (mass at each time).

    Raises:
        DataError: the file is not readable, or lacks one of these.
        MissingPackageError: anndata is not installed.
    """
    require("anndata", "cell")
    h5py = require("h5py", "cell")
    try:
        with h5py.File(path, "r") as file:
            lookup("obs", list(file), str(path), "group")
            # Files of before anndata 0.7 keep tables in a form that only read_h5ad understands.
            if "encoding-type" in file["obs"].attrs:
                read = element_reader()
                obsm, uns = file.get("obsm", {}), file.get("uns", {})
                return collect(path, read(file["obs"]), obsm, uns, read, time_key, rep, mass_key)
        adata = require("anndata", "cell").read_h5ad(path, backed="r")
        try:
            return collect(path, adata.obs, adata.obsm, adata.uns, as_is, time_key, rep, mass_key)
        finally:
            adata.file.close()
    except OSError as error:
        raise DataError(f"{path}: not a readable h5ad file, or cut off ({error})") from error


def element_reader() -> Callable[[Any], Any]:
    """The reader of one element; anndata moved it to ``anndata.io`` in 0.11."""
    try:
        from anndata.io import read_elem
    except ImportError:
        from anndata.experimental import read_elem
    return read_elem


def as_is(value: Any) -> Any:
    """The value itself: how entries of an AnnData in memory are read."""
    return value


def collect(
    path: Path,
    obs: Any,
    obsm: Mapping[str, Any],
    uns: Mapping[str, Any],
    read: Callable[[Any], Any],
    time_key: str | None,
    rep: str | None,
    mass_key: str | None,
) -> RawCells:
    """Cells from the parts of an AnnData, each read by ``read``; see ``read_cells``."""
    where = str(path)
    columns = [str(column) for column in obs.columns]
    time_key = time_key or pick_time_key(columns, where, "column of obs")
    lookup(time_key, columns, where, "column of obs")
    rep = rep or "X_pca"
    lookup(rep, list(obsm), where, "representation in obsm")
    x, features = _representation(read(obsm[rep]), rep, where)
    weights: np.ndarray | Mapping[str, float] | None = None
    if mass_key is not None:
        weights = _weights(obs, columns, uns, read, mass_key, where)
    return RawCells(
        x=x,
        time=_times(obs[time_key], f"{where}: obs[{time_key!r}]"),
        names=[str(name) for name in obs.index],
        features=features,
        time_key=time_key,
        rep=rep,
        weights=weights,
    )


def _representation(value: Any, rep: str, where: str) -> tuple[np.ndarray, list[str]]:
    columns = getattr(value, "columns", None)
    if hasattr(value, "toarray"):  # a sparse obsm has as few columns as a dense one
        value = value.toarray()
    x = matrix(np.asarray(value), where, f"obsm[{rep!r}]")
    return x, feature_names(rep, x.shape[1]) if columns is None else [str(c) for c in columns]


def _times(column: Any, where: str) -> np.ndarray:
    """Values of a column: float64 where it is numeric, else objects with None for missing."""
    pandas = require("pandas", "cell")
    if isinstance(column.dtype, pandas.CategoricalDtype):
        used = set(column.dropna().unique())
        empty = [category for category in column.cat.categories if category not in used]
        if empty:
            raise DataError(
                f"{where} has no cells at {', '.join(map(repr, empty))}: call "
                "cat.remove_unused_categories() on it if these are meant to be gone"
            )
        column = column.astype(object)
    types = pandas.api.types
    if types.is_numeric_dtype(column.dtype) and not types.is_bool_dtype(column.dtype):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    missing = column.isna().to_numpy()
    values = column.to_numpy(dtype=object, copy=True)
    values[missing] = None
    return values


def _weights(
    obs: Any,
    columns: list[str],
    uns: Mapping[str, Any],
    read: Callable[[Any], Any],
    mass_key: str,
    where: str,
) -> np.ndarray | Mapping[str, float]:
    if mass_key in columns and mass_key in uns:
        raise DataError(f"{where}: {mass_key!r} is in obs and in uns: rename one of them")
    if mass_key in columns:
        pandas = require("pandas", "cell")
        return pandas.to_numeric(obs[mass_key].astype(object), errors="coerce").to_numpy(
            dtype=np.float64
        )
    if mass_key not in uns:
        raise DataError(
            f"{where}: no {mass_key!r} in obs ({', '.join(columns)}) or uns "
            f"({', '.join(uns) or 'empty'})"
        )
    value = read(uns[mass_key])
    if isinstance(value, Mapping):
        return {str(key): float(np.asarray(mass)) for key, mass in value.items()}
    return np.asarray(value)

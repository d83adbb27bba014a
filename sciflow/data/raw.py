"""What every reader of cells hands on: arrays as they stand in the file, with their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sciflow.errors import DataError


@dataclass(frozen=True, eq=False)
class RawCells:
    """Cells as they stand in a file, before anything is checked.

    Attributes:
        x: (N, d) features.
        time: (M,) times, numbers or labels; M is N in a sound file.
        names: N names of cells; row numbers where the file has none.
        features: d names of features.
        time_key: where ``time`` stood.
        rep: where ``x`` stood.
        weights: (N,) weight of each cell, or (K,) mass at each time in ascending order of time,
            or the mass by time label; None where none was asked for.
    """

    x: np.ndarray
    time: np.ndarray
    names: list[str]
    features: list[str]
    time_key: str
    rep: str
    weights: np.ndarray | Mapping[str, float] | None


def feature_names(rep: str, n: int) -> list[str]:
    """Names of the columns of a representation: PC1, PC2 ... for principal components."""
    base = rep.removeprefix("X_")
    stem = "PC" if base.lower() in ("pca", "pcs") else base if base == rep else base.upper()
    return [f"{stem}{i + 1}" for i in range(n)]


def matrix(value: np.ndarray, where: str, what: str) -> np.ndarray:
    """(N, d) float64 from an array of a file.

    Raises:
        DataError: it has not two axes with at least one column, or does not hold real numbers.
    """
    if value.ndim != 2 or value.shape[1] == 0:
        raise DataError(
            f"{where}: {what} has shape {value.shape}; expected (cells, features) with at least "
            "one feature"
        )
    if value.dtype.kind not in "iuf":
        raise DataError(f"{where}: {what} holds {value.dtype}; expected real numbers")
    return value.astype(np.float64)


def lookup(key: str, keys: Sequence[str], where: str, what: str) -> None:
    """Refuse a key that the file has not.

    Raises:
        DataError: with the keys that exist.
    """
    if key not in keys:
        raise DataError(f"{where}: no {what} {key!r}; it has {', '.join(keys) or 'none'}")

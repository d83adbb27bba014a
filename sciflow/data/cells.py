"""Cells at several times, from the files that single-cell users have."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sciflow.data.h5ad import read_h5ad
from sciflow.data.npz import read_npz
from sciflow.data.raw import RawCells
from sciflow.data.table import read_csv
from sciflow.data.times import parse_times
from sciflow.errors import DataError

if TYPE_CHECKING:
    from sciflow.train import Snapshots

_log = logging.getLogger(__name__)

_Reader = Callable[[Path, str | None, str | None, str | None], RawCells]
_READERS: dict[str, _Reader] = {".h5ad": read_h5ad, ".npz": read_npz, ".csv": read_csv}


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells with a time each, in the order of their file.

    Attributes:
        x: (N, d) float64 features, in the units of the file.
        time: (N,) float64 times, in the units of the file.
        names: N names of cells; row numbers from 0 where the file has none.
        features: d names of the columns of ``x``, for instance PC1, PC2 ...
        path: the file.
        time_key: column or key of the file that ``time`` came from.
        rep: entry of the file that ``x`` came from.
        masses: (K,) float64 mass at each time point in ascending order of time; None where the
            file says nothing of mass.

    Raises:
        DataError: shapes disagree, a value is not finite, there is only one time point, or a mass
            is not positive; the file and the cell, column or time are named.
    """

    x: np.ndarray
    time: np.ndarray
    names: list[str]
    features: list[str]
    path: Path
    time_key: str
    rep: str
    masses: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.x)
        if self.x.ndim != 2 or self.x.shape[1] != len(self.features):
            raise DataError(
                f"{self.path}: x has shape {self.x.shape}; expected (cells, {len(self.features)})"
            )
        if self.time.shape != (n,) or len(self.names) != n:
            raise DataError(
                f"{self.path}: {self.rep!r} has {n} rows, {self.time_key!r} has "
                f"{len(self.time)} and there are {len(self.names)} cell names: all must agree"
            )
        bad = np.argwhere(~np.isfinite(self.x))
        if len(bad):
            row, column = bad[0].tolist()
            raise DataError(
                f"{self.path}: {len(bad)} values of {self.rep!r} are not finite; the first is "
                f"{self.x[row, column]} at {_cell(self.names, row)}, "
                f"column {self.features[column]!r}"
            )
        if not np.isfinite(self.time).all():
            row = int(np.flatnonzero(~np.isfinite(self.time))[0])
            raise DataError(f"{self.path}: no finite time at {_cell(self.names, row)}")
        if len(self.time_points) < 2:
            raise DataError(
                f"{self.path}: all {n} cells have the same {self.time_key!r} "
                f"({', '.join(f'{t:g}' for t in self.time_points)}): at least two times are needed"
            )
        if self.masses is not None:
            _check_masses(self.masses, self.time_points, str(self.path))

    @property
    def time_points(self) -> np.ndarray:
        """(K,) the different times, ascending."""
        return np.unique(self.time)

    @property
    def sizes(self) -> np.ndarray:
        """(K,) number of cells at each time point."""
        return np.unique(self.time, return_counts=True)[1]

    @property
    def n_dims(self) -> int:
        """Number of features d."""
        return len(self.features)

    def first_dims(self, n_dims: int) -> Cells:
        """The same cells with their first ``n_dims`` features.

        Raises:
            DataError: there are fewer features, or ``n_dims`` is less than one.
        """
        _check_n_dims(n_dims, self.n_dims, str(self.path), self.rep)
        return dataclasses.replace(self, x=self.x[:, :n_dims], features=self.features[:n_dims])

    def snapshots(self, masses: str | None = "file") -> Snapshots:
        """Snapshots for `am.fit` and `wlf.fit`, one for each time point.

        Args:
            masses: ``"file"`` for the masses of the file, if it has any; ``"counts"`` for the
                numbers of cells; None for no masses.

        Returns:
            K samples of shape (n_k, d), float64, at ascending times.

        Raises:
            ValueError: ``masses`` is none of these.
        """
        from sciflow.train import Snapshots

        if masses not in ("file", "counts", None):
            raise ValueError(f"masses is {masses!r}; expected 'file', 'counts' or None")
        counts = self.sizes.astype(np.float64)
        mass = self.masses if masses == "file" else counts if masses == "counts" else None
        return Snapshots(
            [self.x[self.time == t] for t in self.time_points], self.time_points, masses=mass
        )


def read_cells(
    path: str | Path,
    time_key: str | None = None,
    rep: str | None = None,
    n_dims: int | None = None,
    mass_key: str | None = None,
    times: Mapping[str, float | int] | None = None,
) -> Cells:
    """Read cells with times from ``.h5ad``, ``.npz`` or ``.csv``.

    Times may be numbers, categories or strings. A label with one number in it, such as
    ``Day 03``, is read as that number, and this is logged. A label with a range, such as
    ``Day 00-03``, is refused: give its time by ``times``.

    Args:
        path: the file. h5ad: only ``obs`` and the representation are read, never ``X``.
        time_key: column of ``obs`` (h5ad), key (npz) or column (csv) of the times; None for the
            one that is called ``time``, ``day``, ``t``, ``samples``, ``sample_labels`` ...
        rep: entry of ``obsm`` (h5ad; None for ``X_pca``), key (npz; None for ``X_pca``, ``pcs``,
            ``X`` or ``x``) or prefix of columns (csv; None for x1.. or PC1.., else all numbers).
        n_dims: keep the first features only; None for all.
        mass_key: weight of each cell, whose sum over the cells of a time is the mass at that
            time (column or key), or the masses at the times themselves (``uns`` or key; an array
            in ascending order of time, or a mapping from time).
        times: time of each label, for instance ``{"Day 00-03": 1.5, "Day 06-09": 7.5}``.

    Raises:
        DataError: the file is missing, damaged or lacks a key, or its content cannot be used;
            the file and the key, cell or column are named.
        MissingPackageError: ``.h5ad`` without anndata installed.
    """
    path = Path(path)
    where = str(path)
    if path.suffix.lower() not in _READERS:
        raise DataError(
            f"{where}: cannot read files of type {path.suffix or 'without extension'!r}; "
            f"expected one of {', '.join(_READERS)}"
        )
    if not path.is_file():
        raise DataError(f"{where}: no such file")
    raw = _READERS[path.suffix.lower()](path, time_key, rep, mass_key)
    return checked(raw, path, n_dims, mass_key, times)


def checked(
    raw: RawCells,
    path: Path,
    n_dims: int | None,
    mass_key: str | None,
    times: Mapping[str, float | int] | None,
) -> Cells:
    """Cells from what a reader found, with numbers for times; arguments as in ``read_cells``.

    Raises:
        DataError: as ``read_cells``; what is not asked for is not checked.
    """
    where, n = str(path), len(raw.x)
    if len(raw.time) != n:
        raise DataError(
            f"{where}: {raw.rep!r} has {n} rows and {raw.time_key!r} has {len(raw.time)}: "
            "there must be one time for each cell"
        )
    if n_dims is not None:
        _check_n_dims(n_dims, len(raw.features), where, raw.rep)
    time = parse_times(
        raw.time, f"{where}: {raw.time_key!r}", lambda row: _cell(raw.names, row), times
    )
    return Cells(
        x=raw.x[:, :n_dims],
        time=time,
        names=raw.names,
        features=raw.features[:n_dims],
        path=path,
        time_key=raw.time_key,
        rep=raw.rep,
        masses=None
        if raw.weights is None
        else _masses(raw, time, f"{where}: {mass_key!r}", times),
    )


def _cell(names: list[str], row: int) -> str:
    return f"cell {names[row]!r} (row {row}, from 0)"


def _check_n_dims(n_dims: int, available: int, where: str, rep: str) -> None:
    if not 1 <= n_dims <= available:
        raise DataError(f"{where}: n_dims is {n_dims}, but {rep!r} has {available} features")


def _masses(
    raw: RawCells, time: np.ndarray, where: str, times: Mapping[str, float | int] | None
) -> np.ndarray:
    """(K,) masses at the time points, from weights of cells or masses at times."""
    points, inverse = np.unique(time, return_inverse=True)
    if isinstance(raw.weights, Mapping):
        labels = np.array(list(raw.weights), dtype=object)
        keys = parse_times(labels, where, lambda row: f"entry {labels[row]!r}", times)
        table = dict(zip(keys.tolist(), raw.weights.values(), strict=True))
        if sorted(table) != points.tolist():
            raise DataError(
                f"{where} has masses at {sorted(table)}; the times of the cells are "
                f"{points.tolist()}"
            )
        return np.array([table[t] for t in points.tolist()])
    weights = np.asarray(raw.weights)
    if weights.dtype.kind not in "iuf":
        raise DataError(f"{where} holds {weights.dtype}; expected numbers")
    # Where each cell has a time of its own, both readings fit: take that of a column.
    if weights.shape == (len(points),) != time.shape:
        return weights.astype(np.float64)
    if weights.shape != time.shape:
        raise DataError(
            f"{where} has shape {weights.shape}; expected ({len(time)},), a weight for each cell, "
            f"or ({len(points)},), a mass for each time"
        )
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights > 0)))
    if len(bad):
        raise DataError(
            f"{where} has {len(bad)} weights that are not positive and finite; the first is "
            f"{weights[bad[0]]} at {_cell(raw.names, int(bad[0]))}"
        )
    if any(np.ptp(weights[inverse == k]) > 0 for k in range(len(points))):
        _log.warning(
            "%s differs between cells of one time: the masses are its sums; within a time all "
            "cells count alike",
            where,
        )
    return np.bincount(inverse, weights=weights)


def _check_masses(masses: np.ndarray, points: np.ndarray, where: str) -> None:
    if masses.shape != points.shape:
        raise DataError(f"{where}: masses have shape {masses.shape}; expected {points.shape}")
    bad = np.flatnonzero(~(np.isfinite(masses) & (masses > 0)))
    if len(bad):
        raise DataError(
            f"{where}: the mass at time {points[bad[0]]:g} is {masses[bad[0]]}; masses must be "
            "positive and finite"
        )

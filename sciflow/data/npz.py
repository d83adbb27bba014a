"""Cells from numpy archives, as TrajectoryNet and others write them: a key each for x and time."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from sciflow.data.raw import RawCells, feature_names, lookup, matrix
from sciflow.data.times import pick_time_key
from sciflow.errors import DataError

FEATURE_KEYS = ("X_pca", "pcs", "X", "x")
NAME_KEYS = ("obs_names", "cell_names", "names", "cells", "barcodes")


def read_npz(path: Path, time_key: str | None, rep: str | None, mass_key: str | None) -> RawCells:
    """Cells of an ``.npz`` file.

    Args:
        path: the file.
        time_key: key of the times (N,); None for the one key that is called as a time is.
        rep: key of the features (N, d); None for the one of ``X_pca``, ``pcs``, ``X``, ``x``.
        mass_key: key of the weights of cells (N,) or of the masses at the times (K,).

    Raises:
        DataError: the file is not readable, or lacks one of these.
    """
    where = str(path)
    try:
        archive = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{where}: not a readable npz archive, or cut off ({error})") from error
    if isinstance(archive, np.ndarray):
        raise DataError(f"{where}: holds one array, not an npz archive with keys")
    with archive:
        keys = list(archive.files)
        rep = rep or _pick_rep(keys, where)
        lookup(rep, keys, where, "key")
        time_key = time_key or pick_time_key([key for key in keys if key != rep], where, "key")
        lookup(time_key, keys, where, "key")
        if mass_key is not None:
            lookup(mass_key, keys, where, "key")
        x = matrix(_load(archive, rep, where), where, f"key {rep!r}")
        time = _load(archive, time_key, where)
        weights = None if mass_key is None else _load(archive, mass_key, where)
        names = [str(row) for row in range(len(x))]
        for key in NAME_KEYS:
            if key in keys and key not in (rep, time_key, mass_key):
                found = _load(archive, key, where)
                if found.shape == (len(x),):
                    names = [str(name) for name in found.tolist()]
    if time.ndim == 2 and time.shape[1] == 1:
        time = time[:, 0]
    if time.ndim != 1:
        raise DataError(f"{where}: key {time_key!r} has shape {time.shape}; expected (cells,)")
    features = feature_names(rep, x.shape[1])
    return RawCells(x, time, names, features, time_key, rep, weights)


def _pick_rep(keys: list[str], where: str) -> str:
    found = [key for key in FEATURE_KEYS if key in keys]
    if len(found) == 1:
        return found[0]
    problem = (
        f"more than one key could be the features ({', '.join(found)})"
        if found
        else f"no key of features ({', '.join(FEATURE_KEYS)})"
    )
    raise DataError(f"{where}: {problem}: say which by rep; the keys are {', '.join(keys)}")


def _load(archive: np.lib.npyio.NpzFile, key: str, where: str) -> np.ndarray:
    try:
        return archive[key]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{where}: key {key!r} cannot be read ({error})") from error

"""Plain samples, a row each, from and to ``.csv``, ``.npy`` and ``.npz``."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sciflow.data.raw import lookup, matrix
from sciflow.errors import DataError

SUFFIXES = (".csv", ".npy", ".npz")


@dataclass(frozen=True, eq=False)
class Table:
    """Samples as they stand in a file.

    Attributes:
        x: (N, d) float64.
        names: d names of the columns; x1, x2 ... where the file has none.
        path: the file.
    """

    x: np.ndarray
    names: list[str]
    path: Path


def read_samples(
    path: str | Path, columns: Sequence[str] | None = None, key: str | None = None
) -> Table:
    """Read samples from a table.

    Args:
        path: ``.csv`` (a header with names, or numbers only; commas, semicolons or tabs),
            ``.npy`` (an array (N, d)), or ``.npz``.
        columns: of a csv file: these, in this order; None takes all.
        key: of an npz file: the array; None takes the only one, or ``x``.

    Raises:
        DataError: the file is missing, damaged or of another kind, lacks a column or key, or
            holds what is no finite number; the file and the place are named.
    """
    path = Path(path)
    check_suffix(path, "read")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    suffix = path.suffix.lower()
    if columns is not None and suffix != ".csv":
        raise DataError(f"{path}: columns have names in csv files only")
    if suffix == ".csv":
        x, names = _read_csv(path, columns)
    else:
        x = matrix(_read_numpy(path, key), str(path), "the array")
        names = [f"x{i + 1}" for i in range(x.shape[1])]
    bad = np.argwhere(~np.isfinite(x))
    if len(bad):
        row, column = bad[0].tolist()
        raise DataError(
            f"{path}: {len(bad)} values are not finite; the first is {x[row, column]} in row "
            f"{row} (from 0), column {names[column]!r}"
        )
    return Table(x, names, path)


def write_samples(path: str | Path, columns: Mapping[str, np.ndarray]) -> Path:
    """Write columns of equal length N, as `read_samples` reads them.

    Args:
        path: ``.csv`` (a header with the names), ``.npy`` (N, columns), or ``.npz`` (an array
            by each name).
        columns: (N,) each, by name.

    Raises:
        DataError: the suffix is another.
    """
    path = Path(path)
    check_suffix(path, "write")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".npz":
        np.savez(path, **columns)  # type: ignore[arg-type]
    elif path.suffix.lower() == ".npy":
        np.save(path, np.stack(list(columns.values()), axis=1))
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*(values.tolist() for values in columns.values()), strict=True))
    return path


def check_suffix(path: Path, verb: str) -> None:
    """Refuse a file of an unknown kind.

    Raises:
        DataError: names those that are known.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"{path}: cannot {verb} files of type {path.suffix or 'without extension'!r}; "
            f"expected one of {', '.join(SUFFIXES)}"
        )


def _read_csv(path: Path, columns: Sequence[str] | None) -> tuple[np.ndarray, list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(",;\t", key=first.count), strict=True)
            lines = [(reader.line_num, row) for row in reader if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable table ({error})") from error
    if not lines:
        raise DataError(f"{path}: the file is empty")
    header = [name.strip() for name in lines[0][1]]
    if all(_number(name) is not None for name in header):
        header = [f"x{i + 1}" for i in range(len(header))]
    else:
        lines = lines[1:]
    chosen = list(columns or header)
    for name in chosen:
        lookup(name, header, str(path), "column")
    where = [header.index(name) for name in chosen]
    x = np.empty((len(lines), len(chosen)))
    for i, (line, row) in enumerate(lines):
        if len(row) != len(header):
            raise DataError(
                f"{path}: line {line} has {len(row)} values, the first has {len(header)}"
            )
        for j, k in enumerate(where):
            value = _number(row[k])
            if value is None:
                raise DataError(
                    f"{path}: line {line}, column {chosen[j]!r}: {row[k]!r} is not a number"
                )
            x[i, j] = value
    return x, chosen


def _read_numpy(path: Path, key: str | None) -> np.ndarray:
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content
        with content:
            keys = list(content.files)
            key = key or ("x" if "x" in keys else keys[0] if len(keys) == 1 else None)
            if key is None:
                raise DataError(f"{path}: say which array by key; it has {', '.join(keys)}")
            lookup(key, keys, str(path), "key")
            return content[key]
    except DataError:
        raise
    except Exception as error:  # zip, zlib, EOF, OS and value errors of a damaged file
        raise DataError(f"{path}: not a readable numpy file ({error})") from error


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None

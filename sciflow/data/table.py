"""Cells from tables of text: one row a cell, a header, a column of times, columns of features.

Columns ``x1..xd`` or ``PC1..PCd`` are the features where there are any, as in the files of
DeepRUOT and TIGON; otherwise every numeric column that is not time, weight or name of the cells.
"""

from __future__ import annotations

import csv
import logging
import re
from pathlib import Path

import numpy as np

from sciflow.data.raw import RawCells, lookup
from sciflow.data.times import pick_time_key
from sciflow.errors import DataError

_log = logging.getLogger(__name__)

# Headers of the column of cell names; pandas and R leave that of the index empty.
NAME_COLUMNS = ("", "unnamed: 0", "cell", "cells", "cell_id", "cell_name", "barcode", "barcodes",
                "obs_names", "index", "name", "names")  # fmt: skip


def read_csv(path: Path, time_key: str | None, rep: str | None, mass_key: str | None) -> RawCells:
    """Cells of a ``.csv`` file, separated by comma, semicolon or tab.

    Args:
        path: the file.
        time_key: column of times; None for the one column that is called as a time is.
        rep: prefix of the columns of features, for instance ``"PC"`` for PC1, PC2 ...; None for
            the columns named above.
        mass_key: column of the weights of cells.

    Raises:
        DataError: a row is cut off, a value is not a number, or a column is missing; the line or
            cell, and the column, are named.
    """
    where = str(path)
    header, rows = _rows(path)
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    time_key = time_key or pick_time_key(header, where, "column")
    lookup(time_key, header, where, "column")
    if mass_key is not None:
        lookup(mass_key, header, where, "column")
    names = [str(row) for row in range(len(rows))]
    left = [column for column in header if column not in (time_key, mass_key)]
    for column in left:
        if column.lower() in NAME_COLUMNS:
            names = [name.strip() for name in columns[column]]
            left.remove(column)
            break
    features, by_name = _pick_features(left, rep, where)
    numbers = {column: _numbers(columns[column], column, names, where) for column in features}
    text = [column for column in features if numbers[column] is None]
    found = {column: values for column, values in numbers.items() if values is not None}
    if not found or (text and by_name):
        wanted = ", ".join(text or features) or "none left"
        raise DataError(f"{where}: no numbers in the columns of features ({wanted})")
    ignored = [column for column in left if column not in found]
    if ignored:
        _log.info("%s: not used as features: %s", where, ", ".join(ignored))
    weights = None
    if mass_key is not None:
        weights = _numbers(columns[mass_key], mass_key, names, where)
        if weights is None:
            raise DataError(f"{where}: no numbers in column {mass_key!r}")
    return RawCells(
        x=np.stack(list(found.values()), axis=1),
        time=np.array(columns[time_key], dtype=object),
        names=names,
        features=list(found),
        time_key=time_key,
        rep=rep or "columns",
        weights=weights,
    )


def _rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table, each row as long as the header."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(",;\t", key=first.count), strict=True)
            header = [name.strip() for name in next(reader, [])]
            rows = []
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    raise DataError(
                        f"{path}: line {reader.line_num} has {len(row)} values where the header "
                        f"has {len(header)}: the row is cut off or has too many separators"
                    )
                rows.append(row)
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable table ({error})") from error
    if not rows:
        raise DataError(f"{path}: no rows below the header")
    if all(_is_number(name) for name in header):
        raise DataError(
            f"{path}: the first line has only numbers; a header with the names of the columns "
            "is needed, for instance samples,x1,x2"
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path}: more than one column is called {', '.join(map(repr, twice))}")
    return header, rows


def _pick_features(columns: list[str], rep: str | None, where: str) -> tuple[list[str], bool]:
    """Columns called by a prefix and a number (True), in order of the number; else all (False)."""
    families: dict[str, list[tuple[int, str]]] = {}
    for column in columns:
        match = re.fullmatch(r"(.*?)_?(\d+)", column)
        if match:
            families.setdefault(match[1].lower(), []).append((int(match[2]), column))
    wanted = ("x", "pc") if rep is None else (rep.rstrip("_").lower(),)
    found = [family for family in wanted if family in families]
    if rep is not None and not found:
        raise DataError(
            f"{where}: no columns called {rep}1, {rep}2 ...; it has {', '.join(columns)}"
        )
    if len(found) > 1:
        raise DataError(f"{where}: has columns {' and '.join(found)}1...: say which by rep")
    if not found:
        return columns, False
    return [column for _, column in sorted(families[found[0]])], True


def _numbers(
    column: tuple[str, ...], name: str, names: list[str], where: str
) -> np.ndarray | None:
    """(N,) float64; None for a column of text. One bad value among numbers is an error."""
    try:
        return np.array([float(value) for value in column])
    except ValueError:
        bad = [row for row, value in enumerate(column) if not _is_number(value)]
    if len(bad) == len(column):
        return None
    raise DataError(
        f"{where}: {len(bad)} values of column {name!r} are not numbers; the first is "
        f"{column[bad[0]]!r} at cell {names[bad[0]]!r} (row {bad[0]}, from 0)"
    )


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True

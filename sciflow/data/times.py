"""Times of cells from what a file holds: numbers, strings, categories, labels such as ``Day 03``.

A label that holds one number becomes that number, where the text around the number is the same in
all labels; this is logged. A label with more than one number, such as ``Day 00-03``, is refused
with the mapping to write: whether such a window means its start, its middle or just its place in
the order is a choice that changes every velocity, and only the user can make it.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sciflow.errors import DataError

_log = logging.getLogger(__name__)

# What files call the time, in lower case.
TIME_KEYS = (
    "time", "times", "t", "day", "days", "hour", "hours", "age",
    "timepoint", "timepoints", "time_point", "time_points",
    "sample", "samples", "sample_label", "sample_labels",
)  # fmt: skip

# A sign counts only after a space or at the start, as in "day -1": in "day-1" and "0-3" it joins.
_NUMBER = re.compile(r"(?:(?<!\S)[-+])?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


def pick_time_key(keys: Sequence[str], where: str, kind: str) -> str:
    """The one key of a file that is a time by its name, whatever its case.

    Args:
        keys: the keys or columns of the file.
        where: the file, for messages.
        kind: what a key is, for messages: ``"column"``, ``"key"``.

    Raises:
        DataError: no key, or more than one, is called as a time is.
    """
    found = [key for key in keys if key.lower() in TIME_KEYS]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            f"{where}: more than one {kind} could be the time ({', '.join(found)}): "
            "say which by time_key"
        )
    raise DataError(
        f"{where}: no {kind} is called as a time is ({', '.join(TIME_KEYS)}): say which by "
        f"time_key; the {kind}s are {', '.join(keys) or 'none'}"
    )


def parse_times(
    values: np.ndarray,
    where: str,
    cell: Callable[[int], str],
    times: Mapping[str, float | int] | None = None,
) -> np.ndarray:
    """Times as numbers.

    Args:
        values: (N,) numbers, or strings, or objects.
        where: file and key, for messages.
        cell: gives the description of a cell from its row, for messages.
        times: time of each label; None to read it off the label.

    Returns:
        (N,) float64, in the units of the file.

    Raises:
        DataError: a cell has no time, or a label is not a time; the label and cell are named.
    """
    if times is None and values.dtype.kind in "iuf":
        numbers = values.astype(np.float64)
        _refuse_missing(~np.isfinite(numbers), where, cell)
        return numbers
    labels = np.array([_label(value) for value in values.tolist()], dtype=object)
    _refuse_missing(np.array([label is None for label in labels], dtype=bool), where, cell)
    unique = list(dict.fromkeys(labels.tolist()))
    table = _read_labels(unique, labels, where, cell) if times is None else _given(
        unique, times, labels, where, cell
    )  # fmt: skip
    return np.array([table[label] for label in labels.tolist()], dtype=np.float64)


def _label(value: object) -> str | None:
    """The text of a value; None where the value is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    # A whole number that went through a float is the same label as the number itself.
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return text.strip() or None


def _refuse_missing(missing: np.ndarray, where: str, cell: Callable[[int], str]) -> None:
    if missing.any():
        row = int(np.flatnonzero(missing)[0])
        raise DataError(
            f"{where}: {int(missing.sum())} of {len(missing)} cells have no finite time; "
            f"the first is {cell(row)}"
        )


def _given(
    unique: list[str],
    times: Mapping[str, float | int],
    labels: np.ndarray,
    where: str,
    cell: Callable[[int], str],
) -> dict[str, float]:
    table = {}
    for label in unique:
        if label not in times:
            row = labels.tolist().index(label)
            raise DataError(
                f"{where}: times has no entry for {label!r}, the time of {cell(row)}; the labels "
                f"are {_listed(unique)}"
            )
        table[label] = float(times[label])
        if not math.isfinite(table[label]):
            raise DataError(f"times[{label!r}] is {table[label]}, which is not finite")
    return table


def _read_labels(
    unique: list[str], labels: np.ndarray, where: str, cell: Callable[[int], str]
) -> dict[str, float]:
    """Number of each label, by what Python reads as a number, else by the one number in it."""
    table: dict[str, float] = {}
    around: dict[str, str] = {}
    for label in unique:
        try:
            table[label], around[label] = float(label), ""
        except ValueError:
            numbers = _NUMBER.findall(label)
            if len(numbers) == 1:
                table[label] = float(numbers[0])
                around[label] = " ".join(_NUMBER.sub("#", label).lower().split())
        if label not in table or not math.isfinite(table[label]):
            row = labels.tolist().index(label)
            raise DataError(
                f"{where}: the time {label!r} of {cell(row)} is not a number; the labels are "
                f"{_listed(unique)}. Give their times: times={_proposal(unique)}"
            )
    if len(set(around.values())) > 1:
        raise DataError(
            f"{where}: the time labels {_listed(unique)} are not all of one form, so their "
            f"numbers may not be in one unit. Give their times: times={_proposal(unique)}"
        )
    if any(around.values()):
        pairs = ", ".join(f"{label!r} as {number:g}" for label, number in table.items())
        _log.warning("%s: read the time labels %s", where, pairs)
    return table


def _listed(labels: list[str], most: int = 20) -> str:
    shown = ", ".join(map(repr, labels[:most]))
    return shown if len(labels) <= most else f"{shown} and {len(labels) - most} more"


def _proposal(labels: list[str], most: int = 20) -> str:
    """A mapping to copy: the middle of each window, or a blank."""
    entries = []
    for label in sorted(labels)[:most]:
        numbers = [float(number) for number in _NUMBER.findall(label)]
        middle = f"{sum(numbers) / len(numbers):g}" if numbers else "..."
        entries.append(f"{label!r}: {middle}")
    return "{" + ", ".join(entries) + (", ..." if len(labels) > most else "") + "}"

"""What a fitted model says of each cell: the table that every file of cells is written from."""

from __future__ import annotations

import csv
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sciflow.am import ActionPotential
from sciflow.errors import DataError, SciflowError

_log = logging.getLogger(__name__)

# Cells that pass through the network at once: bounds the memory, changes no number.
_CHUNK = 65536


@dataclass(frozen=True, eq=False)
class CellTable:
    """Cells with what a model says of each, at the cell's own time.

    Attributes:
        names: N names of cells.
        features: d names of features.
        t: (N,) times, in the user's unit.
        x: (N, d) features.
        velocity: (N, d), units of x per unit of time.
        potential: (N,), (units of x)^2 per unit of time.
        growth: (N,) rate of growth of the mass, per unit of time; zero where mass is conserved.
        log_weight: (N,) logarithm of the weight that a moved cell has gathered; None where mass
            is conserved, or where cells were not moved.
    """

    names: list[str]
    features: list[str]
    t: np.ndarray
    x: np.ndarray
    velocity: np.ndarray
    potential: np.ndarray
    growth: np.ndarray
    log_weight: np.ndarray | None = None


def describe(
    model: ActionPotential,
    names: Sequence[str],
    features: Sequence[str],
    t: np.ndarray,
    x: np.ndarray,
) -> CellTable:
    """Ask a model for velocity, potential and growth of each cell at its own time.

    Args:
        model: a fitted potential.
        names: N names of cells.
        features: d names of features.
        t: (N,) times.
        x: (N, d) float64 features.

    Raises:
        DataError: the model has another number of dimensions.
    """
    check_dim(model, x.shape[1])
    velocity, potential, growth = np.empty_like(x), np.empty(len(x)), np.empty(len(x))
    for start in range(0, len(x), _CHUNK):
        rows = slice(start, start + _CHUNK)
        ti, xi = (
            torch.tensor(values[rows], dtype=torch.float64, device=model.center.device)
            for values in (t, x)
        )
        velocity[rows] = model.velocity(ti, xi).cpu().numpy()
        potential[rows] = model.potential(ti, xi).cpu().numpy()
        growth[rows] = model.growth(ti, xi).cpu().numpy()
    return CellTable(list(names), list(features), t, x, velocity, potential, growth)


def move(
    model: ActionPotential,
    names: Sequence[str],
    features: Sequence[str],
    x: np.ndarray,
    start: float,
    times: Sequence[float],
    n_steps: int | None = None,
    seed: int = 0,
) -> CellTable:
    """Move cells along the flow, and describe them where they arrive.

    Args:
        model: a fitted potential.
        names: N names of cells; a time is appended where there is more than one.
        features: d names of features.
        x: (N, d) float64 features at the time ``start``.
        start: time of the cells.
        times: T times to move them to, before or after ``start``, in any order.
        n_steps: constant steps from one time to the next; None for adaptive steps.
        seed: seed of the noise, where the flow has some.

    Returns:
        T * N rows, time after time.

    Raises:
        DataError: the model has another number of dimensions.
        ValueError: there are no times, one is not finite, or the flow has noise and one lies
            before the start.
    """
    check_dim(model, x.shape[1])
    x0 = torch.tensor(x, dtype=torch.float64, device=model.center.device)
    path = model.predict(x0, start, [float(t) for t in times], n_steps, seed)
    warn_beyond(model, [start, *times])
    if len(times) > 1:
        names = [f"{name}-t{t:g}" for t in times for name in names]
    t = np.repeat(np.array(times, dtype=np.float64), len(x))
    table = describe(model, names, features, t, path.x.cpu().numpy().reshape(-1, x.shape[1]))
    if path.log_weight is None:
        return table
    return replace(table, log_weight=path.log_weight.cpu().numpy().ravel())


def warn_beyond(model: ActionPotential, times: Sequence[float]) -> None:
    """Say in the log that times lie beyond those of the fit."""
    first, last = model.scale.start, model.scale.start + model.scale.duration
    # Rounding of start + duration must not raise the notice.
    slack = 1e-9 * model.scale.duration
    if min(times) < first - slack or max(times) > last + slack:
        _log.warning(
            "the model was fitted from t = %g to %g; beyond that it extrapolates", first, last
        )


def check_dim(model: ActionPotential, dim: int) -> None:
    """Refuse cells of another width than the model's.

    Raises:
        DataError: says both numbers.
    """
    if dim != model.scale.dim:
        raise DataError(
            f"the cells have {dim} features, but the model was fitted on {model.scale.dim}"
        )


def csv_header(features: Sequence[str]) -> list[str]:
    """Columns of a csv file of cells.

    Raises:
        DataError: two of them would have one name.
    """
    velocity = [f"velocity_{name}" for name in features]
    header = ["cell", "time", *features, *velocity, "potential", "growth"]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(
            f"more than one column would be called {', '.join(twice)}: rename these features, "
            "or write .npz or .h5ad"
        )
    return header


def write_csv(table: CellTable, path: Path) -> None:
    """One row a cell: its name, time, features, velocity, potential, growth, log-weight."""
    columns = [table.t, table.x, table.velocity, table.potential, table.growth]
    header = csv_header(table.features)
    if table.log_weight is not None:
        columns.append(table.log_weight)
        header.append("log_weight")
    values = np.column_stack(columns)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for name, row in zip(table.names, values.tolist(), strict=True):
            writer.writerow([name, *row])  # floats as their repr: nothing is rounded


def write_npz(table: CellTable, path: Path) -> None:
    """Keys ``x t velocity potential growth names features``, and ``log_weight`` where known."""
    weights = {} if table.log_weight is None else {"log_weight": table.log_weight}
    with path.open("wb") as file:
        np.savez_compressed(
            file,
            x=table.x,
            t=table.t,
            velocity=table.velocity,
            potential=table.potential,
            growth=table.growth,
            names=np.array(table.names, dtype=str),
            features=np.array(table.features, dtype=str),
            **weights,  # type: ignore[arg-type]
        )


def as_json(config: Mapping[str, Any]) -> str:
    """Settings as JSON; numbers of numpy become plain, and what JSON has no word for its text."""

    def plain(value: Any) -> Any:
        return value.item() if isinstance(value, np.generic) else str(value)

    return json.dumps(dict(config), default=plain)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a file beside ``path``, then rename it: never half a file.

    Raises:
        SciflowError: the file cannot be written; what stood at ``path`` is as it was.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # h5py raises both
        raise SciflowError(f"cannot write {path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)

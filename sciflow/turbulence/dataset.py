"""Many decays in one small file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from sciflow.errors import DataError
from sciflow.turbulence.runs import DecayRun, Source

_NUMBERS = ("nu", "box", "k_max", "balance")
_SERIES = ("t", "k", "eps", "skewness", "palinstrophy", "integral_scale")


def write_runs(path: str | Path, runs: Sequence[DecayRun]) -> Path:
    """Write decays to a compressed .npz file; what a run lacks stays missing.

    Spectra are kept as half-precision logarithms below their maxima (.1 %), all else in single
    precision but for times, k and eps, which are exact.

    Raises:
        ValueError: no run, or another suffix.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"path must end in .npz; got {path}")
    if not runs:
        raise ValueError("there is no run to write")
    arrays: dict[str, np.ndarray] = {
        "names": np.array([run.name for run in runs]),
        "source": np.array([run.source for run in runs]),
        "rows": np.array([len(run.t) for run in runs]),
        "shells": np.array([0 if run.kappa is None else len(run.kappa) for run in runs]),
    }
    for name in _NUMBERS:
        values = [getattr(run, name) for run in runs]
        arrays[name] = np.array([np.nan if v is None else v for v in values])
    for name in _SERIES:
        parts = []
        for run in runs:
            value = getattr(run, name)
            parts.append(np.full(len(run.t), np.nan) if value is None else value.numpy())
        exact = name in ("t", "k", "eps")
        arrays[name] = np.concatenate(parts).astype(np.float64 if exact else np.float32)
    kappa, spectrum, top = [np.zeros(0)], [np.zeros(0)], [np.zeros(0)]
    for run in runs:
        if run.kappa is not None and run.spectrum is not None:
            E = run.spectrum.numpy()
            high = E.max(1)
            kappa.append(run.kappa.numpy())
            top.append(np.log(high))
            with np.errstate(divide="ignore"):
                spectrum.append(np.log(E / high[:, None]).clip(-60).ravel())
    arrays["kappa"] = np.concatenate(kappa)
    arrays["top"] = np.concatenate(top).astype(np.float32)
    arrays["spectrum"] = np.concatenate(spectrum).astype(np.float16)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path


def read_runs(path: str | Path) -> list[DecayRun]:
    """The decays of a file of `write_runs`.

    Raises:
        DataError: the file is not of that kind.
    """
    with np.load(path, allow_pickle=False) as file:
        missing = {"names", "source", "rows", "shells", "t", "k", "eps", "spectrum"} - set(
            file.files
        )
        if missing:
            raise DataError(f"{path} is no file of decays: it lacks {', '.join(sorted(missing))}")
        data = {key: file[key] for key in file.files}
    runs, row, shell, entry, top = [], 0, 0, 0, 0
    for i, (rows, shells) in enumerate(zip(data["rows"], data["shells"], strict=True)):
        here = slice(row, row + rows)
        row += rows
        fields: dict[str, Any] = {}
        for name in _SERIES:
            value = data[name][here].astype(np.float64)
            fields[name] = None if np.isnan(value).all() else torch.from_numpy(value)
        for name in _NUMBERS:
            fields[name] = None if np.isnan(data[name][i]) else float(data[name][i])
        if shells:
            logs = data["spectrum"][entry : entry + rows * shells].astype(np.float64)
            high = data["top"][top : top + rows].astype(np.float64)
            E = np.exp(logs.reshape(rows, shells) + high[:, None])
            E[logs.reshape(rows, shells) <= -60] = 0.0
            fields["kappa"] = torch.from_numpy(data["kappa"][shell : shell + shells])
            fields["spectrum"] = torch.from_numpy(E)
            entry, top, shell = entry + rows * shells, top + rows, shell + shells
        name, source = str(data["names"][i]), cast(Source, str(data["source"][i]))
        runs.append(DecayRun(name=name, source=source, **fields))
    return runs

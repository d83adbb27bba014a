"""Readers of the public decays, and of a user's own csv file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from sciflow.errors import DataError
from sciflow.turbulence.runs import DecayRun

_COLUMNS = ("t", "k", "eps")
_MORE = ("skewness", "palinstrophy", "integral_scale")


def read_csv(
    path: str | Path, nu: float, box: float | None = None, k_max: float | None = None,
    check: Literal["error", "ignore"] = "error",
) -> DecayRun:  # fmt: skip
    """A decay from a csv file whose first line names its columns.

    Args:
        path: the file; columns t, k, eps, and any of skewness, palinstrophy, integral_scale.
        nu: kinematic viscosity, in the units of the columns.
        box: side of the periodic box, if there is one.
        k_max: largest resolved wavenumber, if that is limited.
        check: as for `DecayRun`.

    Raises:
        DataError: a column is missing or holds what is no number; or what `DecayRun` refuses.
    """
    table = _table(path)
    missing = [name for name in _COLUMNS if name not in table]
    if missing:
        raise DataError(
            f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(table)}"
        )
    series: dict[str, Any] = {name: table[name] for name in (*_COLUMNS, *_MORE) if name in table}
    return DecayRun(nu=nu, box=box, k_max=k_max, name=Path(path).stem, check=check, **series)


def write_csv(path: str | Path, run: DecayRun) -> Path:
    """Write t, k, eps and what else the run has of numbers, one row for each time."""
    names = [n for n in (*_COLUMNS, *_MORE) if getattr(run, n) is not None]
    values = np.stack([getattr(run, name).numpy() for name in names], 1)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, values, delimiter=",", header=",".join(names), comments="")
    return path


def _table(path: str | Path) -> dict[str, np.ndarray]:
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    lines = [line for line in lines if line.strip()]
    if len(lines) < 3:
        raise DataError(f"{path} must hold a line of names and two rows or more")
    names = [name.strip().lstrip("#").strip() for name in lines[0].split(",")]
    rows = []
    for number, line in enumerate(lines[1:], 2):
        cells = line.split(",")
        try:
            rows.append([float(cell) for cell in cells])
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}") from error
        if len(cells) != len(names):
            raise DataError(f"{path}, line {number}: {len(cells)} values for {len(names)} columns")
    return dict(zip(names, np.array(rows).T, strict=True))


def read_blastnet(path: str | Path) -> DecayRun:
    """The decay of the BLASTNet simulation at 2048^3: box 10.24 m, nu 1e-3 m^2/s (derived).

    Its -dk/dt exceeds its eps by 1 to 16 %, more at first, which is let pass.
    """
    table = np.loadtxt(path, delimiter=",", skiprows=1)
    return DecayRun(
        t=table[:, 1], k=table[:, 2], eps=table[:, 3], nu=1e-3, box=10.24,
        name="BLASTNet 2048^3", check="ignore",
    )  # fmt: skip


def read_taylor_green(path: str | Path, reynolds: float = 1600.0) -> DecayRun:
    """The Taylor-Green vortex of the HiOCFD workshop: columns t, k, -dk/dt, enstrophy."""
    table = np.loadtxt(path)
    k, rate = table[:, 1], table[:, 2]
    falls = np.concatenate([[True], np.diff(k) < 0]) & (rate > 0)
    return DecayRun(
        t=table[falls, 0], k=k[falls], eps=rate[falls], nu=1 / reynolds,
        box=2 * np.pi, name=f"Taylor-Green Re={reynolds:g}",
    )  # fmt: skip


def read_comte_bellot(path: str | Path, station: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Wavenumbers (1/cm) and E (cm^3/s^2) of Comte-Bellot and Corrsin's grid turbulence.

    Args:
        path: table of wavenumber and spectra at U t/M = 42, 98, 171.
        station: 0, 1 or 2.

    Source: Comte-Bellot and Corrsin, J. Fluid Mech. 48, 273 (1971), table 3; nu = .15 cm^2/s,
        M = 5.08 cm, U = 1000 cm/s.
    """
    table = np.loadtxt(path)
    measured = table[:, 1 + station] > 0
    return table[measured, 0], table[measured, 1 + station]

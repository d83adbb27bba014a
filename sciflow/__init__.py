"""sciflow: learn how physical systems move and how they are distributed.

A field is fitted to samples by one trainer and moved by one integrator. Everything is imported
when it is first used, so that ``import sciflow`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sciflow import am, cnf, nct, turbulence, wlf, wqmc
    from sciflow.errors import (
        DataError,
        IntegrationError,
        MissingPackageError,
        SciflowError,
        TrainingError,
    )
    from sciflow.integrators import SDE, Brownian, Hamiltonian, WithLogDensity, integrate
    from sciflow.train import Snapshots, Trainer

__version__ = "0.1.0"

__all__ = [
    "SDE",
    "Brownian",
    "DataError",
    "Hamiltonian",
    "IntegrationError",
    "MissingPackageError",
    "SciflowError",
    "Snapshots",
    "Trainer",
    "TrainingError",
    "WithLogDensity",
    "am",
    "cnf",
    "integrate",
    "nct",
    "turbulence",
    "wlf",
    "wqmc",
]

_DOORS = ("am", "cnf", "nct", "turbulence", "wlf", "wqmc")
_HOMES = {
    "sciflow.errors": (
        "DataError",
        "IntegrationError",
        "MissingPackageError",
        "SciflowError",
        "TrainingError",
    ),
    "sciflow.integrators": ("SDE", "Brownian", "Hamiltonian", "WithLogDensity", "integrate"),
    "sciflow.train": ("Snapshots", "Trainer"),
}


def __getattr__(name: str) -> Any:
    if name in _DOORS:
        return import_module(f"sciflow.{name}")
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(home), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'sciflow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

"""sciflow: learn how physical systems move and how they are distributed.

A field is fitted to samples by one trainer and moved by one integrator. The doors
(``sciflow.am``, ``sciflow.wlf``) are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sciflow.errors import (
    DataError,
    IntegrationError,
    MissingPackageError,
    SciflowError,
    TrainingError,
)
from sciflow.integrators import SDE, Brownian, WithLogDensity, integrate
from sciflow.train import Snapshots, Trainer

if TYPE_CHECKING:
    from sciflow import am, wlf

__version__ = "0.1.0"

DOORS = ("am", "wlf")

__all__ = [
    "SDE",
    "Brownian",
    "DataError",
    "IntegrationError",
    "MissingPackageError",
    "SciflowError",
    "Snapshots",
    "Trainer",
    "TrainingError",
    "WithLogDensity",
    "am",
    "integrate",
    "wlf",
]


def __getattr__(name: str) -> Any:
    if name in DOORS:
        return import_module(f"sciflow.{name}")
    raise AttributeError(f"module 'sciflow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

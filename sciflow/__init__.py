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
from sciflow.integrators import SDE, Brownian, Hamiltonian, WithLogDensity, integrate

__version__ = "0.1.0"

__all__ = [
    "SDE",
    "Brownian",
    "DataError",
    "Hamiltonian",
    "IntegrationError",
    "MissingPackageError",
    "SciflowError",
    "TrainingError",
    "WithLogDensity",
    "integrate",
]

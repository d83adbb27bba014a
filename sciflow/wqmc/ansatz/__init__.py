"""Ansaetze for the wave function: one table.

A new ansatz is a file with a subclass of `Wavefunction` and one entry of ``ANSAETZE``; the
contract test ``tests/contracts/test_ansaetze.py`` runs over the table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sciflow.train import load_model
from sciflow.wqmc.ansatz.base import Wavefunction
from sciflow.wqmc.ansatz.ferminet import FermiNet
from sciflow.wqmc.ansatz.psiformer import Psiformer
from sciflow.wqmc.molecule import Molecule

ANSAETZE: dict[str, type[Wavefunction]] = {
    "ferminet": FermiNet,
    "psiformer": Psiformer,
}

__all__ = ["ANSAETZE", "FermiNet", "Psiformer", "Wavefunction", "load"]


def load(path: str | Path) -> Wavefunction:
    """Load a wave function that ``save`` wrote.

    Raises:
        DataError: the file is missing, truncated or of another kind.
    """
    model = load_model(path, _build)
    assert isinstance(model, Wavefunction)
    return model


def _build(config: dict[str, Any]) -> Wavefunction:
    sizes = dict(config)
    keys = ("symbols", "positions", "charge", "spin")
    molecule = Molecule(**{key: sizes.pop(key) for key in keys})
    return ANSAETZE[sizes.pop("ansatz")](molecule, **sizes)

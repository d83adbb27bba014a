"""A model as a force of OpenMM: a bias on slow modes, or the potential of a flow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sciflow.bridges.forcefield import ForceField
from sciflow.errors import require


class Computation:
    """What a ``PythonForce`` calls with the state of its particles; it can be pickled."""

    def __init__(self, field: ForceField, periodic: bool) -> None:
        self.field, self.periodic = field, periodic

    def __call__(self, state: Any) -> tuple[float, np.ndarray]:
        """Energy [kJ/mol] and forces [kJ/mol/nm]."""
        # Numbers without their unit, which is nm.
        x = state.getPositions(asNumpy=True)._value
        box = state.getPeriodicBoxVectors(asNumpy=True)._value if self.periodic else None
        return self.field(x, box)


def model_force(
    folder: str | Path,
    system: Any,
    atoms: Sequence[int] | None = None,
    periodic: bool = False,
) -> Any:
    """An ``openmm.PythonForce`` by the map ``energy`` of an exported model.

    ``XmlSerializer`` keeps the folder's name: a system read again finds the model there. On the
    Reference platform a call costs little beyond the compiled package.

    Args:
        folder: what `sciflow.bridges.export.export` wrote.
        system: the ``openmm.System`` that the force is for; it is not changed.
        atoms: which particles are the atoms of the model, in its order; all by default.
        periodic: whether positions are joined along the model's bonds across a periodic box.

    Returns:
        The force, to be added by ``system.addForce``.

    Raises:
        MissingPackageError: OpenMM is not installed.
        DataError: the folder holds no exported model with an energy, or a file is damaged.
        ValueError: units or number of atoms do not fit, or a particle does not exist.

    Example:
        >>> system.addForce(model_force("exported", system))  # doctest: +SKIP
    """
    mm = require("openmm", "md")
    field = ForceField(folder, "md")
    chosen = check_particles(field, system, atoms)
    if periodic:
        field(np.zeros((field.n_atoms, 3)) + 0.1, 10.0 * np.eye(3))
    force = mm.PythonForce(Computation(field, periodic))
    if atoms is not None:
        force.setParticles(chosen)
    force.setUsesPeriodicBoundaryConditions(periodic)
    force.setName(f"sciflow {field.metadata.model}")
    return force


def check_particles(field: ForceField, system: Any, atoms: Sequence[int] | None) -> list[int]:
    """The particles of the model's atoms.

    Raises:
        ValueError: one does not exist or is named twice, or their number is not the model's.
    """
    n = system.getNumParticles()
    chosen = list(range(n)) if atoms is None else [int(i) for i in atoms]
    if len(set(chosen)) != len(chosen) or not all(0 <= i < n for i in chosen):
        raise ValueError(f"atoms must be different particles of 0 to {n - 1}; got {chosen}")
    field.check_atoms(len(chosen))
    return chosen

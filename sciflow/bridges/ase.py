"""A model as a calculator of ASE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sciflow.bridges.forcefield import ForceField
from sciflow.errors import require

_ase = require("ase.calculators.calculator", "md")


class ModelCalculator(_ase.Calculator):
    """Energy [eV] and forces [eV/angstrom] by the map ``energy`` of an exported model.

    Args:
        folder: what `sciflow.bridges.export.export` wrote, in any units but reduced ones.
        atoms: which atoms are those of the model, in its order; all by default. The others feel
            no force.
        periodic: whether positions are joined along the model's bonds across the cell.

    Raises:
        DataError: the folder holds no exported model with an energy, or a file is damaged.
        ValueError: the model has reduced units, or its coordinates are no positions.

    Example:
        >>> atoms.calc = ModelCalculator("exported")  # doctest: +SKIP
        >>> atoms.get_potential_energy()  # doctest: +SKIP
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def __init__(
        self, folder: str | Path, atoms: Sequence[int] | None = None, periodic: bool = False
    ) -> None:
        super().__init__()
        self.field, self.chosen, self.periodic = ForceField(folder, "metal"), atoms, periodic

    def calculate(
        self,
        atoms: Any = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = _ase.all_changes,
    ) -> None:
        """Fill ``results``, as ASE asks for it.

        Raises:
            ValueError: the atoms are not those of the model.
        """
        super().calculate(atoms, properties, system_changes)
        chosen = list(range(len(self.atoms)) if self.chosen is None else self.chosen)
        symbols = self.atoms.get_chemical_symbols()
        self.field.check_atoms(len(chosen), [symbols[i] for i in chosen])
        box = np.asarray(self.atoms.cell) if self.periodic else None
        energy, own = self.field(self.atoms.positions[chosen], box)
        forces = np.zeros((len(self.atoms), 3))
        forces[chosen] = own
        self.results = {"energy": energy, "forces": forces}

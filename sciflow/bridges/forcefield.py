"""An exported energy as simulation codes ask for it: one structure in numpy, in their units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from sciflow.bridges.exported import Exported
from sciflow.bridges.units import unit_factors
from sciflow.bridges.whole import Joined


class ForceField:
    """Energy and forces of one structure by the map ``energy`` of an exported model.

    It holds a folder's name, so it can be pickled, and is read again where it is unpickled.

    Args:
        folder: what `sciflow.bridges.export.export` wrote.
        units: system of units of positions, energies and forces.

    Raises:
        DataError: the folder holds no exported model with an energy, or a file is damaged.
        ValueError: the model has no units and the code has, or its coordinates are no positions.
    """

    def __init__(self, folder: str | Path, units: str = "md") -> None:
        self.folder, self.units = Path(folder).resolve(), units
        model = Exported(self.folder)
        self.metadata = model.metadata
        self.length, self.energy = unit_factors(self.metadata.units, units)
        self.map = model["energy"]
        ((name, shape),) = self.map.record.inputs.items()
        if np.prod(shape) % 3 or (len(shape) == 2 and shape[1] != 3):
            raise ValueError(f"{name} has shape {shape}; expected three coordinates of each atom")
        self.shape, self.n_atoms = shape, int(np.prod(shape)) // 3
        self._joined: Joined | None = None
        # One structure, filled anew for each call: a run calls it at every step.
        dtype = getattr(torch, self.metadata.dtype)
        self._device = torch.device(self.metadata.device)
        self._x = torch.empty((1, *shape), dtype=dtype, device="cpu")
        self._numbers = self._x.numpy().reshape(self.n_atoms, 3)
        # Warm: the first call of a program is slow.
        self(np.ones((self.n_atoms, 3)) + np.arange(3 * self.n_atoms).reshape(-1, 3) % 7)

    def __reduce__(self) -> tuple[type[ForceField], tuple[str, str]]:
        return ForceField, (str(self.folder), self.units)

    def __call__(
        self, positions: np.ndarray, box: np.ndarray | None = None
    ) -> tuple[float, np.ndarray]:
        """Energy, and forces (N, 3), at ``positions`` (N, 3); made whole where there is a box.

        Raises:
            ValueError: another number of atoms, or a box and no bonds to join the atoms by.
        """
        if positions.shape != (self.n_atoms, 3):
            raise ValueError(
                f"positions has shape {positions.shape}; the model has {self.n_atoms} atoms"
            )
        if box is not None:
            if self._joined is None:
                self._joined = Joined(self.n_atoms, self.metadata.bonds)
            positions = self._joined(positions, box)
        np.divide(positions, self.length, out=self._numbers, casting="same_kind")
        energy, forces = self.map.unchecked(self._x.to(self._device))
        own = forces.detach().cpu().numpy().reshape(self.n_atoms, 3)
        scale = self.energy / self.length
        return float(energy) * self.energy, np.multiply(own, scale, dtype=np.float64)

    def check_atoms(self, atoms: int, elements: list[str] | None = None) -> None:
        """Refuse another number of atoms, or others than those of the model.

        Raises:
            ValueError: names the first atom that differs.
        """
        if atoms != self.n_atoms:
            raise ValueError(f"the model has {self.n_atoms} atoms; {atoms} were given")
        for i, (own, other) in enumerate(
            zip(self.metadata.elements, elements or [], strict=False)
        ):
            if own != other:
                raise ValueError(f"atom {i} is {other}; the model has {own} there")

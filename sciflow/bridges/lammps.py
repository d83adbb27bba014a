"""A model in LAMMPS, through the callback of ``fix external``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sciflow.bridges.forcefield import ForceField


def attach(
    lmp: Any,
    folder: str | Path,
    tags: Sequence[int] | None = None,
    fix: str = "sciflow",
    periodic: bool = False,
) -> ForceField:
    """Add a ``fix external`` that takes forces and energy from an exported model.

    It is for a run on one process. The energy joins the potential energy (``fix_modify energy
    yes``), as the fix's own scalar.

    Args:
        lmp: a ``lammps.lammps`` with its atoms.
        folder: what `sciflow.bridges.export.export` wrote; its units are converted to those of
            the run (styles real, metal, electron, and lj for reduced ones).
        tags: of the atoms of the model, in its order; 1 to N by default.
        fix: name of the fix.
        periodic: whether positions are joined along the model's bonds across the box. LAMMPS
            keeps atoms wrapped, so this is needed where the box is periodic.

    Returns:
        The force field that the callback asks.

    Raises:
        DataError: the folder holds no exported model with an energy, or a file is damaged.
        ValueError: units or number of atoms do not fit, or the run has several processes.
    """
    if lmp.extract_setting("world_size") > 1:
        raise ValueError("the callback is for a run on one process")
    style = lmp.extract_global("units")
    field = ForceField(folder, "reduced" if style == "lj" else style)
    chosen = list(range(1, 1 + int(lmp.get_natoms())) if tags is None else tags)
    field.check_atoms(len(chosen))

    def callback(
        caller: Any, step: int, n: int, tag: np.ndarray, x: np.ndarray, f: np.ndarray
    ) -> None:
        rows = np.empty(max(int(tag.max()), max(chosen)) + 1, dtype=np.int64)
        rows[tag] = np.arange(n)
        mine = rows[chosen]
        energy, forces = field(x[mine], _box(lmp) if periodic else None)
        f[:] = 0.0
        f[mine] = forces
        lmp.fix_external_set_energy_global(fix, energy)

    lmp.command(f"fix {fix} all external pf/callback 1 1")
    lmp.command(f"fix_modify {fix} energy yes")
    lmp.set_fix_external_callback(fix, callback, None)
    return field


def _box(lmp: Any) -> np.ndarray:
    """Vectors of the box as rows."""
    low, high, xy, yz, xz, *_ = lmp.extract_box()
    a, b, c = (high[i] - low[i] for i in range(3))
    return np.array([[a, 0.0, 0.0], [xy, b, 0.0], [xz, yz, c]])

"""Alanine dipeptide: trajectories of its ten heavy atoms, as mdtraj holds them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sciflow.data.registry import path
from sciflow.errors import DataError, require

# Heavy atoms in the order of all files: residue, name, element.
_ATOMS = (
    ("ACE", "CH3", "C"), ("ACE", "C", "C"), ("ACE", "O", "O"),
    ("ALA", "N", "N"), ("ALA", "CA", "C"), ("ALA", "CB", "C"),
    ("ALA", "C", "C"), ("ALA", "O", "O"),
    ("NME", "N", "N"), ("NME", "C", "C"),
)  # fmt: skip
_BONDS = ((0, 1), (1, 2), (1, 3), (3, 4), (4, 5), (4, 6), (6, 7), (6, 8), (8, 9))


def alanine_dipeptide(runs: Sequence[int] | None = None) -> list[Any]:
    """The 100 runs of 501 frames of the data set ``alanine-dipeptide``, 1 ps apart.

    Args:
        runs: which of the runs, 0 to 99; all by default.

    Returns:
        A ``mdtraj.Trajectory`` for each run: ten heavy atoms, nm, whole, without the box, of
        which the file has only the lengths. The temperature is not stated at the source; 300 K
        is the usual assumption.

    Raises:
        DataError: the file is not on this machine, or there is no such run.
    """
    with np.load(path("alanine-dipeptide")) as file:
        xyz = file["xyz"]
    wanted = range(len(xyz)) if runs is None else runs
    bad = [run for run in wanted if not 0 <= run < len(xyz)]
    if bad:
        raise DataError(f"alanine-dipeptide has the runs 0 to {len(xyz) - 1}, not {bad}")
    md, topology = require("mdtraj"), _topology()
    return [md.Trajectory(xyz[run], topology, time=np.arange(len(xyz[run]))) for run in wanted]


def read_mdshare(positions: str | Path) -> list[Any]:
    """Runs of alanine dipeptide in the layout of mdshare.

    Args:
        positions: ``alanine-dipeptide-3x250ns-heavy-atom-positions.npz``: ``arr_0``, ``arr_1`` ...
            of shape (frames, 30), nm, 1 ps apart.

    Returns:
        A ``mdtraj.Trajectory`` of the ten heavy atoms for each array, without a box.

    Raises:
        DataError: the file is missing or has another layout.
    """
    file = Path(positions)
    if not file.is_file():
        raise DataError(f"{file}: no such file")
    try:
        with np.load(file) as arrays:
            found = {key: arrays[key] for key in arrays.files}
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not a readable npz file ({error})") from error
    names = [f"arr_{i}" for i in range(len(found))]
    if not found or set(names) != set(found):
        raise DataError(f"{file}: has the arrays {sorted(found)}; expected arr_0, arr_1 ...")
    for name in names:
        x = found[name]
        if x.ndim != 2 or x.shape[1] != 3 * len(_ATOMS) or x.dtype.kind != "f":
            raise DataError(
                f"{file}: {name} has shape {x.shape} and type {x.dtype}; expected "
                f"(frames, {3 * len(_ATOMS)}) positions"
            )
    md, topology = require("mdtraj"), _topology()
    runs = [found[name].reshape(-1, len(_ATOMS), 3) for name in names]
    return [md.Trajectory(xyz, topology, time=np.arange(len(xyz))) for xyz in runs]


def _topology() -> Any:
    md = require("mdtraj")
    topology = md.Topology()
    chain, residue, atoms = topology.add_chain(), None, []
    for name, atom, element in _ATOMS:
        if residue is None or residue.name != name:
            residue = topology.add_residue(name, chain, topology.n_residues + 1)
        atoms.append(topology.add_atom(atom, md.element.get_by_symbol(element), residue))
    for a, b in _BONDS:
        topology.add_bond(atoms[a], atoms[b])
    return topology

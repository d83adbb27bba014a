"""Trajectory files: what mdtraj reads, in chunks, with only the wanted atoms kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sciflow.errors import DataError, MissingPackageError, require
from sciflow.systems import Conformations, conformations
from sciflow.systems.trajectories import Selection

# Formats that hold their own topology.
WITH_TOPOLOGY = (".pdb", ".h5", ".hdf5", ".gro")


def read_trajectories(
    paths: Sequence[str | Path],
    topology: str | Path | None = None,
    atoms: Selection = "not element H",
    stride: int = 1,
    chunk: int = 1000,
) -> Conformations:
    """Frames of one molecule from trajectory files, each file a run.

    Args:
        paths: files that mdtraj reads: xtc, dcd, trr, nc, h5, pdb ...
        topology: file with the atoms and bonds (pdb, gro, prmtop ...); not needed for files that
            hold their own.
        atoms: which atoms: a selection of mdtraj, numbers or names; None for all.
        stride: take every so many frames.
        chunk: frames in memory with all their atoms.

    Raises:
        MissingPackageError: mdtraj needs another package for this kind of file.
        DataError: a file is missing or cannot be read, or its topology is missing.
        ValueError: the topology lacks the atoms, or they make no molecule (see `conformations`).
    """
    md = require("mdtraj")
    files = [Path(path) for path in paths]
    for file in [*files, *([] if topology is None else [Path(topology)])]:
        if not file.is_file():
            raise DataError(f"{file}: no such file")
    if not files:
        raise DataError("no trajectory files were given")
    if stride < 1 or chunk < 1:
        raise ValueError(f"stride and chunk must be at least 1, got {stride} and {chunk}")
    if topology is None and (bare := [f for f in files if f.suffix.lower() not in WITH_TOPOLOGY]):
        raise DataError(f"{bare[0]} has no topology of its own: give one, such as a .pdb file")
    try:
        top = None if topology is None else md.load_topology(str(topology))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{topology}: not a topology that mdtraj reads ({error})") from error
    return conformations([_chunks(md, file, top, stride, chunk) for file in files], atoms)


def _chunks(md: Any, file: Path, top: Any, stride: int, chunk: int) -> Iterator[Any]:
    options = {} if top is None or file.suffix.lower() in WITH_TOPOLOGY else {"top": top}
    try:
        yield from md.iterload(str(file), chunk=chunk, stride=stride, **options)
    except ImportError as error:  # h5 files need PyTables, for instance
        package = str(error.name or "a package")
        raise MissingPackageError(f"mdtraj needs {package} to read {file}") from error
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{file}: not a trajectory that mdtraj reads ({error})") from error

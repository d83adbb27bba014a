"""What an exported model says about itself: one JSON file beside its programs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from sciflow.errors import DataError

FORMAT = "sciflow-export"
VERSION = 1
NAME = "metadata.json"

Invariance = Literal["none", "translation", "rigid"]


@dataclass(frozen=True)
class File:
    """A file of the folder and the sha256 of its content."""

    name: str
    sha256: str

    @classmethod
    def of(cls, path: Path) -> File:
        """The record of a file that is there."""
        return cls(path.name, digest(path))


@dataclass(frozen=True)
class MapRecord:
    """One map.

    Attributes:
        inputs: shape of one sample of each input, by name and in order; the batch comes first.
        outputs: the same of what it returns.
        program: its ``torch.export.ExportedProgram``, for every machine.
        package: its AOTInductor package, for the machine and the torch it was made on.
        note: how it differs from the model, for instance the steps of an integration.
    """

    inputs: dict[str, list[int]]
    outputs: dict[str, list[int]]
    program: File
    package: File | None = None
    note: str = ""


@dataclass(frozen=True)
class Metadata:
    """An exported model.

    Attributes:
        model: name of its class.
        dtype: floating type of all inputs and outputs, for instance "float64".
        device: where the programs run, "cpu" or "cuda".
        units: name of the system of units (`UNIT_SYSTEMS`).
        kT: thermal energy of its energies, in those units; None where it has none.
        invariance: rigid motions that leave the density as it is.
        elements: of the atoms, where they are known.
        bonds: pairs of atoms.
        maps: by name.
        sciflow: version that wrote it.
        torch: version that wrote it.
        machine: processor of the packages, as `platform.machine` says.
    """

    model: str
    dtype: str
    device: str
    units: str
    kT: float | None
    invariance: Invariance
    elements: list[str]
    bonds: list[list[int]]
    maps: dict[str, MapRecord]
    sciflow: str
    torch: str
    machine: str

    def write(self, folder: Path) -> Path:
        """Write ``metadata.json``."""
        path = folder / NAME
        content = {"format": FORMAT, "version": VERSION, **asdict(self)}
        path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
        return path


def read(folder: Path) -> Metadata:
    """Read ``metadata.json``.

    Raises:
        DataError: it is missing, damaged, or was not written by `sciflow export`.
    """
    path = folder / NAME
    if not path.is_file():
        raise DataError(f"{folder} is no exported model: there is no {NAME}")
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise KeyError(content["format"])
        version = int(content["version"])
        known = {field.name: content[field.name] for field in fields(Metadata)}
        known["maps"] = {name: _record(entry) for name, entry in known["maps"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} was not written by sciflow export, or is damaged") from error
    if version > VERSION:
        raise DataError(f"{path} has version {version}; this sciflow reads up to {VERSION}")
    return Metadata(**known)


def digest(path: Path) -> str:
    """The sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _record(entry: dict[str, Any]) -> MapRecord:
    files = {key: entry[key] and File(**entry[key]) for key in ("program", "package")}
    return MapRecord(**(entry | files))

"""PLUMED: slow modes as a ``PYTORCH_MODEL``, and its COLVAR files."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sciflow.bridges.tracing import without_gradients
from sciflow.errors import DataError
from sciflow.nct import CanonicalTransformation
from sciflow.shapes import Tensor


class _Modes(nn.Module):
    """Arguments (1, n) in float32, as PLUMED gives them, to modes (1, k)."""

    def __init__(self, model: CanonicalTransformation, modes: Sequence[int]) -> None:
        super().__init__()
        self.model, self.modes = model, list(modes)

    def forward(self, x: Tensor) -> Tensor:
        mass = self.model.mass
        q = x.reshape(1, *mass.shape).to(mass.dtype)
        return self.model.coordinates(q)[0][:, self.modes].to(x.dtype)


def write_model(
    model: CanonicalTransformation, path: str | Path, modes: Sequence[int] = (0,)
) -> Path:
    """Write slow modes as TorchScript that PLUMED's ``PYTORCH_MODEL`` loads.

    PLUMED calls it with its arguments as one float32 tensor (1, n), in the order of q (of a
    molecule x, y, z of each atom), calls the outputs node-0, node-1 ..., and differentiates
    it by libtorch. Lengths are in nm, the unit of PLUMED.

    Args:
        model: a fitted transformation, of point maps.
        path: file to write, by custom ``model.ptc``.
        modes: which modes, counted from the slowest, 0.

    Returns:
        The path.

    Raises:
        ValueError: there is no such mode, or the modes depend on momenta.
    """
    if not modes or not all(0 <= mode < model.n_dim for mode in modes):
        raise ValueError(f"modes must be of 0 to {model.n_dim - 1}; got {list(modes)}")
    module = without_gradients(_Modes(copy.deepcopy(model).cpu(), modes))
    example = model.sample(1).q.reshape(1, -1).float().cpu()
    with warnings.catch_warnings():
        # TorchScript is out of fashion but the only format that PLUMED reads; and the checks of
        # the input become constants, as they should.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        traced = torch.jit.trace(module, example)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.jit.save(traced, str(path))
    return path


def input_snippet(
    model: CanonicalTransformation,
    path: str | Path,
    arguments: Sequence[str] | None = None,
    atoms: Sequence[int] | None = None,
    modes: Sequence[int] = (0,),
    stride: int = 500,
) -> str:
    """Lines of ``plumed.dat`` that compute the modes and print them to COLVAR.

    Args:
        model: the model that was written.
        path: its file.
        arguments: labels of the coordinates q, where they are not positions of atoms.
        atoms: numbers of the model's atoms in PLUMED, which counts from 1; 1 to N by default.
        modes: those that were written.
        stride: steps between lines of COLVAR.

    Raises:
        ValueError: another number of arguments or atoms than the model has.
    """
    size = math.prod(model.mass.shape)
    lines = []
    if arguments is None:
        n = size // 3
        numbers = list(range(1, n + 1)) if atoms is None else list(atoms)
        if size % 3 or len(numbers) != n:
            raise ValueError(f"the model has {size} coordinates; got {len(numbers)} atoms")
        lines.append(f"WHOLEMOLECULES ENTITY0={','.join(map(str, numbers))}")
        lines += [f"a{i}: POSITION ATOM={i} NOPBC" for i in numbers]
        arguments = [f"a{i}.{axis}" for i in numbers for axis in "xyz"]
    if len(arguments) != size:
        raise ValueError(f"the model has {size} coordinates; got {len(arguments)} arguments")
    lines.append(f"modes: PYTORCH_MODEL FILE={path} ARG={','.join(arguments)}")
    nodes = ",".join(f"modes.node-{i}" for i in range(len(modes)))
    lines.append(f"PRINT ARG={nodes} FILE=COLVAR STRIDE={stride}")
    return "\n".join([*lines, ""])


@dataclass(frozen=True)
class Colvar:
    """A COLVAR file.

    Attributes:
        names: of the columns.
        values: (rows, columns).
        constants: what its SET lines say, for instance the ends of a period.
    """

    names: tuple[str, ...]
    values: np.ndarray
    constants: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> np.ndarray:
        """A column."""
        if name not in self.names:
            raise KeyError(f"no column {name!r}; there are {', '.join(self.names)}")
        return self.values[:, self.names.index(name)]


def read_colvar(path: str | Path) -> Colvar:
    """Read a COLVAR file; restarts, which repeat the header, go on.

    Raises:
        DataError: the file is missing, has no header, or a line is no row of numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    names: tuple[str, ...] = ()
    constants: dict[str, str] = {}
    rows: list[list[float]] = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        words = line.split()
        if words[:2] == ["#!", "FIELDS"]:
            if names and tuple(words[2:]) != names:
                raise DataError(f"{path}, line {number}: the columns change")
            names = tuple(words[2:])
        elif words[:2] == ["#!", "SET"] and len(words) == 4:
            constants[words[2]] = words[3]
        elif words and not words[0].startswith("#"):
            try:
                row = [float(word) for word in words]
            except ValueError as error:
                raise DataError(f"{path}, line {number}: {error}") from error
            if not names or len(row) != len(names):
                raise DataError(f"{path}, line {number}: {len(row)} numbers for {len(names)}")
            rows.append(row)
    if not names:
        raise DataError(f"{path} is no COLVAR file: it has no line #! FIELDS")
    return Colvar(names, np.array(rows).reshape(-1, len(names)), constants)


def write_colvar(path: str | Path, colvar: Colvar) -> Path:
    """Write a COLVAR file, such as PLUMED's ``driver`` and its reweighting tools read.

    Raises:
        ValueError: the values do not have a column for each name.
    """
    path = Path(path)
    if colvar.values.ndim != 2 or colvar.values.shape[1] != len(colvar.names):
        raise ValueError(
            f"values has shape {colvar.values.shape}; expected (rows, {len(colvar.names)})"
        )
    lines = [f"#! FIELDS {' '.join(colvar.names)}"]
    lines += [f"#! SET {name} {value}" for name, value in colvar.constants.items()]
    lines += [" " + " ".join(f"{x:.10g}" for x in row) for row in colvar.values]
    path.write_text("\n".join([*lines, ""]))
    return path

"""Models as programs that other codes run: a folder with a file for each map.

The programs need torch alone: ``torch.export.load`` reads a program (``NAME.pt2``), and
``torch._inductor.aoti_load_package``, or C++, its compiled package (``NAME-MACHINE.pt2``).
"""

from __future__ import annotations

import copy
import logging
import platform
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sciflow.bridges.exporters import parts_of
from sciflow.bridges.maps import Map, Settings
from sciflow.bridges.metadata import File, MapRecord, Metadata
from sciflow.bridges.tracing import trace, without_gradients
from sciflow.bridges.units import unit_system
from sciflow.errors import SciflowError

_log = logging.getLogger(__name__)

# The batch at which a program is held against its model; no batch that it was traced with.
_BATCH = 5


def export(
    model: nn.Module,
    folder: str | Path,
    maps: Sequence[str] | None = None,
    *,
    units: str | None = None,
    kT: float | None = None,
    tolerance: float = 1e-7,
    compile: bool = True,
) -> Path:
    """Write maps of a model as programs with a dynamic batch, and what they are as JSON.

    Maps, where the model has them (`EXPORTERS`): ``to_latent``, ``to_physical``, ``sample``,
    ``log_prob``, ``velocity``, ``collective_variables``, ``energy`` (with forces); for action
    matching also ``potential`` and ``growth``; ``forecast`` of turbulence; ``log_psi`` and
    ``local_energy`` of wave functions. They keep the device and dtype of the model's parameters.
    A continuous flow takes constant steps, as few as ``tolerance`` allows; the metadata tell
    their number and the measured error.

    Args:
        model: a model of any door, or a `ModeBias`.
        folder: folder to write; what it holds of the same names is replaced.
        maps: names of the maps to write; all by default.
        units: "md" (nm, kJ/mol), "metal" (angstrom, eV), "real" (angstrom, kcal/mol), "electron"
            (bohr, hartree) or "reduced"; the model's own by default.
        kT: thermal energy of the energies of a flow, in these units; not for models that know it.
        tolerance: largest error of coordinates [scale of the flow] and of log-densities [nats] by
            the constant steps.
        compile: also compile each program with AOTInductor (10 to 60 s each); without a C++
            compiler there is a notice, and the programs alone are written.

    Returns:
        The folder.

    Raises:
        TypeError: there is no exporter for the model.
        ValueError: an unknown map or system of units, or one that contradicts the model.
        SciflowError: a map cannot be traced, or its program gives other numbers than the model.
    """
    if units is not None:
        unit_system(units)
    model = without_gradients(copy.deepcopy(model))
    weights = next(iter([*model.parameters(), *model.buffers()]))
    parts = parts_of(model, Settings(units, kT, tolerance))
    chosen = list(parts.maps) if maps is None else list(maps)
    if not chosen or (unknown := [name for name in chosen if name not in parts.maps]):
        raise ValueError(
            f"maps must be of {', '.join(parts.maps)} for this {type(model).__name__}"
            f"{' with these units and kT' if 'energy' not in parts.maps else ''}; got "
            f"{', '.join(unknown) if chosen else 'none'}"
        )
    compile = compile and _has_compiler()
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    records = {name: _write(parts.maps[name], name, target, compile) for name in chosen}
    molecule = parts.molecule
    Metadata(
        model=type(model).__name__,
        dtype=str(weights.dtype).removeprefix("torch."),
        device=weights.device.type,
        units=parts.units,
        kT=parts.kT,
        invariance=parts.invariance,
        elements=[] if molecule is None else list(molecule.elements),
        bonds=[] if molecule is None else [list(bond) for bond in molecule.bonds],
        maps=records,
        sciflow=_version(),
        torch=torch.__version__,
        machine=platform.machine(),
    ).write(target)
    return target


def _write(map: Map, name: str, folder: Path, compile: bool) -> MapRecord:
    """One program, held against its model, and its package."""
    program = trace(map.function, map.example)
    inputs = map.example(_BATCH)
    with torch.no_grad():
        expected, got = map.function(*inputs), program.module()(*inputs)
    for what, x, y in zip(map.outputs, expected, got, strict=True):
        loose = 1e5 * torch.finfo(x.dtype).eps * max(1.0, float(x.abs().max()))
        error = float((x - y).abs().max())
        if not error <= loose:
            raise SciflowError(
                f"the program of {name} differs from the model by {error:.2g} in {what}: an "
                "operation depends on the numbers that it was traced with"
            )
    path = folder / f"{name}.pt2"
    with warnings.catch_warnings():
        # Tensors without elements, such as the rotors of a model that has none, share no memory
        # that torch could find.
        warnings.filterwarnings("ignore", message="No complete tensor found")
        torch.export.save(program, path)
    package = None
    if compile:
        compiled = folder / f"{name}-{platform.machine()}.pt2"
        torch._inductor.aoti_compile_and_package(program, package_path=str(compiled))
        package = File.of(compiled)
    shapes = lambda names, xs: {n: list(x.shape[1:]) for n, x in zip(names, xs, strict=True)}
    return MapRecord(
        inputs=shapes(map.inputs, inputs),
        outputs=shapes(map.outputs, expected),
        program=File.of(path),
        package=package,
        note=map.note,
    )


def _has_compiler() -> bool:
    """Whether AOTInductor has what it needs; a notice where it has not."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        _log.warning(
            "there is no C++ compiler (CXX names another): the programs are written without "
            "compiled packages, and run slower"
        )
        return False
    return True


def _version() -> Any:
    from sciflow import __version__

    return __version__

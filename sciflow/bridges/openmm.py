"""Trajectories by OpenMM: peptides in implicit solvent, written as DCD and PDB."""

from __future__ import annotations

import io
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sciflow.bridges.dipeptide import dipeptide_pdb
from sciflow.errors import DataError, require

_log = logging.getLogger(__name__)

FORCE_FIELD = ("amber14-all.xml", "implicit/gbn2.xml")


@dataclass(frozen=True, kw_only=True)
class SimulationOptions:
    """Settings of a simulation."""

    time: float = 1.0
    """Length of the trajectory [ns], after the equilibration."""
    interval: float = 1.0
    """Time between frames [ps]."""
    temperature: float = 300.0
    """Temperature [K]."""
    step: float = 2.0
    """Time step [fs]; bonds to hydrogen are constrained."""
    friction: float = 1.0
    """Friction of the Langevin thermostat [1/ps]."""
    equilibration: float = 20.0
    """Time before the first frame [ps]."""
    seed: int = 0
    """Seed of velocities and thermostat."""
    platform: Literal["CPU", "Reference", "CUDA", "OpenCL"] = "CPU"
    """Platform of OpenMM."""
    threads: int = 1
    """Threads of the platform CPU; small molecules gain nothing by more."""
    resume: bool = False
    """Continue the trajectory, up to the same length, from the checkpoint beside it."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        for name in ("time", "interval", "temperature", "step", "friction"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, got {value}")
        if not (math.isfinite(self.equilibration) and self.equilibration >= 0):
            raise ValueError(f"equilibration must not be negative, got {self.equilibration}")
        # 0 would ask OpenMM for a seed of its own.
        if not 0 <= self.seed < 2**31 - 1:
            raise ValueError(f"seed must be between 0 and 2^31 - 2, got {self.seed}")
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")
        if self.frames < 1 or self.steps_per_frame < 1:
            raise ValueError(
                f"time {self.time} ns, interval {self.interval} ps and step {self.step} fs make "
                f"{self.frames} frames of {self.steps_per_frame} steps; expected one at least"
            )

    @property
    def frames(self) -> int:
        """Number of frames."""
        return round(1000 * self.time / self.interval)

    @property
    def steps_per_frame(self) -> int:
        """Number of steps between frames."""
        return round(1000 * self.interval / self.step)


def simulate(
    path: str | Path, pdb: str | Path | None = None, options: SimulationOptions | None = None
) -> Path:
    """Simulate a peptide with Amber 14 in the implicit solvent GBn2.

    The centre of mass is left alone, but bonds to hydrogen are constrained: velocities are not
    written, since no momenta can be fitted to them.

    Args:
        path: the trajectory to write, ``.dcd``; beside it go its topology ``.pdb`` and the
            checkpoint ``.chk``. Ctrl-C leaves a checkpoint to resume from.
        pdb: the molecule with its hydrogens; alanine dipeptide by default.
        options: how to simulate.

    Returns:
        The trajectory, frames of positions without a box.

    Raises:
        MissingPackageError: OpenMM is not installed.
        DataError: the file is there and is not to be resumed, there is no checkpoint to resume
            from or it does not fit, or the force field does not know the molecule.
        ValueError: the suffix is not ``.dcd``.
    """
    options = options or SimulationOptions()
    dcd = Path(path)
    if dcd.suffix != ".dcd":
        raise ValueError(f"path must end in .dcd, got {str(path)!r}")
    mm, app, unit = (require(f"openmm{part}", "md") for part in ("", ".app", ".unit"))
    checkpoint = dcd.with_suffix(".chk")
    if dcd.exists() and not options.resume:
        raise DataError(f"{dcd} exists: take another name, or resume it")
    if options.resume and not (dcd.is_file() and checkpoint.is_file()):
        raise DataError(
            f"{dcd}: nothing to resume, for it or its checkpoint {checkpoint} is missing"
        )
    molecule = app.PDBFile(io.StringIO(dipeptide_pdb()) if pdb is None else str(pdb))
    context, integrator = _context(mm, app, unit, molecule, options)
    done = 0
    if options.resume:
        try:
            context.loadCheckpoint(checkpoint.read_bytes())
        except mm.OpenMMException as error:
            raise DataError(
                f"{checkpoint} does not fit this molecule and platform: {error}"
            ) from error
        done = round(context.getStepCount() - _steps(options)) // options.steps_per_frame
    else:
        dcd.parent.mkdir(parents=True, exist_ok=True)
        mm.LocalEnergyMinimizer.minimize(context)
        context.setVelocitiesToTemperature(options.temperature * unit.kelvin, options.seed + 1)
        integrator.step(_steps(options))
    _run(app, unit, dcd, checkpoint, molecule.topology, context, integrator, options, done)
    return dcd


def _steps(options: SimulationOptions) -> int:
    return round(1000 * options.equilibration / options.step)


def _context(
    mm: Any, app: Any, unit: Any, molecule: Any, options: SimulationOptions
) -> tuple[Any, Any]:
    try:
        system = app.ForceField(*FORCE_FIELD).createSystem(
            molecule.topology,
            nonbondedMethod=app.NoCutoff,
            constraints=app.HBonds,
            removeCMMotion=False,
        )
    except ValueError as error:
        raise DataError(
            f"the force field Amber 14 does not know this molecule: {error}"
        ) from error
    integrator = mm.LangevinMiddleIntegrator(
        options.temperature * unit.kelvin,
        options.friction / unit.picosecond,
        options.step * unit.femtosecond,
    )
    integrator.setRandomNumberSeed(options.seed + 1)
    try:
        platform = mm.Platform.getPlatformByName(options.platform)
    except mm.OpenMMException as error:
        raise DataError(f"OpenMM has no platform {options.platform} here: {error}") from error
    own = {"Threads": str(options.threads)} if options.platform == "CPU" else {}
    context = mm.Context(system, integrator, platform, own)
    context.setPositions(molecule.positions)
    return context, integrator


def _run(
    app: Any,
    unit: Any,
    dcd: Path,
    checkpoint: Path,
    topology: Any,
    context: Any,
    integrator: Any,
    options: SimulationOptions,
    done: int,
) -> None:
    """Write frames until they are all there; the checkpoint follows each frame."""
    tqdm = require("tqdm.auto").tqdm
    size = options.steps_per_frame
    bar = tqdm(
        total=options.frames,
        initial=done,
        unit="frame",
        disable=None if options.progress else True,
    )
    with open(dcd, "r+b" if done else "w+b") as file, bar:
        step = options.step * unit.femtosecond
        out = app.DCDFile(file, topology, step, size, size, append=bool(done))
        written = getattr(out, "_modelCount", done)
        if done and written != done:
            raise DataError(f"{dcd} has {written} frames where its checkpoint is after {done}")
        for frame in range(done, options.frames):
            integrator.step(size)
            state = context.getState(getPositions=True)
            positions = state.getPositions(asNumpy=True)
            if frame == 0:
                with open(dcd.with_suffix(".pdb"), "w") as pdb:
                    app.PDBFile.writeFile(topology, positions, pdb, keepIds=True)
            out.writeModel(positions)
            file.flush()
            _write(checkpoint, context.createCheckpoint())
            bar.update()
    _log.info("%s: %d frames of %g ps", dcd, options.frames, options.interval)


def _write(path: Path, content: bytes) -> None:
    """Put the whole file in place at once, so that an interrupt leaves the old one or the new."""
    new = path.with_suffix(".chk.new")
    new.write_bytes(content)
    new.replace(path)

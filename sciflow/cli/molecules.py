"""Verbs for molecules: simulate one, and fit a neural canonical transformation to trajectories."""

# No `from __future__ import annotations`: tyro evaluates the annotations of local classes.
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from sciflow.cli.interrupt import Interrupted


def nct_simulate() -> type:
    """``sciflow nct simulate``."""
    from sciflow.bridges.openmm import SimulationOptions, simulate

    @dataclass(frozen=True, kw_only=True)
    class Simulate(SimulationOptions):
        """Simulate alanine dipeptide in implicit solvent (Amber 14, GBn2); write OUT.dcd.

        The topology goes beside it as .pdb, and the checkpoint to resume from as .chk. Needs
        OpenMM: pip install "sciflow[md]".
        """

        path_out: Annotated[Path, Positional, tyro.conf.arg(metavar="OUT.dcd")]
        """Trajectory to write."""
        pdb: Path | None = None
        """Another peptide, with its hydrogens."""

        def run(self) -> None:
            names = [field.name for field in dataclasses.fields(SimulationOptions)]
            options = SimulationOptions(**{name: getattr(self, name) for name in names})
            print(simulate(self.path_out, self.pdb, options))

    return Simulate


def nct_molecule() -> type:
    """``sciflow nct molecule``."""
    from sciflow import nct
    from sciflow.nct.molecules import DEFAULTS

    @dataclass(frozen=True, kw_only=True)
    class Molecule(nct.FitOptions):
        """Fit independent oscillators to trajectory files of a molecule; write the model.

        Modes are printed with their frequencies; structures along the slowest are written as PDB
        files beside the model.
        """

        paths: Annotated[tuple[Path, ...], Positional, tyro.conf.arg(metavar="FILE [FILE ...]")]
        """Trajectories that mdtraj reads (xtc, dcd, trr, nc, h5, pdb ...), each a run."""
        model: Path
        """File of the model to write, .safetensors."""
        topology: Path | None = None
        """File with atoms and bonds, such as .pdb; not needed for h5 and pdb."""
        atoms: str = "not element H"
        """Atoms of the molecule, a selection of mdtraj."""
        stride: int = 1
        """Take every so many frames."""
        temperature: float = 300.0
        """Temperature of the simulation [K]."""
        movies: int = 2
        """Number of modes whose structures are written."""
        space: Literal["sites", "modes"] = DEFAULTS["space"]
        """What the couplings act on: internal coordinates ("sites") or their normal modes."""
        torsion_first: bool = DEFAULTS["torsion_first"]
        """Whether the couplings of torsions see other torsions alone."""
        couplings: int = DEFAULTS["couplings"]
        """Number of couplings."""
        batch_size: int = DEFAULTS["batch_size"]
        """Frames per update."""
        steps: int = DEFAULTS["steps"]
        """Updates of the networks."""
        ema: float = DEFAULTS["ema"]
        """Decay per step of the running average of the weights that the fit returns."""
        validation: float = DEFAULTS["validation"]
        """Share of the runs that chooses the best weights."""
        dtype: Literal["float32", "float64"] = DEFAULTS["dtype"]
        """Floating type of the training."""

        def run(self) -> None:
            from sciflow.bridges.mdtraj import read_trajectories
            from sciflow.units import kT

            if self.model.suffix != ".safetensors":
                raise ValueError(f"model must end in .safetensors, got {str(self.model)!r}")
            frames = read_trajectories(self.paths, self.topology, self.atoms, self.stride)
            names = [field.name for field in dataclasses.fields(nct.FitOptions)]
            options = {name: getattr(self, name) for name in names}
            options["out"] = self.out or self.model.with_name(f"{self.model.stem}-run")
            fitted = nct.fit_samples(frames, kT=kT(self.temperature), **options)
            if fitted.interrupted:
                raise Interrupted(
                    f"interrupted; the same command with --resume goes on in {options['out']}"
                )
            self.model.parent.mkdir(parents=True, exist_ok=True)
            print(fitted.save(self.model))
            for k in range(min(self.movies, fitted.n_dim)):
                file = self.model.with_name(f"{self.model.stem}-mode-{k + 1}.pdb")
                nct.mode_trajectory(fitted, k).save_pdb(str(file))
                print(file)
            shown = ", ".join(f"{value:.1f}" for value in fitted.frequencies.cm1[:8].tolist())
            print(f"frequencies [cm^-1]: {shown} ...")

    return Molecule

"""The verbs of ground states, ``wqmc fit`` and ``wqmc evaluate``."""

# No `from __future__ import annotations`: tyro evaluates the annotations of local classes.
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from sciflow.cli.interrupt import Interrupted


def wqmc_fit() -> type:
    """``sciflow wqmc fit``."""
    from sciflow import wqmc
    from sciflow.wqmc.elements import GEOMETRIES

    source = (
        f"A molecule by its name ({', '.join(GEOMETRIES)}), an element, or a geometry file .xyz."
    )

    @dataclass(frozen=True, kw_only=True)
    class Fit(wqmc.FitOptions):
        """Find the ground state of a molecule; write its wave function to OUT.

        Prints the energy with its error bar, by fresh walkers of the frozen wave function.
        """

        molecule: Annotated[str, Positional, tyro.conf.arg(metavar="MOLECULE", help=source)]
        path_out: Annotated[Path, Positional, tyro.conf.arg(metavar="OUT")]
        """File to write, .safetensors; the energy goes beside it as .json."""
        charge: int = 0
        """Total charge [e]."""
        spin: int | None = None
        """Unpaired electrons, n_up - n_down; None takes the ground state of an atom, else 0 or
        1."""
        unit: Literal["angstrom", "bohr"] = "angstrom"
        """Of the positions in a file."""
        metric: Literal["fisher-rao", "wasserstein", "joint"] = "fisher-rao"
        """Gradient flow of the energy: of variational Monte Carlo, of walkers, or the sum."""
        ansatz: Literal["ferminet", "psiformer"] = "ferminet"
        """Kind of network."""

        def run(self) -> None:
            _fit(self)

    return Fit


def wqmc_evaluate() -> type:
    """``sciflow wqmc evaluate``."""

    @dataclass(frozen=True, kw_only=True)
    class Measure:
        """Energy, dipole moment and forces of a fitted wave function, by fresh walkers."""

        path_in: Annotated[Path, Positional, tyro.conf.arg(metavar="IN")]
        """File that `sciflow wqmc fit` wrote."""
        walkers: int = 1024
        """Independent walkers."""
        batches: int = 64
        """Measurements of each walker, ten moves apart."""
        seed: int = 0
        """Seed of the walkers."""

        def run(self) -> None:
            from sciflow import wqmc

            psi = wqmc.load(self.path_in)
            _print(wqmc.evaluate(psi, self.walkers, self.batches, seed=self.seed))
            found = wqmc.observables(psi, self.walkers, self.batches, seed=self.seed)
            print(f"dipole: {_vector(*found.dipole)} e bohr")
            for symbol, *pair in zip(psi.molecule.symbols, *found.forces, strict=True):
                print(f"force on {symbol}: {_vector(*pair)} hartree/bohr")

    return Measure


def _fit(verb: Any) -> None:
    from sciflow import wqmc
    from sciflow.bridges.files import check_folder
    from sciflow.train import Engine

    if verb.path_out.suffix != ".safetensors":
        raise ValueError(f"OUT must end in .safetensors; got {verb.path_out}")
    if verb.molecule.endswith(".xyz"):
        molecule = wqmc.Molecule.from_xyz(verb.molecule, verb.charge, verb.spin, verb.unit)
    else:
        molecule = wqmc.Molecule(verb.molecule, None, verb.charge, verb.spin)
    engine = Engine.start(verb.device)
    check_folder(verb.path_out.parent)
    options = {f.name: getattr(verb, f.name) for f in dataclasses.fields(wqmc.FitOptions)}
    options["out"] = verb.out or verb.path_out.with_name(f"{verb.path_out.stem}-run")
    result = wqmc.fit(molecule, verb.metric, verb.ansatz, **options)
    if result.interrupted:
        raise Interrupted(
            f"interrupted; the same command with --resume goes on in {options['out']}"
        )
    if not engine.is_main:
        return
    _print(result.evaluation)
    print(result.save(verb.path_out))
    path = verb.path_out.with_suffix(".json")
    path.write_text(json.dumps(dataclasses.asdict(result.evaluation), indent=1) + "\n")
    print(path)


def _print(found: Any) -> None:
    print(
        f"energy: {found.energy:.6f} +- {found.error:.6f} hartree (variance {found.variance:.4g} "
        f"hartree^2, largest outlier {found.outlier:.1f} sigma, {found.bad} not finite)"
    )


def _vector(value: Any, error: Any) -> str:
    pairs = zip(value.tolist(), error.tolist(), strict=True)
    return "  ".join(f"{v:.4f} +- {e:.4f}" for v, e in pairs)

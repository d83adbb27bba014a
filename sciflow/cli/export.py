"""The verb ``sciflow export``: models as programs for simulation codes."""

# No `from __future__ import annotations`: tyro evaluates the annotations of local classes.
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional


def export_model() -> type:
    """``sciflow export``."""

    @dataclass(frozen=True, kw_only=True)
    class Export:
        """Write the maps of a fitted model as programs that need torch alone, to the folder OUT.

        Each map becomes NAME.pt2 (torch.export) and NAME-MACHINE.pt2 (compiled by AOTInductor);
        metadata.json holds units, shapes, versions and sha256.
        """

        model: Annotated[Path, Positional, tyro.conf.arg(metavar="MODEL")]
        """Model file that any of the modules wrote: .safetensors."""
        out: Annotated[Path, Positional, tyro.conf.arg(metavar="OUT")]
        """Folder to write."""
        maps: tuple[str, ...] = ()
        """Maps to write: to_latent, to_physical, sample, log_prob, velocity, energy,
        collective_variables, potential, growth, forecast, log_psi, local_energy; all that the
        model has by default."""
        units: Literal["md", "metal", "real", "electron", "reduced"] | None = None
        """Units of the model's numbers: md (nm, kJ/mol), metal (angstrom, eV), real (angstrom,
        kcal/mol), electron (bohr, hartree), reduced (none); its own by default."""
        kT: float | None = None
        """Thermal energy of the energy of a flow, in these units."""
        tolerance: float = 1e-7
        """Largest error of a flow by its constant steps: coordinates in units of its scale,
        log-densities in nats."""
        compile: bool = True
        """Compile packages too; each takes 10 to 60 s."""
        plumed: tuple[int, ...] = ()
        """Modes to write as model.ptc for PLUMED, with plumed.dat, counted from the slowest, 0."""

        def run(self) -> None:
            from sciflow.bridges.export import export
            from sciflow.bridges.export_files import load_any
            from sciflow.bridges.files import check_folder
            from sciflow.nct import CanonicalTransformation

            check_folder(self.out)
            model = load_any(self.model)
            canonical = model if isinstance(model, CanonicalTransformation) else None
            if self.plumed and canonical is None:
                raise ValueError("--plumed is for models of sciflow nct")
            export(
                model,
                self.out,
                self.maps or None,
                units=self.units,
                kT=self.kT,
                tolerance=self.tolerance,
                compile=self.compile,
            )
            if self.plumed and canonical is not None:
                _write_plumed(canonical, self.out, self.plumed)
            for path in sorted(self.out.iterdir()):
                print(path)

    return Export


def _write_plumed(model: Any, out: Path, modes: tuple[int, ...]) -> None:
    from sciflow.bridges.plumed import input_snippet, write_model

    file = write_model(model, out / "model.ptc", modes)
    # Of what is no molecule the user knows the labels; these are to be replaced.
    plain = model.mass.ndim == 1
    labels = [f"x{i}" for i in range(len(model.mass))] if plain else None
    snippet = input_snippet(model, file.name, labels, modes=modes)
    (out / "plumed.dat").write_text(snippet)

"""The dissociation of H2, beside exact diagonalisation in a Gaussian basis where pyscf is.

Launch:
    python examples/h2_dissociation.py --out runs/h2          # on the GPU where there is one
    CUDA_VISIBLE_DEVICES= python examples/h2_dissociation.py  # on the CPU
    torchrun --nproc_per_node=2 examples/h2_dissociation.py   # walkers shared by two processes
    python examples/h2_dissociation.py --lengths 1.0 1.4 2.0 3.0 --steps 1000
"""

from dataclasses import dataclass
from pathlib import Path

import tyro
from matplotlib.figure import Figure

from sciflow import plots, wqmc
from sciflow.errors import MissingPackageError, require
from sciflow.train import Engine


@dataclass
class Study:
    """Settings of the study."""

    lengths: tuple[float, ...] = (1.0, 1.2, 1.4, 1.7, 2.2, 3.0, 4.0)
    """Bond lengths [bohr]."""
    steps: int = 400
    """Updates at the first length; a quarter of them at the others."""
    basis: str = "cc-pvqz"
    """Basis of the exact diagonalisation."""
    out: Path = Path("runs/h2")
    """Folder that is written."""


def diagonalised(length: float, basis: str) -> tuple[float, float]:
    """Energies of full configuration interaction and of Hartree-Fock [hartree]."""
    gto, scf, fci = (require(f"pyscf.{part}", "qmc") for part in ("gto", "scf", "fci"))
    mole = gto.M(atom=f"H 0 0 0; H 0 0 {length}", unit="Bohr", basis=basis, verbose=0)
    field = scf.RHF(mole).run()
    return fci.FCI(field).kernel()[0], field.e_tot


def main(study: Study) -> None:
    molecules = [wqmc.Molecule("H2", [[0, 0, -r / 2], [0, 0, r / 2]]) for r in study.lengths]
    results = wqmc.curve(molecules, steps=study.steps)
    if not Engine.start().is_main:
        return
    references = {}
    try:
        pairs = [diagonalised(r, study.basis) for r in study.lengths]
        exact, mean_field = (list(column) for column in zip(*pairs, strict=True))
        references = {f"FCI, {study.basis}": exact, "Hartree-Fock": mean_field}
    except MissingPackageError as absent:
        print(f"without comparison: {absent}")
    for k, (r, result) in enumerate(zip(study.lengths, results, strict=True)):
        beside = "".join(f"  {name} {row[k]:.6f}" for name, row in references.items())
        print(f"{r:4.2f} bohr: {result.energy:.6f} +- {result.error:.6f}{beside}")

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    plots.dissociation(study.lengths, results, references, left)
    line = [0.1 * i - 4 for i in range(81)]
    last = wqmc.density(results[-1].wavefunction, (line, [-0.25, 0.25], line))
    plots.electron_density(last, right)
    right.set_title(f"density at {study.lengths[-1]} bohr")
    study.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(study.out / "h2.png", dpi=150)
    print(f"figure: {study.out / 'h2.png'}")


if __name__ == "__main__":
    main(tyro.cli(Study))

"""Normal modes of a chain of masses and springs, learned from its potential alone.

Launch:
    python examples/harmonic_chain.py --out runs/chain       # on the GPU where there is one
    CUDA_VISIBLE_DEVICES= python examples/harmonic_chain.py  # on the CPU
    torchrun --nproc_per_node=2 examples/harmonic_chain.py   # each batch shared by two processes
    python examples/harmonic_chain.py --masses 16 --kT 2 --steps 300

It prints the free energy beside the exact one, and the error of the frequencies.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro
from matplotlib.figure import Figure

from sciflow import nct, plots
from sciflow.systems import HarmonicChain
from sciflow.train import Engine


@dataclass
class Study:
    """Settings of the study."""

    masses: int = 32
    """Number of masses."""
    kT: float = 1.0
    """Thermal energy."""
    steps: int = 100
    """Updates of the networks around the linear map."""
    out: Path = Path("runs/harmonic_chain")
    """Folder that is written."""


def main(study: Study) -> None:
    chain = HarmonicChain(study.masses)
    model = nct.fit_energy(
        chain.potential, study.masses, chain.mass, study.kT, strict=True, steps=study.steps
    )
    if not Engine.start().is_main:
        return
    estimate, exact = model.free_energy(20_000), chain.free_energy(study.kT)
    error = (model.frequencies / chain.frequencies - 1).abs()
    print(f"free energy: bound {estimate.bound:.6f}, exact {exact:.6f}")
    print(f"gap of phase space {(estimate.bound - exact) / study.kT:.2g} kT")
    print(f"frequencies: mean error {error.mean():.2g}, largest {error.max():.2g}")

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    plots.spectrum(model.frequencies, left, exact=chain.frequencies)
    plots.mode_shapes(nct.mode_shapes(model), right, exact=chain.modes)
    study.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(study.out / "modes.png", dpi=150)
    model.save(study.out / "model.safetensors")
    print(f"figure: {study.out / 'modes.png'}")


if __name__ == "__main__":
    main(tyro.cli(Study))

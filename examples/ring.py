"""A particle in a ring-shaped valley: an oscillator for the radius, a free rotor for the angle.

Launch:
    python examples/ring.py --out runs/ring        # on the GPU where there is one
    CUDA_VISIBLE_DEVICES= python examples/ring.py  # on the CPU
    torchrun --nproc_per_node=2 examples/ring.py   # each batch shared by two processes
    python examples/ring.py --strict               # the strict gap of phase space
"""

from dataclasses import dataclass
from pathlib import Path

import tyro
from matplotlib.figure import Figure

from sciflow import nct, plots
from sciflow.systems import Ring
from sciflow.systems.charts import PolarChart
from sciflow.train import Engine


@dataclass
class Study:
    """Settings of the study."""

    steps: int = 800
    """Updates of the networks."""
    strict: bool = False
    """Fit phase space, with the momenta of an independent oscillator and rotor."""
    out: Path = Path("runs/ring")
    """Folder that is written."""


def main(study: Study) -> None:
    ring = Ring()
    model = nct.fit_energy(
        ring.potential,
        2,
        chart=PolarChart(),
        strict=study.strict,
        steps=study.steps,
        batch_size=512,
        lr=5e-3,
        couplings=2,
        width=32,
    )
    if not Engine.start().is_main:
        return
    estimate, exact = model.free_energy(50_000), ring.free_energy(1.0)
    gap = "phase space" if study.strict else "coordinates"
    print(f"free energy: reweighted {estimate.value:.5f}, exact {exact:.5f}")
    print(f"gap of {gap} {estimate.bound - exact:.2g} kT, effective share {estimate.ess:.4f}")

    points = model.sample(4000)
    Q, radius = model.modes(points.q), points.q.norm(dim=1)
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.scatter(*points.q.T, s=3, lw=0)
    left.set(aspect="equal", xlabel="x", ylabel="y", title="samples of the model")
    plots.latent(Q, right, color=radius, label="radius")
    right.set_title("angle $Q_1$ and oscillator $Q_2$")
    study.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(study.out / "ring.png", dpi=150)
    model.save(study.out / "model.safetensors")
    print(f"figure: {study.out / 'ring.png'}")


if __name__ == "__main__":
    main(tyro.cli(Study))

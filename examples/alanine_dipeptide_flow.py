"""The density of alanine dipeptide by a continuous normalizing flow, in internal coordinates.

Launch:
    export SCIFLOW_DATA=folder-of-data
    python examples/alanine_dipeptide_flow.py                        # 2 minutes on a core
    CUDA_VISIBLE_DEVICES= python examples/alanine_dipeptide_flow.py  # on the CPU, beside a GPU
    torchrun --nproc_per_node=2 examples/alanine_dipeptide_flow.py   # batches shared by two

The flow is fitted to runs 0-89 of the data set `alanine-dipeptide` and scored on runs 90-99, as a
density of the aligned Cartesian coordinates, beside Gaussians. The page to open is
runs/dipeptide-flow/ramachandran.png. The file holds the ten heavy atoms of a molecule in water:
their density has no potential energy that could be evaluated, so that samples cannot be weighed.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from matplotlib.figure import Figure

from sciflow import cnf, plots
from sciflow.data import alanine_dipeptide
from sciflow.metrics import between, free_energy_difference, free_energy_surface
from sciflow.nct.baselines import GaussianDensity
from sciflow.nct.evaluate import likelihood
from sciflow.systems import Conformations, conformations
from sciflow.systems.charts import InternalCoordinates
from sciflow.train import Engine

#: Ranges of phi [deg]: the rare left-handed state, and what lies beyond it.
STATES = ((0, 80), (80, 150))


@dataclass
class Study:
    """Settings of the study."""

    out: Path = Path("runs/dipeptide-flow")
    """Folder that is written."""
    model: Path | None = None
    """A flow that was fitted before, to be taken instead of a new one."""
    width: int = 64
    """Width of the hidden layers."""
    matching_steps: int = 6000
    """Updates of the flow matching."""
    likelihood_steps: int = 200
    """Updates of the likelihood."""
    n_samples: int = 45_000
    """Samples of the flow to draw."""
    seed: int = 0
    """Of everything random."""


class Whitened:
    """Internal coordinates in which stiff ones are uncorrelated, and torsions stay angles.

    Args:
        chart: bonds, angles and torsions.
        q: structures (B, N, 3) whose covariance counts.
    """

    def __init__(self, chart: InternalCoordinates, q: torch.Tensor) -> None:
        self.chart = chart
        xi, _ = chart(q)
        self.stiff = chart.periods.isinf()
        self.mean = xi[:, self.stiff].mean(0)
        self.factor = torch.linalg.cholesky(torch.cov(xi[:, self.stiff].T))
        self.periods = {int(i): 2 * math.pi for i in (~self.stiff).nonzero()}

    def forward(self, q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Coordinates (B, 3N - 6) of positions, and the logarithm of their volume factor."""
        xi, log_det = self.chart(q)
        inside = (xi[:, self.stiff] - self.mean).T
        xi[:, self.stiff] = torch.linalg.solve_triangular(self.factor, inside, upper=False).T
        return xi, log_det - self.factor.diagonal().log().sum()

    def inverse(self, y: torch.Tensor) -> torch.Tensor:
        """Positions (B, N, 3) of coordinates."""
        xi = y.clone()
        xi[:, self.stiff] = self.mean + y[:, self.stiff] @ self.factor.T
        return self.chart.inverse(xi)[0]


@torch.no_grad()
def log_prob(flow: cnf.ContinuousFlow, chart: Whitened, q: torch.Tensor) -> torch.Tensor:
    """Log-density of positions, by the exact trace and a tight solve."""
    y, log_det = chart.forward(q)
    exact = cnf.ContinuousFlow(
        flow.field, flow.base, "exact", periods=flow.periods, shift=flow.shift, scale=flow.scale,
        rtol=1e-6, atol=1e-6,
    ).double()  # fmt: skip
    return log_det + torch.cat([exact.log_prob(part) for part in y.split(2000)])


def main(study: Study) -> None:
    study.out.mkdir(parents=True, exist_ok=True)
    frames = conformations(alanine_dipeptide())
    train, held_out = frames.split(range(90, 100))
    internal = train.internal_coordinates()
    chart = Whitened(internal, train.positions)
    if study.model is not None:
        flow = cnf.load(study.model)
    else:
        start = time.process_time()
        flow = cnf.fit_samples(
            chart.forward(train.positions)[0],
            periods=chart.periods,
            width=study.width,
            matching_steps=study.matching_steps,
            likelihood_steps=study.likelihood_steps,
            seed=study.seed,
        ).cpu()
        if not Engine.start().is_main:
            return
        print(f"training: {time.process_time() - start:.0f} s of CPU time")
        flow.save(study.out / "flow.safetensors")

    print("held-out -ln p [nats, aligned chart of 24 coordinates, angstrom]")
    densities = {
        "Gaussian, Cartesian": GaussianDensity.fit(train.aligned_frame(), train.positions),
        "Gaussian, internal": GaussianDensity.fit(internal, train.positions),
    }
    scores = {name: density.log_prob(held_out.positions) for name, density in densities.items()}
    scores["flow"] = log_prob(flow, chart, held_out.positions)
    for name, log_p in scores.items():
        nll = likelihood(log_p, held_out)
        print(f"  {name:<20} {nll.value:8.3f} +- {nll.error:.3f}")
    gain = likelihood(scores["flow"] - scores["Gaussian, internal"], held_out)
    nats = -(gain.value - 24 * math.log(10))
    print(f"  flow above the internal Gaussian, frame by frame {nats:.3f} +- {gain.error:.3f}")

    generator = torch.Generator().manual_seed(study.seed)
    drawn = chart.inverse(flow.double().sample(study.n_samples, generator=generator))
    blocks = torch.arange(study.n_samples) * 100 // study.n_samples
    sampled = Conformations(train.molecule, drawn, blocks)
    print("free energy of a range of phi minus that of all else [kT]")
    for name, source in (("runs 0-89", train), ("runs 90-99", held_out), ("flow", sampled)):
        phi, cells = source.torsions("phi")[:, 0], []
        for low, high in STATES:
            inside = between(phi, math.radians(low), math.radians(high))
            found = free_energy_difference(~inside, inside, source.run, generator)
            cells.append(f"{low} to {high} deg: {found.value:.3f} +- {found.error:.3f}")
        print(f"  {name:<20} {'   '.join(cells)}")

    figure = Figure(figsize=(10, 4.3), layout="constrained")
    whole = [2 * math.pi] * 2
    for ax, title, source in zip(
        figure.subplots(1, 2), ("runs 0-89", "flow"), (train, sampled), strict=True
    ):
        surface = free_energy_surface(source.torsions("phi", "psi"), 60, periods=whole)
        plots.free_energy(surface, ax, ["φ", "ψ"], degrees=True, highest=7.0).set_title(title)
    figure.savefig(study.out / "ramachandran.png", dpi=150)
    print(f"figure: {study.out / 'ramachandran.png'}")


if __name__ == "__main__":
    main(tyro.cli(Study))

"""A density in the plane from its samples: fit, score against the truth, draw, save.

Launch:
    python examples/density_2d.py moons --out runs/moons       # on the GPU where there is one
    CUDA_VISIBLE_DEVICES= python examples/density_2d.py moons  # on the CPU
    torchrun --nproc_per_node=2 examples/density_2d.py moons   # each batch shared by two processes
    python examples/density_2d.py 2spirals --matching-steps 12000 --plane-waves 32

The page to open is OUT/flow.png. The score is in nats above the entropy, which no model can beat.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from matplotlib.figure import Figure

from sciflow import cnf, plots
from sciflow.systems import TOYS
from sciflow.train import Engine


@dataclass
class Study:
    """Settings of the study."""

    name: tyro.conf.Positional[
        Literal["8gaussians", "checkerboard", "moons", "circles", "swissroll", "2spirals"]
    ] = "moons"
    """The density."""
    out: Path = Path("runs/density_2d")
    """Folder that is written."""
    samples: int = 50_000
    """Number of samples."""
    matching_steps: int = 4000
    """Updates of the flow matching."""
    likelihood_steps: int = 100
    """Updates of the likelihood."""
    plane_waves: int = 32
    """Plane waves among the features of the network."""


def main(study: Study) -> None:
    toy = TOYS[study.name]
    x = toy.sample(study.samples, torch.Generator().manual_seed(0))
    flow = cnf.fit_samples(
        x,
        matching_steps=study.matching_steps,
        likelihood_steps=study.likelihood_steps,
        plane_waves=study.plane_waves,
    ).cpu()
    if not Engine.start().is_main:
        return
    flow.save(study.out / "flow.safetensors")

    fresh = toy.sample(5000, torch.Generator().manual_seed(1))
    tight = flow.double().with_solver("dopri8", rtol=1e-7, atol=1e-7)
    rated = tight.log_likelihood(fresh)
    gap = toy.log_prob(fresh) - rated.value
    error = float(gap.std()) / len(gap) ** 0.5
    print(f"{float(gap.mean()):.4f} +- {error:.4f} nats above the entropy {toy.entropy():.4f}")
    print(f"largest error of the integration: {float(rated.solver_error.max()):.1e} nats")

    figure = Figure(figsize=(11, 7.4), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(5, 2.4))
    left, right = top.subplots(1, 2)
    plots.density(flow, left, data=x[:500])
    plots.flow_lines(flow, right)
    plots.samples_over_time(flow, bottom.subplots())
    figure.savefig(study.out / "flow.png", dpi=150)
    print(study.out / "flow.png")


if __name__ == "__main__":
    main(tyro.cli(Study))

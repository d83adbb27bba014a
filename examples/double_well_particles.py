"""A Boltzmann generator of four particles in the plane (DW4): train, weigh, compare, plot.

Launch:
    python examples/double_well_particles.py                       # some 10 minutes on one core
    python examples/double_well_particles.py --matching-steps 300 --tuning-steps 0   # a quick look

The page to open is runs/dw4/histograms.png. The free energy is compared with an exact
quadrature, the energies with Markov chains that the flow was not trained on.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from matplotlib.figure import Figure

from sciflow import cnf, plots
from sciflow.metrics import histogram_distance
from sciflow.systems import DoubleWellParticles, hmc_chains, planar_cluster


@dataclass
class Study:
    """Settings of the study."""

    out: Path = Path("runs/dw4")
    """Folder that is written."""
    model: Path | None = None
    """A flow that was trained before, to be taken instead of a new one."""
    matching_steps: int = 3000
    """Updates of the flow matching."""
    tuning_steps: int = 500
    """Updates of likelihood and energy together."""
    n_samples: int = 10_000
    """Samples of the flow to weigh."""
    seed: int = 0
    """Of everything random."""


def chains(system: DoubleWellParticles, seed: int, n_chains: int = 500) -> torch.Tensor:
    """Draws (n, 8) of long chains."""
    generator = torch.Generator().manual_seed(seed)
    start = 1.8 * torch.randn(n_chains, system.n_dim, generator=generator, dtype=torch.float64)
    drawn = hmc_chains(system, start, 40, generator, step=0.1, n_leapfrog=8, thin=20, warmup=300)
    return system.remove_mean(drawn.x.flatten(0, 1))


def main(study: Study) -> None:
    system, exact = DoubleWellParticles(), planar_cluster(DoubleWellParticles())
    study.out.mkdir(parents=True, exist_ok=True)
    if study.model is not None:
        flow = cnf.load(study.model)
    else:
        flow = cnf.fit_particles(
            chains(system, study.seed + 1).float(),
            system.n_particles,
            system.potential,
            matching_steps=study.matching_steps,
            tuning_steps=study.tuning_steps,
            seed=study.seed,
        )
        flow.save(study.out / "flow.safetensors")

    generator = torch.Generator().manual_seed(study.seed + 2)
    bg = cnf.BoltzmannGenerator(flow, system.potential)
    drawn = bg.sample(study.n_samples, generator)
    estimate = drawn.free_energy(generator)
    truth = chains(system, study.seed + 3)
    edges = torch.linspace(-26, -12, 36)
    energies = system.potential(drawn.x), system.potential(truth)
    distance = histogram_distance(*energies, edges, drawn.weights)
    print(f"effective share of the samples {drawn.ess:.2f}")
    print(f"free energy {estimate.value:.3f} +- {estimate.error:.3f} kT")
    print(f"exact       {exact.free_energy:.3f} kT")
    print(f"energy histogram against Markov chains: total variation {100 * distance:.1f} %")

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    plots.weighted_histogram(
        energies[0], drawn.log_weight, left, truth=energies[1], label="energy / kT"
    )
    plots.weighted_histogram(
        system.distances(drawn.x),
        drawn.log_weight,
        right,
        density=(exact.r, exact.density),
        label="distance of a pair",
    )
    figure.savefig(study.out / "histograms.png", dpi=150)
    print(f"figure: {study.out / 'histograms.png'}")


if __name__ == "__main__":
    main(tyro.cli(Study))

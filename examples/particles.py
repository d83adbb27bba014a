"""Boltzmann generators of particles: train, weigh, compare with Markov chains, plot.

Launch:
    python examples/particles.py dw4      # four particles in double wells, 10 minutes on one core
    python examples/particles.py lj13     # thirteen Lennard-Jones particles, the same
    CUDA_VISIBLE_DEVICES= python examples/particles.py dw4   # on the CPU, where there is a GPU
    torchrun --nproc_per_node=2 examples/particles.py dw4    # each batch shared by two processes
    python examples/particles.py dw4 --matching-steps 300 --tuning-steps 0    # a quick look
    python examples/particles.py lj13 --model runs/particles/flow.safetensors

The page to open is runs/particles/histograms.png. The chains that the flow is compared with are
not those it is trained on. The free energy of DW4 is known by quadrature; that of LJ13 is not, and
reweighting is held against Bennett's ratio, which needs chains too.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from matplotlib.figure import Figure

from sciflow import cnf, plots
from sciflow.metrics import histogram_distance
from sciflow.systems import DoubleWellParticles, LennardJones, hmc_chains, planar_cluster
from sciflow.train import Engine


@dataclass
class Study:
    """Settings of the study."""

    name: tyro.conf.Positional[Literal["dw4", "lj13"]] = "dw4"
    """The particles."""
    out: Path = Path("runs/particles")
    """Folder that is written."""
    model: Path | None = None
    """A flow that was trained before, to be taken instead of a new one."""
    matching_steps: int = 3000
    """Updates of the flow matching."""
    tuning_steps: int | None = None
    """Updates of likelihood and energy together; 500 for DW4, none for LJ13, where each takes
    seconds."""
    n_samples: int = 2000
    """Samples of the flow to weigh."""
    seed: int = 0
    """Of everything random."""


@dataclass(frozen=True)
class Case:
    """Particles, a start of their chains, and what the chains, the fit and the plot are told."""

    system: DoubleWellParticles | LennardJones
    lattice: torch.Tensor  # mean of the start, or 0
    noise: float
    chains: dict[str, Any]
    fit: dict[str, Any]
    edges: torch.Tensor


CASES = {
    "dw4": Case(
        DoubleWellParticles(),
        torch.zeros(4, 2, dtype=torch.float64),
        1.8,
        {"step": 0.1, "n_leapfrog": 8, "thin": 20, "warmup": 300},
        {"tuning_steps": 500},
        torch.linspace(-26, -12, 36),
    ),
    "lj13": Case(
        LennardJones(),
        1.1 * torch.cartesian_prod(*[torch.arange(3.0, dtype=torch.float64)] * 3)[:13],
        0.05,
        {"step": 0.025, "n_leapfrog": 12, "thin": 10, "warmup": 150},
        {"tuning_steps": 0, "matching_batch": 64, "n_radial": 32},
        torch.linspace(-18, 26, 23),
    ),
}


def chains(case: Case, seed: int, n_chains: int = 400) -> torch.Tensor:
    """Draws (40 n_chains, n_dim) of chains at kT = 1."""
    generator = torch.Generator().manual_seed(seed)
    shape = (n_chains, *case.lattice.shape)
    start = case.lattice + case.noise * torch.randn(
        shape, generator=generator, dtype=torch.float64
    )
    drawn = hmc_chains(case.system, start.flatten(1), 40, generator, **case.chains)
    return case.system.remove_mean(drawn.x.flatten(0, 1))


def main(study: Study) -> None:
    case = CASES[study.name]
    system = case.system
    study.out.mkdir(parents=True, exist_ok=True)
    if study.model is not None:
        flow = cnf.load(study.model)
    else:
        options = {**case.fit, "matching_steps": study.matching_steps, "seed": study.seed}
        if study.tuning_steps is not None:
            options["tuning_steps"] = study.tuning_steps
        x = chains(case, study.seed + 1).float()
        flow = cnf.fit_particles(x, system.n_particles, system.potential, **options).cpu()
        if not Engine.start().is_main:
            return
        flow.save(study.out / "flow.safetensors")

    generator = torch.Generator().manual_seed(study.seed + 2)
    bg = cnf.BoltzmannGenerator(flow, system.potential)
    drawn = bg.sample(study.n_samples, generator)
    truth = chains(case, study.seed + 3)
    apart = truth[:: len(truth) // study.n_samples][: study.n_samples]
    estimates = {"reweighted": drawn.free_energy(generator)}
    estimates["Bennett's ratio"] = bg.bridge(study.n_samples, apart, generator)
    energies = system.potential(drawn.x), system.potential(truth)
    distance = histogram_distance(*energies, case.edges, drawn.weights)
    plain = histogram_distance(*energies, case.edges)
    print(f"effective share of the samples {drawn.ess:.2f}")
    for name, estimate in estimates.items():
        print(f"free energy, {name}: {estimate.value:.3f} +- {estimate.error:.3f} kT")
    pairs: dict[str, Any] = {"truth": system.distances(truth)}
    if isinstance(system, DoubleWellParticles):
        exact = planar_cluster(system)
        print(f"free energy, exact: {exact.free_energy:.3f} kT")
        pairs = {"density": (exact.r, exact.density)}
    print(f"energies against Markov chains: total variation {100 * distance:.1f} %,", end=" ")
    print(f"without the weights {100 * plain:.1f} %")

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    weight = drawn.log_weight
    plots.weighted_histogram(energies[0], weight, left, truth=energies[1], label="energy / kT")
    plots.weighted_histogram(
        system.distances(drawn.x), weight, right, label="distance of a pair", **pairs
    )
    figure.savefig(study.out / "histograms.png", dpi=150)
    print(f"figure: {study.out / 'histograms.png'}")


if __name__ == "__main__":
    main(tyro.cli(Study))

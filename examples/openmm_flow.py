"""A flow in OpenMM: as a Monte Carlo move between two basins, and as the potential itself.

Launch:
    python examples/openmm_flow.py --out runs/openmm       # a minute on one core
    python examples/openmm_flow.py --steps 1000 --moves 5000 --compile

It needs OpenMM (pip install "sciflow[md]") and a C++ compiler for --compile. It prints the share
of one basin, by the dynamics alone and with moves, beside the exact one, and the drift of the
energy of a run on the exported potential. The model is small: a GPU or torchrun gains nothing.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm as mm
import torch
import tyro

from sciflow import nct
from sciflow.bridges.export import export
from sciflow.bridges.openmm_force import model_force
from sciflow.bridges.openmm_moves import FlowMonteCarlo
from sciflow.units import kT

TEMPERATURE = 300.0
THERMAL = kT(TEMPERATURE)
MASS = 12.0
# kJ/mol and nm: a barrier of 8 kT along x, springs across.
EXPRESSION = "20*((x/0.1)^2-1)^2 + 20*x + 2000*(y^2+z^2)"


def potential(q: torch.Tensor) -> torch.Tensor:
    x = q[:, 0]
    across = q[:, 1:].square().sum(1)
    return 20 * ((x / 0.1) ** 2 - 1) ** 2 + 20 * x + 2000 * across


@dataclass
class Study:
    """Settings of the study."""

    steps: int = 300
    """Updates of the model."""
    moves: int = 2000
    """Monte Carlo moves, each after 10 steps of Langevin dynamics."""
    compile: bool = False
    """Compile the exported maps with AOTInductor."""
    out: Path = Path("runs/openmm_flow")
    """Folder that is written."""


def one_particle(force: mm.Force) -> mm.System:
    system = mm.System()
    system.addParticle(MASS)
    system.addForce(force)
    return system


def well() -> mm.Force:
    force = mm.CustomExternalForce(EXPRESSION)
    force.addParticle(0, [])
    return force


def start(system: mm.System, integrator: mm.Integrator) -> mm.Context:
    context = mm.Context(system, integrator, mm.Platform.getPlatformByName("Reference"))
    context.setPositions([[-0.1, 0.0, 0.0]])
    context.setVelocitiesToTemperature(TEMPERATURE, 1)
    return context


def main(study: Study) -> None:
    model = nct.fit_energy(
        potential, 3, MASS, THERMAL, units="md", temper=10.0, couplings=0, steps=study.steps,
        start=torch.tensor([-0.1, 0.0, 0.0], dtype=torch.float64),
    )  # fmt: skip
    maps = ["sample", "log_prob", "energy"]
    folder = export(model, study.out / "model", maps, compile=study.compile)

    grid = np.linspace(-0.3, 0.3, 20001)
    density = np.exp(-(20 * ((grid / 0.1) ** 2 - 1) ** 2 + 20 * grid) / THERMAL)
    print(f"exact share of x > 0: {density[grid > 0].sum() / density.sum():.4f}")
    for n_moves in (0, 1):
        integrator = mm.LangevinMiddleIntegrator(TEMPERATURE, 5.0, 0.002)
        integrator.setRandomNumberSeed(1)
        context = start(one_particle(well()), integrator)
        moves = FlowMonteCarlo(folder, context, TEMPERATURE)
        right = []
        for _ in range(study.moves):
            integrator.step(10)
            moves.step(n_moves)
            right.append(context.getState(getPositions=True).getPositions()[0].x > 0)
        blocks = np.array(right[: len(right) // 20 * 20]).reshape(20, -1).mean(1)
        share, error = blocks.mean(), blocks.std(ddof=1) / 20**0.5
        how = f"with moves, {moves.acceptance:.0%} accepted" if n_moves else "by dynamics alone"
        print(f"{how}: {share:.4f} +- {error:.4f}")

    system = mm.System()
    system.addParticle(MASS)
    system.addForce(model_force(folder, system))
    integrator = mm.VerletIntegrator(0.001)
    context = start(system, integrator)
    energies = []
    for _ in range(100):
        integrator.step(20)
        state = context.getState(getEnergy=True)
        energies.append(state.getPotentialEnergy()._value + state.getKineticEnergy()._value)
    print(f"range of the energy over 2 ps on the model: {np.ptp(energies) / THERMAL:.2g} kT")


if __name__ == "__main__":
    main(tyro.cli(Study))

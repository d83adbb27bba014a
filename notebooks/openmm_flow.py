# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A flow inside OpenMM
#
# A particle in a double well stays long in its basin: the barrier is 8 kT. A model of the well,
# fitted to its potential, is exported and used in OpenMM in two ways: as a Monte Carlo move that
# crosses the barrier at once and is accepted exactly, and as the potential of a run of its own.
# The truth is the share of the right basin by quadrature.

# %%
import os
import sys
from importlib.util import find_spec

import matplotlib.pyplot as plt
import numpy as np
import torch

from sciflow import nct
from sciflow.bridges.export import export
from sciflow.units import kT

FAST = os.environ.get("SCIFLOW_FAST") == "1"  # a short run, as in the tests
STEPS, MOVES = (60, 300) if FAST else (600, 5000)
COMPILE = not FAST  # AOTInductor packages: faster runs, some 30 s to compile each

if find_spec("openmm") is None:
    print('skipped: this notebook needs OpenMM (pip install "sciflow[md]")')
    sys.exit()
import openmm as mm

from sciflow.bridges.openmm_force import model_force
from sciflow.bridges.openmm_moves import FlowMonteCarlo

# %% [markdown]
# ## The well and its model
#
# Units are those of OpenMM: nm, kJ/mol, dalton, ps.

# %%
TEMPERATURE, MASS = 300.0, 12.0
THERMAL = kT(TEMPERATURE)


def along(x: np.ndarray | torch.Tensor) -> np.ndarray | torch.Tensor:
    return 20 * ((x / 0.1) ** 2 - 1) ** 2 + 20 * x


def potential(q: torch.Tensor) -> torch.Tensor:
    return along(q[:, 0]) + 2000 * q[:, 1:].square().sum(1)


start = torch.tensor([-0.1, 0.0, 0.0], dtype=torch.float64)
model = nct.fit_energy(
    potential, 3, MASS, THERMAL, units="md", start=start, temper=10.0, couplings=0, steps=STEPS
)
folder = export(model, "runs/openmm", ["sample", "log_prob", "energy"], compile=COMPILE)

grid = np.linspace(-0.2, 0.2, 2001)
exact = np.exp(-along(grid) / THERMAL)
exact /= np.trapezoid(exact, grid)
share = np.trapezoid(exact[grid > 0], grid[grid > 0])
print(f"exact share of the right basin: {share:.3f}")

# %% [markdown]
# ## Langevin dynamics, with and without moves
#
# Without moves the walker stays where it started, or crosses a few times. Watch the left panel:
# with moves it jumps all the time. The histogram on the right lies on the exact density (black)
# however good the model is; only the share of accepted moves tells how good.


# %%
def run(with_moves: bool) -> tuple[np.ndarray, float]:
    system = mm.System()
    system.addParticle(MASS)
    force = mm.CustomExternalForce("20*((x/0.1)^2-1)^2 + 20*x + 2000*(y^2+z^2)")
    force.addParticle(0, [])
    system.addForce(force)
    integrator = mm.LangevinMiddleIntegrator(TEMPERATURE, 5.0, 0.002)
    integrator.setRandomNumberSeed(1)
    reference = mm.Platform.getPlatformByName("Reference")
    context = mm.Context(system, integrator, reference)
    context.setPositions([start.tolist()])
    moves = FlowMonteCarlo(folder, context, TEMPERATURE)
    x = []
    for _ in range(MOVES):
        integrator.step(10)
        if with_moves:
            moves.step()
        x.append(context.getState(getPositions=True).getPositions()[0].x)
    return np.array(x), moves.acceptance


alone, _ = run(with_moves=False)
moved, acceptance = run(with_moves=True)
blocks = (moved[: MOVES // 20 * 20] > 0).reshape(20, -1).mean(1)
error = blocks.std(ddof=1) / np.sqrt(20)
print(f"right basin: {(alone > 0).mean():.3f} by dynamics alone, {blocks.mean():.3f} +- ", end="")
print(f"{error:.3f} with moves ({acceptance:.0%} accepted), exact {share:.3f}")

above = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 2, "frameon": False}
_, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
left.plot(alone, lw=0.6, label="dynamics alone")
left.plot(moved, ".", ms=2, label="with moves")
left.set_xlabel("block of 10 steps")
left.set_ylabel("x [nm]")
left.legend(**above, markerscale=4)
right.hist(moved, 60, density=True, alpha=0.5, color="C1", label="with moves")
right.locator_params("x", nbins=5)
right.plot(grid, exact, "k", lw=1, label="exact")
right.set_xlabel("x [nm]")
right.set_ylabel("density [1/nm]")
right.legend(**above)
plt.show()

# %% [markdown]
# ## The model as the potential
#
# `energy` is -kT ln of the model's density. Its forces are the derivatives of its energy, so a run
# at constant energy keeps the sum (black) while its parts go up and down. It is not quite flat:
# rational splines have forces that jump at their knots, where the Verlet method makes an error.

# %%
system = mm.System()
system.addParticle(MASS)
system.addForce(model_force(folder, system))
integrator = mm.VerletIntegrator(0.001)
context = mm.Context(system, integrator, mm.Platform.getPlatformByName("Reference"))
context.setPositions([start.tolist()])
context.setVelocitiesToTemperature(TEMPERATURE, 1)
energies = []
for _ in range(100):
    integrator.step(4)
    state = context.getState(getEnergy=True)
    energies.append((state.getPotentialEnergy()._value, state.getKineticEnergy()._value))
parts = np.array(energies) / THERMAL
total = parts.sum(1)
print(
    f"range of the energy: {np.ptp(total):.2g} kT, of its parts {np.ptp(parts, axis=0).max():.2g}"
)
time = 0.004 * np.arange(1, 101)
_, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
ax.plot(time, parts[:, 0] - parts[:, 0].min(), label="potential")
ax.plot(time, parts[:, 1], label="kinetic")
ax.plot(time, total - parts[:, 0].min(), "k", label="sum")
ax.set_xlabel("time [ps]")
ax.set_ylabel("energy [kT]")
ax.legend(**above | {"ncols": 3})
plt.show()

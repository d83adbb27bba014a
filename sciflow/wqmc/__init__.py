"""Wasserstein quantum Monte Carlo: ground states of atoms and molecules.

Neklyudov, Nys, Thiede, Carrasquilla, Liu, Welling and Makhzani, "Wasserstein Quantum Monte Carlo:
A Novel Approach for Solving the Quantum Many-Body Schroedinger Equation", NeurIPS 2023,
arXiv:2307.07050.
"""

from sciflow.wqmc.ansatz import ANSAETZE, FermiNet, Psiformer, Wavefunction, load
from sciflow.wqmc.evaluate import Evaluation, evaluate
from sciflow.wqmc.molecule import Molecule
from sciflow.wqmc.objective import METRICS, VELOCITIES
from sciflow.wqmc.recipe import FitOptions, GroundState, fit

__all__ = [
    "ANSAETZE",
    "METRICS",
    "VELOCITIES",
    "Evaluation",
    "FermiNet",
    "FitOptions",
    "GroundState",
    "Molecule",
    "Psiformer",
    "Wavefunction",
    "evaluate",
    "fit",
    "load",
]

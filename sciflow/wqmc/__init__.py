"""Wasserstein quantum Monte Carlo: ground states of atoms and molecules.

Neklyudov, Nys, Thiede, Carrasquilla, Liu, Welling and Makhzani, "Wasserstein Quantum Monte Carlo:
A Novel Approach for Solving the Quantum Many-Body Schroedinger Equation", NeurIPS 2023,
arXiv:2307.07050.
"""

from sciflow.wqmc.ansatz import ANSAETZE, FermiNet, Psiformer, Wavefunction, load
from sciflow.wqmc.evaluate import Evaluation, evaluate
from sciflow.wqmc.ground_state import GroundState
from sciflow.wqmc.molecule import Molecule
from sciflow.wqmc.objective import METRICS, VELOCITIES
from sciflow.wqmc.observables import Density, Observables, density, observables
from sciflow.wqmc.recipe import FitOptions, curve, fit

__all__ = [
    "ANSAETZE",
    "METRICS",
    "VELOCITIES",
    "Density",
    "Evaluation",
    "FermiNet",
    "FitOptions",
    "GroundState",
    "Molecule",
    "Observables",
    "Psiformer",
    "Wavefunction",
    "curve",
    "density",
    "evaluate",
    "fit",
    "load",
    "observables",
]

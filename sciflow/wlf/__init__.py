"""Wasserstein Lagrangian flows: curves of densities of least action through snapshots.

Neklyudov, Brekelmans, Tong, Atanackovic, Liu and Makhzani, "A Computational Framework for
Solving Wasserstein Lagrangian Flows", ICML 2024, arXiv:2310.10649.
"""

from sciflow.am import LAGRANGIANS, Action, ActionPotential, Lagrangian, Trajectories, load
from sciflow.wlf.evaluate import evaluate
from sciflow.wlf.recipe import FitOptions, fit
from sciflow.wlf.scores import Evaluation, Fold, Row

__all__ = [
    "LAGRANGIANS",
    "Action",
    "ActionPotential",
    "Evaluation",
    "FitOptions",
    "Fold",
    "Lagrangian",
    "Row",
    "Trajectories",
    "evaluate",
    "fit",
    "load",
]

"""Action matching: the potential that moves a density, learned from samples of it.

Neklyudov, Brekelmans, Severo and Makhzani, "Action Matching: Learning Stochastic Dynamics from
Samples", ICML 2023, arXiv:2210.06662.
"""

from sciflow.am.lagrangians import LAGRANGIANS, Lagrangian
from sciflow.am.model import Action, ActionPotential, Trajectories, load
from sciflow.am.recipe import FitOptions, fit
from sciflow.am.sampled import fit_sampler

__all__ = [
    "LAGRANGIANS",
    "Action",
    "ActionPotential",
    "FitOptions",
    "Lagrangian",
    "Trajectories",
    "fit",
    "fit_sampler",
    "load",
]

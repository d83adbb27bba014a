"""Continuous normalizing flows: exact densities, samples with weights, from data or an energy.

Chen, Rubanova, Bettencourt, Duvenaud, "Neural ordinary differential equations", NeurIPS 2018;
Grathwohl, Chen, Bettencourt, Sutskever, Duvenaud, "FFJORD", ICLR 2019, arXiv:1810.01367.
"""

from sciflow.cnf.base import BASES, Base, StandardBase
from sciflow.cnf.fields import FIELDS
from sciflow.cnf.model import ContinuousFlow, LogLikelihood, load
from sciflow.cnf.velocity import VelocityMLP

__all__ = [
    "BASES",
    "FIELDS",
    "Base",
    "ContinuousFlow",
    "LogLikelihood",
    "StandardBase",
    "VelocityMLP",
    "load",
]

"""The one integrator of ordinary and stochastic differential equations."""

from sciflow.integrators.brownian import Brownian, BrownianWithArea
from sciflow.integrators.divergence import exact_divergence, hutchinson_divergence
from sciflow.integrators.events import Event
from sciflow.integrators.fields import SDE, Hamiltonian, WithLogDensity
from sciflow.integrators.hamiltonian import HAMILTONIAN_METHODS
from sciflow.integrators.sde import SDE_METHODS
from sciflow.integrators.solution import EventTable, Solution, Stats, Status
from sciflow.integrators.solve import integrate
from sciflow.integrators.splitting import SPLITTINGS
from sciflow.integrators.tableaus import TABLEAUS, Tableau

__all__ = [
    "HAMILTONIAN_METHODS",
    "SDE",
    "SDE_METHODS",
    "SPLITTINGS",
    "TABLEAUS",
    "Brownian",
    "BrownianWithArea",
    "Event",
    "EventTable",
    "Hamiltonian",
    "Solution",
    "Stats",
    "Status",
    "Tableau",
    "WithLogDensity",
    "exact_divergence",
    "hutchinson_divergence",
    "integrate",
]

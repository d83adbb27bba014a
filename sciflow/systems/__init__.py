"""Systems whose physics is known: energies, simulators and closed forms for more than one door."""

from __future__ import annotations

from sciflow.systems.fixed_points import FixedPoints
from sciflow.systems.gaussians import GaussianTransport
from sciflow.systems.gene_network import GeneNetwork, GeneNetworkData
from sciflow.systems.population import Ensemble

__all__ = ["Ensemble", "FixedPoints", "GaussianTransport", "GeneNetwork", "GeneNetworkData"]

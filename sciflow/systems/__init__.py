"""Systems whose physics is known: energies, simulators and closed forms for more than one door."""

from __future__ import annotations

from sciflow.systems.anharmonic_chains import FPUTBeta, Phi4
from sciflow.systems.base import ExactSystem, System
from sciflow.systems.fixed_points import FixedPoints
from sciflow.systems.gaussian_bridge import GaussianBridge, HarmonicTransport
from sciflow.systems.gaussians import GaussianTransport
from sciflow.systems.gene_network import GeneNetwork, GeneNetworkData
from sciflow.systems.harmonic_chain import HarmonicChain
from sciflow.systems.landscapes import DoubleWell, MuellerBrown, Ring
from sciflow.systems.molecules import Conformations, Molecule
from sciflow.systems.particles import (
    DoubleWellParticles,
    LennardJones,
    MeanFree,
    ParticleSystem,
)
from sciflow.systems.planar_cluster import PlanarCluster, planar_cluster
from sciflow.systems.point_masses import PointMasses
from sciflow.systems.population import Ensemble
from sciflow.systems.sampling import Chains, hmc_chains
from sciflow.systems.superpositions import HydrogenSuperposition, OscillatorSuperposition
from sciflow.systems.table import SYSTEMS, make_system
from sciflow.systems.toys import TOYS, ToyDensity
from sciflow.systems.trajectories import conformations, to_trajectory
from sciflow.systems.velocities import check_velocities, equipartition

__all__ = [
    "SYSTEMS",
    "TOYS",
    "Chains",
    "Conformations",
    "DoubleWell",
    "DoubleWellParticles",
    "Ensemble",
    "ExactSystem",
    "FPUTBeta",
    "FixedPoints",
    "GaussianBridge",
    "GaussianTransport",
    "GeneNetwork",
    "GeneNetworkData",
    "HarmonicChain",
    "HydrogenSuperposition",
    "HarmonicTransport",
    "LennardJones",
    "MeanFree",
    "Molecule",
    "MuellerBrown",
    "OscillatorSuperposition",
    "ParticleSystem",
    "Phi4",
    "PlanarCluster",
    "PointMasses",
    "Ring",
    "System",
    "ToyDensity",
    "check_velocities",
    "conformations",
    "equipartition",
    "hmc_chains",
    "make_system",
    "planar_cluster",
    "to_trajectory",
]

"""Continuous normalizing flows: exact densities, samples with weights, from data or an energy.

Chen, Rubanova, Bettencourt, Duvenaud, "Neural ordinary differential equations", NeurIPS 2018;
Grathwohl, Chen, Bettencourt, Sutskever, Duvenaud, "FFJORD", ICLR 2019, arXiv:1810.01367.
"""

from sciflow.cnf.base import BASES, Base, StandardBase
from sciflow.cnf.boltzmann import BoltzmannGenerator, WeightedSamples
from sciflow.cnf.boltzmann_chains import FlowChains, annealed_free_energy, flow_chains
from sciflow.cnf.energy_recipe import EnergyOptions, fit_energy
from sciflow.cnf.equivariant import ParticleField
from sciflow.cnf.fields import FIELDS
from sciflow.cnf.files import load
from sciflow.cnf.flow_matching import CoupledPairs, FlowMatching, IndependentPairs
from sciflow.cnf.likelihood import MaximumLikelihood
from sciflow.cnf.mixture import Joint, Mixture
from sciflow.cnf.model import ContinuousFlow
from sciflow.cnf.particles import MeanFreeGaussian
from sciflow.cnf.particles_fit import ParticleOptions, fit_particles
from sciflow.cnf.recipe import FitOptions, fit_samples
from sciflow.cnf.reverse_kl import ReverseKL
from sciflow.cnf.uncertainty import LogLikelihood
from sciflow.cnf.velocity import VelocityMLP

__all__ = [
    "BASES",
    "FIELDS",
    "Base",
    "BoltzmannGenerator",
    "ContinuousFlow",
    "CoupledPairs",
    "EnergyOptions",
    "FitOptions",
    "FlowChains",
    "FlowMatching",
    "IndependentPairs",
    "Joint",
    "LogLikelihood",
    "MaximumLikelihood",
    "MeanFreeGaussian",
    "Mixture",
    "ParticleField",
    "ParticleOptions",
    "ReverseKL",
    "StandardBase",
    "VelocityMLP",
    "WeightedSamples",
    "annealed_free_energy",
    "fit_energy",
    "fit_particles",
    "fit_samples",
    "flow_chains",
    "load",
]

"""Decaying turbulence: simulation, data, and forecasts by neural ODEs."""

from sciflow.turbulence.dns import simulate
from sciflow.turbulence.runs import DecayRun, from_series
from sciflow.turbulence.spectra import PeakedSpectrum

__all__ = ["DecayRun", "PeakedSpectrum", "from_series", "simulate"]

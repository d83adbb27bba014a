"""Decaying turbulence: simulation, data, and forecasts by neural ODEs."""

from sciflow.turbulence.dataset import read_runs, write_runs
from sciflow.turbulence.dns import simulate
from sciflow.turbulence.edqnm import Closure, closure
from sciflow.turbulence.forecaster import Forecast, Forecaster, load
from sciflow.turbulence.readers import read_csv, write_csv
from sciflow.turbulence.recipe import FitOptions, fit
from sciflow.turbulence.runs import DecayRun, from_series
from sciflow.turbulence.shell_training import fit_shells
from sciflow.turbulence.shells import ShellModel
from sciflow.turbulence.shipped import decays, pretrained
from sciflow.turbulence.spectra import PeakedSpectrum

__all__ = [
    "Closure",
    "DecayRun",
    "FitOptions",
    "Forecast",
    "Forecaster",
    "PeakedSpectrum",
    "ShellModel",
    "closure",
    "decays",
    "fit",
    "fit_shells",
    "from_series",
    "load",
    "pretrained",
    "read_csv",
    "read_runs",
    "simulate",
    "write_csv",
    "write_runs",
]

"""Figures, one file per family. Every function draws on ``ax`` (by default the current axes).

Every function returns the axes it drew on, and none shows or saves a figure.
"""

from __future__ import annotations

from sciflow.plots.boltzmann import weighted_histogram
from sciflow.plots.cell_fields import (
    growth,
    landscape,
    marginals_over_time,
    mass_over_time,
    stream,
)
from sciflow.plots.cells import (
    ScoreRow,
    marginals,
    predicted_against_held_out,
    scores,
    trajectories,
    velocity_field,
)
from sciflow.plots.flows import density, flow_lines, samples_over_time
from sciflow.plots.free_energy import free_energy
from sciflow.plots.ground_states import dissociation, electron_density, energy_trace
from sciflow.plots.images import image_grid
from sciflow.plots.modes import latent, mode_shapes, spectrum
from sciflow.plots.torsions import mode_on_torsions
from sciflow.plots.training import history
from sciflow.plots.turbulence import decay, energy_spectra, local_exponent

__all__ = [
    "ScoreRow",
    "decay",
    "density",
    "dissociation",
    "electron_density",
    "energy_spectra",
    "energy_trace",
    "flow_lines",
    "free_energy",
    "growth",
    "history",
    "image_grid",
    "landscape",
    "latent",
    "local_exponent",
    "marginals",
    "marginals_over_time",
    "mass_over_time",
    "mode_on_torsions",
    "mode_shapes",
    "predicted_against_held_out",
    "samples_over_time",
    "scores",
    "spectrum",
    "stream",
    "trajectories",
    "velocity_field",
    "weighted_histogram",
]

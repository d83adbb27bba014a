"""Figures, one file per family. Every function draws on ``ax`` (by default the current axes).

Every function returns the axes it drew on, and none shows or saves a figure.
"""

from __future__ import annotations

from sciflow.plots.boltzmann import weighted_histogram
from sciflow.plots.cells import (
    ScoreRow,
    marginals,
    predicted_against_held_out,
    scores,
    trajectories,
    velocity_field,
)
from sciflow.plots.flows import density, flow_lines, samples_over_time
from sciflow.plots.training import history

__all__ = [
    "ScoreRow",
    "density",
    "flow_lines",
    "history",
    "marginals",
    "predicted_against_held_out",
    "samples_over_time",
    "scores",
    "trajectories",
    "velocity_field",
    "weighted_histogram",
]

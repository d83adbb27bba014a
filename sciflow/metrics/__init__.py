"""Distances between samples, information in them, and free energies, each with its own scale."""

from __future__ import annotations

from sciflow.metrics.chains import Mean, chain_mean, r_hat
from sciflow.metrics.discrepancy import covariance_trace_ratio, energy_distance, mmd
from sciflow.metrics.free_energy import (
    Bound,
    Estimate,
    bar,
    reweight,
    stratified_bar,
    variational_bound,
)
from sciflow.metrics.histogram import histogram_distance
from sciflow.metrics.information import mutual_information, mutual_information_matrix
from sciflow.metrics.surfaces import (
    Difference,
    Surface,
    between,
    blocks,
    free_energy_difference,
    free_energy_surface,
)
from sciflow.metrics.transport import (
    sampling_floor,
    sliced_wasserstein2,
    wasserstein1,
    wasserstein2,
)
from sciflow.metrics.weights import ess

__all__ = [
    "Bound",
    "Difference",
    "Estimate",
    "Mean",
    "Surface",
    "bar",
    "between",
    "blocks",
    "chain_mean",
    "covariance_trace_ratio",
    "energy_distance",
    "ess",
    "free_energy_difference",
    "free_energy_surface",
    "histogram_distance",
    "mmd",
    "mutual_information",
    "mutual_information_matrix",
    "r_hat",
    "reweight",
    "sampling_floor",
    "sliced_wasserstein2",
    "stratified_bar",
    "variational_bound",
    "wasserstein1",
    "wasserstein2",
]

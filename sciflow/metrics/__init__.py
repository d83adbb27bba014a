"""Distances between samples, each beside what it scores on samples of one distribution."""

from __future__ import annotations

from sciflow.metrics.discrepancy import covariance_trace_ratio, energy_distance, mmd
from sciflow.metrics.transport import (
    sampling_floor,
    sliced_wasserstein2,
    wasserstein1,
    wasserstein2,
)
from sciflow.metrics.weights import ess

__all__ = [
    "covariance_trace_ratio",
    "energy_distance",
    "ess",
    "mmd",
    "sampling_floor",
    "sliced_wasserstein2",
    "wasserstein1",
    "wasserstein2",
]

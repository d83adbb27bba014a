"""Distance between the histograms of two samples of one quantity, which may be weighted."""

from __future__ import annotations

import math

import torch

from sciflow.metrics.points import Array, as_real
from sciflow.shapes import Float, Tensor


def histogram_distance(
    x: Array,
    y: Array,
    edges: Array,
    x_weights: Array | None = None,
    y_weights: Array | None = None,
) -> float:
    """Total variation between two histograms, half the sum of |p - q| over bins: in [0, 1].

    What lies outside the edges counts as two further bins. Two finite samples of one distribution
    differ too: compare with that floor.

    Args:
        x: (n,) values.
        y: (m,) values; an exact distribution is given as the centres of the bins, with their
            masses as ``y_weights``.
        edges: (k + 1,) ascending edges of the bins.
        x_weights: (n,) weights, not negative; None counts all alike.
        y_weights: (m,) likewise.

    Raises:
        ValueError: shapes disagree, values are not finite, or edges do not ascend.
    """
    bounds = as_real(edges, "edges")
    if bounds.ndim != 1 or len(bounds) < 2 or not bool((bounds.diff() > 0).all()):
        raise ValueError("edges must be (k + 1,) ascending numbers, k at least 1")
    p = _masses(x, x_weights, bounds, "x")
    q = _masses(y, y_weights, bounds, "y").to(p.device)
    return 0.5 * float((p - q).abs().sum())


def _masses(
    values: Array, weights: Array | None, edges: Tensor, name: str
) -> Float[Tensor, " bin"]:
    """Normalised masses of the bins, of what is below them and of what is above."""
    x = as_real(values, name)
    if x.ndim != 1 or len(x) == 0 or not bool(torch.isfinite(x).all()):
        raise ValueError(f"{name} must be (n,) finite values; got shape {tuple(x.shape)}")
    w = torch.ones_like(x) if weights is None else as_real(weights, f"{name}_weights").to(x)
    if w.shape != x.shape or not bool((w >= 0).all()) or not 0 < float(w.sum()) < math.inf:
        raise ValueError(f"{name}_weights must be ({len(x)},) weights, not negative nor all zero")
    masses = torch.zeros(len(edges) + 1, dtype=x.dtype, device=x.device)
    masses.index_add_(0, torch.bucketize(x, edges.to(x.device), right=True), w)
    return masses / masses.sum()

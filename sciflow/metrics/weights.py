"""Quality of importance weights."""

from __future__ import annotations

import torch

from sciflow.metrics.points import Array, as_real
from sciflow.shapes import Tensor


def ess(log_weights: Array) -> Tensor:
    """Effective sample size of Kish, ``(sum w)^2 / sum w^2``, from log-weights.

    Args:
        log_weights: (..., n) logarithms of weights that need not be normalised; minus infinity
            for a weight of zero.

    Returns:
        (...) float64, between 1 and n.

    Raises:
        ValueError: an entry is nan or plus infinity, or all weights of a row are zero.

    Source: Kish (1965), Survey Sampling; Liu (2001), Monte Carlo Strategies, section 2.5.3.
    """
    values = as_real(log_weights, "log_weights")
    if values.ndim == 0 or values.shape[-1] == 0:
        raise ValueError(
            f"log_weights has shape {tuple(values.shape)}; expected (..., n), n at least 1"
        )
    if torch.isnan(values).any() or torch.isposinf(values).any():
        raise ValueError("log_weights has entries that are nan or plus infinity")
    if torch.isneginf(values).all(-1).any():
        raise ValueError("log_weights are all minus infinity: no weight is positive")
    return torch.exp(2 * values.logsumexp(-1) - (2 * values).logsumexp(-1))

"""Whether Markov chains have mixed, and the error of their averages."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from sciflow.metrics.points import Array, as_real
from sciflow.shapes import Tensor


class Mean(NamedTuple):
    """An average and its standard error, in the unit of what was averaged."""

    value: float
    error: float


def chain_mean(values: Array) -> Mean:
    """Average over independent chains, with an error from the spread of their means.

    Draws of one chain are correlated, means of chains are not: no correlation time is needed.

    Args:
        values: (draws, chains) one number per draw; at least two chains.

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    means = _chains(values, 1).mean(0)
    return Mean(float(means.mean()), float(means.std()) / math.sqrt(len(means)))


def r_hat(values: Array) -> float:
    """Potential scale reduction of Gelman and Rubin over halves of chains; 1 where they agree.

    Above some 1.01 the chains have not mixed.

    Args:
        values: (draws, chains) one number per draw; at least four draws and two chains.

    Raises:
        ValueError: another shape, values that are not finite, or all of them equal.

    Source: Gelman, Rubin, Stat. Sci. 7, 457 (1992); Gelman et al., Bayesian Data Analysis, 3rd
        ed. (2013), equations (11.3) and (11.4), for the halves.
    """
    x = _chains(values, 4)
    half = len(x) // 2
    parts = torch.cat([x[:half], x[-half:]], 1)
    within = parts.var(0).mean()
    if within == 0:
        raise ValueError("values do not vary within any chain: there is nothing to compare")
    between = parts.mean(0).var()
    return float(((half - 1) / half + between / within).sqrt())


def _chains(values: Array, draws: int) -> Tensor:
    x = as_real(values, "values")
    if x.ndim != 2 or x.shape[0] < draws or x.shape[1] < 2:
        raise ValueError(
            f"values has shape {tuple(x.shape)}; expected (draws, chains), at least ({draws}, 2)"
        )
    if not torch.isfinite(x).all():
        raise ValueError("values has entries that are not finite")
    return x

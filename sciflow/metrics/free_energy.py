"""Free energies from weights and from work values, each with its error.

A model with density rho and a target exp(-H / kT) give the log-weights
w = -H(x) / kT - ln rho(x) of samples x of the model. Then F = -kT ln E[exp w], and by Jensen
F <= -kT E[w], with equality where the model is exact. With samples of the target too, the
acceptance ratio of Bennett uses both and needs far less overlap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from sciflow.metrics.points import Array, as_real
from sciflow.metrics.weights import ess
from sciflow.shapes import Float, Tensor


class Estimate(NamedTuple):
    """A free energy, or a difference of two, in the unit of kT.

    Attributes:
        value: the estimate.
        error: its standard error.
        bound: variational upper bound, from the same samples; never below the truth but for
            its own statistical error.
        ess: effective share of the samples (Kish), between 1/n and 1: below some 0.01 neither
            the value nor its error can be trusted.
    """

    value: float
    error: float
    bound: float
    ess: float


class Bound(NamedTuple):
    """A variational bound in the unit of kT, and its standard error."""

    value: float
    error: float


def variational_bound(log_weights: Array, kT: float = 1.0) -> Bound:
    """Upper bound -kT E[log w] of a free energy.

    Args:
        log_weights: (n,) values of -H / kT - ln rho at independent samples of rho.
        kT: thermal energy.

    Raises:
        ValueError: fewer than two weights, nan or infinite ones, or ``kT`` not positive.
    """
    values = _log_weights(log_weights, "log_weights", kT)
    if torch.isinf(values).any():
        raise ValueError("log_weights has entries that are minus infinity: the bound is infinite")
    return Bound(-kT * float(values.mean()), kT * float(values.std()) / math.sqrt(len(values)))


def reweight(
    log_weights: Array, generator: torch.Generator, kT: float = 1.0, n_bootstrap: int = 200
) -> Estimate:
    """Free energy -kT ln E[w] by exponential reweighting (Zwanzig), with a bootstrap error.

    Args:
        log_weights: (n,) values of -H / kT - ln rho at independent samples of rho; minus infinity
            where the target vanishes (the bound is then infinite).
        generator: where the bootstrap's resamples come from.
        kT: thermal energy.
        n_bootstrap: number of resamples.

    Raises:
        ValueError: fewer than two weights, nan or plus infinity, all zero, ``kT`` not positive,
            or fewer than two resamples.

    Source: Zwanzig, J. Chem. Phys. 22, 1420 (1954); Efron, Ann. Stat. 7, 1 (1979).
    """
    values = _log_weights(log_weights, "log_weights", kT)
    if n_bootstrap < 2:
        raise ValueError(f"n_bootstrap is {n_bootstrap}; expected at least 2")
    n = len(values)
    share = float(ess(values)) / n
    replicas = torch.empty(n_bootstrap, dtype=torch.float64, device=values.device)
    for i in range(n_bootstrap):
        chosen = torch.randint(n, (n,), generator=generator, device=generator.device)
        replicas[i] = values[chosen.to(values.device)].logsumexp(0)
    return Estimate(
        -kT * float(values.logsumexp(0) - math.log(n)),
        kT * float(replicas.std()),
        -kT * float(values.mean()),
        share,
    )


def bar(forward: Array, backward: Array, kT: float = 1.0) -> Estimate:
    """Difference F1 - F0 by Bennett's acceptance ratio, from samples of both states.

    With a normalised flow as state 0 (u0 = -ln rho, F0 = 0) it is the target's free energy.

    Args:
        forward: (n0,) reduced work u1(x) - u0(x) at independent samples x of state 0, u = H / kT.
        backward: (n1,) reduced work u0(x) - u1(x) at independent samples x of state 1.
        kT: thermal energy.

    Returns:
        The maximum-likelihood estimate with its asymptotic error; ``bound`` and ``ess`` are
        those of the forward samples alone.

    Raises:
        ValueError: fewer than two values on a side, nan or infinite ones, or ``kT`` not positive.

    Source: Bennett, J. Comput. Phys. 22, 245 (1976), equations (10a) and (12); Shirts, Bair,
    Hooker, Pande, Phys. Rev. Lett. 91, 140601 (2003), equation (8), for the error.
    """
    up = -_log_weights(-as_real(forward, "forward"), "forward", kT)
    down = -_log_weights(-as_real(backward, "backward"), "backward", kT)
    down = down.to(up.device)
    for name, values in (("forward", up), ("backward", down)):
        if torch.isinf(values).any():
            raise ValueError(f"{name} has entries that are infinite; expected finite work")
    shift = math.log(len(up) / len(down))

    def imbalance(difference: float) -> float:
        """Log of the ratio of both sides of (12): rising in the difference, zero at the answer."""
        left = torch.nn.functional.logsigmoid(difference - shift - up).logsumexp(0)
        right = torch.nn.functional.logsigmoid(shift - difference - down).logsumexp(0)
        return float(left - right)

    span = 1 + abs(shift)
    low = min(float(up.min()), float(-down.max())) - span
    high = max(float(up.max()), float(-down.min())) + span
    # The imbalance has the slope 1 to 2 far out, so that ends moved by twice as much suffice.
    while imbalance(low) > 0:
        low -= span
        span *= 2
    while imbalance(high) < 0:
        high += span
        span *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if imbalance(middle) < 0 else (low, middle)
    value = (low + high) / 2
    variance = _acceptance_variance(value - shift - up) + _acceptance_variance(
        shift - value - down
    )
    return Estimate(
        kT * value,
        kT * math.sqrt(variance),
        kT * float(up.mean()),
        float(ess(-up)) / len(up),
    )


def stratified_bar(strata: Sequence[tuple[Array, Array]], kT: float = 1.0) -> Estimate:
    """Difference over a ladder of states: Bennett's ratio between neighbours, summed.

    Args:
        strata: for each pair of neighbours the ``forward`` and ``backward`` work of `bar`. The
            errors add in squares, so no sample may serve in two strata.
        kT: thermal energy.

    Returns:
        Sums of values and bounds; ``ess`` is the smallest of the strata.

    Raises:
        ValueError: there is no stratum, or as for `bar`.
    """
    if not strata:
        raise ValueError("strata is empty; expected at least one pair of work values")
    parts = [bar(forward, backward, kT) for forward, backward in strata]
    return Estimate(
        sum(part.value for part in parts),
        math.sqrt(sum(part.error**2 for part in parts)),
        sum(part.bound for part in parts),
        min(part.ess for part in parts),
    )


def _acceptance_variance(argument: Float[Tensor, " n"]) -> float:
    """Relative variance of the mean of Fermi functions, <f^2> / <f>^2 - 1 over n."""
    log_f = torch.nn.functional.logsigmoid(argument)
    n = len(log_f)
    ratio = float((2 * log_f).logsumexp(0) - 2 * log_f.logsumexp(0)) + math.log(n)
    # Equal values leave a rounding error of either sign.
    return max(math.expm1(ratio), 0.0) / n


def _log_weights(log_weights: Array, name: str, kT: float) -> Float[Tensor, " n"]:
    if not (math.isfinite(kT) and kT > 0):
        raise ValueError(f"kT must be positive and finite, got {kT}")
    values = as_real(log_weights, name)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"{name} has shape {tuple(values.shape)}; expected (n,), n at least 2")
    if torch.isnan(values).any() or torch.isposinf(values).any():
        raise ValueError(f"{name} has entries that are nan or of the wrong infinity")
    return values

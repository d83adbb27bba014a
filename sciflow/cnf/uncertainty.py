"""Log-densities with what is known of their errors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

from sciflow.shapes import Float, Tensor

if TYPE_CHECKING:
    from sciflow.cnf.model import ContinuousFlow


class LogLikelihood(NamedTuple):
    """Log-densities with what is known of their errors, all (B,) and in nats.

    Attributes:
        value: log-density.
        trace_error: standard error of the trace estimator; zero for the exact trace.
        solver_error: estimated error of the integration: how far a solve at ten times the
            tolerance (or half the number of steps) lies off.
    """

    value: Float[Tensor, " batch"]
    trace_error: Float[Tensor, " batch"]
    solver_error: Float[Tensor, " batch"]

    @property
    def mean(self) -> float:
        """Mean log-density."""
        return float(self.value.mean())

    @property
    def error(self) -> float:
        """Standard error of the mean: of the samples and the trace together."""
        n = len(self.value)
        return float(self.value.std()) / math.sqrt(n) if n > 1 else math.nan


def rate(
    flow: ContinuousFlow,
    x: Float[Tensor, "batch dim"],
    context: Float[Tensor, "*any c"] | None,
    probes: int,
    generator: torch.Generator,
) -> LogLikelihood:
    """Log-densities of ``x`` (B, d) with their errors; see `ContinuousFlow.log_likelihood`."""
    if flow.trace == "hutchinson" and probes < 2:
        raise ValueError(f"a standard error needs at least 2 probes; got {probes}")
    state = generator.get_state()
    runs = range(probes if flow.trace == "hutchinson" else 1)
    values = torch.stack([flow.log_prob(x, context, generator) for _ in runs])
    # The comparison has the first probe again: it sees the integration alone.
    again = torch.Generator(generator.device)
    again.set_state(state)
    if flow.n_steps is None:
        rough = flow.with_solver(flow.method, 10 * flow.rtol, 10 * flow.atol)
    else:
        rough = flow.with_solver(flow.method, n_steps=max(1, flow.n_steps // 2))
    difference = (rough.log_prob(x, context, again) - values[0]).abs()
    if len(values) == 1:
        return LogLikelihood(values[0], torch.zeros_like(difference), difference)
    error = values.std(0) / math.sqrt(len(values))
    return LogLikelihood(values.mean(0), error, difference)

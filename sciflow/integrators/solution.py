"""What a solve gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import torch

from sciflow.integrators.state import State, flatten
from sciflow.shapes import Tensor


class Status(IntEnum):
    """How the solve of one sample ended."""

    OK = 0
    MAX_STEPS = 1
    DT_UNDERFLOW = 2
    NON_FINITE = 3
    EVENT = 4  # stopped by a terminal event, as it should


@dataclass(frozen=True)
class Stats:
    """Cost and outcome of a solve.

    Attributes:
        nfe: evaluations of the field (of the drift, for an SDE); with ``batch="each"`` the
            evaluations that each sample needed, (batch,).
        steps: accepted steps; per sample with ``batch="each"``.
        rejected: rejected steps; per sample with ``batch="each"``.
        error: sum over the steps of the estimated local error, root mean square over the
            elements, in units of the state; None for methods that estimate none.
        status: ``Status`` of every sample as integers, (batch,), or () for a state without a
            batch axis.
        last_t: time of the last good state, per sample; with constant steps, looked for among the
            outputs only.
        last_y: last good state; where all samples are OK it equals the final state.
        acceptance: with ``hmc``, the part of the transitions that were accepted, per sample.
    """

    nfe: int | Tensor
    steps: int | Tensor
    rejected: int | Tensor
    error: float | Tensor | None
    status: Tensor
    last_t: Tensor
    last_y: State = field(repr=False)
    acceptance: Tensor | None = None

    @property
    def ok(self) -> bool:
        """Whether every sample reached the final time or its terminal event."""
        return not bool(((self.status != Status.OK) & (self.status != Status.EVENT)).any())


@dataclass(frozen=True)
class EventTable:
    """The events of a solve, one row each, in the order of the steps.

    Attributes:
        t: times (n,), float64; differentiable.
        sample: which sample, (n,).
        y: states: the structure of ``y0``, each leaf (n, ...); None where nothing happened.
    """

    t: Tensor
    sample: Tensor
    y: Any


@dataclass(frozen=True)
class Solution:
    """Solution of a differential equation at the times asked for.

    Attributes:
        t: output times, (T,).
        y: states at those times: the structure of ``y0``, each leaf (T, ...). Samples that
            failed are NaN from their failure on; those that a terminal event stopped stay.
        stats: cost and outcome.
        events: what happened on the way, where an event was watched.
    """

    t: Tensor
    y: Any
    stats: Stats
    interpolant: Callable[[Tensor], State] | None = field(default=None, repr=False)
    events: EventTable | None = None

    def _repr_html_(self) -> str:
        """A small table for notebooks."""
        stats = self.stats
        names = [f"{int((stats.status == s).sum())} {s.name.lower()}" for s in Status]
        shapes = ", ".join(str(tuple(leaf.shape)) for leaf in flatten(self.y, "y")[0])
        ends = (self.t.detach()[i].double() for i in (0, -1))
        span = " to ".join(
            f"{float(x):g}" if x.ndim == 0 else f"{float(x.min()):g}..{float(x.max()):g}"
            for x in ends
        )
        rows = {
            "times": f"{len(self.t)}, {span}",
            "states": shapes,
            "evaluations": _range(stats.nfe),
            "steps": f"{_range(stats.steps)} ({_range(stats.rejected)} rejected)",
            "estimated error": "none" if stats.error is None else _range(stats.error),
            "samples": ", ".join(name for name in names if not name.startswith("0 ")) or "none",
        }
        body = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows.items())
        return f"<table>{body}</table>"

    def __call__(self, t: Tensor | float) -> State:
        """State at any time within the span: dense output of the method's own interpolant.

        Args:
            t: a time, or times (T',).

        Returns:
            The state, with a leading axis (T',) where times were given.

        Raises:
            ValueError: a time lies outside the span, or the solve kept no dense output.
        """
        if self.interpolant is None:
            raise ValueError(
                "this solve kept no dense output: integrate an ODE with dense=True, "
                "or name the times in t"
            )
        times = torch.as_tensor(t, dtype=torch.float64)
        low, high = sorted((float(self.t[0]), float(self.t[-1])))
        outside = (times < low) | (times > high) | times.isnan()
        if bool(outside.any()):
            raise ValueError(
                f"t must lie within [{low:g}, {high:g}]; got {times[outside].flatten()[0]:g}"
            )
        return self.interpolant(times)


def _range(value: int | float | Tensor) -> str:
    """A number, or the least and the greatest of one per sample."""
    if not isinstance(value, Tensor) or value.ndim == 0:
        return f"{float(value):.4g}"
    if not value.numel():
        return "none"
    return f"{float(value.min()):.4g} to {float(value.max()):.4g} per sample"

"""What a solve gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import torch

from sciflow.integrators.state import State
from sciflow.shapes import Tensor


class Status(IntEnum):
    """How the solve of one sample ended."""

    OK = 0
    MAX_STEPS = 1
    DT_UNDERFLOW = 2
    NON_FINITE = 3


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
        last_t: time of the last good state, per sample.
        last_y: last good state; where all samples are OK it equals the final state.
    """

    nfe: int | Tensor
    steps: int | Tensor
    rejected: int | Tensor
    error: float | Tensor | None
    status: Tensor
    last_t: Tensor
    last_y: State = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether every sample reached the final time."""
        return not bool(self.status.any())


@dataclass(frozen=True)
class Solution:
    """Solution of a differential equation at the times asked for.

    Attributes:
        t: output times, (T,).
        y: states at those times: the structure of ``y0``, each leaf (T, ...). Samples that
            failed are NaN from their failure on.
        stats: cost and outcome.
    """

    t: Tensor
    y: Any
    stats: Stats
    interpolant: Callable[[Tensor], State] | None = field(default=None, repr=False)

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

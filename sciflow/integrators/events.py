"""Events: where along its path a function of the state passes through zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from sciflow.integrators.ode import Stops, batch_shape
from sciflow.integrators.rungekutta import Step, Time, interpolate, value_of, widen
from sciflow.integrators.solution import EventTable
from sciflow.integrators.state import State, Structure
from sciflow.integrators.tableaus import Tableau
from sciflow.shapes import Tensor

# Bisections of a step: to the last bit of a float64 fraction.
HALVINGS = 52


@dataclass(frozen=True)
class Event:
    """Something that happens where ``function(t, y)`` passes through zero.

    Attributes:
        function: of the time, shape (batch,), and the state, to (batch,): a value per sample
            (to () for a state without batch axis). One that passes through zero and back within
            one step is not seen.
        terminal: a sample stops there and stays in the state of the event; otherwise the event
            is recorded and the sample goes on.
        direction: 1 for passages from below, -1 for those from above, 0 for both.
    """

    function: Callable[[Tensor, State], Tensor]
    terminal: bool = True
    direction: Literal[-1, 0, 1] = 0

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"function must be callable; got {type(self.function).__name__}")
        if self.direction not in (-1, 0, 1):
            raise ValueError(f"direction must be -1, 0 or 1; got {self.direction!r}")


@dataclass
class Watch:
    """Looks at every accepted step of one solve."""

    event: Event
    structure: Structure
    tableau: Tableau
    before: Tensor | None = None
    rows: list[tuple[Tensor, Tensor, list[Tensor]]] = field(default_factory=list)

    def start(self, t: Time, y: list[Tensor]) -> None:
        """Take the signs at the initial state."""
        self.before = self._value(self._times(t, y), y)

    def look(self, step: Step, moved: Tensor | None) -> tuple[Step, Stops | None]:
        """Find the events of a step, for the samples that it has ``moved`` (None: all).

        Returns:
            The step with its stopped samples where they stopped, and who they are.
        """
        after = self._value(self._times(step.t + step.h, step.y1), step.y1)
        assert self.before is not None
        hit = self._passed(self.before, after)
        if moved is not None:
            hit, after = hit & moved, torch.where(moved, after, self.before)
        first, self.before = self.before, after
        if not bool(hit.any()):
            return step, None
        u = self._locate(step, first)
        states = interpolate(self.tableau, step, u)
        when = (step.t + u * step.h).to(torch.float64)
        which = hit.reshape(-1).nonzero().flatten()
        if hit.ndim:
            self.rows.append((when[hit], which, [y[hit] for y in states]))
        else:
            self.rows.append((when.reshape(1), which, [y[None] for y in states]))
        if not self.event.terminal:
            return step, None
        y1 = [torch.where(widen(hit, y.ndim), s, y) for s, y in zip(states, step.y1, strict=True)]
        fraction = torch.where(hit, u.detach(), torch.inf)
        return step._replace(y1=y1), Stops(hit, when.detach(), fraction, states)

    def table(self) -> EventTable:
        """All events, in the order of the steps."""
        if not self.rows:
            empty = torch.zeros(0, dtype=torch.float64)
            return EventTable(empty, torch.zeros(0, dtype=torch.int64), None)
        times, samples, states = zip(*self.rows, strict=True)
        leaves = [torch.cat(column) for column in zip(*states, strict=True)]
        return EventTable(torch.cat(times), torch.cat(samples), self.structure.join(leaves))

    def _passed(self, before: Tensor, after: Tensor) -> Tensor:
        up, down = (before < 0) & (after >= 0), (before > 0) & (after <= 0)
        return {1: up, -1: down, 0: up | down}[self.event.direction]

    def _locate(self, step: Step, before: Tensor) -> Tensor:
        """Fraction of the step per sample, by bisection; it knows its own gradient."""
        still = step._replace(
            t=step.t.detach() if isinstance(step.t, Tensor) else step.t,
            h=step.h.detach() if isinstance(step.h, Tensor) else step.h,
            y0=[y.detach() for y in step.y0],
            y1=[y.detach() for y in step.y1],
            k=[[x.detach() for x in stage] for stage in step.k],
        )
        low = torch.zeros_like(before, dtype=torch.float64)
        high = torch.ones_like(low)
        with torch.no_grad():
            for _ in range(HALVINGS):
                middle = 0.5 * (low + high)
                same = self._along(still, middle) * before > 0
                low, high = torch.where(same, middle, low), torch.where(same, high, middle)
        if not torch.is_grad_enabled():
            return high
        # The implicit function theorem: one Newton step whose value is zero.
        u = high.clone().requires_grad_()
        (slope,) = torch.autograd.grad(self._along(still, u).sum(), u)
        value = self._along(step, high)
        safe = torch.where(slope.isfinite() & (slope != 0), slope, torch.inf)
        return high - (value - value.detach()) / safe

    def _along(self, step: Step, u: Tensor) -> Tensor:
        return self._value(step.t + u * step.h, interpolate(self.tableau, step, u))

    def _value(self, t: Any, y: list[Tensor]) -> Tensor:
        value = self.event.function(t.to(y[0].real.dtype), self.structure.join(y))
        if not isinstance(value, Tensor) or value.shape != batch_shape(y):
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"event must give one value per sample, shape {batch_shape(y)}; got {got}"
            )
        return value

    def _times(self, t: Time, y: list[Tensor]) -> Tensor:
        if isinstance(t, Tensor) and t.ndim:  # each sample has its own
            return t
        return torch.full(batch_shape(y), value_of(t), dtype=torch.float64, device=y[0].device)

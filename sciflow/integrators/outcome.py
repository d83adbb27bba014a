"""From what a solver did to the ``Solution`` a user sees."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from functools import partial

import torch

from sciflow.errors import IntegrationError
from sciflow.integrators.leaves import all_finite
from sciflow.integrators.ode import Progress, batch_shape, finite_samples
from sciflow.integrators.rungekutta import LeafField, Step, interpolate, value_of, widen
from sciflow.integrators.solution import EventTable, Solution, Stats, Status
from sciflow.integrators.state import State, Structure
from sciflow.integrators.tableaus import Tableau
from sciflow.shapes import Tensor

_REASONS = {
    Status.MAX_STEPS: "max_steps was reached",
    Status.DT_UNDERFLOW: "the step size underflowed (a stiff field or a pole?)",
    Status.NON_FINITE: "the field or the state is not finite",
}


def finish(
    done: Progress,
    t: Tensor,
    structure: Structure,
    nfe: int | Tensor,
    steps: int | Tensor,
    rejected: int | Tensor,
    throw: bool,
    dense: tuple[Tableau, LeafField] | None = None,
    acceptance: Tensor | None = None,
    events: EventTable | None = None,
) -> Solution:
    """Put the solution together; raise where samples failed and ``throw`` is set.

    ``dense`` holds what dense output needs beside the steps that were kept.
    """
    exporting = torch.compiler.is_exporting()  # then there are no values to look at
    if not exporting:
        _mark_non_finite(done, t)
    y = [torch.stack(column) for column in zip(*done.outputs, strict=True)]
    first = done.outputs[0]
    shape = batch_shape(first)
    final = t.detach()[-1].to(first[0].device, torch.float64).expand(shape)
    if done.status is None or done.last_t is None:
        status, last_t = torch.zeros(shape, dtype=torch.int64, device=final.device), final.clone()
    else:
        status = done.status
        last_t = torch.where(status == Status.OK, final, done.last_t)
    failed = done.status is not None and not exporting and bool(_failed(status).any())
    blank = partial(_blank, span=t[-1] - t[0], status=status, last_t=last_t) if failed else None
    if blank is not None:
        y = [blank(leaf, t) for leaf in y]
    error = done.error
    if isinstance(error, Tensor) and error.ndim == 0:
        error = float(error)
    stats = Stats(
        nfe, steps, rejected, error, status, last_t, structure.join(done.end), acceptance
    )
    interpolant = None
    if dense is not None:
        interpolant = partial(_interpolant, done.record, first, *dense, structure, blank)
    solution = Solution(t, structure.join(y), stats, interpolant, events)
    if failed and throw:
        raise IntegrationError(_describe(stats), solution)
    return solution


def _failed(status: Tensor) -> Tensor:
    return (status != Status.OK) & (status != Status.EVENT)


def _blank(leaf: Tensor, t: Tensor, span: Tensor, status: Tensor, last_t: Tensor) -> Tensor:
    """A leaf at the times ``t``, with NaN from the failure of a sample on."""
    at = t.to(last_t).reshape(len(t), *[1] * (status.ndim if t.ndim == 1 else 0))
    beyond = torch.where(span.to(at.device) >= 0, at > last_t, at < last_t) & _failed(status)
    return leaf.masked_fill(widen(beyond, leaf.ndim), math.nan)


def _mark_non_finite(done: Progress, t: Tensor) -> None:
    """Mark samples that left the reals unnoticed: constant steps, or leaves outside the norm.

    Their last good state is looked for among the outputs.
    """
    # NaN does not recover, so the last output tells whether there is anything to look for.
    if done.status is None and all(all_finite(leaf) for leaf in done.outputs[-1]):
        return
    shape = batch_shape(done.outputs[0])
    good = finite_samples(done.outputs[-1], shape)
    if done.status is not None:
        good |= done.status != Status.OK
    if bool(good.all()):
        return
    status = torch.zeros_like(good, dtype=torch.int64) if done.status is None else done.status
    at = t.detach().to(good.device, torch.float64)
    known = done.last_t if done.last_t is not None else at[-1].expand(shape)
    last_t, last = torch.where(good, known, at[0]), done.end
    seen = ~good
    for time, output in zip(at, done.outputs, strict=True):
        seen = seen & finite_samples(output, shape)
        last_t = torch.where(seen, time, last_t)
        last = [
            torch.where(widen(seen, y.ndim), y, old) for y, old in zip(output, last, strict=True)
        ]
    done.status = torch.where(good, status, int(Status.NON_FINITE))
    done.last_t, done.end = last_t, last


def _describe(stats: Stats) -> str:
    total = stats.status.numel()
    parts = []
    for status, reason in _REASONS.items():
        hit = (stats.status.reshape(-1) == status).nonzero().flatten()
        if len(hit):
            first = int(hit[0])
            when = float(stats.last_t.reshape(-1)[first])
            who = f"{len(hit)} of {total} samples (first: {first}, " if total > 1 else "("
            parts.append(f"{reason}: {who}last good time {when:g})")
    return "; ".join(parts) + ". The error carries the solution; throw=False returns it."


def _interpolant(
    record: list[Step],
    y0: list[Tensor],
    tableau: Tableau,
    f: LeafField,
    structure: Structure,
    blank: Callable[[Tensor, Tensor], Tensor] | None,
    times: Tensor,
) -> State:
    """State at any times, from the steps that were kept."""
    starts = [value_of(step.t) for step in record]
    sign = 1.0 if not record or value_of(record[0].h) >= 0 else -1.0
    keys = [sign * start for start in starts]
    rows = []
    for time in times.flatten().tolist():
        if not record:
            rows.append(y0)
            continue
        index = max(bisect_right(keys, sign * time) - 1, 0)
        step = record[index]
        u = min(1.0, max(0.0, (time - starts[index]) / value_of(step.h)))
        slope1 = None
        if tableau.dense is None and not tableau.fsal:
            slope1 = f(step.t + step.h, step.y1)
        rows.append(step.y1 if u == 1.0 else interpolate(tableau, step, u, slope1))
    stacked = [torch.stack(column) for column in zip(*rows, strict=True)]
    if blank is not None:
        stacked = [blank(leaf, times.flatten()) for leaf in stacked]
    if times.ndim == 0:
        stacked = [leaf[0] for leaf in stacked]
    return structure.join(stacked)

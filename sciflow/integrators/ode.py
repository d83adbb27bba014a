"""Fixed-step and adaptive solution of ordinary differential equations, one step for all samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from sciflow.integrators.rungekutta import (
    LeafField,
    Step,
    Time,
    interpolate,
    local_error,
)
from sciflow.integrators.solution import Status
from sciflow.integrators.tableaus import Tableau
from sciflow.shapes import Tensor

SAFETY, SHRINK, GROW = 0.9, 0.2, 10.0
# PI control as in Hairer, Norsett and Wanner, Solving ODEs I, section IV.2: a little memory of
# the last error damps the oscillation of the step size.
PI_BETA = 0.04

Stepper = Callable[[Time, Time, list[Tensor], list[Tensor] | None], Step]


@dataclass
class Progress:
    """What a solver has done so far; filled in as it goes."""

    outputs: list[list[Tensor]]
    end: list[Tensor] = field(default_factory=list)
    k_end: list[Tensor] | None = None
    plan: list[Move] = field(default_factory=list)
    steps: int = 0
    rejected: int = 0
    error: Tensor | float | None = None
    record: list[Step] = field(default_factory=list)
    status: Tensor | None = None  # None: every sample is still fine
    last_t: Tensor | None = None


@dataclass(frozen=True)
class Control:
    """How an adaptive solve chooses its steps."""

    rtol: float
    atol: float
    max_steps: int
    in_norm: tuple[bool, ...]


class Move(NamedTuple):
    """One step of a plan: from ``t`` over ``h``, with outputs at these fractions of it."""

    t: Time
    h: Time
    outputs: tuple[Time, ...] = ()


def fixed_plan(t: list[Time], dt: float | None) -> list[Move]:
    """Equal steps of at most ``dt`` between outputs, landing on every output time."""
    plan = []
    for start, end in zip(t[:-1], t[1:], strict=True):
        span = float(end) - float(start)
        n = 1 if dt is None else max(1, math.ceil(abs(span) / dt * (1 - 1e-12)))
        knots = [start + (end - start) * (j / n) for j in range(n)] + [end]
        plan += [Move(a, b - a) for a, b in zip(knots[:-2], knots[1:-1], strict=True)]
        plan.append(Move(knots[-2], end - knots[-2], (1.0,)))
    return plan


def march(
    step: Stepper,
    tableau: Tableau | None,
    y0: list[Tensor],
    plan: list[Move],
    dense: bool = False,
    k0: list[Tensor] | None = None,
) -> Progress:
    """Take the steps of a plan, without error control."""
    done = Progress(outputs=[])
    y = y0
    for move in plan:
        taken = step(move.t, move.h, y, k0)
        for u in move.outputs:
            whole = isinstance(u, float) and u == 1.0
            if whole or tableau is None:
                done.outputs.append(taken.y1)
            else:
                done.outputs.append(interpolate(tableau, taken, u))
        y = taken.y1
        k0 = taken.k[-1] if tableau is not None and tableau.fsal else None
        if dense:
            done.record.append(taken)
    done.steps = len(plan)
    done.end, done.k_end = y, k0
    return done


def solve_adaptive(
    step: Stepper,
    f: LeafField,
    tableau: Tableau,
    y0: list[Tensor],
    t: list[Time],
    control: Control,
    dense: bool,
) -> Progress:
    """March with error control; the last step is clipped to land on the final time.

    Samples that cannot go on (not finite, or a step size that underflows) are frozen and marked;
    the others are finished.
    """
    done = Progress(outputs=[y0])
    start, end = float(t[0]), float(t[-1])
    direction = 1.0 if end >= start else -1.0
    times = [float(s) for s in t]
    exponent = 1 / (tableau.order) - 0.75 * PI_BETA
    previous_error = 1e-4

    now, y, next_output = start, y0, 1
    k0 = f(t[0], y0)
    h = _first_step(tableau, y0, k0, abs(end - start), control)
    while next_output < len(times):
        if done.steps + done.rejected >= control.max_steps:
            _mark(done, _alive(done, y), Status.MAX_STEPS, now, y)
            break
        remaining = abs(end - now)
        # A last sliver of a step would cost as much as a whole one: stretch or halve instead.
        last = remaining <= h * 1.01
        size = remaining if last else (0.5 * remaining if remaining < 2 * h else h)
        size_t: Time = direction * size
        if last:
            size_t = end - now
            if isinstance(t[-1], Tensor):  # gradients with respect to the times enter here
                size_t = t[-1] - (t[0] + (now - start))
        here = t[0] + (now - start) if isinstance(t[0], Tensor) else now
        taken = step(here, size_t, y, k0)
        with torch.no_grad():
            local = local_error(tableau, taken)
            norm = _error_norm(local, taken, control, _alive_mask(done))
        if not norm <= 1.0:  # also true for NaN
            done.rejected += 1
            smallest = 16 * math.ulp(max(abs(now), abs(end)))
            if size * SHRINK < smallest:
                bad = _offenders(local, taken, control, done)
                _mark(done, bad[0], Status.NON_FINITE, now, y)
                _mark(done, bad[1], Status.DT_UNDERFLOW, now, y)
                if bool((_status(done, y) != 0).all()):
                    break
                h = _first_step(tableau, y, k0, abs(end - now), control, _alive_mask(done))
                continue
            if math.isfinite(norm):
                h = size * max(SHRINK, SAFETY * norm**-exponent)
            else:
                h = size * SHRINK
            continue
        y1 = _keep_frozen(done, taken.y1, y)
        finished = end if last else now + direction * size
        fractions: list[Time] = []
        taken = taken._replace(y1=y1)
        if dense:
            done.record.append(taken)
        while next_output < len(times) and (
            last or direction * (times[next_output] - finished) <= 0
        ):
            at = times[next_output]
            if at == finished:
                u: Time = 1.0
                done.outputs.append(y1)
            else:
                u = (at - now) / (direction * size)
                if isinstance(here, Tensor):
                    u = (t[next_output] - here) / size_t
                done.outputs.append(_keep_frozen(done, interpolate(tableau, taken, u), y))
            fractions.append(u)
            next_output += 1
        done.plan.append(Move(here, size_t, tuple(fractions)))
        with torch.no_grad():
            rms = _rms(local, control.in_norm, _alive_mask(done))
            done.error = rms if done.error is None else done.error + rms
        factor = SAFETY * max(norm, 1e-10) ** -exponent * previous_error**PI_BETA
        h = size * min(GROW, max(SHRINK, factor))
        previous_error = max(norm, 1e-4)
        now, y, k0 = finished, y1, taken.k[-1] if tableau.fsal else f(finished, y1)
        done.steps += 1
    while len(done.outputs) < len(times):  # only failed samples are missing
        done.outputs.append(y)
    done.end = y
    return done


def _first_step(
    tableau: Tableau,
    y0: list[Tensor],
    k0: list[Tensor],
    span: float,
    control: Control,
    alive: Tensor | None = None,
) -> float:
    """A first guess from one evaluation: the time scale of the field times rtol**(1/order + 1)."""
    if span == 0.0:
        return 0.0
    rate = 0.0
    with torch.no_grad():
        for y, k, counts in zip(y0, k0, control.in_norm, strict=True):
            if counts and y.numel():
                scale = y.abs() + max(control.atol, 1e-300) / max(control.rtol, 1e-14)
                rate = max(rate, float(_root_mean_square(k.abs() / scale, alive)))
    if not 0.0 < rate < math.inf:
        return span
    return min(span, max(control.rtol, 1e-14) ** (1 / (tableau.order + 1)) / rate)


def _root_mean_square(x: Tensor, alive: Tensor | None) -> Tensor:
    if alive is not None and alive.ndim:
        x = x[alive]
    return x.square().mean().sqrt() if x.numel() else x.new_zeros(())


def _ratios(local: list[Tensor], step: Step, control: Control) -> list[Tensor]:
    """Error over tolerance, per element of the leaves that count."""
    return [
        e.abs() / (control.atol + control.rtol * torch.maximum(a.abs(), b.abs()))
        for e, a, b, counts in zip(local, step.y0, step.y1, control.in_norm, strict=True)
        if counts
    ]


def _error_norm(local: list[Tensor], step: Step, control: Control, alive: Tensor | None) -> float:
    """Largest root mean square over the leaves: the one number a step waits for."""
    norms = [_root_mean_square(r, alive) for r in _ratios(local, step, control)]
    worst = norms[0] if len(norms) == 1 else torch.stack([n.double() for n in norms]).max()
    return float(worst)


def _rms(local: list[Tensor], in_norm: tuple[bool, ...], alive: Tensor | None) -> Tensor:
    """Largest root mean square over the leaves of the estimated error, in units of the state."""
    norms = [
        _root_mean_square(e.abs(), alive)
        for e, counts in zip(local, in_norm, strict=True)
        if counts
    ]
    return norms[0] if len(norms) == 1 else torch.stack([n.double() for n in norms]).max()


def batch_shape(leaves: list[Tensor]) -> tuple[int, ...]:
    """(batch,) where every leaf has the same leading axis and the first has a further one."""
    first = leaves[0]
    if first.ndim >= 2 and all(x.ndim and x.shape[0] == first.shape[0] for x in leaves):
        return (first.shape[0],)
    return ()


def _status(done: Progress, y: list[Tensor]) -> Tensor:
    if done.status is None:
        done.status = torch.zeros(batch_shape(y), dtype=torch.int64, device=y[0].device)
        done.last_t = torch.zeros(batch_shape(y), dtype=torch.float64, device=y[0].device)
    return done.status


def _alive(done: Progress, y: list[Tensor]) -> Tensor:
    return _status(done, y) == Status.OK


def _alive_mask(done: Progress) -> Tensor | None:
    return None if done.status is None else done.status == Status.OK


def _mark(done: Progress, samples: Tensor, status: Status, now: float, y: list[Tensor]) -> None:
    current = _status(done, y)
    new = samples & (current == Status.OK)
    done.status = torch.where(new, int(status), current)
    assert done.last_t is not None
    done.last_t = torch.where(new, now, done.last_t)


def _offenders(
    local: list[Tensor], step: Step, control: Control, done: Progress
) -> tuple[Tensor, Tensor]:
    """Samples whose error is not finite, and samples whose error is too large; never neither."""
    shape = batch_shape(step.y0)
    alive = _alive(done, step.y0)
    worst = torch.zeros(shape, dtype=torch.float64, device=step.y0[0].device)
    for ratio in _ratios(local, step, control):
        per_sample = ratio.reshape(*shape, -1) if shape else ratio.reshape(-1)
        worst = worst.maximum(per_sample.double().square().mean(-1).sqrt())
    broken = alive & ~worst.isfinite()
    for k in step.k[0]:
        flat = k.reshape(*shape, -1) if shape else k.reshape(-1)
        broken |= alive & ~flat.isfinite().all(-1)
    stuck = alive & ~broken & (worst > 1.0)
    if not bool((broken | stuck).any()):
        stuck = alive
    # A field that leaves the reals all at once is broken; one whose slopes blow up is stuck.
    return broken, stuck


def _keep_frozen(done: Progress, new: list[Tensor], old: list[Tensor]) -> list[Tensor]:
    alive = _alive_mask(done)
    if alive is None:
        return new
    return [
        torch.where(alive.reshape(*alive.shape, *[1] * (n.ndim - alive.ndim)), n, o)
        for n, o in zip(new, old, strict=True)
    ]

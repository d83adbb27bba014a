"""Adaptive solution in which every sample has its own steps and, if wished, output times."""

from __future__ import annotations

import math

import torch

from sciflow.integrators.ode import (
    GROW,
    PI_BETA,
    SAFETY,
    SHRINK,
    TINY,
    Control,
    Progress,
    Stepper,
    Stops,
    Watcher,
    batch_shape,
    finite_samples,
    rms_of_samples,
)
from sciflow.integrators.rungekutta import (
    LeafField,
    Step,
    interpolate,
    local_error,
    widen,
)
from sciflow.integrators.solution import Status
from sciflow.integrators.tableaus import Tableau
from sciflow.shapes import Bool, Float, Int, Tensor


def solve_each(
    step: Stepper,
    f: LeafField,
    tableau: Tableau,
    y0: list[Tensor],
    t: Float[Tensor, "times batch"],
    control: Control,
    watch: Watcher | None = None,
) -> tuple[Progress, Tensor, Tensor]:
    """March all samples at once, each with its own error control.

    A sample's steps depend on that sample alone, so it gets the same answer and the same number
    of evaluations in any company. The field sees times of shape (batch,).

    Returns:
        The progress, and the accepted and the rejected steps per sample.
    """
    if not batch_shape(y0):
        shapes = ", ".join(str(tuple(y.shape)) for y in y0)
        raise ValueError(
            'batch="each" needs leaves (batch, ...) with one common batch and the first of at '
            f"least two axes; got {shapes}"
        )
    done = Progress(outputs=[y0] + [[torch.full_like(y, math.nan) for y in y0] for _ in t[1:]])
    end, now = t[-1], t[0].clone()
    direction = torch.where(end >= now, 1.0, -1.0).to(now)
    exponent = 1 / tableau.order - 0.75 * PI_BETA
    status = torch.zeros_like(now, dtype=torch.int64)
    accepted, rejected = torch.zeros_like(status), torch.zeros_like(status)
    next_output = torch.ones_like(status)
    previous_error = torch.full_like(now, 1e-4)
    total_error = torch.zeros_like(now)
    least = TINY * (end - now).detach().abs()
    ulp = torch.finfo(now.dtype).eps

    y, k0 = y0, f(now, y0)
    h = _first_steps(tableau, y0, k0, (end - now).abs(), control)
    if watch is not None:
        watch.start(now, y0)
    while True:
        active = (status == Status.OK) & (next_output < len(t))
        late = active & (accepted + rejected >= control.max_steps)
        status = torch.where(late, int(Status.MAX_STEPS), status)
        active = active & ~late
        if not bool(active.any()):
            break
        remaining = (end - now).abs()
        last = remaining <= h * 1.01
        size = torch.where(last, remaining, torch.where(remaining < 2 * h, 0.5 * remaining, h))
        size = torch.where(active, size, 0.0)
        signed = torch.where(last, _gap(now, end, direction), direction * size) * active
        taken = step(now, signed, y, k0, None)
        with torch.no_grad():
            local = local_error(tableau, taken)
            norm, rms = _norms(local, taken, control)
            smallest = torch.maximum(16 * ulp * now.abs(), least)
            # A slope that is not finite does not improve with the step.
            hopeless = ~norm.isfinite() & ~finite_samples(taken.k[0], (len(norm),))
        good = active & (norm <= 1.0) & (last | (size >= smallest))
        bad = active & ~good
        rejected = rejected + bad
        accepted = accepted + good

        # Samples whose step cannot shrink any further have failed; the others try again.
        dead = bad & (hopeless | (size * SHRINK < smallest))
        broken = dead & ~norm.isfinite()
        status = torch.where(broken, int(Status.NON_FINITE), status)
        status = torch.where(dead & ~broken, int(Status.DT_UNDERFLOW), status)

        finished = torch.where(last, end, now + signed)
        reached = (last | (direction * (t - finished) <= 0)) & good
        whole, stops = taken, None
        if watch is not None:
            taken, stops = watch.look(taken, good)
        if stops is not None:
            status = torch.where(stops.who, int(Status.EVENT), status)
            finished = torch.where(stops.who, stops.when, finished)
        _write_outputs(done, tableau, whole, taken.y1, t, next_output, reached, finished, stops)
        next_output = torch.maximum(next_output, reached.sum(0))

        safe = norm.nan_to_num(nan=math.inf, posinf=1e30).clamp(min=1e-10)
        shrunk = size * (SAFETY * safe**-exponent).clamp(SHRINK, 1.0)
        factor = (SAFETY * safe**-exponent * previous_error**PI_BETA).clamp(SHRINK, GROW)
        h = torch.where(good, size * factor, torch.where(bad, shrunk, h))
        previous_error = torch.where(good, safe.clamp(min=1e-4), previous_error)
        total_error = total_error + torch.where(good, rms, 0.0)
        y = _choose(good, taken.y1, y)
        if taken.carry is not None:
            k0 = _choose(good, taken.carry, k0)
        now = torch.where(good, finished, now)
    for row, output in enumerate(done.outputs):  # those who stopped stay
        stays = (status == Status.EVENT) & (next_output <= row)
        done.outputs[row] = _choose(stays, y, output)
    done.status, done.last_t, done.end, done.error = status, now, y, total_error
    return done, accepted, rejected


def _gap(
    now: Float[Tensor, "batch"], end: Float[Tensor, "batch"], direction: Float[Tensor, "batch"]
) -> Float[Tensor, "batch"]:
    """``end - now``, rounded so that ``now`` plus it never passes ``end``."""
    span = end - now
    with torch.no_grad():
        less = torch.nextafter(span, torch.zeros_like(span))
        excess = torch.where(direction * (now + span - end) > 0, span - less, 0.0)
    return span - excess


def _write_outputs(
    done: Progress,
    tableau: Tableau,
    step: Step,
    y1: list[Tensor],
    t: Float[Tensor, "times batch"],
    next_output: Int[Tensor, "batch"],
    reached: Bool[Tensor, "times batch"],
    finished: Float[Tensor, "batch"],
    stops: Stops | None,
) -> None:
    """Fill the output times that this step has reached: its end ``y1``, or its interpolant."""
    rows = torch.arange(len(t), device=t.device)[:, None]
    due = reached & (rows >= next_output)
    exact = due & (t == finished)
    if t.requires_grad:  # only the interpolant knows how an output changes with its time
        exact &= rows == len(t) - 1
    inside = due & ~exact
    span = torch.where(torch.as_tensor(step.h) == 0, 1.0, step.h)
    for row in due.any(1).nonzero().flatten().tolist():
        value = _choose(exact[row], y1, done.outputs[row])
        if bool(inside[row].any()):
            u = ((t[row] - step.t) / span).clamp(0.0, 1.0)
            between = interpolate(tableau, step, u)
            between = between if stops is None else stops.held(between, u)
            value = _choose(inside[row], between, value)
        done.outputs[row] = value


def _choose(mask: Bool[Tensor, "batch"], new: list[Tensor], old: list[Tensor]) -> list[Tensor]:
    return [torch.where(widen(mask, n.ndim), n, o) for n, o in zip(new, old, strict=True)]


def _norms(local: list[Tensor], step: Step, control: Control) -> tuple[Tensor, Tensor]:
    """Per sample: error over tolerance, and error in units of the state."""
    ratios, errors = [], []
    shape = batch_shape(step.y0)
    for e, a, b, counts in zip(local, step.y0, step.y1, control.in_norm, strict=True):
        if counts:
            scale = control.atol + control.rtol * torch.maximum(a.abs(), b.abs())
            ratios.append(rms_of_samples(e / scale, shape))
            errors.append(rms_of_samples(e, shape))
    # amax keeps NaN, as it must
    return torch.stack(ratios).amax(0), torch.stack(errors).amax(0)


def _first_steps(
    tableau: Tableau, y0: list[Tensor], k0: list[Tensor], span: Tensor, control: Control
) -> Tensor:
    """First guess per sample, by the rule of the joint solve."""
    rates = []
    with torch.no_grad():
        for y, k, counts in zip(y0, k0, control.in_norm, strict=True):
            if counts:
                scale = y.abs() + max(control.atol, 1e-300) / max(control.rtol, 1e-14)
                rates.append(rms_of_samples(k / scale, batch_shape(y0)))
        rate = torch.stack(rates).amax(0)
        guess = max(control.rtol, 1e-14) ** (1 / (tableau.order + 1)) / rate
        usable = (rate > 0) & rate.isfinite()
        return torch.where(usable, torch.minimum(span, guess), span)

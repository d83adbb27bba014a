"""Solution of ordinary differential equations with one step for all samples, fixed or adaptive."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import torch

from sciflow.integrators.rungekutta import (
    LeafField,
    Step,
    Time,
    interpolate,
    local_error,
    value_of,
    widen,
)
from sciflow.integrators.solution import Status
from sciflow.integrators.tableaus import Tableau
from sciflow.shapes import Tensor

SAFETY, SHRINK, GROW = 0.9, 0.2, 10.0
# PI control as in Hairer, Norsett and Wanner, Solving ODEs I, section IV.2: a little memory of
# the last error damps the oscillation of the step size.
PI_BETA = 0.04
# The smallest step, as a fraction of the whole span, where the time itself would allow less.
TINY = 1e-20

# From t over h: state, what the step before left for this one, samples that move (None: all).
Stepper = Callable[[Time, Time, list[Tensor], list[Tensor] | None, Tensor | None], Step]


# What a user does to a state after a step: the time and the leaves, to new leaves or None.
After = Callable[[float, list[Tensor]], list[Tensor] | None]


class Stops(NamedTuple):
    """Samples that a terminal event stopped within a step.

    Which, (batch,); when; at what fraction of the step, inf for the others; in what state.
    """

    who: Tensor
    when: Tensor
    fraction: Tensor
    states: list[Tensor]

    def held(self, inside: list[Tensor], u: Time | Tensor) -> list[Tensor]:
        """States at the fraction ``u`` of the step, with those who had stopped where they did."""
        over = self.fraction < torch.as_tensor(u).detach()
        return [
            torch.where(widen(over, a.ndim), b, a)
            for a, b in zip(inside, self.states, strict=True)
        ]


@runtime_checkable
class Watcher(Protocol):
    """What looks for events in the accepted steps."""

    def start(self, t: Time, y: list[Tensor]) -> None:
        """Begin at the initial state."""

    def look(self, step: Step, moved: Tensor | None) -> tuple[Step, Stops | None]:
        """Find the events of a step, and stop the samples that are to stop."""


@dataclass
class Progress:
    """What a solver has done so far; filled in as it goes."""

    outputs: list[list[Tensor]]
    end: list[Tensor] = field(default_factory=list)
    k_end: list[Tensor] | None = None
    plan: list[Move] = field(default_factory=list)
    steps: int = 0
    rejected: int = 0
    extra: int = 0  # evaluations that belong to no step
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
    """One step of a plan.

    From ``t`` over ``h``, with outputs at these fractions of it, for the samples that are alive.
    """

    t: Time
    h: Time
    outputs: tuple[Time, ...] = ()
    alive: Tensor | None = None


def gap(start: Time, end: Time) -> Time:
    """``end - start``, rounded so that ``start + gap`` never passes ``end``.

    A field may be undefined beyond its final time, if only by the last bit.
    """
    h = end - start
    if isinstance(h, Tensor):
        return h + (gap(value_of(start), value_of(end)) - value_of(h))
    while (start + h > end) if h > 0 else (start + h < end):
        h = math.nextafter(h, 0.0)
    return h


def fixed_plan(t: list[Time], dt: float | None) -> list[Move]:
    """Equal steps of at most ``dt`` between outputs, landing on every output time."""
    plan = []
    for start, end in zip(t[:-1], t[1:], strict=True):
        span = value_of(end) - value_of(start)
        n = 1 if dt is None else max(1, math.ceil(abs(span) / dt * (1 - 1e-12)))
        knots = [start + (end - start) * (j / n) for j in range(n)] + [end]
        plan += [Move(a, gap(a, b)) for a, b in zip(knots[:-2], knots[1:-1], strict=True)]
        plan.append(Move(knots[-2], gap(knots[-2], end), (1.0,)))
    return plan


def march(
    step: Stepper,
    tableau: Tableau | None,
    y0: list[Tensor],
    plan: list[Move],
    dense: bool = False,
    k0: list[Tensor] | None = None,
    after: After | None = None,
) -> Progress:
    """Take the steps of a plan, without error control."""
    done = Progress(outputs=[])
    y = y0
    for move in plan:
        taken = step(move.t, move.h, y, k0, move.alive)
        if after is not None:
            taken = _changed(done, after, value_of(move.t) + value_of(move.h), taken)
        for u in move.outputs:
            if tableau is None or (isinstance(u, float) and u == 1.0):
                done.outputs.append(taken.y1)
            else:
                done.outputs.append(interpolate(tableau, taken, u))
        y = taken.y1
        k0 = taken.carry
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
    after: After | None = None,
    watch: Watcher | None = None,
) -> Progress:
    """March with error control; the last step is clipped to land on the final time.

    Samples that cannot go on (not finite, or a step size that underflows) are frozen and marked;
    the others are finished.
    """
    done = Progress(outputs=[y0])
    start, end = value_of(t[0]), value_of(t[-1])
    direction = 1.0 if end >= start else -1.0
    times = [value_of(s) for s in t]
    exponent = 1 / tableau.order - 0.75 * PI_BETA
    previous_error = 1e-4

    now, y, next_output = start, y0, 1
    k0: list[Tensor] | None = f(t[0], y0)
    assert k0 is not None
    h = _first_step(tableau, y0, k0, abs(end - start), control)
    if watch is not None:
        watch.start(start, y0)
    while next_output < len(times):
        if watch is not None and bool((statuses(done, y) != Status.OK).all()):
            break
        if done.steps + done.rejected >= control.max_steps:
            _mark(done, _alive(done, y), Status.MAX_STEPS, now, y)
            break
        remaining = abs(end - now)
        # A last sliver of a step would cost as much as a whole one: stretch or halve instead.
        last = remaining <= h * 1.01
        size = remaining if last else (0.5 * remaining if remaining < 2 * h else h)
        # Gradients with respect to the times enter by the first and the last one.
        here = t[0] + (now - start) if isinstance(t[0], Tensor) else now
        signed: Time = gap(here, t[-1]) if last else direction * size
        alive = _alive_mask(done)
        taken = step(here, signed, y, k0, alive)
        with torch.no_grad():
            local = local_error(tableau, taken)
            rms = _rms(local, control.in_norm, alive)
            norm = _error_norm(local, taken, control, alive)
        smallest = max(16 * math.ulp(now), TINY * abs(end - start))
        accepted = norm <= 1.0 and (last or size >= smallest)  # not so for NaN
        if not accepted:
            done.rejected += 1
        # A slope that is not finite does not improve with the step; a step that vanishes is lost.
        hopeless = not math.isfinite(norm) and not _finite_slopes(taken)
        if not accepted and (hopeless or size * SHRINK < smallest):
            broken, stuck = _offenders(local, taken, control, done)
            _mark(done, broken, Status.NON_FINITE, now, y)
            _mark(done, stuck, Status.DT_UNDERFLOW, now, y)
            if bool((statuses(done, y) != Status.OK).all()):
                break
            slope = k0
            if slope is None:
                slope = f(here, y)
                done.extra += 1
            h = _first_step(tableau, y, slope, abs(end - now), control, _alive_mask(done))
            continue
        if not accepted:
            shrink = SAFETY * norm**-exponent if math.isfinite(norm) else SHRINK
            h = size * max(SHRINK, shrink)
            continue
        finished = end if last else now + direction * size
        fractions: list[Time] = []
        if dense:
            done.record.append(taken)
        whole, stops = taken, None
        if watch is not None:
            taken, stops = watch.look(taken, alive)
        if stops is not None:
            done.status = torch.where(stops.who, int(Status.EVENT), statuses(done, y))
            assert done.last_t is not None
            done.last_t = torch.where(stops.who, stops.when, done.last_t)
        if after is not None:
            taken = _changed(done, after, finished, taken)
        while next_output < len(times) and (
            last or direction * (times[next_output] - finished) <= 0
        ):
            at = times[next_output]
            u: Time = 1.0
            if at != times[-1] and isinstance(here, Tensor):
                u = (t[next_output] - here) / signed
            elif at != finished:
                u = (at - now) / (direction * size)
            if isinstance(u, float) and u == 1.0:
                done.outputs.append(taken.y1)
            else:
                inside = interpolate(tableau, whole, u)
                done.outputs.append(inside if stops is None else stops.held(inside, u))
            fractions.append(u)
            next_output += 1
        done.plan.append(Move(here, signed, tuple(fractions), alive))
        done.error = rms if done.error is None else done.error + rms
        factor = SAFETY * max(norm, 1e-10) ** -exponent * previous_error**PI_BETA
        h = size * min(GROW, max(SHRINK, factor))
        previous_error = max(norm, 1e-4)
        now, y = finished, taken.y1
        k0 = taken.carry
        done.steps += 1
    while len(done.outputs) < len(times):  # only failed samples are missing
        done.outputs.append(y)
    done.end = y
    return done


def _changed(done: Progress, after: After, now: float, step: Step) -> Step:
    """The step with the state that the user made of its end; its slope there is lost."""
    new = after(now, step.y1)
    if new is None:
        return step
    if step.carry is not None:
        done.extra += 1
    return step._replace(y1=new, carry=None)


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
                scale = y.abs().add_(max(control.atol, 1e-300) / max(control.rtol, 1e-14))
                rate = max(rate, float(_root_mean_square(k / scale, alive)))
    if not 0.0 < rate < math.inf:
        return span
    return min(span, max(control.rtol, 1e-14) ** (1 / (tableau.order + 1)) / rate)


def _root_mean_square(x: Tensor, alive: Tensor | None) -> Tensor:
    if alive is not None and alive.ndim:
        x = x[alive]
    return torch.linalg.vector_norm(x) / math.sqrt(max(x.numel(), 1))


def _ratios(local: list[Tensor], step: Step, control: Control) -> list[Tensor]:
    """Error over tolerance, per element of the leaves that count."""
    return [
        e / torch.maximum(a.abs(), b.abs()).mul_(control.rtol).add_(control.atol)
        for e, a, b, counts in zip(local, step.y0, step.y1, control.in_norm, strict=True)
        if counts
    ]


def _largest_rms(parts: list[Tensor], alive: Tensor | None) -> Tensor:
    norms = [_root_mean_square(x, alive) for x in parts]
    return norms[0] if len(norms) == 1 else torch.stack([n.double() for n in norms]).max()


def _error_norm(local: list[Tensor], step: Step, control: Control, alive: Tensor | None) -> float:
    """Largest root mean square over the leaves: the one number a step waits for."""
    return float(_largest_rms(_ratios(local, step, control), alive))


def _rms(local: list[Tensor], in_norm: tuple[bool, ...], alive: Tensor | None) -> Tensor:
    """Largest root mean square over the leaves of the estimated error, in units of the state."""
    return _largest_rms([e for e, counts in zip(local, in_norm, strict=True) if counts], alive)


def batch_shape(leaves: list[Tensor]) -> tuple[int, ...]:
    """(batch,) where every leaf has the same leading axis and the first has a further one."""
    first = leaves[0]
    if first.ndim >= 2 and all(x.ndim and x.shape[0] == first.shape[0] for x in leaves):
        return (first.shape[0],)
    return ()


def statuses(done: Progress, y: list[Tensor]) -> Tensor:
    """Status of every sample so far."""
    if done.status is None:
        done.status = torch.zeros(batch_shape(y), dtype=torch.int64, device=y[0].device)
        done.last_t = torch.zeros(batch_shape(y), dtype=torch.float64, device=y[0].device)
    return done.status


def _alive(done: Progress, y: list[Tensor]) -> Tensor:
    return statuses(done, y) == Status.OK


def _alive_mask(done: Progress) -> Tensor | None:
    return None if done.status is None else done.status == Status.OK


def _mark(done: Progress, samples: Tensor, status: Status, now: float, y: list[Tensor]) -> None:
    current = statuses(done, y)
    new = samples & (current == Status.OK)
    done.status = torch.where(new, int(status), current)
    assert done.last_t is not None
    done.last_t = torch.where(new, now, done.last_t)


def finite_samples(leaves: list[Tensor], shape: tuple[int, ...]) -> Tensor:
    """Which samples are finite in all leaves."""
    return torch.stack([_by_sample(x.isfinite(), shape).all(-1) for x in leaves]).all(0)


def rms_of_samples(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Root mean square of a leaf, sample by sample, in float64."""
    x = _by_sample(x.abs(), shape).double()
    return torch.linalg.vector_norm(x, dim=-1) / math.sqrt(max(x.shape[-1], 1))


def _by_sample(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return x.reshape(*shape, math.prod(x.shape[len(shape) :]))


def _finite_slopes(step: Step) -> bool:
    return all(bool(k.isfinite().all()) for k in step.k[0])


def _offenders(
    local: list[Tensor], step: Step, control: Control, done: Progress
) -> tuple[Tensor, Tensor]:
    """Samples that are not finite, and samples whose error holds up the others; never neither."""
    shape = batch_shape(step.y0)
    alive = _alive(done, step.y0)
    broken = alive & ~finite_samples(step.k[0], shape)
    if bool(broken.any()):
        return broken, torch.zeros_like(broken)
    worst = torch.zeros(shape, dtype=torch.float64, device=alive.device)
    for ratio in _ratios(local, step, control):
        worst = worst.maximum(rms_of_samples(ratio, shape))
    broken = alive & ~worst.isfinite()
    worst = torch.where(alive & ~broken, worst, -1.0)
    stuck = alive & ~broken & ((worst > 1.0) | ((worst == worst.max()) & ~broken.any()))
    return broken, stuck

"""Solution of stochastic differential equations: the grid of steps, and the parts put together."""

from __future__ import annotations

import math
from typing import Any

from sciflow.integrators.fields import SDE
from sciflow.integrators.gradients import march_checkpointed
from sciflow.integrators.leaves import host_time, on_leaves
from sciflow.integrators.ode import After, Move, march
from sciflow.integrators.outcome import finish
from sciflow.integrators.reversible_heun import march_reversible_heun
from sciflow.integrators.rungekutta import Time
from sciflow.integrators.sde import SDE_METHODS, SDEStepper
from sciflow.integrators.solution import Solution
from sciflow.integrators.state import Structure
from sciflow.shapes import Tensor


def dyadic_plan(t: list[float], dt: float) -> list[Move]:
    """Steps over the multiples of the largest power of two not above ``dt``, and the outputs.

    On this grid a step is one cell of the Brownian tree, and halving ``dt`` halves every step.
    """
    width = 2.0 ** math.floor(math.log2(dt))
    plan = []
    for start, end in zip(t[:-1], t[1:], strict=True):
        low, high = min(start, end), max(start, end)
        first, last = math.floor(low / width) + 1, math.ceil(high / width) - 1
        inner = [i * width for i in range(first, last + 1)]
        knots = [low, *inner, high] if end >= start else [high, *reversed(inner), low]
        plan += [Move(a, b - a) for a, b in zip(knots[:-2], knots[1:-1], strict=True)]
        plan.append(Move(knots[-2], knots[-1] - knots[-2], (1.0,)))
    return plan


def solve_sde(
    field: SDE,
    leaves: list[Tensor],
    structure: Structure,
    t: Tensor,
    times: list[float],
    method: str,
    dt: float,
    grad: str,
    throw: bool,
    seed: int,
    after: After | None = None,
) -> Solution:
    """Solve by one of ``SDE_METHODS``; the arguments are checked."""
    f = on_leaves(field.drift, structure, leaves)
    at = host_time(leaves)

    def g(time: Time, y: list[Tensor]) -> list[Any]:
        value = field.diffusion
        if callable(value):
            value = value(at(time), structure.join(y))
        return structure.split(value, "diffusion")

    step = SDEStepper(method, f, g, leaves, times, dt, seed, field.noise)
    plan = dyadic_plan(times, dt)
    if grad == "adjoint":
        done = march_reversible_heun(step, leaves, plan)
    elif grad == "checkpoint":
        done = march_checkpointed(step, None, leaves, plan)
    else:
        done = march(step, None, leaves, plan, after=after)
    done.outputs.insert(0, leaves)
    nfe = SDE_METHODS[method].start + SDE_METHODS[method].evaluations * done.steps
    return finish(done, t, structure, done.extra + nfe, done.steps, 0, throw)

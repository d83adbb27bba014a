"""Steps for stochastic differential equations with diagonal noise, one entry per method."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from sciflow.integrators.brownian import Brownian
from sciflow.integrators.fields import SDE
from sciflow.integrators.gradients import march_checkpointed
from sciflow.integrators.leaves import host_time, on_leaves
from sciflow.integrators.ode import Move, march
from sciflow.integrators.outcome import finish
from sciflow.integrators.rungekutta import LeafField, Step, Time, value_of
from sciflow.integrators.solution import Solution
from sciflow.integrators.state import Structure
from sciflow.shapes import Tensor

Noise = list[Tensor | None]
Diffusion = Callable[[Time, list[Tensor]], list[Any]]


def euler_maruyama(
    f: LeafField, g: Diffusion, t: Time, h: Time, y: list[Tensor], dw: Noise
) -> list[Tensor]:
    """Ito; strong order 1/2, 1 for additive noise (Maruyama 1955)."""
    return _add(y, f(t, y), h, g(t, y), dw)


def heun_strat(
    f: LeafField, g: Diffusion, t: Time, h: Time, y: list[Tensor], dw: Noise
) -> list[Tensor]:
    """Stratonovich; strong order 1 for diagonal noise (Kloeden and Platen, section 15.1)."""
    f0, g0 = f(t, y), g(t, y)
    guess = _add(y, f0, h, g0, dw)
    f1, g1 = f(t + h, guess), g(t + h, guess)
    drift = [0.5 * (a + b) for a, b in zip(f0, f1, strict=True)]
    noise = [0.5 * (a + b) for a, b in zip(g0, g1, strict=True)]
    return _add(y, drift, h, noise, dw)


SDE_METHODS: dict[str, Callable[..., list[Tensor]]] = {
    "euler_maruyama": euler_maruyama,
    "heun_strat": heun_strat,
}


def _add(y: list[Tensor], f: list[Tensor], h: Time, g: list[Any], dw: Noise) -> list[Tensor]:
    new = []
    for y_i, f_i, g_i, dw_i in zip(y, f, g, dw, strict=True):
        moved = torch.add(y_i, f_i, alpha=h) if isinstance(h, float) else y_i + f_i * h
        if dw_i is not None:
            number = isinstance(g_i, float | int)
            moved = moved.add_(dw_i, alpha=g_i) if number else moved + g_i * dw_i
        new.append(moved)
    return new


class SDEStepper:
    """Steps of one SDE along the Wiener process of one seed."""

    def __init__(
        self,
        method: str,
        f: LeafField,
        g: Diffusion,
        y0: list[Tensor],
        times: list[float],
        dt: float,
        seed: int,
    ) -> None:
        self.rule, self.f, self.g = SDE_METHODS[method], f, g
        span = abs(times[-1] - times[0])
        # Times off the dyadic grid (output times) are located to 2**-26 of the span.
        resolution = 2.0 ** (math.floor(math.log2(span)) - 26)
        if dt < resolution:
            raise ValueError(f"dt must be at least {resolution:g}, span / 2**26; got {dt:g}")
        with torch.no_grad():
            noise = g(times[0], y0)
        self.paths = [
            Brownian(seed + (i << 40), y.shape, y.dtype, y.device, resolution)
            if _is_noisy(part, y)
            else None
            for i, (part, y) in enumerate(zip(noise, y0, strict=True))
        ]

    def __call__(
        self,
        t: Time,
        h: Time,
        y: list[Tensor],
        k0: list[Tensor] | None,
        alive: Tensor | None = None,
    ) -> Step:
        """Take one step, in the form of all steppers."""
        start, end = value_of(t), value_of(t) + value_of(h)
        dw = [None if path is None else path.shared(start, end) for path in self.paths]
        return Step(t, h, y, self.rule(self.f, self.g, t, h, y, dw), [])


def _is_noisy(diffusion: Any, leaf: Tensor) -> bool:
    """A leaf whose diffusion is the plain number zero has no noise."""
    if not isinstance(diffusion, Tensor):
        return diffusion != 0
    try:
        fits = torch.broadcast_shapes(diffusion.shape, leaf.shape) == leaf.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"diffusion must broadcast to its leaf {tuple(leaf.shape)}; "
            f"got {tuple(diffusion.shape)}"
        )
    return True


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
) -> Solution:
    """Solve by one of ``SDE_METHODS``; the arguments are checked."""
    f = on_leaves(field.drift, structure, leaves)
    at = host_time(leaves)

    def g(time: Time, y: list[Tensor]) -> list[Any]:
        value = field.diffusion
        if callable(value):
            value = value(at(time), structure.join(y))
        return structure.split(value, "diffusion")

    step = SDEStepper(method, f, g, leaves, times, dt, seed)
    plan = dyadic_plan(times, dt)
    run = march_checkpointed if grad == "checkpoint" else march
    done = run(step, None, leaves, plan)
    done.outputs.insert(0, leaves)
    nfe = done.steps * (2 if method == "heun_strat" else 1)
    return finish(done, t, structure, nfe, done.steps, 0, throw)

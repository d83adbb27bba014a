"""Gradients of the reversible Heun method with memory that does not grow with the steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from sciflow.integrators.dependencies import dependencies, first_derivatives_only
from sciflow.integrators.ode import Move, Progress
from sciflow.integrators.rungekutta import value_of
from sciflow.integrators.sde import SDEStepper, noise_term
from sciflow.shapes import Tensor

Leaves = list[Tensor]


def march_reversible_heun(step: SDEStepper, y0: Leaves, plan: list[Move]) -> Progress:
    """Take the steps of a plan; keep for the backward pass the final state only.

    The backward pass undoes the steps one by one, to rounding, along the same Brownian path, and
    differentiates the very steps that were taken (Kidger, Foster, Li and Lyons, NeurIPS 2021,
    algorithm 2). It costs one evaluation with its derivative per step.
    """
    with torch.enable_grad():
        start, at = value_of(plan[0].t), [y.detach() for y in y0]
        known = dependencies([*step.f(start, at), *step.g(start, at)])
    flat = _Reversible.apply(_Work(step, plan, len(y0), known), *y0, *known)
    n = len(y0)
    done = Progress(outputs=[list(flat[i : i + n]) for i in range(0, len(flat), n)], extra=1)
    done.steps, done.end = len(plan), done.outputs[-1]
    return done


@dataclass
class _Work:
    """What the backward pass needs beside tensors."""

    step: SDEStepper
    plan: list[Move]
    n: int
    known: Leaves


class _Reversible(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, work: _Work, *inputs: Tensor) -> tuple[Tensor, ...]:
        y, carry, flat = list(inputs[: work.n]), None, []
        for move in work.plan:
            taken = work.step(move.t, move.h, y, carry)
            y, carry = taken.y1, taken.carry
            if move.outputs:
                flat += y
        assert carry is not None
        ctx.work = work
        ctx.save_for_backward(*y, *carry[: work.n])
        return tuple(flat)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        first_derivatives_only()
        work, n = ctx.work, ctx.work.n
        saved = list(ctx.saved_tensors)
        back = _Backward(work, saved[:n], saved[n:])
        rows = [list(grads[i : i + n]) for i in range(0, len(grads), n)]
        for i in reversed(range(len(work.plan))):
            back.undo(i, rows.pop() if work.plan[i].outputs else None)
        return (None, *back.to_start(), *back.to_known)


@dataclass
class _Knot:
    """Drift and diffusion at one place, with their graphs."""

    z: Leaves
    f: Leaves
    g: list[Any]


class _Backward:
    """State (y, z) and its adjoint on the way back.

    ``to_f`` and ``to_noise`` are what the step after a knot asks of the drift, and of the
    diffusion times the increment ``dw`` of that step. The step before asks too, so that the
    derivative at a knot is taken once.
    """

    def __init__(self, work: _Work, y: Leaves, z: Leaves) -> None:
        self.work, self.y = work, y
        self.to_y, self.to_z = ([torch.zeros_like(a) for a in y] for _ in "yz")
        self.to_f = [torch.zeros_like(a) for a in y]
        self.to_noise: Leaves = []
        self.dw: list[Tensor | None] = []
        self.to_known = [torch.zeros_like(a) for a in work.known]
        last = work.plan[-1]
        self.knot = self._meet(value_of(last.t) + value_of(last.h), z)

    def undo(self, i: int, entering: Leaves | None) -> None:
        """Undo step ``i``; ``entering`` is the gradient of the output at its end."""
        t, h = value_of(self.work.plan[i].t), value_of(self.work.plan[i].h)
        later, matrix = self.knot, self.work.step.matrix
        dw = self.work.step.piece(t, h).dw
        if entering is not None:
            self.to_y = [a + b for a, b in zip(self.to_y, entering, strict=True)]
        half = [0.5 * a for a in self.to_y]
        to_f = [torch.add(a, b, alpha=h) for a, b in zip(self.to_f, half, strict=True)]
        self._settle(to_f, [(self.dw, self.to_noise), (dw, half)])

        pushed = [h * a.detach() for a in later.f]
        noise = noise_term(later.g, dw, matrix)
        z = [2 * a - b - c for a, b, c in zip(self.y, later.z, pushed, strict=True)]
        z = [a if b is None else a - b.detach() for a, b in zip(z, noise, strict=True)]
        self.knot = self._meet(t, z)
        for j, other in enumerate(noise_term(self.knot.g, dw, matrix)):
            moved = pushed[j] + h * self.knot.f[j].detach()
            if other is not None:
                moved = moved + noise[j].detach() + other.detach()  # type: ignore[union-attr]
            self.y[j] = self.y[j] - 0.5 * moved

        both = [a + b for a, b in zip(self.to_z, half, strict=True)]
        self.to_f = [h * a for a in both]
        self.to_noise, self.dw = both, dw
        self.to_y = [torch.add(a, b, alpha=2.0) for a, b in zip(self.to_y, self.to_z, strict=True)]
        self.to_z = [-a for a in self.to_z]

    def to_start(self) -> Leaves:
        """Gradient of the initial state, where y and z are one."""
        self._settle(self.to_f, [(self.dw, self.to_noise)])
        return [a + b for a, b in zip(self.to_y, self.to_z, strict=True)]

    def _meet(self, t: float, z: Leaves) -> _Knot:
        with torch.enable_grad():
            z = [a.detach().requires_grad_() for a in z]
            return _Knot(z, self.work.step.f(t, z), self.work.step.g(t, z))

    def _settle(self, to_f: Leaves, asked: list[tuple[list[Tensor | None], Leaves]]) -> None:
        """Pass on what the steps on both sides ask of the drift and the diffusion here."""
        values: list[Tensor | None] = [*self.knot.f]
        weights = list(to_f)
        with torch.enable_grad():
            for dw, to_noise in asked:
                if dw:
                    values += noise_term(self.knot.g, dw, self.work.step.matrix)
                    weights += to_noise
        pairs = [
            (v, w) for v, w in zip(values, weights, strict=True) if v is not None
            and v.requires_grad
        ]  # fmt: skip
        if not pairs:
            return
        outputs, cotangents = zip(*pairs, strict=True)
        found = torch.autograd.grad(
            outputs,
            [*self.knot.z, *self.work.known],
            cotangents,
            allow_unused=True,
            retain_graph=True,
        )
        for total, part in zip([*self.to_z, *self.to_known], found, strict=True):
            if part is not None:
                total += part

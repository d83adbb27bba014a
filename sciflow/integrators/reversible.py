"""Gradients of symplectic methods with memory that does not grow: the backward pass steps back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from sciflow.integrators.dependencies import dependencies, first_derivatives_only
from sciflow.integrators.fields import Hamiltonian
from sciflow.integrators.ode import Move, Progress
from sciflow.integrators.rungekutta import value_of
from sciflow.integrators.splitting import Splitting, kick, moved
from sciflow.shapes import Tensor


def march_reversibly(
    field: Hamiltonian, splitting: Splitting, y0: list[Tensor], plan: list[Move]
) -> Progress:
    """Take the steps of a plan; keep for the backward pass the final state only.

    The backward pass undoes the steps one by one, to rounding, and differentiates the very steps
    that were taken: gradients are those of ``march`` (the reversible adjoint; for leapfrog in
    Zhuang et al., ICLR 2021). It costs one force with its derivative per force.
    """
    with torch.enable_grad():
        known = dependencies(field.about(y0[0].detach()))
    sizes = torch.stack([torch.as_tensor(m.h, dtype=torch.float64) for m in plan])
    flat = _Reversible.apply(_Work(field, splitting, plan, known), sizes, *y0, *known)
    done = Progress(outputs=[list(pair) for pair in zip(flat[::2], flat[1::2], strict=True)])
    done.steps, done.end = len(plan), done.outputs[-1]
    return done


@dataclass
class _Work:
    """What the backward pass needs beside tensors."""

    field: Hamiltonian
    splitting: Splitting
    plan: list[Move]
    known: list[Tensor]


class _Reversible(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, work: _Work, sizes: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        q, p = inputs[:2]
        field, (_, kicks, drifts) = work.field, work.splitting
        force, flat = field.force(q), []
        for move in work.plan:
            h = value_of(move.h)
            for b, a in zip(kicks, drifts, strict=False):
                p = kick(p, force, b * h)
                q = moved(q, p, a * h, field.mass)
                force = field.force(q)
            p = kick(p, force, kicks[-1] * h)
            if move.outputs:
                flat += [q, p]
        ctx.work = work
        ctx.save_for_backward(q, p)
        return tuple(flat)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        first_derivatives_only()
        back = _Backward(ctx.work, *ctx.saved_tensors)
        outputs = [i for i, move in enumerate(ctx.work.plan) if move.outputs]
        due = dict(zip(outputs, zip(grads[::2], grads[1::2], strict=True), strict=True))
        for i in reversed(range(len(ctx.work.plan))):
            if i in due:
                back.add(*due[i])
            back.undo(i)
        back.settle()
        return (None, back.sizes, back.to_q, back.to_p, *back.to_known)


class _Backward:
    """State and adjoint on the way back.

    ``to_q`` and ``to_p`` are the derivatives of the loss. Kicks at one place share one force, so
    what they ask of its derivative is collected in ``due``, and asked once.
    """

    def __init__(self, work: _Work, q: Tensor, p: Tensor) -> None:
        self.field, self.known = work.field, work.known
        self.splitting, self.plan = work.splitting, work.plan
        self.q, self.p = q, p
        self.to_q, self.to_p = torch.zeros_like(q), torch.zeros_like(p)
        self.to_known = [torch.zeros_like(x) for x in self.known]
        self.sizes = torch.zeros(len(self.plan), dtype=torch.float64)
        self._meet()

    def add(self, to_q: Tensor, to_p: Tensor) -> None:
        """Gradient that enters at an output."""
        self.to_q, self.to_p = self.to_q + to_q, self.to_p + to_p

    def undo(self, i: int) -> None:
        """Undo step ``i``."""
        h, (_, kicks, drifts) = value_of(self.plan[i].h), self.splitting
        self._unkick(i, kicks[-1], h)
        for b, a in zip(reversed(kicks[:-1]), reversed(drifts), strict=True):
            self.settle()
            self._undrift(i, a, h)
            self._meet()
            self._unkick(i, b, h)

    def settle(self) -> None:
        """Pass on what the kicks at this place ask of the force."""
        if self.force.requires_grad:
            inputs = [self.x, *self.known]
            found = torch.autograd.grad(
                self.force, inputs, self.due, retain_graph=True, allow_unused=True
            )
            self._take(found[0], found[1:])

    def _meet(self) -> None:
        """The force where we are, with its graph."""
        with torch.enable_grad():
            self.x = self.q.detach().requires_grad_()
            self.force = self.field.force(self.x)
        self.due = torch.zeros_like(self.p)

    def _unkick(self, i: int, fraction: float, h: float) -> None:
        force = self.force.detach()
        self.due = torch.add(self.due, self.to_p, alpha=fraction * h)
        self.sizes[i] += fraction * (force * self.to_p).sum()
        self.p = kick(self.p, force, -fraction * h)

    def _undrift(self, i: int, fraction: float, h: float) -> None:
        with torch.enable_grad():
            p = self.p.detach().requires_grad_()
            velocity = self.field.velocity(p)
        self.q = torch.add(self.q, velocity.detach(), alpha=-fraction * h)
        self.sizes[i] += fraction * (velocity.detach() * self.to_q).sum()
        found = torch.autograd.grad(
            velocity,
            [p, *self.known],
            self.to_q * (fraction * h),
            retain_graph=True,
            allow_unused=True,
        )
        self.to_p = self.to_p + found[0]
        self._take(None, found[1:])

    def _take(self, to_q: Tensor | None, to_known: tuple[Tensor | None, ...]) -> None:
        if to_q is not None:
            self.to_q = self.to_q + to_q
        for total, part in zip(self.to_known, to_known, strict=True):
            if part is not None:
                total += part

"""Linearly implicit steps for stiff equations: a linear system per stage, and no iteration."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from sciflow.integrators.dependencies import dependencies
from sciflow.integrators.ode import batch_shape
from sciflow.integrators.rungekutta import LeafField, Step, Time, widen
from sciflow.integrators.tableaus import Rosenbrock
from sciflow.shapes import Tensor


class Linearised(NamedTuple):
    """The field around a state: slopes (batch, n), Jacobians (batch, n, n), d slopes / dt."""

    slope: Tensor
    jacobian: Tensor
    rate: Tensor


class RosenbrockStepper:
    """Steps ``(1 - gamma h J) u_i = gamma (h f_i + sum_j c_ij u_j + h^2 d_i f_t)``.

    Every sample has its own Jacobian, by reverse-mode differentiation, and its own factorisation,
    once per step; samples must not act on each other. Complex states are solved as real ones.

    Args:
        f: the field.
        tableau: coefficients of the method.
    """

    def __init__(self, f: LeafField, tableau: Rosenbrock) -> None:
        self.f, self.tableau = f, tableau
        self._depends: bool | None = None

    def __call__(
        self,
        t: Time,
        h: Time,
        y: list[Tensor],
        k0: list[Tensor] | None,
        alive: Tensor | None = None,
    ) -> Step:
        """Take one step, in the form of all steppers; ``k0`` is found anew with the Jacobian."""
        tableau, batch = self.tableau, batch_shape(y)
        here = self._linearise(t, y)
        if alive is not None:  # samples at rest neither move nor overflow
            here = Linearised(*(torch.where(widen(alive, x.ndim), x, 0.0) for x in here))
        size = torch.as_tensor(h, dtype=here.slope.dtype, device=here.slope.device)
        column = size.reshape(-1, 1)
        eye = torch.eye(here.slope.shape[1], dtype=size.dtype, device=size.device)
        matrix = eye - tableau.gamma * column[..., None] * here.jacobian
        factors, pivots, _ = torch.linalg.lu_factor_ex(matrix)
        u: list[Tensor] = []
        for i in range(tableau.stages):
            slope = here.slope
            if i:
                moved = _combined(tableau.a[i - 1], u)
                guess = [a + b for a, b in zip(y, _split(moved, y, batch), strict=True)]
                slope = _gather(self.f(t + tableau.c[i] * h, guess), batch)
                if alive is not None:
                    slope = torch.where(widen(alive, 2), slope, 0.0)
            right = column * slope + (tableau.d[i] * column**2) * here.rate
            if i:
                right = right + _combined(tableau.coupling[i - 1], u)
            solved = torch.linalg.lu_solve(factors, pivots, tableau.gamma * right[..., None])
            u.append(solved[..., 0])
        y1 = [a + b for a, b in zip(y, _split(_combined(tableau.b, u), y, batch), strict=True)]
        per_time = [x / torch.where(column == 0, 1.0, column) for x in u]
        return Step(t, h, y, y1, [_split(x, y, batch) for x in per_time])

    def _linearise(self, t: Time, y: list[Tensor]) -> Linearised:
        batch = batch_shape(y)
        real = [torch.view_as_real(x) if x.is_complex() else x for x in y]
        track = torch.is_grad_enabled()
        with torch.enable_grad():
            at = [x if track and x.requires_grad else x.detach().requires_grad_() for x in real]
            state = [
                torch.view_as_complex(a) if x.is_complex() else a
                for a, x in zip(at, y, strict=True)
            ]
            time = torch.as_tensor(t, dtype=torch.float64)
            # A copy: the state itself may have come about by this time.
            timed = track and time.requires_grad
            time = time.clone() if timed else time.detach().requires_grad_()
            slope = _gather(self.f(time, state), batch)
            if self._depends is None:
                ours = {id(x) for x in (*at, time)}
                self._depends = timed or any(id(x) not in ours for x in dependencies([slope]))
            free = track and (self._depends or timed or any(x.requires_grad for x in y))
            jacobian, rate = _derivatives(slope, at, time, free)
        found = Linearised(slope, jacobian, rate)
        return found if free else Linearised(*(x.detach() for x in found))


def _derivatives(
    slope: Tensor, at: list[Tensor], time: Tensor, create_graph: bool
) -> tuple[Tensor, Tensor]:
    """Jacobian by one batched backward pass; time derivative as the derivative of another one."""
    samples, n = slope.shape
    if not slope.requires_grad or not slope.numel():
        return slope.new_zeros(samples, n, n), torch.zeros_like(slope)
    eye = torch.eye(n, dtype=slope.dtype, device=slope.device)
    rows = torch.autograd.grad(
        slope,
        at,
        eye[:, None, :].expand(n, samples, n),
        is_grads_batched=True,
        retain_graph=True,
        create_graph=create_graph,
        allow_unused=True,
    )
    parts = [
        (x.new_zeros(n, *x.shape) if row is None else row).reshape(n, samples, -1)
        for row, x in zip(rows, at, strict=True)
    ]
    jacobian = torch.cat(parts, -1).transpose(0, 1)
    weights = torch.zeros_like(slope, requires_grad=True)
    (back,) = torch.autograd.grad(slope, time, weights, create_graph=True, allow_unused=True)
    rate = None
    if back is not None and back.requires_grad:
        (rate,) = torch.autograd.grad(
            back.sum(), weights, retain_graph=True, create_graph=create_graph, allow_unused=True
        )
    return jacobian, torch.zeros_like(slope) if rate is None else rate


def _combined(weights: tuple[float, ...], u: list[Tensor]) -> Tensor:
    total = weights[0] * u[0]
    for w, x in zip(weights[1:], u[1:], strict=False):
        total = torch.add(total, x, alpha=w)
    return total


def _gather(leaves: list[Tensor], batch: tuple[int, ...]) -> Tensor:
    """The leaves as real vectors, one per sample."""
    samples = batch[0] if batch else 1
    parts = []
    for x in leaves:
        x = torch.view_as_real(x) if x.is_complex() else x
        parts.append(x.reshape(samples, x.numel() // samples if samples else _width(x, batch)))
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _split(vectors: Tensor, like: list[Tensor], batch: tuple[int, ...]) -> list[Tensor]:
    """The inverse of ``_gather``."""
    if len(like) == 1 and not like[0].is_complex():
        return [vectors.reshape(like[0].shape)]
    sizes = [_width(x, batch) * (2 if x.is_complex() else 1) for x in like]
    parts = []
    for part, x in zip(vectors.split(sizes, 1), like, strict=True):
        if x.is_complex():
            parts.append(torch.view_as_complex(part.reshape(*x.shape, 2)))
        else:
            parts.append(part.reshape(x.shape))
    return parts


def _width(x: Tensor, batch: tuple[int, ...]) -> int:
    return math.prod(x.shape[len(batch) :])

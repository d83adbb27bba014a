"""One explicit Runge-Kutta step, and the polynomial through it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from sciflow.integrators.tableaus import Tableau
from sciflow.shapes import Tensor

# A time is a float on the host, so that no step waits for the device; it is a tensor only where
# its gradient is asked for, where each sample has its own, or inside a compiled step.
Time = float | Tensor
LeafField = Callable[[Time, list[Tensor]], list[Tensor]]


class Step(NamedTuple):
    """One step: where it began, where it ended, and its stages (stage, leaf)."""

    t: Time
    h: Time
    y0: list[Tensor]
    y1: list[Tensor]
    k: list[list[Tensor]]


def increment(h: Time, weights: Sequence[float | Tensor], slopes: Sequence[Tensor]) -> Tensor:
    """``h sum_i weights_i slopes_i``.

    The increment is summed before it is added to the state: in float32 that rounds once per step
    where adding term by term rounds once per stage.
    """
    terms = [(w, k) for w, k in zip(weights, slopes, strict=False) if not _is_zero(w)]
    if not terms:
        return torch.zeros_like(slopes[0])
    if isinstance(h, float):
        total = terms[0][1] * (h * terms[0][0])
        for w, k in terms[1:]:
            total = total.add_(k, alpha=h * w) if isinstance(w, float) else total + k * (h * w)
        return total
    total = terms[0][1] * _expand(terms[0][0], terms[0][1])
    for w, k in terms[1:]:
        total = total.add_(k, alpha=w) if isinstance(w, float) else total + k * _expand(w, k)
    return total * _expand(h, total)


def _is_zero(weight: float | Tensor) -> bool:
    return isinstance(weight, float) and weight == 0.0


def _expand(factor: float | Tensor, like: Tensor) -> float | Tensor:
    """A factor per sample (batch,), ready to multiply a leaf (batch, ...)."""
    if isinstance(factor, float):
        return factor
    factor = factor.to(like.real.dtype if like.is_complex() else like.dtype)
    return factor if factor.ndim == 0 else factor.reshape(-1, *[1] * (like.ndim - 1))


def rk_step(
    f: LeafField, tableau: Tableau, t: Time, h: Time, y0: list[Tensor], k0: list[Tensor] | None
) -> Step:
    """Take one step of size ``h`` from ``(t, y0)``; ``k0 = f(t, y0)`` where it is known."""
    k = [f(t, y0) if k0 is None else k0]
    y1 = y0
    for c, row in zip(tableau.c[1:], tableau.a, strict=True):
        y1 = [y + increment(h, row, [stage[i] for stage in k]) for i, y in enumerate(y0)]
        k.append(f(t + c * h, y1))
    if not tableau.fsal:  # with fsal the last stage was evaluated at the solution itself
        y1 = [y + increment(h, tableau.b, [stage[i] for stage in k]) for i, y in enumerate(y0)]
    return Step(t, h, y0, y1, k)


def local_error(tableau: Tableau, step: Step) -> list[Tensor]:
    """Estimated error of the step, per leaf."""
    assert tableau.error is not None
    return [
        increment(step.h, tableau.error, [stage[i] for stage in step.k])
        for i in range(len(step.y0))
    ]


def interpolate(
    tableau: Tableau, step: Step, u: float | Tensor, slope1: list[Tensor] | None = None
) -> list[Tensor]:
    """State at the fraction ``u`` of a step.

    Uses the method's own polynomial; methods without one use Hermite's cubic, which needs the
    slope ``slope1 = f(t + h, y1)``.
    """
    if tableau.dense is not None:
        weights = tableau.dense_weights(u)  # type: ignore[arg-type]  # works on tensors as well
        return [
            y + increment(step.h, weights, [stage[i] for stage in step.k])
            for i, y in enumerate(step.y0)
        ]
    if slope1 is None:
        if not tableau.fsal:
            raise ValueError("Hermite interpolation needs the slope at the end of the step")
        slope1 = step.k[-1]
    h, h2, h3 = u, u * u, u * u * u
    out = []
    for y0, y1, d0, d1 in zip(step.y0, step.y1, step.k[0], slope1, strict=True):
        rise = y1 - y0
        out.append(
            y0
            + rise * _expand(3 * h2 - 2 * h3, y0)
            + increment(step.h, [h3 - 2 * h2 + h, h3 - h2], [d0, d1])
        )
    return out

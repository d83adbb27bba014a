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


def value_of(time: Time) -> float:
    """A time as a number."""
    return float(time.detach()) if isinstance(time, Tensor) else time


class Step(NamedTuple):
    """One step: where it began, where it ended, and its stages (stage, leaf).

    ``carry`` is what the next step need not compute again: a slope, a force.
    """

    t: Time
    h: Time
    y0: list[Tensor]
    y1: list[Tensor]
    k: list[list[Tensor]]
    carry: list[Tensor] | None = None


def increment(h: Time, weights: Sequence[float | Tensor], slopes: Sequence[Tensor]) -> Tensor:
    """``h sum_i weights_i slopes_i``, a new tensor.

    The increment is summed before it is added to the state: in float32 that rounds once per step
    where adding term by term rounds once per stage.
    """
    terms = [(w, k) for w, k in zip(weights, slopes, strict=False) if not _is_zero(w)]
    if not terms:
        return torch.zeros_like(slopes[0])
    first, rest = terms[0], terms[1:]
    # A step that is a tensor is applied once, at the end.
    scale = h if isinstance(h, float) and not isinstance(first[0], Tensor) else 1.0
    total = first[1] * _expand(first[0] * scale, first[1])
    for w, k in rest:
        if isinstance(w, Tensor):
            total = total + k * _expand(w, k)
        else:
            total.add_(k, alpha=w * scale)
    return total if scale is h else total * _expand(h, total)


def _displaced(y: Tensor, h: Time, weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    """``y + h sum_i weights_i slopes_i`` where rounding matters little: inside a step."""
    if not isinstance(h, float):
        return y + increment(h, weights, slopes)
    moved = None  # in place from the second term on
    for w, k in zip(weights, slopes, strict=False):
        if w != 0.0:
            moved = torch.add(y, k, alpha=h * w) if moved is None else moved.add_(k, alpha=h * w)
    return y if moved is None else moved


def _is_zero(weight: float | Tensor) -> bool:
    return isinstance(weight, float) and weight == 0.0


def _expand(factor: float | Tensor, like: Tensor) -> float | Tensor:
    """A factor per sample (batch,), ready to multiply a leaf (batch, ...)."""
    if isinstance(factor, float):
        return factor
    factor = factor.to(like.real if like.is_complex() else like)
    return factor if factor.ndim == 0 else widen(factor, like.ndim)


def rk_step(
    f: LeafField,
    tableau: Tableau,
    t: Time,
    h: Time,
    y0: list[Tensor],
    k0: list[Tensor] | None,
    alive: Tensor | None = None,
) -> Step:
    """Take one step of size ``h`` from ``(t, y0)``.

    ``k0`` is ``f(t, y0)`` where it is known. Samples that are not ``alive`` stay where they are:
    their slopes are zero, so that nothing of them overflows on the way, nor on the way back.
    """
    k = [_held(f(t, y0) if k0 is None else k0, alive)]
    slopes = [list(column) for column in zip(*k, strict=True)]  # (leaf, stage)
    inner = tableau.a[:-1] if tableau.fsal else tableau.a
    for c, row in zip(tableau.c[1:], inner, strict=False):
        guess = [_displaced(y, h, row, slopes[i]) for i, y in enumerate(y0)]
        k.append(_held(f(t + c * h, guess), alive))
        for column, new in zip(slopes, k[-1], strict=True):
            column.append(new)
    y1 = [increment(h, tableau.b, slopes[i]).add_(y) for i, y in enumerate(y0)]
    if tableau.fsal:  # the last stage is the slope at the solution itself
        k.append(_held(f(t + h, y1), alive))
    return Step(t, h, y0, y1, k, k[-1] if tableau.fsal else None)


def _held(slopes: list[Tensor], alive: Tensor | None) -> list[Tensor]:
    if alive is None:
        return slopes
    return [torch.where(widen(alive, k.ndim), k, torch.zeros_like(k)) for k in slopes]


def widen(x: Tensor, ndim: int) -> Tensor:
    """Append axes of length one, so that a value per sample broadcasts against a leaf."""
    return x.reshape(*x.shape, *[1] * (ndim - x.ndim))


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
        weights = tableau.dense_weights(u)
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

"""A flow moved over a few constant steps, with what a fit has to know about them.

Few steps make cheap gradients, but an optimiser that sees only a coarse solver learns to exploit
its error: the likelihood seems to rise while that of the true flow falls. So each step comes with
its estimated error, as a penalty, and the knots between steps are moved at random, so that no
error can hide between them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from sciflow.integrators import exact_divergence, hutchinson_divergence
from sciflow.integrators.divergence import rademacher
from sciflow.integrators.rungekutta import Time, local_error, rk_step
from sciflow.integrators.tableaus import TABLEAUS
from sciflow.shapes import Float, Tensor


class March(NamedTuple):
    """Where a march ended and what it met; means are over the batch.

    Attributes:
        y: points at the end, (B, d).
        change: integral of div f dt along the way, (B,).
        error: sum over the steps of the squared local error of y and change, mean.
        kinetic: integral of |f|^2 dt, mean.
        jacobian: integral of |e^T J|^2 dt for one probe e per sample, whose expectation is the
            squared Frobenius norm of the Jacobian; mean. Zero unless asked for.
    """

    y: Float[Tensor, "batch dim"]
    change: Float[Tensor, " batch"]
    error: Float[Tensor, ""]
    kinetic: Float[Tensor, ""]
    jacobian: Float[Tensor, ""]


def knots(n_steps: int, generator: torch.Generator | None = None) -> list[float]:
    """Times from 0 to 1, closer towards 1 (1 - u^1.5 of equal u), jittered by a generator."""
    u = torch.linspace(1, 0, n_steps + 1, dtype=torch.float64)
    if generator is not None:
        draw = torch.rand(n_steps - 1, generator=generator, device=generator.device)
        u[1:-1] += (draw.cpu().double() - 0.5) / n_steps
    return (1 - u**1.5).tolist()


def march(
    field: Any,
    y: Float[Tensor, "batch dim"],
    times: list[float],
    method: str = "bosh3",
    trace: str = "exact",
    generator: torch.Generator | None = None,
    kinetic: bool = False,
    jacobian: bool = False,
) -> March:
    """Move points along a field over given times, differentiably.

    Args:
        field: ``f(t, y)``, as for `ContinuousFlow`.
        y: points at ``times[0]``.
        times: from one end to the other, in either direction.
        method: an adaptive method of `sciflow.integrate`, taken for its estimate of the error.
        trace: ``"exact"`` or ``"hutchinson"``.
        generator: source of the probe, for the Hutchinson trace and the Jacobian.
        kinetic: integrate the kinetic energy too.
        jacobian: integrate the Jacobian's norm too.

    Raises:
        ValueError: the method estimates no error, or a probe is needed without a generator.
    """
    tableau = TABLEAUS[method]
    if tableau.error is None:
        raise ValueError(f"method must estimate its error, as bosh3 or tsit5; got {method!r}")
    probe = None
    if trace == "hutchinson" or jacobian:
        if generator is None:
            raise ValueError("the Hutchinson trace and the Jacobian's norm need a generator")
        probe = rademacher(y, generator)

    def slopes(t: Time, leaves: list[Tensor]) -> list[Tensor]:
        point = leaves[0]
        time = torch.as_tensor(t, dtype=point.dtype, device=point.device)
        if jacobian:
            value, divergence, norm = _with_norm(field, time, point, probe, trace)
        elif trace == "exact":
            value, divergence = exact_divergence(field, time, point)
        else:
            assert probe is not None
            value, divergence = hutchinson_divergence(field, time, point, probe)
        out = [value, divergence]
        if kinetic:
            out.append(value.square().sum(-1))
        if jacobian:
            out.append(norm)
        return out

    leaves = [y, *(y.new_zeros(len(y)) for _ in range(1 + kinetic + jacobian))]
    carry, error = None, y.new_zeros(())
    for start, end in zip(times[:-1], times[1:], strict=True):
        step = rk_step(slopes, tableau, start, end - start, leaves, carry)
        leaves, carry = step.y1, step.carry
        off = local_error(tableau, step)
        error = error + (off[0].square().sum(-1) + off[1].square()).mean()
    sign = 1 if times[-1] > times[0] else -1
    zero = y.new_zeros(())
    return March(
        leaves[0],
        leaves[1],
        error,
        sign * leaves[2].mean() if kinetic else zero,
        sign * leaves[-1].mean() if jacobian else zero,
    )


def _with_norm(
    field: Any, t: Tensor, x: Tensor, probe: Tensor | None, trace: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Value, divergence and |e^T J|^2 of the probe e."""
    assert probe is not None
    track = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x if track and x.requires_grad else x.detach().requires_grad_()
        value = field(t, x)
        (row,) = torch.autograd.grad(value, x, probe, create_graph=track, materialize_grads=True)
    if trace == "exact":
        value, divergence = exact_divergence(field, t, x)
    else:
        divergence = (row * probe).sum(-1)
    return value, divergence, row.square().sum(-1)

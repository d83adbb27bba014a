"""Methods of other packages, behind the same call."""

from __future__ import annotations

import torch

from sciflow.integrators.ode import Progress, batch_shape
from sciflow.integrators.outcome import finish
from sciflow.integrators.rungekutta import LeafField
from sciflow.integrators.solution import Solution, Status
from sciflow.integrators.state import Structure
from sciflow.shapes import Tensor


def delegate(
    f: LeafField,
    leaves: list[Tensor],
    structure: Structure,
    t: Tensor,
    name: str,
    rtol: float,
    atol: float,
    dt: float | None,
    throw: bool,
) -> Solution:
    """Solve by torchdiffeq."""
    from torchdiffeq import odeint
    from torchdiffeq._impl.odeint import SOLVERS

    if name not in SOLVERS:
        raise ValueError(f"method of torchdiffeq must be one of {sorted(SOLVERS)}; got {name!r}")
    count = 0

    def counted(time: Tensor, y: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        nonlocal count
        count += 1
        return tuple(f(time, list(y)))

    done = Progress(outputs=[leaves])
    options = {} if dt is None else {"step_size": dt}
    try:
        columns = odeint(
            counted, tuple(leaves), t, rtol=rtol, atol=atol, method=name, options=options
        )
        done.outputs += [list(row) for row in zip(*(y[1:] for y in columns), strict=True)]
    except AssertionError:  # torchdiffeq says so where a step underflows
        shape = batch_shape(leaves)
        done.status = torch.full(shape, int(Status.DT_UNDERFLOW), device=leaves[0].device)
        done.last_t = t.detach()[0].to(leaves[0].device, torch.float64).expand(shape)
        done.outputs += [leaves] * (len(t) - 1)
    done.end = done.outputs[-1]
    # torchdiffeq does not report its steps.
    return finish(done, t, structure, count, 0, 0, throw)

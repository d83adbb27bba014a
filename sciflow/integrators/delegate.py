"""Methods of other packages, behind the same call."""

from __future__ import annotations

import numpy as np
import torch

from sciflow.integrators.dependencies import dependencies
from sciflow.integrators.ode import Progress, batch_shape
from sciflow.integrators.outcome import finish
from sciflow.integrators.rungekutta import LeafField
from sciflow.integrators.solution import Solution, Status
from sciflow.integrators.state import Structure
from sciflow.shapes import Tensor

PACKAGES = ("torchdiffeq", "scipy")
_SCIPY = ("RK23", "RK45", "DOP853", "Radau", "BDF", "LSODA")


def is_delegated(method: str) -> bool:
    """Whether a method is named as ``PACKAGE:NAME``."""
    return method.partition(":")[0] in PACKAGES and ":" in method


def delegate_to_torchdiffeq(
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


def delegate_to_scipy(
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
    """Solve by ``scipy.integrate.solve_ivp``, in float64 on the host; ``dt`` bounds its steps."""
    from scipy.integrate import solve_ivp

    if name not in _SCIPY:
        raise ValueError(f"method of scipy must be one of {list(_SCIPY)}; got {name!r}")
    asked = [*leaves, t]
    if torch.is_grad_enabled():
        asked += dependencies(f(float(t[0]), [y.detach() for y in leaves]))
    if torch.is_grad_enabled() and any(x.requires_grad for x in asked):
        raise ValueError(
            "scipy gives no gradients: solve under torch.no_grad(), or by another method"
        )

    def pack(state: list[Tensor]) -> np.ndarray:
        real = [torch.view_as_real(x) if x.is_complex() else x for x in state]
        return torch.cat([x.detach().reshape(-1).double().cpu() for x in real]).numpy()

    def unpack(vector: np.ndarray) -> list[Tensor]:
        state, first = [], 0
        for y in leaves:
            size = y.numel() * (2 if y.is_complex() else 1)
            part = torch.from_numpy(np.ascontiguousarray(vector[first : first + size]))
            if y.is_complex():
                part = torch.view_as_complex(part.reshape(*y.shape, 2))
            state.append(part.reshape(y.shape).to(y))
            first += size
        return state

    count = 0

    def counted(time: float, vector: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        with torch.no_grad():
            return pack(f(float(time), unpack(vector)))

    times = t.detach().double().tolist()
    options = {} if dt is None else {"max_step": dt}
    found = solve_ivp(
        counted, (times[0], times[-1]), pack(leaves), method=name, t_eval=times, rtol=rtol,
        atol=atol, **options,
    )  # fmt: skip
    done = Progress(outputs=[leaves, *(unpack(row) for row in found.y.T[1:])])
    done.end = done.outputs[-1]
    if not found.success:
        shape, device = batch_shape(leaves), leaves[0].device
        done.status = torch.full(shape, int(Status.DT_UNDERFLOW), device=device)
        last = torch.tensor(times[max(len(done.outputs) - 1, 0)], dtype=torch.float64)
        done.last_t = last.to(device).expand(shape)
        done.outputs += [done.end] * (len(times) - len(done.outputs))
    # scipy does not report its steps.
    return finish(done, t, structure, count, 0, 0, throw)

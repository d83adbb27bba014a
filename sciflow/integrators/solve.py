"""``integrate``: the only place that puts the parts together."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch

from sciflow.errors import IntegrationError
from sciflow.integrators.each import solve_each
from sciflow.integrators.fields import SDE
from sciflow.integrators.gradients import march_checkpointed
from sciflow.integrators.ode import (
    Control,
    Progress,
    Stepper,
    batch_shape,
    fixed_plan,
    march,
    solve_adaptive,
)
from sciflow.integrators.rungekutta import LeafField, Step, Time, interpolate, rk_step
from sciflow.integrators.sde import SDE_METHODS, SDEStepper, dyadic_plan
from sciflow.integrators.solution import Solution, Stats, Status
from sciflow.integrators.state import Rebuild, State, flatten, leaves_of
from sciflow.integrators.tableaus import TABLEAUS, Tableau
from sciflow.shapes import Tensor

Field = Callable[[Any, Any], Any]


def integrate(
    field: Field | SDE,
    y0: State,
    t: Tensor,
    method: str = "dopri5",
    rtol: float = 1e-5,
    atol: float = 1e-6,
    dt: float | None = None,
    grad: Literal["direct", "checkpoint"] = "direct",
    batch: Literal["joint", "each"] = "joint",
    generator: torch.Generator | None = None,
    seed: int | None = None,
    compile: bool = False,
    throw: bool = True,
    dense: bool | None = None,
    max_steps: int = 100_000,
) -> Solution:
    """Solve an ordinary or a stochastic differential equation.

    Args:
        field: ``f(t, y)``, or an ``SDE``, or a ``WithLogDensity``. It sees ``t`` as a tensor of
            shape (), or (batch,) with ``batch="each"``, and returns the structure of ``y0``.
        y0: initial state: a tensor, or a nest of tuples, lists and dicts of tensors. The leading
            axis is the batch; real or complex.
        t: output times (T,), increasing or decreasing, in the user's units; ``t[0]`` belongs to
            ``y0``. With ``batch="each"`` also (T, batch): every sample has its own times.
        method: ``euler midpoint heun rk4`` (constant steps), ``bosh3 dopri5 tsit5`` (adaptive, or
            constant steps where ``dt`` is given), ``euler_maruyama heun_strat`` (SDE), or
            ``torchdiffeq:NAME`` to delegate.
        rtol: relative tolerance of an adaptive step.
        atol: absolute tolerance, in units of the state.
        dt: constant step, in units of ``t``; shortened so that steps land on every output time.
            Without it, adaptive methods choose their steps and constant-step methods take one
            per output. An SDE takes the largest power of two not above it, so that all steps
            refine one Brownian path.
        grad: ``"direct"`` differentiates through the steps; ``"checkpoint"`` gives the same
            gradients with memory that grows as the square root of the number of steps, for one
            more forward pass.
        batch: ``"joint"``: one step size for all samples; ``"each"``: every sample has its own,
            so that its answer does not depend on the company it is in.
        generator: source of the randomness of an SDE or of a Hutchinson trace.
        seed: the same as an integer; the path of an SDE is a function of it.
        compile: compile the step with ``torch.compile`` (kept for later solves of this field).
        throw: raise ``IntegrationError`` where a sample fails; otherwise its outputs are NaN from
            then on and ``stats.status`` says why, while the other samples are finished.
        dense: keep the steps, so that ``solution(t)`` works at any time; by default for
            adaptive methods with ``batch="joint"`` and ``grad="direct"``.
        max_steps: bound on the steps of an adaptive method, accepted and rejected.

    Returns:
        The ``Solution``: ``t``, ``y`` with a leading time axis on every leaf, ``stats``.

    Raises:
        IntegrationError: a sample failed and ``throw`` is set; it carries the solution.
        TypeError: the state or what the field returns is not made of tensors.
        ValueError: an argument is out of range, the initial state is not finite, or the field
            returns other shapes than the state has.

    Example:
        >>> import torch, sciflow
        >>> y0 = torch.ones(3, 1, dtype=torch.float64)
        >>> sol = sciflow.integrate(lambda t, y: -y, y0, torch.tensor([0.0, 1.0]), rtol=1e-9)
        >>> bool((sol.y[-1] - torch.exp(torch.tensor(-1.0, dtype=torch.float64))).abs().max() < 1e-6)
        True
    """
    leaves, rebuild = flatten(y0)
    times, host = _check_times(t, batch, leaves)
    _check_arguments(method, rtol, atol, dt, grad, batch, max_steps)
    _check_state(leaves)

    if method.startswith("torchdiffeq:"):
        return _delegate(field, y0, t, method.partition(":")[2], rtol, atol, dt)
    if isinstance(field, SDE):
        return _solve_sde(
            field, leaves, rebuild, t, host, method, dt, grad, throw, generator, seed
        )
    if method in SDE_METHODS:
        raise ValueError(f"method {method!r} is for an SDE; got the field {_name(field)}")

    if hasattr(field, "prepared"):
        if field.needs_randomness and generator is None and seed is None:
            raise ValueError(f"{_name(field)} draws random numbers: give seed or generator")
        field = field.prepared(y0, _generator(generator, seed, leaves[0].device))
    f = _on_leaves(field, leaves, rebuild)
    tableau = TABLEAUS[method]
    control = Control(rtol, atol, max_steps, _in_norm(field, leaves))
    adaptive = tableau.adaptive and dt is None

    if batch == "each":
        if not adaptive:
            raise ValueError('batch="each" needs an adaptive method without dt')
        if grad != "direct":
            raise ValueError('batch="each" goes with grad="direct"')
        per_sample = t if t.ndim == 2 else t[:, None].expand(-1, leaves[0].shape[0])
        per_sample = per_sample.to(leaves[0].device, torch.float64)
        done, accepted, rejected = solve_each(f, tableau, leaves, per_sample, control)
        nfe = 1 + (tableau.stages - 1) * (accepted + rejected)
        return _finish(done, t, per_sample, rebuild, nfe, accepted, rejected, None, throw)

    keep = dense if dense is not None else adaptive and grad == "direct"
    step = _stepper(field, f, tableau, compile)
    if adaptive and grad == "direct":
        done = solve_adaptive(step, f, tableau, leaves, times, control, keep)
    elif adaptive:
        silent = torch.no_grad()
        scout = solve_adaptive(silent(step), silent(f), tableau, leaves, times, control, False)
        done = march_checkpointed(step, tableau, leaves, scout.plan)
        done = Progress(
            [leaves, *done.outputs, *scout.outputs[1 + len(done.outputs) :]],
            done.end,
            steps=scout.steps,
            rejected=scout.rejected,
            error=scout.error,
            status=scout.status,
            last_t=scout.last_t,
        )
    else:
        plan = fixed_plan(times, dt)
        if grad == "checkpoint":
            done = march_checkpointed(step, tableau, leaves, plan)
        else:
            done = march(step, tableau, leaves, plan, keep)
        done.outputs.insert(0, leaves)
        _find_non_finite(done, host)
    evaluations = done.steps + done.rejected
    if tableau.fsal:
        nfe = 1 + (tableau.stages - 1) * evaluations
    else:
        nfe = tableau.stages * evaluations
    interpolant = None
    if keep and done.record:
        interpolant = partial(_interpolant, done.record, tableau, f, rebuild)
    return _finish(done, t, times, rebuild, nfe, done.steps, done.rejected, interpolant, throw)


def _on_leaves(field: Field, leaves: list[Tensor], rebuild: Rebuild) -> LeafField:
    """The field as a function of leaves; its first answer is checked against the state."""
    like = leaves[0].real if leaves[0].is_complex() else leaves[0]
    checked = False

    def f(t: Time, y: list[Tensor]) -> list[Tensor]:
        nonlocal checked
        time = t.to(like.dtype) if isinstance(t, Tensor) else like.new_full((), t)
        slopes = leaves_of(field(time, rebuild(y)))
        if not checked:
            _check_slopes(slopes, y)
            checked = True
        return slopes

    return f


def _check_slopes(slopes: list[Any], y: list[Tensor]) -> None:
    for slope in slopes:
        if not isinstance(slope, Tensor):
            raise TypeError(f"the field must return tensors; got {type(slope).__name__}")
    got, expected = [tuple(k.shape) for k in slopes], [tuple(x.shape) for x in y]
    if got != expected:
        raise ValueError(f"the field must return the shapes of the state {expected}; got {got}")
    for slope, x in zip(slopes, y, strict=True):
        if slope.dtype != x.dtype:
            raise ValueError(
                f"the field must return the type of the state {x.dtype}; got {slope.dtype}"
            )


_COMPILED: WeakKeyDictionary[Any, dict[Any, Stepper]] = WeakKeyDictionary()


def _stepper(field: Field, f: LeafField, tableau: Tableau, compile: bool) -> Stepper:
    if not compile:
        return partial(rk_step, f, tableau)
    cache = _COMPILED.setdefault(field, {})
    if tableau not in cache:
        compiled = torch.compile(partial(rk_step, f, tableau), dynamic=False)

        def step(t: Time, h: Time, y: list[Tensor], k0: list[Tensor] | None) -> Step:
            # As tensors, times are inputs of the graph; as floats they would be constants of it.
            t, h = (torch.as_tensor(s, dtype=torch.float64) for s in (t, h))
            return compiled(t, h, y, k0)

        cache[tableau] = step
    return cache[tableau]


def _solve_sde(
    field: SDE,
    leaves: list[Tensor],
    rebuild: Rebuild,
    t: Tensor,
    times: list[float],
    method: str,
    dt: float | None,
    grad: str,
    throw: bool,
    generator: torch.Generator | None,
    seed: int | None,
) -> Solution:
    if method not in SDE_METHODS:
        raise ValueError(f"method for an SDE must be one of {sorted(SDE_METHODS)}; got {method!r}")
    if dt is None:
        raise ValueError("an SDE needs dt, the step in units of t")
    if seed is None:
        if generator is None:
            raise ValueError("an SDE needs seed or generator")
        draw = torch.randint(2**62, (), generator=generator, device=generator.device)
        seed = int(draw)
    f = _on_leaves(field.drift, leaves, rebuild)
    like = leaves[0].real if leaves[0].is_complex() else leaves[0]

    def g(time: Time, y: list[Tensor]) -> list[Any]:
        value = field.diffusion
        if callable(value):
            at = time if isinstance(time, Tensor) else like.new_full((), time)
            value = value(at, rebuild(y))
        parts = leaves_of(value)
        if len(parts) != len(leaves):
            raise ValueError(
                "diffusion must have one entry per leaf of the state "
                f"({len(leaves)}); got {len(parts)}"
            )
        return parts

    step = SDEStepper(method, f, g, leaves, times, seed)
    plan = dyadic_plan(times, dt)
    run = march_checkpointed if grad == "checkpoint" else march
    done = run(step, None, leaves, plan)
    done.outputs.insert(0, leaves)
    _find_non_finite(done, times)
    nfe = done.steps * (2 if method == "heun_strat" else 1)
    return _finish(done, t, times, rebuild, nfe, done.steps, 0, None, throw)


def _finish(
    done: Progress,
    t: Tensor,
    times: Any,
    rebuild: Rebuild,
    nfe: int | Tensor,
    steps: int | Tensor,
    rejected: int | Tensor,
    interpolant: Callable[[Tensor], State] | None,
    throw: bool,
) -> Solution:
    first = done.outputs[0]
    shape = batch_shape(first)
    final = float(t[-1]) if t.ndim == 1 else 0.0
    y = [torch.stack(column) for column in zip(*done.outputs, strict=True)]
    failed = done.status is not None and bool(done.status.any())
    if done.status is None:
        status = torch.zeros(shape, dtype=torch.int64, device=first[0].device)
        last_t = torch.full(shape, final, dtype=torch.float64, device=first[0].device)
    else:
        assert done.last_t is not None
        status, last_t = done.status, done.last_t
        if t.ndim == 1 and isinstance(times, list):
            last_t = torch.where(status == Status.OK, final, last_t)
    if failed:
        y = [_blank(leaf, t, status, last_t) for leaf in y]
    error = done.error
    if isinstance(error, Tensor) and error.ndim == 0:
        error = float(error)
    stats = Stats(nfe, steps, rejected, error, status, last_t, rebuild(done.end))
    solution = Solution(t, rebuild(y), stats, interpolant)
    if failed and throw:
        raise IntegrationError(_describe(stats), solution)
    return solution


def _blank(leaf: Tensor, t: Tensor, status: Tensor, last_t: Tensor) -> Tensor:
    """NaN from the failure of a sample on."""
    at = t.to(last_t).reshape(-1, *[1] * (status.ndim if t.ndim == 1 else 0))
    forward = (t[-1] >= t[0]).to(last_t.device)
    beyond = torch.where(forward, at > last_t, at < last_t) & (status != Status.OK)
    return leaf.masked_fill(
        beyond.reshape(*beyond.shape, *[1] * (leaf.ndim - beyond.ndim)), math.nan
    )


def _describe(stats: Stats) -> str:
    reasons = {
        Status.MAX_STEPS: "max_steps was reached",
        Status.DT_UNDERFLOW: "the step size underflowed (a stiff field or a pole?)",
        Status.NON_FINITE: "the field or the state is not finite",
    }
    total = stats.status.numel()
    parts = []
    for status, reason in reasons.items():
        hit = (stats.status.reshape(-1) == status).nonzero().flatten()
        if len(hit):
            first = int(hit[0])
            when = float(stats.last_t.reshape(-1)[first])
            who = f"{len(hit)} of {total} samples (first: {first}, " if total > 1 else "("
            parts.append(f"{reason}: {who}last good time {when:g})")
    return "; ".join(parts) + ". The error carries the solution; throw=False returns it."


def _find_non_finite(done: Progress, times: list[float]) -> None:
    """Mark samples of a constant-step solve that left the reals; one look at the end."""
    shape = batch_shape(done.outputs[0])
    # NaN never recovers, so the last output tells whether there is anything to look for.
    ends = [_finite(y, shape) for y in done.outputs[-1]]
    good = torch.stack(ends).all(0)
    if bool(good.all()):
        return
    done.status = torch.where(good, int(Status.OK), int(Status.NON_FINITE))
    done.last_t = torch.full(shape, times[0], dtype=torch.float64, device=good.device)
    last = done.outputs[0]
    for time, output in zip(times[1:], done.outputs[1:], strict=True):
        fine = torch.stack([_finite(y, shape) for y in output]).all(0)
        done.last_t = torch.where(fine, time, done.last_t)
        last = [
            torch.where(fine.reshape(*shape, *[1] * (y.ndim - len(shape))), y, old)
            for y, old in zip(output, last, strict=True)
        ]
    done.end = last


def _finite(y: Tensor, shape: tuple[int, ...]) -> Tensor:
    return y.isfinite().reshape(*shape, -1).all(-1)


def _interpolant(
    record: list[Step], tableau: Tableau, f: LeafField, rebuild: Rebuild, times: Tensor
) -> State:
    """State at any times, from the steps that were kept."""
    starts = [float(step.t) for step in record]
    forward = float(record[0].h) >= 0
    rows = []
    for time in times.flatten().tolist():
        index = sum((s <= time) if forward else (s >= time) for s in starts) - 1
        step = record[max(index, 0)]
        u = min(1.0, max(0.0, (time - float(step.t)) / float(step.h)))
        slope1 = None
        if tableau.dense is None and not tableau.fsal:
            slope1 = f(step.t + step.h, step.y1)
        rows.append(step.y1 if u == 1.0 else interpolate(tableau, step, u, slope1))
    stacked = [torch.stack(column) for column in zip(*rows, strict=True)]
    if times.ndim == 0:
        stacked = [leaf[0] for leaf in stacked]
    return rebuild(stacked)


def _delegate(
    field: Field | SDE, y0: State, t: Tensor, name: str, rtol: float, atol: float, dt: float | None
) -> Solution:
    """Solve by torchdiffeq."""
    from torchdiffeq import odeint
    from torchdiffeq._impl.odeint import SOLVERS

    if name not in SOLVERS:
        raise ValueError(f"torchdiffeq has the methods {sorted(SOLVERS)}; got {name!r}")
    if isinstance(field, SDE):
        raise ValueError("torchdiffeq solves no SDE")
    leaves, rebuild = flatten(y0)
    count = 0

    def f(time: Tensor, y: Any) -> Any:
        nonlocal count
        count += 1
        slopes = leaves_of(field(time, rebuild([y] if len(leaves) == 1 else list(y))))
        return slopes[0] if len(leaves) == 1 else tuple(slopes)

    options = {} if dt is None else {"step_size": dt}
    state: Any = leaves[0] if len(leaves) == 1 else tuple(leaves)
    y = odeint(f, state, t, rtol=rtol, atol=atol, method=name, options=options)
    columns = [y] if len(leaves) == 1 else list(y)
    done = Progress([list(row) for row in zip(*columns, strict=True)])
    done.end = done.outputs[-1]
    times = [float(s) for s in t]
    _find_non_finite(done, times)
    # torchdiffeq does not report its steps.
    return _finish(done, t, times, rebuild, count, 0, 0, None, throw=True)


def _check_times(t: Tensor, batch: str, leaves: list[Tensor]) -> tuple[list[Time], list[float]]:
    if not isinstance(t, Tensor) or not t.is_floating_point():
        got = t.dtype if isinstance(t, Tensor) else type(t).__name__
        raise TypeError(f"t must be a floating-point tensor of times; got {got}")
    rank = "(T,), or (T, batch)" if batch == "each" else "(T,)"
    if t.ndim != 1 and not (batch == "each" and t.ndim == 2):
        raise ValueError(f"t must have shape {rank}; got {tuple(t.shape)}")
    if len(t) < 2:
        raise ValueError(f"t must hold at least the initial and one more time; got {len(t)}")
    if t.ndim == 2 and t.shape[1] != leaves[0].shape[0]:
        raise ValueError(
            f"t of shape (T, batch) must have batch = {leaves[0].shape[0]}; got {tuple(t.shape)}"
        )
    if not bool(t.isfinite().all()):
        raise ValueError("t must be finite")
    gaps = t.detach().diff(dim=0)
    if not bool(((gaps > 0).all(0) | (gaps < 0).all(0)).all()):
        raise ValueError("t must be strictly increasing or strictly decreasing")
    host = t.detach().double().cpu().reshape(len(t), -1)[:, 0].tolist()
    times: list[Time] = list(t.double().unbind()) if t.requires_grad else list(host)
    return times, host


def _check_arguments(
    method: str,
    rtol: float,
    atol: float,
    dt: float | None,
    grad: str,
    batch: str,
    max_steps: int,
) -> None:
    known = [*TABLEAUS, *SDE_METHODS]
    if method not in known and not method.startswith("torchdiffeq:"):
        raise ValueError(f"method must be one of {known} or 'torchdiffeq:NAME'; got {method!r}")
    for name, value in (("rtol", rtol), ("atol", atol)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be finite and not negative; got {value}")
    if rtol == 0 and atol == 0:
        raise ValueError("rtol and atol cannot both be zero")
    if dt is not None and not (math.isfinite(dt) and dt > 0):
        raise ValueError(f"dt must be finite and positive; got {dt}")
    if grad not in ("direct", "checkpoint"):
        raise ValueError(f"grad must be 'direct' or 'checkpoint'; got {grad!r}")
    if batch not in ("joint", "each"):
        raise ValueError(f"batch must be 'joint' or 'each'; got {batch!r}")
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1; got {max_steps}")


def _check_state(leaves: list[Tensor]) -> None:
    if not leaves:
        raise ValueError("y0 holds no tensor")
    for i, leaf in enumerate(leaves):
        if not (leaf.is_floating_point() or leaf.is_complex()):
            raise TypeError(f"y0 must be floating-point or complex; leaf {i} is {leaf.dtype}")
        if not bool(leaf.detach().isfinite().all()):
            bad = (~leaf.detach().isfinite()).nonzero()[0].tolist()
            raise ValueError(f"y0 must be finite; leaf {i} is not, first at index {bad}")


def _in_norm(field: Field, leaves: list[Tensor]) -> tuple[bool, ...]:
    return tuple(getattr(field, "in_error_norm", (True,) * len(leaves)))


def _generator(
    generator: torch.Generator | None, seed: int | None, device: torch.device
) -> torch.Generator | None:
    if generator is not None or seed is None:
        return generator
    return torch.Generator(device).manual_seed(seed)


def _name(field: Any) -> str:
    return getattr(field, "__name__", type(field).__name__)

"""``integrate``: the only place that puts the parts together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch

from sciflow.integrators.checks import (
    DELEGATED,
    check_arguments,
    check_slopes,
    check_state,
    check_times,
    check_together,
)
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
from sciflow.integrators.outcome import finish
from sciflow.integrators.rungekutta import LeafField, Step, Time, rk_step
from sciflow.integrators.sde import SDEStepper, dyadic_plan
from sciflow.integrators.solution import Solution, Status
from sciflow.integrators.state import State, Structure, flatten
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
        method: ``euler midpoint heun rk4`` (constant steps), ``bosh3 dopri5 tsit5 dopri8``
            (adaptive, or constant steps where ``dt`` is given), ``euler_maruyama heun_strat``
            (SDE), or ``torchdiffeq:NAME`` to delegate.
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
        >>> y0, t = torch.ones(3, 1), torch.tensor([0.0, 1.0])
        >>> solution = sciflow.integrate(lambda t, y: -y, y0, t)
        >>> bool((solution.y[-1] - (-t[-1]).exp()).abs().max() < 1e-5)
        True
    """
    leaves, structure = flatten(y0)
    check_arguments(method, rtol, atol, dt, grad, batch, max_steps, generator, seed)
    check_state(leaves)
    times, host = check_times(t, batch, leaves)
    check_together(field, t, method, dt, grad, batch, compile=compile, dense=bool(dense))

    if isinstance(field, SDE):
        assert dt is not None
        key = _seed(generator, seed)
        return _solve_sde(field, leaves, structure, t, host, method, dt, grad, throw, key)
    if hasattr(field, "prepared"):
        field = field.prepared(y0, _generator(field, generator, seed, leaves[0].device))
    f = _on_leaves(field, structure, leaves)
    if method.startswith(DELEGATED):
        name = method.removeprefix(DELEGATED)
        return _delegate(f, leaves, structure, t, name, rtol, atol, dt, throw)

    tableau = TABLEAUS[method]
    in_norm = getattr(field, "in_error_norm", (True,) * len(leaves))
    control = Control(rtol, atol, max_steps, tuple(in_norm))
    if batch == "each":
        per_sample = t if t.ndim == 2 else t[:, None].expand(-1, leaves[0].shape[0])
        per_sample = per_sample.to(leaves[0].device, torch.float64)
        done, accepted, rejected = solve_each(f, tableau, leaves, per_sample, control)
        evaluations = 1 + (tableau.stages - 1) * (accepted + rejected)
        return finish(done, t, structure, evaluations, accepted, rejected, throw)

    adaptive = tableau.adaptive and dt is None
    keep = dense if dense is not None else adaptive and grad == "direct"
    step = (
        _compiled(field, tableau, structure, leaves) if compile else partial(rk_step, f, tableau)
    )
    if not adaptive:
        plan = fixed_plan(times, dt)
        if grad == "checkpoint":
            done = march_checkpointed(step, tableau, leaves, plan)
        else:
            done = march(step, tableau, leaves, plan, keep)
        done.outputs.insert(0, leaves)
    elif grad == "direct":
        done = solve_adaptive(step, f, tableau, leaves, times, control, keep)
    else:
        silent = torch.no_grad()
        done = solve_adaptive(silent(step), silent(f), tableau, leaves, times, control, False)
        replayed = march_checkpointed(step, tableau, leaves, done.plan)
        done.outputs[1 : 1 + len(replayed.outputs)] = replayed.outputs
        done.end = replayed.end
    taken = done.steps + done.rejected
    nfe = 1 + (tableau.stages - 1) * taken if tableau.fsal else tableau.stages * taken
    dense_needs = (tableau, f) if keep else None
    return finish(done, t, structure, nfe, done.steps, done.rejected, throw, dense_needs)


def _on_leaves(field: Any, structure: Structure, leaves: list[Tensor]) -> LeafField:
    """The field as a function of leaves; its first answer is checked against the state."""
    host_time = _host_time(leaves)
    checked = False

    def f(t: Time, y: list[Tensor]) -> list[Tensor]:
        nonlocal checked
        slopes = structure.split(field(host_time(t), structure.join(y)), "what the field returns")
        if not checked:
            check_slopes(slopes, y)
            checked = True
        return slopes

    return f


def _host_time(leaves: list[Tensor]) -> Callable[[Time], Tensor]:
    """Times as a field sees them: tensors of the state's real type, on its device."""
    first = leaves[0]
    like = torch.empty((), dtype=first.dtype, device=first.device).real
    dtype, device = like.dtype, like.device

    def convert(t: Time) -> Tensor:
        if isinstance(t, Tensor):
            return t.to(device, dtype)
        return torch.full((), t, dtype=dtype, device=device)

    return convert


# Compiled steps, the latest last. A key holds its field, so the number of them is bounded.
_COMPILED: OrderedDict[Any, Stepper] = OrderedDict()
_MOST_COMPILED = 32


def _compiled(field: Any, tableau: Tableau, structure: Structure, leaves: list[Tensor]) -> Stepper:
    """The step as one compiled function, kept for later solves of the same field and state."""
    types = tuple((leaf.dtype, leaf.device) for leaf in leaves)
    key = (field, tableau, repr(structure.template), types)
    if key not in _COMPILED:
        f = _on_leaves(field, structure, leaves)
        compiled = torch.compile(partial(rk_step, f, tableau), dynamic=False)

        def step(
            t: Time,
            h: Time,
            y: list[Tensor],
            k0: list[Tensor] | None,
            alive: Tensor | None = None,
        ) -> Step:
            # As tensors, times are inputs of the graph; as floats they would be constants of it.
            t, h = (torch.as_tensor(s, dtype=torch.float64) for s in (t, h))
            return compiled(t, h, y, k0, alive)

        _COMPILED[key] = step
        while len(_COMPILED) > _MOST_COMPILED:
            _COMPILED.popitem(last=False)
    _COMPILED.move_to_end(key)
    return _COMPILED[key]


def _solve_sde(
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
    f = _on_leaves(field.drift, structure, leaves)
    host_time = _host_time(leaves)

    def g(time: Time, y: list[Tensor]) -> list[Any]:
        value = field.diffusion
        if callable(value):
            value = value(host_time(time), structure.join(y))
        return structure.split(value, "diffusion")

    step = SDEStepper(method, f, g, leaves, times, dt, seed)
    plan = dyadic_plan(times, dt)
    run = march_checkpointed if grad == "checkpoint" else march
    done = run(step, None, leaves, plan)
    done.outputs.insert(0, leaves)
    nfe = done.steps * (2 if method == "heun_strat" else 1)
    return finish(done, t, structure, nfe, done.steps, 0, throw)


def _delegate(
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


def _seed(generator: torch.Generator | None, seed: int | None) -> int:
    if seed is not None:
        return seed
    if generator is None:
        raise ValueError("an SDE draws random numbers: give seed or generator; got neither")
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))


def _generator(
    field: Any, generator: torch.Generator | None, seed: int | None, device: torch.device
) -> torch.Generator | None:
    if not field.needs_randomness:
        return None
    if seed is not None:
        return torch.Generator(device).manual_seed(seed)
    if generator is None:
        raise ValueError(
            f"{type(field).__name__} draws random numbers: give seed or generator; got neither"
        )
    return generator

"""``integrate``: the only place that puts the parts together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch

from sciflow.integrators.adjoint import solve_adjoint
from sciflow.integrators.checks import (
    check_arguments,
    check_state,
    check_times,
    check_together,
    check_watching,
)
from sciflow.integrators.compiled import compiled_chunk, compiled_step, march_in_chunks
from sciflow.integrators.delegate import (
    delegate_to_scipy,
    delegate_to_torchdiffeq,
    is_delegated,
)
from sciflow.integrators.each import solve_each
from sciflow.integrators.events import Event, Watch
from sciflow.integrators.fields import SDE, Hamiltonian
from sciflow.integrators.gradients import march_checkpointed
from sciflow.integrators.hamiltonian import HAMILTONIAN_METHODS, solve_hamiltonian
from sciflow.integrators.leaves import check_slopes, host_time, on_leaves
from sciflow.integrators.ode import After, Control, Stepper, fixed_plan, march, solve_adaptive
from sciflow.integrators.outcome import finish
from sciflow.integrators.rosenbrock import RosenbrockStepper
from sciflow.integrators.rungekutta import rk_step
from sciflow.integrators.sde_solve import solve_sde
from sciflow.integrators.solution import Solution
from sciflow.integrators.state import State, Structure, flatten
from sciflow.integrators.tableaus import TABLEAUS, Rosenbrock
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
    grad: Literal["direct", "checkpoint", "adjoint"] = "direct",
    batch: Literal["joint", "each"] = "joint",
    generator: torch.Generator | None = None,
    seed: int | None = None,
    compile: bool = False,
    throw: bool = True,
    dense: bool | None = None,
    max_steps: int = 100_000,
    event: Event | Callable[[Tensor, State], Tensor] | None = None,
    on_step: Callable[[Tensor, State], State | None] | None = None,
) -> Solution:
    """Solve an ordinary or a stochastic differential equation.

    Args:
        field: ``f(t, y)``, or an ``SDE``, or a ``WithLogDensity``. It sees ``t`` as a tensor of
            shape (), or (batch,) with ``batch="each"``, and returns the structure of ``y0``.
        y0: initial state: a tensor, or a nest of tuples, lists and dicts of tensors. The leading
            axis is the batch; real or complex.
        t: output times (T,), increasing or decreasing, in the user's units; ``t[0]`` belongs to
            ``y0``. With ``batch="each"`` also (T, batch): every sample has its own times.
        method: ``euler midpoint heun rk4`` (constant steps), ``bosh3 dopri5 tsit5 dopri8`` and,
            for stiff fields, ``rodas4`` (adaptive, or constant steps where ``dt`` is given);
            ``euler_maruyama heun_strat reversible_heun sra1`` (SDE); ``leapfrog yoshida4 baoab
            hmc`` (Hamiltonian; with ``hmc`` each output is one transition, reached by a
            trajectory of that duration); ``torchdiffeq:NAME`` or ``scipy:NAME`` to delegate.
        rtol: relative tolerance of an adaptive step.
        atol: absolute tolerance, in units of the state.
        dt: constant step, in units of ``t``; shortened so that steps land on every output time.
            Without it, adaptive methods choose their steps and constant-step methods take one
            per output. An SDE takes the largest power of two not above it, so that all steps
            refine one Brownian path.
        grad: ``"direct"`` differentiates through the steps; ``"checkpoint"`` gives the same
            gradients with memory that grows as the square root of the number of steps, for one
            more forward pass; ``"adjoint"`` holds the outputs only: explicit Runge-Kutta methods
            solve the adjoint equation, to the tolerance; ``leapfrog``, ``yoshida4`` and
            ``reversible_heun`` step back, to rounding.
        batch: ``"joint"``: one step size for all samples; ``"each"``: every sample has its own,
            so that its answer does not depend on the company it is in.
        generator: source of the randomness of an SDE, a heat bath or a Hutchinson trace.
        seed: the same as an integer; the path of an SDE is a function of it.
        compile: compile the step with ``torch.compile`` (kept for later solves of this field);
            for ``leapfrog`` and ``yoshida4`` twenty steps at once.
        throw: raise ``IntegrationError`` where a sample fails; otherwise its outputs are NaN from
            then on and ``stats.status`` says why, while the other samples are finished.
        dense: keep the steps, so that ``solution(t)`` works at any time; by default for
            adaptive methods with ``batch="joint"`` and ``grad="direct"``.
        max_steps: bound on the steps of an adaptive method, accepted and rejected.
        event: with an adaptive method, where a function of time and state passes through zero: an
            ``Event``, or its function alone (the samples stop there). ``solution.events`` has
            the times and states, found on the interpolant, with gradients.
        on_step: called with time and state after each step; what it returns, unless None, is the
            state to go on from (resampling, a Metropolis move, a collision).

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
    check_watching(event, on_step, method, dt, grad, batch, bool(dense), compile)
    after = None if on_step is None else _after(on_step, structure, leaves)

    if isinstance(field, SDE):
        assert dt is not None
        key = _seed(generator, seed)
        return solve_sde(field, leaves, structure, t, host, method, dt, grad, throw, key, after)
    if hasattr(field, "prepared"):
        field = field.prepared(y0, _generator(field, generator, seed, leaves[0].device))
    if method in HAMILTONIAN_METHODS:
        assert isinstance(field, Hamiltonian)
        noisy = method in ("baoab", "hmc")
        key = _seed(generator, seed) if noisy else 0
        return solve_hamiltonian(
            field, leaves, structure, t, times, method, dt, grad, throw, key, after, compile
        )
    f = on_leaves(field, structure, leaves)
    if is_delegated(method):
        package, _, name = method.partition(":")
        peer = delegate_to_scipy if package == "scipy" else delegate_to_torchdiffeq
        return peer(f, leaves, structure, t, name, rtol, atol, dt, throw)

    tableau = TABLEAUS[method]
    plain: Stepper = partial(rk_step, f, tableau)
    if isinstance(tableau, Rosenbrock):
        plain = RosenbrockStepper(f, tableau)
    in_norm = getattr(field, "in_error_norm", (True,) * len(leaves))
    control = Control(rtol, atol, max_steps, tuple(in_norm))
    watch = None
    if event is not None:
        whole = event if isinstance(event, Event) else Event(event)
        watch = Watch(whole, structure, tableau)
    if batch == "each":
        per_sample = t if t.ndim == 2 else t[:, None].expand(-1, leaves[0].shape[0])
        per_sample = per_sample.to(leaves[0].device, torch.float64)
        done, accepted, rejected = solve_each(
            plain, f, tableau, leaves, per_sample, control, watch
        )
        evaluations = 1 + (tableau.stages - tableau.fsal) * (accepted + rejected)
        events = None if watch is None else watch.table()
        return finish(done, t, structure, evaluations, accepted, rejected, throw, events=events)

    adaptive = tableau.adaptive and dt is None
    watched = event is not None or on_step is not None
    keep = dense if dense is not None else adaptive and grad == "direct" and not watched
    step = compiled_step(field, tableau, structure, leaves) if compile else plain
    if grad == "adjoint":
        done = solve_adjoint(field, f, tableau, leaves, t, dt, control, step)
    elif not adaptive:
        plan = fixed_plan(times, dt)
        if grad == "checkpoint":
            done = march_checkpointed(step, tableau, leaves, plan)
        elif compile and after is None and not keep:
            chunk, size = compiled_chunk(field, tableau, structure, leaves)
            slope = f(times[0], leaves) if tableau.fsal else None
            done = march_in_chunks(chunk, size, step, leaves, slope, plan, to_the_end=False)
        else:
            done = march(step, tableau, leaves, plan, keep, after=after)
        done.outputs.insert(0, leaves)
    elif grad == "direct":
        done = solve_adaptive(step, f, tableau, leaves, times, control, keep, after, watch)
    else:
        silent = torch.no_grad()
        done = solve_adaptive(silent(step), silent(f), tableau, leaves, times, control, False)
        replayed = march_checkpointed(step, tableau, leaves, done.plan)
        done.outputs[1 : 1 + len(replayed.outputs)] = replayed.outputs
        done.end = replayed.end
    taken = done.steps + done.rejected
    first = done.extra + (1 if tableau.fsal or adaptive else 0)
    nfe = first + (tableau.stages - tableau.fsal) * taken
    dense_needs = (tableau, f) if keep else None
    events = None if watch is None else watch.table()
    return finish(
        done, t, structure, nfe, done.steps, done.rejected, throw, dense_needs, events=events
    )


def _after(
    on_step: Callable[[Tensor, State], State | None], structure: Structure, leaves: list[Tensor]
) -> After:
    """``on_step`` as a function of leaves, whose answer is checked."""
    at = host_time(leaves)

    def after(t: float, y: list[Tensor]) -> list[Tensor] | None:
        new = on_step(at(t), structure.join(y))
        if new is None:
            return None
        parts = structure.split(new, "what on_step returns")
        check_slopes(parts, y, "on_step")
        return parts

    return after


def _seed(generator: torch.Generator | None, seed: int | None) -> int:
    if seed is not None:
        return seed
    if generator is None:
        raise ValueError("this method draws random numbers: give seed or generator; got neither")
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

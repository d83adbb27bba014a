"""Steps as compiled functions, kept for later solves.

A compiler may be wrong (that of torch 2.13 is, for some fields that concatenate slices), so the
first answer of every compiled function is held against the same steps without compilation.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

import torch

from sciflow.integrators.fields import Hamiltonian
from sciflow.integrators.leaves import on_leaves
from sciflow.integrators.ode import Move, Progress, Stepper
from sciflow.integrators.rungekutta import Step, Time, rk_step
from sciflow.integrators.splitting import Splitting
from sciflow.integrators.state import Structure
from sciflow.integrators.tableaus import Tableau
from sciflow.shapes import Tensor

# Evaluations of the field in one graph: its steps share the cost of entering it (about 0.1 ms);
# the time to compile it grows faster than their number (leapfrog: 20 take 11 s, 50 take 76 s on a
# busy CPU).
CHUNK = 20

# All fields go through the same few functions of this package; without isolation torch would
# count their graphs together and leave the ninth uncompiled. Older versions of torch cannot.
_ISOLATED: dict[str, Any] = {
    key: True for key in ("isolate_recompiles",) if key in signature(torch.compile).parameters
}

Leaves = list[Tensor]
# From t over as many steps of h as the chunk holds: the state, and what the last step left.
Chunk = Callable[[Tensor, Tensor, Leaves, Leaves | None], tuple[Leaves, Leaves | None]]

# Compiled functions, the latest last. A key holds its field, so the number of them is bounded.
_COMPILED: OrderedDict[Any, Any] = OrderedDict()
_MOST_COMPILED = 32


def compiled_step(field: Any, tableau: Tableau, structure: Structure, leaves: Leaves) -> Stepper:
    """A Runge-Kutta step as one compiled function."""
    key = ("step", *_key(field, tableau, structure, leaves))
    if key not in _COMPILED:
        plain = partial(rk_step, on_leaves(field, structure, leaves), tableau)
        checked = _checked(plain, lambda taken: taken.y1)

        def step(
            t: Time, h: Time, y: Leaves, k0: Leaves | None, alive: Tensor | None = None
        ) -> Step:
            return checked(_as_input(t), _as_input(h), y, k0, alive)

        _keep(key, step)
    return _known(key)


def compiled_chunk(
    field: Any, tableau: Tableau, structure: Structure, leaves: Leaves
) -> tuple[Chunk, int]:
    """Several Runge-Kutta steps as one compiled function, and their number."""
    size = max(1, CHUNK // tableau.stages)
    key = ("chunk", size, *_key(field, tableau, structure, leaves))
    if key not in _COMPILED:
        single = partial(rk_step, on_leaves(field, structure, leaves), tableau)

        def steps(t: Tensor, h: Tensor, y: Leaves, k0: Leaves | None) -> tuple[Leaves, Any]:
            for i in range(size):
                taken = single(t + i * h, h, y, k0)
                y, k0 = taken.y1, taken.carry
            return y, k0

        _keep(key, _checked(steps, lambda end: end[0]))
    return _known(key), size


def compiled_splitting(
    field: Hamiltonian, splitting: Splitting, leaves: Leaves
) -> tuple[Chunk, int]:
    """Several steps of a splitting as one compiled function, and their number."""
    size = max(1, CHUNK // len(splitting.drifts))
    q = leaves[0]
    key = (field.potential, id(field.mass), splitting, size, q.shape, q.dtype, q.device)
    if key not in _COMPILED:
        rule = getattr(field.potential, "force", None)

        def force(q: Tensor) -> Tensor:
            if rule is not None:
                return rule(q)
            return -torch.func.grad(lambda x: field.potential(x).sum())(q)

        def steps(t: Tensor, h: Tensor, y: Leaves, carry: Leaves | None) -> tuple[Leaves, Leaves]:
            _, kicks, drifts = splitting
            q, p = y
            f = force(q) if carry is None else carry[0]
            h = h.to(q)
            p = p + (kicks[0] * h) * f
            for i in range(size):
                last = i == size - 1
                for j, a in enumerate(drifts):
                    q = q + (a * h) * (p / field.mass)
                    f = force(q)
                    # the last kick of a step and the first of the next are one
                    joined = j == len(drifts) - 1 and not last
                    b = kicks[j + 1] + (kicks[0] if joined else 0.0)
                    p = p + (b * h) * f
            return [q, p], [f]

        # The key holds the identity of the mass, so the mass must live as long.
        _keep(key, _checked(steps, lambda end: end[0], alive=field.mass))
    return _known(key), size


def march_in_chunks(
    chunk: Chunk,
    size: int,
    single: Stepper,
    y0: Leaves,
    carry: Leaves | None,
    plan: list[Move],
    to_the_end: bool,
) -> Progress:
    """Take whole chunks of equal steps where no output lies within, the rest one by one.

    Args:
        chunk: ``size`` steps at once.
        size: their number.
        single: one step.
        y0: the initial state.
        carry: what a step before would have left.
        plan: the steps; between two outputs they are equal, but for rounding.
        to_the_end: whether the last step of a chunk may land on an output. Not where fields are
            asked beyond it, if only by the last bit.
    """
    done, y, i = Progress(outputs=[]), y0, 0
    while i < len(plan):
        block = plan[i : i + size]
        inner = block[:-1] if to_the_end else block
        if size > 1 and len(block) == size and not any(move.outputs for move in inner):
            y, carry = chunk(_as_input(block[0].t), _as_input(block[0].h), y, carry)
            i += size
        else:
            taken = single(plan[i].t, plan[i].h, y, carry, None)
            y, carry = taken.y1, taken.carry
            i += 1
        if plan[i - 1].outputs:
            done.outputs.append(y)
    done.steps, done.end, done.k_end = len(plan), y, carry
    return done


def _as_input(time: Time) -> Tensor:
    """A time as an input of the graph; as a float it would be a constant of it."""
    return torch.as_tensor(time, dtype=torch.float64)


def _key(field: Any, tableau: Tableau, structure: Structure, leaves: Leaves) -> tuple[Any, ...]:
    types = tuple((leaf.dtype, leaf.device) for leaf in leaves)
    return field, tableau, repr(structure.template), types


def _checked(
    plain: Callable[..., Any], state: Callable[[Any], Leaves], alive: Any = None
) -> Callable[..., Any]:
    """The function compiled; its first answer for each kind of input is compared with its own.

    ``state`` takes the leaves out of an answer; ``alive`` is kept as long as the function.

    Raises:
        RuntimeError: the compiled function gives another answer.
    """
    compiled = torch.compile(plain, dynamic=False, **_ISOLATED)
    seen = set()

    def call(t: Tensor, h: Tensor, y: Leaves, *rest: Any) -> Any:
        result = compiled(t, h, y, *rest)
        kind = (torch.is_grad_enabled(), *(x is None for x in rest), *(x.shape for x in y))
        if kind not in seen:
            with torch.no_grad():
                expected = state(plain(t, h, y, *rest))
            for got, value in zip(state(result), expected, strict=True):
                loose = 1e3 * torch.finfo(value.dtype).eps
                scale = float(value.abs().nan_to_num().max()) if value.numel() else 0.0
                if not torch.allclose(
                    got, value, rtol=0.0, atol=loose * max(scale, 1.0), equal_nan=True
                ):
                    raise RuntimeError(
                        "torch.compile gives another answer than the same steps without it, for "
                        "this field: use compile=False, or write it otherwise"
                    )
            seen.add(kind)
        return result

    call.alive = alive  # type: ignore[attr-defined]
    return call


def _keep(key: Any, value: Any) -> None:
    _COMPILED[key] = value
    while len(_COMPILED) > _MOST_COMPILED:
        _COMPILED.popitem(last=False)


def _known(key: Any) -> Any:
    _COMPILED.move_to_end(key)
    return _COMPILED[key]

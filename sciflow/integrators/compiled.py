"""Steps as compiled functions, kept for later solves."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from sciflow.integrators.fields import Hamiltonian
from sciflow.integrators.leaves import on_leaves
from sciflow.integrators.ode import Stepper
from sciflow.integrators.rungekutta import Step, Time, rk_step
from sciflow.integrators.splitting import Splitting
from sciflow.integrators.state import Structure
from sciflow.integrators.tableaus import Tableau
from sciflow.shapes import Tensor

# Compiled steps, the latest last. A key holds its field, so the number of them is bounded.
_COMPILED: OrderedDict[Any, Any] = OrderedDict()
_MOST_COMPILED = 32


def compiled_step(
    field: Any, tableau: Tableau, structure: Structure, leaves: list[Tensor]
) -> Stepper:
    """The step as one compiled function, kept for later solves of the same field and state."""
    types = tuple((leaf.dtype, leaf.device) for leaf in leaves)
    key = (field, tableau, repr(structure.template), types)
    if key not in _COMPILED:
        f = on_leaves(field, structure, leaves)
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

        _keep(key, step)
    _COMPILED.move_to_end(key)
    return _COMPILED[key]


# Steps in one graph: they share the cost of entering it (about 0.2 ms); the time to compile it
# grows faster than their number (20: 11 s, 50: 76 s on a busy CPU).
CHUNK = 20
Chunk = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def compiled_chunk(field: Hamiltonian, splitting: Splitting, q: Tensor, p: Tensor) -> Chunk:
    """``CHUNK`` steps of a splitting as one compiled function of (q, p, force, h).

    The first result is held against the same steps without compilation: a compiler may be wrong
    (that of torch 2.13 is, for some potentials that concatenate slices).

    Raises:
        RuntimeError: the compiled steps differ from the plain ones.
    """
    key = (field.potential, id(field.mass), splitting, q.shape, q.dtype, q.device)
    if key not in _COMPILED:
        rule = getattr(field.potential, "force", None)

        def force(q: Tensor) -> Tensor:
            if rule is not None:
                return rule(q)
            return -torch.func.grad(lambda x: field.potential(x).sum())(q)

        def steps(q: Tensor, p: Tensor, f: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            _, kicks, drifts = splitting
            p = p + (kicks[0] * h) * f
            for i in range(CHUNK):
                last = i == CHUNK - 1
                for j, a in enumerate(drifts):
                    q = q + (a * h) * (p / field.mass)
                    f = force(q)
                    # the last kick of a step and the first of the next are one
                    joined = j == len(drifts) - 1 and not last
                    b = kicks[j + 1] + (kicks[0] if joined else 0.0)
                    p = p + (b * h) * f
            return q, p, f

        compiled = torch.compile(steps, dynamic=False)
        with torch.no_grad():
            start = (q, p, field.force(q), torch.tensor(1e-3, dtype=q.dtype, device=q.device))
            loose = 1e3 * torch.finfo(q.dtype).eps
            for got, expected in zip(compiled(*start), steps(*start), strict=True):
                scale = float(expected.abs().max()) if expected.numel() else 0.0
                if not bool(((got - expected).abs() <= loose * max(scale, 1.0)).all()):
                    raise RuntimeError(
                        "torch.compile gives another answer than the same steps without it, for "
                        "the force of this potential: use compile=False, or write it otherwise"
                    )
        _keep(key, (compiled, field.mass))
    _COMPILED.move_to_end(key)
    return _COMPILED[key][0]


def _keep(key: Any, value: Any) -> None:
    _COMPILED[key] = value
    while len(_COMPILED) > _MOST_COMPILED:
        _COMPILED.popitem(last=False)

"""Steps as compiled functions, kept for later solves."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Any

import torch

from sciflow.integrators.leaves import on_leaves
from sciflow.integrators.ode import Stepper
from sciflow.integrators.rungekutta import Step, Time, rk_step
from sciflow.integrators.state import Structure
from sciflow.integrators.tableaus import Tableau
from sciflow.shapes import Tensor

# Compiled steps, the latest last. A key holds its field, so the number of them is bounded.
_COMPILED: OrderedDict[Any, Stepper] = OrderedDict()
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

        _COMPILED[key] = step
        while len(_COMPILED) > _MOST_COMPILED:
            _COMPILED.popitem(last=False)
    _COMPILED.move_to_end(key)
    return _COMPILED[key]

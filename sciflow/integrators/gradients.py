"""Differentiation with less memory: steps replayed in chunks of about the square root of N."""

from __future__ import annotations

import math

from torch.utils.checkpoint import checkpoint

from sciflow.integrators.ode import Move, Progress, Stepper, march
from sciflow.integrators.tableaus import Tableau
from sciflow.shapes import Tensor


def march_checkpointed(
    step: Stepper,
    tableau: Tableau | None,
    y0: list[Tensor],
    plan: list[Move],
    k0: list[Tensor] | None = None,
) -> Progress:
    """Take the steps of a plan, keeping for the backward pass the state at chunk ends only.

    The backward pass runs every chunk once more, so that gradients equal those of ``march``;
    memory grows with the square root of the number of steps (Chen et al., arXiv:1604.06174).
    """
    done = Progress(outputs=[], steps=len(plan))
    size = max(1, math.isqrt(len(plan)))
    n = len(y0)
    y = y0
    for first in range(0, len(plan), size):
        chunk = plan[first : first + size]

        def run(*leaves: Tensor, chunk: list[Move] = chunk) -> tuple[Tensor, ...]:
            part = march(step, tableau, list(leaves[:n]), chunk, k0=list(leaves[n:]) or None)
            flat = [leaf for output in part.outputs for leaf in output]
            return (*part.end, *flat, *(part.k_end or []))

        # The noise of an SDE is a function of its seed: no random state needs to be restored.
        result = checkpoint(run, *y, *(k0 or []), use_reentrant=False, preserve_rng_state=False)
        flat = n * (1 + sum(len(move.outputs) for move in chunk))
        rows = [list(result[i : i + n]) for i in range(0, flat, n)]
        y, k0 = rows[0], list(result[flat:]) or None
        done.outputs += rows[1:]
    done.end, done.k_end = y, k0
    return done

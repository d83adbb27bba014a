"""Evaluation of a field in pieces of the batch, where no gradient is asked for.

A graph holds every intermediate tensor of a solve, whatever is done about it. Without one, memory
would still grow with the batch times what a sample takes inside the network; in pieces it does
not, and on a CPU pieces that stay in its cache are faster too. The steps of a solver remain those
of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from sciflow.shapes import Float, Tensor

# Numbers in the largest intermediate tensor of a piece: some MB on a CPU, a GB on an accelerator.
_ON_CPU, _ELSEWHERE = 2**19, 2**27


def in_pieces(
    evaluate: Callable[..., tuple[Tensor, Tensor]],
    each: int,
    t: Float[Tensor, "*time"],
    x: Float[Tensor, "batch dim"],
    *rest: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """``evaluate(t, x, *rest)`` over the rows of ``x``, in pieces unless gradients are enabled.

    Args:
        evaluate: gives two tensors with a row for each row of ``x``.
        each: numbers that a row takes in the largest intermediate tensor.
        t: one time, or one for each row.
        x: rows (B, d).
        rest: further tensors with a row for each row of ``x``; None stays None.
    """
    rows = max(1, (_ON_CPU if x.device.type == "cpu" else _ELSEWHERE) // each)
    if torch.is_grad_enabled() or len(x) <= rows:
        return evaluate(t, x, *rest)
    parts = []
    for first in range(0, len(x), rows):
        piece = slice(first, first + rows)
        time = t[piece] if t.ndim and len(t) > 1 else t
        own = (None if y is None else y[piece] for y in rest)
        parts.append(evaluate(time, x[piece], *own))
    one, two = zip(*parts, strict=True)
    return torch.cat(one), torch.cat(two)

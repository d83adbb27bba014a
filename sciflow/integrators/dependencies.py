"""What a backward pass that runs the field again must know."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from sciflow.shapes import Tensor


def dependencies(values: Iterable[Any]) -> list[Tensor]:
    """The leaves of the graph of some tensors that require a gradient, each once.

    So a backward pass that runs the field again knows all that the field depends on: parameters
    of a module, and tensors that a closure holds.
    """
    found: dict[int, Tensor] = {}
    seen, waiting = set(), []
    for value in values:
        if isinstance(value, Tensor) and value.requires_grad:
            if value.grad_fn is None:
                found[id(value)] = value
            else:
                waiting.append(value.grad_fn)
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            found[id(leaf)] = leaf
        waiting += [parent for parent, _ in node.next_functions if parent is not None]
    return list(found.values())


def first_derivatives_only() -> None:
    """Refuse ``create_graph=True``, which turns gradients on in a backward pass.

    Raises:
        RuntimeError: second derivatives were asked for; they would be silently wrong.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(
            'grad="adjoint" gives first derivatives only (create_graph=True asks for more): '
            'use grad="direct"'
        )

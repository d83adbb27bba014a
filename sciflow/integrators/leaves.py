"""A user's field as the solvers see it: a function of times and leaves."""

from __future__ import annotations

import cmath
from collections.abc import Callable
from typing import Any

import torch

from sciflow.integrators.rungekutta import LeafField, Time
from sciflow.integrators.state import Structure
from sciflow.shapes import Tensor


def on_leaves(field: Any, structure: Structure, leaves: list[Tensor]) -> LeafField:
    """The field as a function of leaves; its first answer is checked against the state."""
    convert = host_time(leaves)
    checked = False

    def f(t: Time, y: list[Tensor]) -> list[Tensor]:
        nonlocal checked
        slopes = structure.split(field(convert(t), structure.join(y)), "what the field returns")
        # A graph that looked at `checked` would be compiled twice; what is compiled is called
        # without the compiler too, and checked then.
        if not torch.compiler.is_compiling() and not checked:
            check_slopes(slopes, y)
            checked = True
        return slopes

    return f


def host_time(leaves: list[Tensor]) -> Callable[[Time], Tensor]:
    """Times as a field sees them: tensors of the state's real type, on its device."""
    first = leaves[0]
    like = torch.empty((), dtype=first.dtype, device=first.device).real
    dtype, device = like.dtype, like.device

    def convert(t: Time) -> Tensor:
        if isinstance(t, Tensor):
            return t.to(device, dtype)
        return torch.scalar_tensor(t, dtype=dtype, device=device)

    return convert


def all_finite(x: Tensor) -> bool:
    """Whether no element is NaN or infinite; one reduction where that is so.

    A sum that is finite has finite terms only; one that is not may have overflowed.
    """
    total = x.detach().sum().item()
    return cmath.isfinite(total) or bool(x.isfinite().all())


def check_slopes(slopes: list[Any], y: list[Tensor], who: str = "the field") -> None:
    """The first answer of a field, or what a callback made of the state, against the state."""
    for slope in slopes:
        if not isinstance(slope, Tensor):
            raise TypeError(f"{who} must return tensors; got {type(slope).__name__}")
    got, expected = [tuple(k.shape) for k in slopes], [tuple(x.shape) for x in y]
    if got != expected:
        raise ValueError(f"{who} must return the shapes of the state {expected}; got {got}")
    for slope, x in zip(slopes, y, strict=True):
        if slope.dtype != x.dtype:
            raise ValueError(
                f"{who} must return the type of the state {x.dtype}; got {slope.dtype}"
            )

"""A state may be a tensor or any nest of tuples, lists and dicts of tensors.

The solvers work on the flat list of its tensors, the leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

State = Any
Rebuild = Callable[[list[Tensor]], State]


def flatten(state: State, name: str = "y0") -> tuple[list[Tensor], Rebuild]:
    """Split a state into its leaves and the function that puts leaves together again.

    Args:
        state: tensor, or nested tuple, named tuple, list or dict of tensors.
        name: what to call the state in an error.

    Raises:
        TypeError: something in the state is no tensor.
    """
    if isinstance(state, Tensor):
        return [state], lambda leaves: leaves[0]
    leaves: list[Tensor] = []
    template = _index(state, leaves, name)
    return leaves, lambda new: _fill(template, new)


def leaves_of(state: State) -> list[Tensor]:
    """The leaves of a state."""
    return [state] if isinstance(state, Tensor) else list(_iterate(state))


def _iterate(state: State) -> Iterator[Tensor]:
    if isinstance(state, dict):
        for key in state:
            yield from _iterate(state[key])
    elif isinstance(state, tuple | list):
        for part in state:
            yield from _iterate(part)
    else:
        yield state


def _index(state: State, leaves: list[Tensor], name: str) -> Any:
    """The state with each tensor replaced by its place in ``leaves``."""
    if isinstance(state, Tensor):
        leaves.append(state)
        return len(leaves) - 1
    if isinstance(state, dict):
        return {key: _index(part, leaves, f"{name}[{key!r}]") for key, part in state.items()}
    if isinstance(state, tuple | list):
        parts = [_index(part, leaves, f"{name}[{i}]") for i, part in enumerate(state)]
        return _like(state, parts)
    raise TypeError(
        f"{name} must be a tensor, or a tuple, list or dict of tensors; got {type(state).__name__}"
    )


def _fill(template: Any, leaves: list[Tensor]) -> State:
    if isinstance(template, int):
        return leaves[template]
    if isinstance(template, dict):
        return {key: _fill(part, leaves) for key, part in template.items()}
    return _like(template, [_fill(part, leaves) for part in template])


def _like(sequence: tuple | list, parts: list) -> tuple | list:
    if hasattr(sequence, "_fields"):
        return type(sequence)(*parts)
    return type(sequence)(parts)

"""A state may be a tensor or any nest of tuples, lists and dicts of tensors.

The solvers work on the flat list of its tensors, the leaves.
"""

from __future__ import annotations

from typing import Any

from sciflow.shapes import Tensor

State = Any


class Structure:
    """How the leaves of a state are put together."""

    def __init__(self, template: Any, size: int) -> None:
        self.template, self.size = template, size

    def join(self, leaves: list[Tensor]) -> State:
        """The state with these leaves."""
        return leaves[0] if isinstance(self.template, int) else _fill(self.template, leaves)

    def split(self, state: State, what: str) -> list[Any]:
        """The leaves of another state of the same structure.

        Raises:
            TypeError: the structure differs; ``what`` says whose it is.
        """
        if isinstance(self.template, int):
            parts = [state]
        else:
            parts = [None] * self.size
            _match(self.template, state, parts, what)
        return parts


def flatten(state: State, name: str = "y0") -> tuple[list[Tensor], Structure]:
    """Split a state into its leaves and their structure.

    Args:
        state: tensor, or nested tuple, named tuple, list or dict of tensors.
        name: what to call the state in an error.

    Raises:
        TypeError: something in the state is no tensor.
    """
    leaves: list[Tensor] = []
    template = _index(state, leaves, name)
    return leaves, Structure(template, len(leaves))


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


def _match(template: Any, state: State, parts: list[Any], what: str) -> None:
    """Put the leaves of ``state`` into ``parts``, each at its place in the template."""
    if isinstance(template, int):
        parts[template] = state
    elif isinstance(template, dict):
        if not isinstance(state, dict) or state.keys() != template.keys():
            got = list(state) if isinstance(state, dict) else type(state).__name__
            raise TypeError(f"{what} must be a dict with the keys {list(template)}; got {got}")
        for key, part in template.items():
            _match(part, state[key], parts, f"{what}[{key!r}]")
    else:
        if not isinstance(state, tuple | list) or len(state) != len(template):
            got = f"{len(state)}" if isinstance(state, tuple | list) else type(state).__name__
            raise TypeError(f"{what} must be a tuple or list of {len(template)}; got {got}")
        for i, part in enumerate(template):
            _match(part, state[i], parts, f"{what}[{i}]")


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

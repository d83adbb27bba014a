"""Functions of torch as programs: traced with their derivatives, for any size of the batch.

`torch.export` alone cannot follow a call of autograd inside a function. `make_fx` can, but writes
down the sizes that it met as numbers. So the function is traced at two sizes of the batch, and
the numbers that differ between the two graphs become expressions of the size.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.export import Dim, ExportedProgram

from sciflow.errors import SciflowError, numbers_known
from sciflow.shapes import Tensor

# Neither 0 nor 1, which broadcast, and no size where a field would be evaluated in pieces.
_SIZES = (2, 3)


class Later:
    """A function that is a module which `torch.export` can follow, made when it is needed."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        self._make = make

    @functools.cached_property
    def module(self) -> nn.Module:
        """The module."""
        return self._make()

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The function."""
        return self.module(*inputs)


def trace(
    function: Callable[..., tuple[Tensor, ...]],
    example: Callable[[int], tuple[Tensor, ...]],
) -> ExportedProgram:
    """The program of a function of tensors that share their first axis, the batch.

    Branches are taken as for the example and stay so. Parameters become constants: the
    program has no gradient by them.

    Args:
        function: of tensors (B, ...), giving a tuple of tensors (B, ...).
        example: inputs of a batch of a given size, at which the function is traced.

    Raises:
        SciflowError: the operations depend on the size of the batch.
    """
    module = function.module if isinstance(function, Later) else traced(function, example)
    inputs, batch = example(_SIZES[0]), Dim("batch")
    # Inputs behind a star are one tuple for torch.export.
    bound = inspect.signature(module.forward).bind(*inputs).arguments.values()
    shapes = tuple(
        tuple({0: batch} for _ in x) if isinstance(x, tuple) else {0: batch} for x in bound
    )
    return torch.export.export(module, inputs, dynamic_shapes=shapes)


def traced(
    function: Callable[..., tuple[Tensor, ...]],
    example: Callable[[int], tuple[Tensor, ...]],
) -> fx.GraphModule:
    """The operations of a function, for any size of the batch; arguments as for `trace`."""
    small, large = (graph_of(function, example(size)) for size in _SIZES)
    _generalise(small, large)
    _fold_constants(small)
    return small


def graph_of(function: Callable[..., Any], inputs: tuple[Tensor, ...]) -> fx.GraphModule:
    """The operations of ``function`` at these inputs, those of its derivatives among them."""
    from torch.fx.experimental.proxy_tensor import make_fx

    checking = numbers_known.set(False)
    try:
        with torch.no_grad():
            # Behind one star: make_fx counts the arguments of other signatures wrongly.
            graph = make_fx(lambda *xs: function(*xs))(*inputs)
    finally:
        numbers_known.reset(checking)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def without_gradients(module: nn.Module) -> nn.Module:
    """``module`` with parameters that no graph is recorded for."""
    return module.eval().requires_grad_(False)


def _generalise(first: fx.GraphModule, second: fx.GraphModule) -> None:
    """Put expressions of the batch size into ``first`` where the two graphs differ."""
    one, two = list(first.graph.nodes), list(second.graph.nodes)
    if [(n.op, str(n.target)) for n in one] != [(n.op, str(n.target)) for n in two]:
        raise SciflowError("the operations depend on the size of the batch: it cannot be exported")
    start = next(node for node in one if node.op != "placeholder")
    with first.graph.inserting_before(start):
        size = first.graph.call_function(torch.ops.aten.sym_size.int, (one[0], 0))
    for a, b in zip(one, two, strict=True):
        if a.op == "get_attr":
            _same_constant(getattr(first, str(a.target)), getattr(second, str(b.target)))
            continue
        with first.graph.inserting_before(a):
            a.args = _merged(a.args, b.args, first.graph, size)
            a.kwargs = _merged(a.kwargs, b.kwargs, first.graph, size)
    first.recompile()


def _fold_constants(module: fx.GraphModule) -> None:
    """Replace what depends on constants alone, such as the knots of a spline, by its value."""
    values: dict[fx.Node, Any] = {}
    for node in list(module.graph.nodes):
        if node.op == "get_attr":
            values[node] = getattr(module, str(node.target))
        elif node.op == "call_function" and all(n in values for n in node.all_input_nodes):
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
            values[node] = node.target(*args, **kwargs)
    for i, (node, value) in enumerate(values.items()):
        outside = [user for user in node.users if user not in values]
        if node.op != "call_function" or not outside or not isinstance(value, Tensor):
            continue
        module.register_buffer(
            f"constant_{i}", value.detach().clone(memory_format=torch.contiguous_format)
        )
        with module.graph.inserting_before(node):
            constant = module.graph.get_attr(f"constant_{i}")
        for user in outside:
            user.replace_input_with(node, constant)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()


def _merged(a: Any, b: Any, graph: fx.Graph, size: fx.Node) -> Any:
    """``a`` with the numbers that differ from those of ``b`` as multiples of the batch size."""
    if isinstance(a, tuple | list):
        return type(a)(_merged(x, y, graph, size) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return {key: _merged(x, b[key], graph, size) for key, x in a.items()}
    if isinstance(a, fx.Node) or a == b or (a != a and b != b):  # nan is not itself
        return a
    if isinstance(a, int) and isinstance(b, int):
        factor, rest = divmod(b - a, _SIZES[1] - _SIZES[0])
        if rest == 0 and a == factor * _SIZES[0]:
            return graph.call_function(operator.mul, (size, factor)) if factor > 1 else size
    raise SciflowError(f"{a!r} became {b!r} in a larger batch: it cannot be exported")


def _same_constant(a: Any, b: Any) -> None:
    if isinstance(a, Tensor) and not (a.shape == b.shape and torch.equal(a, b)):
        raise SciflowError("a constant depends on the batch: it cannot be exported")

"""A network's output with the pullback of its cotangents, for training through both.

The sweep and the pullback are one node each of autograd's graph, whose derivatives are written
out: they pass over the units fewer times than those of the single operations. Derivatives beyond
those are left to autograd on the plain expressions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd import Function

from sciflow.shapes import Tensor

#: Carries a cotangent of an output, (*batch, n_out), to one of the input, (*batch, n_in).
Pullback = Callable[[Tensor], Tensor]


def sweep_and_pullback(x: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, Pullback]:
    """Output of linear layers with SiLU between them, and the pullback at ``x``.

    Args:
        x: (..., n_in).
        parameters: weight and bias of each layer in turn.
    """
    weights = parameters[::2]
    batch, flat = x.shape[:-1], x.reshape(-1, x.shape[-1])
    if torch.compiler.is_compiling():
        y, *z = _sweep(flat, *parameters)
        pull = lambda cotangent: _pull(cotangent, *z, *weights)
    else:
        left: dict[str, list[Tensor]] = {}
        y, *z = _Sweep.apply(left, flat, *parameters)
        pull = lambda cotangent: _Pull.apply(left, cotangent, *z, *weights)

    def pull_batch(cotangent: Tensor) -> Tensor:
        return pull(cotangent.reshape(len(flat), -1)).reshape(*batch, -1)

    return (y, pull) if x.ndim == 2 else (y.reshape(*batch, -1), pull_batch)


def _sweep(x: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
    """Output, and what goes into each SiLU."""
    *hidden, weight, bias = parameters
    out = []
    for w, b in zip(hidden[::2], hidden[1::2], strict=True):
        out.append(torch.addmm(b, x, w.t()))
        x = torch.nn.functional.silu(out[-1])
    return torch.addmm(bias, x, weight.t()), *out


def _pull(cotangent: Tensor, *rest: Tensor) -> Tensor:
    """The pullback, from what went into each SiLU and the weights."""
    depth = len(rest) // 2
    z, weights = rest[:depth], rest[depth:]
    cotangent = cotangent @ weights[-1]
    for unit, weight in zip(reversed(z), reversed(weights[:-1]), strict=True):
        gate = unit.sigmoid()
        cotangent = cotangent * (gate + unit * gate * (1 - gate)) @ weight
    return cotangent


class _Sweep(Function):
    """`_sweep`, which leaves its values, gates and slopes behind."""

    @staticmethod
    def forward(ctx: Any, left: dict[str, list[Tensor]], x: Tensor, *parameters: Tensor) -> Any:
        ctx.save_for_backward(x, *parameters)
        ctx.left = left
        one = x.new_ones(())
        *hidden, weight, bias = parameters
        values, gates, slopes, out = [x], [], [], []
        for w, b in zip(hidden[::2], hidden[1::2], strict=True):
            out.append(torch.addmm(b, values[-1], w.t()))
            gates.append(out[-1].sigmoid())
            values.append(out[-1] * gates[-1])
            # d SiLU = value + gate (1 - value)
            slopes.append(torch.lerp(values[-1], one, gates[-1]))
        left.update(values=values, gates=gates, slopes=slopes)
        return torch.addmm(bias, values[-1], weight.t()), *out

    @staticmethod
    def backward(ctx: Any, along_y: Tensor, *along_z: Tensor) -> Any:
        if torch.is_grad_enabled():
            return None, *_by_autograd(_sweep, ctx.saved_tensors, (along_y, *along_z))
        weights, needed = ctx.saved_tensors[1::2], ctx.needs_input_grad[2:]
        values, slopes = ctx.left["values"], ctx.left["slopes"]
        grads: list[Tensor | None] = []
        grad = along_y
        for i in reversed(range(len(weights))):
            if i < len(slopes):
                grad = torch.addcmul(along_z[i], grad, slopes[i])
            grads.append(grad.sum(0) if needed[2 * i + 1] else None)
            grads.append(grad.t() @ values[i] if needed[2 * i] else None)
            grad = grad @ weights[i] if i or ctx.needs_input_grad[1] else grad
        return None, grad if ctx.needs_input_grad[1] else None, *reversed(grads)


class _Pull(Function):
    """`_pull`, from what `_Sweep` left behind."""

    @staticmethod
    def forward(
        ctx: Any, left: dict[str, list[Tensor]], cotangent: Tensor, *rest: Tensor
    ) -> Tensor:
        ctx.save_for_backward(cotangent, *rest)
        ctx.left = left
        weights = rest[len(rest) // 2 :]
        # cotangents of each SiLU's value, and of what goes into it, the last layer first
        ctx.of_values, ctx.of_units = [], []
        cotangent = cotangent @ weights[-1]
        for slope, weight in zip(reversed(left["slopes"]), reversed(weights[:-1]), strict=True):
            ctx.of_values.append(cotangent)
            ctx.of_units.append(cotangent * slope)
            cotangent = ctx.of_units[-1] @ weight
        return cotangent

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        if torch.is_grad_enabled():
            return None, *_by_autograd(_pull, ctx.saved_tensors, (grad,))
        cotangent, *rest = ctx.saved_tensors
        depth = len(rest) // 2
        weights, needed = rest[depth:], ctx.needs_input_grad[2 + depth :]
        along_z, along_weights = [], []
        units = zip(ctx.left["values"][1:], ctx.left["gates"], ctx.left["slopes"], strict=True)
        for i, (value, gate, slope) in enumerate(units):
            of_value, of_unit = ctx.of_values[-1 - i], ctx.of_units[-1 - i]
            along_weights.append(of_unit.t() @ grad if needed[i] else None)
            grad = grad @ weights[i].t()
            # d^2 SiLU = (1 - gate) (slope + gate (1 - value))
            bend = torch.addcmul(slope, gate, value, value=-1).add_(gate)
            bend.addcmul_(bend, gate, value=-1)
            along_z.append(bend.mul_(grad).mul_(of_value))
            grad = grad * slope
        along_weights.append(cotangent.t() @ grad if needed[-1] else None)
        return None, grad @ weights[-1].t(), *along_z, *along_weights


def _by_autograd(
    function: Callable[..., Any], inputs: Sequence[Tensor], along: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Gradients that can be differentiated in turn."""
    # Views, so that what an input is made of, which may be another input, is not gone into.
    views = [x.view_as(x) for x in inputs]
    chosen = [x for x in views if x.requires_grad]
    found = iter(torch.autograd.grad(function(*views), chosen, along, create_graph=True))
    return tuple(next(found) if x.requires_grad else None for x in views)

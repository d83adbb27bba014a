"""The maps of a continuous flow as loops over one traced step, forward and backward.

Written out, the steps of a solver make graphs that take minutes to compile. Here a step, and the
step of its derivative, are traced once each, and `torch.export` sees a loop over them (the
operator ``scan``). The derivative is that of the steps themselves: forces belong to the energy
exactly, whatever the error of the steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from sciflow.bridges.tracing import traced
from sciflow.cnf import ContinuousFlow
from sciflow.integrators import exact_divergence
from sciflow.integrators.rungekutta import rk_step
from sciflow.integrators.tableaus import TABLEAUS
from sciflow.shapes import Tensor

Tensors = tuple[Tensor, ...]
Size = int | torch.SymInt


class Piece(nn.Module):
    """A function of tensors as a traced graph with its weights as inputs.

    Args:
        function: of tensors (B, ...) and numbers () to a tuple of tensors.
        example: inputs of a batch of a given size.
    """

    def __init__(
        self, function: Callable[..., Tensors], example: Callable[[int], Tensors]
    ) -> None:
        super().__init__()
        self.graph = traced(function, example)
        nodes = self.graph.graph.nodes
        place = [node for node in nodes if node.op == "placeholder"][-1]
        weights: dict[str, Tensor] = {}
        inputs: dict[str, Any] = {}
        for node in list(nodes):
            if node.op != "get_attr":
                continue
            name = str(node.target)
            if name not in weights:
                weights[name] = getattr(self.graph, name)
                with self.graph.graph.inserting_after(place):
                    place = inputs[name] = self.graph.graph.placeholder(name)
            node.replace_all_uses_with(inputs[name])
            self.graph.graph.erase_node(node)
        self.graph.recompile()
        for name in weights:
            delattr(self.graph, name)
        self.names = [f"weight_{i}" for i in range(len(weights))]
        for own, weight in zip(self.names, weights.values(), strict=True):
            self.register_buffer(own, weight.detach().clone())

    @property
    def weights(self) -> Tensors:
        """What the graph takes after its own inputs."""
        return tuple(getattr(self, name) for name in self.names)

    def forward(self, *inputs: Tensor) -> Tensors:
        """The function."""
        return tuple(self.graph(*inputs, *self.weights))


class FlowLoop(nn.Module):
    """A flow moved by constant steps, from either end to the other.

    Args:
        flow: the flow, without gradients.
        times: ends of the steps, from 0 to 1 or from 1 to 0.
        method: Runge-Kutta method of the steps.
        example: points in the flow's own coordinates, and the context of a conditional flow.
        density: also integrate the divergence.
        gradient: make `pull` work.
    """

    starts: Tensor
    lengths: Tensor

    def __init__(
        self,
        flow: ContinuousFlow,
        times: list[float],
        method: str,
        example: Callable[[int], Tensors],
        density: bool = True,
        gradient: bool = False,
    ) -> None:
        super().__init__()
        tableau = TABLEAUS[method]
        knots = torch.tensor(times, dtype=torch.float64, device=flow.shift.device)
        self.register_buffer("starts", knots[:-1].clone())
        self.register_buffer("lengths", knots.diff())
        self.density = density

        def step(y: Tensor, t: Tensor, h: Tensor, *context: Tensor) -> Tensors:
            field = flow.field_at(*(context or (None,)))

            def slopes(time: Any, leaves: list[Tensor]) -> list[Tensor]:
                time = time.to(y)
                if density:
                    return list(exact_divergence(field, time, leaves[0]))
                return [field(time, leaves[0])]

            leaves = [y, torch.zeros_like(y[:, 0])] if density else [y]
            return tuple(rk_step(slopes, tableau, t, h, leaves, None).y1)

        def back(pull: Tensor, y: Tensor, t: Tensor, h: Tensor, *context: Tensor) -> Tensors:
            with torch.enable_grad():
                y = y.detach().requires_grad_()
                moved, change = step(y, t, h, *context)
                value = (moved * pull).sum() + change.sum()
                (pulled,) = torch.autograd.grad(value, y)
            return (pulled,)

        def forward_example(n: int) -> Tensors:
            y, *context = example(n)
            return (y, self.starts[0], self.lengths[0], *context)

        def back_example(n: int) -> Tensors:
            y, *rest = forward_example(n)
            return (torch.ones_like(y), y, *rest)

        self.step = Piece(step, forward_example)
        self.back = Piece(back, back_example) if gradient else None

    def forward(self, y: Tensor, *context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Points at the end, the integral of div f dt on the way, and the points before steps."""

        def body(
            y: Tensor, change: Tensor, t: Tensor, h: Tensor, size: Size, *rest: Tensor
        ) -> list[Tensor]:
            out = self.step.graph(y, t, h, *rest)
            # A scan gives nothing back that shares memory with what it was given.
            total = change + out[1] if self.density else change.clone()
            return [out[0], total, y.clone()]

        end, change, before = scan(
            body,
            [y, torch.zeros_like(y[:, 0])],
            [self.starts, self.lengths],
            (*context, *self.step.weights),
        )
        return end, change, before

    def pull(self, pull: Tensor, before: Tensor, *context: Tensor) -> Tensor:
        """The gradient at the start of ``sum(end * pull) + change``.

        Args:
            pull: cotangent of the points at the end.
            before: points before the steps, as `forward` gives them.
            context: of a conditional flow.
        """
        back = self.back
        assert back is not None

        def body(
            pull: Tensor,
            idle: Tensor,
            y: Tensor,
            t: Tensor,
            h: Tensor,
            size: Size,
            *rest: Tensor,
        ) -> list[Tensor]:
            return [*back.graph(pull, y, t, h, *rest), idle.clone()]

        steps = [before.flip(0), self.starts.flip(0), self.lengths.flip(0)]
        # The compiler of torch 2.13 stumbles over a loop with one output.
        idle = torch.zeros_like(pull[:, 0])
        return scan(body, [pull, idle], steps, (*context, *back.weights))[0]


class FlowMap(nn.Module):
    """A map of a flow: into its coordinates, over the steps, and out of them.

    Args:
        enter: inputs but the context to points.
        loop: the steps.
        leave: points at the end and the change of density to outputs.
    """

    def __init__(self, enter: Piece, loop: FlowLoop, leave: Piece) -> None:
        super().__init__()
        self.enter, self.loop, self.leave = enter, loop, leave

    def forward(self, x: Tensor, *context: Tensor) -> Tensors:
        """Outputs."""
        (y,) = self.enter(x)
        end, change, _ = self.loop(y, *context)
        return self.leave(end, change)


class FlowEnergy(FlowMap):
    """Energy and forces of a flow: ``leave`` gives the energy and its pull on the end.

    Args:
        enter: positions to points.
        loop: the steps, with their gradient.
        leave: end and change to the energy, and to the gradient of the log-density at the end.
        force: gradients of the log-density in the flow's coordinates to forces.
    """

    def __init__(self, enter: Piece, loop: FlowLoop, leave: Piece, force: Piece) -> None:
        super().__init__(enter, loop, leave)
        self.force = force

    def forward(self, x: Tensor, *context: Tensor) -> Tensors:
        """Energy (B,) and forces (B, d)."""
        (y,) = self.enter(x)
        end, change, before = self.loop(y, *context)
        energy, pull = self.leave(end, change)
        (forces,) = self.force(self.loop.pull(pull, before, *context))
        return energy, forces


def scan(
    body: Callable[..., list[Tensor]],
    start: list[Tensor],
    steps: list[Tensor],
    rest: Tensors,
) -> Tensors:
    """A loop of ``body(*state, *step, size, *rest)``, which gives the state and what to keep.

    Args:
        body: gives nothing back that shares memory with what it was given.
        start: state (B, ...) before the first step.
        steps: what differs from step to step, stacked.
        rest: what is the same at each step.

    Returns:
        the state after the last step, and what was kept, stacked.
    """
    from torch._higher_order_ops.scan import scan_op

    # The compiler finds the size of the batch among the inputs of the loop, or not at all.
    return tuple(scan_op(body, start, steps, (start[0].shape[0], *rest)))

"""The continuous adjoint: gradients from a second differential equation, solved backwards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from sciflow.errors import IntegrationError
from sciflow.integrators.dependencies import dependencies, first_derivatives_only
from sciflow.integrators.ode import Control, Progress, Stepper, fixed_plan, march, solve_adaptive
from sciflow.integrators.rungekutta import LeafField, Time, rk_step
from sciflow.integrators.solution import Status
from sciflow.integrators.tableaus import Tableau
from sciflow.shapes import Tensor


def solve_adjoint(
    field: Any,
    f: LeafField,
    tableau: Tableau,
    y0: list[Tensor],
    t: Tensor,
    dt: float | None,
    control: Control,
    step: Stepper,
) -> Progress:
    """Solve without a graph; the backward pass solves the adjoint equation between the outputs.

    For the loss L and ``a = dL/dy``: ``da/dt = -a df/dy``, and ``dL/dtheta`` is the integral of
    ``a df/dtheta`` (Chen et al., NeurIPS 2018, appendix B). The state is reset to what the
    forward pass found at every output. Steps are controlled by the state and its adjoint alone:
    the integrals for the parameters do not feed back (the seminorm of Kidger et al., ICML 2021).
    Memory holds the outputs, whatever the number of steps.
    """
    host = t.detach().double().tolist()
    with torch.enable_grad():
        known = dependencies(f(host[0], [y.detach() for y in y0]))
    for part in (field, getattr(field, "f", None), getattr(field, "potential", None)):
        if isinstance(part, torch.nn.Module):  # also those that are not used at the first time
            known += [x for x in part.parameters() if x.requires_grad]
    known = list({id(x): x for x in known}.values())
    work = _Work(f, tableau, host, dt, control, len(y0), known, step)
    flat = _Adjoint.apply(work, t.double(), *y0, *known)
    rows = [list(flat[i : i + len(y0)]) for i in range(0, len(flat), len(y0))]
    assert work.done is not None
    return replace(work.done, outputs=[y0, *rows])


@dataclass
class _Work:
    """What both passes need beside tensors."""

    f: LeafField
    tableau: Tableau
    times: list[float]
    dt: float | None
    control: Control
    leaves: int
    known: list[Tensor]
    step: Stepper
    done: Progress | None = None

    def run(
        self, step: Stepper, f: LeafField, y: list[Tensor], times: list[Time], control: Control
    ) -> Progress:
        """Constant or adaptive steps, as in the forward pass."""
        if self.tableau.adaptive and self.dt is None:
            return solve_adaptive(step, f, self.tableau, y, times, control, False)
        done = march(step, self.tableau, y, fixed_plan(times, self.dt))
        done.outputs.insert(0, y)
        return done


class _Adjoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, work: _Work, t: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        y0 = list(inputs[: work.leaves])
        work.done = work.run(work.step, work.f, y0, list(work.times), work.control)
        work.done.end = [y.detach() for y in work.done.end]
        flat = [leaf.clone() for row in work.done.outputs[1:] for leaf in row]
        ctx.work = work
        ctx.save_for_backward(*y0, *flat)
        return tuple(flat)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        first_derivatives_only()
        work, n = ctx.work, ctx.work.leaves
        rows = [list(ctx.saved_tensors[i : i + n]) for i in range(0, len(ctx.saved_tensors), n)]
        wanted = [list(grads[i : i + n]) for i in range(0, len(grads), n)]
        to_y = [torch.zeros_like(y) for y in rows[0]]
        to_known = [torch.zeros_like(x) for x in work.known]
        to_t = torch.zeros(len(rows), dtype=torch.float64)

        def along(i: int, covector: list[Tensor]) -> float:
            """How the loss changes where an end is moved along the flow."""
            slopes = work.f(work.times[i], rows[i])
            products = [(a.conj() * k).real.sum() for a, k in zip(covector, slopes, strict=True)]
            return float(sum(products))

        for i in range(len(rows) - 1, 0, -1):
            if ctx.needs_input_grad[1]:
                to_t[i] = along(i, wanted[i - 1])
            to_y = [a + b for a, b in zip(to_y, wanted[i - 1], strict=True)]
            to_y, parts = _back(work, rows[i], to_y, i)
            to_known = [a + b for a, b in zip(to_known, parts, strict=True)]
        if ctx.needs_input_grad[1]:
            to_t[0] = -along(0, to_y)
        return (None, to_t, *to_y, *to_known)


def _back(
    work: _Work, y: list[Tensor], to_y: list[Tensor], i: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Carry the adjoint from output ``i`` to the one before."""
    n = work.leaves
    # The equation is linear in the adjoint: it is solved in units of its own size, so that an
    # absolute tolerance means the same for a sum over samples and for a mean.
    size = max(float(a.abs().max()) if a.numel() else 0.0 for a in to_y)
    if size == 0.0:
        return to_y, [torch.zeros_like(x) for x in work.known]

    def slopes(time: Time, state: list[Tensor]) -> list[Tensor]:
        with torch.enable_grad():
            at = [x.detach().requires_grad_() for x in state[:n]]
            forward = work.f(time, at)
        pairs = [(k, a) for k, a in zip(forward, state[n : 2 * n], strict=True) if k.requires_grad]
        inputs = [*at, *work.known]
        found: tuple[Tensor | None, ...] = (None,) * len(inputs)
        if pairs:
            # The graph that leads to what a closure holds is needed again by the next evaluation.
            values, covectors = zip(*pairs, strict=True)
            found = torch.autograd.grad(
                values, inputs, covectors, retain_graph=True, allow_unused=True
            )
        back = [
            torch.zeros_like(x) if g is None else -g for g, x in zip(found, inputs, strict=True)
        ]
        return [k.detach() for k in forward] + back

    state = [*y, *(a / size for a in to_y), *(torch.zeros_like(x) for x in work.known)]
    flags = (*work.control.in_norm, *(True,) * n, *(False,) * len(work.known))
    done = work.run(
        partial(rk_step, slopes, work.tableau),
        slopes,
        state,
        [work.times[i], work.times[i - 1]],
        replace(work.control, in_norm=flags),
    )
    if done.status is not None and bool((done.status != Status.OK).any()):
        assert done.last_t is not None
        raise IntegrationError(
            f"the adjoint equation could not be solved back beyond t = "
            f'{float(done.last_t.max()):g}; grad="direct" or "checkpoint" need not solve it',
            None,
        )
    end = [size * x for x in done.end[n:]]
    return end[:n], end[n:]

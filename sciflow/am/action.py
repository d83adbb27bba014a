"""The action of a fitted flow, measured along its own samples and by the dual objective."""

from __future__ import annotations

from typing import Any

import torch

from sciflow.am.model import Action, ActionPotential
from sciflow.am.objective import ActionMatching
from sciflow.am.source import PathSource
from sciflow.integrators import SDE, integrate
from sciflow.shapes import Tensor

# Samples that the action is measured on.
_MEASURED = 4096
_NOISY_STEP = 0.005


def measure_action(
    model: ActionPotential, objective: ActionMatching, source: PathSource
) -> Action:
    """Action along the fitted flow, and its dual estimate, in units of the data.

    Args:
        model: fitted potential.
        objective: what it was fitted by.
        source: where its batches came from; its first snapshot is moved.
    """
    unit = model.scale.length**2 / model.scale.duration
    device, dtype = model.center.device, model.center.dtype
    lagrangian = objective.lagrangian
    penalty = lagrangian.growth_penalty
    first = source.first[:_MEASURED].to(device, dtype)

    def field(t: Tensor, state: Any) -> Any:
        x, log_weight, _ = state
        t = t.to(dtype).expand(len(x))
        s, _, v = model.derivatives(t, x, create_graph=False)
        growth = torch.zeros_like(s) if penalty is None else penalty * s
        energy = 0.5 * v.square().sum(-1) - lagrangian.energy(t, x)
        if penalty is not None:
            energy = energy + 0.5 * growth.square() / penalty
        return v, growth, log_weight.exp() * energy

    zero = first.new_zeros(len(first))
    state = (first, zero, zero)
    span = torch.tensor([0.0, 1.0], dtype=dtype, device=device)
    with torch.no_grad():
        if lagrangian.sigma > 0:
            moving = SDE(field, (lagrangian.sigma, 0.0, 0.0))
            moved = integrate(moving, state, span, "sra1", dt=_NOISY_STEP, seed=0)
        else:
            moved = integrate(field, state, span)
    generator = torch.Generator(source.device).manual_seed(2**31)
    batch = source.sample(4 * _MEASURED, generator)
    batch = type(batch)(*(x.to(device, dtype) for x in batch))
    # The objective still holds the last weights; the fit returns their average.
    objective.model = model
    objective.generator = torch.Generator(device).manual_seed(2**31)
    dual = -float(objective(batch).value.detach())
    rollout = float(moved.y[2][-1].mean()) * source.mass_first
    return Action(rollout * unit, dual * unit)

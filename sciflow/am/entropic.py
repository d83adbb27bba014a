"""Entropic optimal transport, balanced and unbalanced, by Sinkhorn's iteration."""

from __future__ import annotations

import torch

from sciflow.errors import SciflowError
from sciflow.shapes import Float, Tensor

_ROUND = 20  # iterations between absorptions of the scalings into the potentials
_ROUNDS = 500
_TOLERANCE = 1e-4


def entropic_plan(
    cost: Float[Tensor, "left right"],
    masses: tuple[float, float],
    epsilon: float,
    unbalanced: bool,
) -> Float[Tensor, "left right"]:
    """Plan between two sets of points of equal weight, with entropy relative to their product.

    Minimises ``<cost, P> + epsilon KL(P | a x b)`` with marginals a and b, or, unbalanced, with
    ``KL(P 1 | a) + KL(P' 1 | b)`` in place of the constraint (Chizat et al., Math. Comput. 87,
    2563 (2018)). Epsilon falls step by step to its value, and scalings are absorbed into the
    potentials before they overflow.

    Args:
        cost: (n, m), float64; infinite where no mass may go.
        masses: totals of a and b; both one where it is balanced.
        epsilon: entropic regularisation, in the unit of the cost.
        unbalanced: whether the marginals are soft.

    Raises:
        SciflowError: the iteration did not converge.
    """
    n, m = cost.shape
    a, b = masses[0] / n, masses[1] / m
    f, g = cost.new_zeros(n), cost.new_zeros(m)
    finite = cost[cost.isfinite()]
    now = max(float(finite.max()) if len(finite) else 0.0, epsilon)
    change = 0.0
    while True:
        damping = 1 / (1 + now) if unbalanced else 1.0
        for _ in range(_ROUNDS if now <= epsilon else 2):
            # A row or column that no finite cost reaches keeps a potential of zero, and no mass.
            kernel = torch.exp((f[:, None] + g - cost) / now)
            u, v = torch.ones_like(f), torch.ones_like(g)
            for _ in range(_ROUND):
                u_new = _scaling(f, kernel @ v * b, now, damping)
                change = float((u_new / u).log().abs().max())
                u = u_new
                v = _scaling(g, kernel.T @ u * a, now, damping)
            f, g = f + now * u.log(), g + now * v.log()
            if change < _TOLERANCE:
                break
        if now <= epsilon:
            break
        now = max(0.5 * now, epsilon)
    plan = torch.exp((f[:, None] + g - cost) / epsilon) * (a * b)
    if not plan.isfinite().all():
        raise SciflowError(f"Sinkhorn's iteration diverged at epsilon = {epsilon:g}")
    if not unbalanced:
        error = float((plan.sum(1) - a).abs().sum())
        if error > 0.02:
            raise SciflowError(
                f"Sinkhorn's iteration did not converge at epsilon = {epsilon:g}: the plan misses "
                f"{error:.1%} of the first marginal; take a larger sigma"
            )
    return plan


def _scaling(potential: Tensor, product: Tensor, epsilon: float, damping: float) -> Tensor:
    """Exp of the change that one half step makes to a potential, over epsilon."""
    new = damping * (potential / epsilon - product.log())
    return torch.where(product > 0, torch.exp(new - potential / epsilon), 1.0)

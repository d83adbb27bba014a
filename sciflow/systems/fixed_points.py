"""Fixed points of a velocity field and their stability: the landscape of a cell's fates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from sciflow.shapes import Bool, Float, Shaped, Tensor


@dataclass(frozen=True, eq=False)
class FixedPoints:
    """Where a velocity vanishes, and whether what stands there stays there.

    Attributes:
        x: fixed points, shape (F, d), in ascending order of the first coordinate.
        stable: True where all eigenvalues have negative real parts, shape (F,).
        eigenvalues: of the Jacobian at each, complex, shape (F, d) [1/time].
    """

    x: Float[Tensor, "points dim"]
    stable: Bool[Tensor, " points"]
    eigenvalues: Shaped[Tensor, "points dim"]


def jacobian(
    velocity: Callable[[Tensor], Tensor], x: Float[Tensor, "batch dim"]
) -> Float[Tensor, "batch dim dim"]:
    """Derivative of ``velocity``: (N, d) -> (N, d), which moves each row alone, at ``x`` (N, d).

    Returns:
        shape (N, d, d), the rows being components of the velocity.
    """
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        rows = [
            torch.autograd.grad(component, point, retain_graph=True)[0]
            for component in velocity(point).sum(0)
        ]
    return torch.stack(rows, 1)


def find_fixed_points(
    velocity: Callable[[Tensor], Tensor],
    starts: Float[Tensor, "batch dim"],
    max_step: float,
    tolerance: float = 1e-10,
) -> FixedPoints:
    """Find fixed points by Newton's method from many starts.

    Args:
        velocity: (N, d) -> (N, d), each row alone.
        starts: shape (N, d), best in float64.
        max_step: largest change of a coordinate in one step, of the size of a basin.
        tolerance: largest speed, in any coordinate, of what counts as a fixed point.

    Returns:
        The distinct points that were reached; points no start leads to are missed.
    """
    x = starts
    for _ in range(60):
        # At a bifurcation the Jacobian is singular: the pseudo-inverse goes on regardless.
        inverse = torch.linalg.pinv(jacobian(velocity, x))
        step = (inverse @ velocity(x)[..., None])[..., 0]
        # Bounded steps keep a start near a fold from leaving for another basin.
        x = x - step.clamp(-max_step, max_step)
        if step.abs().max() < 1e-14:
            break
    x = x[velocity(x).abs().amax(1) < tolerance]
    # Of starts that met at one point the first is kept.
    near = torch.cdist(x, x) < 1e-6
    x = x[near.tril(-1).sum(1) == 0]
    x = x[x[:, 0].argsort()]
    eigenvalues = torch.linalg.eigvals(jacobian(velocity, x))
    return FixedPoints(x, eigenvalues.real.amax(1) < 0, eigenvalues)

"""The canonical map into a chart: curvilinear coordinates with their conjugate momenta."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from sciflow.shapes import Float, Tensor
from sciflow.systems.charts import Chart


class ChartMap:
    """Phase space (q, p) of a system to (xi, p_xi) of a chart, and back.

    Where the chart has as many coordinates as the system, p_xi = (dq/dxi)^T p. A molecule has
    six fewer: then p_xi = G^-1 B M^-1 p with B = dxi/dq and Wilson's G = B M^-1 B^T, the momenta
    of the vibration alone, and back p = B^T p_xi, which neither moves nor turns the molecule.

    It holds no parameters; its chart is a module of the model.

    Args:
        chart: the chart.
        mass: mass of each entry of q.

    Source: Wilson, Decius, Cross, Molecular Vibrations (1955), chapter 4.
    """

    def __init__(self, chart: Chart, mass: Float[Tensor, "*shape"]) -> None:
        self.chart, self.mass = chart, mass
        self.square = math.prod(mass.shape) == chart.n_dim

    def forward(
        self, q: Float[Tensor, "batch *shape"], p: Float[Tensor, "batch *shape"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """Coordinates xi and momenta p_xi."""
        if self.square:
            xi = self.chart(q)[0]
            return xi, _pulled(lambda x: self.chart.inverse(x)[0], xi, p)
        xi, velocity = self._velocity(q, p / self.mass)
        return xi, torch.linalg.solve(self.chart.metric(q, self.mass), velocity)

    def _velocity(self, q: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Xi and B v: the derivative, by a cotangent, of the vector-Jacobian product with B."""
        track = torch.is_grad_enabled() and (q.requires_grad or v.requires_grad)
        with torch.enable_grad():
            q = q if track and q.requires_grad else q.detach().requires_grad_()
            xi = self.chart(q)[0]
            cotangent = torch.zeros_like(xi, requires_grad=True)
            (pulled,) = torch.autograd.grad(xi, q, cotangent, create_graph=True)
            (velocity,) = torch.autograd.grad(pulled, cotangent, v, create_graph=track)
        return (xi if track else xi.detach()), velocity

    def inverse(
        self, xi: Float[Tensor, "batch dim"], p_xi: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch *shape"], Float[Tensor, "batch *shape"]]:
        """Coordinates q and momenta p."""
        q = self.chart.inverse(xi)[0]
        return q, self.pulled(q, p_xi)

    def pulled(
        self, q: Float[Tensor, "batch *shape"], p_xi: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch *shape"]:
        """Momenta p = B^T p_xi at ``q``."""
        return _pulled(lambda x: self.chart(x)[0], q, p_xi)


def _pulled(f: Callable[[Tensor], Tensor], x: Tensor, cotangent: Tensor) -> Tensor:
    """cotangent^T df/dx; with a graph where ``x`` or the cotangent has one."""
    track = torch.is_grad_enabled() and (x.requires_grad or cotangent.requires_grad)
    with torch.enable_grad():
        x = x if track and x.requires_grad else x.detach().requires_grad_()
        (out,) = torch.autograd.grad(f(x), x, cotangent, create_graph=track)
    return out

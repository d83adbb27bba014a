"""Action matching (Neklyudov et al., arXiv:2210.06662)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from sciflow.am.coupling import PathBatch
from sciflow.am.lagrangians import Lagrangian
from sciflow.am.model import ActionPotential
from sciflow.am.path import Geodesic, PathPoint
from sciflow.shapes import Float, Tensor
from sciflow.train import Loss

Estimator = Literal["pathwise", "dual"]


class ActionMatching(nn.Module):
    """Fit the potential whose gradient moves the samples of a path.

    ``"dual"`` is the loss of action matching (eq. 5 there),

        E s(0, x_0) - E s(1, x_1) + integral of E[d_t s + |grad s|^2 / 2] dt,

    whose minimum is minus the kinetic action. Along a path of known velocity x' the boundary
    terms and d_t s are the integral of ``-grad s . x'``, so that the same expectation is

        integral of E[|grad s|^2 / 2 - grad s . x'] dt,

    the estimator ``"pathwise"``: as unbiased, without the variance of the boundary terms.

    Args:
        model: potential to fit.
        lagrangian: in the units of the model's network.
        path: module from a batch to a ``PathPoint``; straight lines by default.
        estimator: one of the two.
    """

    def __init__(
        self,
        model: ActionPotential,
        lagrangian: Lagrangian,
        path: nn.Module | None = None,
        estimator: Estimator = "pathwise",
    ) -> None:
        super().__init__()
        if estimator not in ("pathwise", "dual"):
            raise ValueError(f"estimator must be 'pathwise' or 'dual'; got {estimator!r}")
        self.model, self.lagrangian, self.estimator = model, lagrangian, estimator
        self.path = path if path is not None else Geodesic()

    def forward(self, batch: PathBatch) -> Loss:
        """Loss of a batch; ``value`` estimates minus the action (network units) at the optimum."""
        point = self.path(batch)
        terms = (
            self.dual(batch, point.x) if self.estimator == "dual" else self.pathwise(batch, point)
        )
        value = torch.stack(list(terms.values())).sum()
        return Loss(value, {name: term.detach() for name, term in terms.items()})

    def dual(self, batch: PathBatch, x: Float[Tensor, "n dim"]) -> dict[str, Tensor]:
        """Terms of the dual objective at points ``x`` of the path."""
        _, s_t, velocity = self.model.derivatives(batch.t, x, create_graph=True)
        zero, one = torch.zeros_like(batch.t), torch.ones_like(batch.t)
        boundary = self.model(zero, batch.first) - self.model(one, batch.last)
        hamiltonian = self.lagrangian.hamiltonian(batch.t, x, s_t, velocity)
        return {"boundary": boundary.mean(), "hamiltonian": hamiltonian.mean()}

    def pathwise(self, batch: PathBatch, point: PathPoint) -> dict[str, Tensor]:
        """Terms of the dual objective, integrated by parts along the path."""
        _, _, velocity = self.model.derivatives(batch.t, point.x, create_graph=True)
        # The boundary terms and d_t s, as an integral along the path.
        transport = -(velocity * point.velocity).sum(-1)
        hamiltonian = self.lagrangian.hamiltonian(batch.t, point.x, transport, velocity)
        return {"action": hamiltonian.mean()}

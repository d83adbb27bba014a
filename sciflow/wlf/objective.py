"""The min-max objective of Wasserstein Lagrangian flows (arXiv:2310.10649, eq. 14 and alg. 1)."""

from __future__ import annotations

import torch

from sciflow.am.lagrangians import Lagrangian
from sciflow.am.model import ActionPotential
from sciflow.am.objective import ActionMatching, Estimator
from sciflow.am.path import ConditionalPath
from sciflow.am.source import PathBatch
from sciflow.am.times import Times
from sciflow.shapes import Float, Tensor
from sciflow.train import Loss


class WassersteinLagrangianFlow(ActionMatching):
    """Action matching along a path that is learned with it.

    The least action over all paths between the snapshots is

        inf over paths  sup over s of  E s(1, x_1) - E s(0, x_0) - integral of E H(t, x, s) dt.

    Minus that integral is the loss here: the potential descends it and the path, a maximiser,
    climbs it (the trainer's parameter groups ``model`` and ``path`` have opposite signs).

    Args:
        model: potential to fit.
        lagrangian: in the units of the model's network.
        path: path with a bend.
        estimator: see ``ActionMatching``; inner moves need ``"dual"``.
        inner_moves: gradient steps that move path points up the Hamiltonian before the potential
            sees them, the inner problem of algorithm 1 there.
        inner_step: size of such a step, in network units.
        times: see ``ActionMatching``.

    Raises:
        ValueError: inner moves with the pathwise estimator, or a negative number of them.
    """

    def __init__(
        self,
        model: ActionPotential,
        lagrangian: Lagrangian,
        path: ConditionalPath,
        estimator: Estimator = "pathwise",
        inner_moves: int = 0,
        inner_step: float = 0.01,
        times: Times | None = None,
    ) -> None:
        super().__init__(model, lagrangian, path, estimator, times=times)
        if inner_moves < 0:
            raise ValueError(f"inner_moves must not be negative; got {inner_moves}")
        if inner_moves and estimator != "dual":
            raise ValueError(
                "inner_moves leave the path, whose velocity the pathwise estimator needs: "
                "use estimator='dual'"
            )
        self.inner_moves, self.inner_step = inner_moves, inner_step

    def forward(self, batch: PathBatch) -> Loss:
        """Loss of a batch, descended by the model and climbed by the path."""
        point = self.path(batch)
        if self.inner_moves:
            moved = self._move(batch, point.x.detach())
            # The path is pulled by the gradient at the moved point, the potential sits there.
            point = point._replace(x=point.x + (moved - point.x).detach())
        return self.loss(batch, point)

    def _move(self, batch: PathBatch, x: Float[Tensor, "m dim"]) -> Float[Tensor, "m dim"]:
        t = self.path.twice(batch.t)
        u = (batch.t - batch.t_left) / (batch.t_right - batch.t_left)
        weight = self.inner_step * self.path.twice(2 * u * (1 - u))[:, None]
        for _ in range(self.inner_moves):
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                s, s_t, velocity = self.model.derivatives(t, x, create_graph=True)
                h = self.lagrangian.hamiltonian(t, x, s, s_t, velocity)
                (slope,) = torch.autograd.grad(h.sum(), x)
            x = x + weight * slope.clamp(-1.0, 1.0)
        return x.detach()

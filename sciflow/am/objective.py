"""Action matching (Neklyudov et al., arXiv:2210.06662)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

from sciflow.am.lagrangians import Lagrangian
from sciflow.am.model import ActionPotential
from sciflow.am.path import ConditionalPath, PathPoint
from sciflow.am.source import PathBatch
from sciflow.am.times import Times
from sciflow.integrators.divergence import rademacher
from sciflow.shapes import Float, Tensor
from sciflow.train import Loss

Estimator = Literal["pathwise", "dual"]
TimeWeight = Callable[[Tensor], Tensor]

# Up to so many dimensions the Laplacian is exact, beyond it is Hutchinson's estimate.
_EXACT_DIMS = 10


class ActionMatching(nn.Module):
    """Fit the potential whose gradient moves the samples of a path, and whose value grows them.

    ``"dual"`` is the loss of action matching (eq. 5 there; 14 in arXiv:2310.10649),

        m_0 E s(0, x_0) - m_1 E s(1, x_1) + integral of E[m_t H(t, x_t, s)] dt,

    whose minimum is minus the action. Along a path of known velocity x' and mass m the boundary
    terms and the derivative of s in time are the integral of ``- m grad s . x' - m' s``, so that
    the same expectation is

        integral of E[m (|grad s|^2 / 2 + lambda s^2 / 2 + U - grad s . x') - m' s] dt,

    the estimator ``"pathwise"``: as unbiased, without the variance of the boundary terms, and,
    with noise, without a Laplacian, since x' is then the drift of the bridge (Ito's formula).

    The loss plus the action of the exact solution is a certificate: half the mean squared error
    of the velocity, plus that of the growth over the growth penalty.

    Args:
        model: potential to fit.
        lagrangian: in the units of the model's network.
        path: module from a batch to a ``PathPoint``; by default that of the Lagrangian.
        estimator: one of the two.
        weight: weight w(t) of the times in [0, 1], (n,) to (n,), differentiable; a boundary term
            vanishes where it is zero. None weighs evenly.
        times: learns where the loss varies, if it is adaptive.

    Raises:
        ValueError: another estimator.
    """

    def __init__(
        self,
        model: ActionPotential,
        lagrangian: Lagrangian,
        path: ConditionalPath | None = None,
        estimator: Estimator = "pathwise",
        weight: TimeWeight | None = None,
        times: Times | None = None,
    ) -> None:
        super().__init__()
        if estimator not in ("pathwise", "dual"):
            raise ValueError(f"estimator must be 'pathwise' or 'dual'; got {estimator!r}")
        self.model, self.lagrangian, self.estimator = model, lagrangian, estimator
        self.path = path if path is not None else ConditionalPath(lagrangian)
        self.weight, self.times = weight, times
        self.generator: torch.Generator | None = None

    def forward(self, batch: PathBatch) -> Loss:
        """Loss of a batch; ``value`` estimates minus the action (network units) at the optimum."""
        return self.loss(batch, self.path(batch))

    def loss(self, batch: PathBatch, point: PathPoint) -> Loss:
        """Loss of the points of a batch on the path."""
        t = self.path.twice(batch.t)
        terms = self.dual(batch, t, point) if self.estimator == "dual" else self.pathwise(t, point)
        if self.times is not None:
            self.times.learn(t, terms["integral"])
        terms["integral"] = terms["integral"] / self.path.twice(batch.density)
        means = {name: term.mean() for name, term in terms.items()}
        value = torch.stack(list(means.values())).sum()
        return Loss(value, {name: term.detach() for name, term in means.items()})

    def dual(self, batch: PathBatch, t: Float[Tensor, "m"], point: PathPoint) -> dict[str, Tensor]:
        """Terms of the dual objective at points of the path, for each sample."""
        x = point.x
        noisy = self.lagrangian.sigma > 0
        if noisy:
            x = x if x.requires_grad else x.detach().requires_grad_()
        s, s_t, velocity = self.model.derivatives(t, x, create_graph=True)
        laplacian = self._laplacian(x, velocity) if noisy else None
        hamiltonian = self.lagrangian.hamiltonian(t, x, s, s_t, velocity, laplacian)
        zero, one = torch.zeros_like(batch.t), torch.ones_like(batch.t)
        first = batch.mass_first * self.model(zero, batch.first)
        last = batch.mass_last * self.model(one, batch.last)
        if self.weight is None:
            return {"boundary": first - last, "integral": point.mass * hamiltonian}
        w, w_t = _with_slope(self.weight, t)
        ends = self.weight(zero) * first - self.weight(one) * last
        return {"boundary": ends, "integral": point.mass * (w * hamiltonian + w_t * s)}

    def pathwise(self, t: Float[Tensor, "m"], point: PathPoint) -> dict[str, Tensor]:
        """The dual objective integrated by parts along the path, for each sample."""
        s, _, velocity = self.model.derivatives(t, point.x, create_graph=True)
        # The boundary terms and d_t s, as an integral along the path.
        transport = -(velocity * point.velocity).sum(-1)
        hamiltonian = self.lagrangian.hamiltonian(t, point.x, s, transport, velocity)
        integral = point.mass * hamiltonian - point.mass_rate * s
        return {"integral": integral if self.weight is None else self.weight(t) * integral}

    def _laplacian(
        self, x: Float[Tensor, "m dim"], velocity: Float[Tensor, "m dim"]
    ) -> Float[Tensor, "m"]:
        if x.shape[1] <= _EXACT_DIMS:
            columns = (
                torch.autograd.grad(velocity[:, i].sum(), x, create_graph=True)[0][:, i]
                for i in range(x.shape[1])
            )
            return torch.stack(list(columns)).sum(0)
        if self.generator is None:
            raise ValueError("a Laplacian in many dimensions needs a generator in `generator`")
        probe = rademacher(x, self.generator)
        (product,) = torch.autograd.grad(velocity, x, probe, create_graph=True)
        return (product * probe).sum(-1)


def _with_slope(weight: TimeWeight, t: Tensor) -> tuple[Tensor, Tensor]:
    """Values of the weight and of its derivative."""
    with torch.enable_grad():
        t = t.detach().requires_grad_()
        w = weight(t)
        (slope,) = torch.autograd.grad(w.sum(), t, materialize_grads=True)
    return w.detach(), slope

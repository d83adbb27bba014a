"""Maximum likelihood, with what keeps it honest and what keeps it smooth."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sciflow.cnf.march import knots, march
from sciflow.cnf.model import ContinuousFlow
from sciflow.shapes import Float, Tensor
from sciflow.train import Loss


class MaximumLikelihood(nn.Module):
    """Mean of -log p over a batch of data, by backpropagation through constant steps.

    The batch is x (B, d), or (x, context); the loss is in nats per volume of the data. To it are
    added the solver's error (see `march`), and where wished the kinetic energy and the norm of
    the Jacobian along the paths (RNODE: Finlay, Jacobsen, Nurbekyan, Oberman, ICML 2020,
    arXiv:2002.02798, eqs. 7 and 8), which make fields that need few steps.

    Args:
        model: flow to fit.
        n_steps: constant steps.
        method: method with an error estimate.
        error_penalty: weight of the summed squared local errors.
        kinetic: weight of the integral of |f|^2.
        jacobian: weight of the integral of the squared Frobenius norm of the Jacobian.
    """

    def __init__(
        self,
        model: ContinuousFlow,
        n_steps: int = 6,
        method: str = "bosh3",
        error_penalty: float = 30.0,
        kinetic: float = 0.0,
        jacobian: float = 0.0,
    ) -> None:
        super().__init__()
        self.model, self.n_steps, self.method = model, n_steps, method
        self.weights = {"error": error_penalty, "kinetic": kinetic, "jacobian": jacobian}
        self.generator: torch.Generator | None = None

    def forward(self, batch: Any) -> Loss:
        """Penalised negative log-likelihood of a batch."""
        x, context = batch if isinstance(batch, tuple) else (batch, None)
        log_p, penalties = self._log_prob(x, context, self.generator)
        nll = -log_p.mean()
        value = nll + torch.stack([self.weights[k] * v for k, v in penalties.items()]).sum()
        metrics = {"nll": nll} | {k: v for k, v in penalties.items() if self.weights[k]}
        return Loss(value, {name: x.detach() for name, x in metrics.items()})

    @torch.no_grad()
    def coarse_log_prob(
        self, model: ContinuousFlow, x: Float[Tensor, "batch dim"], context: Tensor | None = None
    ) -> Float[Tensor, " batch"]:
        """What the constant steps of the training make of the density of ``model``."""
        own, self.model = self.model, model
        try:
            return self._log_prob(x, context, None)[0]
        finally:
            self.model = own

    def _log_prob(
        self, x: Tensor, context: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        flow = self.model
        way = march(
            flow.field_at(context),
            flow.to_unit(x),
            knots(self.n_steps, generator)[::-1],
            self.method,
            flow.trace,
            generator or torch.Generator(x.device).manual_seed(0),
            self.weights["kinetic"] > 0,
            self.weights["jacobian"] > 0,
        )
        log_p = flow.base.log_prob(way.y) + way.change - flow.scale.log().sum()
        return log_p, {"error": way.error, "kinetic": way.kinetic, "jacobian": way.jacobian}

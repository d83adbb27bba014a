"""Reverse Kullback-Leibler divergence to a Boltzmann density, from the energy alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from sciflow.cnf.march import knots, march
from sciflow.cnf.model import ContinuousFlow
from sciflow.shapes import Float, Tensor
from sciflow.train import Loss

Energy = Callable[[Tensor], Tensor]


class ReverseKL(nn.Module):
    """Mean of U(x) / kT + log p(x) over samples x of the flow.

    It is KL(p || exp(-U / kT) / Z) - log Z, so that kT times it bounds the free energy -kT log Z
    from above. Where the flow has no samples it learns nothing: a mode that it does not know at
    the start may stay unknown, so that samples, if there are any, belong into the mixture.

    The batch is z (B, d), draws of the base.

    Args:
        model: flow to fit.
        energy: U(x), (B, d) to (B,), differentiable.
        kT: thermal energy, in units of U.
        n_steps: constant steps.
        method: method with an error estimate.
        error_penalty: weight of the summed squared local errors, see `march`.
        ceiling: reduced energies u = U / kT above it are softened to ceiling + log(1 + u -
            ceiling): the steep walls of an energy would else drown all other gradients. The
            loss bounds the free energy only while no sample is above.
    """

    def __init__(
        self,
        model: ContinuousFlow,
        energy: Energy,
        kT: float = 1.0,
        n_steps: int = 6,
        method: str = "bosh3",
        error_penalty: float = 30.0,
        ceiling: float | None = None,
    ) -> None:
        super().__init__()
        if not 0 < kT < float("inf"):
            raise ValueError(f"kT must be positive and finite; got {kT}")
        self.model, self.energy, self.kT = model, energy, kT
        self.n_steps, self.method = n_steps, method
        self.error_penalty, self.ceiling = error_penalty, ceiling
        self.generator: torch.Generator | None = None

    def forward(self, batch: Tensor) -> Loss:
        """Penalised free-energy bound of a batch, in units of kT."""
        flow, z = self.model, batch
        way = march(
            flow.field_at(None),
            z,
            knots(self.n_steps, self.generator),
            self.method,
            flow.trace,
            self.generator,
        )
        u = checked_energy(self.energy, flow.to_data_units(way.y)) / self.kT
        log_p = flow.base.log_prob(z) - way.change - flow.scale.log().sum()
        if self.ceiling is not None:
            above = (u - self.ceiling).clamp(min=0)
            u = torch.where(u > self.ceiling, self.ceiling + above.log1p(), u)
        bound = (u + log_p).mean()
        value = bound + self.error_penalty * way.error
        metrics = {"free_energy_bound": bound, "energy": u.mean(), "error": way.error}
        return Loss(value, {name: x.detach() for name, x in metrics.items()})


def checked_energy(energy: Energy, x: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
    """``energy(x)``, refused where it is not one number per sample.

    Raises:
        TypeError: it is no tensor.
        ValueError: its shape is not (B,), or a value is NaN.
    """
    u = energy(x)
    if not isinstance(u, Tensor):
        raise TypeError(f"energy must return a tensor; got {type(u).__name__}")
    if u.shape != x.shape[:1]:
        raise ValueError(
            f"energy must return shape ({len(x)},), one value for each of {tuple(x.shape)}; "
            f"got {tuple(u.shape)}"
        )
    bad = u.detach().isnan()
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise ValueError(f"energy is NaN for {int(bad.sum())} of {len(x)} samples, first {row}")
    return u

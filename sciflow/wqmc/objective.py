"""Gradient flows of the energy, projected on the ansatz: the metrics of Wasserstein QMC.

Neklyudov et al., NeurIPS 2023, arXiv:2307.07050. With q = psi^2, the energy functional has the
first variation E_loc. Its Fisher-Rao flow teleports mass by -(E_loc - mean) and gives the usual
gradient of variational Monte Carlo; its Wasserstein flow moves walkers along -grad E_loc.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.func import functional_call

from sciflow.shapes import Bool, Float, Tensor
from sciflow.train import Loss
from sciflow.train.natural import Direction
from sciflow.wqmc.ansatz import Wavefunction
from sciflow.wqmc.physics import Coulomb, local_energy, local_energy_gradient

# Mean absolute deviations from the median beyond which energies are clipped, scores masked.
CLIP = 5.0
# Share of local energies that may be nan before a run is stopped.
_BAD = 0.01


class Metric(NamedTuple):
    """Shares of the two gradients; a metric is one entry of ``METRICS``."""

    fisher_rao: float
    wasserstein: float


METRICS: dict[str, Metric] = {
    "fisher-rao": Metric(1.0, 0.0),
    "wasserstein": Metric(0.0, 1.0),
    "joint": Metric(1.0, 1.0),
}


def _bounded(force: Tensor) -> Tensor:
    """At most the length 1 per coordinate, in the direction of the force."""
    length = force.flatten(1).norm(dim=1)[:, None, None]
    longest = (force[0].numel()) ** 0.5
    return force * (longest / length).clamp(max=1.0)


# Velocity of a walker, up to its sign, by the gradient of E_loc [hartree/bohr]: the cost of
# transport. tanh is that of the paper: bounded where nuclei and nodes make the gradient diverge.
VELOCITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "sign": torch.sign,
    "l2": lambda force: force,
    "clip": _bounded,
}


def clip_to_median(values: Float[Tensor, "batch"], width: float = CLIP) -> Float[Tensor, "batch"]:
    """Values at most ``width`` mean absolute deviations away from their median."""
    middle = values.median()
    reach = width * (values - middle).abs().mean()
    return values.clamp(middle - reach, middle + reach)


class GroundStateEnergy(nn.Module):
    """The energy of a wave function, and its gradient in one of the metrics.

    Args:
        model: wave function.
        metric: key of ``METRICS``.
        velocity: key of ``VELOCITIES``, for the Wasserstein part.

    Raises:
        ValueError: an unknown metric or velocity.
    """

    def __init__(
        self, model: Wavefunction, metric: str = "fisher-rao", velocity: str = "tanh"
    ) -> None:
        super().__init__()
        for name, key, table in (
            ("metric", metric, METRICS),
            ("velocity", velocity, VELOCITIES),
        ):
            if key not in table:
                raise ValueError(f"{name} must be one of {', '.join(table)}; got {key!r}")
        self.model, self.metric = model, METRICS[metric]
        self.velocity = VELOCITIES[velocity]
        self.potential = Coulomb(model.molecule)

    def log_density(self, params: dict[str, Tensor], sample: Tensor) -> Tensor:
        """The log q = 2 log|psi| of one walker (N, 3)."""
        return 2 * functional_call(self.model, params, (sample[None],))[1][0]

    def direction(self, batch: Float[Tensor, "batch electron 3"]) -> Direction:
        """Gradient at walkers (B, N, 3) that are distributed by q.

        Local energies that are not finite take no part; their share is the metric ``bad``, and
        the loss is nan where it exceeds 1 %.
        """
        force = None
        if self.metric.wasserstein:
            local, force = local_energy_gradient(self.model.log_psi, self.potential, batch)
        else:
            with torch.no_grad():
                local = local_energy(self.model.log_psi, self.potential, batch)
        good = torch.isfinite(local.energy)
        if force is not None:
            good &= torch.isfinite(force).all((1, 2)) if force.ndim == 3 else good
        energies = local.energy[good]
        bad = (~good).double().mean()
        if float(bad) > _BAD:
            value = local.energy.new_tensor(float("nan"))
            return Direction(Loss(value, {"bad": bad}), torch.zeros_like(local.energy))
        value = energies.mean()
        metrics = {"energy": value, "variance": energies.var(), "bad": bad}
        residual = torch.zeros_like(local.energy)
        clipped = clip_to_median(energies)
        residual[good] = self.metric.fisher_rao * (clipped - clipped.mean())
        surrogate = None
        if force is not None:
            surrogate = self.metric.wasserstein * self._transport(batch, force, local.score, good)
        return Direction(Loss(value, metrics), residual, surrogate)

    def _transport(
        self,
        x: Float[Tensor, "batch electron 3"],
        force: Float[Tensor, "batch electron 3"],
        score: Float[Tensor, "batch electron 3"],
        good: Bool[Tensor, "batch"],
    ) -> Float[Tensor, ""]:
        """Surrogate of the Wasserstein gradient: E <velocity(grad E_loc), grad_x log q>."""
        size = score.flatten(1).norm(dim=1)
        middle = size[good].median()
        reach = middle + CLIP * (size[good] - middle).abs().mean()
        kept = good & (size < reach) | (good & (size <= middle))
        point = x[kept].detach().requires_grad_()
        log_q = 2 * self.model.log_psi(point)
        (flow,) = torch.autograd.grad(log_q.sum(), point, create_graph=True)
        return (self.velocity(force[kept]) * flow).sum((1, 2)).mean()

    def forward(self, batch: Any) -> Loss:
        """The energy as a loss whose backward pass gives the gradient in the metric."""
        found = self.direction(batch)
        total = (found.residual * 2 * self.model.log_psi(batch)).mean()
        if found.surrogate is not None:
            total = total + found.surrogate
        return Loss(found.loss.value + (total - total.detach()), found.loss.metrics)

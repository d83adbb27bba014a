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
from sciflow.train import Engine, Loss
from sciflow.train.natural import Direction
from sciflow.wqmc.ansatz import Wavefunction
from sciflow.wqmc.physics import Coulomb, LocalEnergy, local_energy, local_energy_gradient

# Mean absolute deviations from the median beyond which energies are clipped, scores masked.
CLIP = 5.0
# Share of local energies that may be nan before a run is stopped.
_BAD = 0.01
# Entries of a Jacobian that are in memory together; for its reverse pass all layers are kept.
_FORWARD, _REVERSE = 2**27, 2**24


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

    Under torchrun each process has its walkers; medians, means and clips are those of all.

    Args:
        model: wave function.
        metric: key of ``METRICS``.
        velocity: key of ``VELOCITIES``, for the Wasserstein part.
        sampler: figures of the walkers to log beside the energy, by name.

    Raises:
        ValueError: an unknown metric or velocity.
    """

    def __init__(
        self,
        model: Wavefunction,
        metric: str = "fisher-rao",
        velocity: str = "tanh",
        sampler: Callable[[], dict[str, float]] = dict,
    ) -> None:
        super().__init__()
        for name, key, table in (
            ("metric", metric, METRICS),
            ("velocity", velocity, VELOCITIES),
        ):
            if key not in table:
                raise ValueError(f"{name} must be one of {', '.join(table)}; got {key!r}")
        self.model, self.metric = model, METRICS[metric]
        self.velocity, self.sampler = VELOCITIES[velocity], sampler
        self.potential = Coulomb(model.molecule)

    def log_density(self, params: dict[str, Tensor], sample: Tensor) -> Tensor:
        """The log q = 2 log|psi| of one walker (N, 3)."""
        return 2 * functional_call(self.model, params, (sample[None],))[1][0]

    def direction(self, batch: Float[Tensor, "batch electron 3"]) -> Direction:
        """Gradient at walkers (B, N, 3) that are distributed by q.

        Local energies that are not finite take no part; their share is the metric ``bad``, and
        the loss is nan where it exceeds 1 %.
        """
        local, force = self._local(batch)
        good = torch.isfinite(local.energy)
        if force is not None:
            good &= torch.isfinite(force).all(2).all(1)
        engine = Engine.start(str(batch.device))
        everyone = engine.concat(torch.where(good, local.energy, torch.nan))
        kept = torch.isfinite(everyone)
        bad = (~kept).double().mean()
        if float(bad) > _BAD:
            value = local.energy.new_tensor(float("nan"))
            return Direction(Loss(value, {"bad": bad}), torch.zeros_like(local.energy))
        energies = everyone[kept]
        value, variance = energies.mean(), energies.var()
        # The error bar takes walkers as independent in one batch, which they are.
        error = (variance / len(energies)).sqrt()
        metrics = {"energy": value, "error": error, "variance": variance, "bad": bad}
        figures = {name: value.new_tensor(v) for name, v in self.sampler().items()}
        clipped = clip_to_median(energies)
        reach = float(clipped.min()), float(clipped.max())
        shifted = local.energy.clamp(*reach) - clipped.mean()
        residual = self.metric.fisher_rao * torch.where(good, shifted, 0.0)
        surrogate = None
        if force is not None:
            surrogate = self.metric.wasserstein * self._transport(batch, force, local.score, good)
        return Direction(Loss(value, metrics | figures), residual, surrogate)

    def _local(self, x: Tensor) -> tuple[LocalEnergy, Tensor | None]:
        """Local energies, and their gradients where the metric needs them, in chunks."""
        psi, n = self.model, x.shape[1]
        jacobian = 3 * n * n * int(psi.config["width"])
        parts: list[LocalEnergy] = []
        forces: list[Tensor] = []
        most = _REVERSE if self.metric.wasserstein else _FORWARD
        for part in x.split(max(1, most // jacobian)):
            if self.metric.wasserstein:
                local, force = local_energy_gradient(psi.log_psi, self.potential, part)
                forces.append(force)
            else:
                with torch.inference_mode():
                    local = local_energy(psi.log_psi, self.potential, part)
            parts.append(local)
        whole = LocalEnergy(*map(torch.cat, zip(*parts, strict=True)))
        return whole, torch.cat(forces) if forces else None

    def _transport(
        self,
        x: Float[Tensor, "batch electron 3"],
        force: Float[Tensor, "batch electron 3"],
        score: Float[Tensor, "batch electron 3"],
        good: Bool[Tensor, "batch"],
    ) -> Float[Tensor, ""]:
        """Surrogate of the Wasserstein gradient: E <velocity(grad E_loc), grad_x log q>."""
        engine = Engine.start(str(x.device))
        size = score.flatten(1).norm(dim=1)
        sizes = engine.concat(size[good])
        middle = sizes.median()
        reach = middle + CLIP * (sizes - middle).abs().mean()
        kept = good & ((size < reach) | (size <= middle))
        share = len(engine.concat(size[kept])) / engine.world
        point = x[kept].detach().requires_grad_()
        log_q = 2 * self.model.log_psi(point)
        (flow,) = torch.autograd.grad(log_q.sum(), point, create_graph=True)
        return (self.velocity(force[kept]) * flow).sum() / share

    def forward(self, batch: Any) -> Loss:
        """The energy as a loss whose backward pass gives the gradient in the metric."""
        found = self.direction(batch)
        total = (found.residual * 2 * self.model.log_psi(batch)).mean()
        if found.surrogate is not None:
            total = total + found.surrogate
        return Loss(found.loss.value + (total - total.detach()), found.loss.metrics)

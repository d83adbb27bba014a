"""Natural modes: the rotation of the latent oscillators in which their motions are independent.

A density says nothing of directions among latent coordinates of equal variance: any rotation of
them is as good. The kinetic energy does: with z the coordinates scaled to unit variance, the
eigenvectors of E[grad z M^-1 grad z^T] are the modes whose mean kinetic energies do not mix, and
kT times its eigenvalues are their squared frequencies (Rayleigh quotients).
"""

from __future__ import annotations

import math

import torch

from sciflow.nct.layers import Linear, Reorder, Scale
from sciflow.nct.model import CanonicalTransformation
from sciflow.shapes import Float, Tensor


def mode_gradients(
    model: CanonicalTransformation, Q: Float[Tensor, "batch dim"]
) -> Float[Tensor, "dim batch *shape"]:
    """Gradient of each mode Q_k with respect to the physical coordinates, at the points of ``Q``.

    It is the physical momentum of a unit momentum of that mode.
    """
    n, basis = len(Q), torch.eye(model.n_dim, dtype=Q.dtype, device=Q.device)
    rows = [model.to_physical(Q, unit.expand(n, -1))[1] for unit in basis]
    return torch.stack(rows)


def mean_kinetic(
    model: CanonicalTransformation, Q: Float[Tensor, "batch dim"]
) -> Float[Tensor, "dim dim"]:
    """E[grad Q M^-1 grad Q^T] over the points ``Q``: the mean inverse mass matrix of the modes."""
    n = model.n_dim
    basis = torch.eye(n, dtype=Q.dtype, device=Q.device)
    total = Q.new_zeros(n, n, dtype=torch.float64)
    for points in Q.split(max(1, _ROWS // n)):
        # The gradient of a mode is the physical momentum of its unit momentum.
        momenta = basis.repeat(len(points), 1)
        p = model.to_physical(points.repeat_interleave(n, 0), momenta)[1]
        gradients = (p / model.mass.sqrt()).reshape(len(points), n, -1)
        total += torch.einsum("bki,bli->kl", gradients, gradients)
    return total / len(Q)


# Gradients in one sweep, and in all: systems of many dimensions have them at fewer points.
_ROWS, _MOST_ROWS = 2048, 2**16
#: Points further out than this, in standard deviations of a latent coordinate, are left out of
#: means. Where an angle is cut its latent coordinate runs to infinity, and if any density is left
#: there E[grad Q^2] diverges: over samples it would grow with their number.
BULK = 3.0


@torch.no_grad()
def make_natural(model: CanonicalTransformation, Q: Float[Tensor, "batch dim"]) -> None:
    """Turn the oscillators of ``model`` into natural modes, ascending; its density stays.

    Args:
        model: a model whose last layer is `Linear` over all oscillators.
        Q: latent coordinates that the mean is taken over, as far as they are in the `BULK`.
    """
    latent, last = model.latent, model.layers[-1]
    assert isinstance(last, Linear)
    line = latent.oscillators
    # z = (Q - center) omega / sqrt(kT) has unit variance
    scale = latent.log_omega.exp() / math.sqrt(model.kT)
    z = (Q[:, line] - latent.center) * scale
    furthest = z.abs().amax(1)
    # In many dimensions most points are far out in one of them: at least half of all are kept.
    Q = Q[furthest <= furthest.median().clamp(min=BULK)]
    linear = all(isinstance(layer, Linear | Scale | Reorder) for layer in model.layers)
    # The gradients of a linear map are the same everywhere.
    most = 1 if linear and model.chart is None else max(1, _MOST_ROWS // model.n_dim)
    Q = Q[:most]
    kinetic = mean_kinetic(model, Q)[line][:, line] * scale[:, None] * scale
    values, vectors = (x.to(Q) for x in torch.linalg.eigh(kinetic))
    omega = (model.kT * values).sqrt()
    turn = vectors * (omega / math.sqrt(model.kT)) / scale[:, None]
    basis = last.basis @ turn
    # The sign of a mode is free: its largest component is made positive.
    sign = basis.gather(0, basis.abs().argmax(0, keepdim=True)).sign()
    last.set_modes(last.center + last.basis @ latent.center, basis * sign)
    latent.log_omega.copy_(omega.log())
    latent.center.zero_()


@torch.no_grad()
def make_ascending(model: CanonicalTransformation) -> None:
    """Order the oscillators of ``model`` by their frequencies; its map and density stay."""
    latent, last = model.latent, model.layers[-1]
    assert isinstance(last, Linear)
    order = latent.log_omega.argsort()
    last.set_modes(last.center, last.basis[:, order])
    for values in (latent.log_omega, latent.center):
        values.copy_(values[order].clone())

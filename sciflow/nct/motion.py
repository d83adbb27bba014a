"""What the modes do: their motion in time, their shapes, and paths along one of them."""

from __future__ import annotations

import math

import torch

from sciflow.nct.model import CanonicalTransformation, PhasePoints
from sciflow.nct.natural import mode_gradients
from sciflow.shapes import Float, Tensor


@torch.no_grad()
def evolve(
    model: CanonicalTransformation,
    q: Float[Tensor, "batch *shape"],
    p: Float[Tensor, "batch *shape"],
    t: Float[Tensor, " time"],
) -> PhasePoints:
    """Motion of the latent oscillators, mapped back: exact for a system they describe exactly.

    The motion is canonical and keeps the latent energy whatever the times, with no step size; how
    far it is that of the system is for the user to check.

    Args:
        model: the model.
        q: coordinates at time zero.
        p: momenta at time zero.
        t: times (T,), in the unit of time of mass, length and energy (ps in MD units).

    Returns:
        q and p at each time, (T, B, ...).

    Raises:
        ValueError: wrong shapes.
    """
    Q, P = model.to_latent(q, p)
    states = model.latent.evolve(Q, P, t.to(Q))
    flat = [x.flatten(0, 1) for x in states]
    moved = model.to_physical(*flat)
    return PhasePoints(*(x.unflatten(0, (len(t), len(q))) for x in moved))


@torch.no_grad()
def interpolate(
    model: CanonicalTransformation,
    mode: int,
    n: int = 21,
    width: float = 2.0,
    q: Float[Tensor, "*shape"] | None = None,
) -> Float[Tensor, "n *shape"]:
    """Coordinates along one mode, with the others held where they are.

    Args:
        model: the model.
        mode: which, counted from the slowest, 0.
        n: number of points.
        width: how far to either side, in thermal standard deviations; a rotor goes round once.
        q: where the other modes are; all at rest where not given.

    Raises:
        ValueError: there is no such mode, or ``n`` or ``width`` is out of range.
    """
    if not 0 <= mode < model.n_dim:
        raise ValueError(f"mode must be between 0 and {model.n_dim - 1}; got {mode}")
    if n < 2 or not width > 0:
        raise ValueError(f"n must be at least 2 and width positive; got {n} and {width}")
    latent = model.latent
    rest = latent.coordinates(model.mass.new_zeros(1, model.n_dim))
    Q = (rest if q is None else model.modes(q[None])).expand(n, -1).clone()
    period = latent.periods[mode]
    if math.isfinite(period):
        Q[:, mode] = torch.linspace(-period / 2, period / 2, n + 1, dtype=Q.dtype)[:-1].to(Q)
    else:
        spread = math.sqrt(model.kT) / float(latent.omega()[mode])
        steps = torch.linspace(-width, width, n, dtype=Q.dtype, device=Q.device)
        Q[:, mode] = rest[0, mode] + spread * steps
    return model.coordinates_inverse(Q)[0]


@torch.no_grad()
def mode_shapes(
    model: CanonicalTransformation, q: Float[Tensor, "*shape"] | None = None
) -> Float[Tensor, "dim *shape"]:
    """Displacement pattern dq/dQ_k of each mode, in each row scaled to unit sum m (dq)^2.

    In a molecule it is the displacement that neither moves nor turns the whole.

    Args:
        model: the model.
        q: where; the point at which all modes are at rest where not given. In a harmonic system
            the shapes are the same everywhere.
    """
    rest = model.latent.coordinates(model.mass.new_zeros(1, model.n_dim))
    Q = rest if q is None else model.modes(q[None])
    # With J = sqrt(M)^-1 dQ/dq in mass-weighted coordinates, the rows of its pseudoinverse.
    jacobian = (mode_gradients(model, Q)[:, 0] / model.mass.sqrt()).flatten(1)
    shapes = torch.linalg.pinv(jacobian).T
    shapes = shapes / shapes.norm(dim=1, keepdim=True)
    return shapes.reshape(-1, *model.mass.shape) / model.mass.sqrt()

"""The aligned molecule: a rigid frame fixed to it, and the volume of what it moves through."""

from __future__ import annotations

import math

import torch

from sciflow.errors import numbers_known
from sciflow.shapes import Float, Tensor

Points = Float[Tensor, "batch atom 3"]


def center(x: Points, weights: Float[Tensor, " atom"]) -> Points:
    """Positions about their weighted centre."""
    mean = (weights[:, None] * x).sum(1, keepdim=True) / weights.sum()
    return x - mean


def align(
    x: Points, reference: Float[Tensor, "atom 3"], weights: Float[Tensor, " atom"]
) -> Points:
    """Move each structure rigidly to the least weighted square distance from the reference.

    The result fulfils the conditions of Eckart with the weights as masses exactly:
    sum w x = 0 and sum w x_ref x x = 0, so that it lies in a linear space of 3N - 6 dimensions.

    Args:
        x: (B, N, 3) positions.
        reference: (N, 3) positions, about their weighted centre.
        weights: (N,) positive weights.

    Source: Kabsch, Acta Cryst. A 32, 922 (1976); Kudin, Dymarsky, J. Chem. Phys. 122, 224105
    (2005), for the equivalence with Eckart's frame.
    """
    x = center(x, weights)
    return torch.einsum("bij,bnj->bni", _rotation(x, reference, weights), x)


def frame_log_volume(
    x: Points, reference: Float[Tensor, "atom 3"], weights: Float[Tensor, " atom"]
) -> Float[Tensor, " batch"]:
    """Logarithm of J in d^3N x = J dy dT dR, y being orthonormal in the aligned frame.

    T is a translation and dR the volume of rotations, locally d^3 omega. With the singular values
    s of the correlation sum w x x_ref^T (the least one signed),
    J = W^(3/2) (s1 + s2)(s2 + s3)(s1 + s3) / (det I_ref)^(1/2) / prod w_i^(3/2),
    W being the sum of the weights and I_ref the tensor of inertia of the reference: the
    determinant of the rotations of x seen by those of the reference, beside the translations.
    """
    x = center(x, weights)
    correlation = torch.einsum("n,bni,nj->bij", weights, x, reference)
    s = torch.linalg.svdvals(correlation)
    sign = torch.linalg.det(correlation.detach()).sign()
    a, b, c = s[:, 0], s[:, 1], s[:, 2] * sign
    turn = (a + b).log() + (b + c).log() + (a + c).log()
    inertia = rotations(reference, weights)
    inertia = inertia.flatten(0, 1).T @ inertia.flatten(0, 1)
    constant = 1.5 * weights.sum().log() - torch.logdet(inertia) / 2 - 1.5 * weights.log().sum()
    return turn + constant


def rotations(
    x: Float[Tensor, "*batch atom 3"], weights: Float[Tensor, " atom"]
) -> Float[Tensor, "*batch atom 3 3"]:
    """Infinitesimal rotations e_a x x of the weighted positions; the last axis is a."""
    axes = torch.eye(3, dtype=x.dtype, device=x.device)
    moved = torch.linalg.cross(axes.expand(*x.shape[:-1], 3, 3), x[..., None, :], dim=-1)
    return (weights.sqrt()[:, None, None] * moved).mT


def internal_basis(
    reference: Float[Tensor, "atom 3"], weights: Float[Tensor, " atom"]
) -> Float[Tensor, "entry dim"]:
    """(3N, 3N - 6) orthonormal basis of the weighted displacements that obey Eckart's conditions.

    Raises:
        ValueError: the reference is on a line, which has only two rotations.
    """
    n = len(reference)
    shift = weights.sqrt()[:, None, None] * torch.eye(3, dtype=reference.dtype).to(reference)
    rigid = torch.cat([shift, rotations(reference, weights)], 2).reshape(3 * n, 6)
    basis, sizes, _ = torch.linalg.svd(rigid, full_matrices=True)
    if float(sizes[-1]) < 1e-4 * float(rotations(reference, weights).norm()):
        raise ValueError("the reference structure has all its atoms on a line")
    return basis[:, 6:]


def iterated_mean(
    x: Points, weights: Float[Tensor, " atom"], rounds: int = 10
) -> Float[Tensor, "atom 3"]:
    """Mean of the structures aligned to it, found by iteration from the first one, (N, 3)."""
    reference = center(x[:1], weights)[0]
    for _ in range(rounds):
        mean = center(align(x, reference, weights).mean(0)[None], weights)[0]
        moved = float((mean - reference).abs().max())
        reference = mean
        if moved < 1e-12 * math.sqrt(float(reference.square().sum())):
            break
    return reference


def _rotation(
    x: Points, reference: Float[Tensor, "atom 3"], weights: Float[Tensor, " atom"]
) -> Float[Tensor, "batch 3 3"]:
    """The proper rotation that turns each centred structure onto the reference."""
    correlation = torch.einsum("n,ni,bnj->bij", weights, reference, x)
    u, _, vh = torch.linalg.svd(correlation)
    flip = torch.ones_like(correlation[:, 0])
    flip[:, 2] = torch.linalg.det(u @ vh).sign()
    return (u * flip[:, None, :]) @ vh


def check_positions(q: Tensor, name: str, n_atoms: int | None = None) -> Tensor:
    """Refuse what is not positions (B, N, 3) of at least three atoms, all finite.

    Raises:
        ValueError: names the argument.
    """
    atoms = "N" if n_atoms is None else n_atoms
    if q.ndim != 3 or q.shape[2] != 3 or (n_atoms is not None and q.shape[1] != n_atoms):
        raise ValueError(f"{name} has shape {tuple(q.shape)}; expected (B, {atoms}, 3)")
    if q.shape[1] < 3:
        raise ValueError(f"{name} has {q.shape[1]} atoms; expected at least 3")
    if numbers_known.get() and not torch.isfinite(q).all():
        frame, atom, _ = (~torch.isfinite(q)).nonzero()[0].tolist()
        raise ValueError(f"{name} is not finite: frame {frame}, atom {atom}")
    return q


def check_weights(weights: Tensor | None, reference: Float[Tensor, "atom 3"]) -> Tensor:
    """(N,) weights in float64, equal ones for None.

    Raises:
        ValueError: there is not one positive weight for each atom.
    """
    if weights is None:
        return torch.ones_like(reference[:, 0])
    if weights.shape != reference.shape[:1]:
        raise ValueError(
            f"weights has shape {tuple(weights.shape)}; expected ({len(reference)},), one for "
            "each atom"
        )
    if not (torch.isfinite(weights) & (weights > 0)).all():
        raise ValueError("weights must be positive and finite")
    return weights.detach().to(reference)

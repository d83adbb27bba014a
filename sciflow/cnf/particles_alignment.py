"""Pairs of configurations of identical particles, brought as close as their symmetries allow.

Flow matching along straight lines between a base draw and a sample has shorter, straighter paths
where the sample is first permuted and rotated towards the draw; a flow that is equivariant, from
a base that is invariant, learns the same density.

Source: Klein, Krämer, Noé, "Equivariant flow matching", NeurIPS 2023, arXiv:2306.15030, section 4.
"""

from __future__ import annotations

import itertools

import torch

from sciflow.shapes import Float, Tensor

# Up to here all permutations are tried at once; beyond, assignment and rotation take turns.
_FEW = 5
_TURNS = 20


def align(
    x: Float[Tensor, "batch particle space"], to: Float[Tensor, "batch particle space"]
) -> Float[Tensor, "batch particle space"]:
    """Permute, rotate and reflect each of ``x`` (B, N, d), so that it lies close to ``to``.

    The best of all permutations and rotations for N up to 5; a local minimum, never farther
    than x itself, beyond. Both are expected without their means.

    Raises:
        ValueError: the shapes differ.
    """
    if x.shape != to.shape or x.ndim != 3:
        raise ValueError(
            f"x and to must have one shape (B, N, d); got {tuple(x.shape)}, {tuple(to.shape)}"
        )
    return _best_of_all(x, to) if x.shape[1] <= _FEW else _taking_turns(x, to)


def _best_of_all(x: Tensor, to: Tensor) -> Tensor:
    n = x.shape[1]
    orders = torch.tensor(list(itertools.permutations(range(n))), device=x.device)
    products = torch.einsum("bpd,bqe->bpqde", to, x)
    each = torch.arange(n, device=x.device)
    # The overlap that the best rotation reaches is the sum of singular values.
    overlap = products[:, each, orders].sum(2)
    best = torch.linalg.svdvals(overlap).sum(-1).argmax(1)
    order = orders[best]
    x = x.gather(1, order[:, :, None].expand_as(x))
    return _turned(x, to)


def _taking_turns(x: Tensor, to: Tensor) -> Tensor:
    from scipy.optimize import linear_sum_assignment

    x = _turned(x, to)
    active = torch.ones(len(x), dtype=torch.bool)
    for _ in range(_TURNS):
        orders = torch.arange(x.shape[1]).repeat(len(x), 1)
        gain = (to @ x.transpose(1, 2)).detach().cpu().double()
        for b in active.nonzero()[:, 0].tolist():
            orders[b] = torch.from_numpy(linear_sum_assignment(gain[b].numpy(), maximize=True)[1])
        active = (orders != torch.arange(x.shape[1])).any(1)
        if not active.any():
            break
        x = _turned(x.gather(1, orders.to(x.device)[:, :, None].expand_as(x)), to)
    return x


def _turned(x: Tensor, to: Tensor) -> Tensor:
    """Each x after the rotation or reflection that brings it closest (Kabsch 1976)."""
    u, _, vt = torch.linalg.svd(to.transpose(1, 2) @ x)
    return x @ (u @ vt).transpose(1, 2)

"""Geometry of triads between logarithmic shells, integrated once for all scales."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from sciflow.shapes import Tensor
from sciflow.turbulence.shell_grid import RATIO

# Decay of E / kappa^2 with kappa in the inertial range, -5/3 - 2.
_FALL = 11 / 3


class Triads(NamedTuple):
    """Pairs of shells i < j that exchange energy through a third shell l.

    Attributes:
        i, j, l: shell numbers, shape (M,).
        weight: integrals over the shells, for a first shell around wavenumber 1, shape (M,).
    """

    i: Tensor
    j: Tensor
    l: Tensor
    weight: Tensor


@lru_cache(maxsize=8)
def triads(n: int, points: int = 6) -> Triads:
    """All triads of ``n`` shells; the width of each is the ratio 2^(1/4).

    W_ijl is the integral of (x y + z^3) k^2 p^2 / q over k in shell i, p in j, q in l, where
    k, p, q are the sides of a triangle with cosines x, y, z opposite to them. The difference of
    E / kappa^2 between k and p, which small q make close neighbours, is taken as a part of that
    between the centres of the shells, as a -11/3 power law has it.

    Scaling all wavenumbers by r multiplies W by r^6, so W depends on j - i and l - i alone.
    """
    table: dict[tuple[int, int], float] = {}
    i, j, l, w = [], [], [], []
    for d in range(1, n):
        # q of a triangle lies between |k - p| and k + p.
        low = RATIO ** (d - 0.5) - RATIO**0.5
        high = RATIO ** (d + 0.5) + RATIO**0.5
        first = -n if low <= 0 else int(np.floor(np.log(low) / np.log(RATIO)))
        last = int(np.ceil(np.log(high) / np.log(RATIO)))
        for m in range(max(first, 1 - n), min(last, n - 1) + 1):
            value = _integral(RATIO, d, m, points)
            if value != 0:
                table[d, m] = value
    for (d, m), value in table.items():
        start = np.arange(max(0, -m), min(n - d, n - m))
        i.append(start)
        j.append(start + d)
        l.append(start + m)
        w.append(value * RATIO ** (6.0 * start))
    columns = [torch.from_numpy(np.concatenate(x)) for x in (i, j, l, w)]
    return Triads._make(columns)


def _integral(ratio: float, d: int, m: int, points: int) -> float:
    """W of shells 0, d and m by nested Gauss rules between the kinks of their limits."""
    half = ratio**0.5
    k_ends = (1 / half, half)
    p_ends = (ratio**d / half, ratio**d * half)
    q_ends = (ratio**m / half, ratio**m * half)
    # Where k, p and q all end at once: the integral over p and q has a kink in k there.
    corners = [abs(p + sign * q) for p in p_ends for q in q_ends for sign in (-1, 1)]
    k, k_weight = _rule(np.array([*k_ends, *corners]), *k_ends, points)
    # The same for the integral over p at fixed k.
    corners = [np.abs(p + sign * k) for p in p_ends for sign in (-1, 1)]
    edges = np.stack([np.full_like(k, q_ends[0]), np.full_like(k, q_ends[1]), *corners], -1)
    q, q_weight = _rule(edges, *q_ends, points)
    k = k[:, None]
    low = np.maximum(p_ends[0], np.abs(k - q))
    high = np.maximum(low, np.minimum(p_ends[1], k + q))
    p, p_weight = _rule(np.stack([low, high], -1), 0.0, np.inf, points)
    K, Q = k[..., None], q[..., None]
    cos_k = (p**2 + Q**2 - K**2) / (2 * p * Q)
    cos_p = (K**2 + Q**2 - p**2) / (2 * K * Q)
    cos_q = (K**2 + p**2 - Q**2) / (2 * K * p)
    part = (p**-_FALL - K**-_FALL) / (ratio ** (-_FALL * d) - 1)
    value = (cos_k * cos_p + cos_q**3) * K**2 * p**2 / Q * part
    inner = (value * p_weight).sum(-1)
    return float(((inner * q_weight).sum(-1) * k_weight).sum())


def _rule(
    edges: np.ndarray, low: float, high: float, points: int
) -> tuple[np.ndarray, np.ndarray]:
    """Gauss points and weights between neighbouring edges, those outside the limits moved in."""
    edges = np.sort(np.clip(edges, low, high), axis=-1)
    x, weight = np.polynomial.legendre.leggauss(points)
    start, width = edges[..., :-1, None], np.diff(edges)[..., None]
    shape = (*edges.shape[:-1], -1)
    return (start + width * (x + 1) / 2).reshape(shape), (width * weight / 2).reshape(shape)

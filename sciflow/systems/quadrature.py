"""Integrals of Boltzmann factors, refined until they stand still.

The trapezoidal rule converges faster than any power of its step for a smooth integrand that
vanishes at both ends (Trefethen and Weideman, SIAM Review 56, 385 (2014)), so that doubling the
points until nothing changes gives all digits of float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from sciflow.errors import SciflowError
from sciflow.shapes import Tensor
from sciflow.systems.base import Boundary

_TOLERANCE = 1e-12


def log_integral(
    energy: Callable[[Tensor], Tensor], lower: tuple[float, ...], upper: tuple[float, ...]
) -> float:
    """Logarithm of the integral of exp(-energy) over a box of one or two dimensions.

    Args:
        energy: reduced energy V / kT, (B, d) -> (B,), so large at the faces of the box that
            nothing is lost outside.
        lower: the d lower ends.
        upper: the d upper ends.

    Raises:
        SciflowError: 2^21 points in all do not suffice.
    """
    dim = len(lower)

    def rule(points: int) -> float:
        axes = [
            torch.linspace(low, high, points, dtype=torch.float64, device="cpu")
            for low, high in zip(lower, upper, strict=True)
        ]
        grid = torch.cartesian_prod(*axes).reshape(-1, dim)
        cell = math.prod((h - l) / (points - 1) for l, h in zip(lower, upper, strict=True))
        return float(torch.logsumexp(-energy(grid), 0)) + math.log(cell)

    return _refined(rule, first=64, last=2 ** (21 // dim))


def log_chain_integral(
    site: Callable[[Tensor], Tensor],
    bond: Callable[[Tensor], Tensor],
    n: int,
    boundary: Boundary,
    half_width: float,
) -> float:
    """Logarithm of the integral of exp(-sum site(q_i) - sum bond(q_{i+1} - q_i)) over n sites.

    The transfer-integral operator exp(-bond(y - x) - site(x)/2 - site(y)/2) is put on a grid;
    its powers between the end vectors, or their trace on a ring, are the partition function.

    Args:
        site: reduced energy of one site, elementwise.
        bond: reduced energy of one bond, elementwise and even.
        n: number of sites.
        boundary: "fixed" (neighbours held at zero), "free" or "periodic".
        half_width: the sites stay within (-half_width, half_width), up to nothing that counts.

    Raises:
        SciflowError: a grid of 2048 points does not suffice.

    Source: Scalapino, Sears, Ferrell, Phys. Rev. B 6, 3409 (1972), section II.
    """

    def rule(points: int) -> float:
        x = torch.linspace(-half_width, half_width, points, dtype=torch.float64, device="cpu")
        step = math.log(2 * half_width / (points - 1))
        half = site(x) / 2
        log_operator = step - bond(x[None] - x[:, None]) - half[None] - half[:, None]
        # The largest element is taken out, so that neither deep wells nor cold overflow.
        scale = float(log_operator.max())
        operator = (log_operator - scale).exp()
        if boundary == "periodic":
            values = torch.linalg.eigvalsh(operator)
            largest = float(values[-1])
            trace = float((values / largest).pow(n).sum())
            return n * (scale + math.log(largest)) + math.log(trace)
        log_end = -half - bond(x) if boundary == "fixed" else -half
        shift = float(log_end.max())
        end = (log_end - shift).exp()
        vector, log_norm = end, 2 * shift + step
        for _ in range(n - 1):
            vector = operator @ vector
            norm = float(vector.sum())
            vector, log_norm = vector / norm, log_norm + scale + math.log(norm)
        return log_norm + math.log(float(vector @ end))

    return _refined(rule, first=64, last=2048)


def confining_width(energy: Callable[[Tensor], Tensor], reach: float = 60.0) -> float:
    """A width w so that energy(x) >= ``reach`` for |x| >= w; exp(-60) is below any rounding.

    Args:
        energy: reduced, elementwise, and rising in |x| from where it first exceeds ``reach``.
        reach: how high the energy must be.
    """
    width = torch.tensor([1e-6, -1e-6], dtype=torch.float64, device="cpu")
    while float(energy(width).min()) < reach:
        width = width * 1.1
    return float(width[0])


def _refined(rule: Callable[[int], float], first: int, last: int) -> float:
    points, before = first, rule(first)
    while points < last:
        points *= 2
        value = rule(points)
        if abs(value - before) <= _TOLERANCE * max(1.0, abs(value)):
            return value
        before = value
    raise SciflowError(f"the integral still changes at {points} points a side; kT may be too low")

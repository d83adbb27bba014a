"""Logarithmic shells, and the implicit step of energies that they exchange and viscosity eats."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from sciflow.shapes import Float, Int, Tensor

#: Shells per octave.
PER_OCTAVE = 4
#: Ratio of neighbouring wavenumbers.
RATIO = 2 ** (1 / PER_OCTAVE)


@dataclass(frozen=True)
class ShellMoments:
    """Statistics of B decays at one time; shapes (B,), the energies (N, B)."""

    t: Tensor
    k: Tensor
    eps: Tensor
    palinstrophy: Tensor
    production: Tensor
    u: Tensor


class ShellGrid:
    """Shells of B decays; arrays are (N, B), and ``mask`` is 0 where a decay has fewer than N.

    Energies u_i obey du_i/dt = sum_j c_ij (f_j - f_i) - 2 nu kappa_i^2 u_i with f = E / kappa^2:
    with c symmetric the exchange conserves energy to rounding, with c positive it is diffusion.

    Args:
        top: upper edges of the last shells, (B,).
        sizes: numbers of shells, (B,).
        nu: kinematic viscosities, (B,).
    """

    def __init__(
        self,
        top: Float[Tensor, " batch"],
        sizes: Int[Tensor, " batch"],
        nu: Float[Tensor, " batch"],
    ) -> None:
        self.n = n = int(sizes.max())
        self.nu = nu
        self.first = top * RATIO ** (0.5 - sizes.to(top))
        number = torch.arange(n, device=top.device)
        self.kappa = self.first * RATIO ** number.to(top)[:, None]
        self.width = self.kappa * (RATIO**0.5 - RATIO**-0.5)
        self.here = number[:, None] < sizes
        self.mask = self.here.to(top)

    def transfer(
        self, u: Float[Tensor, "shells batch"], c: Float[Tensor, "shells shells batch"]
    ) -> Float[Tensor, "shells batch"]:
        """Energy that the exchange brings to each shell."""
        f = u / (self.kappa**2 * self.width)
        return torch.einsum("ijb,jb->ib", c, f) - c.sum(1) * f

    def moments(
        self,
        u: Float[Tensor, "shells batch"],
        t: Float[Tensor, " batch"],
        c: Float[Tensor, "shells shells batch"],
    ) -> ShellMoments:
        """Statistics of shell energies at ``t``."""
        square = self.kappa**2
        growth = 2 * self.nu * (square * self.transfer(u, c)).sum(0)
        eps = 2 * self.nu * (square * u).sum(0)
        return ShellMoments(t, u.sum(0), eps, (square**2 * u).sum(0), growth, u)

    def time_step(
        self, row: ShellMoments, last: Tensor | None, coarse: float = 1.0
    ) -> Float[Tensor, " batch"]:
        """A step that follows the large scales and the dissipation; the rest is implicit."""
        mean = (self.kappa * row.u).sum(0) / row.k
        change = (row.production - 4 * self.nu**2 * row.palinstrophy).abs()
        dt = torch.minimum(0.04 * row.k / row.eps, 0.25 / (mean * row.k.sqrt()))
        dt = coarse * torch.minimum(dt, 0.1 * row.eps / change)
        return dt if last is None else torch.minimum(dt, 1.3 * last)

    def advance(
        self,
        u: Float[Tensor, "shells batch"],
        dt: Float[Tensor, " batch"],
        c: Float[Tensor, "shells shells batch"],
        exchange: Callable[[Tensor], Tensor],
    ) -> Float[Tensor, "shells batch"]:
        """Energies after ``dt``: L-stable, second order, with the matrix of half the step.

        Args:
            u: energies at the start.
            dt: step of each decay; 0 leaves it alone.
            c: exchange at the start.
            exchange: exchange for energies at half the step.
        """
        half = _solve(_factor(self._matrix(c), dt / 2), u)
        A = self._matrix(exchange(half))
        gamma = 1 - math.sqrt(0.5)
        # Alexander's SDIRK of order two; both stages share one factorisation.
        factors = _factor(A, gamma * dt)
        a = _solve(factors, u)
        slope = torch.einsum("bij,jb->ib", A, a)
        out = _solve(factors, u + (1 - gamma) * dt * slope)
        # A long step may leave a little below zero: the rest gives it back, and none is made.
        positive = out.clamp_min(0.0)
        return positive * (out.sum(0) / positive.sum(0))

    def _matrix(self, c: Tensor) -> Tensor:
        """A of du/dt = A u, (B, N, N)."""
        measure = 1 / (self.kappa**2 * self.width)
        A = c * measure
        loss = c.sum(0) * measure + 2 * self.nu * self.kappa**2
        return A.permute(2, 0, 1) - torch.diag_embed(loss.T)


def _factor(A: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    LU, pivots = torch.linalg.lu_factor(eye - dt[:, None, None] * A)
    return LU, pivots


def _solve(factors: tuple[Tensor, Tensor], u: Tensor) -> Tensor:
    return torch.linalg.lu_solve(*factors, u.T[..., None])[..., 0].T

"""The latent system: independent oscillators, and a free rotor where an angle asks for one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from sciflow.shapes import Float, Tensor


class Latent(nn.Module):
    """H = sum_k P_k^2 / 2 + omega_k^2 (Q_k - c_k)^2 / 2 over oscillators, P^2 / 2I for rotors.

    Its canonical density at kT has P_k ~ N(0, kT) for oscillators, so that the omega_k are
    physical angular frequencies, and P ~ N(0, kT I), Q uniform on its period for rotors.

    Args:
        periods: of each coordinate: finite for a rotor, infinity for an oscillator.
        kT: thermal energy.
    """

    oscillators: Tensor
    rotors: Tensor
    spans: Tensor

    def __init__(self, periods: Sequence[float], kT: float) -> None:
        super().__init__()
        self.periods, self.kT = list(periods), kT
        finite = [math.isfinite(period) for period in periods]
        line = torch.tensor([i for i, f in enumerate(finite) if not f], dtype=torch.long)
        circle = torch.tensor([i for i, f in enumerate(finite) if f], dtype=torch.long)
        self.register_buffer("oscillators", line, persistent=False)
        self.register_buffer("rotors", circle, persistent=False)
        spans = torch.tensor([period for period, f in zip(periods, finite, strict=True) if f])
        self.register_buffer("spans", spans.to(torch.get_default_dtype()), persistent=False)
        self.log_omega = nn.Parameter(torch.zeros(len(line)))
        self.center = nn.Parameter(torch.zeros(len(line)))
        self.log_inertia = nn.Parameter(torch.zeros(len(circle)))

    @property
    def n_dim(self) -> int:
        """Number of coordinates."""
        return len(self.periods)

    def omega(self) -> Float[Tensor, " dim"]:
        """Angular frequency of each coordinate, zero for rotors."""
        zeros = self.log_omega.new_zeros(self.n_dim)
        return zeros.index_copy(0, self.oscillators, self.log_omega.exp())

    def inertia(self) -> Float[Tensor, " dim"]:
        """Mass of each coordinate: 1 for oscillators, the moment of inertia for rotors."""
        ones = self.log_omega.new_ones(self.n_dim)
        return ones.index_copy(0, self.rotors, self.log_inertia.exp())

    def coordinates(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Thermal coordinates Q of standard normal numbers ``z``; uniform ones for rotors."""
        spread = math.sqrt(self.kT) * torch.exp(-self.log_omega)
        Q = z.index_copy(1, self.oscillators, self.center + z[:, self.oscillators] * spread)
        share = torch.special.ndtr(z[:, self.rotors]) - 0.5
        return Q.index_copy(1, self.rotors, share * self.spans)

    def momenta(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Thermal momenta P of standard normal numbers ``z``."""
        return z * (self.kT * self.inertia()).sqrt()

    def log_density(self, Q: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """Log of the canonical density of coordinates."""
        x = (Q[:, self.oscillators] - self.center) * self.log_omega.exp()
        constant = self.log_omega - math.log(2 * math.pi * self.kT) / 2
        return constant.sum() - self.spans.log().sum() - x.square().sum(1) / (2 * self.kT)

    def log_density_momenta(self, P: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """Log of the canonical density of momenta."""
        variance = self.kT * self.inertia()
        return -((2 * math.pi * variance).log().sum() + (P.square() / variance).sum(1)) / 2

    def evolve(
        self,
        Q: Float[Tensor, "batch dim"],
        P: Float[Tensor, "batch dim"],
        t: Float[Tensor, " time"],
    ) -> tuple[Float[Tensor, "time batch dim"], Float[Tensor, "time batch dim"]]:
        """Exact motion from (Q, P) at time zero to each of the times ``t``."""
        omega, inertia = self.omega(), self.inertia()
        phase = (t[:, None] * omega)[:, None, :]
        free = omega == 0
        # sin(omega t) / omega, which is t for a rotor
        lag = torch.where(free, t[:, None], phase.squeeze(1).sin() / omega.where(~free, 1.0))
        c = Q.new_zeros(self.n_dim).index_copy(0, self.oscillators, self.center)
        x = Q - c * ~free
        moved = c * ~free + x * phase.cos() + (P / inertia) * lag[:, None, :]
        momenta = P * phase.cos() - x * omega * phase.sin()
        if len(self.rotors):
            angle = moved[..., self.rotors]
            turns = torch.floor(angle / self.spans + 0.5)
            moved = moved.index_copy(2, self.rotors, angle - turns * self.spans)
        return moved, momenta


def base_draws(
    n: int,
    n_dim: int,
    generator: torch.Generator,
    whiten: bool = True,
    dtype: torch.dtype = torch.float64,
) -> Float[Tensor, "batch dim"]:
    """Standard normal numbers (n, n_dim) in antithetic pairs, with unit covariance if they can.

    The mean of the batch is zero, and where n is larger than 4 n_dim its covariance is exactly
    the identity: a Gaussian model of a harmonic system then has no noise in its gradient. The
    price is a bias of order n_dim / n of higher moments.

    Args:
        n: number of draws.
        n_dim: number of coordinates.
        generator: where they come from.
        whiten: False draws independent numbers.
        dtype: floating type.
    """
    device = generator.device
    if not whiten:
        return torch.randn(n, n_dim, generator=generator, dtype=dtype, device=device)
    half = torch.randn((n + 1) // 2, n_dim, generator=generator, dtype=dtype, device=device)
    if n > 4 * n_dim:
        factor = torch.linalg.cholesky(half.T @ half / len(half))
        half = torch.linalg.solve_triangular(factor, half.T, upper=False).T
    return torch.cat([half, -half])[:n]

"""Bonds of a chain whose left end is fixed."""

from __future__ import annotations

import math

import torch

from sciflow.shapes import Float, Tensor
from sciflow.systems.charts.chart import Chart


class BondChart(Chart):
    """xi_i = q_i - q_{i-1} with q_0 = 0: energies of bonds become energies of single coordinates.

    Args:
        n_dim: number of masses in the chain.
    """

    def __init__(self, n_dim: int) -> None:
        super().__init__()
        if n_dim < 1:
            raise ValueError(f"n_dim must be at least 1; got {n_dim}")
        self.config = {"n_dim": n_dim}
        self.n_dim = n_dim
        self.register_buffer("periods", torch.full((n_dim,), math.inf, dtype=torch.float64))

    def forward(
        self, q: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Bonds of positions; the volume is kept."""
        return torch.cat([q[:, :1], q.diff(dim=1)], 1), q.new_zeros(len(q))

    def inverse(
        self, xi: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Positions of bonds."""
        return xi.cumsum(1), xi.new_zeros(len(xi))

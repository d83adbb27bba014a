"""Midpoint displacements of a chain: coarse positions first, then what lies between them."""

from __future__ import annotations

import math

import torch

from sciflow.shapes import Float, Tensor
from sciflow.systems.charts.chart import Chart


class MidpointChart(Chart):
    """Each mass relative to the mean of two others that enclose it, level by level.

    The chain between two fixed ends is halved: the middle mass first, then the middle of each
    half relative to the ends of that half, and so on. Given the coarser levels, masses of a level
    are independent of each other where only neighbours interact; with equal springs all are. The
    map is linear and keeps the volume.

    Args:
        n_dim: number of masses between the two ends, which are at zero.

    Source: Lévy's construction of Brownian motion; for paths, Ceperley, Rev. Mod. Phys. 67, 279
    (1995), section V.F (bisection).
    """

    matrix: Tensor

    def __init__(self, n_dim: int) -> None:
        super().__init__()
        if n_dim < 1:
            raise ValueError(f"n_dim must be at least 1; got {n_dim}")
        self.config = {"n_dim": n_dim}
        self.n_dim = n_dim
        self.register_buffer("periods", torch.full((n_dim,), math.inf, dtype=torch.float64))
        # xi = matrix q, a row for each mass
        matrix = torch.zeros(n_dim, n_dim, dtype=torch.float64)
        intervals = [(-1, n_dim)]
        for left, right in intervals:
            if right - left < 2:
                continue
            middle = (left + right) // 2
            matrix[middle, middle] = 1
            share = (middle - left) / (right - left)
            for end, weight in ((left, 1 - share), (right, share)):
                if 0 <= end < n_dim:
                    matrix[middle, end] = -weight
            intervals += [(left, middle), (middle, right)]
        self.register_buffer("matrix", matrix)

    def forward(
        self, q: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Displacements of positions; the volume is kept."""
        return q @ self.matrix.to(q).T, q.new_zeros(len(q))

    def inverse(
        self, xi: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Positions of displacements."""
        return torch.linalg.solve(self.matrix.to(xi), xi.T).T, xi.new_zeros(len(xi))

"""Polar coordinates of the plane."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from sciflow.shapes import Float, Tensor
from sciflow.systems.charts.chart import Chart


class PolarChart(Chart):
    """xi = (ln r, theta) around a centre: the radius on the whole line, the angle on a circle.

    Args:
        center: (x, y) where r is zero, in the unit of q.
    """

    center: Tensor

    def __init__(self, center: Sequence[float] = (0.0, 0.0)) -> None:
        super().__init__()
        self.config = {"center": list(center)}
        self.n_dim = 2
        self.register_buffer("center", torch.tensor(center, dtype=torch.float64))
        periods = torch.tensor([math.inf, 2 * math.pi], dtype=torch.float64)
        self.register_buffer("periods", periods)

    def forward(
        self, q: Float[Tensor, "batch 2"]
    ) -> tuple[Float[Tensor, "batch 2"], Float[Tensor, " batch"]]:
        """Log-radius and angle in [-pi, pi) of points of the plane, and -2 ln r."""
        x, y = (q - self.center.to(q)).unbind(1)
        log_r = (x.square() + y.square()).log() / 2
        theta = torch.atan2(y, x)
        theta = torch.where(theta >= math.pi, theta - 2 * math.pi, theta)
        return torch.stack([log_r, theta], 1), -2 * log_r

    def inverse(
        self, xi: Float[Tensor, "batch 2"]
    ) -> tuple[Float[Tensor, "batch 2"], Float[Tensor, " batch"]]:
        """Points of the plane, and 2 ln r."""
        log_r, theta = xi.unbind(1)
        direction = torch.stack([theta.cos(), theta.sin()], 1)
        return self.center.to(xi) + log_r.exp()[:, None] * direction, 2 * log_r

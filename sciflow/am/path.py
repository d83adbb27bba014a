"""Paths between coupled samples."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from sciflow.am.coupling import PathBatch
from sciflow.shapes import Float, Tensor


class PathPoint(NamedTuple):
    """Where a path is at the times of a batch, and how fast it moves, both (n, d)."""

    x: Float[Tensor, "n dim"]
    velocity: Float[Tensor, "n dim"]


class Geodesic(nn.Module):
    """Straight lines at constant speed: the paths of optimal transport between partners."""

    def forward(self, batch: PathBatch) -> PathPoint:
        """Position and velocity on the line from ``left`` to ``right``."""
        span = (batch.t_right - batch.t_left)[:, None]
        velocity = (batch.right - batch.left) / span
        return PathPoint(batch.left + (batch.t - batch.t_left)[:, None] * velocity, velocity)

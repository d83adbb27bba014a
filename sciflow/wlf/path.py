"""The learned path of a Wasserstein Lagrangian flow."""

from __future__ import annotations

import torch
from torch import nn

from sciflow.am.coupling import PathBatch
from sciflow.am.path import PathPoint
from sciflow.nn import MLP
from sciflow.shapes import Float, Tensor


class LearnedPath(nn.Module):
    """Straight lines plus a learned bend that vanishes at the snapshots.

    ``x = (1 - u) left + u right + 2 u (1 - u) q(t, left, right)`` with u the fraction of the
    interval (arXiv:2310.10649, section 4.2). The network ``q`` starts at zero, so that between
    partners coupled by optimal transport the path starts as the geodesic.

    Args:
        dim: number of dimensions.
        width: width of the hidden layers.
        depth: number of hidden layers.
        generator: source of the initial weights.
    """

    def __init__(
        self,
        dim: int,
        width: int = 64,
        depth: int = 2,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.net = MLP(2 * dim + 1, dim, width, depth, generator=generator, zero=True)

    def forward(self, batch: PathBatch) -> PathPoint:
        """Position on the path and its velocity, the exact time derivative."""
        span = (batch.t_right - batch.t_left)[:, None]
        u = (batch.t - batch.t_left)[:, None] / span
        step = batch.right - batch.left
        inputs = torch.cat([2 * batch.t[:, None] - 1, batch.left, batch.right], 1)
        along_t = torch.zeros_like(inputs)
        along_t[:, 0] = 2.0
        bend, bend_t = self.net.along(inputs, along_t)
        x = batch.left + u * step + 2 * u * (1 - u) * bend
        velocity = (step + 2 * (1 - 2 * u) * bend) / span + 2 * u * (1 - u) * bend_t
        return PathPoint(x, velocity)


def bend_weight(batch: PathBatch) -> Float[Tensor, "n 1"]:
    """``2 u (1 - u)``: how far a point of the path is free to move."""
    u = ((batch.t - batch.t_left) / (batch.t_right - batch.t_left))[:, None]
    return 2 * u * (1 - u)

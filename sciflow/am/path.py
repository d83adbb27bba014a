"""Paths between coupled samples: what a Lagrangian lets a pair do between two snapshots."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn

from sciflow.am.lagrangians import Lagrangian
from sciflow.am.landscapes import MeanMotion
from sciflow.am.source import PathBatch
from sciflow.nn import MLP
from sciflow.shapes import Float, Tensor

# With noise, the ends of an interval are left out by this fraction: the drift there diverges.
_END = 1e-3


class PathPoint(NamedTuple):
    """Where the paths of a batch are at its times.

    Attributes:
        x: positions, (n, d).
        velocity: how fast they move; with noise the drift of the bridge, (n, d).
        mass: mass that a path carries, (n,).
        mass_rate: its time derivative, (n,).
    """

    x: Float[Tensor, "n dim"]
    velocity: Float[Tensor, "n dim"]
    mass: Float[Tensor, "n"]
    mass_rate: Float[Tensor, "n"]


class ConditionalPath(nn.Module):
    """The path of least action of a pair: exact for each term of the Lagrangian on its own.

    Without growth and noise a straight line at constant speed; with growth the travelling Dirac
    of Wasserstein-Fisher-Rao geometry, a straight line in polar coordinates (sqrt(mass),
    sqrt(lambda) distance / 2); with a smooth mean the line bows as the mean does; with noise a
    Brownian bridge about it. Potential energies and metrics have no closed form: for them
    ``bend`` adds ``2 u (1 - u) q(t, left, right)``, u the fraction of the interval.

    Args:
        lagrangian: in the units of the network.
        bend: the network q, trained by whoever made this path.
    """

    def __init__(self, lagrangian: Lagrangian, bend: Bend | None = None) -> None:
        super().__init__()
        self.lagrangian, self.bend = lagrangian, bend

    def forward(self, batch: PathBatch) -> PathPoint:
        """Positions, velocities and masses at the times of the batch.

        With noise each pair is there twice, at mirrored points of its bridge, and its
        displacements from the middle cancel: the first n rows and the last n; see ``twice``.
        """
        span = batch.t_right - batch.t_left
        u = (batch.t - batch.t_left) / span
        point = self._carrier(batch, u, span)
        if isinstance(self.lagrangian.mean, MeanMotion):
            point = _bowed(point, self.lagrangian.mean, batch, u, span)
        if self.bend is not None:
            q, q_t = self.bend(batch, u, span)
            w, w_t = 2 * u * (1 - u), 2 * (1 - 2 * u) / span
            point = point._replace(
                x=point.x + w[:, None] * q,
                velocity=point.velocity + w_t[:, None] * q + w[:, None] * q_t,
            )
        return self._bridge(point, batch, u, span) if self.lagrangian.sigma else point

    def twice(self, value: Float[Tensor, "n"]) -> Float[Tensor, "m"]:
        """Values of the batch for each point that ``forward`` gives."""
        return torch.cat([value, value]) if self.lagrangian.sigma else value

    def _carrier(self, batch: PathBatch, u: Tensor, span: Tensor) -> PathPoint:
        step = batch.right - batch.left
        if self.lagrangian.growth_penalty is None:
            one = torch.ones_like(u)
            velocity = step / span[:, None]
            return PathPoint(batch.left + u[:, None] * step, velocity, one, torch.zeros_like(one))
        fraction, fraction_u, mass, mass_u = travelling_dirac(
            u, batch.mass_left, batch.mass_right, step.norm(dim=1), self.lagrangian.growth_penalty
        )
        return PathPoint(
            batch.left + fraction[:, None] * step,
            (fraction_u / span)[:, None] * step,
            mass,
            mass_u / span,
        )

    def _bridge(self, point: PathPoint, batch: PathBatch, u: Tensor, span: Tensor) -> PathPoint:
        u = u.clamp(max=1 - _END)
        away = self.lagrangian.sigma * (u * (1 - u) * span).sqrt()[:, None] * batch.noise
        drift = away / (span * (1 - u))[:, None]
        return PathPoint(
            torch.cat([point.x + away, point.x - away]),
            torch.cat([point.velocity - drift, point.velocity + drift]),
            self.twice(point.mass),
            self.twice(point.mass_rate),
        )


def _bowed(
    point: PathPoint, mean: MeanMotion, batch: PathBatch, u: Tensor, span: Tensor
) -> PathPoint:
    """The path plus what the mean does beyond its chord."""
    m0, m1 = mean.position(batch.t_left), mean.position(batch.t_right)
    bow = mean.position(batch.t) - m0 - u[:, None] * (m1 - m0)
    bow_t = mean.velocity(batch.t) - (m1 - m0) / span[:, None]
    return point._replace(x=point.x + bow, velocity=point.velocity + bow_t)


def travelling_dirac(
    u: Float[Tensor, "n"],
    mass0: Float[Tensor, "n"],
    mass1: Float[Tensor, "n"],
    distance: Float[Tensor, "n"],
    growth_penalty: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Geodesic between two point masses in Wasserstein-Fisher-Rao geometry.

    In the plane with polar coordinates radius sqrt(mass) and angle sqrt(lambda) distance / 2 it
    is a straight line (Liero, Mielke and Savare 2018, section 7). Beyond an angle of pi/2 mass
    does not travel; pairs that far apart (from couplings that are not optimal) take that angle.

    Args:
        u: fraction of the time, in [0, 1].
        mass0: mass at the start.
        mass1: mass at the end.
        distance: distance travelled.
        growth_penalty: lambda.

    Returns:
        Fraction of the distance, its derivative by u, mass, its derivative by u.
    """
    angle = (0.5 * math.sqrt(growth_penalty) * distance).clamp(1e-4, math.pi / 2)
    r0, r1 = mass0.sqrt(), mass1.sqrt()
    a, b = r1 * angle.cos(), r1 * angle.sin()
    p, q = (1 - u) * r0 + u * a, u * b
    mass = p.square() + q.square()
    mass_u = 2 * (p * (a - r0) + q * b)
    fraction = torch.atan2(q, p) / angle
    fraction_u = r0 * b / mass.clamp(min=1e-30) / angle
    return fraction, fraction_u, mass, mass_u


class Bend(nn.Module):
    """Network ``q(t, left, right)`` of a path, zero at the start of its training.

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
        self.net = MLP(2 * dim + 2, dim, width, depth, generator=generator, zero=True)

    def forward(
        self, batch: PathBatch, u: Float[Tensor, "n"], span: Float[Tensor, "n"]
    ) -> tuple[Float[Tensor, "n dim"], Float[Tensor, "n dim"]]:
        """The bend and its time derivative."""
        times = torch.stack([2 * batch.t - 1, 2 * u - 1], 1)
        inputs = torch.cat([times, batch.left, batch.right], 1)
        along_t = torch.zeros_like(inputs)
        along_t[:, 0], along_t[:, 1] = 2.0, 2 / span
        q, q_t = self.net.along(inputs, along_t)
        return q, q_t

"""What shapes paths besides their ends: density of the data, motion of the mean, obstacles.

Each has ``fitted(snapshots)``, which takes from the visible snapshots what it needs; nothing
else ever sees data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from sciflow.shapes import Float, Tensor
from sciflow.train import Snapshots

Metric = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class DataDensity:
    """Metric under which paths prefer places where data are: ``g = (floor + 1) / (floor + h)``.

    ``h(x)`` is the mean over data points c of ``exp(-|x - c|^2 / (2 w^2))``, divided by its mean
    over the data: one among data, zero far from them (the idea of metric flow matching,
    Kapusniak et al., arXiv:2405.14780). Among data the metric is one, so that potential energies
    accelerate there as they do without it.

    Attributes:
        width: w, in units of the root mean squared distance between points of one time.
        floor: of h; far from data g is 1 + 1 / floor, so that a large one leaves paths straight.
        points: most data points kept as centres, evenly from all times.

    Raises:
        ValueError: a number is not positive.
    """

    width: float = 0.2
    floor: float = 1.0
    points: int = 600

    def __post_init__(self) -> None:
        for name in ("width", "floor", "points"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive; got {getattr(self, name)}")

    def fitted(self, snapshots: Snapshots) -> Metric:
        """The metric of these snapshots, a function of positions in their units."""
        generator = torch.Generator().manual_seed(0)
        each = -(-self.points // len(snapshots))
        chosen = torch.cat(
            [x[torch.randperm(len(x), generator=generator)[:each]] for x in snapshots.samples]
        )
        # E|x - y|^2 = 2 tr cov for two independent points.
        spread = sum(float(x.var(0, correction=0).sum()) for x in snapshots.samples)
        width = self.width * max((2 * spread / len(snapshots)) ** 0.5, 1e-12)

        def kernel_mean(x: Tensor) -> Tensor:
            x, centers = x / width, chosen.to(x) / width
            squared = x.square().sum(1)[:, None] + centers.square().sum(1) - 2 * x @ centers.T
            return torch.exp(-0.5 * squared).mean(1)

        level = float(kernel_mean(chosen).mean())
        return lambda x: (self.floor + 1) / (self.floor + kernel_mean(x) / level)

    def __call__(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch"]:
        """Not before ``fitted``.

        Raises:
            ValueError: always.
        """
        raise ValueError("this metric has not been fitted to snapshots")


@dataclass(frozen=True)
class SmoothMean:
    """Uniform acceleration under which the mean moves smoothly through all snapshots.

    Between snapshots, paths of least action move the mean along straight lines. A population has
    momentum: its mean ``m(t)`` is estimated from the means of the visible snapshots by ordinary
    kriging (a Gaussian process with constant, unknown mean, Matern-3/2 covariance), averaged over
    several lengths of correlation. Under the uniform acceleration ``m''`` the least-action path
    between two points is the straight line plus ``m(t)`` minus its chord, exactly.

    Attributes:
        lengths: lengths of correlation, in units of the median spacing of the snapshots.
        nugget: variance of the noise of a mean, relative to the variance of the process.

    Raises:
        ValueError: a length is not positive, or the nugget is negative.
    """

    lengths: tuple[float, ...] = (0.5, 1.0, 2.0)
    nugget: float = 1e-3

    def __post_init__(self) -> None:
        if not self.lengths or min(self.lengths) <= 0:
            raise ValueError(f"lengths must be positive; got {self.lengths}")
        if self.nugget < 0:
            raise ValueError(f"nugget must not be negative; got {self.nugget}")

    def fitted(self, snapshots: Snapshots) -> MeanMotion:
        """The motion of the mean of these snapshots."""
        t = snapshots.times
        means = torch.stack([x.mean(0) for x in snapshots.samples])
        rates = tuple(3**0.5 / (length * float(t.diff().median())) for length in self.lengths)
        ones = torch.ones(len(t), 1, dtype=t.dtype)
        levels, weights = [], []
        for rate in rates:
            r = rate * (t[:, None] - t).abs()
            covariance = (1 + r) * torch.exp(-r) + self.nugget * torch.eye(len(t), dtype=t.dtype)
            solved = torch.linalg.solve(covariance, torch.cat([ones, means], 1))
            level = solved[:, 1:].sum(0) / solved[:, 0].sum()
            levels.append(level)
            weights.append(solved[:, 1:] - solved[:, :1] * level)
        n = len(rates)
        return MeanMotion(t, rates, torch.stack(levels).mean(0), torch.stack(weights) / n)


@dataclass(frozen=True, eq=False)
class MeanMotion:
    """A sum of Matern-3/2 functions of time, ``(1 + r) exp(-r)`` with r = rate |t - knot|.

    Attributes:
        knots: times, (K,).
        rates: one per length of correlation.
        level: constant, (d,).
        weights: of each function, (len(rates), K, d).
    """

    knots: Float[Tensor, "knot"]
    rates: tuple[float, ...]
    level: Float[Tensor, "dim"]
    weights: Float[Tensor, "rate knot dim"]

    def position(self, t: Float[Tensor, "n"]) -> Float[Tensor, "n dim"]:
        """The mean ``m(t)``."""
        parts = ((1 + r) * torch.exp(-r) @ w for _, r, _, w in self._terms(t))
        return self.level.to(t) + torch.stack(list(parts)).sum(0)

    def velocity(self, t: Float[Tensor, "n"]) -> Float[Tensor, "n dim"]:
        """Its velocity ``m'(t)``."""
        parts = (-k * sign * r * torch.exp(-r) @ w for k, r, sign, w in self._terms(t))
        return torch.stack(list(parts)).sum(0)

    def acceleration(self, t: Float[Tensor, "n"]) -> Float[Tensor, "n dim"]:
        """Its acceleration ``m''(t)``."""
        parts = (k**2 * (r - 1) * torch.exp(-r) @ w for k, r, _, w in self._terms(t))
        return torch.stack(list(parts)).sum(0)

    def _terms(self, t: Tensor) -> Iterator[tuple[float, Tensor, Tensor, Tensor]]:
        gap = t[:, None] - self.knots.to(t)
        for rate, weights in zip(self.rates, self.weights.to(t), strict=True):
            yield rate, rate * gap.abs(), gap.sign(), weights


@dataclass(frozen=True)
class Obstacle:
    """A hill that paths avoid: the potential energy ``U = -height exp(-|x - c|^2 / (2 w^2))``.

    Since L is kinetic energy minus U, being on the hill costs action.

    Attributes:
        center: c, (dim,), in the units of the data.
        width: w, in the units of the data.
        height: in length^2 / time^2.

    Raises:
        ValueError: width or height is not positive.
    """

    center: tuple[float, ...]
    width: float
    height: float

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive; got {getattr(self, name)}")

    def __call__(
        self, t: Float[Tensor, "batch"], x: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch"]:
        """Potential energy at x."""
        squared = (x - x.new_tensor(self.center)).square().sum(-1)
        return -self.height * torch.exp(-squared / (2 * self.width**2))

"""What shapes paths besides their ends: density of the data, motion of the mean, obstacles.

Each has ``fitted(snapshots)``, which takes from the visible snapshots what it needs; nothing
else ever sees data.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from sciflow.shapes import Float, Tensor
from sciflow.train import Snapshots


@dataclass(frozen=True, eq=False)
class DataDensity:
    """Metric under which paths prefer places where data are: ``g(x) = 1 / (floor + h(x))``.

    ``h`` is the mean over data points c of ``exp(-|x - c|^2 / (2 w^2))``, divided by its mean
    over the data, so that g is about one among data and at most ``1 / floor`` far from them
    (the idea of metric flow matching, Kapusniak et al., arXiv:2405.14780).

    Attributes:
        width: w, in units of the root mean squared distance between points of one time.
        floor: least value of ``1 / g``.
        points: most data points kept as centres, evenly from all times.

    Raises:
        ValueError: a number is not positive.
    """

    width: float = 0.2
    floor: float = 1.0
    points: int = 600
    centers: Tensor | None = field(default=None, repr=False)
    inverse_width: float = field(default=1.0, repr=False)
    level: float = field(default=1.0, repr=False)

    def __post_init__(self) -> None:
        for name in ("width", "floor", "points"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive; got {getattr(self, name)}")

    def fitted(self, snapshots: Snapshots) -> DataDensity:
        """The metric of these snapshots."""
        generator = torch.Generator().manual_seed(0)
        each = -(-self.points // len(snapshots))
        chosen = [
            x[torch.randperm(len(x), generator=generator)[:each]] for x in snapshots.samples
        ]
        # E|x - y|^2 = 2 tr cov for two independent points.
        spread = sum(float(x.var(0, correction=0).sum()) for x in snapshots.samples)
        width = self.width * max((2 * spread / len(snapshots)) ** 0.5, 1e-12)
        new = DataDensity(self.width, self.floor, self.points, torch.cat(chosen), 1 / width)
        at_data = new._kernel_mean(torch.cat(chosen))
        return DataDensity(
            self.width, self.floor, self.points, new.centers, 1 / width, float(at_data.mean())
        )

    def __call__(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch"]:
        """Factor ``g`` of the kinetic energy."""
        return 1 / (self.floor + self._kernel_mean(x) / self.level)

    def _kernel_mean(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch"]:
        if self.centers is None:
            raise ValueError("this density has not been fitted to snapshots")
        centers = self.centers.to(x) * self.inverse_width
        x = x * self.inverse_width
        squared = x.square().sum(1)[:, None] + centers.square().sum(1) - 2 * x @ centers.T
        return torch.exp(-0.5 * squared).mean(1)


@dataclass(frozen=True, eq=False)
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
    knots: Tensor | None = field(default=None, repr=False)
    scales: tuple[float, ...] = field(default=(), repr=False)
    level: Tensor | None = field(default=None, repr=False)
    weights: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.lengths or min(self.lengths) <= 0:
            raise ValueError(f"lengths must be positive; got {self.lengths}")
        if self.nugget < 0:
            raise ValueError(f"nugget must not be negative; got {self.nugget}")

    def fitted(self, snapshots: Snapshots) -> SmoothMean:
        """The motion of the mean of these snapshots."""
        t = snapshots.times
        means = torch.stack([x.mean(0) for x in snapshots.samples])
        spacing = float(t.diff().median())
        scales = tuple(length * spacing for length in self.lengths)
        ones = torch.ones(len(t), 1, dtype=t.dtype)
        levels, weights = [], []
        for scale in scales:
            r = (t[:, None] - t).abs() * (3**0.5 / scale)
            covariance = (1 + r) * torch.exp(-r) + self.nugget * torch.eye(len(t), dtype=t.dtype)
            solved = torch.linalg.solve(covariance, torch.cat([ones, means], 1))
            level = solved[:, 1:].sum(0) / solved[:, 0].sum()
            levels.append(level)
            weights.append(solved[:, 1:] - solved[:, :1] * level)
        return SmoothMean(
            self.lengths,
            self.nugget,
            t,
            scales,
            torch.stack(levels).mean(0),
            torch.stack(weights) / len(scales),
        )

    def position(self, t: Float[Tensor, "n"]) -> Float[Tensor, "n dim"]:
        """The mean ``m(t)``."""
        return self._sum(t, lambda k, r, sign: (1 + r) * torch.exp(-r), constant=True)

    def velocity(self, t: Float[Tensor, "n"]) -> Float[Tensor, "n dim"]:
        """Its velocity ``m'(t)``."""
        return self._sum(t, lambda k, r, sign: -k * sign * r * torch.exp(-r))

    def acceleration(self, t: Float[Tensor, "n"]) -> Float[Tensor, "n dim"]:
        """Its acceleration ``m''(t)``."""
        return self._sum(t, lambda k, r, sign: k**2 * (r - 1) * torch.exp(-r))

    def _sum(self, t: Tensor, kernel, constant: bool = False) -> Tensor:  # type: ignore[no-untyped-def]
        if self.knots is None or self.level is None or self.weights is None:
            raise ValueError("this mean has not been fitted to snapshots")
        gap = t[:, None] - self.knots.to(t)
        value = torch.zeros_like(t)[:, None]
        for scale, weights in zip(self.scales, self.weights.to(t), strict=True):
            k = 3**0.5 / scale
            value = value + kernel(k, k * gap.abs(), gap.sign()) @ weights
        return value + self.level.to(t) if constant else value


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

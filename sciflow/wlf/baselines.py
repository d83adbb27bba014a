"""What a user would do without learning: the rows any flow has to beat."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from sciflow.am.coupling import Coupling, exact_coupling
from sciflow.am.landscapes import SmoothMean
from sciflow.am.scale import scale_of
from sciflow.shapes import Float, Tensor
from sciflow.train import Snapshots


class Prediction(NamedTuple):
    """Predicted points and their weights, which sum to one."""

    x: Float[Tensor, "n dim"]
    weight: Float[Tensor, "n"]


class Interpolation:
    """Points on the lines between partners under exact optimal transport, at one time between.

    Args:
        snapshots: the visible snapshots.
        time: where to predict; between the first and the last of them.
        pool: largest exact problem; see ``couple``.
        generator: deals larger snapshots into pools.
    """

    def __init__(
        self, snapshots: Snapshots, time: float, pool: int, generator: torch.Generator
    ) -> None:
        self.snapshots, self.time = snapshots, time
        self.pool, self.generator = pool, generator
        self.k = int(torch.searchsorted(snapshots.times, time)) - 1
        self.pairs = self._couple(self.k)

    def midpoint(self) -> Prediction:
        """Displacement interpolation between the two neighbours."""
        t0, t1 = self.snapshots.times[self.k : self.k + 2].tolist()
        x = self.snapshots.samples[self.k][self.pairs.left]
        y = self.snapshots.samples[self.k + 1][self.pairs.right]
        return Prediction(x + (self.time - t0) / (t1 - t0) * (y - x), self.pairs.chance)

    def midpoint_with_mean(self) -> Prediction:
        """The same, shifted as a smooth motion of the mean asks; see ``SmoothMean``."""
        scale = scale_of(self.snapshots)
        inner = scale.inside(self.snapshots)
        mean = SmoothMean().fitted(inner)
        now = torch.tensor([self.time], dtype=torch.float64)
        t, t0, t1 = ((s - scale.start) / scale.duration for s in (now, *self._span()))
        m, m0, m1 = (mean.position(s) for s in (t, t0, t1))
        u = (t - t0) / (t1 - t0)
        x, weight = self.midpoint()
        return Prediction(x + scale.length * (m - (1 - u) * m0 - u * m1), weight)

    def mass(self) -> float | None:
        """Mass at that time, between its neighbours in proportion; None where unknown."""
        masses = self.snapshots.masses
        if masses is None:
            return None
        t0, t1 = self.snapshots.times[self.k : self.k + 2].tolist()
        m0, m1 = masses[self.k : self.k + 2].tolist()
        return m0 + (self.time - t0) / (t1 - t0) * (m1 - m0)

    def spline(self) -> Prediction:
        """Natural cubic splines through chains of partners from snapshot to snapshot."""
        samples = self.snapshots.samples
        n = len(self.pairs.left)
        rows = {self.k: self.pairs.left, self.k + 1: self.pairs.right}
        for k in range(self.k + 1, len(samples) - 1):
            rows[k + 1] = self._partners(self._couple(k), rows[k], forwards=True)
        for k in range(self.k - 1, -1, -1):
            rows[k] = self._partners(self._couple(k), rows[k + 1], forwards=False)
        knots = np.stack([samples[k][rows[k]].numpy() for k in range(len(samples))])
        from scipy.interpolate import CubicSpline

        curve = CubicSpline(self.snapshots.times.numpy(), knots.reshape(len(samples), -1),
                            bc_type="natural")  # fmt: skip
        return Prediction(torch.from_numpy(curve(self.time)).reshape(n, -1), self.pairs.chance)

    def _span(self) -> tuple[Tensor, Tensor]:
        times = self.snapshots.times
        return times[self.k : self.k + 1], times[self.k + 1 : self.k + 2]

    def _couple(self, k: int) -> Coupling:
        x, y = self.snapshots.samples[k : k + 2]
        return exact_coupling(x, y, self.pool, self.generator)

    def _partners(self, pairs: Coupling, rows: Tensor, forwards: bool) -> Tensor:
        """For each row on one side its heaviest partner on the other."""
        here, there = (pairs.left, pairs.right) if forwards else (pairs.right, pairs.left)
        order = pairs.chance.argsort()
        partner = torch.zeros(int(here.max()) + 1, dtype=torch.int64)
        partner[here[order]] = there[order]
        return partner[rows]

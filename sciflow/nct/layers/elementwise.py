"""Maps of single coordinates: learned splines, and an angle opened to the line."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import nn

from sciflow.nct.layers.base import Columns, PointMap
from sciflow.nn import make_spline, n_spline_parameters
from sciflow.nn.splines import LEAST_BIN, raw_slope
from sciflow.shapes import Float, Tensor

#: Weight of uniform angles in the placing of knots, and their trace in the distribution.
EVEN_SHARE = 0.6
EVEN_TRACE = 1e-3


class Elementwise(PointMap):
    """Q_i = f_i(q_i) and P_i = p_i / f_i' for some of the coordinates.

    Args:
        index: the coordinates that move.
    """

    def __init__(self, index: Sequence[int]) -> None:
        super().__init__()
        self.columns = Columns(index)

    @abstractmethod
    def _move(self, x: Tensor, back: bool) -> tuple[Tensor, Tensor]:
        """Columns after the move, or before it, and ln of the derivatives."""

    def coordinates(
        self, q: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Latent coordinates of physical ones, and ln |det dQ/dq|."""
        x, log_derivative = self._move(self.columns.take(q), False)
        return self.columns.put(q, x), log_derivative.sum(1)

    def coordinates_inverse(
        self, Q: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Physical coordinates of latent ones, and ln |det dq/dQ|."""
        x, log_derivative = self._move(self.columns.take(Q), True)
        return self.columns.put(Q, x), log_derivative.sum(1)

    def forward(
        self, q: Float[Tensor, "batch dim"], p: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """Latent coordinates and momenta of physical ones."""
        return self._both(q, p, False)

    def inverse(
        self, Q: Float[Tensor, "batch dim"], P: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """Physical coordinates and momenta of latent ones."""
        return self._both(Q, P, True)

    def _both(self, q: Tensor, p: Tensor, back: bool) -> tuple[Tensor, Tensor]:
        x, log_derivative = self._move(self.columns.take(q), back)
        momenta = self.columns.take(p) * torch.exp(-log_derivative)
        return self.columns.put(q, x), self.columns.put(p, momenta)


class SplineMap(Elementwise):
    """A learned spline for each coordinate, on the line or on the circle; starts at the identity.

    Args:
        index: the coordinates that move.
        period: of all of them; infinity on the line.
        n_bins: bins of each spline.
        bound: on the line the spline covers [-bound, bound], and goes on straight beyond.
    """

    def __init__(
        self,
        index: Sequence[int],
        period: float = math.inf,
        n_bins: int = 16,
        bound: float = 5.0,
    ) -> None:
        super().__init__(index)
        self.config = {
            "index": list(index),
            "period": period,
            "n_bins": n_bins,
            "bound": bound,
        }
        self.circular = math.isfinite(period)
        self.bound = period / 2 if self.circular else bound
        number = n_spline_parameters(n_bins, self.circular)
        self.parameters_of_splines = nn.Parameter(torch.zeros(len(self.columns), number))

    @torch.no_grad()
    def set_distribution(self, row: int, x: Float[Tensor, " n"]) -> None:
        """Start the spline of an angle as the distribution function of samples, which are evened.

        Knots are at quantiles of the samples mixed with uniform angles, so that wells are
        resolved and empty stretches are not left without a knot.
        """
        half, n_bins = self.bound, self.config["n_bins"]
        grid = torch.linspace(-half, half, 4097, dtype=torch.float64)
        share = torch.searchsorted(x.double().sort().values, grid) / len(x)
        even = (grid + half) / (2 * half)
        # Few samples say little of where there are none: a trace of the uniform angle stays.
        target = (1 - EVEN_TRACE) * share + EVEN_TRACE * even
        mixed = (share + EVEN_SHARE * even) / (1 + EVEN_SHARE)
        wanted = torch.arange(1, n_bins, dtype=torch.float64) / n_bins
        inner = torch.searchsorted(mixed, wanted).clamp(1, len(grid) - 2)
        index = torch.cat([torch.tensor([0]), inner, torch.tensor([len(grid) - 1])])
        knots, values = grid[index], target[index] * 2 * half - half
        widths, heights = knots.diff().clamp(min=1e-6), values.diff().clamp(min=1e-6)
        steep = heights / widths
        # harmonic mean of the neighbours, across the cut too
        slopes = 2 / (1 / steep + 1 / steep.roll(1))
        self.parameters_of_splines[row] = torch.cat(
            [_logits(widths), _logits(heights), raw_slope(slopes)]
        )

    def _move(self, x: Tensor, back: bool) -> tuple[Tensor, Tensor]:
        spline = make_spline(self.parameters_of_splines, -self.bound, self.bound, self.circular)
        return spline.inverse(x) if back else spline(x)


class Unrolled(Elementwise):
    """An angle opened at its cut: Q = quantile of a standard normal at (q + period/2) / period.

    A uniform angle becomes a standard normal number. The cut, at half a period, should lie where
    the system never is: there the map has no derivative.

    Args:
        index: the angles.
        period: of all of them.
    """

    def __init__(self, index: Sequence[int], period: float) -> None:
        super().__init__(index)
        self.config = {"index": list(index), "period": period}
        self.limit = period / 2

    def _move(self, x: Tensor, back: bool) -> tuple[Tensor, Tensor]:
        Q = x
        if not back:
            # The last number below 1 keeps the quantile finite at the cut itself.
            share = x / self.limit
            largest = 1 - torch.finfo(x.dtype).eps
            Q = math.sqrt(2) * torch.erfinv(share.clamp(-largest, largest))
        # ln dq/dQ of q = half * erf(Q / sqrt 2)
        slope = math.log(self.limit * math.sqrt(2 / math.pi)) - Q.square() / 2
        return (self.limit * torch.erf(x / math.sqrt(2)), slope) if back else (Q, -slope)


def _logits(bins: Tensor) -> Tensor:
    """Parameters of bins of these sizes, whose least size the spline adds itself."""
    n_bins = len(bins)
    shares = (bins / bins.sum() - LEAST_BIN / n_bins) / (1 - LEAST_BIN)
    return shares.clamp(min=1e-4 / n_bins).log()

"""Monotone rational-quadratic splines on the line and on a circle, with exact inverses.

A spline of K bins goes through K + 1 knots with given slopes; between two knots it is a ratio of
two quadratics, hence monotone, once continuously differentiable, and smooth within each bin. On
the line it goes on straight beyond the outer knots; on a circle the outer slopes agree, and the
outer knots are one point.

Source: Gregory and Delbourgo, IMA J. Numer. Anal. 2, 123 (1982); Durkan, Bekasov, Murray,
Papamakarios, Neural Spline Flows, NeurIPS 2019, equations (4) to (8); Rezende et al., Normalizing
Flows on Tori and Spheres, ICML 2020, section 2.1.3, for the circle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from sciflow.shapes import Float, Tensor

#: Narrowest bin, in units of the mean bin, and least slope: both keep the inverse well behaved.
LEAST_BIN = 1e-2
LEAST_SLOPE = 1e-3
#: Logits of bins beyond this count as this: their exponentials stay finite.
LARGEST_LOGIT = 30.0
# The softplus of this is a slope of 1.
_SHIFT = math.log(math.expm1(1 - LEAST_SLOPE))


@dataclass(frozen=True)
class Spline:
    """Monotone splines, one for each entry of a tensor; shapes broadcast against its entries.

    Attributes:
        x: (..., K + 1) positions of the knots, ascending.
        y: (..., K + 1) values at the knots, ascending.
        raw_slopes: (..., K + 1) what the slopes are made of; zero is the slope 1.
        period: of both sides on a circle, where it is x[-1] - x[0] = y[-1] - y[0]; None on the
            line.
    """

    x: Float[Tensor, "*entry knots"]
    y: Float[Tensor, "*entry knots"]
    raw_slopes: Float[Tensor, "*entry knots"]
    period: float | None = None

    @property
    def slopes(self) -> Float[Tensor, "*entry knots"]:
        """Derivatives at the knots, positive."""
        return _slope(self.raw_slopes)

    def __call__(self, x: Float[Tensor, "*point"]) -> tuple[Tensor, Tensor]:
        """Value at ``x`` and the logarithm of the derivative there, both of its shape.

        On a circle any ``x`` is taken modulo the period, and the value lies between y[0] and
        y[-1].
        """
        if self.period is not None:
            x = wrap(x, self.x[..., 0], self.period)
        inside = x.clamp(self.x[..., 0], self.x[..., -1])
        x0, width, y0, height, d0, d1 = self._bin(inside, self.x)
        slope = height / width
        t = (inside - x0) / width
        rest = t * (1 - t)
        denominator = slope + (d0 + d1 - 2 * slope) * rest
        y = y0 + height * (slope * t.square() + d0 * rest) / denominator
        log_derivative = _log_derivative(t, slope, d0, d1, denominator)
        if self.period is not None:
            return y, log_derivative
        # Beyond the outer knots `inside` is a knot, and the derivative there goes on.
        return y + (x - inside) * log_derivative.exp(), log_derivative

    def inverse(self, y: Float[Tensor, "*point"]) -> tuple[Tensor, Tensor]:
        """Point of value ``y``, and the logarithm of the derivative of the inverse there."""
        if self.period is not None:
            y = wrap(y, self.y[..., 0], self.period)
        inside = y.clamp(self.y[..., 0], self.y[..., -1])
        x0, width, y0, height, d0, d1 = self._bin(inside, self.y)
        slope = height / width
        rise = (inside - y0) * (d0 + d1 - 2 * slope)
        # a t^2 + b t + c = 0; this form of its root has no cancellation, and holds for a = 0.
        a = height * (slope - d0) + rise
        b = height * d0 - rise
        c = -slope * (inside - y0)
        t = 2 * c / (-b - (b.square() - 4 * a * c).sqrt())
        # Beyond the outer knot, whose slope is multiplied by the distance, t is exactly 1.
        t = torch.where(y >= self.y[..., -1], torch.ones_like(t), t)
        denominator = slope + (d0 + d1 - 2 * slope) * t * (1 - t)
        log_derivative = -_log_derivative(t, slope, d0, d1, denominator)
        x = x0 + t * width
        if self.period is not None:
            return x, log_derivative
        return x + (y - inside) * log_derivative.exp(), log_derivative

    def _bin(self, at: Tensor, knots: Tensor) -> tuple[Tensor, ...]:
        """Left end, width, value, height and both slopes of the bin that ``at`` lies in."""
        index = (at.detach()[..., None] >= knots.detach()[..., 1:-1]).sum(-1, keepdim=True)
        x0, y0, raw0 = (_picked(values, index) for values in (self.x, self.y, self.raw_slopes))
        index = index + 1
        x1, y1, raw1 = (_picked(values, index) for values in (self.x, self.y, self.raw_slopes))
        return x0, x1 - x0, y0, y1 - y0, _slope(raw0), _slope(raw1)


def n_spline_parameters(n_bins: int, circular: bool = False) -> int:
    """Number of free parameters that `make_spline` takes for ``n_bins`` bins.

    Raises:
        ValueError: ``n_bins`` is less than 2.
    """
    if n_bins < 2:
        raise ValueError(f"n_bins must be at least 2; got {n_bins}")
    return 3 * n_bins + (0 if circular else 1)


def make_spline(
    parameters: Float[Tensor, "*entry number"],
    low: float,
    high: float,
    circular: bool = False,
) -> Spline:
    """A spline from free parameters, such as the output of a network; zeros are the identity.

    Args:
        parameters: (..., 3 K + 1) on the line, (..., 3 K) on a circle: K logits of the widths,
            K logits of the heights, then the slopes at the knots before a softplus.
        low: first knot, of both sides.
        high: last knot, of both sides; on a circle ``high - low`` is the period.
        circular: whether the two are one point.

    Raises:
        ValueError: another number of parameters, or ``high`` is not above ``low``.
    """
    number = parameters.shape[-1]
    n_bins = number // 3
    if n_bins < 2 or number != n_spline_parameters(n_bins, circular):
        form = "3 K" if circular else "3 K + 1"
        raise ValueError(f"parameters has {number} entries per spline; expected {form}, K >= 2")
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        raise ValueError(f"high must be above low, both finite; got {low} and {high}")
    knots = _knots(parameters[..., : 2 * n_bins].unflatten(-1, (2, n_bins)), low, high)
    raw_slopes = parameters[..., 2 * n_bins :]
    if circular:
        raw_slopes = torch.cat([raw_slopes, raw_slopes[..., :1]], -1)
    x, y = knots.unbind(-2)
    return Spline(x, y, raw_slopes, high - low if circular else None)


def raw_slope(slope: Float[Tensor, "*knot"]) -> Float[Tensor, "*knot"]:
    """The parameter of a slope at a knot; slopes below `LEAST_SLOPE` become nearly that."""
    return (slope - LEAST_SLOPE).clamp(min=LEAST_SLOPE).expm1().log() - _SHIFT


def wrap(x: Float[Tensor, "*point"], low: float | Tensor, period: float | Tensor) -> Tensor:
    """``x`` moved by whole periods into [low, low + period)."""
    return x - period * torch.floor((x.detach() - low) / period)


def _knots(logits: Tensor, low: float, high: float) -> Tensor:
    """Both ends and what lies between: running sums of bins whose shares are a softmax."""
    n_bins = logits.shape[-1]
    # Written out: over few bins it takes a fraction of the time of torch.softmax.
    bins = logits.clamp(-LARGEST_LOGIT, LARGEST_LOGIT).exp()
    sums = F.pad(bins.cumsum(-1), (1, 0))
    shares = sums / sums[..., -1:]
    even = torch.linspace(0, 1, n_bins + 1, dtype=logits.dtype, device=logits.device)
    return low + (high - low) * torch.lerp(shares, even, LEAST_BIN)


def _picked(values: Tensor, index: Tensor) -> Tensor:
    """Entry ``index`` (..., 1) of the last axis of ``values``, which broadcast."""
    return values.expand(*index.shape[:-1], values.shape[-1]).gather(-1, index).squeeze(-1)


def _slope(raw: Tensor) -> Tensor:
    return LEAST_SLOPE + F.softplus(raw + _SHIFT)


def _log_derivative(
    t: Tensor, slope: Tensor, d0: Tensor, d1: Tensor, denominator: Tensor
) -> Tensor:
    """Logarithm of equation (5) of Durkan et al."""
    numerator = d1 * t.square() + 2 * slope * t * (1 - t) + d0 * (1 - t).square()
    return 2 * slope.log() + numerator.log() - 2 * denominator.log()

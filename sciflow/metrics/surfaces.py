"""Free-energy surfaces and differences between states, from samples, with errors by runs.

Frames of one run are correlated, so that errors come from a bootstrap of whole runs, or of blocks
of a run. Everything is in units of kT unless a unit is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch

from sciflow.metrics.points import Array, as_points, as_real, as_weights
from sciflow.shapes import Bool, Float, Int, Tensor
from sciflow.units import convert, kT

EnergyUnit = Literal["kT", "kJ/mol", "kcal/mol"]


class Surface(NamedTuple):
    """A free energy -ln p of one or two coordinates, with its minimum at zero.

    Attributes:
        edges: K + 1 edges of the bins of each coordinate.
        value: (K,) or (K1, K2), in ``unit``; infinity where no sample is.
        error: standard error of each value, as far as runs were given; else nan. Where only
            some resamples have a sample in the bin it is infinite.
        unit: of value and error.
    """

    edges: tuple[Float[Tensor, " edge"], ...]
    value: Float[Tensor, "*bins"]
    error: Float[Tensor, "*bins"]
    unit: EnergyUnit

    @property
    def centers(self) -> tuple[Float[Tensor, " bin"], ...]:
        """Middle of each bin of each coordinate."""
        return tuple((edges[1:] + edges[:-1]) / 2 for edges in self.edges)


class Difference(NamedTuple):
    """A difference of free energies and its standard error, in ``unit``."""

    value: float
    error: float
    unit: EnergyUnit


def free_energy_surface(
    x: Array,
    bins: int = 60,
    ranges: Sequence[tuple[float, float] | None] | None = None,
    periods: Sequence[float] | None = None,
    weights: Array | None = None,
    runs: Array | None = None,
    generator: torch.Generator | None = None,
    n_bootstrap: int = 100,
    unit: EnergyUnit = "kT",
    temperature: float | None = None,
) -> Surface:
    """Free energy of one or two coordinates by a histogram.

    Args:
        x: (n,) or (n, d) samples, d = 1 or 2.
        bins: number of bins of each coordinate.
        ranges: of each coordinate, or None for what the samples span, and for one whole period
            [-period/2, period/2) of a periodic one. Samples outside count as nowhere.
        periods: of each coordinate, infinity where it has none; none has by default. Values of a
            periodic coordinate are taken back into its range.
        weights: (n,) weights of the samples, not negative.
        runs: (n,) which run, or block, each sample is from; without it there are no errors.
        generator: where the bootstrap's resamples come from; needed with ``runs``.
        n_bootstrap: number of resamples of the runs.
        unit: "kT", "kJ/mol" or "kcal/mol".
        temperature: [K], for the latter two.

    Raises:
        ValueError: shapes disagree, a range is empty, no sample is inside, a number is not
            finite, or there are fewer than two runs.
    """
    values = as_real(x, "x")
    points = as_points(values[:, None] if values.ndim == 1 else values, "x")
    n, d = points.shape
    if d > 2:
        raise ValueError(f"x has {d} coordinates; expected one or two")
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    scale = _unit(unit, temperature)
    periods = [math.inf] * d if periods is None else list(periods)
    ranges = [None] * d if ranges is None else list(ranges)
    if len(periods) != d or len(ranges) != d:
        raise ValueError(f"periods and ranges must have {d} entries, one for each coordinate")
    weight = as_weights(weights, points, "weights")
    flat = torch.zeros(n, dtype=torch.long, device=points.device)
    inside = torch.ones(n, dtype=torch.bool, device=points.device)
    edges = []
    for column, given, period in zip(points.unbind(1), ranges, periods, strict=True):
        low, high = _range(column, given, period)
        if math.isfinite(period):
            column = low + torch.remainder(column - low, period)
        place = ((column - low) / (high - low) * bins).floor()
        # The upper edge belongs to the last bin, as in every histogram.
        place = torch.where(column == high, bins - 1, place)
        inside &= (place >= 0) & (place < bins)
        flat = flat * bins + place.clamp(0, bins - 1).long()
        edges.append(torch.linspace(low, high, bins + 1, dtype=torch.float64).to(column))
    if not inside.any():
        raise ValueError("no sample of x is inside the ranges")
    flat, weight = flat[inside], weight[inside]
    shape = (bins,) * d
    total = torch.bincount(flat, weight, minlength=bins**d)
    value = -total.log()
    error = torch.full_like(value, math.nan)
    if runs is not None:
        label, count = _labels(runs, n)
        counts = torch.bincount(label[inside] * bins**d + flat, weight, minlength=count * bins**d)
        drawn = _resampled(counts.unflatten(0, (count, -1)), n_bootstrap, generator)
        replicas = -(drawn / drawn.sum(1, keepdim=True)).log()
        spread = replicas.std(0)
        error = torch.where(torch.isfinite(replicas).all(0), spread, math.inf)
        error = torch.where(torch.isfinite(value), error, math.nan)
    value = (value - value.min()) * scale
    return Surface(tuple(edges), value.reshape(shape), error.reshape(shape) * scale, unit)


def free_energy_difference(
    in_first: Array,
    in_second: Array,
    runs: Array,
    generator: torch.Generator,
    weights: Array | None = None,
    n_bootstrap: int = 1000,
    unit: EnergyUnit = "kT",
    temperature: float | None = None,
) -> Difference:
    """Free energy of the second state minus that of the first, -ln p2/p1.

    Args:
        in_first: (n,) True for the samples in the first state.
        in_second: (n,) True for those in the second; no sample may be in both.
        runs: (n,) which run, or block of a run, each sample is from (see `blocks`).
        generator: where the bootstrap's resamples of whole runs come from.
        weights: (n,) weights of the samples, not negative.
        n_bootstrap: number of resamples. One that misses a state counts for nothing.
        unit: "kT", "kJ/mol" or "kcal/mol".
        temperature: [K], for the latter two.

    Raises:
        ValueError: shapes disagree, a state is empty, the states overlap, or there are fewer than
            two runs.
    """
    states = [torch.as_tensor(state) for state in (in_first, in_second)]
    n = len(states[0])
    for name, state in zip(("in_first", "in_second"), states, strict=True):
        if state.dtype != torch.bool or state.shape != (n,):
            raise ValueError(
                f"{name} has shape {tuple(state.shape)} and type {state.dtype}; expected ({n},) "
                "truth values"
            )
    if (states[0] & states[1]).any():
        raise ValueError("in_second shares samples with in_first: states must not overlap")
    scale = _unit(unit, temperature)
    both = torch.stack(states, 1).double()
    both = both * as_weights(weights, both, "weights")[:, None]
    for name, weight in zip(("in_first", "in_second"), both.sum(0).tolist(), strict=True):
        if weight == 0:
            raise ValueError(
                f"{name} has no sample of positive weight: its free energy is infinite"
            )
    label, count = _labels(runs, n)
    sums = both.new_zeros(count, 2).index_add(0, label.to(both.device), both)
    drawn = _resampled(sums, n_bootstrap, generator)
    replicas = (drawn[:, 0] / drawn[:, 1]).log()
    value = float((sums.sum(0)[0] / sums.sum(0)[1]).log())
    error = float(replicas[torch.isfinite(replicas)].std())
    return Difference(value * scale, error * scale, unit)


def blocks(runs: Array, per_run: int) -> Int[Tensor, " n"]:
    """Labels that divide each run into ``per_run`` stretches, for the bootstrap of a few runs.

    Args:
        runs: (n,) run of each sample, in the order of time within a run.
        per_run: number of stretches; each must be longer than the correlation time.

    Raises:
        ValueError: ``per_run`` is less than one.
    """
    if per_run < 1:
        raise ValueError(f"per_run must be at least 1, got {per_run}")
    labels = torch.as_tensor(runs)
    out = torch.zeros_like(labels, dtype=torch.long)
    for i, run in enumerate(labels.unique()):
        members = (labels == run).nonzero()[:, 0]
        place = torch.arange(len(members), device=labels.device) * per_run // len(members)
        out[members] = i * per_run + place
    return out


def between(angle: Array, low: float, high: float) -> Bool[Tensor, " n"]:
    """Whether an angle [rad] is on the arc from ``low`` up to ``high``, also across +-pi."""
    values = as_real(angle, "angle")
    turn = 2 * math.pi
    return torch.remainder(values - low, turn) < (high - low) % turn


def _range(
    column: Float[Tensor, " n"], given: tuple[float, float] | None, period: float
) -> tuple[float, float]:
    if not period > 0:
        raise ValueError(f"periods must be positive, got {period}")
    if given is not None:
        low, high = map(float, given)
    elif math.isfinite(period):
        low, high = -period / 2, period / 2
    else:
        low, high = float(column.min()), float(column.max())
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"ranges must be ascending and finite, got ({low}, {high})")
    if high - low > period * (1 + 1e-12):
        raise ValueError(f"ranges: ({low}, {high}) is longer than the period {period}")
    return low, high


def _labels(runs: Array, n: int) -> tuple[Int[Tensor, " n"], int]:
    labels = torch.as_tensor(runs)
    if labels.shape != (n,):
        raise ValueError(f"runs has shape {tuple(labels.shape)}; expected ({n},)")
    names, inverse = labels.unique(return_inverse=True)
    if len(names) < 2:
        raise ValueError(
            "runs has one run: errors need at least two, or the blocks of one (see `blocks`)"
        )
    return inverse, len(names)


def _resampled(
    sums: Float[Tensor, "run entry"], n_bootstrap: int, generator: torch.Generator | None
) -> Float[Tensor, "replica entry"]:
    """Sums over runs drawn with replacement, as often as there are runs."""
    if generator is None:
        raise ValueError("generator is None: the bootstrap over runs needs one")
    if n_bootstrap < 2:
        raise ValueError(f"n_bootstrap is {n_bootstrap}; expected at least 2")
    n = len(sums)
    chosen = torch.randint(n, (n_bootstrap, n), generator=generator, device=generator.device)
    times = torch.zeros(n_bootstrap, n, dtype=torch.float64, device=generator.device)
    times.scatter_add_(1, chosen, torch.ones_like(times))
    return times.to(sums) @ sums


def _unit(unit: str, temperature: float | None) -> float:
    """How many of this unit kT is."""
    if unit not in ("kT", "kJ/mol", "kcal/mol"):
        raise ValueError(f"unit must be 'kT', 'kJ/mol' or 'kcal/mol', got {unit!r}")
    if unit == "kT":
        return 1.0
    if temperature is None:
        raise ValueError(f"temperature [K] is needed for the unit {unit}")
    return convert(kT(temperature), "kJ/mol", unit)

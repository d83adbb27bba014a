"""A differentiating-cell simulator: a gene-regulatory network whose velocity and growth are known.

Two lineage genes activate themselves and inhibit each other (the GATA1 / PU.1 switch of Huang et
al. 2007). A progenitor gene, which follows a signal that fades with time, holds both down. While
the signal lasts, one progenitor state is stable; as it fades, this state loses its stability and
the noise lets each cell fall to one of two fates, whose target genes follow in cascades. One
lineage proliferates, so that the sizes of the branches change too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import torch

from sciflow.shapes import Float, Int, Tensor
from sciflow.systems.fixed_points import FixedPoints, find_fixed_points, jacobian
from sciflow.systems.population import Ensemble, draw_independently, propagate
from sciflow.train import Snapshots

PROGENITOR, LINEAGE_A, LINEAGE_B = 0, 1, 2
_POSITIVE = ("rate", "basal", "threshold", "signal_width")
_NOT_NEGATIVE = ("self_activation", "noise", "birth", "death")


@dataclass(frozen=True, eq=False)
class GeneNetworkData:
    """Cells of a simulated time course, as destructive sequencing would yield them.

    Attributes:
        snapshots: what was measured: n independent cells for each time [day], no cell seen twice,
            and the population sizes relative to day 0.
        mass_error: standard errors of the sizes, shape (K,).
        lineages: for each time the label of each cell, (n,): 0 progenitor, 1 and 2 committed.
        ensemble: one weighted population followed through all times: the true trajectories,
            which no measurement would show.
        genes: the d names of the genes.
    """

    snapshots: Snapshots
    mass_error: Float[Tensor, " times"]
    lineages: tuple[Tensor, ...]
    ensemble: Ensemble
    genes: tuple[str, ...]


@dataclass(frozen=True)
class GeneNetwork:
    """Stochastic model of a cell fate decision with d = 3 + 2 * cascade genes.

    With H(z) = z^n / (threshold^n + z^n), the state (a, b, s, targets of a and b by level) obeys

        da/dt = rate * ([self_activation H(a) + basal (1 - H(b))] (1 - H_s(s)) - a)   (b alike)
        ds/dt = rate * (signal(t) - s),    signal(t) = 1 / (1 + exp((t - commitment) / width))
        dc/dt = rate * (H(gene one level above) - c)

    with additive noise, dX = v dt + noise dW, and the net growth g = birth H(a) - death.
    Expression is dimensionless and of order one; like log-normalised data it may fall below zero,
    where H is zero.

    Attributes:
        cascade: levels of target genes below each lineage gene.
        rate: degradation and response rate of all genes [1/day].
        self_activation: strength of self-activation [expression].
        basal: strength of production in absence of the rival [expression].
        threshold: half-point of every Hill function [expression].
        hill: exponent n of the lineage and target genes, at least 1.
        signal_hill: exponent of the repression by the progenitor gene, at least 1.
        commitment: day at which the progenitor signal has fallen to one half.
        signal_width: time over which it falls [day].
        noise: sigma [expression / sqrt(day)].
        birth: birth rate of fully committed cells of the first lineage [1/day].
        death: death rate of every cell [1/day].

    Raises:
        ValueError: a parameter is not finite or out of its range.

    Source: Huang, Guo, May, Enver, Dev. Biol. 305, 695 (2007), equation (1), for the switch.
    """

    cascade: int = 1
    rate: float = 2.0
    self_activation: float = 0.75
    basal: float = 1.0
    threshold: float = 0.5
    hill: float = 4.0
    signal_hill: float = 2.0
    commitment: float = 0.8
    signal_width: float = 0.4
    noise: float = 0.2
    birth: float = 0.6
    death: float = 0.1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not math.isfinite(value):
                raise ValueError(f"{field.name} must be finite, got {value}")
        for name in _POSITIVE:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in _NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("hill", "signal_hill"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.cascade < 0:
            raise ValueError(f"cascade must not be negative, got {self.cascade}")

    @property
    def dim(self) -> int:
        """Number of genes d."""
        return 3 + 2 * self.cascade

    @property
    def genes(self) -> tuple[str, ...]:
        """Names of the genes, in the order of the state."""
        targets = [f"{name} target {i + 1}" for i in range(self.cascade) for name in "AB"]
        return ("lineage A", "lineage B", "progenitor", *targets)

    def signal(self, t: float | int | Tensor) -> Tensor:
        """Progenitor signal in (0, 1) at time ``t`` [day]; scalar or (N,)."""
        return torch.sigmoid((self.commitment - torch.as_tensor(t)) / self.signal_width)

    def velocity(
        self, t: float | int | Tensor, x: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch dim"]:
        """Drift of the expression.

        Args:
            t: time [day], a number or a tensor of shape () or (N,).
            x: expression, shape (N, d).

        Returns:
            shape (N, d) [expression / day].

        Raises:
            ValueError: ``x`` does not have d columns.
        """
        if x.shape[1] != self.dim:
            raise ValueError(f"x must have {self.dim} columns, one per gene; got {x.shape[1]}")
        a, b, stem = x[:, 0], x[:, 1], x[:, 2]
        response_a, response_b = self._hill(a, self.hill), self._hill(b, self.hill)
        release = 1 - self._hill(stem, self.signal_hill)
        signal = self.signal(torch.as_tensor(t, dtype=x.dtype, device=x.device)).expand_as(stem)
        production = [
            (self.self_activation * response_a + self.basal * (1 - response_b)) * release,
            (self.self_activation * response_b + self.basal * (1 - response_a)) * release,
            signal,
        ]
        for level in range(self.cascade):
            if level:
                above = x[:, 1 + 2 * level : 3 + 2 * level]
                response_a, response_b = self._hill(above, self.hill).unbind(1)
            production += [response_a, response_b]
        return self.rate * (torch.stack(production, 1) - x)

    def growth(
        self, t: float | int | Tensor, x: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, " batch"]:
        """Net birth rate [1/day], shape (N,), of cells ``x`` (N, d); it does not depend on t."""
        return self.birth * self._hill(x[:, 0], self.hill) - self.death

    def diffusion(
        self, t: float | int | Tensor, x: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch dim"]:
        """Noise strength [expression / sqrt(day)], the same for all genes, shape (N, d)."""
        return torch.full_like(x, self.noise)

    def lineage(self, x: Float[Tensor, "batch dim"]) -> Int[Tensor, " batch"]:
        """Label cells (N, d) by their lineage genes: 0 progenitor, 1 and 2 committed, (N,)."""
        lead = x[:, 0] - x[:, 1]
        label = torch.where(lead > 0, LINEAGE_A, LINEAGE_B)
        return torch.where(lead.abs() > self.threshold, label, PROGENITOR)

    def fixed_points(self, t: float, n_starts: int = 12) -> FixedPoints:
        """Find the states that would persist if the signal stayed as it is at time ``t``.

        Newton's method, in float64, from a grid of ``n_starts`` expressions of either lineage
        gene, all others in equilibrium with them; ``t`` in days.
        """
        highest = self.self_activation + self.basal
        axis = torch.linspace(0, highest, n_starts, dtype=torch.float64)
        x = torch.zeros(n_starts**2, self.dim, dtype=torch.float64)
        x[:, :2] = torch.cartesian_prod(axis, axis)
        x[:, 2] = float(self.signal(torch.tensor(t, dtype=torch.float64)))
        for level in range(self.cascade):
            above = x[:, 2 * level + bool(level) :][:, :2]
            x[:, 3 + 2 * level : 5 + 2 * level] = self._hill(above, self.hill)
        return find_fixed_points(lambda point: self.velocity(t, point), x, highest / 4)

    @cached_property
    def initial(self) -> tuple[Float[Tensor, " dim"], Float[Tensor, "dim dim"]]:
        """Mean (d,) and covariance (d, d) of the progenitors at day 0, in float64.

        They are the stationary state of the dynamics linearised about the stable progenitor state.

        Raises:
            ValueError: no progenitor state is stable at day 0.
        """
        from scipy.linalg import solve_continuous_lyapunov

        points = self.fixed_points(0.0)
        at_rest = points.x[points.stable & (self.lineage(points.x) == PROGENITOR)]
        if not len(at_rest):
            raise ValueError(f"commitment leaves no stable progenitor state at day 0: {self}")
        # Primed states of one lineage may be stable beside it; the balanced one is the progenitor.
        mean = at_rest[(at_rest[:, 0] - at_rest[:, 1]).abs().argmin()]
        linear = jacobian(lambda point: self.velocity(0.0, point), mean[None])[0]
        power = -(self.noise**2) * np.eye(self.dim)
        covariance = solve_continuous_lyapunov(linear.cpu().numpy(), power)
        return mean, torch.as_tensor(covariance).to(mean)

    def population(
        self,
        x0: Float[Tensor, "batch dim"],
        t: Float[Tensor, " times"],
        dt: float,
        generator: torch.Generator,
    ) -> Ensemble:
        """Follow cells ``x0`` (N, d) of day 0, with weight one, to the ascending times ``t``."""
        keep = int(t[0] > 0)
        grid = torch.cat([t.new_zeros(keep), t])
        run = propagate(self.velocity, self.growth, self.noise, x0, grid, dt, generator)
        return Ensemble(t, run.x[keep:], run.log_weight[keep:])

    def progenitors(self, n: int, generator: torch.Generator) -> Float[Tensor, "batch dim"]:
        """Draw ``n`` independent cells of day 0 in torch's default dtype, shape (n, d)."""
        mean, covariance = self.initial
        values, vectors = torch.linalg.eigh(covariance)
        draws = torch.randn(n, self.dim, generator=generator, device=generator.device)
        return mean.to(draws) + draws @ (vectors * values.clamp(min=0).sqrt()).T.to(draws)

    def simulate(
        self,
        n: int,
        times: Sequence[float | int] = (0.0, 1.0, 2.0, 3.0, 4.0),
        *,
        seed: int = 0,
        generator: torch.Generator | None = None,
        dt: float = 0.0625,
        ensemble: int | None = None,
    ) -> GeneNetworkData:
        """Draw cells at each time, every time from a population of its own.

        Args:
            n: cells per time.
            times: two or more days, ascending, not before day 0.
            seed: seed of a generator on the CPU, used where ``generator`` is not given.
            generator: source of all randomness; the simulation runs on its device.
            dt: largest step of the simulation [day]; best a power of two.
            ensemble: particles of each population, which set the error of the masses; at least
                4096 and 4 n where not given.

        Returns:
            Cells, masses, lineages and the followed ensemble, from torch's default dtype.

        Raises:
            ValueError: an argument is out of its range.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        days = [float(time) for time in times]
        ascending = all(a < b for a, b in zip(days, days[1:], strict=False))
        if len(days) < 2 or not ascending or days[0] < 0 or not math.isfinite(days[-1]):
            raise ValueError(f"times must be two or more, finite, ascending, >= 0; got {days}")
        if not 0 < dt < math.inf:
            raise ValueError(f"dt must be positive and finite, got {dt}")
        if ensemble is not None and ensemble < 2:
            raise ValueError(f"ensemble must be at least 2, got {ensemble}")
        size = ensemble or max(4096, 4 * n)
        generator = generator or torch.Generator("cpu").manual_seed(seed)
        t = torch.tensor(days, device=generator.device)
        follow = lambda at: self.population(self.progenitors(size, generator), at, dt, generator)
        fastest = self.birth - self.death
        draws = [draw_independently(follow, time, n, fastest, generator) for time in t[:, None]]
        masses = torch.cat([mass for _, mass, _ in draws])
        snapshots = Snapshots([cells for cells, _, _ in draws], t, masses)
        return GeneNetworkData(
            snapshots=snapshots,
            mass_error=torch.cat([error for _, _, error in draws]),
            lineages=tuple(self.lineage(cells) for cells in snapshots.samples),
            ensemble=follow(t),
            genes=self.genes,
        )

    def _hill(self, z: Tensor, exponent: float) -> Tensor:
        """Hill function of expression; below zero there is no response."""
        power = (z.clamp(min=0) / self.threshold) ** exponent
        return power / (1 + power)

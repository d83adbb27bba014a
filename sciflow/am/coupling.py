"""Optimal-transport couplings between neighbouring snapshots, kept as lists of pairs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from sciflow.errors import SciflowError, require
from sciflow.shapes import Float, Int, Tensor
from sciflow.train import Snapshots

# Exact transport between n and n points costs about n^2.5: 0.1 s at 550, 3 s at 2000.
POOL = 2000


class Coupling(NamedTuple):
    """Pairs of one interval: row ``left`` of one snapshot goes to row ``right`` of the next."""

    left: Int[Tensor, "pair"]
    right: Int[Tensor, "pair"]
    mass: Float[Tensor, "pair"]


def exact_coupling(
    x: Float[Tensor, "left dim"],
    y: Float[Tensor, "right dim"],
    pool: int = POOL,
    generator: torch.Generator | None = None,
) -> Coupling:
    """Optimal pairs for the squared Euclidean cost, by the network simplex of POT.

    A plan between n and m points has at most n + m - 1 pairs, so no dense plan is kept. Snapshots
    of more than ``pool`` points are coupled pool by pool: both are shuffled and dealt into pools
    of equal number, and every pool is solved exactly (minibatch optimal transport, Fatras et al.
    2020); this costs a bias that falls with the size of the pool.

    Args:
        x: points at the earlier time.
        y: points at the later time.
        pool: largest number of points on either side of one exact problem.
        generator: shuffles the points; needed only where pools are.

    Raises:
        ValueError: pools are needed but no generator was given.
        SciflowError: the solver did not converge.
    """
    n_pools = -(-max(len(x), len(y)) // pool)
    if n_pools == 1:
        return _solve(x, y, torch.arange(len(x)), torch.arange(len(y)))
    if generator is None:
        raise ValueError(f"more than pool = {pool} points need a generator that deals them")
    n_pools = min(n_pools, len(x), len(y))
    deal = [torch.randperm(len(z), generator=generator).tensor_split(n_pools) for z in (x, y)]
    parts = [_solve(x, y, i, j) for i, j in zip(*deal, strict=True)]
    weights = [len(i) / len(x) for i in deal[0]]
    return Coupling(
        torch.cat([p.left for p in parts]),
        torch.cat([p.right for p in parts]),
        torch.cat([p.mass * w for p, w in zip(parts, weights, strict=True)]),
    )


def _solve(x: Tensor, y: Tensor, i: Tensor, j: Tensor) -> Coupling:
    ot = require("ot")
    a, b = x[i].double().numpy(), y[j].double().numpy()
    cost = ot.dist(a, b)
    plan, log = ot.emd(
        np.full(len(a), 1 / len(a)), np.full(len(b), 1 / len(b)), cost, numItermax=10**7, log=True
    )
    if log["warning"] is not None:
        raise SciflowError(f"optimal transport did not converge: {log['warning']}")
    left, right = np.nonzero(plan)
    mass = torch.from_numpy(plan[left, right])
    return Coupling(i[torch.from_numpy(left)], j[torch.from_numpy(right)], mass / mass.sum())


class PathBatch(NamedTuple):
    """Pairs of coupled samples, each with a time in its interval; all rescaled by the source.

    Attributes:
        t: times in [0, 1], (n,).
        t_left: times of the snapshot before, (n,).
        t_right: times of the snapshot after, (n,).
        left: samples of the snapshot before, (n, d).
        right: their partners in the snapshot after, (n, d).
        first: independent samples of the first snapshot, (n, d).
        last: independent samples of the last snapshot, (n, d).
    """

    t: Float[Tensor, "n"]
    t_left: Float[Tensor, "n"]
    t_right: Float[Tensor, "n"]
    left: Float[Tensor, "n dim"]
    right: Float[Tensor, "n dim"]
    first: Float[Tensor, "n dim"]
    last: Float[Tensor, "n dim"]


class CoupledSnapshots:
    """Source of coupled pairs at low-discrepancy times (Kronecker's sequence from a random start).

    Args:
        snapshots: what was observed; its times must span [0, 1].
        couplings: one per interval; computed by ``exact_coupling`` where not given.
        seed: seed of the dealing into pools.
        pool: see ``exact_coupling``.
    """

    def __init__(
        self,
        snapshots: Snapshots,
        couplings: list[Coupling] | None = None,
        seed: int = 0,
        pool: int = POOL,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        samples = snapshots.samples
        if couplings is None:
            couplings = [
                exact_coupling(x, y, pool, generator)
                for x, y in zip(samples[:-1], samples[1:], strict=True)
            ]
        offsets = torch.tensor([0, *snapshots.sizes]).cumsum(0)
        self._x = torch.cat(samples)
        self._times = snapshots.times
        self._sizes = snapshots.sizes
        self._left = torch.cat([c.left + offsets[k] for k, c in enumerate(couplings)])
        self._right = torch.cat([c.right + offsets[k + 1] for k, c in enumerate(couplings)])
        # Interval k fills (k, k + 1] of one running sum: one search finds interval and pair.
        self._cumulative = torch.cat([k + c.mass.cumsum(0) for k, c in enumerate(couplings)])
        ends = torch.tensor([len(c.mass) for c in couplings]).cumsum(0) - 1
        self._last_pair = ends
        self._first_pair = torch.cat([torch.zeros(1, dtype=torch.int64), ends[:-1] + 1])

    @property
    def device(self) -> torch.device:
        """Where the samples live."""
        return self._x.device

    def placed(self, device: torch.device, dtype: torch.dtype) -> CoupledSnapshots:
        """The same source on a device, its samples in ``dtype``."""
        other = object.__new__(CoupledSnapshots)
        for name, value in self.__dict__.items():
            if isinstance(value, Tensor):
                # Times and the running sum stay in float64: they decide which pair is drawn.
                value = value.to(device, dtype) if name == "_x" else value.to(device)
            setattr(other, name, value)
        return other

    def sample(self, n: int, generator: torch.Generator) -> PathBatch:
        """Draw ``n`` pairs with their times."""
        device = self._x.device

        def uniform(*shape: int) -> Tensor:
            draw = torch.rand(
                shape, generator=generator, device=generator.device, dtype=torch.float64
            )
            return draw.to(device)

        steps = torch.arange(n, device=device, dtype=torch.float64)
        t = (uniform(1) + steps * 2**0.5) % 1.0
        interval = torch.searchsorted(self._times, t, right=True) - 1
        interval = interval.clamp(0, len(self._times) - 2)
        pair = torch.searchsorted(self._cumulative, interval + uniform(n), right=True)
        # Rounding of the running sum must not carry a draw into the next interval.
        pair = torch.minimum(pair, self._last_pair[interval])
        pair = torch.maximum(pair, self._first_pair[interval])
        first = (uniform(n) * self._sizes[0]).long()
        last = len(self._x) - 1 - (uniform(n) * self._sizes[-1]).long()
        dtype = self._x.dtype
        return PathBatch(
            t.to(dtype),
            self._times[interval].to(dtype),
            self._times[interval + 1].to(dtype),
            self._x[self._left[pair]],
            self._x[self._right[pair]],
            self._x[first],
            self._x[last],
        )

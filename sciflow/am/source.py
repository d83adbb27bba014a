"""Where action matching takes its batches from: coupled snapshots, at chosen times."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch

from sciflow.am.coupling import POOL, Coupling, couple
from sciflow.am.lagrangians import Lagrangian
from sciflow.am.times import Times
from sciflow.shapes import Float, Tensor
from sciflow.train import Snapshots


class PathBatch(NamedTuple):
    """Pairs of coupled samples, each with a time in its interval; in the units of the source.

    Attributes:
        t: times in [0, 1], (n,).
        density: density that the times were drawn with, (n,); one where they are uniform.
        t_left: times of the snapshot before, (n,).
        t_right: times of the snapshot after, (n,).
        left: samples of the snapshot before, (n, d).
        right: their partners in the snapshot after, (n, d).
        mass_left: mass that the pair starts with, over the probability of its draw, (n,).
        mass_right: mass that it ends with, likewise, (n,).
        noise: independent standard normal numbers, (n, d).
        first: independent samples of the first snapshot, (n, d).
        last: independent samples of the last snapshot, (n, d).
        mass_first: mass of the first snapshot, (n,).
        mass_last: mass of the last snapshot, (n,).
    """

    t: Float[Tensor, "n"]
    density: Float[Tensor, "n"]
    t_left: Float[Tensor, "n"]
    t_right: Float[Tensor, "n"]
    left: Float[Tensor, "n dim"]
    right: Float[Tensor, "n dim"]
    mass_left: Float[Tensor, "n"]
    mass_right: Float[Tensor, "n"]
    noise: Float[Tensor, "n dim"]
    first: Float[Tensor, "n dim"]
    last: Float[Tensor, "n dim"]
    mass_first: Float[Tensor, "n"]
    mass_last: Float[Tensor, "n"]


@runtime_checkable
class PathSource(Protocol):
    """Where batches come from, and the samples that the flow starts from."""

    @property
    def mass_first(self) -> float:
        """Mass of the first samples."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the generator of the source lives."""
        ...

    @property
    def first(self) -> Float[Tensor, "n dim"]:
        """Samples at the first time."""
        ...

    def sample(self, n: int, generator: torch.Generator) -> PathBatch:
        """Draw a batch."""
        ...


class CoupledSnapshots:
    """Source of coupled pairs at low-discrepancy times.

    Args:
        snapshots: what was observed; its times must span [0, 1].
        couplings: one per interval; computed by ``couple`` where not given.
        lagrangian: in the units of the snapshots; decides the couplings and whether masses count.
        times: how times are drawn; uniformly by default.
        seed: seed of the couplings.
        pool: see ``couple``.
    """

    def __init__(
        self,
        snapshots: Snapshots,
        couplings: list[Coupling] | None = None,
        lagrangian: Lagrangian | None = None,
        times: Times | None = None,
        seed: int = 0,
        pool: int = POOL,
    ) -> None:
        lagrangian = lagrangian or Lagrangian()
        generator = torch.Generator().manual_seed(seed)
        samples, when = snapshots.samples, snapshots.times
        masses = [1.0] * len(samples)
        if lagrangian.growth_penalty is not None and snapshots.masses is not None:
            masses = snapshots.masses.tolist()
        if couplings is None:
            couplings = [
                couple(
                    samples[k],
                    samples[k + 1],
                    lagrangian,
                    float(when[k + 1] - when[k]),
                    (masses[k], masses[k + 1]),
                    pool,
                    generator,
                )
                for k in range(len(samples) - 1)
            ]
        self.times = times or Times()
        self._x = torch.cat(samples)
        self._when, self._sizes = when, snapshots.sizes
        self._masses = (masses[0], masses[-1])
        before = torch.tensor([0, *snapshots.sizes]).cumsum(0)
        lefts, rights = [], []
        for k, c in enumerate(couplings):
            left, right = c.left + before[k], c.right + before[k + 1]
            # Without a partner, mass stays where it is.
            lefts.append(torch.where(c.left < 0, right, left))
            rights.append(torch.where(c.right < 0, left, right))
        self._left, self._right = torch.cat(lefts), torch.cat(rights)
        self._start = torch.cat([c.start for c in couplings])
        self._end = torch.cat([c.end for c in couplings])
        self._index([c.chance for c in couplings])

    def _index(self, chances: list[Tensor]) -> None:
        """Make the pairs of each interval, with these chances, quick to draw."""
        # Interval k fills (k, k + 1] of one running sum: one search finds interval and pair.
        self._cumulative = torch.cat([k + chance.cumsum(0) for k, chance in enumerate(chances)])
        ends = torch.tensor([len(chance) for chance in chances]).cumsum(0) - 1
        self._last_pair = ends
        self._first_pair = torch.cat([torch.zeros(1, dtype=torch.int64), ends[:-1] + 1])

    def with_pairs(self, pairs: list[tuple[Tensor, Tensor]]) -> CoupledSnapshots:
        """The same snapshots joined by other pairs, which need not be samples of theirs.

        Args:
            pairs: for each interval the points before and after, (n, d) each, equally likely.
        """
        other = copy.copy(self)
        sizes, n = sum(self._sizes), [len(before) for before, _ in pairs]
        points = [side for both in zip(*pairs, strict=True) for side in both]
        other._x = torch.cat([self._x[:sizes], *points])
        other._left = sizes + torch.arange(sum(n))
        other._right = other._left + sum(n)
        other._start = other._end = torch.ones(sum(n), dtype=torch.float64)
        other._index([torch.full((k,), 1 / k, dtype=torch.float64) for k in n])
        return other

    @property
    def first(self) -> Float[Tensor, "n dim"]:
        """Samples of the first snapshot."""
        return self._x[: self._sizes[0]]

    @property
    def mass_first(self) -> float:
        """Mass of the first snapshot."""
        return self._masses[0]

    @property
    def device(self) -> torch.device:
        """Where the samples live."""
        return self._x.device

    def placed(self, device: torch.device, dtype: torch.dtype) -> CoupledSnapshots:
        """The same source on a device, its samples in ``dtype``."""
        other = copy.copy(self)
        for name, value in self.__dict__.items():
            if isinstance(value, Tensor):
                # Times and the running sum stay in float64: they decide which pair is drawn.
                value = value.to(device, dtype) if name == "_x" else value.to(device)
            setattr(other, name, value)
        return other

    def state_dict(self) -> dict[str, Any]:
        """What the drawing of times has learned."""
        return self.times.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on drawing times as ``state_dict`` saw it."""
        self.times.load_state_dict(state)

    def sample(self, n: int, generator: torch.Generator) -> PathBatch:
        """Draw ``n`` pairs with their times."""
        device, dtype = self._x.device, self._x.dtype

        def uniform(*shape: int) -> Tensor:
            draw = torch.rand(
                shape, generator=generator, device=generator.device, dtype=torch.float64
            )
            return draw.to(device)

        t, density = self.times.draw(n, uniform(1))
        interval = torch.searchsorted(self._when, t, right=True) - 1
        interval = interval.clamp(0, len(self._when) - 2)
        pair = torch.searchsorted(self._cumulative, interval + uniform(n), right=True)
        # Rounding of the running sum must not carry a draw into the next interval.
        pair = torch.minimum(pair, self._last_pair[interval])
        pair = torch.maximum(pair, self._first_pair[interval])
        first = (uniform(n) * self._sizes[0]).long()
        last = sum(self._sizes) - 1 - (uniform(n) * self._sizes[-1]).long()
        noise = torch.randn(
            n, self._x.shape[1], generator=generator, device=generator.device, dtype=torch.float64
        )
        one = torch.ones(n, dtype=dtype, device=device)
        return PathBatch(
            t.to(dtype),
            density.to(dtype),
            self._when[interval].to(dtype),
            self._when[interval + 1].to(dtype),
            self._x[self._left[pair]],
            self._x[self._right[pair]],
            self._start[pair].to(dtype),
            self._end[pair].to(dtype),
            noise.to(device, dtype),
            self._x[first],
            self._x[last],
            one * self._masses[0],
            one * self._masses[1],
        )

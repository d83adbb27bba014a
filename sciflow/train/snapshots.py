"""Samples of a population at several times."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from sciflow.errors import DataError
from sciflow.shapes import Float, Tensor
from sciflow.train.batch import require_finite, to_tensor

logger = logging.getLogger(__name__)


class SnapshotBatch(NamedTuple):
    """Independent draws from each marginal.

    Attributes:
        x: shape (n, K, d): column k holds draws of time point k, not paired with the others.
    """

    x: Float[Tensor, "n time dim"]


class _SnapshotDraws:
    """Draws from K stacked populations in one random call and one gather."""

    def __init__(self, flat: Float[Tensor, "row dim"], sizes: tuple[int, ...]) -> None:
        self.flat, self.sizes, self.device = flat, sizes, flat.device
        self._size = torch.tensor(sizes, device=flat.device)
        self._start = self._size.cumsum(0) - self._size

    def sample(self, n: int, generator: torch.Generator) -> SnapshotBatch:
        u = torch.rand(
            n, len(self.sizes), generator=generator, device=generator.device, dtype=torch.float64
        )
        rows = (u.to(self.device) * self._size).long() + self._start
        return SnapshotBatch(self.flat[rows])


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Snapshots:
    """Samples of a population at several times; not the same individuals.

    Times that are not sorted are sorted, with a warning in the log; samples and masses follow.

    Args:
        samples: K tensors or arrays of shapes (n_k, d), d the same for all.
        times: K distinct times, in the user's unit of time.
        masses: K relative masses of the population (numbers of cells, say); None where unknown.

    Attributes:
        samples: K tensors of shapes (n_k, d), float64 on the CPU, in order of time.
        times: shape (K,), ascending, float64.
        masses: shape (K,), float64, or None.

    Raises:
        DataError: values, times or masses that cannot be used; the message names the time point,
            row and column, numbered from 0 as given.
    """

    samples: tuple[Float[Tensor, "_ dim"], ...]
    times: Float[Tensor, " time"]
    masses: Float[Tensor, " time"] | None

    def __init__(self, samples: Sequence[Any], times: Any, masses: Any = None) -> None:
        stamps = to_tensor(times, "times", torch.float64).cpu()
        if stamps.ndim != 1 or len(stamps) != len(samples):
            raise DataError(f"times has shape {tuple(stamps.shape)}, expected ({len(samples)},)")
        if len(samples) < 2:
            raise DataError(f"at least two time points are needed, got {len(samples)}")
        require_finite(stamps, "times")
        order = stamps.argsort(stable=True)
        sorted_times = stamps[order]
        for i in range(len(samples) - 1):
            if sorted_times[i] == sorted_times[i + 1]:
                first, second = sorted(order[i : i + 2].tolist())
                value = float(sorted_times[i])
                raise DataError(f"times must differ: time points {first} and {second} are {value}")
        populations: list[Tensor] = []
        for k, x in enumerate(samples):
            name = f"time point {k} (t = {float(stamps[k]):g})"
            population = to_tensor(x, name, torch.float64).cpu()
            if population.ndim != 2:
                shape = tuple(population.shape)
                raise DataError(f"{name} has shape {shape}, expected (samples, dimensions)")
            if len(population) == 0:
                raise DataError(f"{name} has no samples")
            dim = population.shape[1]
            if dim == 0 or (k and dim != populations[0].shape[1]):
                expected = populations[0].shape[1] if k else "at least 1"
                raise DataError(f"{name} has {dim} dimensions, expected {expected}")
            require_finite(population, name)
            populations.append(population)
        weights = None if masses is None else to_tensor(masses, "masses", torch.float64).cpu()
        if weights is not None:
            if weights.shape != stamps.shape:
                raise DataError(
                    f"masses has shape {tuple(weights.shape)}, expected ({len(samples)},)"
                )
            require_finite(weights, "masses")
            if bool((weights <= 0).any()):
                k = int((weights <= 0).nonzero()[0])
                raise DataError(f"masses must be positive: time point {k} has {float(weights[k])}")
            weights = weights[order]
        if order.tolist() != list(range(len(samples))):
            logger.warning("times were not sorted; taking the time points as %s", order.tolist())
        sizes = tuple(len(populations[k]) for k in order.tolist())
        flat = torch.cat([populations[k] for k in order.tolist()])
        # A frozen dataclass sets its own fields this way; the samples are views of one tensor.
        object.__setattr__(self, "samples", flat.split(list(sizes)))
        object.__setattr__(self, "times", sorted_times)
        object.__setattr__(self, "masses", weights)
        object.__setattr__(self, "_draws", _SnapshotDraws(flat, sizes))

    @property
    def dim(self) -> int:
        """Number of dimensions d."""
        return self.samples[0].shape[1]

    @property
    def n_times(self) -> int:
        """Number of time points K."""
        return len(self.samples)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of samples at each time point."""
        return tuple(len(x) for x in self.samples)

    @property
    def device(self) -> torch.device:
        """Where the samples live: the CPU."""
        return self.times.device

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        span = f"t = {float(self.times[0]):g} ... {float(self.times[-1]):g}"
        masses = "" if self.masses is None else ", with masses"
        return (
            f"Snapshots({self.n_times} times, {span}, sizes {self.sizes}, d = {self.dim}{masses})"
        )

    def without(self, k: int) -> Snapshots:
        """Leave out time point ``k`` (counted from 0 in order of time; negative from the end).

        Raises:
            DataError: there is no such time point, or fewer than two would remain.
        """
        if not -len(self) <= k < len(self):
            raise DataError(f"there is no time point {k}: the snapshots have {len(self)}")
        keep = [i for i in range(len(self)) if i != k % len(self)]
        masses = None if self.masses is None else self.masses[keep]
        return Snapshots([self.samples[i] for i in keep], self.times[keep], masses)

    def map(self, f: Callable[[Tensor], Tensor]) -> Snapshots:
        """Apply ``f: (n_k, d) -> (n_k, d')`` to the samples of every time point."""
        return Snapshots([f(x) for x in self.samples], self.times, self.masses)

    def placed(self, device: torch.device, dtype: torch.dtype) -> _SnapshotDraws:
        """A source of the same draws from samples on ``device`` in ``dtype``."""
        flat = torch.cat(self.samples).to(device, dtype)
        return _SnapshotDraws(flat, self.sizes)

    def sample(self, n: int, generator: torch.Generator) -> SnapshotBatch:
        """Draw ``n`` samples from each time point, with replacement; see `SnapshotBatch`."""
        draws: _SnapshotDraws = self.__dict__["_draws"]
        return draws.sample(n, generator)

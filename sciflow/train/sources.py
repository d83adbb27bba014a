"""Where samples come from: fixed data, base draws, Markov-chain walkers (and `Snapshots`).

A source draws with the generator it is given, on the device of that generator, and nowhere else:
the same generator state gives the same batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import torch

from sciflow.errors import DataError
from sciflow.shapes import Float, Tensor
from sciflow.train.batch import cast, map_batch, require_finite, to_tensor
from sciflow.train.snapshots import SnapshotBatch, Snapshots

__all__ = ["EnergySampler", "Samples", "SnapshotBatch", "Snapshots", "Source", "Walkers"]


@runtime_checkable
class Source(Protocol):
    """Anything with ``sample``; the trainer uses four more members where a source has them.

    ``device``: where the generator of the source lives (otherwise on the device of the fit).
    ``placed(device, dtype)``: the same source with its data there, asked for once per fit.
    ``state_dict()`` and ``load_state_dict(state)``: what a later sample depends on, tensors and
    numbers that no later ``sample`` changes in place; it goes into every checkpoint.
    ``per_rank = True``: each process of a distributed run draws its own share.
    """

    def sample(self, n: int, generator: torch.Generator) -> Any:
        """Draw a batch of ``n``: a tensor, or a tuple or dict of them, sample axis first."""
        ...


class Samples:
    """A fixed dataset; a batch is drawn at random with replacement.

    Args:
        x: samples, shape (N, ...): a tensor, an array or a dict of them. Memory is shared.
        *extra: more tensors with N rows; a batch is then the tuple of all rows drawn.
        weights: N relative weights; rows are drawn in proportion. None draws evenly.

    Raises:
        DataError: no rows, unequal numbers of rows, values that are not finite numbers, or
            weights that are negative or all zero; the message names the row and column.
    """

    def __init__(self, x: Any, *extra: Any, weights: Any = None) -> None:
        if extra and isinstance(x, Mapping):
            raise TypeError("Samples takes either a dict of tensors or several tensors, not both")
        data: Any = x
        if isinstance(x, Mapping):
            data = {key: to_tensor(value, f"samples[{key!r}]") for key, value in x.items()}
            named = [(f"samples[{key!r}]", value) for key, value in data.items()]
        else:
            parts = [to_tensor(value, f"samples[{i}]") for i, value in enumerate((x, *extra))]
            named = [(f"samples[{i}]", value) for i, value in enumerate(parts)]
            data = tuple(parts) if extra else parts[0]
        if not named:
            raise DataError("samples is empty: there is no tensor to draw from")
        for name, value in named:
            if value.ndim == 0 or len(value) == 0:
                raise DataError(f"{name} has no rows: shape {tuple(value.shape)}")
            if len(value) != len(named[0][1]):
                raise DataError(
                    f"{name} has {len(value)} rows, {named[0][0]} has {len(named[0][1])}"
                )
            require_finite(value, name)
        self.data = data
        self.n = len(named[0][1])
        self.device = named[0][1].device
        self._cumulative = None if weights is None else self._accumulate(weights)

    def _accumulate(self, weights: Any) -> Float[Tensor, " n"]:
        """Running sum of the weights, scaled to end at 1."""
        w = to_tensor(weights, "weights").to(self.device, torch.float64)
        if w.shape != (self.n,):
            raise DataError(f"weights has shape {tuple(w.shape)}, expected ({self.n},)")
        require_finite(w, "weights")
        if bool((w < 0).any()) or not bool((w > 0).any()):
            row = int(w.argmin())
            raise DataError(f"weights must be >= 0 and not all 0; row {row} is {float(w[row])}")
        total = w.cumsum(0)
        return total / total[-1]

    def __len__(self) -> int:
        return self.n

    def __repr__(self) -> str:
        weighted = "" if self._cumulative is None else ", weighted"
        return f"Samples({self.n} rows{weighted})"

    def placed(self, device: torch.device, dtype: torch.dtype) -> Samples:
        """The same samples with their tensors on ``device`` in ``dtype``."""
        other = copy.copy(self)
        other.data = map_batch(lambda x: cast(x, device, dtype), self.data)
        other.device = device
        if self._cumulative is not None:
            other._cumulative = self._cumulative.to(device)
        return other

    def sample(self, n: int, generator: torch.Generator) -> Any:
        """Draw ``n`` rows of every tensor, in the structure the data came in."""
        device = generator.device
        if self._cumulative is None:
            rows = torch.randint(self.n, (n,), generator=generator, device=device)
        else:
            u = torch.rand(n, generator=generator, device=device, dtype=torch.float64)
            # The first row whose running sum exceeds u: a row of weight 0 is never drawn.
            rows = torch.searchsorted(self._cumulative, u.to(self.device), right=True)
        rows = rows.to(self.device)
        return map_batch(lambda x: x[rows], self.data)


class EnergySampler:
    """Draws from a base density, for objectives that evaluate an energy at their image.

    Args:
        draw: ``draw(n, generator)`` returns n base draws, made on ``generator.device``: a tensor,
            or a tuple or dict of them, sample axis first.
    """

    def __init__(self, draw: Callable[[int, torch.Generator], Any]) -> None:
        if not callable(draw):
            raise TypeError(f"draw must be callable as draw(n, generator), got {draw!r}")
        self.draw = draw

    def sample(self, n: int, generator: torch.Generator) -> Any:
        """Draw ``n`` base samples.

        Raises:
            DataError: ``draw`` returned a tensor that does not have ``n`` rows.
        """

        def check(x: Tensor) -> Tensor:
            if x.ndim == 0 or len(x) != n:
                raise DataError(
                    f"draw({n}, generator) returned a tensor of shape {tuple(x.shape)}"
                )
            return x

        return map_batch(check, self.draw(n, generator))


class Walkers:
    """A population of Markov-chain walkers that goes on moving between batches.

    The walkers live where ``x0`` lives, in its dtype. Every batch first moves them all once, then
    takes the next walkers in turn, starting over at the end of the population.

    Args:
        x0: shape (W, ...), where the W walkers start; equilibrate them beforehand.
        move: ``move(x, generator)`` returns the walkers after one move, in the shape of ``x0``.

    Raises:
        DataError: ``x0`` has no walkers or values that are not finite.
    """

    per_rank = True

    def __init__(
        self,
        x0: Float[Tensor, "walker ..."],
        move: Callable[[Tensor, torch.Generator], Tensor],
    ) -> None:
        if x0.ndim == 0 or len(x0) == 0:
            raise DataError(f"x0 has no walkers: shape {tuple(x0.shape)}")
        require_finite(x0, "x0")
        self.x = x0.detach().clone()
        self.move = move
        self._next = 0

    @property
    def device(self) -> torch.device:
        """Where the walkers live."""
        return self.x.device

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n ..."]:
        """Move all walkers, then return the next ``n`` of them.

        Raises:
            DataError: ``move`` changed the shape of the walkers.
        """
        # The clone keeps an earlier state_dict whole where `move` works in place.
        x = self.move(self.x.clone(), generator).detach()
        if x.shape != self.x.shape:
            raise DataError(
                f"move changed the shape of the walkers: {tuple(self.x.shape)} to {tuple(x.shape)}"
            )
        self.x = x
        rows = (self._next + torch.arange(n, device=x.device)) % len(x)
        self._next = (self._next + n) % len(x)
        return x[rows]

    def state_dict(self) -> dict[str, Any]:
        """The walkers and whose turn it is."""
        return {"x": self.x, "next": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the walkers back where ``state_dict`` saw them.

        Raises:
            DataError: the saved population has another shape.
        """
        if state["x"].shape != self.x.shape:
            saved, own = tuple(state["x"].shape), tuple(self.x.shape)
            raise DataError(f"the saved walkers have shape {saved}, these have {own}")
        self.x = state["x"].to(self.x)
        self._next = state["next"]

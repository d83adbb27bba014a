"""What every layer of a canonical transformation offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sciflow.shapes import Float, Tensor


class CanonicalLayer(nn.Module, ABC):
    """A symplectic map of phase space, physical to latent, with its inverse.

    Every layer keeps the volume of phase space by construction: no log-determinant is computed.

    Attributes:
        config: JSON values from which the class builds the layer again, without its weights.
    """

    config: dict[str, Any]

    @abstractmethod
    def forward(
        self, q: Float[Tensor, "batch dim"], p: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """Latent coordinates and momenta (Q, P) of physical ones."""

    @abstractmethod
    def inverse(
        self, Q: Float[Tensor, "batch dim"], P: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """Physical coordinates and momenta (q, p) of latent ones."""


class PointMap(CanonicalLayer):
    """A map Q = F(q) of coordinates, whose momenta follow as P = (dF/dq)^-T p.

    Its two directions on coordinates alone are far cheaper than those on phase space, and their
    log-determinants cancel against those of the momenta.
    """

    @abstractmethod
    def coordinates(
        self, q: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Latent coordinates of physical ones, and ln |det dQ/dq|."""

    @abstractmethod
    def coordinates_inverse(
        self, Q: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Physical coordinates of latent ones, and ln |det dq/dQ|."""


class Columns(nn.Module):
    """Some of the columns of (B, n) tensors; a slice, which is faster, where they are even.

    Args:
        index: which columns, ascending.
    """

    index: Tensor

    def __init__(self, index: Sequence[int]) -> None:
        super().__init__()
        chosen = list(index)
        self.register_buffer("index", torch.tensor(chosen, dtype=torch.long), persistent=False)
        self.slice: tuple[int, int, int] | None = None
        step = chosen[1] - chosen[0] if len(chosen) > 1 else 1
        if chosen and step > 0 and chosen == list(range(chosen[0], chosen[-1] + 1, step)):
            self.slice = (chosen[0], chosen[-1] + 1, step)

    def __len__(self) -> int:
        return len(self.index)

    def take(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch some"]:
        """These columns of ``x``."""
        if self.slice is None:
            return x[:, self.index]
        first, last, step = self.slice
        return x[:, first:last:step]

    def put(
        self, x: Float[Tensor, "batch dim"], values: Float[Tensor, "batch some"]
    ) -> Float[Tensor, "batch dim"]:
        """A copy of ``x`` with ``values`` in these columns."""
        if self.slice is None:
            return x.index_copy(1, self.index, values)
        return torch.slice_scatter(x, values, 1, *self.slice)


class Partition(nn.Module):
    """Two disjoint sets of columns of (B, n) tensors, taken and put back together.

    Two blocks, or every other column, are cut and joined in one operation each, whose
    derivatives cost a fraction of those of indexing.

    Args:
        n_dim: number of columns n.
        first: columns of one set, ascending.
        second: columns of the other.
    """

    def __init__(self, n_dim: int, first: Sequence[int], second: Sequence[int]) -> None:
        super().__init__()
        self.first, self.second = Columns(first), Columns(second)
        pair, every = [list(first), list(second)], list(range(n_dim))
        self.swapped = bool(pair[0] and pair[1]) and pair[1][0] < pair[0][0]
        low, high = pair[::-1] if self.swapped else pair
        self.sizes = [len(low), len(high)]
        self.blocks = low + high == every
        self.alternate = n_dim % 2 == 0 and [low, high] == [every[::2], every[1::2]]

    def take(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch first"], Float[Tensor, "batch second"]]:
        """Both sets of columns of ``x``."""
        if self.blocks:
            low, high = x.split_with_sizes(self.sizes, 1)
        elif self.alternate:
            low, high = x.unflatten(1, (-1, 2)).unbind(2)
        else:
            return self.first.take(x), self.second.take(x)
        return (high, low) if self.swapped else (low, high)

    def put(
        self,
        x: Float[Tensor, "batch dim"],
        first: Float[Tensor, "batch first"],
        second: Float[Tensor, "batch second"],
    ) -> Float[Tensor, "batch dim"]:
        """A copy of ``x`` with both sets of columns replaced."""
        low, high = (second, first) if self.swapped else (first, second)
        if self.blocks:
            return torch.cat([low, high], 1)
        if self.alternate:
            return torch.stack([low, high], 2).flatten(1)
        return self.second.put(self.first.put(x, first), second)

"""A Wiener process that is a function of its seed alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from sciflow.shapes import Tensor

# The tree spans (-2**TOP, 2**TOP) in units of time.
TOP = 48
_FAR = 2.0**TOP
_MASK = (1 << 64) - 1


def _mix(x: int) -> int:
    """One round of splitmix64 (Steele, Lea and Flood, OOPSLA 2014): a bijection that scatters."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


class Brownian:
    """The Wiener process ``W`` of a seed, queried as increments ``W(t1) - W(t0)``.

    Time is cut into dyadic cells. The increment over a cell is split between its halves by a
    normal number that depends on the seed and the cell only (Levy's construction; the virtual
    Brownian tree of Li et al., AISTATS 2020). So the same seed gives the same path whatever
    steps are taken, halving the step refines that path, and the memory is one pair of increments
    per level. Walking through neighbouring cells costs one draw per cell.

    Args:
        seed: any integer.
        shape: shape of the process.
        dtype: floating type of the increments.
        device: where they live; the path differs between kinds of device.
        resolution: times are rounded to this, a power of two; by default 2**-40.

    Raises:
        ValueError: ``resolution`` is no power of two, or a time is not finite or beyond 2**48.

    Example:
        >>> w = Brownian(seed=1, shape=(2,))
        >>> bool(torch.allclose(w(0.0, 1.0), w(0.0, 0.25) + w(0.25, 1.0)))
        True
    """

    def __init__(
        self,
        seed: int,
        shape: tuple[int, ...] | torch.Size,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        resolution: float = 2.0**-40,
    ) -> None:
        mantissa, exponent = math.frexp(resolution)
        if mantissa != 0.5:
            raise ValueError(f"resolution must be a power of two; got {resolution}")
        self.seed, self.shape = int(seed), tuple(shape)
        self.dtype = dtype or torch.get_default_dtype()
        self.device = torch.device(device) if device is not None else torch.get_default_device()
        self.resolution, self._per_unit, self._bottom = resolution, 1 / resolution, exponent - 1
        self._generator = torch.Generator(self.device)
        self._salts: dict[int, int] = {}
        # level -> (index of the parent cell, increment of its left half, of its right half)
        self._halves: dict[int, tuple[int, Any, Any]] = {}

    def __call__(self, t0: float, t1: float) -> Tensor:
        """Increment ``W(t1) - W(t0)``, of the shape of the process; negative times are allowed."""
        return self.shared(t0, t1).clone()

    def shared(self, t0: float, t1: float) -> Tensor:
        """The same increment, kept for later questions: not to be changed in place."""
        low, high = self._index(t0), self._index(t1)
        if low > high:
            return -self.shared(t1, t0)
        size = high - low
        if size and not (size & (size - 1) or low & (size - 1)):  # one cell: the common case
            return self._cell(self._bottom + size.bit_length() - 1, low // size)
        total = None
        # Cover [low, high) by the largest dyadic cells that fit, from left to right.
        while low < high:
            level = self._largest(low, high)
            part = self._cell(self._bottom + level, low >> level)
            total = part if total is None else total + part
            low += 1 << level
        if total is None:
            return torch.zeros(self.shape, dtype=self.dtype, device=self.device)
        return total

    @staticmethod
    def _largest(low: int, high: int) -> int:
        """Level of the largest cell that starts at ``low`` and ends by ``high``."""
        size = (high - low).bit_length() - 1
        return size if low == 0 else min(size, (low & -low).bit_length() - 1)

    def _index(self, t: float) -> int:
        if not -_FAR < t < _FAR:
            raise ValueError(
                f"a time of the Brownian path must be finite and below 2**{TOP}; got {t}"
            )
        return round(t * self._per_unit)

    def _cell(self, level: int, index: int) -> Any:
        """Increment over the cell ``[index, index + 1) * 2**level``."""
        known = self._halves.get(level)
        if known is not None and known[0] == index >> 1:
            return known[1 + (index & 1)]
        if level == TOP:
            return self._whole(index)
        left, right = self._split(level, index >> 1, self._cell(level + 1, index >> 1))
        self._halves[level] = (index >> 1, left, right)
        return right if index & 1 else left

    def _whole(self, index: int) -> Any:
        """Increment over a cell of the coarsest level."""
        return self._normal(TOP, index, self.shape) * 2.0 ** (TOP / 2)

    def _split(self, level: int, parent: int, increment: Any) -> tuple[Any, Any]:
        """Increments over the halves, of this level, of a parent with this increment."""
        spread = 0.5 * 2.0 ** ((level + 1) / 2)
        left = self._normal(level, parent, self.shape, spread).add_(increment, alpha=0.5)
        return left, increment - left

    def _normal(
        self, level: int, index: int, shape: tuple[int, ...], spread: float = 1.0
    ) -> Tensor:
        """The normal numbers that belong to one cell, times ``spread``."""
        salt = self._salts.get(level)
        if salt is None:
            salt = self._salts[level] = _mix(_mix(self.seed & _MASK) ^ (level & _MASK))
        self._generator.manual_seed(_mix(salt ^ (index & _MASK)))
        numbers = torch.empty(shape, dtype=self.dtype, device=self.device)
        return numbers.normal_(0.0, spread, generator=self._generator)


class BrownianWithArea(Brownian):
    """A Wiener process together with its space-time Levy area.

    Over a step of length h the area is ``H = (1/h) int (W(s) - W(0)) ds - W(h)/2``: a normal
    number of variance h/12, independent of the increment, by which methods of strong order 3/2
    know how the path went in between. Halves are drawn given the increment and the area of the
    whole (Foster, Oberhauser and Lyons, SIAM J. Numer. Anal. 58, 1466 (2020), theorem 5.5). The
    path of a seed is another one than that of ``Brownian``, which draws half as many numbers.
    """

    def increment_and_area(self, t0: float, t1: float) -> tuple[Tensor, Tensor]:
        """``W(t1) - W(t0)`` and the area of the interval, not to be changed in place."""
        low, high = self._index(t0), self._index(t1)
        if low > high:  # the same path, walked the other way
            increment, area = self.increment_and_area(t1, t0)
            return -increment, area
        total: tuple[int, Tensor, Tensor] | None = None
        while low < high:
            level = self._largest(low, high)
            part = (1 << level, *self._cell(self._bottom + level, low >> level))
            total = part if total is None else self._joined(total, part)
            low += 1 << level
        if total is None:
            zero = torch.zeros(self.shape, dtype=self.dtype, device=self.device)
            return zero, zero
        return total[1:]

    def shared(self, t0: float, t1: float) -> Tensor:
        """``W(t1) - W(t0)``."""
        return self.increment_and_area(t0, t1)[0]

    @staticmethod
    def _joined(
        a: tuple[int, Tensor, Tensor], b: tuple[int, Tensor, Tensor]
    ) -> tuple[int, Tensor, Tensor]:
        """Two neighbouring intervals as one: (length, increment, area)."""
        length = a[0] + b[0]
        x, y = a[0] / length, b[0] / length
        return length, a[1] + b[1], x * a[2] + y * b[2] + 0.5 * (y * a[1] - x * b[1])

    def _whole(self, index: int) -> tuple[Tensor, Tensor]:
        increment, area = self._normal(TOP, index, (2, *self.shape)) * 2.0 ** (TOP / 2)
        return increment, area / math.sqrt(12)

    def _split(self, level: int, parent: int, increment: Any) -> tuple[Any, Any]:
        root = 2.0 ** ((level + 1) / 2)
        z, n = self._normal(level, parent, (2, *self.shape), root)
        (whole, area), z, n = increment, 0.25 * z, n / math.sqrt(12)
        left = 0.5 * whole + 1.5 * area + z
        mean, half = 0.25 * area - 0.5 * z, 0.5 * n
        return (left, mean + half), (whole - left, mean - half)


class Noise:
    """Normal and uniform numbers that are a function of a seed, a stream and a counter alone.

    Args:
        seed: any integer.
        stream: numbers of different streams are independent.
        like: type and device of the numbers.
    """

    def __init__(self, seed: int, stream: int, like: Tensor) -> None:
        self._salt = _mix(_mix(seed & _MASK) ^ (stream & _MASK) ^ 0x5C1F105EED)
        self._like = like
        self._generator = torch.Generator(like.device)

    def normal(self, counter: int, shape: torch.Size) -> Tensor:
        """Standard normal numbers of this counter."""
        return self._draw(torch.randn, counter, shape)

    def uniform(self, counter: int, shape: torch.Size) -> Tensor:
        """Numbers of [0, 1) of this counter."""
        return self._draw(torch.rand, counter, shape)

    def _draw(self, law: Callable[..., Tensor], counter: int, shape: torch.Size) -> Tensor:
        self._generator.manual_seed(_mix(self._salt ^ (counter & _MASK)))
        return law(
            shape, generator=self._generator, dtype=self._like.dtype, device=self._like.device
        )

"""A Wiener process that is a function of its seed alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from sciflow.shapes import Tensor

# The tree spans (-2**TOP, 2**TOP) in units of time.
TOP = 48
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
        self.resolution, self._bottom = resolution, exponent - 1
        self._generator = torch.Generator(self.device)
        self._salts: dict[int, int] = {}
        # level -> (index of the parent cell, increment of its left half, of its right half)
        self._halves: dict[int, tuple[int, Tensor, Tensor]] = {}

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
            size = (high - low).bit_length() - 1
            level = size if low == 0 else min(size, (low & -low).bit_length() - 1)
            part = self._cell(self._bottom + level, low >> level)
            total = part if total is None else total + part
            low += 1 << level
        if total is None:
            return torch.zeros(self.shape, dtype=self.dtype, device=self.device)
        return total

    def _index(self, t: float) -> int:
        if not abs(t) < 2.0**TOP:
            raise ValueError(
                f"a time of the Brownian path must be finite and below 2**{TOP}; got {t}"
            )
        return round(t / self.resolution)

    def _cell(self, level: int, index: int) -> Tensor:
        """Increment over the cell ``[index, index + 1) * 2**level``."""
        path = []
        while True:
            if level == TOP:
                increment = self._normal(level, index) * 2.0 ** (level / 2)
                break
            known = self._halves.get(level)
            if known is not None and known[0] == index >> 1:
                increment = known[1 + (index & 1)]
                break
            path.append((level, index))
            level, index = level + 1, index >> 1
        for level, index in reversed(path):
            spread = 0.5 * 2.0 ** ((level + 1) / 2)
            left = self._normal(level, index >> 1).mul_(spread).add_(increment, alpha=0.5)
            right = increment - left
            self._halves[level] = (index >> 1, left, right)
            increment = right if index & 1 else left
        return increment

    def _normal(self, level: int, index: int) -> Tensor:
        """The normal numbers that belong to one cell."""
        salt = self._salts.get(level)
        if salt is None:
            salt = self._salts[level] = _mix(_mix(self.seed & _MASK) ^ (level & _MASK))
        self._generator.manual_seed(_mix(salt ^ (index & _MASK)))
        return torch.randn(
            self.shape, generator=self._generator, dtype=self.dtype, device=self.device
        )


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

"""Fourier transforms of fields in a periodic cube: whole on one device, or cut into slabs."""

from __future__ import annotations

import torch
import torch.distributed as dist

from sciflow.shapes import Complex, Float, Tensor


class Fourier:
    """Transforms between n^3 points and Fourier coefficients, all of them on one device.

    A field of points is (..., n, n, n). Its coefficients u_k = mean(u exp(-i k x)) are
    (..., n, n, n // 2 + 1): the half of them with k_z >= 0, since the field is real.

    Args:
        n: points along each side, even.
        device: torch device.
        dtype: real floating type.

    Raises:
        ValueError: ``n`` is odd or below 8.
    """

    def __init__(
        self,
        n: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if n < 8 or n % 2:
            raise ValueError(f"n must be an even number of points of at least 8; got {n}")
        self.n, self.device, self.dtype = n, torch.device(device), dtype
        self.planes = range(n)  # the planes of constant x that are here
        self._rows = slice(0, n)  # the rows of constant k_y that are here

    def wavenumbers(self) -> tuple[Tensor, Tensor, Tensor]:
        """Whole-number wavenumbers along x, y, z, each in the shape that broadcasts."""
        whole = torch.fft.fftfreq(self.n, 1 / self.n, device=self.device, dtype=self.dtype)
        half = torch.arange(self.n // 2 + 1, device=self.device, dtype=self.dtype)
        return whole[:, None, None], whole[self._rows][None, :, None], half[None, None, :]

    def coordinates(self) -> tuple[Tensor, Tensor, Tensor]:
        """Points along x, y, z in units of the side, each in the shape that broadcasts."""
        line = torch.arange(self.n, device=self.device, dtype=torch.float64) / self.n
        here = line[self.planes.start : self.planes.stop]
        return here[:, None, None], line[None, :, None], line[None, None, :]

    def to_spectral(self, u: Float[Tensor, "*batch x y z"]) -> Complex[Tensor, "*batch kx ky kz"]:
        """Coefficients of a field."""
        return torch.fft.rfftn(u, dim=(-3, -2, -1), norm="forward")

    def to_physical(self, u: Complex[Tensor, "*batch kx ky kz"]) -> Float[Tensor, "*batch x y z"]:
        """The field of coefficients."""
        size = (self.n, self.n, self.n)
        return torch.fft.irfftn(u, s=size, dim=(-3, -2, -1), norm="forward")

    def total(self, x: Tensor) -> Tensor:
        """Sum over all processes of sums over what is here."""
        return x

    def largest(self, x: Tensor) -> Tensor:
        """Maximum over all processes."""
        return x


class SlabFourier(Fourier):
    """The same transforms with the cube cut into one slab for each process of torch.distributed.

    Points are cut along x, coefficients along k_y; between them every process exchanges a block
    with every other. The process group must have been started, and its size must divide n.

    Raises:
        ValueError: the number of processes does not divide ``n``.
    """

    def __init__(
        self,
        n: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(n, device, dtype)
        self.world, rank = dist.get_world_size(), dist.get_rank()
        if n % self.world:
            raise ValueError(f"n = {n} points cannot be cut evenly for {self.world} processes")
        share = n // self.world
        self.planes = range(rank * share, (rank + 1) * share)
        self._rows = slice(rank * share, (rank + 1) * share)

    def to_spectral(self, u: Float[Tensor, "*batch x y z"]) -> Complex[Tensor, "*batch kx ky kz"]:
        """Coefficients of a field."""
        planes = torch.fft.rfft2(u, norm="forward")
        return torch.fft.fft(self._exchange(planes, cut=-2, join=-3), dim=-3, norm="forward")

    def to_physical(self, u: Complex[Tensor, "*batch kx ky kz"]) -> Float[Tensor, "*batch x y z"]:
        """The field of coefficients."""
        lines = torch.fft.ifft(u, dim=-3, norm="forward")
        planes = self._exchange(lines, cut=-3, join=-2)
        return torch.fft.irfft2(planes, s=(self.n, self.n), norm="forward")

    def _exchange(self, u: Tensor, cut: int, join: int) -> Tensor:
        """Give block i along ``cut`` to process i; join what comes along ``join``."""
        mine = torch.view_as_real(torch.stack(u.chunk(self.world, dim=cut)).contiguous())
        theirs = torch.empty_like(mine)
        dist.all_to_all_single(theirs, mine)
        return torch.cat(list(torch.view_as_complex(theirs).unbind(0)), dim=join)

    def total(self, x: Tensor) -> Tensor:
        """Sum over all processes of sums over what is here."""
        dist.all_reduce(x)
        return x

    def largest(self, x: Tensor) -> Tensor:
        """Maximum over all processes."""
        dist.all_reduce(x, dist.ReduceOp.MAX)
        return x

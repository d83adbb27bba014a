"""Base densities: where the samples of a flow start."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Protocol, TypeGuard, runtime_checkable

import torch
from torch import nn
from torch.distributions import Distribution

from sciflow.cnf.particles import MeanFreeGaussian
from sciflow.shapes import Float, Tensor


@runtime_checkable
class Base(Protocol):
    """What a flow needs of its base density; the density is in the flow's own coordinates."""

    dim: int

    def log_prob(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """Log-density, (B, d) to (B,)."""
        ...

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n dim"]:
        """Draw ``n`` points, made on the device of the generator."""
        ...


class StandardBase(nn.Module):
    """Standard normal, and uniform on the circle [-pi, pi) in the periodic coordinates.

    Args:
        dim: number of coordinates.
        periodic: indices of those that are angles.

    Raises:
        ValueError: ``dim`` is less than 1, or an index is out of range.
    """

    place: Tensor
    angle: Tensor

    def __init__(self, dim: int, periodic: Iterable[int] = ()) -> None:
        super().__init__()
        self.dim = dim
        self.periodic = check_periodic(dim, periodic)
        # It carries device and dtype, which a density without parameters has not.
        self.register_buffer("place", torch.zeros(()), persistent=False)
        angle = torch.zeros(dim, dtype=torch.bool)
        angle[list(self.periodic)] = True
        self.register_buffer("angle", angle, persistent=False)

    @property
    def config(self) -> dict[str, Any]:
        """What it is built from."""
        return {"dim": self.dim, "periodic": list(self.periodic)}

    def log_prob(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """Log-density, (B, d) to (B,)."""
        if not self.periodic:
            return -0.5 * z.square().sum(-1) - 0.5 * self.dim * math.log(2 * math.pi)
        n_angles = len(self.periodic)
        free = z.masked_fill(self.angle, 0.0)
        constant = 0.5 * (self.dim - n_angles) + n_angles
        return -0.5 * free.square().sum(-1) - constant * math.log(2 * math.pi)

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n dim"]:
        """Draw ``n`` points."""
        dtype, device = self.place.dtype, self.place.device
        shape = (n, self.dim)
        z = torch.randn(shape, generator=generator, dtype=dtype, device=generator.device)
        if self.periodic:
            u = torch.rand(shape, generator=generator, dtype=dtype, device=generator.device)
            z = torch.where(self.angle.to(z.device), (2 * u - 1) * math.pi, z)
        return z.to(device)


class TorchBase(nn.Module):
    """Any distribution of `torch.distributions` over vectors as a base.

    Args:
        distribution: of event shape (d,) and no batch shape.

    Raises:
        ValueError: it has other shapes.
    """

    def __init__(self, distribution: Distribution) -> None:
        super().__init__()
        if len(distribution.event_shape) != 1 or distribution.batch_shape:
            raise ValueError(
                "base must have event shape (d,) and no batch shape; got event "
                f"{tuple(distribution.event_shape)} and batch {tuple(distribution.batch_shape)}: "
                "torch.distributions.Independent makes events of batches"
            )
        self.distribution = distribution
        self.dim = distribution.event_shape[0]

    def log_prob(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """Log-density, (B, d) to (B,)."""
        return self.distribution.log_prob(z)

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n dim"]:
        """Draw ``n`` points; the global random state stays as it was.

        The distributions of torch know the global generator only.
        """
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        cuda = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
        with torch.random.fork_rng(list(cuda)):
            torch.manual_seed(seed)
            return self.distribution.sample((n,))


#: name in a saved flow -> class; a new one is a line here and has ``config``.
BASES: dict[str, type[nn.Module]] = {"standard": StandardBase, "mean_free": MeanFreeGaussian}


def check_periodic(dim: int, periodic: Iterable[int]) -> tuple[int, ...]:
    """Indices of angles among ``dim`` coordinates, ascending.

    Raises:
        ValueError: ``dim`` is less than 1, or an index is out of range.
    """
    if dim < 1:
        raise ValueError(f"dim must be at least 1; got {dim}")
    indices = tuple(sorted(set(periodic)))
    if indices and not 0 <= indices[0] <= indices[-1] < dim:
        raise ValueError(f"periodic must be indices of {dim} coordinates; got {indices}")
    return indices


def is_foreign(base: Any) -> TypeGuard[Distribution]:
    """A distribution of torch; a flow, which is one too, serves as a base as it is."""
    return isinstance(base, Distribution) and not isinstance(base, nn.Module)

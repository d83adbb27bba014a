"""Clusters of identical particles: pair energies that know no place, direction or order.

A configuration is q (B, N d), particle by particle. A translation changes nothing, so that the
density over all of q cannot be normalised. The literature on Boltzmann generators works in the
subspace of zero mean, of dimension (N - 1) d, with densities that refer to its own volume;
`MeanFree` is that subspace in orthonormal coordinates, with a partition function that exists.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch

from sciflow.shapes import Float, Tensor
from sciflow.systems.base import System, not_negative, positive


class ParticleSystem(System):
    """N identical particles in d dimensions.

    Attributes:
        n_particles: N.
        dim: d.
        mass: of every particle.
    """

    n_particles: int
    dim: int
    mass: float

    @property
    def n_dim(self) -> int:
        """Number of coordinates N d."""
        return self.n_particles * self.dim

    @abstractmethod
    def _pair(self, square: Tensor) -> Tensor:
        """Energy of a pair as a function of its squared distance."""

    def _check(self) -> None:
        if self.n_particles < 2 or self.dim < 1:
            raise ValueError(
                f"n_particles is {self.n_particles} and dim {self.dim}; expected at least 2 and 1"
            )
        positive(mass=self.mass)

    def _potential(self, q: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        x = q.unflatten(1, (self.n_particles, self.dim))
        first, second = torch.triu_indices(self.n_particles, self.n_particles, 1, device=q.device)
        return self._pair((x[:, first] - x[:, second]).square().sum(2)).sum(1)

    def distances(self, q: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch pair"]:
        """Distances of the N (N - 1) / 2 pairs of ``q`` (B, N d), in the order (0,1), (0,2) ..."""
        x = q.unflatten(1, (self.n_particles, self.dim))
        first, second = torch.triu_indices(self.n_particles, self.n_particles, 1, device=q.device)
        return (x[:, first] - x[:, second]).norm(dim=2)

    def remove_mean(self, q: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Move the centre of ``q`` (B, N d) to the origin."""
        x = q.unflatten(1, (self.n_particles, self.dim))
        return (x - x.mean(1, keepdim=True)).flatten(1)


@dataclass(frozen=True)
class DoubleWellParticles(ParticleSystem):
    """Pairs in a double well of their distance: sum a (d - d0) + b (d - d0)^2 + c (d - d0)^4.

    Each pair counts once: the published 1/(2 tau) sum over all ordered i, j at tau = 1. The
    defaults are DW4, four particles in the plane.

    Attributes:
        n_particles: N.
        dim: d.
        a: linear coefficient.
        b: quadratic coefficient.
        c: quartic coefficient, positive.
        offset: the distance d0.
        mass: of every particle.

    Raises:
        ValueError: a parameter is out of its range.

    Source: Köhler, Klein, Noé, ICML 2020, arXiv:2006.02425, equation (11).
    """

    n_particles: int = 4
    dim: int = 2
    a: float = 0.0
    b: float = -4.0
    c: float = 0.9
    offset: float = 4.0
    mass: float = 1.0

    def __post_init__(self) -> None:
        self._check()
        positive(c=self.c)
        not_negative(offset=self.offset, **{"|a|": abs(self.a), "|b|": abs(self.b)})

    def _pair(self, square: Tensor) -> Tensor:
        stretch = square.sqrt() - self.offset
        return stretch * (self.a + stretch * (self.b + self.c * stretch.square()))


@dataclass(frozen=True)
class LennardJones(ParticleSystem):
    """Lennard-Jones cluster: sum over pairs of epsilon [(r_min/r)^12 - 2 (r_min/r)^6], in a trap.

    This is 4 epsilon [(sigma/r)^12 - (sigma/r)^6] with sigma = r_min / 2^(1/6); see `reduced`.
    Without a trap a cluster evaporates and has no partition function, so the literature on
    Boltzmann generators adds trap |x - mean|^2 / 2 with trap = 1; the defaults are its LJ13.
    Coinciding particles have infinite energy and no force.

    Attributes:
        n_particles: N.
        dim: d.
        epsilon: depth of a pair's well.
        r_min: distance of a pair at its minimum.
        trap: force constant towards the centre; zero for none.
        mass: of every particle.

    Raises:
        ValueError: a parameter is out of its range.

    Source: Köhler, Klein, Noé, ICML 2020, arXiv:2006.02425, equation (12), for the convention.
    """

    n_particles: int = 13
    dim: int = 3
    epsilon: float = 1.0
    r_min: float = 1.0
    trap: float = 1.0
    mass: float = 1.0

    def __post_init__(self) -> None:
        self._check()
        positive(epsilon=self.epsilon, r_min=self.r_min)
        not_negative(trap=self.trap)

    @classmethod
    def reduced(cls, n_particles: int = 13, trap: float = 0.0) -> LennardJones:
        """In units of epsilon and sigma, as in tables of cluster minima; free without ``trap``."""
        return cls(n_particles=n_particles, r_min=2 ** (1 / 6), trap=trap)

    def _pair(self, square: Tensor) -> Tensor:
        attraction = (self.r_min**2 / square) ** 3
        return self.epsilon * attraction * (attraction - 2)

    def _potential(self, q: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        spread = self.remove_mean(q).square().sum(1)
        return super()._potential(q) + self.trap / 2 * spread


@dataclass(frozen=True)
class MeanFree(System):
    """A particle system without its centre of mass: z (B, (N - 1) d), orthonormal coordinates.

    |z|^2 equals the sum of squared distances from the mean, so volumes, kinetic energies and
    densities in z are those of the mean-free subspace.

    Attributes:
        system: the particles.
    """

    system: ParticleSystem

    @property
    def mass(self) -> float:  # type: ignore[override]
        """Mass of a particle: equal masses stay the mass of every orthonormal coordinate."""
        return self.system.mass

    @property
    def n_dim(self) -> int:
        """(N - 1) d."""
        return (self.system.n_particles - 1) * self.system.dim

    def to_particles(self, z: Float[Tensor, "batch free"]) -> Float[Tensor, "batch dim"]:
        """The positions (B, N d) of zero mean that ``z`` (B, (N - 1) d) stands for."""
        free = z.unflatten(1, (-1, self.system.dim))
        return torch.einsum("kp,bkd->bpd", self._basis(z), free).flatten(1)

    def from_particles(self, q: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch free"]:
        """The coordinates z (B, (N - 1) d) of positions ``q`` (B, N d); their mean is dropped."""
        x = q.unflatten(1, (-1, self.system.dim))
        return torch.einsum("kp,bpd->bkd", self._basis(q), x).flatten(1)

    def _potential(self, q: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        return self.system.potential(self.to_particles(q))

    def _basis(self, like: Tensor) -> Tensor:
        """Helmert's contrasts (N - 1, N): each particle against the mean of those before it."""
        n = self.system.n_particles
        k = torch.arange(1, n, dtype=torch.float64, device="cpu")[:, None]
        before = torch.ones(n - 1, n, dtype=torch.float64, device="cpu").tril()
        rows = before - k * torch.eye(n, dtype=torch.float64, device="cpu")[1:]
        return (rows / (k * (k + 1)).sqrt()).to(like)

"""What every energy offers: a potential, its forces, masses, and exact answers where they exist.

The Hamiltonian is H = sum p_i^2 / (2 m_i) + V(q). Free energies are F = -kT ln Z with Z the
integral of exp(-H / kT) over coordinates and momenta, without a factor of h; the part of the
coordinates alone is given too, for models that have no momenta.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F

from sciflow.shapes import Float, Tensor

Mass = float | tuple[float, ...]
Boundary = Literal["fixed", "free", "periodic"]


class System(ABC):
    """An energy of n_dim coordinates; systems are frozen dataclasses derived from this.

    Attributes:
        mass: one mass for all coordinates, or a tuple of n_dim masses.
    """

    mass: Mass

    @property
    @abstractmethod
    def n_dim(self) -> int:
        """Number of coordinates n."""

    @abstractmethod
    def _potential(self, q: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]: ...

    def potential(self, q: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """Potential energy V of the coordinates ``q`` (B, n), shape (B,).

        Raises:
            ValueError: ``q`` has another shape.
        """
        if q.ndim != 2 or q.shape[1] != self.n_dim:
            raise ValueError(f"q has shape {tuple(q.shape)}; expected (B, {self.n_dim})")
        return self._potential(q)

    def force(self, q: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Force -grad V at ``q`` (B, n), shape (B, n), cut off from any graph."""
        with torch.enable_grad():
            point = q.detach().requires_grad_()
            return -torch.autograd.grad(self.potential(point).sum(), point)[0]

    @property
    def masses(self) -> Float[Tensor, " dim"]:
        """The mass of each coordinate in float64, shape (n,)."""
        return torch.tensor(self.mass, dtype=torch.float64, device="cpu").expand(self.n_dim)

    def sample_momenta(
        self, n: int, kT: float, generator: torch.Generator
    ) -> Float[Tensor, "batch dim"]:
        """Draw ``n`` momenta of N(0, m kT) in float64, shape (n, n_dim), on the CPU."""
        positive(kT=kT)
        return self.masses.mul(kT).sqrt() * normal(n, self.n_dim, generator)

    def kinetic_free_energy(self, kT: float) -> float:
        """Part of the momenta in F, -kT/2 sum ln(2 pi m kT)."""
        positive(kT=kT)
        return -kT / 2 * float((2 * math.pi * kT * self.masses).log().sum())


class ExactSystem(System):
    """A system whose partition function is known, in closed form or by converged quadrature."""

    @abstractmethod
    def configurational_free_energy(self, kT: float) -> float:
        """-kT ln of the integral of exp(-V / kT) over the coordinates; ``kT`` is an energy."""

    def free_energy(self, kT: float) -> float:
        """F = -kT ln Z, Z being the integral of exp(-H / kT) over coordinates and momenta."""
        return self.configurational_free_energy(kT) + self.kinetic_free_energy(kT)


def positive(**values: float | tuple[float, ...]) -> None:
    """Refuse any named number, or entry of a tuple, that is not positive and finite.

    Raises:
        ValueError: names the argument.
    """
    for name, value in values.items():
        for entry in value if isinstance(value, tuple) else (value,):
            if not (math.isfinite(entry) and entry > 0):
                raise ValueError(f"{name} must be positive and finite, got {value}")


def not_negative(**values: float | tuple[float, ...]) -> None:
    """Refuse any named number, or entry of a tuple, that is negative or not finite.

    Raises:
        ValueError: names the argument.
    """
    for name, value in values.items():
        for entry in value if isinstance(value, tuple) else (value,):
            if not (math.isfinite(entry) and entry >= 0):
                raise ValueError(f"{name} must be finite and not negative, got {value}")


def of_length(name: str, value: float | tuple[float, ...], n: int) -> None:
    """Refuse a tuple that does not have ``n`` entries.

    Raises:
        ValueError: names the argument.
    """
    if isinstance(value, tuple) and len(value) != n:
        raise ValueError(f"{name} has {len(value)} entries; expected a number or {n} entries")


def normal(n: int, dim: int, generator: torch.Generator) -> Float[Tensor, "batch dim"]:
    """Standard normal numbers in float64 on the CPU, shape (n, dim).

    Raises:
        ValueError: ``n`` is less than 1.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    noise = torch.randn(n, dim, generator=generator, dtype=torch.float64, device=generator.device)
    return noise.cpu()


def check_chain(n: int, boundary: Boundary) -> int:
    """Number of bonds of a chain of ``n`` sites.

    Raises:
        ValueError: the boundary is unknown or the chain too short for it.
    """
    shortest = {"fixed": 1, "free": 2, "periodic": 3}
    if boundary not in shortest:
        raise ValueError(f"boundary must be one of {', '.join(shortest)}, got {boundary!r}")
    if n < shortest[boundary]:
        raise ValueError(
            f"n must be at least {shortest[boundary]} where boundary={boundary!r}; got {n}"
        )
    return {"fixed": n + 1, "free": n - 1, "periodic": n}[boundary]


def bonds(q: Float[Tensor, "batch dim"], boundary: Boundary) -> Float[Tensor, "batch bond"]:
    """Elongations q_{i+1} - q_i of a chain; fixed ends stand at zero, beyond both end sites.

    Args:
        q: displacements of the sites, (B, n).
        boundary: "fixed" gives n + 1 bonds, "free" n - 1, "periodic" n.
    """
    if boundary == "periodic":
        return q.roll(-1, 1) - q
    return (F.pad(q, (1, 1)) if boundary == "fixed" else q).diff(dim=1)

"""Chains that are not harmonic, with partition functions by the transfer-integral operator."""

from __future__ import annotations

from dataclasses import dataclass

from sciflow.shapes import Float, Tensor
from sciflow.systems.base import (
    Boundary,
    ExactSystem,
    Mass,
    bonds,
    check_chain,
    not_negative,
    of_length,
    positive,
)
from sciflow.systems.quadrature import confining_width, log_chain_integral


@dataclass(frozen=True)
class FPUTBeta(ExactSystem):
    """Fermi-Pasta-Ulam-Tsingou chain: V = sum_b [spring b^2 / 2 + beta b^4 / 4], fixed ends.

    The sum runs over the n + 1 bonds b = q_{i+1} - q_i with q_0 = q_{n+1} = 0.

    Attributes:
        n: number of masses.
        spring: harmonic constant of a bond.
        beta: quartic constant of a bond.
        mass: one mass, or n of them.

    Raises:
        ValueError: a parameter is out of its range or has a wrong number of entries.

    Source: Fermi, Pasta, Ulam, Los Alamos report LA-1940 (1955), equation (2), with q^4 / 4.
    """

    n: int = 32
    spring: float = 1.0
    beta: float = 1.0
    mass: Mass = 1.0

    def __post_init__(self) -> None:
        check_chain(self.n, "fixed")
        positive(spring=self.spring, mass=self.mass)
        not_negative(beta=self.beta)
        of_length("mass", self.mass, self.n)

    @property
    def n_dim(self) -> int:
        """Number of coordinates n."""
        return self.n

    def _potential(self, q: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        return self._bond(bonds(q, "fixed")).sum(1)

    def configurational_free_energy(self, kT: float) -> float:
        """By the transfer-integral operator, to about 1e-11 kT n.

        Raises:
            ValueError: ``kT`` is not positive.
        """
        positive(kT=kT)
        half = (self.n + 1) / 2

        def least(q: Tensor) -> Tensor:
            # To bring the middle to q costs at least this, when all bonds of a side share it.
            return 2 * half * self._bond(q / half) / kT

        width = confining_width(least)
        return -kT * log_chain_integral(
            lambda q: 0 * q, lambda b: self._bond(b) / kT, self.n, "fixed", width
        )

    def _bond(self, b: Tensor) -> Tensor:
        square = b.square()
        return square * (self.spring / 2 + self.beta / 4 * square)


@dataclass(frozen=True)
class Phi4(ExactSystem):
    """Lattice phi^4: V = sum_b coupling b^2 / 2 + sum_i [quadratic q_i^2 / 2 + quartic q_i^4 / 4].

    A negative ``quadratic`` makes every site a double well with minima near
    +-sqrt(-quadratic / quartic), and kinks between them.

    Attributes:
        n: number of sites.
        coupling: spring constant between neighbours.
        quadratic: harmonic on-site constant, of either sign.
        quartic: anharmonic on-site constant; it may be zero where ``quadratic`` is positive.
        mass: one mass, or n of them.
        boundary: "fixed" (neighbours of the end sites at zero), "free" or "periodic".

    Raises:
        ValueError: a parameter is out of its range or has a wrong number of entries.

    Source: Krumhansl and Schrieffer, Phys. Rev. B 11, 3535 (1975), equation (1).
    """

    n: int = 16
    coupling: float = 1.0
    quadratic: float = 1.0
    quartic: float = 1.0
    mass: Mass = 1.0
    boundary: Boundary = "fixed"

    def __post_init__(self) -> None:
        check_chain(self.n, self.boundary)
        positive(coupling=self.coupling, mass=self.mass)
        not_negative(quartic=self.quartic, **{"|quadratic|": abs(self.quadratic)})
        of_length("mass", self.mass, self.n)
        if self.quartic == 0 and self.quadratic <= 0:
            raise ValueError(
                f"quadratic is {self.quadratic} and quartic 0: the sites are not bound; expected "
                "a positive quadratic or quartic"
            )

    @property
    def n_dim(self) -> int:
        """Number of coordinates n."""
        return self.n

    def _potential(self, q: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        elastic = bonds(q, self.boundary).square().sum(1) * (self.coupling / 2)
        return elastic + self._site(q).sum(1)

    def configurational_free_energy(self, kT: float) -> float:
        """By the transfer-integral operator, to about 1e-11 kT n.

        Raises:
            ValueError: ``kT`` is not positive.
            SciflowError: ``kT`` is so low that a grid of 2048 points does not resolve a site.
        """
        positive(kT=kT)
        width = confining_width(lambda q: self._site(q) / kT)
        return -kT * log_chain_integral(
            lambda q: self._site(q) / kT,
            lambda b: b.square() * (self.coupling / 2 / kT),
            self.n,
            self.boundary,
            width,
        )

    def _site(self, q: Tensor) -> Tensor:
        square = q.square()
        return square * (self.quadratic / 2 + self.quartic / 4 * square)

"""Masses on springs in a row: the system whose every answer is known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from sciflow.shapes import Float, Tensor
from sciflow.systems.base import (
    Boundary,
    ExactSystem,
    Mass,
    bonds,
    check_chain,
    normal,
    not_negative,
    of_length,
    positive,
)


@dataclass(frozen=True)
class HarmonicChain(ExactSystem):
    """V = sum_b k_b (q_{b+1} - q_b)^2 / 2 + pinning sum_i q_i^2 / 2.

    With unit masses and springs and fixed ends the frequencies are 2 sin(k pi / (2 n + 2)).

    Attributes:
        n: number of masses.
        mass: one mass, or n of them.
        spring: one spring constant, or one for each bond from left to right: n + 1 bonds where
            the ends are fixed, n - 1 where they are free, n (the last joins the ends) on a ring.
        boundary: "fixed", "free" or "periodic". Without pinning the last two have a mode of
            frequency zero, hence no finite free energy.
        pinning: spring constant that holds each mass to its place.

    Raises:
        ValueError: a parameter is out of its range or has a wrong number of entries.
    """

    n: int = 32
    mass: Mass = 1.0
    spring: float | tuple[float, ...] = 1.0
    boundary: Boundary = "fixed"
    pinning: float = 0.0

    def __post_init__(self) -> None:
        n_bonds = check_chain(self.n, self.boundary)
        positive(mass=self.mass, spring=self.spring)
        not_negative(pinning=self.pinning)
        of_length("mass", self.mass, self.n)
        of_length("spring", self.spring, n_bonds)

    @property
    def n_dim(self) -> int:
        """Number of coordinates n."""
        return self.n

    def _potential(self, q: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        stretch = bonds(q, self.boundary)
        springs = torch.as_tensor(self.spring, dtype=q.dtype, device=q.device)
        return ((springs * stretch.square()).sum(1) + self.pinning * q.square().sum(1)) / 2

    @property
    def hessian(self) -> Float[Tensor, "dim dim"]:
        """Second derivatives of V in float64, shape (n, n)."""
        eye = torch.eye(self.n, dtype=torch.float64, device="cpu")
        incidence = bonds(eye, self.boundary)
        springs = torch.tensor(self.spring, dtype=torch.float64, device="cpu")
        return (incidence * springs) @ incidence.T + self.pinning * eye

    @property
    def frequencies(self) -> Float[Tensor, " dim"]:
        """Angular frequencies of the normal modes, ascending, float64, shape (n,)."""
        return self._normal_modes()[0]

    @property
    def modes(self) -> Float[Tensor, "dim dim"]:
        """Orthonormal normal modes in mass-weighted coordinates, one in each row, (n, n).

        The normal coordinates are Q = modes @ (sqrt(m) q), and V = sum (frequencies Q)^2 / 2.
        """
        return self._normal_modes()[1]

    def configurational_free_energy(self, kT: float) -> float:
        """-kT/2 [n ln(2 pi kT) - ln det hessian].

        Raises:
            ValueError: a mode has frequency zero, or ``kT`` is not positive.
        """
        positive(kT=kT)
        self._refuse_zero_mode()
        log_det = float(torch.linalg.slogdet(self.hessian).logabsdet)
        return -kT / 2 * (self.n * math.log(2 * math.pi * kT) - log_det)

    def sample(self, n: int, kT: float, generator: torch.Generator) -> Float[Tensor, "batch dim"]:
        """Draw ``n`` independent configurations of exp(-V / kT), float64, (n, n_dim), on the CPU.

        Raises:
            ValueError: a mode has frequency zero, or ``kT`` or ``n`` is not positive.
        """
        positive(kT=kT)
        self._refuse_zero_mode()
        frequencies, modes = self._normal_modes()
        normal_coordinates = normal(n, self.n, generator) * math.sqrt(kT) / frequencies
        return normal_coordinates @ modes / self.masses.sqrt()

    def _normal_modes(self) -> tuple[Tensor, Tensor]:
        root = self.masses.sqrt()
        values, vectors = torch.linalg.eigh(self.hessian / root[:, None] / root)
        # The zero of a free chain may come out as minus a rounding error.
        return values.clamp(min=0).sqrt(), vectors.T

    def _refuse_zero_mode(self) -> None:
        if self.boundary != "fixed" and self.pinning == 0:
            raise ValueError(
                f"a chain with boundary={self.boundary!r} and pinning=0 has a mode of frequency "
                "zero and cannot be normalised; expected pinning > 0 or boundary='fixed'"
            )

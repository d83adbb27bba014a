"""Energy landscapes of a few coordinates: a ring, double wells and the Mueller-Brown surface."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from sciflow.shapes import Float, Tensor
from sciflow.systems.base import ExactSystem, Mass, not_negative, of_length, positive
from sciflow.systems.quadrature import confining_width, log_integral


@dataclass(frozen=True)
class Ring(ExactSystem):
    """Two coordinates near a circle: V = (|q| - radius)^2 / width, of minimum zero.

    Attributes:
        radius: of the circle.
        width: twice the radial variance at kT = 1, before the factor r of the plane.
        mass: one mass, or two.

    Raises:
        ValueError: a parameter is not positive, or ``mass`` has not two entries.

    Source: Li, Dong, Zhang, Wang, Phys. Rev. X 10, 021020 (2020), section IV A.
    """

    radius: float = 2.0
    width: float = 0.32
    mass: Mass = 1.0

    def __post_init__(self) -> None:
        positive(radius=self.radius, width=self.width, mass=self.mass)
        of_length("mass", self.mass, 2)

    @property
    def n_dim(self) -> int:
        """Two."""
        return 2

    def _potential(self, q: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        return (q.norm(dim=1) - self.radius).square() / self.width

    def configurational_free_energy(self, kT: float) -> float:
        """In closed form: the integral of 2 pi r exp(-(r - radius)^2 / (2 s^2)), s^2 = width kT/2.

        Raises:
            ValueError: ``kT`` is not positive.
        """
        positive(kT=kT)
        deviation = math.sqrt(self.width * kT / 2)
        z = self.radius / (deviation * math.sqrt(2))
        radial = deviation**2 * math.exp(-z * z) + self.radius * deviation * math.sqrt(
            math.pi / 2
        ) * (1 + math.erf(z))
        return -kT * math.log(2 * math.pi * radial)


@dataclass(frozen=True)
class DoubleWell(ExactSystem):
    """V = barrier ((x / position)^2 - 1)^2 + tilt x + bath |y|^2 / 2, with q = (x, y).

    Attributes:
        barrier: height of the barrier at x = 0 above the minima, where ``tilt`` is zero.
        position: of the minima at +-position, where ``tilt`` is zero.
        tilt: slope that favours the left well where positive.
        n_bath: number of harmonic coordinates y.
        bath: their force constant.
        mass: one mass, or one for each of the 1 + n_bath coordinates.

    Raises:
        ValueError: a parameter is out of its range or has a wrong number of entries.
    """

    barrier: float = 4.0
    position: float = 1.0
    tilt: float = 0.0
    n_bath: int = 0
    bath: float = 1.0
    mass: Mass = 1.0

    def __post_init__(self) -> None:
        positive(barrier=self.barrier, position=self.position, bath=self.bath, mass=self.mass)
        not_negative(n_bath=float(self.n_bath), **{"|tilt|": abs(self.tilt)})
        of_length("mass", self.mass, self.n_dim)

    @property
    def n_dim(self) -> int:
        """1 + n_bath."""
        return 1 + self.n_bath

    def _potential(self, q: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        return self._well(q[:, 0]) + q[:, 1:].square().sum(1) * (self.bath / 2)

    def configurational_free_energy(self, kT: float) -> float:
        """By quadrature in x, to about 1e-12 kT, and in closed form in the bath.

        Raises:
            ValueError: ``kT`` is not positive.
        """
        positive(kT=kT)
        # Higher than the barrier, so that the width is that of the outer walls.
        width = confining_width(lambda x: self._well(x) / kT, 60 + self.barrier / kT)
        well = log_integral(lambda x: self._well(x[:, 0]) / kT, (-width,), (width,))
        return -kT * (well + self.n_bath / 2 * math.log(2 * math.pi * kT / self.bath))

    def _well(self, x: Tensor) -> Tensor:
        return self.barrier * ((x / self.position).square() - 1).square() + self.tilt * x


@dataclass(frozen=True)
class MuellerBrown(ExactSystem):
    """Three valleys and two saddles in the plane: four Gaussians, times ``scale``.

    At scale 1 the minima are -146.700 at (-0.558, 1.442), -108.167 at (0.623, 0.028) and -80.768
    at (-0.050, 0.467); the saddles between them -40.665 at (-0.822, 0.624) and -72.249 at
    (0.212, 0.293).

    Attributes:
        scale: factor of the energy; 0.1 is usual at kT = 1.
        mass: one mass, or two.

    Raises:
        ValueError: a parameter is not positive, or ``mass`` has not two entries.

    Source: Müller and Brown, Theor. Chim. Acta 53, 75 (1979), footnote 7.
    """

    scale: float = 1.0
    mass: Mass = 1.0

    #: Rows are the terms: height, then the exponent's xx, xy, yy factors and the centre.
    terms: ClassVar[tuple[tuple[float, ...], ...]] = (
        (-200.0, -1.0, 0.0, -10.0, 1.0, 0.0),
        (-100.0, -1.0, 0.0, -10.0, 0.0, 0.5),
        (-170.0, -6.5, 11.0, -6.5, -0.5, 1.5),
        (15.0, 0.7, 0.6, 0.7, -1.0, 1.0),
    )

    def __post_init__(self) -> None:
        positive(scale=self.scale, mass=self.mass)
        of_length("mass", self.mass, 2)

    @property
    def n_dim(self) -> int:
        """Two."""
        return 2

    def _potential(self, q: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        energy = torch.zeros_like(q[:, 0])
        for height, xx, xy, yy, x0, y0 in self.terms:
            x, y = q[:, 0] - x0, q[:, 1] - y0
            energy = energy + height * torch.exp(xx * x * x + xy * x * y + yy * y * y)
        return self.scale * energy

    def configurational_free_energy(self, kT: float) -> float:
        """By quadrature in the plane, to about 1e-12 kT.

        Raises:
            ValueError: ``kT`` is not positive.
            SciflowError: ``kT`` is so low that a grid of 1024 x 1024 points does not suffice.
        """
        positive(kT=kT)
        # The last term grows at least as 15 exp(0.4 d^2), d from its centre; the three wells
        # together take off less than 470. Where it reaches 60 kT above that is the edge.
        distance = math.sqrt(math.log((60 * kT / self.scale + 470) / 15) / 0.4)
        lower, upper = (-1 - distance, 1 - distance), (-1 + distance, 1 + distance)
        return -kT * log_integral(lambda q: self._potential(q) / kT, lower, upper)

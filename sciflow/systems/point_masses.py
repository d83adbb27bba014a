"""Wasserstein-Fisher-Rao geometry of point masses: transport and growth in closed form.

With the action ``integral of w (|v|^2 / 2 + growth^2 / (2 lambda)) dt`` a point mass is a point
in the plane, of radius sqrt(mass) and angle sqrt(lambda) x / 2, and moves straight on there.
Source: Liero, Mielke and Savare, Invent. Math. 211, 969 (2018), section 7; Chizat, Peyre,
Schmitzer and Vialard, Found. Comput. Math. 18, 1 (2018), theorem 4.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class PointMasses:
    """Least action from mass0 at one point to mass1 at another, over t in [0, 1].

    Attributes:
        mass0: at the start; 0 for mass that is born.
        mass1: at the end; 0 for mass that vanishes.
        distance: between the points.
        growth_penalty: lambda, in 1 / length^2.

    Raises:
        ValueError: a mass or the distance is negative, or lambda is not positive.
    """

    mass0: float
    mass1: float
    distance: float
    growth_penalty: float

    def __post_init__(self) -> None:
        for name in ("mass0", "mass1", "distance"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative; got {getattr(self, name)}")
        if self.growth_penalty <= 0:
            raise ValueError(f"growth_penalty must be positive; got {self.growth_penalty}")

    @property
    def cutoff(self) -> float:
        """Distance beyond which mass vanishes and is born instead of travelling."""
        return math.pi / math.sqrt(self.growth_penalty)

    @property
    def angle(self) -> float:
        """Angle between the two points of the plane; pi/2 beyond the cut-off."""
        return min(0.5 * math.sqrt(self.growth_penalty) * self.distance, math.pi / 2)

    def mass(self, t: float) -> float:
        """Total mass at time ``t``."""
        cross = math.sqrt(self.mass0 * self.mass1) * math.cos(self.angle)
        return (1 - t) ** 2 * self.mass0 + t**2 * self.mass1 + 2 * t * (1 - t) * cross

    def position(self, t: float) -> float:
        """Distance from the start of the mass that travels, at time ``t``.

        Raises:
            ValueError: the points are beyond the cut-off, so that nothing travels.
        """
        if self.distance >= self.cutoff:
            raise ValueError(f"no mass travels {self.distance:g}, beyond {self.cutoff:g}")
        along = (1 - t) * math.sqrt(self.mass0) + t * math.sqrt(self.mass1) * math.cos(self.angle)
        across = t * math.sqrt(self.mass1) * math.sin(self.angle)
        return 2 * math.atan2(across, along) / math.sqrt(self.growth_penalty)

    @property
    def action(self) -> float:
        """Least action."""
        cross = math.sqrt(self.mass0 * self.mass1) * math.cos(self.angle)
        return 2 / self.growth_penalty * (self.mass0 + self.mass1 - 2 * cross)

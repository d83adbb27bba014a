"""Planar densities on which normalizing flows are compared, with their exact log-densities.

The generators are those of FFJORD (Grathwohl et al., ICLR 2019, arXiv:1810.01367): samples of
scikit-learn's and of its own, with the same numbers. None of the comparisons there knows the
density; here it is in closed form, or by quadrature along the curve that the noise blurs, so that
a model can be held against the entropy, which no mean of -log p can beat.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import lru_cache
from types import MappingProxyType

import numpy as np
import torch

from sciflow.shapes import Float, Tensor

_BLOCK = 4096


class ToyDensity(ABC):
    """A density in the plane that can be drawn from and evaluated."""

    #: Half the side of a square around the origin that holds all but 1e-12 of the mass.
    reach: float
    #: Length over which the density changes.
    grain: float

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n 2"]:
        """Draw ``n`` points in float64 on the CPU, (n, 2)."""

    @abstractmethod
    def _log_prob(self, x: Float[Tensor, "batch 2"]) -> Float[Tensor, " batch"]: ...

    def log_prob(self, x: Float[Tensor, "batch 2"]) -> Float[Tensor, " batch"]:
        """Log-density at ``x`` (B, 2), shape (B,), exact to rounding."""
        return torch.cat([self._log_prob(part) for part in x.split(_BLOCK)])

    def entropy(self) -> float:
        """Entropy in nats, by the trapezoidal rule on a square of spacing 2/3 ``grain``.

        The noise makes the density analytic, so that the rule converges exponentially: twice
        as fine a grid changes nothing above 3e-6. Seconds for the spirals.
        """
        n = math.ceil(3 * self.reach / self.grain)
        line = torch.linspace(-self.reach, self.reach, n + 1, dtype=torch.float64)
        log_p = self.log_prob(torch.cartesian_prod(line, line))
        return -float((log_p.exp() * log_p).sum()) * (2 * self.reach / n) ** 2


class EightGaussians(ToyDensity):
    """Eight equal Gaussians on a circle."""

    reach, grain = 5.8, 0.5 / 1.414

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n 2"]:
        """Draw ``n`` points."""
        centers = self._centers()
        which = torch.randint(8, (n,), generator=generator)
        return centers[which] + self.grain * _normal(n, generator)

    def _centers(self) -> Tensor:
        angle = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
        return torch.stack([angle.cos(), angle.sin()], 1) * (4 / 1.414)

    def _log_prob(self, x: Float[Tensor, "batch 2"]) -> Float[Tensor, " batch"]:
        square = (x[:, None] - self._centers().to(x)).square().sum(-1)
        variance = self.grain**2
        log_norm = math.log(8 * 2 * math.pi * variance)
        return (-square / (2 * variance)).logsumexp(1) - log_norm


class Checkerboard(ToyDensity):
    """Uniform on every other one of the sixteen squares of a board of side 8."""

    reach, grain = 4.0, 2.0

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n 2"]:
        """Draw ``n`` points."""
        u = torch.rand(n, 2, generator=generator, dtype=torch.float64)
        x = 4 * u[:, 0] - 2
        y = u[:, 1] - 2.0 * torch.randint(2, (n,), generator=generator) + x.floor() % 2
        return 2 * torch.stack([x, y], 1)

    def _log_prob(self, x: Float[Tensor, "batch 2"]) -> Float[Tensor, " batch"]:
        cell = (x / 2).floor()
        inside = (cell.sum(1) % 2 == 0) & ((cell >= -2) & (cell < 2)).all(1)
        return torch.where(inside, -math.log(32.0), -math.inf).to(x)

    def entropy(self) -> float:
        """Log of the area 32."""
        return math.log(32.0)


class Circles(ToyDensity):
    """Two concentric circles with Gaussian noise."""

    reach, grain = 4.8, 0.24
    radii = (3.0, 1.5)

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n 2"]:
        """Draw ``n`` points."""
        radius = torch.tensor(self.radii, dtype=torch.float64)
        radius = radius[torch.randint(2, (n,), generator=generator)]
        angle = 2 * math.pi * torch.rand(n, generator=generator, dtype=torch.float64)
        circle = radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
        return circle + self.grain * _normal(n, generator)

    def _log_prob(self, x: Float[Tensor, "batch 2"]) -> Float[Tensor, " batch"]:
        r, variance = x.norm(dim=1), self.grain**2
        rings = [
            -(r - radius).square() / (2 * variance)
            + torch.special.i0e(r * radius / variance).log()
            for radius in self.radii
        ]
        return torch.stack(rings).logsumexp(0) - math.log(4 * math.pi * variance)


class _Curves(ToyDensity):
    """Curves blurred by Gaussian noise: a mixture of as many kernels as the quadrature has nodes.

    ``_curves(u)`` gives the curves at parameters u in [0, 1], each as likely as any: (C, n, 2).
    """

    nodes: int

    @abstractmethod
    def _curves(self, u: Float[Tensor, " n"]) -> Float[Tensor, "curve n 2"]: ...

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n 2"]:
        """Draw ``n`` points."""
        curves = self._curves(torch.rand(n, generator=generator, dtype=torch.float64))
        which = torch.randint(len(curves), (n,), generator=generator)
        return curves[which, torch.arange(n)] + self.grain * _normal(n, generator)

    def _log_prob(self, x: Float[Tensor, "batch 2"]) -> Float[Tensor, " batch"]:
        u, log_weight = _gauss_legendre(self.nodes)
        curves = self._curves(u)
        parts = [
            (self._log_kernel(x.double()[:, None] - curve, k) + log_weight).logsumexp(1)
            for k, curve in enumerate(curves.to(x.device))
        ]
        return (torch.stack(parts).logsumexp(0) - math.log(len(curves))).to(x)

    def _log_kernel(self, offset: Tensor, k: int) -> Tensor:
        variance = self.grain**2
        return -offset.square().sum(-1) / (2 * variance) - math.log(2 * math.pi * variance)


class Moons(_Curves):
    """Two interleaving half circles."""

    reach, grain, nodes = 4.5, 0.2, 96

    def _curves(self, u: Float[Tensor, " n"]) -> Float[Tensor, "curve n 2"]:
        cos, sin = (math.pi * u).cos(), (math.pi * u).sin()
        arcs = torch.stack([torch.stack([cos, sin], 1), torch.stack([1 - cos, 0.5 - sin], 1)])
        return 2 * arcs - torch.tensor([1.0, 0.2], dtype=u.dtype)


class SwissRoll(_Curves):
    """One spiral of one and a half turns."""

    reach, grain, nodes = 4.4, 0.2, 256

    def _curves(self, u: Float[Tensor, " n"]) -> Float[Tensor, "curve n 2"]:
        angle = 1.5 * math.pi * (1 + 2 * u)
        return (angle[:, None] * torch.stack([angle.cos(), angle.sin()], 1) / 5)[None]


class TwoSpirals(_Curves):
    """Two spirals, blurred by a box beside the Gaussian."""

    reach, grain, nodes = 4.1, 0.1, 384
    box = 0.5 / 3

    def _curves(self, u: Float[Tensor, " n"]) -> Float[Tensor, "curve n 2"]:
        angle = 3 * math.pi * u.sqrt()
        arm = angle[:, None] * torch.stack([-angle.cos(), angle.sin()], 1) / 3
        return torch.stack([arm, -arm])

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n 2"]:
        """Draw ``n`` points."""
        arm = self._curves(torch.rand(n, generator=generator, dtype=torch.float64))[0]
        arm = arm + self.box * torch.rand(n, 2, generator=generator, dtype=torch.float64)
        sign = 1.0 - 2.0 * torch.randint(2, (n, 1), generator=generator)
        return sign * arm + self.grain * _normal(n, generator)

    def _log_kernel(self, offset: Tensor, k: int) -> Tensor:
        """Gaussian noise on a box [0, box]^2, of the second arm its mirror image."""
        offset = offset if k == 0 else -offset
        upper, lower = offset / self.grain, (offset - self.box) / self.grain
        # The tail on the side of the lower end, so that the difference keeps its digits.
        flip = lower > 0
        upper, lower = torch.where(flip, -lower, upper), torch.where(flip, -upper, lower)
        high, low = torch.special.log_ndtr(upper), torch.special.log_ndtr(lower)
        return (high + (-(low - high).exp()).log1p() - math.log(self.box)).sum(-1)


@lru_cache(maxsize=8)
def _gauss_legendre(n: int) -> tuple[Tensor, Tensor]:
    """Nodes in [0, 1] and the logarithms of their weights."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(np.log(weights / 2))


def _normal(n: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, 2, generator=generator, dtype=torch.float64)


#: The names are FFJORD's.
TOYS: MappingProxyType[str, ToyDensity] = MappingProxyType(
    {
        "8gaussians": EightGaussians(),
        "checkerboard": Checkerboard(),
        "moons": Moons(),
        "circles": Circles(),
        "swissroll": SwissRoll(),
        "2spirals": TwoSpirals(),
    }
)

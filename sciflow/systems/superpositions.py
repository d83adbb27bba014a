"""Superpositions of two eigenstates, whose density moves: exact samples, current, velocity.

By the continuity equation ``|psi|^2`` is carried by the velocity ``j / |psi|^2`` of the
probability current ``j = Im(conj(psi) grad psi)`` (hbar = m = 1), which is the gradient of the
phase of psi where psi is not zero (Bohm, Phys. Rev. 85, 166 (1952)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from sciflow.shapes import Float, Tensor


@dataclass(frozen=True)
class HydrogenSuperposition:
    """Eigenstates (n, l, m) = (3, 2, -1) and (2, 1, 0) of hydrogen in equal parts.

    The density turns about the z axis without change of form, by ``-rate t``. It has a nodal line
    around which the phase winds, so that no single-valued potential has its velocity for a
    gradient: a gradient field can move the density as well, with less kinetic energy, but not
    along Bohm's trajectories. Source of the case: Neklyudov et al., arXiv:2210.06662, section 5.

    Attributes:
        bohr: Bohr radius, which sets the unit of length; 4 pi as in that paper.

    Raises:
        ValueError: ``bohr`` is not positive.
    """

    bohr: float = 4 * math.pi
    dim = 3

    def __post_init__(self) -> None:
        if not 0.0 < self.bohr < math.inf:
            raise ValueError(f"bohr must be positive and finite; got {self.bohr!r}")

    @property
    def rate(self) -> float:
        """Difference of the two energies, an angular frequency: ``-1 / (2 bohr^2 n^2)`` each."""
        return 5 / (72 * self.bohr**2)

    @property
    def period(self) -> float:
        """Time of one turn."""
        return 2 * math.pi / self.rate

    def sample(self, t: Float[Tensor, "n"], generator: torch.Generator) -> Float[Tensor, "n 3"]:
        """Exact independent positions, one at each of the times; by rejection, then a turn.

        Args:
            t: times (n,).
            generator: source of randomness; its draws do not depend on the times.
        """
        kept: list[Tensor] = []
        while sum(map(len, kept)) < len(t):
            x, share = self._propose(len(t), generator)
            u = torch.rand(len(t), generator=generator, dtype=x.dtype, device=x.device)
            kept.append(x[u < share])
        x = torch.cat(kept)[: len(t)].to(t.device) * self.bohr
        angle = -self.rate * t.to(x.dtype)
        cos, sin = angle.cos(), angle.sin()
        turned = (cos * x[:, 0] - sin * x[:, 1], sin * x[:, 0] + cos * x[:, 1], x[:, 2])
        return torch.stack(turned, 1)

    def density(self, t: float | Tensor, x: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
        """``|psi|^2`` at time t (one, or (n,)), normalised, per volume."""
        y, _, q, _ = self._factors(t, x)
        envelope = y[:, 2].square() * torch.exp(-y.norm(dim=1))
        return 0.5 * envelope * q.abs().square() / self.bohr**3

    def velocity(self, t: float | Tensor, x: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Current over density, the velocity of Bohm's trajectories; infinite on nodes."""
        y, w, q, grow = self._factors(t, x)
        r = y.norm(dim=1, keepdim=True)
        turn = torch.exp(-1j * self._phase(t, x))
        plane = torch.stack([turn, -1j * turn, torch.zeros_like(turn)], 1)
        slope = grow[:, None] * (plane + w[:, None] * y / (6 * r))
        return (slope / q[:, None]).imag / self.bohr

    def _phase(self, t: float | Tensor, x: Tensor) -> Tensor:
        return (self.rate * torch.as_tensor(t, dtype=x.dtype, device=x.device)).expand(len(x))

    def _factors(self, t: float | Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``psi = z exp(-r / 2) q / sqrt(2)`` with ``q = A + grow w``, in Bohr radii."""
        y = x / self.bohr
        w = torch.complex(y[:, 0], -y[:, 1]) * torch.exp(-1j * self._phase(t, x))
        grow = _B * torch.exp(y.norm(dim=1) / 6)
        return y, w, _A + grow * w, grow

    @staticmethod
    def _propose(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws at t = 0 of one of the two states, and the share of them to be kept.

        ``|a + b|^2 / 2 <= |a|^2 + |b|^2``: half of the draws are kept.
        """

        def exponentials(k: int) -> Tensor:
            draw = torch.rand(n, k, generator=generator, dtype=torch.float64, device=device)
            return -torch.log1p(-draw)

        device = generator.device
        first = torch.rand(n, generator=generator, dtype=torch.float64, device=device) < 0.5
        radius = torch.where(first, exponentials(5).sum(1), 1.5 * exponentials(7).sum(1))
        # cos(theta): density u^2, and u^2 (1 - u^2), whose square is Beta(3/2, 2).
        normal = torch.randn(n, generator=generator, dtype=torch.float64, device=device)
        top = exponentials(1)[:, 0] + normal.square() / 2
        beta = top / (top + exponentials(2).sum(1))
        uniform = torch.rand(n, 3, generator=generator, dtype=torch.float64, device=device)
        size = torch.where(first, uniform[:, 0] ** (1 / 3), beta.sqrt())
        u = size * torch.where(uniform[:, 1] < 0.5, -1.0, 1.0)
        phi, rho = 2 * math.pi * uniform[:, 2], (1 - u.square()).clamp(min=0).sqrt()
        x = radius[:, None] * torch.stack([rho * phi.cos(), rho * phi.sin(), u], 1)
        b = _B * torch.exp(radius / 6) * torch.complex(x[:, 0], -x[:, 1])
        return x, 0.5 * (_A + b).abs().square() / (_A**2 + b.abs().square())


# psi_210 = A z exp(-r/2) and psi_32-1 = B z (x - i y) exp(-r/3), in Bohr radii.
_A = 1 / math.sqrt(32 * math.pi)
_B = 1 / (81 * math.sqrt(math.pi))


@dataclass(frozen=True)
class OscillatorSuperposition:
    """The two lowest states of the harmonic oscillator in equal parts, in one dimension.

    Lengths are in ``sqrt(hbar / m omega)`` and times in ``1 / omega``; the period is 2 pi. In one
    dimension only one velocity moves the density, so that trajectories are known as well: each
    keeps the share of the density to its left.
    """

    dim = 1
    period = 2 * math.pi

    def density(self, t: float | Tensor, x: Float[Tensor, "n 1"]) -> Float[Tensor, "n"]:
        """``|psi|^2`` at time t (one, or (n,)); zero at one point where sin t = 0."""
        cos, _ = self._phase(t, x)
        return _gauss(x[:, 0]) * (0.5 + x[:, 0].square() + math.sqrt(2) * cos * x[:, 0])

    def velocity(self, t: float | Tensor, x: Float[Tensor, "n 1"]) -> Float[Tensor, "n 1"]:
        """Current over density, ``-(sin t / sqrt 2) / ((x + cos t / sqrt 2)^2 + sin^2 t / 2)``."""
        cos, sin = self._phase(t, x)
        below = (x[:, 0] + cos / math.sqrt(2)).square() + sin.square() / 2
        return (-sin / math.sqrt(2) / below)[:, None]

    def cdf(self, t: float | Tensor, x: Float[Tensor, "n 1"]) -> Float[Tensor, "n"]:
        """Share of the density to the left of x."""
        cos, _ = self._phase(t, x)
        return _share(x[:, 0], cos)

    def quantile(self, t: float | Tensor, share: Float[Tensor, "n"]) -> Float[Tensor, "n 1"]:
        """Where the cdf takes the values ``share``, by bisection, to 1e-12."""
        cos, _ = self._phase(t, share[:, None])
        low, high = torch.full_like(share, -8.0), torch.full_like(share, 8.0)
        for _ in range(44):
            middle = (low + high) / 2
            left = _share(middle, cos) < share
            low, high = torch.where(left, middle, low), torch.where(left, high, middle)
        return ((low + high) / 2)[:, None]

    def sample(self, t: Float[Tensor, "n"], generator: torch.Generator) -> Float[Tensor, "n 1"]:
        """Exact independent positions, one at each of the times (n,)."""
        share = torch.rand(len(t), generator=generator, dtype=torch.float64, device=t.device)
        return self.quantile(t.double(), share)

    @staticmethod
    def _phase(t: float | Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        t = torch.as_tensor(t, dtype=x.dtype, device=x.device).expand(len(x))
        return t.cos(), t.sin()


def _share(x: Tensor, cos: Tensor) -> Tensor:
    """Share of the density of the oscillator to the left of x."""
    return 0.5 * (1 + torch.erf(x)) - _gauss(x) * (x / 2 + cos / math.sqrt(2))


def _gauss(x: Tensor) -> Tensor:
    return torch.exp(-x.square()) / math.sqrt(math.pi)

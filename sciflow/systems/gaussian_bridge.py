"""Dynamics between Gaussians in closed form, beyond optimal transport.

The Schrödinger bridge (Bunne, Hsieh, Cuturi and Krause, AISTATS 2023, theorem 3), and least
action in a harmonic potential.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from sciflow.shapes import Float, Tensor
from sciflow.systems.gaussians import GaussianTransport


@dataclass(frozen=True, eq=False)
class GaussianBridge:
    """Schrödinger bridge of ``dX = v dt + sigma dW`` from N(mean0, cov0) to N(mean1, cov1).

    Of all diffusions with this noise and these ends over t in [0, 1] it has the least kinetic
    action. ``GaussianTransport`` is its limit for small sigma.

    Attributes:
        mean0: shape (d,).
        cov0: symmetric positive definite, shape (d, d).
        mean1: shape (d,).
        cov1: symmetric positive definite, shape (d, d).
        sigma: noise, positive.

    Raises:
        ValueError: sigma is not positive.
    """

    mean0: Float[Tensor, " dim"]
    cov0: Float[Tensor, "dim dim"]
    mean1: Float[Tensor, " dim"]
    cov1: Float[Tensor, "dim dim"]
    sigma: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sigma) and self.sigma > 0):
            raise ValueError(f"sigma must be positive and finite; got {self.sigma}")

    @property
    def cross(self) -> Float[Tensor, "dim dim"]:
        """Covariance of start and end, E[(x_0 - mean0) (x_1 - mean1)^T]."""
        values, vectors = torch.linalg.eigh(self.cov0)
        root = (vectors * values.sqrt()) @ vectors.T
        inverse = (vectors / values.sqrt()) @ vectors.T
        eye = torch.eye(len(self.mean0)).to(self.cov0)
        middle, frame = torch.linalg.eigh(4 * root @ self.cov1 @ root + self.sigma**4 * eye)
        spread = (frame * middle.sqrt()) @ frame.T
        return 0.5 * (root @ spread @ inverse - self.sigma**2 * eye)

    def mean(self, t: float) -> Float[Tensor, " dim"]:
        """Mean at time ``t``."""
        return (1 - t) * self.mean0 + t * self.mean1

    def cov(self, t: float) -> Float[Tensor, "dim dim"]:
        """Covariance at time ``t``."""
        eye = torch.eye(len(self.mean0)).to(self.cov0)
        cross = self.cross
        ends = (1 - t) ** 2 * self.cov0 + t**2 * self.cov1
        return ends + t * (1 - t) * (cross + cross.T + self.sigma**2 * eye)

    def velocity(self, t: float, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Drift at time ``t`` in [0, 1), the gradient of a potential."""
        return (self._pull(t) @ (x - self.mean(t)).T).T + self.mean1 - self.mean0

    def kinetic_action(self, nodes: int = 64) -> float:
        """``integral of E|v|^2 / 2 dt``, by Gauss-Legendre quadrature of its closed integrand."""
        points, weights = np.polynomial.legendre.leggauss(nodes)
        total = 0.0
        for point, weight in zip(points, weights, strict=True):
            t = 0.5 * (float(point) + 1)
            pull = self._pull(t)
            spread = float((pull @ self.cov(t) @ pull.T).trace())
            total += 0.5 * float(weight) * 0.5 * spread
        return total + 0.5 * float((self.mean1 - self.mean0).square().sum())

    def _pull(self, t: float) -> Tensor:
        """Matrix of the drift: ``E[x_1 - x_t | x_t] / (1 - t)`` for centred variables."""
        later = (1 - t) * self.cross.T + t * self.cov1
        eye = torch.eye(len(self.mean0)).to(self.cov0)
        return (later @ torch.linalg.inv(self.cov(t)) - eye) / (1 - t)


@dataclass(frozen=True, eq=False)
class HarmonicTransport:
    """Least action of ``|v|^2 / 2 - U`` with ``U = frequency^2 |x|^2 / 2`` between Gaussians.

    Paths obey x'' = - frequency^2 x over t in [0, 1]. The cost of a pair is quadratic in both
    ends, so that the coupling is that of optimal transport.

    Attributes:
        ends: optimal transport between the Gaussians.
        frequency: angular, in (0, pi): at pi the action has no minimum.

    Raises:
        ValueError: frequency is outside (0, pi).
    """

    ends: GaussianTransport
    frequency: float

    def __post_init__(self) -> None:
        if not 0 < self.frequency < math.pi:
            raise ValueError(f"frequency must be between 0 and pi; got {self.frequency}")

    def energy(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch"]:
        """Potential energy U."""
        return 0.5 * self.frequency**2 * x.square().sum(-1)

    def path(self, t: float, x0: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Where points that start at ``x0`` are at time ``t``."""
        w = self.frequency
        return (math.sin(w * (1 - t)) * x0 + math.sin(w * t) * self.ends.map(x0)) / math.sin(w)

    def velocity(self, t: float, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Velocity at time ``t`` and ``x``."""
        w, eye = self.frequency, torch.eye(x.shape[1]).to(x)
        shift = self.path(t, torch.zeros_like(eye[:1]))
        # Paths are affine in their start: row i of the matrix is the path from the unit point i.
        start = torch.linalg.solve((self.path(t, eye) - shift).T, (x - shift).T).T
        a, b = -math.cos(w * (1 - t)), math.cos(w * t)
        return w * (a * start + b * self.ends.map(start)) / math.sin(w)

    def action(self) -> float:
        """Action ``integral of E[|v|^2 / 2 - U] dt``."""
        w, ends = self.frequency, self.ends
        second = [
            float(m.square().sum() + c.trace())
            for m, c in ((ends.mean0, ends.cov0), (ends.mean1, ends.cov1))
        ]
        product = 0.5 * (sum(second) - ends.action)  # E[x_0 . x_1] under the optimal coupling
        return w * (sum(second) * math.cos(w) - 2 * product) / (2 * math.sin(w))

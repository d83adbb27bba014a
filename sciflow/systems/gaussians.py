"""Optimal transport between two Gaussians in closed form: the exact answer to compare with.

The optimal map from N(m0, C0) to N(m1, C1) is affine, T(x) = m1 + A (x - m0) with
A = C0^(-1/2) (C0^(1/2) C1 C0^(1/2))^(1/2) C0^(-1/2). Along McCann's interpolation each point
moves straight on: x_t = (1 - t) x_0 + t T(x_0) with t in [0, 1], and its velocity is the gradient
of a potential that solves the Hamilton-Jacobi equation.

Source: Olkin and Pukelsheim, Linear Algebra Appl. 48, 257 (1982), for the distance; McCann,
Adv. Math. 128, 153 (1997), for the interpolation.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from sciflow.shapes import Float, Tensor


@dataclass(frozen=True, eq=False)
class GaussianTransport:
    """Optimal transport from N(mean0, cov0) at t = 0 to N(mean1, cov1) at t = 1.

    Attributes:
        mean0: shape (d,).
        cov0: symmetric positive definite, shape (d, d).
        mean1: shape (d,).
        cov1: symmetric positive definite, shape (d, d).

    Raises:
        ValueError: a covariance is not symmetric positive definite, or something is not finite.
    """

    mean0: Float[Tensor, " dim"]
    cov0: Float[Tensor, "dim dim"]
    mean1: Float[Tensor, " dim"]
    cov1: Float[Tensor, "dim dim"]
    _values: Tensor = field(init=False, repr=False)
    _vectors: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("mean0", "cov0", "mean1", "cov1"):
            value = getattr(self, name)
            if not torch.isfinite(value).all():
                raise ValueError(f"{name} must be finite")
            expected = (len(self.mean0),) * value.ndim
            if tuple(value.shape) != expected:
                raise ValueError(f"{name} must have shape {expected}, got {tuple(value.shape)}")
        for name in ("cov0", "cov1"):
            cov = getattr(self, name)
            if not torch.allclose(cov, cov.T, rtol=1e-6, atol=0):
                raise ValueError(f"{name} must be symmetric")
            if torch.linalg.eigvalsh(cov.double())[0] <= 0:
                raise ValueError(f"{name} must be positive definite")
        root = _power(self.cov0.double(), 0.5)
        inverse = _power(self.cov0.double(), -0.5)
        stretch = inverse @ _power(root @ self.cov1.double() @ root, 0.5) @ inverse
        values, vectors = torch.linalg.eigh((stretch + stretch.T) / 2)
        # A frozen dataclass is filled this way; the spectrum of A makes every time a division.
        object.__setattr__(self, "_values", values.to(self.mean0))
        object.__setattr__(self, "_vectors", vectors.to(self.mean0))

    def map(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Optimal map T of points ``x`` (N, d) of the first Gaussian, shape (N, d)."""
        return self.mean1 + self._apply(x - self.mean0, self._values)

    def velocity(
        self, t: float | int | Tensor, x: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch dim"]:
        """Velocity of the interpolation at time ``t`` (a number, () or (N,)) and ``x`` (N, d)."""
        time, start = self._start(t, x)
        return self.mean1 - self.mean0 + self._apply(start, self._values - 1)

    def potential(
        self, t: float | int | Tensor, x: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, " batch"]:
        """Potential s with velocity = grad s, shape (N,).

        Its free function of time is such that ds/dt + |grad s|^2 / 2 = 0, and s(0, mean0) = 0;
        then E[s(1)] - E[s(0)] equals ``kinetic_action`` (the dual of the Benamou-Brenier problem).
        """
        time, start = self._start(t, x)
        shift = self.mean1 - self.mean0
        stretched = self._apply(start, self._values - 1)
        velocity = shift + stretched
        initial = start @ shift + (start * stretched).sum(1) / 2
        return initial + time.squeeze(-1) * velocity.square().sum(1) / 2

    @property
    def action(self) -> float:
        """Squared Wasserstein distance W2^2, the integral of E|v|^2 over t in [0, 1].

        There is no factor 1/2; see ``kinetic_action``.
        """
        root = _power(self.cov0.double(), 0.5)
        cross = torch.linalg.eigvalsh(root @ self.cov1.double() @ root).clamp(min=0).sqrt().sum()
        spread = self.cov0.double().trace() + self.cov1.double().trace() - 2 * cross
        return float((self.mean1 - self.mean0).double().square().sum() + spread)

    @property
    def kinetic_action(self) -> float:
        """Action of the Lagrangian |v|^2 / 2 over t in [0, 1]: half of W2^2."""
        return self.action / 2

    def mean(self, t: float | int | Tensor) -> Float[Tensor, " dim"]:
        """Mean at the one time ``t``, shape (d,)."""
        return self.mean0 + t * (self.mean1 - self.mean0)

    def cov(self, t: float | int | Tensor) -> Float[Tensor, "dim dim"]:
        """Covariance at the one time ``t``, shape (d, d)."""
        half = self._apply(self.cov0, 1 - t + t * self._values)
        return self._apply(half.T, 1 - t + t * self._values)

    def sample(
        self, t: float | int | Tensor, n: int, generator: torch.Generator
    ) -> Float[Tensor, "batch dim"]:
        """Draw ``n`` independent points of the marginal at the one time ``t``, shape (n, d).

        Raises:
            ValueError: ``n`` is less than 1.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        noise = torch.randn(
            n,
            len(self.mean0),
            generator=generator,
            dtype=self.mean0.dtype,
            device=generator.device,
        )
        # A symmetric root, unlike Cholesky's, keeps the draw continuous in the covariance.
        return self.mean(t) + noise.to(self.mean0.device) @ _power(self.cov(t), 0.5)

    def _start(self, t: float | int | Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Time as () or (N, 1), and the centred starting points whose paths pass x at t."""
        time = torch.as_tensor(t, dtype=x.dtype, device=x.device)
        time = time[:, None] if time.ndim else time
        mean = self.mean0 + time * (self.mean1 - self.mean0)
        return time, self._apply(x - mean, 1 / (1 - time + time * self._values))

    def _apply(self, x: Tensor, spectrum: Tensor) -> Tensor:
        """Rows of x times the matrix that has the eigenvectors of A and this spectrum."""
        return (x @ self._vectors * spectrum) @ self._vectors.T


def _power(matrix: Tensor, exponent: float) -> Tensor:
    """Power of a symmetric positive definite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values**exponent) @ vectors.T

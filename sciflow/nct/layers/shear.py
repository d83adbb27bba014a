"""Maps that mix coordinates with momenta: learned kicks and drifts, and Hamiltonian flow."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from sciflow.integrators import Hamiltonian, integrate
from sciflow.nct.layers.base import CanonicalLayer
from sciflow.nn import MLP
from sciflow.shapes import Float, Tensor


class Energy(nn.Module):
    """A learned scalar function of a vector, with its gradient written out; starts at zero.

    Args:
        n_dim: length of the vector.
        width: width of the hidden layers.
        depth: number of hidden layers.
        generator: source of the initial weights.
    """

    def __init__(
        self, n_dim: int, width: int, depth: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.net = MLP(n_dim, 1, width, depth, generator=generator, zero=True)
        # The zero of energy moves nothing.
        cast(nn.Linear, self.net.layers[-1]).bias.requires_grad_(False)

    def forward(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """Value."""
        return self.net(x).squeeze(1)

    def gradient(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Gradient."""
        value, pull = self.net.pullback(x)
        return pull(torch.ones_like(value))

    def force(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Minus the gradient, where `sciflow.Hamiltonian` looks for it."""
        return -self.gradient(x)


class Leapfrog(CanonicalLayer):
    """Kick, drift, kick by learned energies: p - grad V(q), then q + grad K(p), then again.

    Both energies are learned, so that no time step appears. Latent momenta depend on physical
    coordinates and the other way round: a map of this kind has no density of coordinates alone.

    Args:
        n_dim: number of coordinates, all without a period.
        steps: number of kicks and of drifts.
        width: width of the hidden layers.
        depth: number of hidden layers.
        generator: source of the initial weights.
    """

    def __init__(
        self,
        n_dim: int,
        steps: int = 2,
        width: int = 64,
        depth: int = 2,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if steps < 1:
            raise ValueError(f"steps must be at least 1; got {steps}")
        self.config = {"n_dim": n_dim, "steps": steps, "width": width, "depth": depth}
        make = lambda: Energy(n_dim, width, depth, generator)
        self.potentials = nn.ModuleList(make() for _ in range(steps))
        self.kinetics = nn.ModuleList(make() for _ in range(steps))

    def _pairs(self) -> list[tuple[Energy, Energy]]:
        pairs = zip(self.potentials, self.kinetics, strict=True)
        return [(cast(Energy, kick), cast(Energy, drift)) for kick, drift in pairs]

    def forward(
        self, q: Float[Tensor, "batch dim"], p: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """Kicks and drifts in turn."""
        for kick, drift in self._pairs():
            p = p - kick.gradient(q)
            q = q + drift.gradient(p)
        return q, p

    def inverse(
        self, Q: Float[Tensor, "batch dim"], P: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """The same kicks and drifts, undone in reverse order."""
        for kick, drift in reversed(self._pairs()):
            Q = Q - drift.gradient(P)
            P = P + kick.gradient(Q)
        return Q, P


class HamiltonianFlow(CanonicalLayer):
    """Motion for a unit of time by H = sum p^2 / 2m + V(q) with learned V and masses.

    `sciflow.integrate` moves it with a symplectic method of constant step, whose map is exactly
    canonical and is undone by running backward. It does not start at the identity: free motion
    by p / m is its start, small where the masses start large.

    Args:
        n_dim: number of coordinates, all without a period.
        steps: number of integration steps.
        method: "leapfrog" or "yoshida4".
        mass: initial mass.
        width: width of the hidden layers.
        depth: number of hidden layers.
        generator: source of the initial weights.

    Raises:
        ValueError: another method, fewer than one step, or a mass that is not positive.
    """

    def __init__(
        self,
        n_dim: int,
        steps: int = 4,
        method: str = "leapfrog",
        mass: float = 10.0,
        width: int = 64,
        depth: int = 2,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if method not in ("leapfrog", "yoshida4"):
            raise ValueError(f"method must be 'leapfrog' or 'yoshida4'; got {method!r}")
        if steps < 1 or not mass > 0:
            raise ValueError(f"steps and mass must be positive; got {steps} and {mass}")
        self.config = {
            "n_dim": n_dim,
            "steps": steps,
            "method": method,
            "mass": mass,
            "width": width,
            "depth": depth,
        }
        self.potential = Energy(n_dim, width, depth, generator)
        self.log_mass = nn.Parameter(torch.full((n_dim,), mass).log())

    def forward(
        self, q: Float[Tensor, "batch dim"], p: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """State after a unit of time."""
        return self._run(q, p, 0.0, 1.0)

    def inverse(
        self, Q: Float[Tensor, "batch dim"], P: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """State a unit of time before."""
        return self._run(Q, P, 1.0, 0.0)

    def _run(self, q: Tensor, p: Tensor, start: float, end: float) -> tuple[Tensor, Tensor]:
        field = Hamiltonian(self.potential, self.log_mass.exp())
        t = torch.tensor([start, end], dtype=q.dtype, device=q.device)
        dt = 1 / self.config["steps"]
        sol = integrate(field, (q, p), t, method=self.config["method"], dt=dt)
        return sol.y[0][-1], sol.y[1][-1]

"""Long Markov chains of a system: the truth where no closed form is at hand.

Hybrid Monte Carlo is exact in distribution at any step size; what remains is the statistical
error and the question whether the chains have mixed, which `sciflow.metrics` answers by the
spread between chains (`r_hat`, `chain_mean`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from sciflow.integrators import Hamiltonian, integrate
from sciflow.shapes import Float, Tensor
from sciflow.systems.base import System, positive


class Chains(NamedTuple):
    """Draws of several independent Markov chains.

    Attributes:
        x: configurations (draws, chains, n_dim).
        acceptance: share of proposals that were accepted, over all chains after the warm-up.
    """

    x: Float[Tensor, "draw chain dim"]
    acceptance: float


def hmc_chains(
    system: System,
    x0: Float[Tensor, "chain dim"],
    n_draws: int,
    generator: torch.Generator,
    kT: float = 1.0,
    step: float = 0.1,
    n_leapfrog: int = 10,
    thin: int = 1,
    warmup: int = 0,
) -> Chains:
    """Sample exp(-V / kT) by hybrid Monte Carlo, one chain per row of ``x0``.

    Args:
        system: the energy; its masses set the units of ``step`` and nothing else.
        x0: where the chains start (chains, n_dim); spread them, so that chains which do not mix
            are found out.
        n_draws: draws kept of every chain.
        generator: source of momenta and acceptance.
        kT: thermal energy, in the unit of the potential.
        step: leapfrog step, a time in the units of mass, energy and length.
        n_leapfrog: steps of a trajectory.
        thin: transitions between two draws.
        warmup: transitions before the first of them; the first half at a fifth of the step, which
            forgives a start at high energy.

    Raises:
        ValueError: a number is out of range, or ``x0`` has another shape.
    """
    positive(kT=kT, step=step)
    for name, value, least in (
        ("n_draws", n_draws, 1),
        ("n_leapfrog", n_leapfrog, 1),
        ("thin", thin, 1),
        ("warmup", warmup, 0),
    ):
        if value < least:
            raise ValueError(f"{name} is {value}; expected at least {least}")
    if x0.ndim != 2 or x0.shape[1] != system.n_dim:
        raise ValueError(f"x0 has shape {tuple(x0.shape)}; expected (chains, {system.n_dim})")
    field = Hamiltonian(_Energy(system), mass=system.masses.to(x0), kT=kT)

    def move(x: Tensor, transitions: int, step: float) -> tuple[Tensor, float]:
        times = n_leapfrog * step * torch.arange(transitions + 1, dtype=torch.float64)
        start = (x, torch.zeros_like(x))
        end = integrate(
            field, start, times.to(x.device), method="hmc", dt=step, generator=generator
        )
        assert end.stats.acceptance is not None
        return end.y[0][-1], float(end.stats.acceptance.mean())

    x = x0
    for transitions, size in ((warmup // 2, step / 5), (warmup - warmup // 2, step)):
        if transitions:
            x, _ = move(x, transitions, size)
    draws, accepted = [], 0.0
    for _ in range(n_draws):
        x, share = move(x, thin, step)
        draws.append(x)
        accepted += share / n_draws
    return Chains(torch.stack(draws), accepted)


class _Energy:
    """The potential and the force of a system, as the integrator asks for them."""

    def __init__(self, system: System) -> None:
        self.force, self.potential = system.force, system.potential

    def __call__(self, q: Tensor) -> Tensor:
        return self.potential(q)

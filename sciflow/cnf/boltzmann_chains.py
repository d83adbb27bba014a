"""Markov chains in which a flow proposes: exact in distribution, and between modes in one jump.

Two kinds of moves, each of which leaves its density alone:

- in the space of the data, proposals of the flow independent of where the chain is (Metropolis
  and Hastings), mixed with local hybrid Monte Carlo that mends what the flow does badly;
- in the latent space, where the density of a chain at rung k of a ladder is base(z) w(z)^lambda_k
  with the weight w of the flow's sample at z, partial refreshments z' = sqrt(1 - b^2) z + b xi
  (Neal, Bayesian Statistics 6 (1998); Cotter et al., Stat. Sci. 28, 424 (2013)).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from sciflow.cnf.boltzmann import BoltzmannGenerator
from sciflow.cnf.reverse_kl import checked_energy
from sciflow.integrators import Hamiltonian, integrate
from sciflow.metrics import Estimate, bar, reweight
from sciflow.shapes import Float, Tensor


class FlowChains(NamedTuple):
    """Draws of several Markov chains with proposals of a flow.

    Attributes:
        x: draws (sweeps, chains, d), one per sweep.
        acceptance: share of the flow's proposals that were accepted.
        local_acceptance: share of the local moves; nan without any.
    """

    x: Float[Tensor, "sweep chain dim"]
    acceptance: float
    local_acceptance: float


@torch.no_grad()
def flow_chains(
    generator: BoltzmannGenerator,
    x0: Float[Tensor, "chain dim"],
    n_sweeps: int,
    random: torch.Generator,
    n_local: int = 5,
    step: float = 0.05,
    n_leapfrog: int = 10,
) -> FlowChains:
    """Sample exp(-E / kT) by sweeps of one proposal of the flow and some local moves.

    Args:
        generator: the flow and the energy; the solve must be tight, as its error is a bias here.
        x0: where the chains start (chains, d), for instance samples of the flow.
        n_sweeps: sweeps, each of which gives one draw per chain.
        random: source of everything random.
        n_local: hybrid Monte Carlo transitions per sweep, 0 for none.
        step: of their leapfrog, for unit masses.
        n_leapfrog: steps of their trajectories.

    Raises:
        ValueError: a number is out of range.
    """
    for name, value, least in (
        ("n_sweeps", n_sweeps, 1),
        ("n_local", n_local, 0),
        ("n_leapfrog", n_leapfrog, 1),
    ):
        if value < least:
            raise ValueError(f"{name} is {value}; expected at least {least}")
    field = Hamiltonian(generator.energy, kT=generator.kT)
    times = n_leapfrog * step * torch.arange(n_local + 1, dtype=torch.float64)
    # Where the density knows no mean, the one of zero mean stands for a configuration.
    centred = getattr(generator.flow.base, "centred", lambda x: x)
    now, draws = generator.weigh(x0), []
    accepted, local = 0.0, 0.0
    for _ in range(n_sweeps):
        new = generator.sample(len(x0), random)
        accept = _coin(new.log_weight - now.log_weight, random)
        x = torch.where(accept[:, None], new.x, now.x)
        accepted += float(accept.double().mean()) / n_sweeps
        if n_local:
            start = (x, torch.zeros_like(x))
            moved = integrate(field, start, times, method="hmc", dt=step, generator=random)
            assert moved.stats.acceptance is not None
            local += float(moved.stats.acceptance.mean()) / n_sweeps
            x = centred(moved.y[0][-1])
            now = generator.weigh(x)
        else:
            log_weight = torch.where(accept, new.log_weight, now.log_weight)
            now = now._replace(x=x, log_weight=log_weight)
        draws.append(x)
    return FlowChains(torch.stack(draws), accepted, local if n_local else math.nan)


@torch.no_grad()
def annealed_free_energy(
    generator: BoltzmannGenerator,
    random: torch.Generator,
    n_chains: int = 1024,
    n_strata: int = 8,
    n_moves: int = 4,
    refreshment: float = 0.5,
    x: Float[Tensor, "m dim"] | None = None,
) -> Estimate:
    """Free energy over a ladder of densities base(z) w(z)^(k / n_strata) from flow to energy.

    It earns its cost where reweighting has too few effective samples. Every chain climbs the
    ladder and sums its work: by annealed importance sampling the estimate is right however far
    the chains lag behind, and lagging shows in ``ess`` and ``error``. With samples of the energy
    as well, other chains climb down, and Bennett's ratio joins the works of both directions.

    Args:
        generator: the flow, of a Gaussian base of zero mean, and the energy.
        random: source of everything random.
        n_chains: independent chains.
        n_strata: rungs of the ladder.
        n_moves: moves at a rung; each costs a solve.
        refreshment: b in (0, 1], the part of the latent variables that a move renews.
        x: independent samples of exp(-E / kT) that the flow was not trained on, (m, d).

    Returns:
        The estimate; ``ess`` is that of the chains that climb, ``bound`` their mean work.

    Raises:
        ValueError: a number is out of range.

    Source: Neal, Stat. Comput. 11, 125 (2001), equations (3) to (6); Crooks, Phys. Rev. E 61,
        2361 (2000), for both directions.
    """
    if not 0 < refreshment <= 1:
        raise ValueError(f"refreshment must be in (0, 1], got {refreshment}")
    for name, value, least in (
        ("n_strata", n_strata, 1),
        ("n_moves", n_moves, 1),
        ("n_chains", n_chains, 2),
    ):
        if value < least:
            raise ValueError(f"{name} is {value}; expected at least {least}")
    flow = generator.flow
    keep = math.sqrt(1 - refreshment**2)

    def log_weight(z: Tensor) -> Tensor:
        x, log_p = flow.to_data_with_log_prob(z)
        return -checked_energy(generator.energy, x) / generator.kT - log_p

    def move(z: Tensor, log_w: Tensor, rung: float) -> tuple[Tensor, Tensor]:
        for _ in range(n_moves):
            new = keep * z + refreshment * flow.base.sample(len(z), random).to(z)
            new_log_w = log_weight(new)
            accept = _coin(rung * (new_log_w - log_w), random)
            z = torch.where(accept[:, None], new, z)
            log_w = torch.where(accept, new_log_w, log_w)
        return z, log_w

    def climb(z: Tensor, log_w: Tensor, rungs: range) -> Tensor:
        """Sum of the log-weights over the rungs, the chains moved from each to the next."""
        total = log_w.double()
        for k in rungs:
            z, log_w = move(z, log_w, k / n_strata)
            total = total + log_w.double()
        return total / n_strata

    z = flow.base.sample(n_chains, random)
    up = climb(z, log_weight(z), range(1, n_strata))
    if x is None:
        return reweight(up, random, generator.kT)
    start = generator.weigh(x)
    z = torch.cat([flow.to_latent(part) for part in x.split(generator.chunk)])
    down = climb(z, start.log_weight, range(n_strata - 1, 0, -1))
    return bar(-up, down, generator.kT)


def _coin(log_ratio: Tensor, random: torch.Generator) -> Tensor:
    """Metropolis's decisions; never for a ratio that is nan."""
    u = torch.rand(log_ratio.shape, generator=random, dtype=torch.float64, device=random.device)
    return u.log().to(log_ratio.device) < log_ratio

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
from sciflow.integrators import Hamiltonian, integrate
from sciflow.metrics import Estimate, ess, stratified_bar
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
    field = Hamiltonian(generator.energies, kT=generator.kT)
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
def stratified_free_energy(
    generator: BoltzmannGenerator,
    random: torch.Generator,
    n_chains: int = 1024,
    n_strata: int = 8,
    n_moves: int = 8,
    refreshment: float = 0.5,
    n_blocks: int = 16,
) -> Estimate:
    """Free energy over a ladder from the flow to the energy, Bennett's ratio on each rung.

    It earns its cost where reweighting has too few effective samples: the rungs are near each
    other, and chains in the latent space follow from one to the next. No sample of the target is
    needed.

    Args:
        generator: the flow, of a Gaussian base of zero mean, and the energy.
        random: source of everything random.
        n_chains: independent chains.
        n_strata: rungs, lambda = k / n_strata.
        n_moves: moves at a rung before its samples are taken; each costs a solve.
        refreshment: b in (0, 1], the part of the latent variables that a move renews.
        n_blocks: groups of chains, whose spread is the error.

    Returns:
        The mean over the blocks with its standard error; ``bound`` that of the flow, ``ess`` the
        least between neighbours on the ladder, seen from below.

    Raises:
        ValueError: a number is out of range.
    """
    if not 0 < refreshment <= 1:
        raise ValueError(f"refreshment must be in (0, 1], got {refreshment}")
    for name, value, least in (
        ("n_strata", n_strata, 1),
        ("n_moves", n_moves, 1),
        ("n_blocks", n_blocks, 2),
        ("n_chains", n_chains, 2 * n_blocks),
    ):
        if value < least:
            raise ValueError(f"{name} is {value}; expected at least {least}")
    flow = generator.flow
    keep = math.sqrt(1 - refreshment**2)

    def weight(z: Tensor) -> Tensor:
        x, log_p = flow.transport(z)
        return -generator.energies(x) / generator.kT - log_p

    z = flow.base.sample(n_chains, random)
    log_w = weight(z)
    rungs = [log_w]
    for k in range(1, n_strata + 1):
        for _ in range(n_moves):
            new = keep * z + refreshment * flow.base.sample(n_chains, random)
            new_log_w = weight(new)
            accept = _coin(k / n_strata * (new_log_w - log_w), random)
            z = torch.where(accept[:, None], new, z)
            log_w = torch.where(accept, new_log_w, log_w)
        rungs.append(log_w)
    blocks = torch.arange(n_chains) % n_blocks
    values = []
    for block in range(n_blocks):
        own = [rung[(blocks == block).to(rung.device)] / n_strata for rung in rungs]
        strata = [(-low, high) for low, high in zip(own[:-1], own[1:], strict=True)]
        values.append(stratified_bar(strata).value)
    mean = torch.tensor(values, dtype=torch.float64)
    shares = [float(ess(rung / n_strata)) / n_chains for rung in rungs[:-1]]
    return Estimate(
        generator.kT * float(mean.mean()),
        generator.kT * float(mean.std()) / math.sqrt(n_blocks),
        -generator.kT * float(rungs[0].double().mean()),
        min(shares),
    )


def _coin(log_ratio: Tensor, random: torch.Generator) -> Tensor:
    """Metropolis's decisions; never for a ratio that is nan."""
    u = torch.rand(log_ratio.shape, generator=random, dtype=torch.float64, device=random.device)
    return u.log().to(log_ratio.device) < log_ratio

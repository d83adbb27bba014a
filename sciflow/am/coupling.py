"""Couplings between neighbouring snapshots, kept as lists of pairs.

Each Lagrangian has its own static problem: exact optimal transport for the squared distance, an
entropic plan where there is noise, an entropic unbalanced plan where mass may grow.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from sciflow.am.entropic import entropic_plan
from sciflow.am.lagrangians import Lagrangian
from sciflow.errors import SciflowError, require
from sciflow.shapes import Float, Int, Tensor

# Exact transport between n and n points costs about n^2.5: 0.1 s at 550, 3 s at 2000.
POOL = 2000
# Pairs kept of a dense entropic plan, per point.
_DRAWS = 32
# Least entropic regularisation of an unbalanced plan; its cost is dimensionless and about one.
_LEAST_EPSILON = 0.01


class Coupling(NamedTuple):
    """Pairs of one interval: row ``left`` of one snapshot goes to row ``right`` of the next.

    A pair starts with mass ``start`` and ends with mass ``end``; both are those of the pair over
    the probability ``chance`` that it is drawn. The sum of ``chance`` is one. A row of -1 has no
    partner: mass that vanishes, or is born, where it is.
    """

    left: Int[Tensor, "pair"]
    right: Int[Tensor, "pair"]
    chance: Float[Tensor, "pair"]
    start: Float[Tensor, "pair"]
    end: Float[Tensor, "pair"]


def couple(
    x: Float[Tensor, "left dim"],
    y: Float[Tensor, "right dim"],
    lagrangian: Lagrangian,
    duration: float,
    masses: tuple[float, float] = (1.0, 1.0),
    pool: int = POOL,
    generator: torch.Generator | None = None,
) -> Coupling:
    """Pairs that are optimal for the Lagrangian, its potential energy and metric apart.

    Without noise and growth they are those of exact optimal transport: at most n + m - 1 pairs.
    Otherwise they are drawn from an entropic plan. Snapshots of more than ``pool`` points are
    coupled pool by pool: both are shuffled and dealt into pools of equal number (minibatch
    optimal transport, Fatras et al. 2020), so that no dense plan of all points exists; this costs
    a bias that falls with the size of the pool.

    Args:
        x: points at the earlier time.
        y: points at the later time.
        lagrangian: in the units of the points.
        duration: time between them.
        masses: of the population at both times; used where mass may grow.
        pool: largest number of points on either side of one problem.
        generator: shuffles the points and draws pairs; exact plans without pools need none.

    Raises:
        ValueError: a generator is needed but was not given.
        SciflowError: the solver did not converge.
    """
    n_pools = -(-max(len(x), len(y)) // pool)
    exact = lagrangian.growth_penalty is None and lagrangian.sigma == 0
    if generator is None and not (exact and n_pools == 1):
        raise ValueError(f"pools of {pool} points and entropic plans need a generator")
    n_pools = min(n_pools, len(x), len(y))
    if n_pools == 1:
        deal = [[torch.arange(len(x))], [torch.arange(len(y))]]
    else:
        deal = [
            list(torch.randperm(len(z), generator=generator).tensor_split(n_pools)) for z in (x, y)
        ]
    parts = []
    for i, j in zip(*deal, strict=True):
        if exact:
            part = _exact(x[i], y[j])
        else:
            assert generator is not None
            part = _entropic(x[i], y[j], lagrangian, duration, masses, generator)
        weight = len(i) / len(x)
        left = torch.where(part.left < 0, part.left, i[part.left])
        right = torch.where(part.right < 0, part.right, j[part.right])
        parts.append(part._replace(left=left, right=right, chance=part.chance * weight))
    return Coupling(*(torch.cat(column) for column in zip(*parts, strict=True)))


def exact_coupling(
    x: Float[Tensor, "left dim"],
    y: Float[Tensor, "right dim"],
    pool: int = POOL,
    generator: torch.Generator | None = None,
) -> Coupling:
    """Pairs of exact optimal transport for the squared distance; see ``couple``."""
    return couple(x, y, Lagrangian(), 1.0, pool=pool, generator=generator)


def independent_coupling(n: int, m: int, generator: torch.Generator) -> Coupling:
    """Random pairs of n and m points, every point in the same number of them up to one."""
    size = max(n, m) * _DRAWS
    columns = [
        torch.cat([torch.randperm(k, generator=generator) for _ in range(-(-size // k))])[:size]
        for k in (n, m)
    ]
    return _balanced(columns[0], columns[1], torch.ones(size, dtype=torch.float64))


def _balanced(left: Tensor, right: Tensor, chance: Tensor) -> Coupling:
    one = torch.ones_like(chance)
    return Coupling(left, right, chance / chance.sum(), one, one)


def _exact(x: Tensor, y: Tensor) -> Coupling:
    ot = require("ot")
    a, b = x.double().numpy(), y.double().numpy()
    plan, log = ot.emd(
        np.full(len(a), 1 / len(a)),
        np.full(len(b), 1 / len(b)),
        ot.dist(a, b),
        numItermax=10**7,
        log=True,
    )
    if log["warning"] is not None:
        raise SciflowError(f"optimal transport did not converge: {log['warning']}")
    left, right = (torch.from_numpy(i) for i in np.nonzero(plan))
    return _balanced(left, right, torch.from_numpy(plan)[left, right])


def _entropic(
    x: Tensor,
    y: Tensor,
    lagrangian: Lagrangian,
    duration: float,
    masses: tuple[float, float],
    generator: torch.Generator,
) -> Coupling:
    x, y = x.double(), y.double()
    distance = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    noise, penalty = lagrangian.sigma**2 * duration, lagrangian.growth_penalty
    size = max(len(x), len(y)) * _DRAWS
    if penalty is None:
        plan = entropic_plan(0.5 * distance.square(), (1.0, 1.0), noise, unbalanced=False)
        chance = plan
    else:
        # The static problem of Wasserstein-Fisher-Rao geometry (Liero, Mielke and Savare, Invent.
        # Math. 211, 969 (2018)): logarithmic entropy transport on the cone of the angle.
        angle = 0.5 * math.sqrt(penalty) * distance
        cost = torch.where(angle < math.pi / 2, -2 * torch.log(torch.cos(angle)), math.inf)
        epsilon = max(0.5 * penalty * noise, _LEAST_EPSILON)
        plan = entropic_plan(cost, masses, epsilon, unbalanced=True)
        # Semi-couplings: a pair starts with its share of the mass of x, ends with that of y.
        rows, columns = plan.sum(1, keepdim=True), plan.sum(0, keepdim=True)
        leaves, arrives = rows > 1e-12 * masses[0] / len(x), columns > 1e-12 * masses[1] / len(y)
        start = torch.where(leaves, plan / rows, 0.0) * (masses[0] / len(x))
        end = torch.where(arrives, plan / columns, 0.0) * (masses[1] / len(y))
        dies, born = (~leaves[:, 0]).nonzero()[:, 0], (~arrives[0]).nonzero()[:, 0]
        n_dead, n_born = len(dies), len(born)
        chance = 0.5 * (start + end)
    flat = chance.flatten().cumsum(0)
    # Stratified draws: of equal weight, and each row gets its share up to one draw.
    jitter = torch.rand(size, generator=generator, dtype=torch.float64)
    u = (torch.arange(size, dtype=torch.float64) + jitter) / size
    drawn = torch.searchsorted(flat, u * flat[-1], right=True).clamp(max=len(flat) - 1)
    left, right = drawn // len(y), drawn % len(y)
    if penalty is None:
        return _balanced(left, right, torch.ones(size, dtype=torch.float64))
    weight = 1 / chance[left, right]
    m0, m1 = start.sum(), end.sum()
    start, end = start[left, right] * weight, end[left, right] * weight
    nobody, nothing = (
        torch.full_like(torch.cat([dies, born]), -1),
        torch.zeros(n_dead + n_born, dtype=torch.float64),
    )
    left = torch.cat([left, dies, nobody[:n_born]])
    right = torch.cat([right, nobody[:n_dead], born])
    start = torch.cat(
        [start * (m0 / start.sum()), nothing[:n_dead] + masses[0] / len(x), nothing[:n_born]]
    )
    end = torch.cat(
        [end * (m1 / end.sum()), nothing[:n_dead], nothing[:n_born] + masses[1] / len(y)]
    )
    chance = (start + end) / (start + end).sum()
    return Coupling(left, right, chance, start / chance, end / chance)

"""Boltzmann generators of DW4 and LJ13, against quadrature and long Markov chains.

The chains that a flow is trained on, those that it is scored on, and a third set for the floor
come from different seeds. Flows, chains and rows are kept in ``runs/particles``; what is there is
not computed again.
"""

import math
from functools import partial
from typing import Any

import torch

from benchmarks.harness import conditions
from benchmarks.particle_flows import (
    LJ,
    LJ_OPTIONS,
    OPTIONS,
    SYSTEM,
    chains,
    flows,
    kept,
    lj_chains,
    lj_flow,
)
from benchmarks.particle_histograms import compared, compared_chains
from sciflow import cnf
from sciflow.metrics import bar, chain_mean, ess, histogram_distance, r_hat
from sciflow.systems import DoubleWellParticles, LennardJones, PlanarCluster, planar_cluster

SEEDS = (0,)
SCORE, FLOOR = 2, 3
N_SAMPLES = 10_000  # of the independent tight solve
N_LJ = 2048
N_HISTOGRAM = 40_000  # in float32 at 1e-5, for histograms
#: Bins of the energies, in kT, and of the distance of a pair of DW4.
ENERGIES = torch.linspace(-26.0, -12.0, 36, dtype=torch.float64)
DISTANCES = torch.linspace(1.0, 8.0, 71, dtype=torch.float64)
LJ_ENERGIES = torch.linspace(-18.0, 26.0, 23, dtype=torch.float64)


def score(
    flow: cnf.ContinuousFlow,
    system: DoubleWellParticles | LennardJones,
    target: torch.Tensor,
    n: int,
    tolerance: float,
    seed: int,
) -> dict[str, Any]:
    """A row: effective sample size and free energies by an independent tight solve.

    ``ess_on_chains`` is Z / E[w] over samples of the target: modes that the flow misses lower
    it, while the samples of the flow know nothing of them. ``uncovered`` is the share of them
    whose weight is above that of all samples of the flow.
    """
    tight = flow.double().with_solver("dopri5", tolerance, tolerance)
    bg = cnf.BoltzmannGenerator(tight, system.potential, chunk=1024)
    random = torch.Generator(flow.shift.device).manual_seed(1000 + seed)
    drawn = bg.sample(n, random)
    one = drawn.free_energy(random)
    there = bg.weigh(target.to(flow.shift)).log_weight
    two = bar(-drawn.log_weight, there)
    log_mean = float(there.logsumexp(0)) - math.log(len(there))
    energy = drawn.mean(drawn.energy)
    return {
        "ess": drawn.ess,
        "ess_on_chains": math.exp(-two.value - log_mean),
        "F_reweighted": one.value,
        "+-": one.error,
        "F_bridge": two.value,
        "+- ": two.error,
        "F_bound": one.bound,
        "mean_energy": energy[0],
        "+-  ": energy[1],
        "uncovered": float((there > drawn.log_weight.max()).double().mean()),
        "growth": {
            f"n={k}": share(drawn.log_weight[:k]) for k in (n // 16, n // 8, n // 4, n // 2, n)
        },
        "energies": drawn.energy.tolist(),
        "log_weights": drawn.log_weight.tolist(),
    }


def share(log_weight: torch.Tensor) -> float:
    """Effective share of samples."""
    return float(ess(log_weight)) / len(log_weight)


def histograms(flow: cnf.ContinuousFlow, exact: PlanarCluster, seed: int) -> dict[str, Any]:
    """A row: total variation of reweighted histograms."""
    bg = cnf.BoltzmannGenerator(flow.float(), SYSTEM.potential)
    random = torch.Generator(flow.shift.device).manual_seed(2000 + seed)
    drawn = bg.sample(N_HISTOGRAM, random)
    energy, weights = SYSTEM.potential(drawn.x.double()).cpu(), drawn.weights.cpu()
    truth = energies(SYSTEM, chains(SCORE))
    centres, masses = exact_masses(exact)
    pairs = SYSTEM.distances(drawn.x.double()).cpu()
    repeated = weights[:, None].expand_as(pairs)
    return {
        **compared(energy, weights, truth, ENERGIES),
        "unweighted": histogram_distance(energy, truth.flatten(), ENERGIES),
        "distance_tv_to_exact": histogram_distance(
            pairs.flatten(), centres, DISTANCES, repeated.flatten(), masses
        ),
        "effective": drawn.ess * N_HISTOGRAM,
    }


def energies(system: DoubleWellParticles | LennardJones, x: torch.Tensor) -> torch.Tensor:
    """Energies (draws, chains) of draws (draws, chains, d)."""
    return system.potential(x.flatten(0, 1)).view(x.shape[:2])


def floor(n: float, exact: PlanarCluster) -> dict[str, dict[str, Any]]:
    """What independent Markov chains reach: all of them, and as many as a flow's samples."""
    one, two = (energies(SYSTEM, chains(seed)) for seed in (SCORE, FLOOR))
    centres, masses = exact_masses(exact)
    x = chains(FLOOR).flatten(0, 1)
    few = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[: int(n)]

    def distances(x: torch.Tensor) -> float:
        return histogram_distance(SYSTEM.distances(x).flatten(), centres, DISTANCES, None, masses)

    return {
        "two sets of chains": {
            **compared_chains(two, one, ENERGIES),
            "distance_tv_to_exact": distances(x),
            "effective": len(x),
        },
        f"{int(n)} draws against chains": {
            **compared(two.flatten()[few], torch.ones(len(few)).double(), one, ENERGIES),
            "distance_tv_to_exact": distances(x[few]),
            "effective": len(few),
        },
    }


def lj_histograms(row: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Rows: energies of LJ13 of the reweighted flow, and the floor of two sets of chains."""
    one, two = (energies(LJ, lj_chains(seed)) for seed in (SCORE, FLOOR))
    energy, log_weight = (
        torch.tensor(row[k], dtype=torch.float64) for k in ("energies", "log_weights")
    )
    finite = energy.clamp(max=1e6)  # particles that touch have no weight
    means = {name: chain_mean(x) for name, x in (("one", one), ("two", two))}
    return {
        "flow matching, seed 0": {
            **compared(finite, log_weight.softmax(0), one, LJ_ENERGIES),
            "unweighted": histogram_distance(finite, one.flatten(), LJ_ENERGIES),
            "effective": row["ess"] * len(energy),
            "mean_energy": row["mean_energy"],
            "+- ": row["+-  "],
        },
        "two sets of chains": {
            **compared_chains(two, one, LJ_ENERGIES),
            "mean_energy": means["one"].value,
            "+- ": means["one"].error,
            "r_hat": r_hat(one),
        },
    }


def exact_masses(exact: PlanarCluster) -> tuple[torch.Tensor, torch.Tensor]:
    """Centres of the bins of the distance, and their masses by the trapezoidal rule."""
    h = exact.r[1] - exact.r[0]
    inner = (exact.density[1:] + exact.density[:-1]) / 2 * h
    cumulative = torch.cat([torch.zeros(1, dtype=torch.float64), inner.cumsum(0)])
    place = ((DISTANCES - exact.r[0]) / h).clamp(0, len(inner) - 1e-9)
    k = place.long()
    at = cumulative[k] + (place - k) * (cumulative[k + 1] - cumulative[k])
    return (DISTANCES[1:] + DISTANCES[:-1]) / 2, at.diff()


def run(device: str) -> dict[str, Any]:
    """Train, or take what is there, and score."""
    exact = planar_cluster(SYSTEM, spacing=0.06)
    energy = energies(SYSTEM, chains(SCORE))
    mean = chain_mean(energy)
    fits, shapes, stability, growth = {}, {}, {}, {}
    for seed in SEEDS:
        for stage, (flow, notes) in flows(seed, device).items():
            name = f"{stage}, seed {seed}"
            target = chains(SCORE)[::30].flatten(0, 1)  # 600 transitions apart
            solve = partial(score, flow, SYSTEM, target, N_SAMPLES, 1e-6, seed)
            row = kept(name, solve)
            fits[name] = shown(row) | {
                "reweighted - exact": row["F_reweighted"] - exact.free_energy,
                "bridge - exact": row["F_bridge"] - exact.free_energy,
                "train_cpu_s": notes["cpu_s"],
            }
            growth[f"DW4, {name}"] = halved(row)
            if stage == "tuned":
                shapes[name] = kept(f"{name}-tv", partial(histograms, flow, exact, seed))
                stability[name] = {f"eval {k + 1}": v for k, v in enumerate(notes["ess"])}
    flow, notes = lj_flow(device)
    target = lj_chains(SCORE)[::8].flatten(0, 1)
    row = kept("lj13, seed 0", partial(score, flow, LJ, target, N_LJ, 1e-5, 0))
    growth["LJ13, flow matching, seed 0"] = halved(row)
    lj = {"flow matching, seed 0": shown(row) | {"train_cpu_s": notes["cpu_s"]}}
    n = min(row["effective"] for row in shapes.values())
    chain = {
        "mean energy": {"chains": mean.value, "error": mean.error, "exact": exact.mean_energy},
        "r_hat of the energy": {"chains": r_hat(energy)},
        "free energy": {"exact": exact.free_energy},
    }
    return {
        "conditions": conditions(device),
        "settings": {
            "dw4": OPTIONS,
            "lj13": LJ_OPTIONS,
            "n_samples": N_SAMPLES,
            "n_lj": N_LJ,
            "n_histogram": N_HISTOGRAM,
        },
        "tables": {
            "DW4: flow, tight solve": fits,
            "DW4: total variation": {**shapes, **floor(n, exact)},
            "DW4: effective sample size during tuning": stability,
            "DW4: truth": chain,
            "LJ13: flow, tight solve": lj,
            "LJ13: total variation": lj_histograms(row),
            "effective sample size of the first samples": growth,
        },
    }


def halved(row: dict[str, Any]) -> dict[str, Any]:
    """Effective sample size of the first part of n samples, up to all of them."""
    return dict(zip(("n/16", "n/8", "n/4", "n/2", "n"), row["growth"].values(), strict=True))


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """The columns of a table."""
    return {k: v for k, v in row.items() if k not in ("growth", "energies", "log_weights")}

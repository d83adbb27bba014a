"""Boltzmann generators of four particles (DW4), against quadrature and long Markov chains.

The chains that a flow is trained on, those that it is scored on, and a third set for the floor
come from different seeds. Flows and chains are kept in ``runs/particles``; what is there is not
computed again.
"""

import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import conditions
from sciflow import cnf
from sciflow.cnf.particles_fit import ParticleOptions, tune
from sciflow.metrics import chain_mean, histogram_distance, r_hat
from sciflow.systems import DoubleWellParticles, PlanarCluster, hmc_chains, planar_cluster
from sciflow.train import load_metadata

KEEP = Path("runs/particles")
SEEDS = (0,)
OPTIONS = {"matching_steps": 5000, "tuning_steps": 1500, "compile": True, "progress": False}
TRAIN, SCORE, FLOOR = 1, 2, 3
N_SAMPLES = 10_000  # of the independent tight solve
N_HISTOGRAM = 60_000  # in float32 at 1e-5, for histograms
SYSTEM = DoubleWellParticles()
#: Bins of the energy, which lie between -26 and -8 kT, and of the distance of a pair.
ENERGIES = torch.linspace(-26.0, -12.0, 36, dtype=torch.float64)
DISTANCES = torch.linspace(1.0, 8.0, 71, dtype=torch.float64)


def chains(seed: int) -> torch.Tensor:
    """Draws (60, 2000, 8) of 2000 chains at kT = 1; every draw is 20 transitions apart."""
    path = KEEP / f"chains-{seed}.pt"
    if not path.is_file():
        generator = torch.Generator().manual_seed(seed)
        start = 1.8 * torch.randn(2000, 8, generator=generator, dtype=torch.float64)
        drawn = hmc_chains(
            SYSTEM, start, 60, generator, step=0.1, n_leapfrog=8, thin=20, warmup=300
        )
        KEEP.mkdir(parents=True, exist_ok=True)
        torch.save(SYSTEM.remove_mean(drawn.x.flatten(0, 1)).view_as(drawn.x), path)
    return torch.load(path)


def flows(seed: int, device: str) -> dict[str, tuple[cnf.ContinuousFlow, dict[str, Any]]]:
    """The flow after each stage, and what its training took and showed."""
    stages = {}
    flow = None
    x = chains(TRAIN).flatten(0, 1).float()
    for stage in ("flow matching", "tuned"):
        path = KEEP / f"dw4-{seed}-{stage.replace(' ', '-')}.safetensors"
        if not path.is_file():
            begin = time.process_time()
            settings = {**OPTIONS, "seed": seed, "device": device}
            if flow is None:
                flow = cnf.fit_particles(x, 4, **{**settings, "tuning_steps": 0})
                notes: dict[str, Any] = {}
            else:
                options = ParticleOptions(**settings)
                flow = tune(flow, x.to(flow.shift), SYSTEM.potential, 1.0, options)
                notes = {"ess": flow.history.series("eval/ess")[1]}
            notes["cpu_s"] = time.process_time() - begin
            flow.save(path, extra=notes)
        flow = cnf.load(path)
        stages[stage] = (flow.to(device), load_metadata(path).extra)
    return stages


def score(flow: cnf.ContinuousFlow, exact: PlanarCluster, seed: int) -> dict[str, Any]:
    """A row: effective sample size and free energy by an independent tight solve."""
    tight = flow.double().with_solver("dopri5", 1e-6, 1e-6)
    bg = cnf.BoltzmannGenerator(tight, SYSTEM.potential)
    random = torch.Generator(flow.shift.device).manual_seed(1000 + seed)
    drawn = bg.sample(N_SAMPLES, random)
    estimate = drawn.free_energy(random)
    target = chains(SCORE)[::15].flatten(0, 1)  # 300 transitions apart
    bridge = bg.bridge(N_SAMPLES, target.to(flow.shift), random)
    return {
        "ess": drawn.ess,
        "reverse_kl": estimate.bound - exact.free_energy,
        "F_reweighted_error": estimate.value - exact.free_energy,
        "its_standard_error": estimate.error,
        "F_bridge_error": bridge.value - exact.free_energy,
        "its_standard_error_": bridge.error,
    }


def histograms(flow: cnf.ContinuousFlow, exact: PlanarCluster, seed: int) -> dict[str, Any]:
    """A row: total variation of reweighted histograms."""
    bg = cnf.BoltzmannGenerator(flow.float(), SYSTEM.potential)
    random = torch.Generator(flow.shift.device).manual_seed(2000 + seed)
    drawn = bg.sample(N_HISTOGRAM, random)
    energy, weights = SYSTEM.potential(drawn.x.double()), drawn.weights
    truth = chains(SCORE).flatten(0, 1)
    centres, masses = exact_masses(exact)
    pairs = SYSTEM.distances(drawn.x.double())
    repeated = weights[:, None].expand_as(pairs)
    return {
        "energy_tv": histogram_distance(energy, SYSTEM.potential(truth), ENERGIES, weights),
        "energy_tv_unweighted": histogram_distance(energy, SYSTEM.potential(truth), ENERGIES),
        "distance_tv_to_exact": histogram_distance(
            pairs.flatten(), centres, DISTANCES, repeated.flatten(), masses
        ),
        "effective": drawn.ess * N_HISTOGRAM,
    }


def floor(n: float, exact: PlanarCluster) -> dict[str, dict[str, Any]]:
    """What independent Markov chains reach: all of them, and as many as a flow's samples."""
    one, two = (chains(seed).flatten(0, 1) for seed in (SCORE, FLOOR))
    centres, masses = exact_masses(exact)
    rows = {}
    few = torch.randperm(len(two), generator=torch.Generator().manual_seed(0))[: int(n)]
    for name, x in (("chains", two), (f"{int(n)} of their draws", two[few])):
        rows[name] = {
            "energy_tv": histogram_distance(
                SYSTEM.potential(x), SYSTEM.potential(one), ENERGIES
            ),
            "distance_tv_to_exact": histogram_distance(
                SYSTEM.distances(x).flatten(), centres, DISTANCES, None, masses
            ),
            "effective": len(x),
        }
    return rows


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
    energy = SYSTEM.potential(chains(SCORE).flatten(0, 1)).view(60, 2000)
    mean = chain_mean(energy)
    fits, shapes, stability = {}, {}, {}
    for seed in SEEDS:
        for stage, (flow, notes) in flows(seed, device).items():
            name = f"{stage}, seed {seed}"
            fits[name] = {**score(flow, exact, seed), "train_cpu_s": notes["cpu_s"]}
            if stage == "tuned":
                shapes[name] = histograms(flow, exact, seed)
                stability[name] = {f"eval {k + 1}": v for k, v in enumerate(notes["ess"])}
    n = min(row["effective"] for row in shapes.values())
    chain = {
        "mean energy": {"chains": mean.value, "error": mean.error, "exact": exact.mean_energy},
        "r_hat of the energy": {"chains": r_hat(energy)},
        "free energy": {"exact": exact.free_energy},
    }
    return {
        "conditions": conditions(device),
        "settings": {**OPTIONS, "n_samples": N_SAMPLES, "n_histogram": N_HISTOGRAM},
        "tables": {
            "DW4: flow, tight solve": fits,
            "DW4: total variation": {**shapes, **floor(n, exact)},
            "DW4: effective sample size during tuning": stability,
            "DW4: truth": chain,
        },
    }

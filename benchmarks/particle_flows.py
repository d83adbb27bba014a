"""Chains and flows of DW4 and LJ13; what lies in ``runs/particles`` is not computed again."""

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sciflow import cnf
from sciflow.cnf.particles_fit import ParticleOptions, tune
from sciflow.systems import DoubleWellParticles, LennardJones, hmc_chains
from sciflow.train import load_metadata

KEEP = Path("runs/particles")
OPTIONS = {
    "matching_steps": 5000,
    "tuning_steps": 600,
    "compile": True,
    "progress": False,
}
LJ_OPTIONS = {
    "matching_steps": 2000,
    "matching_batch": 64,
    "n_radial": 32,
    "tuning_steps": 0,
    "progress": False,
}
TRAIN = 1
SYSTEM, LJ = DoubleWellParticles(), LennardJones()


def kept(name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A row that was computed before, or is now."""
    path = KEEP / f"{name.replace(' ', '-').replace(',', '')}.json"
    if not path.is_file():
        path.write_text(json.dumps(compute()))
    return json.loads(path.read_text())


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
            out = KEEP / f"dw4-{seed}"
            settings = {**OPTIONS, "seed": seed, "device": device, "out": out, "resume": True}
            if flow is None:
                flow = cnf.fit_particles(x, 4, **{**settings, "tuning_steps": 0})
                notes: dict[str, Any] = {}
            else:
                options = ParticleOptions(**settings)
                # In place: the flow of the stage before stays as it is.
                flow = tune(copy.deepcopy(flow), x.to(flow.shift), SYSTEM.potential, 1.0, options)
                notes = {"ess": flow.history.series("eval/ess")[1]}
            notes["cpu_s"] = time.process_time() - begin
            flow.save(path, extra=notes)
        flow = cnf.load(path)
        stages[stage] = (flow.to(device), load_metadata(path).extra)
    return stages


def lj_chains(seed: int) -> torch.Tensor:
    """Draws (40, 200, 39) of 200 chains of LJ13 at kT = epsilon, from a jittered lattice."""
    path = KEEP / f"lj-chains-{seed}.pt"
    if not path.is_file():
        generator = torch.Generator().manual_seed(seed)
        lattice = 1.1 * torch.cartesian_prod(*[torch.arange(3.0, dtype=torch.float64)] * 3)[:13]
        noise = torch.randn(200, 13, 3, generator=generator, dtype=torch.float64)
        start = LJ.remove_mean((lattice + 0.05 * noise).flatten(1))
        drawn = hmc_chains(
            LJ, start, 40, generator, step=0.025, n_leapfrog=12, thin=10, warmup=150
        )
        KEEP.mkdir(parents=True, exist_ok=True)
        torch.save(LJ.remove_mean(drawn.x.flatten(0, 1)).view_as(drawn.x), path)
    return torch.load(path)


def lj_flow(device: str) -> tuple[cnf.ContinuousFlow, dict[str, Any]]:
    """A flow of LJ13 by flow matching alone."""
    path = KEEP / "lj13-0.safetensors"
    if not path.is_file():
        x, begin = lj_chains(TRAIN).flatten(0, 1).float(), time.process_time()
        flow = cnf.fit_particles(x, 13, device=device, **LJ_OPTIONS)
        flow.save(path, extra={"cpu_s": time.process_time() - begin})
    return cnf.load(path).to(device), load_metadata(path).extra

"""Ground states beside those of DeepQMC: same size of network, same CPU seconds, same evaluation.

DeepQMC needs packages that sciflow's environment does not have; the variable ``DEEPQMC_PYTHON``
names an interpreter that has them (see `deepqmc_peer`). Both train a Psiformer (width 64, 2
layers, 4 heads, 4 determinants) on 256 walkers by their default natural gradient; ours a FermiNet
of the default size besides. Frozen parameters are then evaluated by 1024 fresh walkers, with more
local energies of each where errors are small; a walker is one block of the error bar. The seconds
of DeepQMC are those of its training steps alone; ours count everything but the evaluation.
``SEEDS`` in the environment shortens it.
"""

import json
import os
import signal
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import conditions, seeds
from sciflow import DataError, wqmc

# Exact energy [hartree], CPU seconds of the training, local energies of each walker.
CASES = {"He": (-2.903724, 60.0, 128), "Be": (-14.667356, 120.0, 16)}
ANSAETZE: dict[str, dict[str, Any]] = {
    "sciflow, psiformer": {"ansatz": "psiformer", "width": 64, "depth": 2},
    "sciflow, ferminet": {"ansatz": "ferminet"},
}
PEER = "DeepQMC 1.2.0, psiformer, KFAC"


def ours(
    molecule: str, seconds: float, seed: int, batches: int, device: str, **options: Any
) -> dict[str, Any]:
    """As many updates as the CPU seconds allow, by a timer that interrupts the fit."""
    options |= {"device": device, "progress": False, "evaluation_walkers": 2}
    options |= {"evaluation_batches": 2, "seed": seed, "determinants": 4}
    wqmc.fit(molecule, steps=2, **options)  # loads what is imported late
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    signal.signal(signal.SIGPROF, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_PROF, seconds)
    began = time.process_time()
    found = wqmc.fit(molecule, steps=10**6, **options)
    used = time.process_time() - began
    frozen = wqmc.evaluate(found.wavefunction, 1024, batches, seed=seed + 2)
    return {
        "energy": frozen.energy,
        "error": frozen.error,
        "variance": frozen.variance,
        "steps": found.history.step[-1],
        "training_cpu_s": used,
        "with_setup_cpu_s": used,
        "parameters": sum(p.numel() for p in found.wavefunction.parameters()),
    }


def theirs(python: str, molecule: str, seconds: float, seed: int, batches: int) -> dict[str, Any]:
    """The same by DeepQMC, in a process of its own.

    Raises:
        RuntimeError: it failed; the last lines of its output are in the message.
    """
    script = Path(__file__).with_name("deepqmc_peer.py")
    command = [python, str(script), molecule, str(seconds), str(seed), str(batches)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"DeepQMC failed: {done.stderr[-500:]}")
    return json.loads(done.stdout.splitlines()[-1])


def run(device: str = "cpu") -> dict[str, Any]:
    python = os.environ.get("DEEPQMC_PYTHON")
    if not python:
        raise DataError("DEEPQMC_PYTHON is not set: an interpreter with DeepQMC (deepqmc_peer.py)")
    drawn = seeds()
    tables: dict[str, Any] = {}
    for molecule, (exact, seconds, batches) in CASES.items():
        runs: dict[str, list[dict[str, Any]]] = {}
        for seed in drawn:  # in turns, so that a busy hour is everyone's
            for name in (*ANSAETZE, PEER):
                own = ANSAETZE.get(name)
                if own is None:
                    found = theirs(python, molecule, seconds, seed, batches)
                else:
                    found = ours(molecule, seconds, seed, batches, device, **own)
                runs.setdefault(name, []).append(found)
                print(f"{molecule}, seed {seed}, {name}: {found}", flush=True)
        rows: dict[str, Any] = {}
        for name, each in runs.items():
            errors = [1e3 * (one["energy"] - exact) for one in each]
            rows[name] = {
                "error [mHa]": statistics.median(errors),
                "+-": 1e3 * statistics.median(one["error"] for one in each),
                "largest": max(errors, key=abs),
                **{key: statistics.median(one[key] for one in each) for key in list(each[0])[2:]},
            }
        tables[f"{molecule}, {seconds:.0f} CPU seconds, {len(drawn)} seeds"] = rows
    return {"conditions": conditions(device), "tables": tables}
